"""Which keys of a fleet break an expectation, each by its own rows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data, Fleet, Validate
from airflow_mlops.exceptions import ValidationFailed
from airflow_mlops.ml.expectations import build, run
from airflow_mlops.ml.expectations_parts import run as run_parts
from airflow_mlops.ml.fleet.broken import broken_keys
from airflow_mlops.ml.fleet.plan import broken_of
from airflow_mlops.ml.frames import frames
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.snapshot import Snapshot, write_snapshots
from airflow_mlops.ml.validation import ValidationResult, validate
from airflow_mlops.store import LocalStore

FLEET = Fleet(key="route", min_rows=2)
DATA = Data(source="x.parquet", target="late", id="id", min_rows=2)
SUITE: list[dict[str, dict[str, Any]]] = [
    {"expect_column_values_to_be_unique": {"column": "a"}},
    {"expect_compound_columns_to_be_unique": {"column_list": ["a", "b"], "ignore_row_if": "any_value_is_missing"}},
    {"expect_column_values_to_not_be_null": {"column": "a", "mostly": 0.7}},
    {"expect_column_values_to_be_null": {"column": "a", "mostly": 0.2}},
    {"expect_column_values_to_be_between": {"column": "a", "min_value": 0, "max_value": 2}},
    {"expect_column_values_to_be_between": {"column": "a", "max_value": 1, "mostly": 0.5}},
    {
        "expect_column_values_to_be_in_set": {
            "column": "b", "value_set": ["x"], "mostly": 0.6, "row_condition": "a > 0", "condition_parser": "pandas"
        }
    },
    {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "a", "column_B": "c", "mostly": 0.5}},
    {
        "expect_column_pair_values_to_be_equal": {
            "column_A": "a", "column_B": "c", "mostly": 0.3, "ignore_row_if": "either_value_is_missing"
        }
    },
    {"expect_select_column_values_to_be_unique_within_record": {"column_list": ["a", "c"], "mostly": 0.4}},
    {
        "expect_select_column_values_to_be_unique_within_record": {
            "column_list": ["a", "c"], "mostly": 0.4, "ignore_row_if": "any_value_is_missing"
        }
    },
]  # fmt: skip


def taken(frame: pd.DataFrame, folder: Path) -> tuple[Snapshot, LocalStore]:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    store = LocalStore(folder)
    stream = ((batch,) for batch in table.to_batches(max_chunksize=9))
    (snapshot,) = write_snapshots(store, "routes", stream, table.schema, window=None, sources=[{"kind": "test"}])
    return snapshot, store


numbers = st.one_of(st.none(), st.integers(-1, 3).map(float))
rows = st.lists(
    st.tuples(st.sampled_from(["m", "n", "o"]), numbers, st.sampled_from(["x", "y", None]), numbers),
    min_size=3,
    max_size=30,
)


@settings(max_examples=6, deadline=None)
@given(rows)
def test_a_key_is_judged_as_great_expectations_judges_its_rows_alone(made: list[tuple[Any, ...]]) -> None:
    frame = pd.DataFrame(made, columns=["route", "a", "b", "c"]).astype({"a": float, "c": float})
    frame["b"] = frame["b"].astype(object)
    with tempfile.TemporaryDirectory() as folder:
        snapshot, store = taken(frame, Path(folder))
        suite = build(SUITE, {n: family(t) for n, t in snapshot.columns.items()})
        with frames(snapshot, store) as read:
            checks, _ = run_parts(suite, read)
        for check, expectation in zip(checks, suite, strict=True):
            found = broken_keys(snapshot, store, FLEET, [(check, expectation)])
            alone = {
                key: run([expectation], of_key.reset_index(drop=True))[0][0].success
                for key, of_key in frame.groupby("route")
            }
            assert set(found.keys) == {key for key, good in alone.items() if not good}, expectation.arguments
            assert found.rows.tolist() == np.flatnonzero(frame["route"].isin(found.keys)).tolist()
            assert not found.unplaced


def frame_of_routes() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"route": np.repeat(["m", "n", "o"], 40), "id": range(120), "hour": rng.normal(size=120)})
    frame["late"] = rng.normal(size=120)
    return frame


def checked(frame: pd.DataFrame, folder: Path, *expectations: dict[str, Any], **config: Any) -> ValidationResult:
    snapshot, store = taken(frame, folder)
    made = Validate.model_validate({"expectations": list(expectations), **config})
    return validate(snapshot, store, made, DATA, fleet=FLEET)


def test_what_all_rows_pass_and_a_key_does_not_is_no_contradiction(tmp_path: Path) -> None:
    frame = frame_of_routes()
    frame.loc[3:5, "hour"] = np.nan
    found = checked(frame, tmp_path, {"expect_column_values_to_not_be_null": {"column": "hour", "mostly": 0.95}})
    assert found.sentence.startswith(
        "all 4 checks passed on all rows together; by its own rows 1 of 3 keys fails and is "
    )
    assert found.sentence.endswith("set aside (m) with 40 rows, 80 go on")


def test_a_bad_key_is_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    frame = frame_of_routes()
    frame.loc[3:5, "hour"] = np.nan  # 3 of 120 rows: all rows together are good enough
    frame.loc[[90, 91], "late"] = [np.nan, np.inf]
    found = checked(frame, tmp_path, {"expect_column_values_to_not_be_null": {"column": "hour", "mostly": 0.95}})
    found.check()
    assert found.broken == {
        "m": "validation: 3 of 40 rows fail expect_column_values_to_not_be_null on hour",
        "o": "validation: 2 of 40 rows fail target is not null on late",
    }
    assert found.snapshot.rows == 40
    assert found.quarantined is not None
    assert found.quarantined.rows == 80
    assert found.sentence.endswith(
        "; by their own rows 2 of 3 keys fail and are set aside (m, o) with 80 rows, 40 go on"
    )
    store = LocalStore(tmp_path)
    assert broken_of(store, {**found.snapshot.to_ref(), "validation": found.evidence}) == found.broken
    assert "Keys that fail" in found.html


def test_what_no_key_is_at_fault_for_stops_all(tmp_path: Path) -> None:
    frame = frame_of_routes()
    frame.loc[3, "late"] = np.nan
    found = checked(frame, tmp_path, {"expect_column_mean_to_be_between": {"column": "hour", "min_value": 5}})
    assert not found.broken
    with pytest.raises(ValidationFailed, match="not only single keys are at fault"):
        found.check()


def test_an_order_is_that_of_all_rows(tmp_path: Path) -> None:
    frame = frame_of_routes().sample(frac=1, random_state=0)
    found = checked(frame, tmp_path, {"expect_column_values_to_be_increasing": {"column": "id"}})
    with pytest.raises(ValidationFailed, match="not only single keys are at fault"):
        found.check()
    again = {"expect_column_values_to_be_unique": {"column": "day"}}
    found = checked(frame.assign(day=frame["id"] % 40), tmp_path, again, schema="off")
    found.check()  # each key has each day once
    assert not found.broken


def test_rows_without_a_key_are_set_aside(tmp_path: Path) -> None:
    frame = frame_of_routes()
    frame.loc[[2, 3], "route"] = [None, ""]
    frame.loc[[3, 50], "hour"] = np.nan
    entry = {"expect_column_values_to_not_be_null": {"column": "hour"}}
    found = checked(frame, tmp_path, entry)
    found.check()
    assert [*found.broken] == ["n"]
    assert found.snapshot.rows == 120 - 40 - 2
    assert "rows have a key on route: 2 unexpected (1.67 %)" in found.sentence
    assert found.sentence.endswith("fails and is set aside (n) with 40 rows, 2 rows without a key set aside, 78 go on")
    alone = checked(frame.fillna({"hour": 0.0}), tmp_path, entry)
    alone.check()
    assert not alone.broken
    assert alone.snapshot.rows == 118


def test_nothing_is_left_where_all_keys_are_broken(tmp_path: Path) -> None:
    frame = frame_of_routes().assign(hour=np.nan)
    found = checked(frame, tmp_path, {"expect_column_values_to_not_be_null": {"column": "hour"}})
    with pytest.raises(ValidationFailed, match="without the rows at fault 0 are left, and 2 are needed"):
        found.check()
    assert found.quarantined is None


def test_quarantine_takes_rows_and_unlabelled_keys(tmp_path: Path) -> None:
    frame = frame_of_routes()
    frame.loc[3:5, "hour"] = np.nan
    frame.loc[90, "late"] = np.nan
    entry = {"expect_column_values_to_not_be_null": {"column": "hour"}}
    found = checked(frame, tmp_path, entry, on_failure="quarantine")
    found.check()
    assert [*found.broken] == ["o"]
    assert found.snapshot.rows == 77
    assert found.sentence.endswith("(o) with 40 rows, 3 rows quarantined, 77 go on")
    warned = checked(frame, tmp_path, entry, on_failure="warn")
    warned.check()
    assert not warned.broken
    assert warned.snapshot.rows == 120
