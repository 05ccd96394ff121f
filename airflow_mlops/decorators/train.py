"""``@task.mlops_train``: a Python function that returns a fitted estimator, as a training task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.decorator import task_decorator_factory

from airflow_mlops.decorators.function import FunctionOperator
from airflow_mlops.operators.training import TrainOperator

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import TaskDecorator


class _TrainDecoratedOperator(FunctionOperator, TrainOperator):
    provided = ("X", "y", "seed")
    custom_operator_name = "@task.mlops_train"
    template_fields: Sequence[str] = (*FunctionOperator.template_fields, *TrainOperator.template_fields)

    def __init__(self, *, python_callable: Callable[..., Any], **kwargs: Any) -> None:
        kwargs.setdefault("train", {"callable": f"{python_callable.__module__}:{python_callable.__name__}"})
        super().__init__(python_callable=python_callable, **kwargs)

    def _function(self) -> Callable[..., Any]:
        """The decorated function with the caller's arguments bound; the operator gives X, y and seed."""
        import inspect

        own = self.given()
        takes_seed = "seed" in inspect.signature(self.python_callable).parameters

        def fit(X: Any, y: Any, *, seed: int, **params: Any) -> Any:
            if takes_seed:
                params["seed"] = seed
            return self.python_callable(X, y, **own, **params)

        return fit


def mlops_train_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a training task of a function ``fit(X, y, …)`` that returns a fitted scikit-learn estimator.

    ``X`` (DataFrame, rows × features), ``y`` (Series) and ``seed`` come from the operator; other
    arguments from the call. Keyword arguments are those of
    :class:`~airflow_mlops.operators.training.TrainOperator`: ``pipeline``, ``snapshot``, ``data``, …
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_TrainDecoratedOperator, **kwargs
    )
