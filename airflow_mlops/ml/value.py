"""What a prediction is worth: one number a row, from a table of outcomes or from the user's own function.

A value is a metric like any other, a mean over rows of which higher is better, so that all thresholds, slices and
paired comparisons work on it. It is computed once, where the holdout is scored, and kept beside the predictions.

Reference: Elkan (2001), "The foundations of cost-sensitive learning", *IJCAI*, 973-978 (a matrix of costs a row).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Gate, Value
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.metrics import Metric, Predictions, Task
from airflow_mlops.ml.paired import Estimate
from airflow_mlops.ml.privacy import cause, told

Classes = tuple[Any, ...] | None
RowValues = Callable[[np.ndarray, Predictions, Classes], np.ndarray]
"""From codes or numbers (n,), predictions and the classes in the order of their codes to values (n,)."""

_ARGUMENTS = ("y", "labels", "proba", "rows")


class ValueMetric(Metric):
    """The mean value of a row, from the values that the evaluation kept under ``name``."""

    def __init__(self, value: Value) -> None:
        self.name = self.scorer_name = value.name
        self.lower_is_better = False
        self._module = "value"
        self._matrix = value.matrix

    @property
    def needs_labels(self) -> bool:
        """A matrix is of predicted classes, and a function may ask for them."""
        return True

    @property
    def is_row_mean(self) -> bool:
        """It is one, by definition."""
        return True

    def limited(self, value: float) -> float:
        """A value has no range of its own."""
        return value

    def check_task(self, task: Task, n_classes: int | None) -> None:
        """Refuse a matrix for numbers, or for another number of classes.

        :raises EvaluationError: it does not fit.
        """
        if self._matrix is None:
            return
        if n_classes is None:
            raise EvaluationError(
                f"the matrix of {self.name!r} is for classes, and this is regression", hint="give a callable instead"
            )
        if len(self._matrix) != n_classes:
            raise EvaluationError(
                f"the matrix of {self.name!r} has {len(self._matrix)} rows, and the target has {n_classes} classes",
                hint="one row and one column a class: two classes with the positive one last, more in sorted order",
            )

    def row_scores(self, y: np.ndarray, predictions: Predictions) -> np.ndarray:
        """Values of the rows, shape (n,).

        :raises EvaluationError: the evaluation did not keep them.
        """
        values = predictions.values.get(self.name)
        if values is None:
            raise EvaluationError(
                f"the evaluation holds no values {self.name!r}",
                hint="name the gate in evaluate.gates before the evaluation runs, and run it again",
            )
        return values

    def settled(self, found: Estimate, y: np.ndarray, candidate: Predictions, champion: Predictions | None) -> Estimate:
        """Bound a difference that is the same in every row by what rows can be worth.

        Two models that differ and are worth the same on every row seen are not shown to be equal: such a row would
        have been missed with the probability of the "rule of three", and may be worth as much as the widest row of
        the matrix, or as the values seen are apart.
        """
        if champion is None:
            return found
        mine, theirs = self.row_scores(y, candidate), self.row_scores(y, champion)
        if np.ptp(mine - theirs) > 0:
            return found
        if self._matrix is not None:
            span = max(max(row) - min(row) for row in self._matrix)
        else:
            span = float(np.ptp(np.concatenate([mine, theirs])))
        units = found.rows if found.blocks is None else max(int(found.blocks), 1)
        return replace(found, method="rule of three", silent_rows=found.silent_rows or units, span=span)


def metric_of(gate: Gate) -> Metric:
    """The metric, or the value, that a gate is about."""
    return ValueMetric(gate.value) if gate.value is not None else _named(gate.metric or "")


@cache
def _named(name: str) -> Metric:
    """A metric by name: scikit-learn lists all its scorers for each, and a fleet asks for one thousands of times."""
    return Metric(name)


def value_functions(
    gates: Sequence[Gate], rows: pd.DataFrame, allowed: Sequence[str], private: Collection[str] = ()
) -> dict[str, RowValues]:
    """Return, by name, how the values that ``gates`` ask for are computed.

    :param rows: the holdout with all its columns, shape (n, columns), for functions that ask for them.
    :param allowed: where functions may come from, see :func:`airflow_mlops.ml.code.resolve`.
    :param private: columns whose values no error may quote.
    :raises CodeNotAllowed: a function lies outside.
    :raises EvaluationError: a function asks for something else than y, labels, proba and rows.
    """
    found: dict[str, RowValues] = {}
    for value in (gate.value for gate in gates if gate.value is not None):
        if value.matrix is not None:
            found[value.name] = _by_matrix(value)
        elif value.name not in found and value.callable is not None:
            found[value.name] = _by_function(value.callable, rows, allowed, private)
    return found


def _by_matrix(value: Value) -> RowValues:
    matrix = np.array(value.matrix, dtype=np.float64)

    def values(y: np.ndarray, predictions: Predictions, classes: Classes) -> np.ndarray:
        ValueMetric(value).check_task(
            "classification" if classes is not None else "regression", len(classes or ()) or None
        )
        order = np.arange(len(matrix))
        if value.classes is not None:
            if {*map(str, value.classes)} != {*map(str, classes or ())}:
                raise EvaluationError(
                    f"the matrix of {value.name!r} is for the classes {value.classes!r}, and the target has"
                    f" {list(classes or ())!r}",
                    hint="correct its classes",
                )
            places = [str(c) for c in value.classes]
            order = np.array([places.index(str(c)) for c in classes or ()])
        if predictions.labels is None:
            raise EvaluationError(f"the matrix of {value.name!r} needs predicted classes, and there are none")
        worth: np.ndarray = matrix[order[y], order[predictions.labels]]
        return worth

    return values


def _by_function(path: str, rows: pd.DataFrame, allowed: Sequence[str], private: Collection[str]) -> RowValues:
    function: Any = resolve(path, allowed)
    wanted = _asked(path, function)

    def values(y: np.ndarray, predictions: Predictions, classes: Classes) -> np.ndarray:
        given = {"rows": rows.copy(), **_decoded(y, predictions, classes)}
        try:
            made = np.asarray(function(**{name: given[name] for name in wanted}), dtype=np.float64)
        except Exception as e:  # noqa: BLE001 - raised as our own; its own words may quote what is private
            raise EvaluationError(
                f"the value function {path} failed on {len(y):,} rows: {told(e, private)}",
                hint="call it in a notebook with y, labels, proba and rows of a holdout",
            ) from cause(e, private)
        if made.shape != (len(y),):
            raise EvaluationError(
                f"the value function {path} returned shape {made.shape} for {len(y):,} rows",
                hint="return one number a row, in the order of the rows",
            )
        bad = int((~np.isfinite(made)).sum())
        if bad:
            raise EvaluationError(
                f"the value function {path} gives {bad:,} of {len(y):,} values that are NaN or infinite",
                hint="every row must be worth something: give rows without a value 0, or take them out of the data",
            )
        return made

    return values


def _asked(path: str, function: Callable[..., Any]) -> list[str]:
    """Which of y, labels, proba and rows the function takes, by their names."""
    parameters = inspect.signature(function).parameters.values()
    unknown = [p.name for p in parameters if p.name not in _ARGUMENTS and p.default is p.empty]
    wanted = [p.name for p in parameters if p.name in _ARGUMENTS and p.kind is not p.POSITIONAL_ONLY]
    if unknown or not wanted:
        what = f"asks for {unknown[0]!r}" if unknown else "asks for nothing"
        raise EvaluationError(
            f"the value function {path} {what}", hint=f"it may take {', '.join(_ARGUMENTS)}, by these names"
        )
    return wanted


def _decoded(y: np.ndarray, predictions: Predictions, classes: Classes) -> Mapping[str, Any]:
    """Truth and predictions as the data has them: classes by their names, not by their codes."""
    if classes is None:
        return {"y": y, "labels": predictions.labels, "proba": None}
    names = np.empty(len(classes), dtype=object)
    names[:] = classes
    proba = None if predictions.proba is None else pd.DataFrame(predictions.proba, columns=list(classes))
    return {"y": names[y], "labels": None if predictions.labels is None else names[predictions.labels], "proba": proba}
