"""Labels as codes and what a model says about a holdout, checked before anything is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.metrics import Task

_CHUNK = 200_000


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _codes(values: Any, ordered: Sequence[Any], what: str) -> np.ndarray:
    """Class codes, shape (n,)."""
    places = {c: i for i, c in enumerate(ordered)}
    codes, unique = pd.factorize(np.asarray(values, dtype=object))
    unknown = [u for u in map(_plain, unique) if u not in places]
    if unknown:
        raise EvaluationError(
            f"{what} has the class {unknown[0]!r}, and the candidate was trained on {list(ordered)[:10]!r}",
            hint="classes must be the same text or number everywhere; a class that came or went needs a new champion",
        )
    return np.array([places[_plain(u)] for u in unique], dtype=np.int64)[codes]


def truth(
    y: pd.Series, task: Task, classes: Sequence[Any] | None, positive: Any
) -> tuple[tuple[Any, ...] | None, np.ndarray]:
    """Return the classes in the order of their codes (two: the positive one last) and the codes or numbers, shape (n,).

    :raises EvaluationError: missing, unknown or infinite labels, fewer than two classes known or present.
    """
    missing = int(y.isna().sum())
    if missing:
        raise EvaluationError(
            f"{missing} of {len(y)} holdout rows have no label", hint="drop them or let validate set them aside"
        )
    if task == "regression":
        try:
            values = y.to_numpy(dtype=float)
        except (TypeError, ValueError) as e:
            raise EvaluationError(f"the target is not numeric: {e}", hint="set task: classification") from e
        if not np.isfinite(values).all():
            raise EvaluationError(f"{int((~np.isfinite(values)).sum())} of {len(y)} holdout labels are infinite")
        return None, values
    ordered = [_plain(c) for c in classes or []]
    if len(ordered) < 2:
        raise EvaluationError(f"a classification needs at least two classes, and the model knows {ordered!r}")
    if len(ordered) == 2 and positive is not None:
        if _plain(positive) not in ordered:
            raise EvaluationError(
                f"the positive class {positive!r} is none of {ordered!r}", hint="correct data.positive"
            )
        ordered.sort(key=lambda c: c == _plain(positive))
    codes = _codes(y, ordered, "the holdout")
    if (codes == codes[0]).all():
        raise EvaluationError(
            f"all {len(y)} holdout rows have the class {ordered[codes[0]]!r}: no metric of a classifier means anything",
            hint="use more rows (a longer data.window or a larger data.split.test)",
        )
    return tuple(ordered), codes


def predict(
    name: str, model: Any, frame: pd.DataFrame | np.ndarray, *, ordered: tuple[Any, ...] | None, labels: bool
) -> dict[str, np.ndarray]:
    """Ask one model; columns of shape (n,) as :class:`airflow_mlops.ml.evaluation.Evaluation` keeps them.

    :param name: ``candidate`` or ``champion``; begins the columns' names.
    :param ordered: classes in the order of their codes; ``None`` for regression.
    :param labels: whether to ask for predicted classes too, which costs a second pass.
    :raises EvaluationError: classes the holdout cannot have, wrong shapes, values that are not finite or are no
        probabilities.
    """

    def part(i: int) -> pd.DataFrame | np.ndarray:
        return frame[i : i + _CHUNK] if isinstance(frame, np.ndarray) else frame.iloc[i : i + _CHUNK]

    def call(method: str) -> np.ndarray:
        ask = getattr(model, method)
        if len(frame) <= _CHUNK:
            values = np.asarray(ask(frame))
        else:
            values = np.concatenate([np.asarray(ask(part(i))) for i in range(0, len(frame), _CHUNK)])
        if values.shape[0] != len(frame) or (method == "predict" and values.ndim != 1):
            raise EvaluationError(f"the {name}'s {method} returned shape {values.shape} for {len(frame)} rows")
        return values

    def numbers(method: str) -> np.ndarray:
        values = call(method).astype(np.float64)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise EvaluationError(
                f"the {name}'s {method} gives {bad} values that are NaN or infinite, for {len(frame)} rows",
                hint="look for features of extreme size, or an estimator that did not converge",
            )
        return values

    out: dict[str, np.ndarray] = {}
    if ordered is None:
        out[f"{name}_label"] = numbers("predict")
        return out
    if hasattr(model, "predict_proba"):
        proba = _aligned(name, numbers("predict_proba"), model, ordered)
        out |= {f"{name}_proba_{i}": proba[:, i] for i in range(len(ordered))}
    elif hasattr(model, "decision_function"):
        decision = numbers("decision_function")
        known = _codes(model.classes_, ordered, f"the {name}")
        if decision.ndim == 1:
            # scikit-learn scores its own second class; here the positive class is code 1.
            out[f"{name}_decision_0"] = decision if known[1] == 1 else -decision
        elif sorted(known) == list(range(len(ordered))) and decision.shape[1] == len(ordered):
            out |= {f"{name}_decision_{c}": decision[:, i] for i, c in sorted(enumerate(known), key=lambda k: k[1])}
    if labels:
        out[f"{name}_label"] = _codes(call("predict"), ordered, f"the {name}'s prediction")
    return out


def _aligned(name: str, proba: np.ndarray, model: Any, ordered: tuple[Any, ...]) -> np.ndarray:
    """Columns in the order of the codes; a class the model never saw has probability 0."""
    known = _codes(model.classes_, ordered, f"the {name}")
    if proba.ndim != 2 or proba.shape[1] != len(known):
        raise EvaluationError(f"the {name}'s predict_proba has shape {proba.shape} for {len(known)} classes")
    if proba.min() < 0 or np.abs(proba.sum(axis=1) - 1).max() > 1e-3:
        raise EvaluationError(
            f"the {name}'s predict_proba gives no probabilities: they reach from {proba.min():.3g} to {proba.max():.3g}"
            f" and sum up to {proba.sum(axis=1).min():.3g} … {proba.sum(axis=1).max():.3g} a row",
            hint="predict_proba must return one column a class that sum to 1",
        )
    full = np.zeros((len(proba), len(ordered)))
    full[:, known] = proba
    return full
