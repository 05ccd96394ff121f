"""A key whose rows are not fit for use, from the validation to the table of the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.fleet import PartitionOperator
from airflow_mlops.operators.validation import ValidateOperator
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from tests.unit.operators.test_fleet_runs import (  # noqa: F401
    DATA,
    EVALUATE,
    FLEET,
    TRAIN,
    Fleet,
    Run,
    by_key,
    fleet,
    registry,
    rows,
    store,
)

VALIDATE = {"expectations": [{"expect_column_values_to_not_be_null": {"column": "hour"}}]}


class Validated(Fleet):
    """The same steps, with the validation between snapshot and partition."""

    def partition(self, run_id: str, *_: Any, **form: Any) -> list[dict[str, Any]]:
        snapshot = self.execute(
            SnapshotOperator(task_id="data.snapshot", pipeline="routes", data=DATA, gaps=True), run_id
        )
        checked = self.execute(
            ValidateOperator(
                task_id="validate.expectations", pipeline="routes", snapshot=snapshot, data=DATA, validate=VALIDATE,
                fleet=FLEET,
            ),
            run_id,
        )  # fmt: skip
        operator = PartitionOperator(
            task_id="fleet.partition", pipeline="routes", snapshot=checked, fleet=FLEET, data=DATA, train=TRAIN,
            evaluate=EVALUATE,
        )  # fmt: skip
        return self.execute(operator, run_id, **form)


def test_a_key_with_bad_rows_fails_alone_and_teaches_no_parent(
    execute: Run,
    store: LocalStore,  # noqa: F811
    registry: Registry,  # noqa: F811
    lake: Path,
) -> None:
    runs = Validated(execute)
    runs.run("one")
    before = registry.champion("r05")
    assert before is not None
    for number, run_id in enumerate(("two", "three", "four"), 1):
        changed = rows(number)
        changed.loc[changed["route"] == "r05", "hour"] = np.nan
        changed.loc[changed["route"] == "r06", "hour"] = 1e6
        changed.loc[(changed["route"] == "r06") & (np.arange(len(changed)) % 2 == 0), "hour"] = np.nan
        changed.loc[changed.index[changed["route"] == "r08"][:3], "late"] = np.nan
        changed.to_parquet(lake / "routes.parquet")
        decision, result = runs.run(run_id)
    found = by_key(store, result["table"])
    assert found["r05"]["status"] == "failed"
    assert found["r05"]["reason"] == "validation: 220 of 220 rows fail expect_column_values_to_not_be_null on hour"
    # It had rows all the time, so that it has not vanished, and its champion goes on.
    assert registry.champion("r05").number == before.number  # type: ignore[union-attr]
    assert found["r08"]["reason"] == "validation: 3 of 220 rows fail target is not null on late"
    assert "4 failed" in decision["sentence"]  # with `flat`, whose target is always the same
    assert found["B/*"]["status"] == "passed"
    assert found["B/*"]["train_rows"] + found["B/*"]["holdout_rows"] == 4 * 220 + 20  # without r06 and r08


def test_only_broken_keys_are_due(execute: Run, store: LocalStore, lake: Path) -> None:  # noqa: F811
    changed = rows()
    changed.loc[changed["route"] == "r05", "hour"] = np.nan
    changed.to_parquet(lake / "routes.parquet")
    runs = Validated(execute)
    with pytest.raises(AirflowFailException, match="is set aside, r05 because: validation: 220 of"):
        runs.partition("one", keys=["r05"])
    (shard,) = runs.partition("two", keys=["r05", "r01"])
    runs.train(shard, "two")
    counts = runs.decide([shard], "two")["counts"]
    assert (counts["failed"], counts["not_due"]) == (1, 12)
