"""What stands between a verdict and the champion: cleared tasks, missing answers, runs that must not promote."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DownstreamTasksSkipped
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.exceptions import StoreUnavailable
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.promotion import HandoverOperator, PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.registry.provenance import lineage
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store.content import get_blob

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}
APPROVED = {"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "lead"}}
REJECTED = {"chosen_options": ["Reject"], "responded_by_user": {"id": "1", "name": "lead"}}
TIMED_OUT = {"chosen_options": ["Reject"], "responded_by_user": None}


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


def answers(registry: Registry) -> list[dict[str, Any]]:
    return registry.get(1).notes.get("approval", [])


def test_a_no_is_on_the_record_with_who_and_when(registry, evaluation, execute) -> None:
    decision = execute(gate(evaluation, approval="always"))
    said = REJECTED | {"responded_at": datetime(2026, 3, 1, 9, 30, tzinfo=UTC)}
    for _ in range(2):  # the second as a retry, or cleared
        with pytest.raises(AirflowSkipException, match="people v1 is not promoted: lead answered Reject"):
            execute(promote(decision, said))
    (note,) = answers(registry)
    assert note == {"by": "lead", "answer": ["Reject"], "answered_at": "2026-03-01T09:30:00.000+00:00"}
    version = registry.get(1)
    assert lineage(registry.store, version)["approvals"] == [
        {"at": "2026-03-01T09:30:00.000+00:00", "by": "lead", "answer": ["Reject"]}
    ]
    row = next(r for r in registry.history() if r["kind"] == "approval")
    assert (row["by"], row["reason"]) == ("lead", "Reject")
    card = get_blob(registry.store, version.notes["card"][-1]["markdown"]).decode()
    assert "Approval: Reject, by lead." in card


def test_a_person_asked_again_by_the_same_run_may_change_their_mind(registry, evaluation, execute) -> None:
    decision = execute(gate(evaluation, approval="always"))
    with pytest.raises(AirflowSkipException):
        execute(promote(decision, REJECTED))
    assert execute(promote(decision, APPROVED))["version"] == 1
    assert [note["answer"] for note in answers(registry)] == [["Reject"], ["Approve"]]


@pytest.mark.parametrize("kind", [PromoteOperator, HandoverOperator])
def test_a_question_that_times_out_is_on_the_record_as_nobodys(registry, evaluation, execute, kind) -> None:
    decision = execute(gate(evaluation, approval="always"))
    task = kind(task_id="deliver", pipeline="people", decision=decision, approval=TIMED_OUT)
    with pytest.raises(AirflowSkipException, match="the time-out answered Reject"):
        execute(task)
    (note,) = answers(registry)
    assert (note["by"], note["answer"]) == (None, ["Reject"])
    assert registry.champion() is None
    card = get_blob(registry.store, registry.get(1).notes["card"][-1]["markdown"]).decode()
    assert "Approval: Reject, by nobody: the question timed out." in card


def test_a_store_that_is_down_does_not_lose_a_no(registry, evaluation, execute, monkeypatch) -> None:
    decision = execute(gate(evaluation, approval="always"))

    def silent(*args: Any, **kwargs: Any) -> None:
        raise StoreUnavailable("no answer", hint="wait")

    with monkeypatch.context() as down:
        down.setattr(Registry, "annotate", silent)
        with pytest.raises(StoreUnavailable):  # Airflow retries it, without asking again
            execute(promote(decision, REJECTED))
    with pytest.raises(AirflowSkipException):
        execute(promote(decision, REJECTED))
    assert len(answers(registry)) == 1


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
