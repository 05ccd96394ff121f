"""An experiment by its operators: planned, tried, chosen, and the winner on its way through the gates."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, AirflowTaskTimeout

from airflow_mlops.ml.experiment_records import ExperimentRecords
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.experiment import (
    ChooseWinnerOperator,
    NextRungOperator,
    PlanExperimentOperator,
    TrainWinnerOperator,
    TrialOperator,
)
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

DATA = {"source": "people.csv", "target": "target", "id": "id"}
TRAIN = {"estimator": "sklearn.tree.DecisionTreeClassifier"}
SPACE = {"max_depth": [1, 2, 3, 4, 5, 6], "min_samples_leaf": [1, 10]}
SLOW = """
import time

def wait(*, x, seed):
    time.sleep(x)
    return x
"""

Run = Callable[..., Any]


def plan(experiment: dict[str, Any], snapshot: Any) -> PlanExperimentOperator:
    return PlanExperimentOperator(
        task_id="experiment.plan", pipeline="people", experiment=experiment, snapshot=snapshot, data=DATA, train=TRAIN
    )


def trial(item: dict[str, Any], data: Any = DATA) -> TrialOperator:
    return TrialOperator(task_id="experiment.trials", pipeline="people", trial=item, data=data)


@pytest.fixture
def snapshot(lake: Path, execute: Run) -> Any:
    return execute(SnapshotOperator(task_id="data.snapshot", pipeline="people", data=DATA))


@pytest.fixture
def store(lake: Path, tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def slow(lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "slow_sim.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "slow_sim")
    yield
    sys.modules.pop("slow_sim", None)


def test_the_winner_of_halving_goes_through_the_gates(execute: Run, snapshot: Any, store: LocalStore) -> None:
    experiment = {"strategy": "halving", "n_trials": 9, "space": SPACE, "metric": "roc_auc"}
    items = execute(plan(experiment, snapshot))
    assert [i["trial"] for i in items] == list(range(1, 10))
    assert {i["rung"] for i in items} == {1}
    assert items[0]["label"].startswith("1 max_depth=")
    for rung in (2, 3):
        scores = {i["trial"]: execute(trial(i))["score"] for i in items}
        items = execute(NextRungOperator(task_id=f"k{rung}", pipeline="people", plan=items, rung=rung))
        best = sorted(scores, key=lambda n: (-scores[n], n))[: len(items)]
        assert [i["trial"] for i in items] == best
        assert len(items) == {2: 3, 3: 1}[rung]
    execute(trial(items[0]))
    chosen = execute(ChooseWinnerOperator(task_id="choose", pipeline="people", plan=items))
    assert chosen["winner"]["number"] == items[0]["trial"]
    assert chosen["finished"] == 9
    report = store.get(f"reports/people__train/{chosen['report']}.html").decode()
    assert "<svg" in report
    assert chosen["sentence"][1:] in report

    candidate = execute(
        TrainWinnerOperator(
            task_id="train.winner", pipeline="people", winner=chosen, snapshot=snapshot, data=DATA, train=TRAIN
        )
    )
    version = Registry(store, "people").get(candidate["version"])
    assert {k: version.record["params"][k] for k in SPACE} == chosen["winner"]["params"]
    about = version.record["experiment"]
    assert about["experiment"] == chosen["experiment"]
    assert about["winner"]["number"] == chosen["winner"]["number"]
    evaluate = {"metrics": ["roc_auc"], "gates": [{"metric": "roc_auc", "at_least": 0.6}]}
    scored = execute(
        EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA, evaluate=evaluate)
    )
    gates = execute(GateOperator(task_id="gates", pipeline="people", evaluation=scored, evaluate=evaluate))
    assert gates["verdict"] == "passed"
    assert Registry(store, "people").challenger().number == candidate["version"]  # type: ignore[union-attr]
    result = ExperimentRecords(store, "people", chosen["experiment"]).result()
    assert result is not None
    assert result["winner"] == chosen["winner"]


def test_a_task_that_runs_twice_runs_its_trial_once(execute: Run, snapshot: Any, store: LocalStore) -> None:
    items = execute(plan({"n_trials": 2, "space": SPACE}, snapshot))
    execute(trial(items[0]))
    records = ExperimentRecords(store, "people", items[0]["experiment"])
    first = records.trial(1, 1)
    assert execute(plan({"n_trials": 2, "space": SPACE}, snapshot)) == items
    execute(trial(items[0]))
    assert records.trial(1, 1) == first
    assert execute(plan({"n_trials": 2, "space": SPACE}, snapshot), run_id="manual__2") != items


def test_the_form_sets_trials_and_values(execute: Run, snapshot: Any, store: LocalStore) -> None:
    items = execute(plan({"n_trials": 6, "space": SPACE}, snapshot), n_trials=2, space={"max_depth": [9]})
    trials = ExperimentRecords(store, "people", items[0]["experiment"]).plan()["trials"]
    assert len(items) == len(trials) == 2
    assert {t["params"]["max_depth"] for t in trials} == {9}
    with pytest.raises(AirflowFailException, match="no space of this experiment has 'max_dept'"):
        execute(plan({"n_trials": 6, "space": SPACE}, snapshot), space={"max_dept": [9]})
    with pytest.raises(AirflowFailException, match="tries every combination"):
        execute(plan({"strategy": "all", "space": SPACE}, snapshot), n_trials=2)


def test_a_failed_trial_is_green_and_recorded(execute: Run, snapshot: Any) -> None:
    items = execute(plan({"strategy": "all", "space": {"max_depth": [-1, 3]}}, snapshot))
    failed, good = (execute(trial(i)) for i in items)
    assert failed["score"] is None
    assert "max_depth" in failed["error"]
    assert good["error"] is None
    chosen = execute(ChooseWinnerOperator(task_id="choose", pipeline="people", plan=items))
    assert (chosen["finished"], chosen["failed"]) == (1, 1)


def test_a_spent_budget_skips(execute: Run, slow: None) -> None:
    experiment = {
        "callable": "slow_sim:wait", "direction": "minimize", "strategy": "all", "budget": "1s",
        "space": {"x": [1.01, 0]},
    }  # fmt: skip
    items = execute(PlanExperimentOperator(task_id="plan", pipeline="people", experiment=experiment))
    execute(trial(items[0], data=None))
    with pytest.raises(AirflowSkipException, match=r"experiment\.budget is 1s"):
        execute(trial(items[1], data=None))
    chosen = execute(ChooseWinnerOperator(task_id="choose", pipeline="people", plan=items))
    assert chosen["not_run"] == 1
    assert chosen["winner"]["train"] is None
    assert "budget" in chosen["sentence"]


def test_a_trial_that_takes_too_long_has_failed(
    execute: Run, slow: None, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = {"callable": "slow_sim:wait", "direction": "minimize", "space": {"x": [0]}}
    items = execute(PlanExperimentOperator(task_id="plan", pipeline="people", experiment=experiment))

    def late(seconds: float) -> None:
        raise AirflowTaskTimeout  # as Airflow does in the task, at execution_timeout

    monkeypatch.setattr("time.sleep", late)
    assert "took longer" in execute(trial(items[0], data=None))["error"]
    with pytest.raises(AirflowFailException, match="none of the 1 trials has a score"):
        execute(ChooseWinnerOperator(task_id="choose", pipeline="people", plan=items))
