"""What stands between a verdict and the champion: cleared tasks, missing answers, runs that must not promote."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.registry.registry import Registry

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}
APPROVED = {"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "lead"}}
REJECTED = {"chosen_options": ["Reject"], "responded_by_user": {"id": "1", "name": "lead"}}


@pytest.fixture
def registry(lake) -> Registry:
    return MLOpsHook().registry("people")


@pytest.fixture
def evaluation(execute) -> dict[str, Any]:
    ref = execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA))
    candidate = execute(TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=LOGISTIC))
    return execute(EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA))


def gate(evaluation: dict[str, Any], at_least: float = 0.5, **arguments: Any) -> GateOperator:
    config = {"gates": [{"metric": "roc_auc", "at_least": at_least}]}
    return GateOperator(task_id="gates", pipeline="people", evaluation=evaluation, evaluate=config, **arguments)


def promote(decision: dict[str, Any], approval: Any = None) -> PromoteOperator:
    return PromoteOperator(task_id="promote", pipeline="people", decision=decision, approval=approval)


def test_what_passed_is_promoted(registry, evaluation, execute) -> None:
    assert execute(promote(execute(gate(evaluation))))["version"] == 1
    assert registry.champion().number == 1


def test_a_rejected_candidate_is_not_promoted_by_clearing_the_promotion(registry, evaluation, execute) -> None:
    with DAG("people__train"):
        judge = gate(evaluation, at_least=1.0)
        judge >> EmptyOperator(task_id="promote")
    with pytest.raises(DownstreamTasksSkipped):
        execute(judge)
    decision = execute.pushed["return_value"]
    assert decision["verdict"] == "rejected"
    with pytest.raises(AirflowSkipException, match="did not pass its gates"):
        execute(promote(decision))
    assert registry.champion() is None


def test_airflow_knows_that_the_gates_skip_what_follows() -> None:
    # Without it, the scheduler runs a skipped task again as soon as somebody clears it.
    with DAG("people__train") as dag:
        gate({})
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).get_task("gates").inherits_from_skipmixin


def test_a_no_stays_a_no_when_the_promotion_is_cleared(registry, evaluation, execute) -> None:
    decision = execute(gate(evaluation, approval="always"))
    with pytest.raises(AirflowSkipException, match=r"lead answered Reject"):
        execute(promote(decision, REJECTED))
    assert registry.champion() is None
    assert execute(promote(decision, APPROVED))["version"] == 1


def test_where_a_person_must_be_asked_silence_is_not_a_yes(registry, evaluation, execute) -> None:
    decision = execute(gate(evaluation, approval="always"))
    with pytest.raises(AirflowFailException, match=r"(?s)needs a person's yes.*marking"):
        execute(promote(decision))
    assert registry.champion() is None


def test_a_run_that_must_not_promote_asks_nobody_and_names_no_challenger(registry, evaluation, execute) -> None:
    decision = execute(gate(evaluation, approval="always"), promote=False)
    assert (decision["go"], decision["approval"]) == (True, False)
    assert registry.challenger() is None
    with pytest.raises(AirflowSkipException, match="does not promote"):
        execute(promote(decision), promote=False)
    assert registry.champion() is None


def test_gates_that_were_changed_and_run_again_are_what_the_version_says(registry, evaluation, execute) -> None:
    execute(gate(evaluation, at_least=0.5))
    execute(gate(evaluation, at_least=0.6))
    execute(gate(evaluation, at_least=0.6))
    notes = registry.get(1).notes["gates"]
    assert [note["results"][0]["threshold"] for note in notes] == [0.5, 0.6]


def test_a_script_that_was_changed_and_run_again_is_another_version(
    lake, tmp_path, registry, execute, monkeypatch
) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_COMMANDS", "True")
    script = tmp_path / "fit.py"
    code = (
        "import sys, pandas, skops.io\nfrom sklearn.tree import DecisionTreeClassifier\n"
        "frame = pandas.read_parquet(sys.argv[1])[['radius', 'texture', 'target']]\n"
        "tree = DecisionTreeClassifier(max_depth=DEPTH).fit(frame.drop(columns='target'), frame['target'])\n"
        "skops.io.dump(tree, sys.argv[2] + '/model.skops')\n"
    )
    script.write_text(code.replace("DEPTH", "2"))
    ref = execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA))
    train = {"command": "python fit.py {train} {model_dir}"}
    fit = TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=train, folder=str(tmp_path))
    assert execute(fit)["version"] == execute(fit)["version"] == 1
    script.write_text(code.replace("DEPTH", "3"))
    assert execute(fit)["version"] == 2
    assert list(registry.get(2).record["code"]["files"]) == [str(script)]


def test_a_promotion_cleared_after_a_later_one_announces_nothing(registry, evaluation, execute) -> None:
    earlier = execute(gate(evaluation))
    execute(promote(earlier))
    registry.register(registry.get(1).record, op_id="other")
    registry.promote(2, expected=1, op_id="later", reason="better")
    with pytest.raises(AirflowSkipException, match=r"v1 was promoted .* champion now is v2"):
        execute(promote(earlier))
    assert registry.champion().number == 2
