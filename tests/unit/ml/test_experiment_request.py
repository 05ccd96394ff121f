"""The evidence of a request for an experiment in words, whoever has sent it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.ml.experiment_request import told_of

MONITORING = {
    "window_start": "2026-04-01T00:00:00+00:00", "window_end": "2026-05-01T00:00:00+00:00", "promote": True,
    "replay": None, "start": "event", "request": "experiment-1", "reasons": ["drift"],
    "sentence": "a candidate did not become champion: v2", "details": {"drift": "visits drifted"},
    "versions": [{"sentence": "it is more than 0.05 worse", "verdict": "rolled back", "version": 2}],
    "windows": [{"sentence": "roc_auc 0.6", "window": "w1"}, {"sentence": "roc_auc 0.5", "window": "w2"}],
}  # fmt: skip


def test_monitorings_request() -> None:
    assert told_of(MONITORING) == [
        ("sentence", ["a candidate did not become champion: v2"]),
        ("alarms", ["drift: visits drifted"]),
        ("versions", ["v2 rolled back: it is more than 0.05 worse"]),
        ("windows", ["w1: roc_auc 0.6", "w2: roc_auc 0.5"]),
        ("request", ["experiment-1"]),
    ]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from([*MONITORING, "ticket"]), json, max_size=6))
def test_anybodys_event_is_told(extra: dict[str, Any]) -> None:
    told = dict(told_of(extra | {"ticket": {"no": 7}}))
    assert told["ticket"] == ['{"no": 7}']
    assert all(isinstance(line, str) for lines in told.values() for line in lines)
