"""A fleet by its operators: divided by key, trained in shards, judged over all keys, promoted key by key."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.config.models import Data
from airflow_mlops.delivery.bundle import laid_out
from airflow_mlops.delivery.tree import write_tree
from airflow_mlops.exceptions import RegistryError
from airflow_mlops.ml.fleet import begin
from airflow_mlops.ml.fleet import champions as champions_module
from airflow_mlops.ml.fleet import shard as shard_module
from airflow_mlops.ml.fleet.chunks import Chunks
from airflow_mlops.ml.fleet.plan import Plan
from airflow_mlops.ml.fleet.prepare import matrix
from airflow_mlops.ml.fleet.result import read_newest, read_rows
from airflow_mlops.ml.fleet.shard import read_result
from airflow_mlops.ml.fleet.training import train_chunk
from airflow_mlops.ml.splitting import Splitter
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.fleet import (
    FleetCompleteOperator,
    FleetGateOperator,
    PartitionOperator,
    TrainShardOperator,
)
from airflow_mlops.operators.fleet_promotion import FleetHandoverOperator, FleetPromoteOperator
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.key_story import key_records
from airflow_mlops.registry.records import Records
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, get_json, layout
from tests.unit.delivery.deliveries import COMMIT, bundle

DATA = {"source": "routes.parquet", "target": "late", "id": "id"}
TRAIN = {"estimator": "sklearn.linear_model.Ridge"}
FLEET = {"key": "route", "parent": "line", "shard_size": 5}
EVALUATE = {
    "metrics": ["r2"],
    "gates": [{"metric": "r2", "at_least": 0.3}, {"metric": "r2", "versus": "champion", "not_worse_by": 0.05}],
}
KEYS = 12

Run = Callable[..., Any]


def rows(seed: int = 0, *, skill: float = 1.0, leave_out: str | None = None) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    each = {f"r{i:02d}": 220 for i in range(KEYS)} | {"tiny": 20, "flat": 220}
    frame = pd.DataFrame({"route": np.repeat(list(each), list(each.values()))})
    frame["line"] = np.where(frame["route"] < "r06", "A", "B")
    frame["id"] = np.arange(len(frame)) + seed * 10**6
    frame["hour"] = rng.normal(size=len(frame))
    frame["rain"] = rng.choice(["no", "some", "much"], len(frame))
    noise = rng.normal(size=len(frame))
    frame["late"] = skill * (2 * frame["hour"] + (frame["rain"] == "much") * 2) + noise
    frame.loc[frame["route"] == "flat", "late"] = 1.0
    frame = frame[frame["route"] != leave_out].sample(frac=1, random_state=seed)
    return frame.reset_index(drop=True)


@pytest.fixture
def store(lake: Path, tmp_path: Path) -> LocalStore:
    rows().to_parquet(lake / "routes.parquet")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def registry(store: LocalStore) -> Registry:
    return Registry(store, "routes")


class Fleet:
    """The steps of ``routes__train``, one after the other."""

    def __init__(self, execute: Run) -> None:
        self.execute = execute

    def partition(
        self, run_id: str, fleet: dict[str, Any] = FLEET, folder: str | None = None, **form: Any
    ) -> list[dict[str, Any]]:
        snapshot = self.execute(SnapshotOperator(task_id="data.snapshot", pipeline="routes", data=DATA), run_id)
        operator = PartitionOperator(
            task_id="fleet.partition",
            pipeline="routes",
            snapshot=snapshot,
            fleet=fleet,
            data=DATA,
            train=TRAIN,
            evaluate=EVALUATE,
            folder=folder,
        )
        return self.execute(operator, run_id, **form)

    def train(self, item: dict[str, Any], run_id: str, processes: int = 1) -> dict[str, Any]:
        operator = TrainShardOperator(
            task_id=f"fleet.train_{item['shard']}",  # the stand-in has no map index
            pipeline="routes",
            shard=item,
            data=DATA,
            evaluate=EVALUATE,
            processes=processes,
        )
        return self.execute(operator, run_id)

    def decide(
        self, shards: list[dict[str, Any]], run_id: str, approval: str = "asked", promote: bool = True
    ) -> dict[str, Any]:
        operator = FleetGateOperator(
            task_id="evaluate.gates", pipeline="routes", shards=shards, evaluate=EVALUATE, approval=approval
        )
        return self.execute(operator, run_id, promote=promote)

    def complete(self, shards: list[dict[str, Any]], run_id: str) -> dict[str, Any]:
        operator = FleetCompleteOperator(task_id="fleet.complete", pipeline="routes", shards=shards)
        return self.execute(operator, run_id)

    def promote(self, decision: dict[str, Any], run_id: str, approval: Any = None, **form: Any) -> dict[str, Any]:
        operator = FleetPromoteOperator(
            task_id="promote.champion",
            pipeline="routes",
            decision=decision,
            approval=approval,
            evaluate=EVALUATE,
            retire_after=2,
        )
        return self.execute(operator, run_id, **form)

    def hand_over(self, decision: dict[str, Any], run_id: str) -> dict[str, Any]:
        operator = FleetHandoverOperator(
            task_id="promote.handover", pipeline="routes", decision=decision, evaluate=EVALUATE
        )
        return self.execute(operator, run_id)

    def run(self, run_id: str, **form: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        shards = self.partition(run_id, **form)
        for item in shards:
            self.train(item, run_id)
        decision = self.decide(shards, run_id)
        return decision, self.promote(decision, run_id)


@pytest.fixture
def fleet(execute: Run, store: LocalStore) -> Fleet:
    return Fleet(execute)


def by_key(store: LocalStore, table: str) -> dict[str, dict[str, Any]]:
    return {row["key"]: row for row in read_rows(store, table)}


def test_every_key_has_its_champion_or_its_reason(
    fleet: Fleet, store: LocalStore, registry: Registry, stored: Any
) -> None:
    _, result = fleet.run("one")

    found = by_key(store, result["table"])
    assert set(found) == {*(f"r{i:02d}" for i in range(KEYS)), "tiny", "flat", "*", "A/*", "B/*"}
    assert found["flat"]["status"] == "failed"
    assert "the target is 1.0 in all" in found["flat"]["reason"]
    assert (found["tiny"]["status"], found["tiny"]["served_by"]) == ("fallback", "B/*")
    promoted = {key for key, row in found.items() if row.get("promoted")}
    assert promoted == {key for key, row in found.items() if row["status"] == "no_baseline"}
    assert {str(key) for key in registry.champions()} == promoted
    assert result["promoted"] == len(promoted) >= KEYS
    assert result["sentence"].startswith(f"{len(promoted)} promoted")
    newest = read_newest(store, "routes")
    assert newest is not None
    assert newest["sentence"] == result["sentence"]
    assert not [key for key in stored() if "/chunks/" in key], "what was under way is cleared away"


def test_a_handover_promotes_and_keeps_a_bundle_of_all_champions(
    fleet: Fleet, store: LocalStore, registry: Registry
) -> None:
    shards = fleet.partition("one")
    for item in shards:
        fleet.train(item, "one")
    done = fleet.hand_over(fleet.decide(shards, "one"), "one")
    assert done["models"] == done["promoted"] == len(registry.champions())
    key = layout.handover("people__train", done["bundle"])
    assert done["uri"].endswith(key)
    with zipfile.ZipFile(io.BytesIO(store.get(key))) as found:
        assert {"predict.py", "models.csv", "models.zip", "SHA256SUMS"} <= set(found.namelist())
    # What the result of the run names stays when garbage is collected.
    newest = read_newest(store, "routes")
    assert newest is not None
    assert (newest["bundle"], newest["counts"]["promoted"]) == (done["bundle"], done["promoted"])
    for days in (60, 120):
        collect(store, now=datetime.now(UTC) + timedelta(days=days))
    assert store.get(key)


def test_a_loaded_model_predicts_what_scikit_learn_does(fleet: Fleet, store: LocalStore, registry: Registry) -> None:
    fleet.run("one")
    version = registry.champion("r03")
    assert version is not None
    record = version.record
    model = fetch_model(store, record["model"], pipeline="routes", key="r03")
    some = rows()
    some = some[some["route"] == "r03"]
    from airflow_mlops.ml.features import FeatureSchema

    inputs = FeatureSchema.from_dict(record["schema"]).check(some)
    said = model.predict(inputs)
    assert np.corrcoef(said, some["late"])[0, 1] > 0.8
    assert [name for name, _ in model.steps] == ["prepare", "model"]
    assert record["snapshot"]["rows"] == len(rows())
    assert record["rows"]["train"] + record["rows"]["holdout"] == 220
    gates = version.notes["gates"][-1]
    assert gates["verdict"] == "no_baseline"


def test_a_second_run_compares_each_key_with_its_own_champion(
    fleet: Fleet, store: LocalStore, registry: Registry, lake: Path
) -> None:
    fleet.run("one")
    frame = rows(1)
    worse = frame["route"] == "r04"
    frame.loc[worse, "hour"] = np.random.default_rng(5).normal(size=int(worse.sum()))
    frame.to_parquet(lake / "routes.parquet")
    _, result = fleet.run("two")

    found = by_key(store, result["table"])
    assert found["r01"]["champion"] == 1
    assert found["r01"]["champion_metrics"]["r2"] > 0.5
    assert found["r01"]["p_value"] < 0.05
    assert found["r04"]["status"] == "rejected"
    assert not found["r04"]["promoted"]
    champion = registry.champion("r01")
    assert champion is not None
    assert champion.number == 2
    assert registry.champion("r04").number == 1  # type: ignore[union-attr]


def test_a_shard_that_dies_goes_on_where_it_stopped(
    fleet: Fleet, store: LocalStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_module, "chunk_size", lambda keys: 2)
    shards = fleet.partition("one", {**FLEET, "shard_size": 50})
    assert len(shards) == 2
    own = shards[1]  # after that of the parents
    trained: list[str] = []

    def dies(settings: Any, chunk: Any) -> Any:
        if len(trained) >= 4:
            raise KeyboardInterrupt
        trained.extend(chunk.bounds)
        return train_chunk(settings, chunk)

    monkeypatch.setattr(shard_module, "train_chunk", dies)
    with pytest.raises(KeyboardInterrupt):
        fleet.train(own, "one")
    assert registry.keys() == []
    first = list(trained)

    def goes_on(settings: Any, chunk: Any) -> Any:
        trained.extend(chunk.bounds)
        return train_chunk(settings, chunk)

    monkeypatch.setattr(shard_module, "train_chunk", goes_on)
    done = fleet.train(own, "one")
    assert len(trained) == len(set(trained)) == done["keys"], "every key exactly once"
    assert trained[: len(first)] == first
    assert len(registry.history()) == done["models"]

    again = fleet.train(own, "one")
    assert again == done
    assert len(trained) == done["keys"]
    assert len(registry.history()) == done["models"]


def test_a_dead_shard_takes_no_other_keys_along(fleet: Fleet, store: LocalStore) -> None:
    shards = fleet.partition("one")
    lost = shards[-1]
    for item in shards[:-1]:
        fleet.train(item, "one")
    result = fleet.promote(fleet.decide(shards, "one"), "one")
    found = by_key(store, result["table"])
    failed = {key for key, row in found.items() if row["status"] == "failed"}
    assert failed
    assert all("its shard did not end" in found[key]["reason"] for key in failed - {"flat"})
    assert result["promoted"] > 0
    assert f"[{lost['shard']}]" in next(found[key]["reason"] for key in failed - {"flat"})


def test_only_the_keys_that_are_due_are_trained(
    fleet: Fleet, store: LocalStore, registry: Registry, lake: Path
) -> None:
    frame = rows()
    frame.loc[frame.index[frame["route"] == "r03"][:9], "rain"] = "storm"
    frame.to_parquet(lake / "routes.parquet")
    fleet.run("one", keys=["r02", "r07"])
    assert {str(key) for key in registry.champions()} == {"r02", "r07"}
    newest = read_newest(store, "routes")
    assert newest is not None
    assert newest["counts"]["not_due"] == KEYS
    # What all models share is learned from all keys: of the two alone, one category is not known.
    record = registry.get(1, "r02").record
    (rain,) = (f for f in record["schema"]["features"] if f["name"] == "rain")
    assert rain["categories"] == ["much", "no", "some", "storm"]
    rows(1, leave_out="r07").to_parquet(lake / "routes.parquet")
    with pytest.raises(AirflowFailException, match="none of the 1 keys to train has rows"):
        fleet.partition("two", keys=["r07"])
    with pytest.raises(AirflowFailException, match=r"1 of the 1 keys to train are neither(.|\n)*did you mean r03"):
        fleet.partition("three", keys=["R03"])


def test_a_key_that_never_had_a_model_is_trained_with_those_that_are_due(
    fleet: Fleet, store: LocalStore, registry: Registry, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(leave_out="r05").to_parquet(lake / "routes.parquet")
    fleet.run("one")
    rows(1).to_parquet(lake / "routes.parquet")
    monkeypatch.setattr(PartitionOperator, "_due", lambda *_: ({"r02"}, False))
    fleet.run("two")
    assert registry.champion("r05") is not None
    newest = read_newest(store, "routes")
    assert newest is not None
    # `flat` never had one either, and cannot be trained this time.
    assert (newest["counts"]["failed"], newest["counts"]["not_due"]) == (1, KEYS - 1)
    monkeypatch.setattr(PartitionOperator, "_due", lambda *_: ({"r02"}, True))
    fleet.run("three")
    newest = read_newest(store, "routes")
    assert newest is not None
    assert "failed" not in newest["counts"]


@pytest.mark.parametrize("by", ["time", "group", "random"])
def test_what_all_models_share_is_learned_from_no_holdout_row(
    fleet: Fleet, store: LocalStore, lake: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Where some keys are trained it is learned from a few rows of each key, which do not show what is held out."""
    monkeypatch.setattr(begin, "SAMPLE_ROWS", 400)
    column = {"group": "day"} if by == "group" else {}
    split = {"by": by, "test": 0.2} | ({"column": "day"} if column else {})
    data = DATA | {"timestamp": "at", "split": split, "exclude": ["day"]}
    frame = rows().sort_values("id", ignore_index=True)
    frame["at"] = pd.Timestamp("2013-01-01") + pd.to_timedelta(np.random.default_rng(3).permutation(len(frame)), "min")
    frame["day"] = np.random.default_rng(4).integers(0, 12, len(frame))
    splitter = Splitter(frame, Data.model_validate(data), TRAIN.get("seed", 7))
    for places in frame.groupby("route").indices.values():
        frame.loc[places[splitter.mask(places)], "rain"] = "storm"
    # In their order ids are row numbers, by which the sample is drawn, too.
    frame.to_parquet(lake / "routes.parquet")
    window = {"window_start": "2013-01-01", "window_end": "2014-01-01"}
    snapshot = fleet.execute(SnapshotOperator(task_id="data.snapshot", pipeline="routes", data=data), "one", **window)
    operator = PartitionOperator(
        task_id="fleet.partition", pipeline="routes", snapshot=snapshot, fleet=FLEET, data=data, train=TRAIN,
        evaluate=EVALUATE,
    )  # fmt: skip
    item = fleet.execute(operator, "one", keys=["r02", "r07"], **window)[0]
    schema = get_json(store, Plan.load(store, item["plan"]).of)["schema"]
    (rain,) = (f for f in schema["features"] if f["name"] == "rain")
    assert rain["categories"] == ["much", "no", "some"]


def test_a_key_without_rows_is_retired_after_some_runs(
    fleet: Fleet, store: LocalStore, registry: Registry, lake: Path
) -> None:
    fleet.run("one")
    for number, run_id in enumerate(("two", "three"), 1):
        rows(number, leave_out="r05").to_parquet(lake / "routes.parquet")
        _, result = fleet.run(run_id)
        assert (registry.champion("r05") is None) == (number == 2)
    assert result["retired"] == 1
    assert by_key(store, result["table"])["r05"]["status"] == "retired"
    assert registry.get(1, "r05").status == "retired"


def test_processes_find_what_one_process_finds(fleet: Fleet, store: LocalStore, registry: Registry) -> None:
    shards = fleet.partition("one", {**FLEET, "shard_size": 50})
    for item in shards:
        fleet.train(item, "one")
    keys = registry.keys()
    one = {str(key): registry.get(1, key).model for key in keys}
    shards = fleet.partition("two", {**FLEET, "shard_size": 50})
    for item in shards:
        fleet.train(item, "two", processes=2)
    assert {str(key): registry.get(2, key).model for key in keys} == one


def test_a_person_decides_about_all_of_it(fleet: Fleet, registry: Registry) -> None:
    shards = fleet.partition("one")
    for item in shards:
        fleet.train(item, "one")
    decision = fleet.decide(shards, "one", approval="always")
    assert decision["approval"]
    assert decision["deliver"] >= KEYS
    with pytest.raises(AirflowFailException, match="needs a person's yes"):
        fleet.promote(decision, "one")
    no = {"chosen_options": ["Reject"], "responded_by_user": {"name": "ann"}}
    with pytest.raises(AirflowSkipException, match="ann answered Reject"):
        fleet.promote(decision, "one", no)
    assert registry.champions() == {}
    yes = {"chosen_options": ["Approve"], "responded_by_user": {"name": "ann"}}
    assert fleet.promote(decision, "one", yes)["promoted"] == decision["deliver"]
    assert {e["by"] for e in registry.history() if e["action"] == "promote"} == {"ann"}


def test_a_rehearsal_promotes_nothing(fleet: Fleet, registry: Registry) -> None:
    shards = fleet.partition("one")
    for item in shards:
        fleet.train(item, "one")
    decision = fleet.decide(shards, "one")
    with pytest.raises(AirflowSkipException, match="does not promote"):
        fleet.promote(decision, "one", promote=False)
    assert registry.champions() == {}


def test_a_champion_that_became_another_one_is_left_alone(fleet: Fleet, store: LocalStore, registry: Registry) -> None:
    shards = fleet.partition("one")
    for item in shards:
        fleet.train(item, "one")
    decision = fleet.decide(shards, "one")
    registry.promote(1, expected=None, op_id="by hand", reason="faster", key="r01")
    result = fleet.promote(decision, "one")
    assert result["left_out"] == 1
    assert "expected none" in by_key(store, result["table"])["r01"]["reason"]


def test_a_key_column_that_is_not_there_is_told(fleet: Fleet) -> None:
    with pytest.raises(AirflowFailException, match="'rout', which the data does not have"):
        fleet.partition("one", {"key": "rout"})
    assert RegistryError.retryable is False


def test_a_run_with_a_dead_shard_is_red(fleet: Fleet) -> None:
    shards = fleet.partition("one")
    for item in shards[:-1]:
        fleet.train(item, "one")
    with pytest.raises(AirflowFailException, match=rf"1 of {len(shards)} shards did not end: {len(shards) - 1}"):
        fleet.complete(shards, "one")
    fleet.train(shards[-1], "one")
    assert fleet.complete(shards, "one") == {"shards": len(shards)}


def test_a_shard_that_is_done_again_later_is_promoted_too(fleet: Fleet, registry: Registry) -> None:
    shards = fleet.partition("one")
    for item in shards[:-1]:
        fleet.train(item, "one")
    first = fleet.promote(fleet.decide(shards, "one"), "one")
    fleet.train(shards[-1], "one")
    second = fleet.promote(fleet.decide(shards, "one"), "one")
    assert second["left_out"] == 0
    assert second["promoted"] == len(registry.champions()) > first["promoted"]
    assert {e["version"] for e in registry.history() if e["action"] == "promote"} == {1}


def test_a_repeat_brings_back_nothing_that_was_rolled_back(fleet: Fleet, registry: Registry, lake: Path) -> None:
    fleet.run("one")
    rows(1).to_parquet(lake / "routes.parquet")
    decision, _ = fleet.run("two")
    assert registry.champion("r01").number == 2  # type: ignore[union-attr]
    registry.rollback(expected=2, op_id="by hand", reason="odd", key="r01")
    fleet.promote(decision, "two")
    assert registry.champion("r01").number == 1  # type: ignore[union-attr]


def test_rows_by_key_are_given_up_and_a_late_yes_still_counts(
    fleet: Fleet, store: LocalStore, registry: Registry
) -> None:
    shards = fleet.partition("one")
    for item in shards:
        fleet.train(item, "one")
    decision = fleet.decide(shards, "one", approval="always")
    divided = [shard.rows for shard in Plan.load(store, decision["plan"]).shards]
    now = datetime.now(UTC)
    for days in (10, 20):
        collect(store, now=now + timedelta(days=days))
    assert not [digest for digest in divided if store.exists(layout.blob(digest))]
    yes = {"chosen_options": ["Approve"], "responded_by_user": {"name": "ann"}}
    assert fleet.promote(decision, "one", yes)["promoted"] == decision["deliver"]
    assert registry.champion("r01") is not None


def test_a_twin_that_was_faster_is_no_damage(fleet: Fleet, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = fleet.partition("one")
    own = shards[1]
    every = Chunks.every

    def faster(self: Chunks, count: int) -> Any:
        monkeypatch.setattr(Chunks, "every", every)
        fleet.train(own, "one")
        return every(self, count)

    monkeypatch.setattr(Chunks, "every", faster)
    assert fleet.train(own, "one")["models"] == len(registry.history())


def test_a_rehearsal_is_not_the_newest(fleet: Fleet, store: LocalStore) -> None:
    fleet.run("one")
    shards = fleet.partition("two")
    for item in shards:
        fleet.train(item, "two")
    fleet.decide(shards, "two", promote=False)
    newest = read_newest(store, "routes")
    assert newest is not None
    assert newest["run_id"] == "one"


def test_a_run_that_is_cleared_counts_an_absence_once(fleet: Fleet, store: LocalStore, lake: Path) -> None:
    fleet.run("one")
    rows(1, leave_out="r05").to_parquet(lake / "routes.parquet")
    for _ in range(2):
        fleet.run("two")
    newest = read_newest(store, "routes")
    assert newest is not None
    assert newest["absent"] == {"r05": 1}


def test_a_fleet_that_lost_its_rows_stops(fleet: Fleet, execute: Run, lake: Path) -> None:
    fleet.run("one")
    rows(1).head(500).to_parquet(lake / "routes.parquet")
    snapshot = SnapshotOperator(task_id="data.snapshot", pipeline="routes", data={**DATA, "max_row_drop": 0.5})
    with pytest.raises(AirflowFailException, match="fewer"):
        execute(snapshot, "two")


def test_what_a_person_refused_is_on_record(fleet: Fleet, store: LocalStore) -> None:
    shards = fleet.partition("one")
    for item in shards:
        fleet.train(item, "one")
    decision = fleet.decide(shards, "one", approval="always")
    with pytest.raises(AirflowSkipException):
        fleet.promote(decision, "one", {"chosen_options": ["Reject"], "responded_by_user": {"name": "ann"}})
    newest = read_newest(store, "routes")
    assert newest is not None
    assert newest["approval"] == {"by": "ann", "answer": ["Reject"]}


def test_a_run_leaves_a_record_of_itself_as_a_whole(fleet: Fleet, store: LocalStore) -> None:
    for run_id in ("one", "two"):
        fleet.run(run_id)
    records = Records.read(store, "routes")
    assert (records.log, records.batches > 0, [run.run_id for run in records.runs]) == ((), True, ["one", "two"])
    run = records.runs[-1]
    newest = read_newest(store, "routes")
    assert newest is not None
    assert (run.sentence, run.counts, run.table) == (newest["sentence"], newest["counts"], newest["table"])
    assert (run.gated, run.validated, run.rehearsal) == (True, False, False)
    assert run.promoted == run.counts["promoted"] == run.models
    assert (run.decided_at or "z") <= (run.promoted_at or "")
    assert (run.cost or {"wall_seconds": -1})["wall_seconds"] >= 0
    assert get_json(store, run.of or "")["run"]["run_id"] == "two"
    told = key_records(store, "routes", "r01").log
    assert [(e.type, e.payload["version"]) for e in told] == [
        ("register", 1), ("annotate", 1), ("promote", 1), ("register", 2), ("annotate", 2), ("promote", 2)]  # fmt: skip
    assert told[0].payload["record"]["run"]["run_id"] == "one"


def test_models_of_deployed_code_say_which(fleet: Fleet, store: LocalStore, registry: Registry, tmp_path: Path) -> None:
    made = bundle("a")
    write_tree(laid_out(made), tmp_path / "version")
    shards = fleet.partition("one", folder=str(tmp_path / "version" / "pipelines"))
    fleet.train(shards[-1], "one")
    wanted = {"project": "crm", "commit": COMMIT, "bundle": made.digest, "deployment": None}
    assert registry.get(1, "r11").record["code"]["delivered"] == wanted
    fleet.decide(shards, "one")
    newest = read_newest(store, "routes")
    assert newest is not None
    assert newest["delivered"]


def test_a_key_with_fewer_rows_than_before_keeps_its_champion(
    fleet: Fleet, store: LocalStore, registry: Registry, lake: Path
) -> None:
    fleet.run("one")
    frame = rows(1)
    frame.drop(frame.index[frame["route"] == "r05"][20:]).to_parquet(lake / "routes.parquet")
    _, result = fleet.run("two")
    found = by_key(store, result["table"])["r05"]
    assert found["status"] == "inconclusive"
    assert found["reason"] == "20 rows are too few to train it again: its champion goes on serving"
    assert registry.champion("r05").number == 1  # type: ignore[union-attr]
    with pytest.raises(AirflowFailException, match="has 50 rows in this window, the most has 20"):
        fleet.partition("three", keys=["r05"])


def test_trainings_of_some_keys_retire_no_others(fleet: Fleet, registry: Registry, lake: Path) -> None:
    fleet.run("one")
    rows(1, leave_out="r05").to_parquet(lake / "routes.parquet")
    for run_id in ("two", "three", "four"):
        fleet.run(run_id, keys=["r02"])
    assert registry.champion("r05") is not None


def test_champions_of_several_preparations_are_asked_about_their_own_rows(
    fleet: Fleet, store: LocalStore, registry: Registry, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.run("one")
    rows(1).to_parquet(lake / "routes.parquet")
    fleet.run("two", keys=["r02", "r07"])
    assert registry.champion("r02").number == 2  # type: ignore[union-attr]
    prepared: list[int] = []

    def counted(schema: Any, steps: Any, frame: pd.DataFrame) -> Any:
        prepared.append(len(frame))
        return matrix(schema, steps, frame)

    monkeypatch.setattr(champions_module, "matrix", counted)
    shards = fleet.partition("three", {**FLEET, "shard_size": 50})
    for item in shards:
        fleet.train(item, "three")
    # Parents, then keys by the first preparation and by the second, and the latter's older versions that losses are
    # counted from: a fifth of the rows is held out.
    assert len(prepared) == 4
    assert sum(prepared[1:]) < 220 * KEYS * 0.3
    found = by_key(store, fleet.decide(shards, "three")["table"])
    assert all("r2" in found[key]["champion_metrics"] for key in ("r01", "r02", "r07"))


def test_of_two_tries_at_a_time_the_result_is_that_of_the_registered_models(
    fleet: Fleet, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = fleet.partition("one")
    fleet.train(shards[1], "one")
    (key,) = (key for key in store.list("") if "/shards/" in key)
    before = store.get(key)
    looks: list[int] = []

    def too_early(*given: Any) -> Any:
        looks.append(1)
        return None if len(looks) == 1 else read_result(*given)

    monkeypatch.setattr(shard_module, "read_result", too_early)

    def other(*given: Any) -> Any:
        done = train_chunk(*given)
        return replace(done, rows=[row | {"seconds": 99.0} for row in done.rows])

    monkeypatch.setattr(shard_module, "train_chunk", other)
    fleet.train(shards[1], "one")
    assert len(looks) > 1
    assert store.get(key) == before


def test_new_data_that_comes_with_a_request_is_for_all_keys() -> None:
    operator = PartitionOperator(task_id="p", pipeline="routes", snapshot={}, fleet=FLEET, data=DATA, train=TRAIN)
    scope: Any = SimpleNamespace(extra={"keys": "0" * 64})
    events = {Asset("routes.data"): [], Asset("routes.retrain"): []}
    context: Any = {"params": {}, "triggering_asset_events": events}
    assert operator._due(scope, context) == (None, False)
