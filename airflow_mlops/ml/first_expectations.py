"""First expectations on data, in Great Expectations' names: they hold on what was seen, with some room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.ml.features import Feature, plain

MAX_EXPECTATIONS = 12
_MAX_SETS, _MAX_RANGES = 3, 4
_MAX_VALUES = 12
_ROOM = 0.25  # of the range that was seen, on either side
_LARGEST = 1e15  # above, a float may stand for several whole numbers

Named = tuple[str, Mapping[str, Any]]


def first_expectations(
    frame: pd.DataFrame,
    target: str,
    classes: Sequence[Any] | None,
    id: str | None,
    features: Sequence[Feature],
    *,
    complete: bool,
) -> list[Named]:
    """At most twelve: on the target and the id first, then sets, ranges and presence of features.

    :param classes: of the target; ``None`` for numbers.
    :param complete: whether ``frame`` has all rows; if not, one row in a hundred may differ, and nothing is
        said to be unique.
    """
    mostly: dict[str, Any] = {} if complete else {"mostly": 0.99}
    found: list[Named] = []
    if frame[target].notna().all():
        found.append(("expect_column_values_to_not_be_null", {"column": target}))
    if classes is not None and len(classes) <= _MAX_VALUES:
        found.append(("expect_column_values_to_be_in_set", {"column": target, "value_set": list(classes)}))
    elif classes is None and (limits := _limits(frame[target])):
        found.append(("expect_column_values_to_be_between", {"column": target, **limits, **mostly}))
    if id is not None and complete:
        found.append(("expect_column_values_to_be_unique", {"column": id}))
    named = [f for f in features if f.name]
    found += list(_sets(frame, named))[:_MAX_SETS]
    ranges = (_range(frame, f.name, mostly) for f in named if f.kind == "number")
    found += [r for r in ranges if r][:_MAX_RANGES]
    told = {arguments["column"] for _, arguments in found}
    # A column that another expectation reads comes last: nothing says yet that the others are there at all.
    whole = [f.name for f in named if frame[f.name].notna().all()]
    found += [
        ("expect_column_values_to_not_be_null", {"column": name, "mostly": 0.99})
        for name in sorted(whole, key=lambda name: name in told)
    ]
    return found[:MAX_EXPECTATIONS]


def _sets(frame: pd.DataFrame, features: Sequence[Feature]) -> Iterator[Named]:
    for feature in features:
        values = list(feature.categories or ())
        # A category that was seen once is no sign that all of them were seen.
        if 2 <= len(values) <= _MAX_VALUES and len(frame) >= 20 * len(values):
            arguments = {"column": feature.name, "value_set": values, "mostly": 0.99}
            if set(frame[feature.name].dropna().map(plain)) <= {*values, ""}:
                yield "expect_column_values_to_be_in_set", arguments


def _range(frame: pd.DataFrame, name: str, mostly: Mapping[str, Any]) -> Named | None:
    limits = _limits(frame[name])
    return ("expect_column_values_to_be_between", {"column": name, **limits, **mostly}) if limits else None


def _limits(values: pd.Series) -> dict[str, int | float] | None:
    """A range with room on both sides, in round numbers; what was never negative may not become so."""
    if not pd.api.types.is_numeric_dtype(values):
        return None
    numbers = values.dropna().to_numpy(dtype=float)
    if not len(numbers) or not np.isfinite(numbers).all() or np.abs(numbers).max() > _LARGEST:
        return None
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return None
    room = (high - low) * _ROOM
    step = 10.0 ** math.floor(math.log10(high - low) - 1)
    if not step:  # of a range below the smallest number
        return None
    if (numbers % 1 == 0).all():
        step = max(step, 1.0)
    lowest = 0.0 if low >= 0 and low - room < 0 else math.floor((low - room) / step) * step
    return {"min_value": _round(lowest, step), "max_value": _round(math.ceil((high + room) / step) * step, step)}


def _round(value: float, step: float) -> int | float:
    """``value``, a multiple of ``step``, without the noise of binary fractions."""
    rounded = round(value, max(0, -math.floor(math.log10(step))))
    return int(rounded) if rounded.is_integer() else rounded
