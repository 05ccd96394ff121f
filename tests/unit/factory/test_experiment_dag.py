"""The DAG of experiments: trials are mapped and bounded, and the winner takes the way of every candidate."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.config.loader import load_text
from airflow_mlops.factory.builder import build_pipeline
from airflow_mlops.factory.levels import LEVELS
from airflow_mlops.factory.outline import outline

MODEL = """\
pipeline: churn
level: 2
data: {source: churn.csv, target: left, id: id}
train: {estimator: sklearn.tree.DecisionTreeClassifier}
evaluate: {gates: [{metric: roc_auc, at_least: 0.5}]}
approve: {required: true}
retrain: {schedule: "@weekly"}
"""
HALVING = """\
experiment:
  strategy: halving
  n_trials: 9
  max_parallel: 2
  space: {max_depth: [1, 2, 3, 4, 5, 6, 7, 8, 9]}
  resources: {pool: ml}
"""
FUNCTION = "pipeline: tour\nlevel: 2\nexperiment: {callable: tour:length, direction: minimize, space: {x: [1]}}\n"


def built(text: str) -> dict[str, Any]:
    return build_pipeline(load_text(text))


def test_rungs_are_mapped_tasks_in_a_row() -> None:
    dag = built(MODEL + HALVING)["churn__experiment"]
    names = ["experiment.trials", "experiment.trials_2", "experiment.trials_3"]
    assert [t for t in dag.task_ids if t.startswith("experiment.trials")] == names
    for name in names:
        task = dag.get_task(name)
        assert isinstance(task, MappedOperator)
        assert task.max_active_tis_per_dag == 2
        assert task.pool == "ml"
        assert task.doc_md
    assert dag.get_task("experiment.keep_3").upstream_task_ids == {"experiment.plan", "experiment.trials_2"}
    choose = dag.get_task("experiment.choose")
    assert choose.upstream_task_ids == {"experiment.plan", "experiment.trials_3"}
    # A trial that fails does not end the experiment; without a plan there is none.
    assert choose.trigger_rule == "all_done_min_one_success"


def test_other_strategies_have_one_rung() -> None:
    dag = built(MODEL + "experiment: {space: {max_depth: [1, 2]}}\n")["churn__experiment"]
    assert {t for t in dag.task_ids if t.startswith("experiment.")} == {
        "experiment.plan",
        "experiment.trials",
        "experiment.choose",
    }


def test_the_winner_takes_the_way_of_every_candidate() -> None:
    dags = built(MODEL + HALVING)

    def after(dag: Any, trained: str) -> dict[str, set[str]]:
        below = {t.task_id: t for t in dag.get_task(trained).get_flat_relatives(upstream=False)}
        return {n: {u.replace("train.winner", "train.fit") for u in t.upstream_task_ids} for n, t in below.items()}

    assert after(dags["churn__experiment"], "train.winner") == after(dags["churn__train"], "train.fit")
    assert "approve.ask" in dags["churn__experiment"].task_ids


def test_an_event_of_monitoring_starts_it() -> None:
    schedule = built(MODEL + HALVING)["churn__experiment"].schedule
    assert isinstance(schedule, Asset)
    assert (schedule.name, schedule.uri) == ("churn.experiment", "x-mlops://churn/experiment")


def test_there_is_none_without_the_section() -> None:
    assert "churn__experiment" not in built(MODEL)
    assert [spec.suffix for spec in LEVELS[2]].count("experiment") == 1


def test_a_function_is_the_only_dag() -> None:
    dags = built(FUNCTION)
    assert list(dags) == ["tour__experiment"]
    assert dags["tour__experiment"].task_ids == ["experiment.plan", "experiment.trials", "experiment.choose"]
    assert set(dags["tour__experiment"].params) == {"n_trials", "space"}


@pytest.mark.parametrize("text", [MODEL + HALVING, FUNCTION])
def test_airflow_can_keep_it_and_it_can_be_told(text: str) -> None:
    config = load_text(text)
    dag = build_pipeline(config)[f"{config.pipeline}__experiment"]
    kept = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert kept.task_ids == dag.task_ids
    (told,) = (d for d in outline(config).dags if d.suffix == "experiment")
    assert [t.id for t in told.tasks] == dag.task_ids
    assert all(set(t.after) <= dag.get_task(t.id).upstream_task_ids for t in told.tasks)
