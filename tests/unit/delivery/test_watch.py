"""What pytest writes down while it runs can be read wherever it was killed."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.delivery.watch import read_record

EVENTS = [
    {"event": "start", "name": "tests/test_ä.py::test_a[\u2028]"},
    {"event": "end", "name": "b", "outcome": "failed", "message": "line\nline", "seconds": 0.1},
    {"event": "finish", "code": 1, "collected": 2},
]
TEXT = "".join(json.dumps(event) + "\n" for event in EVENTS)


@given(st.integers(0, len(TEXT)))
def test_cut_anywhere(end: int) -> None:
    # A line counts once it is whole, its end of line or not.
    whole = sum(end >= len("".join(TEXT.splitlines(keepends=True)[: n + 1])) - 1 for n in range(len(EVENTS)))
    assert read_record(TEXT[:end]) == EVENTS[:whole]


@given(st.text())
def test_what_a_test_writes_itself_breaks_nothing(text: str) -> None:
    assert [event for event in read_record(f"{text}\n{TEXT}") if event in EVENTS][-3:] == EVENTS
