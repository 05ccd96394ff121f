"""What the decorators share: arguments that the operator gives to the function, not the caller."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator


def with_placeholders(
    function: Callable[..., Any], given: Mapping[str, Any] | None, provided: tuple[str, ...]
) -> dict[str, Any]:
    """Return ``given`` plus ``None`` for each argument in ``provided`` that ``function`` takes.

    Airflow checks a decorated function's call while the DAG file is parsed, when the data is not there.

    :raises TypeError: when the caller passes one of ``provided``.
    """
    given = dict(given or {})
    if taken := sorted(set(given) & set(provided)):
        raise TypeError(f"{function.__name__}() gets {', '.join(taken)} from the operator; leave it out of the call")
    names = inspect.signature(function).parameters
    return {**{name: None for name in provided if name in names}, **given}


class FunctionOperator(DecoratedOperator):
    """Base of the decorated operators: the caller's arguments by name, those in ``provided`` by the operator."""

    provided: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if op_args:
            raise TypeError(f"give the arguments of {python_callable.__name__}() by name")
        super().__init__(
            python_callable=python_callable,
            op_kwargs=with_placeholders(python_callable, op_kwargs, self.provided),
            **kwargs,
        )

    def given(self) -> dict[str, Any]:
        """The arguments that the caller gave, rendered."""
        return {name: value for name, value in self.op_kwargs.items() if name not in self.provided}
