"""``@task.mlops_gate``: a Python function that judges a candidate, as a gate task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import task_decorator_factory

from airflow_mlops.decorators.function import FunctionOperator
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.operators.evaluation import GateOperator

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_mlops.ml.evaluation import Evaluation
    from airflow_mlops.ml.gates import GateResult


class _GateDecoratedOperator(FunctionOperator, GateOperator):
    provided = ("evaluation",)
    custom_operator_name = "@task.mlops_gate"
    template_fields: Sequence[str] = (*FunctionOperator.template_fields, *GateOperator.template_fields)

    def _own_gate(self) -> Callable[[Evaluation], GateResult]:
        own = self.given()

        def judge(evaluation: Evaluation) -> GateResult:
            from airflow_mlops.ml.gates import GateResult

            name = self.python_callable.__name__
            answer = self.python_callable(evaluation=evaluation, **own)
            verdict, sentence = answer if isinstance(answer, tuple) else (answer, "")
            if isinstance(verdict, bool):
                verdict = "passed" if verdict else "rejected"
            if verdict not in ("passed", "rejected", "inconclusive"):
                raise EvaluationError(
                    f"the gate {name}() returned {answer!r}",
                    hint="return True or False, or (verdict, sentence) with passed, rejected or inconclusive",
                )
            return GateResult(
                gate={"function": name}, name=name, verdict=verdict, sentence=sentence or f"{name}: {verdict}"
            )

        return judge


def mlops_gate_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a gate of a function ``judge(evaluation)`` that returns True, False, or ``(verdict, sentence)``.

    ``evaluation`` is an :class:`airflow_mlops.ml.evaluation.Evaluation`: both models' predictions on the
    holdout, and their metrics. The function is judged beside the gates of ``evaluate``. Keyword arguments
    are those of :class:`~airflow_mlops.operators.evaluation.GateOperator`. Named ``evaluation`` there is
    the XCom of the evaluation task.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_GateDecoratedOperator, **kwargs
    )
