"""A version's way to champion with the real operators: shadow, canary, full; and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.ml.canary import key_of, served_by_tried
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import RolloutOperator
from airflow_mlops.operators.rollout import AdvanceRolloutOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.registry.fsck import check as fsck
from airflow_mlops.registry.reachable import reachable
from airflow_mlops.registry.registry import Registry

DATA: dict[str, Any] = {"source": "train.csv", "target": "late", "id": "id"}
EVALUATE = {"gates": [{"metric": "roc_auc", "versus": "champion", "not_worse_by": 0.05}]}
LABELS = {"source": "outcomes.csv", "join_on": "id"}
STEPS: list[Any] = ["shadow", {"canary": 0.2}, "full"]
GOOD = {"estimator": "sklearn.linear_model.LogisticRegression"}
BAD = {"estimator": "sklearn.tree.DecisionTreeClassifier", "params": {"max_depth": 1, "max_features": 1}}
COMMON = {"pipeline": "people"}


def month(number: int) -> dict[str, str]:
    return {"window_start": f"2013-{number:02}-01", "window_end": f"2013-{number + 1:02}-01"}


@pytest.fixture
def world(lake: Path) -> pd.DataFrame:
    """Rows to learn from, rows to score and their outcomes."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame({"id": range(2400), "a": random.normal(size=2400), "b": random.normal(size=2400)})
    frame["late"] = (frame.a + frame.b + random.normal(size=2400) > 0).astype(int)
    frame[:1200].to_csv(lake / "train.csv", index=False)
    frame[1200:].drop(columns="late").to_csv(lake / "rows.csv", index=False)
    frame[1200:][["id", "late"]].to_csv(lake / "outcomes.csv", index=False)
    return frame[1200:]


@pytest.fixture
def registry(world: Any) -> Registry:
    return MLOpsHook().registry("people")


def decided(execute: Any, train: dict[str, Any], run: str) -> dict[str, Any]:
    """Train, score and judge a version, by gates that everything passes."""
    snapshot = execute(SnapshotOperator(task_id="snapshot", data=DATA, **COMMON), run)
    fit = TrainOperator(task_id="fit", snapshot=snapshot, data=DATA, train=train, **COMMON)
    score = EvaluateOperator(task_id="score", candidate=execute(fit, run), data=DATA, **COMMON)
    decision: dict[str, Any] = execute(GateOperator(task_id="gates", evaluation=execute(score, run), **COMMON), run)
    return decision


def roll_out(decision: dict[str, Any]) -> RolloutOperator:
    return RolloutOperator(
        task_id="promote", decision=decision, steps=STEPS, outlets=[Asset("people.champion")], **COMMON
    )


def predict(**more: Any) -> BatchPredictOperator:
    return BatchPredictOperator(task_id="predict", data=DATA, batch={"source": "rows.csv", "output": "out"}, **COMMON)


def advance(labels: Any = LABELS, **verdict: Any) -> AdvanceRolloutOperator:
    return AdvanceRolloutOperator(
        task_id="advance", data=DATA, evaluate=EVALUATE, verdict=verdict, outlets=[Asset("people.champion")],
        monitor={"labels": labels} if labels else {}, **COMMON,
    )  # fmt: skip


TRAINED: dict[str, Any] = {}
"""Stores with version 1 as champion and version 2 judged, by how it was trained: to train costs more than to copy."""


@pytest.fixture
def started(execute: Any, lake: Path, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``started(train)``: version 1 is champion, and version 2, trained so, begins its rollout."""

    def start(train: dict[str, Any] = GOOD) -> Registry:
        key, store = str(train), Path(registry.store.uri.removeprefix("file://"))
        if key not in TRAINED:
            execute(roll_out(decided(execute, GOOD | {"params": {"C": 0.01}}, "r1")), "r1")
            assert registry.champion().number == 1
            decision = decided(execute, train, "r2")
            kept = tmp_path_factory.mktemp("trained") / "store"
            shutil.copytree(store, kept)
            TRAINED[key] = kept, decision
        else:
            kept, decision = TRAINED[key]
            shutil.copytree(kept, store, dirs_exist_ok=True)
        result = execute(roll_out(decision), "r2")
        assert (result["version"], result["step"], result["previous"]) == (2, "shadow", 1)
        return registry

    return start


def written(lake: Path, number: int) -> pd.DataFrame:
    (file,) = (lake / "out").glob(f"2013{number:02}*.parquet")
    return pq.read_table(file).to_pandas()


def test_shadow_canary_full(started: Any, execute: Any, lake: Path, world: pd.DataFrame) -> None:
    registry = started()
    assert (registry.champion().number, registry.challenger().number) == (1, 2)
    scored = execute(predict(), "p1", **month(1))
    assert scored["rollout"] == {"version": 2, "step": "shadow", "served": 0, "failed": None}
    assert set(written(lake, 1).model_version) == {1}
    one = execute(advance(), "m1", **month(1))
    assert (one["kind"], one["promoted"]) == ("next", False)
    assert one["sentence"].startswith("shadow, 1 window, 1,200 rows with labels: roc_auc 0.")
    assert one["sentence"].endswith("it is at most 0.05 worse → canary 20 %")
    assert registry.rollout().name == "canary 20 %"

    scored = execute(predict(), "p2", **month(2))
    both = written(lake, 2)
    mine = both.model_version == 2
    assert scored["rollout"]["served"] == mine.sum()
    assert mine.mean() == pytest.approx(0.2, abs=0.05)
    sides = served_by_tried(pq.read_table(next((lake / "out").glob("201302*"))).column("id"), key_of("people", 2), 0.2)
    assert (mine == sides).all()
    alone = written(lake, 1)  # what the champion says of the same rows
    assert (both.probability[~mine] == alone.probability[~mine]).all()
    assert (both.probability[mine] != alone.probability[mine]).any()

    two = execute(advance(), "m2", **month(2))
    assert (two["kind"], two["promoted"]) == ("next", True)
    assert two["sentence"].startswith(f"canary 20 % of ids ({mine.sum():,} of 1,200 rows served), 1 window, ")
    assert two["sentence"].endswith("→ full: v2 is champion")
    assert (registry.champion().number, registry.rollout()) == (2, None)
    execute(predict(), "p3", **month(3))
    assert set(written(lake, 3).model_version) == {2}
    page = MLOpsHook().store().get(f"reports/people__train/{execute_report(registry)}.html").decode()
    assert "Rollout of people v2: canary, 20 % of ids" in page
    with pytest.raises(AirflowSkipException, match="no version of people is rolling out"):
        execute(advance(), "m3", **month(3))
    assert not fsck(registry.store).findings
    evidence = json.loads(registry.store.get("pipelines/people/rollouts/20130201T000000Z-20130301T000000Z.json"))
    captures = {bytes.fromhex(evidence[name]) for name in ("capture", "champion_capture")}
    assert reachable(registry.store, captures, captures) == captures  # garbage collection leaves them
    registry.store.put("pipelines/people/rollouts/20130201T000000Z-20130301T000000Z.json", b"{}")
    (finding,) = [f for f in fsck(registry.store).findings if "rollout" in f.key]
    assert "What a rollout of people rests on is damaged: it has no rollout, step, failed, window" in finding.what


def execute_report(registry: Registry) -> str:
    (entry,) = [e for e in registry.log.entries() if e.type == "promote" and "rollout" in e.payload]
    return entry.payload["rollout"]["evidence"]["report"]


def test_a_version_that_is_worse_falls_by_itself(
    started: Any, execute: Any, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(AdvanceRolloutOperator, "tell", lambda self, c, s, event, text: told.append((event, text)))
    registry = started(BAD)
    execute(predict(), "p1", **month(1))
    result = execute(advance(), "m1", **month(1))
    assert result["kind"] == "end"
    assert "more than 0.05 worse → rolled back" in result["sentence"]
    assert (registry.champion().number, registry.challenger(), registry.rollout()) == (1, None, None)
    assert registry.get(2).notes["rollout"][-1]["reason"] == result["sentence"]
    assert [event for event, _ in told] == ["rollback"]
    execute(predict(), "p2", **month(2))
    assert set(written(lake, 2).model_version) == {1}


def test_a_look_is_taken_once(started: Any, execute: Any, lake: Path) -> None:
    registry = started()
    execute(predict(), "p1", **month(1))
    first = execute(advance(), "m1", **month(1))
    entries = len(registry.log.entries())
    (lake / "outcomes.csv").unlink()  # what it would see now does not matter
    again = execute(advance(), "another run", **month(1))
    assert again == first
    assert [e.type for e in registry.log.entries()[entries:]] == []


def test_it_waits_for_outcomes_and_then_for_rows(started: Any, execute: Any, lake: Path, world: pd.DataFrame) -> None:
    registry = started()
    with pytest.raises(AirflowSkipException, match="no window has been scored in this step yet"):
        execute(advance(), "m0", **month(1))
    execute(predict(), "p1", **month(1))
    late = {**LABELS, "delay": "20d"}
    with pytest.raises(AirflowSkipException, match="no outcomes of another one are due"):
        execute(advance(late), "m1", **month(1))
    (lake / "outcomes.csv").rename(lake / "later.csv")
    execute(predict(), "p2", **month(2))
    result = execute(advance(late), "m2", **month(2))
    assert result["kind"] == "wait"
    assert "0 of 1,200 rows have an outcome, and 50% are needed → waits" in result["sentence"]
    assert (registry.rollout().looks, registry.rollout().spent) == (1, 0.0)
    (lake / "later.csv").rename(lake / "outcomes.csv")
    execute(predict(), "p3", **month(3))
    waits = execute(advance(late, min_rows=2000), "m3", **month(3))
    assert "1,200 of 1,200 rows have an outcome, and 2,000 rows are needed" in waits["sentence"]  # the same rows
    for name in ("rows", "outcomes"):
        frame = pd.read_csv(lake / f"{name}.csv")
        pd.concat([frame, frame.assign(id=frame.id + 9000)]).to_csv(lake / f"{name}.csv", index=False)
    execute(predict(), "p4", **month(4))
    assert execute(advance(late, min_rows=2000), "m4", **month(4))["kind"] == "wait"
    execute(predict(), "p5", **month(5))
    result = execute(advance(late, min_rows=2000), "m5", **month(5))
    assert (result["kind"], result["look"]) == ("next", 4)
    with pytest.raises(AirflowSkipException, match="made without a window"):
        execute(advance(late), "m6")


@pytest.mark.parametrize(("rule", "kind"), [("rollback", "end"), ("keep", "wait")])
def test_after_so_many_windows_without_a_verdict(started: Any, execute: Any, lake: Path, rule: str, kind: str) -> None:
    registry = started()
    (lake / "outcomes.csv").unlink()
    rules = {"max_windows": 2, "on_timeout": rule}
    for number, expected in ((1, "wait"), (2, kind)):
        execute(predict(), f"p{number}", **month(number))
        result = execute(advance(**rules), f"m{number}", **month(number))
        assert result["kind"] == expected
    assert "undecided after 2 windows: " in result["sentence"]
    assert (registry.rollout() is None) == (rule == "rollback")


def test_a_version_that_cannot_score_serves_nothing_and_falls(started: Any, execute: Any, lake: Path) -> None:
    registry = started()
    execute(predict(), "p1", **month(1))
    execute(advance(), "m1", **month(1))
    assert registry.rollout().name == "canary 20 %"
    blob = registry.get(2).record["model"]
    path = MLOpsHook().store()
    whole = path.get(f"blobs/{blob['digest'][:2]}/{blob['digest']}")
    file = Path(path.uri.removeprefix("file://"), "blobs", blob["digest"][:2], blob["digest"])
    file.chmod(0o644)
    file.write_bytes(whole[:-10])
    result = execute(predict(), "p2", **month(2))
    assert result["rollout"]["served"] == 0
    assert result["rollout"]["failed"]
    assert set(written(lake, 2).model_version) == {1}
    (lake / "outcomes.csv").unlink()
    result = execute(advance(), "m2", **month(2))
    assert result["kind"] == "end"
    assert "it could not score the rows of 2013-02-01 … 2013-03-01" in result["sentence"]


def test_without_outcomes_its_predictions_must_stay_near(started: Any, execute: Any, lake: Path) -> None:
    registry = started()
    execute(predict(), "p1", **month(1))
    result = execute(advance(None, max_shift=3.0), "m1", **month(1))
    assert result["kind"] == "next"
    assert "σ from the champion's" in result["sentence"]
    execute(predict(), "p2", **month(2))
    result = execute(advance(None, max_shift=0.05), "m2", **month(2))
    assert result["kind"] == "end"
    assert "too far → rolled back" in result["sentence"]
    assert registry.rollout() is None


def test_a_newer_candidate_waits_its_turn(started: Any, execute: Any) -> None:
    registry = started()
    decision = decided(execute, GOOD | {"params": {"C": 0.5}}, "r3")
    assert registry.challenger().number == 2
    assert "challenger" not in [row["action"] for row in registry.history() if row["version"] == 3]
    with pytest.raises(AirflowSkipException, match=r"v2 is rolling out \(shadow\): v3 stays a candidate"):
        execute(roll_out(decision), "r3")
    registry.end_rollout(2, op_id="x", reason="try v3")
    assert execute(roll_out(decision), "r3")["version"] == 3


def test_a_rehearsal_is_no_evidence(started: Any, execute: Any, lake: Path) -> None:
    registry = started()
    assert "rollout" not in execute(predict(), "p1", **month(1), promote=False)
    with pytest.raises(AirflowSkipException, match="decides about no rollout"):
        execute(advance(), "m1", **month(1), promote=False)
    assert registry.rollout().looks == 0


def test_a_person_ends_it_while_it_is_looked_at(
    started: Any, execute: Any, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    started()
    execute(predict(), "p1", **month(1))
    from airflow_mlops.ml import rollout_report

    page = rollout_report.rollout_report_html

    def meanwhile(*args: Any, **more: Any) -> str:
        registry.end_rollout(2, op_id="abort", reason="complaints", by="ann")
        return page(*args, **more)

    monkeypatch.setattr(rollout_report, "rollout_report_html", meanwhile)
    with pytest.raises(AirflowSkipException, match="has ended; this look does not count"):
        execute(advance(), "m1", **month(1))
    assert registry.champion().number == 1


class Killed(BaseException):
    """The process is gone; nothing may catch it."""


class Mortal:
    """A store whose process is killed before its write number ``at``, from 0; ``None``: it lives and counts."""

    def __init__(self, store: Any, at: int | None) -> None:
        self._store, self._at, self.writes = store, at, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if name not in ("put", "put_if_absent", "put_file", "put_file_if_absent", "delete"):
            return real

        def write(*args: Any, **more: Any) -> Any:
            if self.writes == self._at:
                raise Killed
            self.writes += 1
            return real(*args, **more)

        return write


def test_a_task_killed_at_any_write_ends_as_if_it_had_lived(
    started: Any, execute: Any, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of the prediction in a canary, of a look that goes on, and of the look that promotes."""
    registry = started()
    real, root = MLOpsHook.store, Path(registry.store.uri.removeprefix("file://"))

    def run(task: Any, run_id: str, window: dict[str, str], at: int | None) -> int:
        mortal = Mortal(real(MLOpsHook()), at)
        monkeypatch.setattr(MLOpsHook, "store", lambda self: mortal)
        try:
            execute(task(), run_id, **window)
        finally:
            monkeypatch.setattr(MLOpsHook, "store", real)
        return mortal.writes

    def found() -> tuple[Any, ...]:
        again = MLOpsHook().registry("people")
        moves = [(e.type, e.payload.get("kind"), e.payload.get("reason")) for e in again.log.entries()]
        serving = [(s.version.number, s.share) for s in again.serving()]
        evidence = {k: again.store.get(k) for k in again.store.list("pipelines/people/rollouts/")}
        bodies = [{x: y for x, y in json.loads(v).items() if x != "seconds"} for v in evidence.values()]
        output = [pq.read_table(f).to_pandas().to_csv() for f in sorted((lake / "out").glob("*.parquet"))]
        return moves, serving, again.rollout(), bodies, output

    def restore(saved: Path) -> None:
        for one, name in ((root, "store"), (lake, "lake")):
            shutil.rmtree(one)
            shutil.copytree(saved / name, one)

    steps = [
        (predict, "p1", month(1), False), (advance, "m1", month(1), True), (predict, "p2", month(2), True),
        (advance, "m2", month(2), True),
    ]  # fmt: skip
    points = 0
    for number, (task, run_id, window, swept) in enumerate(steps):
        saved = tmp_path / f"before{number}"
        shutil.copytree(root, saved / "store")
        shutil.copytree(lake, saved / "lake")
        writes = run(task, run_id, window, None)
        whole = found()
        for at in range(writes) if swept else ():
            restore(saved)
            with pytest.raises(Killed):
                run(task, run_id, window, at)
            run(task, run_id, window, None)
            assert found() == whole, f"{run_id} killed before write {at}"
            points += 1
    assert found()[1] == [(2, 1.0)]
    assert points > 20


@pytest.mark.parametrize("step", ["canary", "full"])
def test_a_run_in_flight_ends_as_it_began_and_the_next_one_serves_the_champion_before(
    started: Any, execute: Any, lake: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from airflow_mlops.ml import batch_inference

    registry = started()
    rollout = registry.rollout()
    registry.judge_rollout(rollout, "next", look=1, spent=0.2, op_id="j", reason="better")
    if step == "full":
        registry.promote(2, expected=1, op_id="p", reason="today")
    read = batch_inference.read_batches

    def meanwhile(*args: Any, **more: Any) -> Any:
        if step == "full":
            registry.rollback(expected=2, op_id="back", reason="complaints")
        else:
            registry.end_rollout(2, op_id="stop", reason="complaints")
        return read(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(batch_inference, "read_batches", meanwhile)
        execute(predict(), "p1", **month(1))
    assert set(written(lake, 1).model_version) == ({2} if step == "full" else {1, 2})
    execute(predict(), "p2", **month(2))
    assert set(written(lake, 2).model_version) == {1}
