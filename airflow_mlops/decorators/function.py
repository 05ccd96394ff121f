"""What the decorators share: arguments that the operator gives to the function, not the caller."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any


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
