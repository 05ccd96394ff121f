"""@task.mlops_train and @task.mlops_gate: what is given, what is refused, what a gate may answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_mlops.decorators.gate import mlops_gate_task
from airflow_mlops.decorators.train import mlops_train_task
from airflow_mlops.exceptions import EvaluationError

DATA = {"source": "x.csv", "target": "y"}


def _fit(X: Any, y: Any, seed: int, depth: int) -> tuple[Any, ...]:
    return X, y, seed, depth


def _train(**call: Any) -> Any:
    with DAG("d"):
        return mlops_train_task(_fit, pipeline="p", snapshot={}, data=DATA)(**call).operator


def test_the_operator_gives_the_data_and_the_caller_the_rest() -> None:
    function = _train(depth=3)._function()
    assert function("X", "y", seed=7) == ("X", "y", 7, 3)


def test_what_the_operator_gives_cannot_be_given() -> None:
    with pytest.raises(TypeError, match=r"_fit\(\) gets seed from the operator"):
        _train(depth=3, seed=1)


def test_arguments_are_given_by_name() -> None:
    with DAG("d"), pytest.raises(TypeError, match="by name"):
        mlops_train_task(_fit, pipeline="p", snapshot={}, data=DATA)(3)


def test_a_missing_argument_is_said_while_the_file_is_parsed() -> None:
    with pytest.raises(TypeError, match="depth"):
        _train()


def _judged(answer: Any) -> Any:
    def judge(evaluation: Any) -> Any:
        assert evaluation.rows == 9
        return answer

    with DAG("d"):
        operator = mlops_gate_task(judge, pipeline="p", evaluation={})().operator
    return operator._own_gate()(SimpleNamespace(rows=9))


@pytest.mark.parametrize(
    ("answer", "verdict", "sentence"),
    [
        (True, "passed", "judge: passed"),
        (False, "rejected", "judge: rejected"),
        (("inconclusive", "too few"), "inconclusive", "too few"),
    ],
)
def test_what_a_gate_may_answer(answer: Any, verdict: str, sentence: str) -> None:
    result = _judged(answer)
    assert (result.verdict, result.sentence, result.name) == (verdict, sentence, "judge")


@pytest.mark.parametrize("answer", [None, "yes", 1, ("fine", "x")])
def test_another_answer_is_an_error_and_never_a_pass(answer: Any) -> None:
    with pytest.raises(EvaluationError, match=r"judge\(\) returned"):
        _judged(answer)
