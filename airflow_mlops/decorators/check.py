"""``@task.mlops_check``: a Python function that gives rows, checked like those that were scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import task_decorator_factory
from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.decorators.function import FunctionOperator
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.operators.base import RunScope
from airflow_mlops.operators.monitoring import (
    CheckOperator,
    DriftCheckOperator,
    FeatureSkewCheckOperator,
    PerformanceCheckOperator,
    QualityCheckOperator,
)

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator

    from airflow_mlops.registry.registry import Version


class _RowsOperator(FunctionOperator, CheckOperator):
    """Base: the rows are the function's, in the place of the window's capture."""

    provided = ("window",)
    custom_operator_name = "@task.mlops_check"

    def _capture(self, scope: RunScope) -> tuple[dict[str, Any], Version]:
        import inspect

        from airflow_mlops.ml.prediction import capture_rows

        champion = self.hook.registry(self.pipeline).champion()
        if champion is None:
            raise AirflowSkipException(f"{self.pipeline} has no champion yet: nothing to compare with")
        arguments = self.given()
        if "window" in inspect.signature(self.python_callable).parameters:
            arguments["window"] = scope.window
        rows = self.python_callable(**arguments)
        ref = capture_rows(
            self.hook.store(), self.pipeline, scope.required_window, rows, model_version=champion.number,
            private=self.data.private,
        )  # fmt: skip
        return ref, champion


class _QualityOfRows(_RowsOperator, QualityCheckOperator):
    template_fields: Sequence[str] = (*FunctionOperator.template_fields, *QualityCheckOperator.template_fields)


class _DriftOfRows(_RowsOperator, DriftCheckOperator):
    template_fields: Sequence[str] = (*FunctionOperator.template_fields, *DriftCheckOperator.template_fields)


class _SkewOfRows(_RowsOperator, FeatureSkewCheckOperator):
    template_fields: Sequence[str] = (*FunctionOperator.template_fields, *FeatureSkewCheckOperator.template_fields)


class _PerformanceOfRows(_RowsOperator, PerformanceCheckOperator):
    template_fields: Sequence[str] = (*FunctionOperator.template_fields, *PerformanceCheckOperator.template_fields)


CHECKS: dict[str, type[_RowsOperator]] = {
    "quality": _QualityOfRows,
    "drift": _DriftOfRows,
    "skew": _SkewOfRows,
    "performance": _PerformanceOfRows,
}
"""Checks of rows."""


def mlops_check_task(
    python_callable: Callable[..., Any] | None = None, *, check: str = "drift", **kwargs: Any
) -> TaskDecorator:
    """Make a check of a function that returns rows: a DataFrame or an Arrow table.

    The rows hold features as the model is given them, and for some checks more: the id for ``skew``, id and
    ``prediction`` (and ``probability`` and the like) for ``performance``. They are checked against the pipeline's
    champion, for the run's window, which the function may take as ``window``; other arguments come from the call.
    The result is recorded as that window's, like that of the check's operator, whose keyword arguments these are:
    ``pipeline``, ``data``, ``monitor``, …

    :param check: ``quality``, ``drift``, ``skew`` or ``performance``.
    :raises ConfigError: there is no such check of rows.
    """
    if check not in CHECKS:
        raise ConfigError(
            f"@task.mlops_check(check={check!r}): no check of rows", hint=f"use one of {', '.join(CHECKS)}"
        )
    return task_decorator_factory(python_callable=python_callable, decorated_operator_class=CHECKS[check], **kwargs)
