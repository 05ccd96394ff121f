from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_mlops.config.models import Data, LabelLimits, Validate
from airflow_mlops.ml.frames import frames
from airflow_mlops.ml.label_quality import _rates, label_checks, label_quality
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.ml.validation import validate
from airflow_mlops.store import LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def taken(store, frame, chunk=7):
    table = pa.Table.from_pandas(frame, preserve_index=False)
    batches = ((b,) for b in table.to_batches(max_chunksize=chunk))
    return write_snapshots(store, "p", batches, table.schema, window=None, sources=[{"kind": "files", "uri": "x"}])[0]


def data(**more):
    return Data.model_validate({"source": "x", "target": "y", "min_rows": 1, **more})


def people(**more):
    frame = pd.DataFrame(
        {
            "id": range(8),
            "name": list("abcdefgh"),
            "age": [1.0, 1.0, 2.0, 2.0, 3.0, 4.0, np.nan, np.nan],
            "town": ["n", "n", "s", "s", "s", "s", None, None],
            "y": ["ok", "late", "ok", "ok", "ok", "late", "late", "ok"],
        }
    )
    return frame.assign(**more)


def test_equal_rows_with_different_labels_are_counted(store):
    found = label_quality(taken(store, people()), store, data(id="id", exclude=["name"]))
    assert (found.rows, found.missing) == (8, 0)
    # rows 1 and 2, and 7 and 8, whose gaps are equal; rows 3 and 4 agree
    assert found.conflicts.rows == 4
    assert found.conflicts.share == 0.5
    assert (found.conflicts.groups, found.conflicts.floor) == (2, 2)
    assert found.conflicts.example == (1, 2)
    assert found.conflicts.labels == ("ok", "late")
    assert [(c.label, c.rows) for c in found.classes] == [("ok", 5), ("late", 3)]
    assert found.jump is None
    assert "4 rows (50 %) contradict others" in found.sentence
    json.dumps(found.to_dict(), allow_nan=False)


def test_columns_that_no_model_reads_tell_no_rows_apart(store):
    when = pd.date_range("2024-01-01", periods=8)
    snapshot = taken(store, people(t=when, other_time=when))
    base = {"id": "id", "timestamp": "t"}
    assert label_quality(snapshot, store, data(**base)).conflicts.rows == 0  # each name is another one
    for more in ({"exclude": ["name"]}, {"private": ["name"]}, {"split": {"by": "group", "column": "name"}}):
        assert label_quality(snapshot, store, data(**base, **more)).conflicts.rows == 4


def test_private_numbers_tell_rows_apart_and_are_not_told(store):
    frame = people(fee=[777123.0, 777124.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0])
    snapshot = taken(store, frame)
    config = Validate.model_validate({"labels": {"max_conflicts": 0.0}, "on_failure": "warn"})
    found = validate(snapshot, store, config, data(id="id", exclude=["name"], private=["fee"]))
    assert found.labels.conflicts.rows == 2
    assert "77712" not in found.html + json.dumps(found.evidence)


LABELS = {"text": "xyz", "numbers": [0, 1, 2], "booleans": [True, False]}


@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, -0.0, 1.5, None]), st.sampled_from("ab"), st.sampled_from([0, 1, 2, None])),
        min_size=2,
        max_size=30,
    ),
    st.sampled_from(list(LABELS)),
    st.sampled_from([(3, 2), (1, 2), (1000, 1000)]),
)
@settings(max_examples=50, deadline=None)
def test_conflicts_are_what_a_plain_loop_counts(tmp_path_factory, drawn, labels, sizes):
    store = LocalStore(tmp_path_factory.mktemp("s"))
    values = LABELS[labels]
    rows = [(a, b, None if y is None else values[y % len(values)]) for a, b, y in drawn]
    frame = pd.DataFrame(rows, columns=["a", "b", "y"]).astype({"a": float, "b": object, "y": object})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_mlops.ml.label_quality.frames", lambda s, store: frames(s, store, sizes[0]))
        patch.setattr("airflow_mlops.ml.hashed.BUCKET_ROWS", sizes[1])
        found = label_quality(taken(store, frame), store, data())
    groups: dict = {}
    for number, (a, b, y) in enumerate(rows, 1):
        if y is not None:
            groups.setdefault((0.0 if a == 0 else a, b), []).append((number, y))
    bad = [[y for _, y in g] for g in groups.values() if len({y for _, y in g}) > 1]
    assert found.missing == sum(y is None for *_, y in rows)
    assert found.conflicts is not None
    assert found.conflicts.rows == sum(map(len, bad))
    assert found.conflicts.groups == len(bad)
    assert found.conflicts.floor == sum(len(g) - max(map(g.count, g)) for g in bad)
    if bad:
        first = next(g for g in groups.values() if len({y for _, y in g}) > 1)
        other = next(o for o in first if o[1] != first[0][1])
        assert found.conflicts.example == (first[0][0], other[0])


def test_a_measure_has_no_classes(store):
    snapshot = taken(store, people(y=np.linspace(0.1, 1, 8)))
    found = label_quality(snapshot, store, data(id="id"))
    assert found.classes is None
    assert "a measure" in found.sentence
    checks = label_checks(found, LabelLimits(max_conflicts=0.5, max_rate_change=0.1), "y")
    assert [c.success for c in checks] == [False, False]
    assert all("this is for classes" in c.observed for c in checks)


def test_missing_labels_are_counted_and_belong_to_no_class(store):
    found = label_quality(
        taken(store, people(y=["ok", None, "ok", None, "ok", "ok", "ok", "ok"])), store, data(id="id")
    )
    assert found.missing == 2
    assert [(c.label, c.rows) for c in found.classes] == [("ok", 6)]
    assert found.conflicts.rows == 0
    nothing = label_quality(taken(store, people(y=[None] * 8)), store, data(id="id"))
    assert (nothing.missing, nothing.classes) == (8, ())


def test_a_jump_needs_size_and_significance(store):
    def judged(now, then, limit=0.1):
        y = ["late"] * now[0] + ["ok"] * now[1]
        snapshot = taken(store, pd.DataFrame({"x": np.arange(len(y)), "y": y}), 10_000)
        reference = [{"class": "late", "rows": then[0]}, {"class": "ok", "rows": then[1]}]
        found = label_quality(snapshot, store, data(), reference=reference)
        (check,) = label_checks(found, LabelLimits(max_rate_change=limit), "y")
        return check

    assert not judged((330, 670), (130, 870)).success
    assert "late: 13 % → 33 %" in judged((330, 670), (130, 870)).observed
    assert judged((3, 7), (13, 87)).success  # 20 points more, of ten rows
    assert judged((3400, 6600), (3000, 7000)).success  # sure, and only 4 points
    assert not judged((3400, 6600), (3000, 7000), 0.03).success
    assert not judged((0, 1000), (300, 700)).success  # a class is gone


def test_numbers_match_their_recorded_form(store):
    snapshot = taken(store, pd.DataFrame({"x": np.arange(4), "y": [1.0, 0.0, 1.0, 0.0]}))
    found = label_quality(snapshot, store, data(), reference=[{"class": 0, "rows": 5}, {"class": 1, "rows": 5}])
    assert [(c.label, c.reference) for c in found.classes] == [("0", 0.5), ("1", 0.5)]
    yes = taken(store, pd.DataFrame({"x": np.arange(4), "y": [True, False, True, False]}))
    found = label_quality(yes, store, data(), reference=[{"class": True, "rows": 5}, {"class": False, "rows": 5}])
    assert {c.label: c.change for c in found.classes} == {"True": 0.0, "False": 0.0}


def test_no_champion_is_no_jump(store):
    found = label_quality(taken(store, people()), store, data(id="id"), reference=None)
    (check,) = label_checks(found, LabelLimits(max_rate_change=0.1), "y")
    assert check.success
    assert check.observed == "no champion to compare with"


def test_limits_block_as_other_checks_do(store):
    snapshot = taken(store, people())
    of = data(id="id", exclude=["name"])
    seen = [{"class": "ok", "rows": 10_000}, {"class": "late", "rows": 1}]
    limits = {"max_conflicts": 0.4, "max_rate_change": 0.1}
    blocked = validate(snapshot, store, Validate.model_validate({"labels": limits}), of, seen=seen)
    assert blocked.blocked
    assert "equal rows have equal labels" in blocked.sentence
    assert "rows 1 and 2: ok, late" in blocked.html
    warned = validate(snapshot, store, Validate.model_validate({"labels": limits, "on_failure": "warn"}), of, seen=seen)
    assert (warned.success, warned.blocked) == (False, False)
    free = validate(snapshot, store, Validate(), of, seen=seen)
    assert free.success
    assert free.evidence["labels"]["conflicts"]["rows"] == 4
    assert "contradict others" in free.html
    assert "Any model gets at least" in free.html


def test_labels_are_escaped_in_the_report(store):
    found = validate(taken(store, people(y=["<b>", "ok"] * 4)), store, Validate(), data(id="id", exclude=["name"]))
    assert "<b></code>" not in found.html
    assert "&lt;b&gt;" in found.html


@pytest.mark.parametrize("limits", [{"max_conflicts": -0.1}, {"max_conflicts": 1.0}, {"max_rate_change": 0.0}])
def test_limits_are_shares(limits):
    with pytest.raises(ValidationError):
        LabelLimits(**limits)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.03, 0.97), (0.01, 0.19, 0.8)])
@pytest.mark.parametrize("sizes", [(30, 1000), (300, 200)])
def test_an_unchanged_rate_is_rarely_said_to_differ(shares, sizes):
    rng = np.random.default_rng(0)
    runs, alarms = 400, 0
    for now, then in zip(*(rng.multinomial(n, shares, size=runs) for n in sizes), strict=True):
        name = dict(enumerate(map(str, range(len(shares)))))
        rates = _rates(
            {name[i]: int(n) for i, n in enumerate(now) if n}, {name[i]: int(n) for i, n in enumerate(then) if n}
        )
        alarms += any(r.differs for r in rates)
    assert alarms / runs <= 0.05 + 2 * (0.05 * 0.95 / runs) ** 0.5
