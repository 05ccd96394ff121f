"""A version that falls in its canary and the experiment that follows, both by themselves, in a live Airflow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops import Pipeline
from airflow_mlops.demo.airflow import LiveAirflow
from airflow_mlops.ml.experiment_records import ExperimentRecords
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import layout
from tests.system.conftest import SharedAirflow

PREDICT, MONITOR, EXPERIMENT = (f"offers__{what}" for what in ("predict", "monitor", "experiment"))
OFFERS = """\
pipeline: offers
level: 2
data: {source: offers/rows/*.csv, target: bought, id: id, timestamp: day, window: 31d}
train: {estimator: sklearn.linear_model.LogisticRegression, params: {max_iter: 500}}
evaluate:
  metrics: [roc_auc]
  gates: [{metric: roc_auc, at_least: 0.6}, {metric: roc_auc, versus: champion, not_worse_by: 0.05}]
deploy:
  rollout: [{canary: 0.3}, full]
  batch: {source: offers/served/*.csv, output: offers/predictions}
monitor: {labels: {source: offers/outcomes/*.csv, join_on: id}}
retrain: {when: [drift], confirm: 2 of 3, experiment_after: 1}
experiment:
  strategy: halving
  n_trials: 4                   # all of the space; lbfgs knows no l1
  space: {solver: [lbfgs, liblinear], penalty: [l1, l2]}
notify:
  events: [rollback, experiment]
  notifiers: [{class: desk.Desk, args: {file: FILE, text: "{{ mlops.event }}: {{ mlops.message }}"}}]
"""
DESK = """\
from airflow.sdk import BaseNotifier

class Desk(BaseNotifier):
    template_fields = ("text",)

    def __init__(self, file, text):
        super().__init__()
        self.file, self.text = file, text

    def notify(self, context):
        with open(self.file, "a") as file:
            file.write(self.text + chr(10))
"""


def month(number: int) -> dict[str, str]:
    return {"window_start": f"2026-{number:02}-01T00:00:00Z", "window_end": f"2026-{number + 1:02}-01T00:00:00Z"}


class World:
    """Offers of 2026: from March on the campaign works the other way round, and other visits are made.

    v1, of January, is champion. v2, of February, relies on the campaign and has begun its rollout.
    """

    def __init__(self, shared: SharedAirflow, desk: Path) -> None:
        self.live, self.store, self.data, self.desk = shared.live, shared.store, shared.data, desk
        for number, campaign, shift in ((1, 0, 0), (2, 2, 0), (3, -2, 1), (4, -2, 1)):
            self._write(number, campaign, shift)
        (shared.dags / "desk.py").write_text(DESK)  # Airflow finds what lies beside the DAG files
        folder = shared.pipelines("closed_loop", {"offers.yaml": OFFERS.replace("FILE", str(desk))})
        self.registry = Registry(self.store, "offers")
        self.registry.promote(1, expected=None, op_id="p", reason=self._trained(folder / "offers.yaml", 1))
        steps: list[Any] = [{"canary": 0.3}, "full"]
        why = self._trained(folder / "offers.yaml", 2)
        self.registry.begin_rollout(2, expected=1, steps=steps, op_id="b", reason=why)

    def _write(self, number: int, campaign: float, shift: float) -> None:
        random = np.random.default_rng(number)
        columns = {name: random.normal(size=1000) for name in ("age", "visits", "campaign")}
        odds = 1.2 * columns["age"] + 0.8 * columns["visits"] + campaign * columns["campaign"]
        ids = np.arange(1000) + 1000 * number
        frame = pd.DataFrame({"id": ids, "day": [f"2026-{number:02}-{i % 28 + 1:02}" for i in ids], **columns})
        frame["visits"] += shift
        frame["bought"] = (odds + random.logistic(size=1000) > 0).astype(int)
        seen = {"rows": frame, "served": frame.drop(columns="bought"), "outcomes": frame[["id", "bought"]]}
        for name, part in seen.items():
            (self.data / "offers" / name).mkdir(parents=True, exist_ok=True)
            part.to_csv(self.data / "offers" / name / f"{number}.csv", index=False)

    def _trained(self, file: Path, number: int) -> str:
        """Register a candidate of a month's rows, which its gates do not refuse; returns their sentence."""
        pipeline = Pipeline.from_yaml(file, allowed_imports=["desk"], data_root=self.data)
        when = month(number)
        with pipeline.run(
            start=when["window_start"], end=when["window_end"], store=self.store, register=True, say=lambda line: None
        ) as found:
            assert found.verdict in ("no_baseline", "passed"), found.sentence
            return found.sentence

    def served(self, number: int) -> dict[int, int]:
        """How many predictions of a month each version makes."""
        run = self.live.trigger(PREDICT, month(number))
        assert self.live.wait(PREDICT, run) == "success", self.live.task_states(PREDICT, run)
        (file,) = (self.data / "offers/predictions").glob(f"2026{number:02}*.parquet")
        return {int(k): int(n) for k, n in pd.read_parquet(file)["model_version"].value_counts().items()}

    def page(self, dag_id: str, report: str) -> str:
        return self.store.get(layout.report(dag_id, report.rpartition("/")[2])).decode()


def by_itself(live: LiveAirflow, dag_id: str, timeout: float = 120) -> str:
    """The run that an asset event has started, when it has succeeded."""
    deadline = time.monotonic() + timeout
    while not (runs := live.get(f"dags/{dag_id}/dagRuns")["dag_runs"]):
        live.check_alive()
        assert time.monotonic() < deadline, f"nothing has started {dag_id}"
        time.sleep(0.3)
    (run,) = runs
    assert run["run_type"] == "asset_triggered"
    assert live.wait(dag_id, run["dag_run_id"]) == "success", live.task_states(dag_id, run["dag_run_id"])
    return str(run["dag_run_id"])


@pytest.mark.timeout(600)
def test_a_version_falls_in_its_canary_and_an_experiment_begins(shared_airflow: SharedAirflow, tmp_path: Path) -> None:
    world, live = World(shared_airflow, tmp_path / "desk.txt"), shared_airflow.live
    live.wait_for_dags(PREDICT, MONITOR, EXPERIMENT)
    live.unpause(PREDICT, MONITOR, EXPERIMENT)
    served = world.served(3)
    assert sum(served.values()) == 1000
    assert served[2] == pytest.approx(300, abs=60)

    # --- the version falls, and nobody has asked for that
    run = by_itself(live, MONITOR)
    live.patch(f"dags/{MONITOR}", {"is_paused": True})  # of April it would show nothing new
    states = live.task_states(MONITOR, run)
    assert [states[task] for task in ("retrain.request", "rollout.advance", "experiment.request")] == [
        "skipped", "success", "success",
    ]  # fmt: skip
    look = live.xcom(MONITOR, run, "rollout.advance")
    assert (look["kind"], look["version"], look["step"]) == ("end", 2, 0)
    reason = look["sentence"]
    assert reason.startswith(f"canary 30 % of ids ({served[2]} of 1,000 rows served), 1 window, 1,000 rows with labels")
    assert reason.endswith("it is more than 0.05 worse → rolled back")
    assert f"v2: {reason}" in live.log(MONITOR, run, "rollout.advance")
    links = live.get(f"dags/{MONITOR}/dagRuns/{run}/taskInstances/rollout.advance/links")["extra_links"]
    assert "It is rolled back." in world.page(MONITOR, links["Rollout report"])
    moves = [(m["kind"], m["version"], m["reason"]) for m in world.registry.history() if m["action"] == "rollout"]
    assert moves[1] == ("end", 2, reason)
    wanted = "a candidate did not become champion: v2"
    assert world.desk.read_text().splitlines() == [
        f"rollback: offers v2: {reason}", f"experiment: offers: an experiment is wanted: {wanted}",
    ]  # fmt: skip

    # --- the next run serves the champion alone; it is over long before the experiment has a winner
    assert world.served(4) == {1: 1000}

    # --- the experiment, with the evidence at hand
    run = by_itself(live, EXPERIMENT)
    (event,) = live.get(f"dags/{EXPERIMENT}/dagRuns/{run}/upstreamAssetEvents")["asset_events"]
    assert (event["source_dag_id"], event["source_task_id"]) == (MONITOR, "experiment.request")
    assert event["extra"]["versions"] == [{"version": 2, "verdict": "rolled back", "sentence": reason}]
    (plan,) = (k for k in world.store.list(layout.experiments_prefix("offers")) if k.endswith("plan.json"))
    records = ExperimentRecords(world.store, "offers", plan.split("/")[-2])
    first, second = ([r for r in records.trials() if r["rung"] == rung] for rung in (1, 2))
    assert len(first) == 4
    assert [r["error"] is None for r in first].count(False) == 1
    assert [r["number"] for r in second] == [max((r for r in first if r["score"]), key=lambda r: r["score"])["number"]]
    result = records.result()
    assert result is not None
    assert result["winner"]["number"] == second[0]["number"]
    page, log = world.page(EXPERIMENT, result["report"]), live.log(EXPERIMENT, run, "experiment.plan")
    for name, told in (("sentence", wanted), ("alarms", "drift: "), ("versions", f"v2 rolled back: {reason}")):
        assert f"Asked for: {name}: {told}" in log
        assert f"<div>{told}" in page
    winner = world.registry.get(3)
    assert winner.record["experiment"]["experiment"] == records.experiment
    assert winner.notes["gates"][-1]["verdict"] == "passed"
    rollout = world.registry.rollout()
    assert rollout is not None
    assert (rollout.version, rollout.name) == (3, "canary 30 %")
