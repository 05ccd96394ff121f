# ruff: noqa: F811
"""A fleet is watched by its operators: keys that drift are found, asked for, and they alone are trained again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.ml import outcome_join
from airflow_mlops.ml.fleet import performance as performance_module
from airflow_mlops.ml.fleet.alarms import read_alarms
from airflow_mlops.ml.fleet.drift import read_tests
from airflow_mlops.ml.fleet.result import read_newest, read_rows, read_table
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.fleet import PartitionOperator, TrainShardOperator
from airflow_mlops.operators.fleet_monitoring import (
    FleetDriftCheckOperator,
    FleetPerformanceCheckOperator,
    FleetRequestRetrainOperator,
    FleetStalenessCheckOperator,
)
from airflow_mlops.operators.retrain import ClaimRetrainOperator
from airflow_mlops.registry.checks import read_check
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.released import reference_of
from airflow_mlops.store import LocalStore, get_json, layout
from tests.unit.operators.test_fleet_predictions import FEB, partition, publish, shards
from tests.unit.operators.test_fleet_runs import (  # noqa: F401
    DATA,
    EVALUATE,
    FLEET,
    TRAIN,
    Fleet,
    Run,
    registry,
    rows,
    store,
)

RETRAIN = Asset(name="routes.retrain", uri="x-mlops://routes/retrain")
ASKS = {"when": ["drift", "staleness"], "cooldown": "7d"}
JAN = {"window_start": "2013-01-01", "window_end": "2013-02-01"}
MARCH = {"window_start": "2013-03-01", "window_end": "2013-04-01"}


class Watched(Fleet):
    """A fleet whose keys have a reference, trained on January."""

    def partition(self, run_id: str, fleet: dict[str, Any] = FLEET, **form: Any) -> list[dict[str, Any]]:
        snapshot = self.execute(SnapshotOperator(task_id="data.snapshot", pipeline="routes", data=DATA), run_id, **JAN)
        operator = PartitionOperator(
            task_id="fleet.partition", pipeline="routes", snapshot=snapshot, fleet=fleet, data=DATA, train=TRAIN,
            evaluate=EVALUATE,
        )  # fmt: skip
        return self.execute(operator, run_id, **(JAN | form))  # type: ignore[no-any-return]

    def train(self, item: dict[str, Any], run_id: str, processes: int = 1, watched: bool = True) -> dict[str, Any]:
        operator = TrainShardOperator(
            task_id=f"fleet.train_{item['shard']}", pipeline="routes", shard=item, data=DATA, evaluate=EVALUATE,
            processes=processes, watched=watched,
        )  # fmt: skip
        return self.execute(operator, run_id, **JAN)


@pytest.fixture
def fleet(execute: Run, store: LocalStore) -> Watched:
    return Watched(execute)


def predict(execute: Run, lake: Path, frame: pd.DataFrame) -> None:
    frame.drop(columns="late").to_parquet(lake / "new.parquet")
    publish(execute, shards(execute, partition(execute)))


def drift(execute: Run, run_id: str = "m", **more: Any) -> dict[str, Any]:
    operator = FleetDriftCheckOperator(task_id="drift", pipeline="routes", data=DATA, monitor=more)
    return execute(operator, run_id, **FEB)


def ask(checks: dict[str, Any], run_id: str = "m", retrain: Any = ASKS, **form: Any) -> dict[str, Any]:
    """The event's extra, and the answer."""
    operator = FleetRequestRetrainOperator(
        task_id="request", pipeline="routes", checks=checks, retrain=retrain, outlets=[RETRAIN]
    )
    context = stand_in(run_id, **(FEB | form))
    operator.execute(context)  # type: ignore[arg-type]
    return context["outlet_events"][RETRAIN].extra  # type: ignore[no-any-return]


def stand_in(run_id: str, events: Any = None, **params: Any) -> dict[str, Any]:
    ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull"])
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "routes__any", run_id, "any", -1
    run = SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None)
    outlets = {RETRAIN: SimpleNamespace(extra=None)}
    return {"ti": ti, "params": params, "dag_run": run, "outlet_events": outlets, "triggering_asset_events": events}


def claim(extra: dict[str, Any], run_id: str, retrain: Any = ASKS) -> Any:
    asset = MagicMock()
    asset.name = "routes.retrain"
    operator = ClaimRetrainOperator(task_id="claim", pipeline="routes", retrain=retrain)
    return operator.execute(stand_in(run_id, {asset: [SimpleNamespace(extra=extra)]}))  # type: ignore[arg-type]


def moved(*keys: str, seed: int = 7) -> pd.DataFrame:
    """The rows of February: some keys' hours are two σ later."""
    frame = rows(seed)
    frame.loc[frame["route"].isin(keys), "hour"] += 2
    frame.loc[4, "route"] = None
    return frame


def test_only_the_keys_that_drift_are_trained_again(
    execute: Run, fleet: Watched, store: LocalStore, registry: Registry, lake: Path
) -> None:
    fleet.run("one")
    predict(execute, lake, moved("r02", "r07"))
    result = drift(execute)

    assert result["verdict"] == "drift"
    # `flat` has no model, `tiny` too few rows, one row has no key: parents serve them.
    assert (result["keys"], result["drifted_keys"], result["by_parent"]["keys"]) == (12, 2, 3)
    assert "drift in 2 of 12 keys: " in result["sentence"]
    assert "because a parent served: 241 rows of 3 keys" in result["sentence"]
    assert read_alarms(store, result["alarms"]) == {"r02": (1, ("hour",)), "r07": (1, ("hour",))}
    tests = read_tests(store, result["table"])
    assert set(tests["key"]) == {f"r{i:02d}" for i in range(12)} | {"*"}
    assert set(tests.loc[tests["alarm"], "key"]) == {"r02", "r07"}
    check = read_check(store, "routes", "drift")
    assert check is not None
    shown = {c["name"]: c for c in check["drift"]["columns"]}
    assert (shown["hour"]["drifted"], shown["rain"]["drifted"]) == (True, False)
    assert b"r07" in store.get(layout.report("people__train", check["drift"]["report"]))

    extra = ask({"drift": result})
    assert get_json(store, extra["keys"]) == {"r02": ["drift"], "r07": ["drift"]}
    # The next night finds nothing, and the event may have been lost.
    again = ask({"drift": result | {"verdict": "no_drift", "alarms": None}}, "later", **MARCH)
    assert (again["keys"], again["grant"]) == (extra["keys"], extra["grant"])
    assert claim(extra, "two")["reasons"] == ["drift"]
    fleet.run("two", keys=[*get_json(store, extra["keys"])])
    numbers = {str(key): version.number for key, version in registry.champions().items()}
    assert {key for key, number in numbers.items() if number == 2} <= {"r02", "r07"}
    newest = read_newest(store, "routes")
    assert newest is not None
    assert {row["key"] for row in read_rows(store, newest["table"])} == {"r02", "r07"}
    assert newest["counts"]["not_due"] == 12  # ten, `flat` and `tiny`
    # What is broken stays in sight, and what serves keeps its scores.
    known = {row["key"]: row for row in read_table(store, newest["all_keys"]).to_pylist()}
    assert (known["flat"]["status"], known["flat"]["decided_in"]) == ("failed", "one")
    assert (known["r03"]["promoted"], known["r03"]["decided_in"]) == (True, "one")
    assert known["r03"]["metric:r2"] > 0.5
    assert known["r02"]["decided_in"] is None
    assert known["r02"]["promoted"] == (numbers["r02"] == 2)
    assert sum(newest["states"].values()) == len(known) == 17
    first = dict(newest)
    fleet.run("two", keys=["r02", "r07"])  # the same run, cleared
    again = read_newest(store, "routes")
    assert again is not None
    assert again["carried_from"] == first["carried_from"]
    assert {r["key"] for r in read_table(store, again["all_keys"]).to_pylist()} == set(known)


def test_nothing_drifts(execute: Run, fleet: Watched, lake: Path) -> None:
    fleet.run("one")
    predict(execute, lake, rows(7))
    result = drift(execute)
    assert (result["verdict"], result["alarms"]) == ("no_drift", None)
    assert result["sentence"].startswith("no drift in 12 keys (")
    with pytest.raises(AirflowSkipException, match="no alarm that this pipeline retrains on"):
        ask({"drift": result})


def test_a_change_of_all_keys_asks_for_all_that_were_checked(
    execute: Run, fleet: Watched, store: LocalStore, lake: Path
) -> None:
    fleet.run("one")
    frame = rows(7)
    frame["hour"] += 0.25
    predict(execute, lake, frame)
    result = drift(execute)
    assert "drift over all keys in hour" in result["sentence"]
    assert set(read_alarms(store, result["alarms"])) == {f"r{i:02d}" for i in range(12)}


def test_keys_without_a_reference_are_told(execute: Run, store: LocalStore, lake: Path) -> None:
    Fleet(execute).run("one")
    predict(execute, lake, moved("r02"))
    result = drift(execute)
    assert result["verdict"] == "not_enough_data"
    assert "12 keys have no reference, because they were trained without `monitor`" in result["sentence"]


def test_private_columns_are_in_no_reference(execute: Run, fleet: Watched, store: LocalStore, lake: Path) -> None:
    fleet.run("one")
    predict(execute, lake, moved("r02"))
    operator = FleetDriftCheckOperator(task_id="drift", pipeline="routes", data=DATA | {"private": ["hour"]})
    result = execute(operator, "m", **FEB)
    assert result["verdict"] == "no_drift"
    assert "not checked, because private: hour" in result["sentence"]


def test_references_are_given_up_when_no_version_needs_them(
    execute: Run, fleet: Watched, store: LocalStore, registry: Registry, lake: Path
) -> None:
    def kept(number: int) -> bool:
        digest = reference_of(registry.get(number, "r01").record)
        assert digest is not None
        return store.exists(layout.blob(get_json(store, digest)["file"]))

    now = datetime.now(UTC)
    for number, run_id in enumerate(("one", "two", "three")):
        # With little noise each version is shown to be as good as the ones before, and promoted.
        rows(number, skill=5.0).to_parquet(lake / "routes.parquet")
        fleet.run(run_id)
        if number == 0:
            predict(execute, lake, rows(7))
        for days in (10, 20):
            collect(store, now=now + timedelta(days=20 * number + days))
    # The champion and the one that a rollback would bring back.
    assert [kept(number) for number in (1, 2, 3)] == [False, True, True]
    assert {found.severity for found in check(store).findings} <= {"note"}
    # The window that the first models served is checked once more.
    late = drift(execute)
    assert (late["verdict"], late["without_reference"]) == ("not_enough_data", 12)
    assert "12 keys have no reference any more: it was given up, as their models no longer serve" in late["sentence"]
    predict(execute, lake, moved("r02"))
    assert set(read_alarms(store, drift(execute)["alarms"])) == {"r02"}


def test_a_reference_that_is_gone_stops_no_other_key(
    execute: Run, fleet: Watched, store: LocalStore, registry: Registry, lake: Path
) -> None:
    fleet.run("one")
    predict(execute, lake, moved("r02"))
    of = {key: str(reference_of(registry.get(1, key).record)) for key in (f"r{i:02d}" for i in range(12))}
    gone = next(digest for digest in of.values() if digest != of["r02"])
    store.delete(layout.blob(get_json(store, gone)["file"]))
    result = drift(execute)
    assert set(read_alarms(store, result["alarms"])) == {"r02"}
    assert result["without_reference"] == [*of.values()].count(gone) == 12 - result["keys"]


def test_old_models_are_asked_for(execute: Run, fleet: Watched, store: LocalStore, lake: Path) -> None:
    fleet.run("one")
    predict(execute, lake, rows(7)[lambda f: f["route"] != "r03"])

    def check(max_age: str) -> dict[str, Any]:
        stale = FleetStalenessCheckOperator(
            task_id="staleness", pipeline="routes", data=DATA, monitor={"max_age": max_age}
        )
        return execute(stale, "m", **FEB)  # type: ignore[no-any-return]

    fresh = check("30d")
    assert (fresh["verdict"], fresh["alarms"], fresh["ages"]["model"]) == ("fresh", None, 28.0)
    old = check("20d")
    assert old["verdict"] == "stale"
    assert "the rows that 13 of 13 models learned from end more than 20 days before" in old["sentence"]
    # Those of the window: r03 has no row in it, and the model of all rows none to serve.
    assert set(read_alarms(store, old["alarms"])) == {f"r{i:02d}" for i in range(12) if i != 3} | {"A/*", "B/*"}
    extra = ask({"staleness": old})
    assert "r03" not in get_json(store, extra["keys"])


def test_keys_whose_predictions_became_worse_are_asked_for(
    execute: Run, fleet: Watched, store: LocalStore, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.run("one")
    frame = rows(7)
    worse = frame["route"].isin(["r04", "r09"])
    frame.loc[worse, "late"] = np.random.default_rng(3).normal(size=int(worse.sum()))
    predict(execute, lake, frame)
    known = frame.loc[frame["route"] != "r01", ["id", "late"]]
    known.loc[known.index[:3], "late"] = None
    labels = {"source": "outcomes.parquet", "join_on": "id"}

    def check(**more: Any) -> dict[str, Any]:
        operator = FleetPerformanceCheckOperator(
            task_id="performance",
            pipeline="routes",
            data=DATA,
            evaluate=EVALUATE,
            monitor={"labels": labels} | more,
        )
        return execute(operator, "m", **FEB)  # type: ignore[no-any-return]

    waiting = check()
    assert waiting["verdict"] == "pending_labels"
    assert waiting["alarms"] is None
    known.head(100).to_parquet(lake / "outcomes.parquet")
    assert "labels are pending: 85 of 2,640 predictions" in check()["sentence"]
    known.to_parquet(lake / "outcomes.parquet")
    drift(execute)
    result = check()
    assert result["verdict"] == "drop"
    # By parts on disk that are joined and judged one by one, as all at once.
    with monkeypatch.context() as small:
        small.setattr(outcome_join, "_PART_ROWS", 500)
        small.setattr(performance_module, "_GROUP_ROWS", 700)
        assert check() == result
    assert "r2 has fallen in 2 of 11 keys: " in result["sentence"]
    assert "1 key waits for labels" in result["sentence"]
    assert read_alarms(store, result["alarms"]) == {"r04": (1, ()), "r09": (1, ())}
    assert (result["keys"], result["worse_keys"]) == (11, 2)
    assert result["value"] == pytest.approx(result["baseline"], abs=0.1)
    extra = ask({"performance": result}, retrain={"when": ["performance"]})
    assert get_json(store, extra["keys"]) == {"r04": ["performance"], "r09": ["performance"]}

    rows(7)[["id", "late"]].to_parquet(lake / "outcomes.parquet")
    fine = check()
    assert (fine["verdict"], fine["keys"]) == ("ok", 12)
    assert fine["sentence"].startswith("r2 has fallen in none of 12 keys; ")


def test_keys_that_were_trained_without_the_metric_are_counted(
    execute: Run, fleet: Watched, registry: Registry, lake: Path
) -> None:
    """Of two versions that came from elsewhere one has no such metric, and one does not say how it was measured."""
    fleet.run("one")
    for key in ("r00", "r05"):
        record = {name: value for name, value in registry.get(1, key).record.items() if name not in ("of", "rows")}
        if key == "r05":
            record |= {"rows": {"train": 200, "holdout": 40}, "metrics": {"mae": 1.0}}
        registry.register(record, op_id=f"elsewhere-{key}", key=key)
        registry.promote(2, expected=1, op_id=f"promote-{key}", reason="taken in", key=key)
    predict(execute, lake, rows(7))
    rows(7)[["id", "late"]].to_parquet(lake / "outcomes.parquet")

    def check(metric: str) -> dict[str, Any]:
        operator = FleetPerformanceCheckOperator(
            task_id="performance", pipeline="routes", data=DATA, evaluate=EVALUATE,
            monitor={"labels": {"source": "outcomes.parquet", "join_on": "id"}, "performance": {"metric": metric}},
        )  # fmt: skip
        return execute(operator, "m", **FEB)  # type: ignore[no-any-return]

    result = check("r2")
    assert (result["verdict"], result["keys"], result["without_metric"]) == ("ok", 10, 2)
    assert "; 2 keys were trained without r2" in result["sentence"]
    with pytest.raises(AirflowFailException, match="was trained, nor for any other key"):
        check("max_error")


def test_rows_of_one_day_are_no_many_outcomes(execute: Run, fleet: Watched, lake: Path) -> None:
    """With thirty days a key is judged by days; with five its rows count one by one, and the sentence says so."""
    fleet.run("one")
    data = DATA | {"timestamp": "at", "split": {"by": "time"}}
    for days, said in ((30, False), (5, True)):
        frame = rows(7)
        frame["at"] = pd.Timestamp("2013-02-01") + pd.to_timedelta(np.arange(len(frame)) % days, unit="D")
        frame.drop(columns="late").to_parquet(lake / "new.parquet")
        publish(execute, shards(execute, partition(execute, data), data), data)
        frame[["id", "late"]].to_parquet(lake / "outcomes.parquet")
        operator = FleetPerformanceCheckOperator(
            task_id="performance", pipeline="routes", data=data, evaluate=EVALUATE,
            monitor={"labels": {"source": "outcomes.parquet", "join_on": "id"}},
        )  # fmt: skip
        result = execute(operator, "m", **FEB)
        assert result["verdict"] == "ok"
        assert ("rows count as independent in 12 keys" in result["sentence"]) == said
