"""The expectations on what a fleet was asked, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from airflow_mlops.operators.fleet_monitoring import FleetQualityCheckOperator
from airflow_mlops.registry.checks import read_check
from airflow_mlops.store import LocalStore, get_json, layout
from tests.unit.operators.test_fleet_monitoring import FEB, Watched, predict
from tests.unit.operators.test_fleet_runs import DATA, Run, registry, rows, store  # noqa: F401

NOT_NULL = {"expect_column_values_to_not_be_null": {"column": "rain", "mostly": 0.95}}
HOURS = {"expect_column_values_to_be_between": {"column": "hour", "min_value": -9, "max_value": 9}}


def check(execute: Run, *expectations: dict[str, Any], **data: Any) -> dict[str, Any]:
    validate = {"expectations": list(expectations)}
    operator = FleetQualityCheckOperator(
        task_id="monitor.quality", pipeline="routes", data=DATA | data, validate=validate
    )
    return execute(operator, "m", **FEB)  # type: ignore[no-any-return]


def test_keys_whose_scored_rows_are_bad_are_named(
    execute: Run,
    store: LocalStore,  # noqa: F811
    lake: Path,
) -> None:
    Watched(execute).run("one")
    asked = rows(5)
    bad = asked.index[asked["route"] == "r03"][:40]
    asked.loc[bad, "rain"] = None  # 40 of 220 rows of the key, and of about 2,880 in all: they pass together
    asked.loc[4, "route"] = None
    predict(execute, lake, asked)
    found = check(execute, NOT_NULL, HOURS)
    assert found["verdict"] == "failed"
    assert found["failed"] == []
    assert found["failed_keys"] == 1
    assert get_json(store, found["why"])["keys"] == {
        "r03": "validation: 40 of 220 rows fail expect_column_values_to_not_be_null on rain"
    }
    assert found["sentence"].startswith(
        "1 of 14 keys fails: r03: 40 of 220 rows fail expect_column_values_to_not_be_null"
    )
    assert "; all rows together pass all 3 checks" in found["sentence"]
    kept = read_check(store, "routes", "quality")
    assert kept is not None
    assert b"Keys that fail" in store.get(layout.report("people__train", kept["quality"]["report"]))

    assert check(execute, HOURS)["verdict"] == "passed"
    # What reads the target, or a column that was not captured, waits; in any order.
    pair = {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "late", "column_B": "hour"}}
    names = {"expect_table_columns_to_match_set": {"column_set": ["late", "hour"], "exact_match": False}}
    gone = {"expect_column_pair_values_to_be_equal": {"column_A": "hour", "column_B": "gone"}}
    assert check(execute, NOT_NULL, pair, names, gone, HOURS)["failed_keys"] == 1
    hidden = check(execute, NOT_NULL, private=["rain"])
    assert hidden["verdict"] == "passed"
    assert hidden["sentence"].endswith("not checked, because private: rain")


def test_a_whole_column_that_is_bad_fails_without_a_key(execute: Run, store: LocalStore, lake: Path) -> None:  # noqa: F811
    Watched(execute).run("one")
    asked = rows(5)
    asked["hour"] = asked["hour"] + np.float64(50)
    predict(execute, lake, asked)
    found = check(execute, {"expect_column_mean_to_be_between": {"column": "hour", "max_value": 5}})
    assert (found["verdict"], found["failed"], found["failed_keys"]) == (
        "failed", ["expect_column_mean_to_be_between on hour"], 0
    )  # fmt: skip
