"""Outcomes joined by parts on disk are those that a join of all rows at once finds."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.ml import outcome_join
from airflow_mlops.ml.joining import last_of_each, same_keys
from airflow_mlops.ml.outcome_join import OUTCOME, ROW, Joined, Outcomes

IDS = st.integers(-3, 12)
KINDS: dict[str, tuple[pa.DataType, Any]] = {
    "int": (pa.int64(), int),
    "float": (pa.float64(), float),
    "halves": (pa.float64(), lambda i: i / 2),
    "text": (pa.string(), str),
    "words": (pa.string(), lambda i: f"flight {i}"),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), str),
    "time": (pa.timestamp("us"), lambda i: pd.Timestamp("2026-01-01") + pd.Timedelta(days=i)),
}


def batches(table: pa.Table, cuts: list[int]) -> list[pa.RecordBatch]:
    bounds = [0, *sorted(min(c, table.num_rows) for c in cuts), table.num_rows]
    return [
        pa.RecordBatch.from_arrays([c.combine_chunks() for c in part.columns], names=part.column_names)
        for part in (table.slice(a, b - a) for a, b in pairwise(bounds))
    ]


def whole(said: pa.Table, outcomes: pa.Table) -> tuple[dict[int, Any], int, int]:
    """Outcome by number of the prediction's row, and what came twice, of all rows at once."""

    def there(table: pa.Table, name: str) -> Any:
        return table.filter(outcome_join.known(table[name].combine_chunks()))

    plain = [t.set_column(0, "id", outcome_join.decoded(t["id"].combine_chunks())) for t in (said, outcomes)]
    left, right = there(plain[0], "id"), there(there(plain[1], "id"), "y")
    first, second = same_keys(left["id"].to_pandas(), right["id"].to_pandas())
    mine, twice = last_of_each(left.drop_columns(["id"]).to_pandas(), first)
    known, again = last_of_each(right.drop_columns(["id"]).to_pandas(), second)
    found = known["y"].reindex(mine.index)
    return dict(zip(mine["row"].tolist(), found.tolist(), strict=True)), twice, again


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*KINDS]), st.sampled_from([*KINDS]), st.data())
def test_parts_say_what_all_rows_say_at_once(of_said: str, of_known: str, data: st.DataObject) -> None:
    def ids(kind: str) -> pa.Array:
        made, form = KINDS[kind]
        some = data.draw(st.lists(st.none() | IDS, max_size=25))
        return pa.array([None if i is None else form(i) for i in some], made)

    of, on = ids(of_said), ids(of_known)
    said = pa.table({"id": of, "row": np.arange(len(of))})
    values = data.draw(
        st.lists(st.sampled_from([None, float("nan"), 0.0, 1.0, 2.5]), min_size=len(on), max_size=len(on))
    )
    outcomes = pa.table({"id": on, "y": pa.array(values, pa.float64())})
    cuts = st.lists(st.integers(0, 25), max_size=3)
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(outcome_join, "_PART_ROWS", 4):
        known = Outcomes(batches(outcomes, data.draw(cuts)), "id", "y", Path(folder))
        joined = Joined(known, batches(said, data.draw(cuts)), "id", rows=len(of))
        parts = [*joined]
    for part in parts:
        assert part["row"].to_pylist() == part[ROW].to_pylist() == sorted(part["row"].to_pylist())
    rows = [
        (row, y) for part in parts for row, y in zip(part["row"].to_pylist(), part[OUTCOME].to_pylist(), strict=True)
    ]
    wanted, twice, again = whole(said, outcomes)
    assert {row: y for row, y in rows if y is not None} == {row: y for row, y in wanted.items() if pd.notna(y)}
    assert sorted(row for row, _ in rows) == sorted(wanted)
    assert (joined.twice, joined.again) == (twice, again)


def test_large_numbers_are_no_floats() -> None:
    """Beyond 2**53 two ids that are one apart are the same float."""
    big = 2**60
    said = pa.table({"id": [big, big + 1, None], "x": [1, 2, 3]})
    outcomes = pa.table({"key": [big + 1, None, big], "y": ["late", "never", "early"]})
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(outcome_join, "_PART_ROWS", 1):
        known = Outcomes(outcomes.to_batches(), "key", "y", Path(folder))
        parts = pa.concat_tables([*Joined(known, said.to_batches(), "id", rows=3)]).to_pylist()
    assert {row["x"]: row[OUTCOME] for row in parts} == {1: "early", 2: "late"}
