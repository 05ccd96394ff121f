"""What data say about a pipeline for them: target, task, roles of columns, first expectations, a model that suits.

Everything is a proposal for a person to read; where nothing is convincing, nothing is proposed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data
from airflow_mlops.config.starter import Bar, Findings
from airflow_mlops.exceptions import DataError, TargetError
from airflow_mlops.ml.features import Feature, infer_schema, plain
from airflow_mlops.ml.first_expectations import first_expectations
from airflow_mlops.ml.leaks import leaks
from airflow_mlops.ml.parts import utc_microseconds

MAX_CLASSES = 20
MANY_ROWS = 1000
_CONVINCING = 3.0
_SHOWN = 30
_DAY = 86_400_000_000  # microseconds
_TARGETS = frozenset(
    ["target", "label", "labels", "y", "class", "outcome", "response", "churn", "churned", "diagnosis", "survived",
     "delayed", "fraud", "default", "defaulted", "converted", "clicked", "cancelled", "species", "price", "quality",
     "revenue", "sales", "salary", "demand"]
)  # fmt: skip
_YES_NO = frozenset(["is", "has", "will", "did", "was"])
_IDS = frozenset(["id", "ids", "uuid", "guid", "key", "identifier", "number", "no", "nr"])
_TIMES = frozenset(
    ["time", "timestamp", "date", "datetime", "day", "ts", "at", "when", "created", "updated", "departure", "arrival",
     "hour", "month", "week", "period"]
)  # fmt: skip
_INDEX = ("", "Unnamed: 0")  # what a pandas index is called in a CSV file
_BIRTH = frozenset(["birth", "birthday", "dob", "born"])
_YES = frozenset(["true", "yes", "y", "t", "positive", "pos"])


def look(frame: pd.DataFrame, *, complete: bool, target: str | None = None) -> Findings:
    """Look at ``frame`` (rows × columns, as read from the data).

    :param complete: whether these are all rows; what needs all of them is not claimed otherwise.
    :param target: the column to predict; ``None``: the best candidate.
    :raises TargetError: no column is convincing, or ``target`` cannot be predicted.
    :raises DataError: no column is left to learn from.
    """
    if target is None:
        target, *others = _targets(frame)
    else:
        _require(frame, target)
        others = []
    values = frame[target].dropna()
    classes = _classes(values)
    _learnable(target, values, classes)
    positive, share = _positive(values, classes)
    times = _times(frame, target)
    stamp = times[0] if times else None
    name = _id(frame, target, stamp)
    data = Data(source="-", target=target, positive=positive, id=name, timestamp=stamp)
    schema = infer_schema(frame, data)
    task = "regression" if classes is None else "classification"
    estimator, params = _estimator(task, len(frame), schema.features)
    metrics, bar = _bar(classes, share)
    days, newest = _span(frame[stamp]) if stamp else (0, "")
    roles = {target, name, *times}
    return Findings(
        rows=len(frame),
        columns=len(frame.columns),
        complete=complete,
        target=target,
        task=task,
        estimator=estimator,
        params=params,
        metrics=metrics,
        bar=bar,
        candidates=tuple(others),
        positive=positive,
        share=share,
        classes=len(classes) if classes is not None else None,
        missing=int(frame[target].isna().sum()),
        id=name,
        timestamp=stamp,
        days=days,
        newest=newest,
        by_time=stamp is not None and _splits_by_time(frame, stamp, target, classes),
        times=tuple(times[1:]),
        index=next((c for c in _INDEX if c in schema.names), None),
        unused={column: why for column, why in schema.excluded if column not in roles},
        leaks=tuple(leaks(frame, target, [f.name for f in schema.features], classification=classes is not None)),
        expectations=tuple(
            first_expectations(frame, target, classes, name, schema.features, complete=complete)
        ),
    )  # fmt: skip


# --- the target ----------------------------------------------------------------------------------


def _targets(frame: pd.DataFrame) -> list[str]:
    """Candidates, the best first."""
    scores = {c: _target_score(frame, c) for c in map(str, frame.columns) if c}
    found = sorted((c for c in scores if scores[c] >= 2), key=lambda c: -scores[c])
    if not found or scores[found[0]] < _CONVINCING:
        raise TargetError(
            "it is not clear which column is to be predicted",
            hint=f"name it with --target; the columns are: {_listed(frame)}",
        )
    return found


def _target_score(frame: pd.DataFrame, column: str) -> float:
    """From 0, no candidate; 3 is a name that says so."""
    values = frame[column].dropna()
    distinct = _distinct(values)
    if distinct < 2 or _is_time(values) or (_textual(values) and distinct > MAX_CLASSES):
        return 0.0
    words = _words(column)
    if not words or words[-1] in _IDS:
        return 0.0
    binary = distinct == 2
    score = 0.0
    if "_".join(words) in _TARGETS or words[-1] in _TARGETS or (binary and words[0] in _YES_NO):
        score += _CONVINCING
    score += (1.0 if binary else 0.0) + (1.0 if column == str(frame.columns[-1]) else 0.0)
    return score - (2.5 if len(values) < len(frame) else 0.0)


def _require(frame: pd.DataFrame, target: str) -> None:
    if target not in frame.columns or not target:
        raise TargetError(f"there is no column {target!r}", hint=f"the columns are: {_listed(frame)}")


def _listed(frame: pd.DataFrame) -> str:
    names = [str(c) for c in frame.columns]
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _learnable(target: str, values: pd.Series, classes: Sequence[Any] | None) -> None:
    distinct = _distinct(values)
    why = ""
    if distinct < 2:
        why = f"has {'one value only' if distinct else 'no values'}"
    elif _is_time(values):
        why = "holds times"
    elif classes is not None and (len(classes) > 1000 or len(classes) > len(values) / 2):
        why = f"has {len(classes):,} different values in {len(values):,} rows"
    elif classes is None and not np.isfinite(pd.to_numeric(values, errors="coerce")).all():
        why = "holds values that are neither numbers nor text, or infinite ones"
    if why:
        raise TargetError(f"the column {target!r} cannot be predicted: it {why}", hint="name another with --target")


def _classes(values: pd.Series) -> tuple[Any, ...] | None:
    """The classes, in an order of their own; ``None``: numbers to be predicted as such."""
    if _textual(values) or pd.api.types.infer_dtype(values, skipna=True) == "boolean":
        return tuple(sorted({plain(v) for v in values.unique()}, key=lambda v: (str(type(v)), v)))
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() > MAX_CLASSES:
        return None
    distinct = [plain(v) for v in values.unique()]
    return tuple(sorted(distinct)) if all(isinstance(v, int) for v in distinct) else None


def _positive(values: pd.Series, classes: Sequence[Any] | None) -> tuple[Any, float | None]:
    """Of two classes the one that says yes, else the rarer one; and its share of the rows."""
    if classes is None or len(classes) != 2:
        return None, None
    counts = {c: int((values == c).sum()) for c in classes}
    words = {c: str(c).strip().lower() for c in classes}
    # Of 1 and 2 neither says yes.
    yes = [c for c in classes if words[c] in _YES or (words[c] == "1" and {"0", "-1"} & set(words.values()))]
    # Of two that are as frequent, the last one.
    positive = yes[0] if len(yes) == 1 else min(reversed(classes), key=lambda c: counts[c])
    return positive, counts[positive] / len(values)


# --- id and time ---------------------------------------------------------------------------------


def _id(frame: pd.DataFrame, target: str, stamp: str | None) -> str | None:
    found = []
    for position, column in enumerate(map(str, frame.columns)):
        values, words = frame[column], _words(column)
        if column in (target, stamp) or not words or not {words[0], words[-1]} & _IDS:
            continue
        whole = pd.api.types.is_integer_dtype(values) or pd.api.types.infer_dtype(values) == "string"
        if whole and values.notna().all() and values.is_unique:
            found.append((words != ["id"], words[-1] not in ("id", "uuid", "guid"), position, column))
    return min(found)[-1] if found else None


def _times(frame: pd.DataFrame, target: str) -> list[str]:
    """Columns with a time in every row, first that of the row itself; none if no column is likely to be that."""
    named: list[str] = []
    others: list[str] = []
    for column in map(str, frame.columns):
        if not column or column == target or not _is_time(frame[column]) or frame[column].isna().any():
            continue
        words = set(_words(column))
        if frame[column].nunique() > 1:
            (named if words & _TIMES and not words & _BIRTH else others).append(column)
    sole = len(others) == 1 and not _BIRTH & set(_words(others[0]))
    return [*named, *others] if named or sole else []


def _is_time(values: pd.Series) -> bool:
    """Whether the pipeline can read the values as times: dates, timestamps, or ISO 8601 as text."""
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind.startswith("datetime") or kind == "date":
        return True
    return kind == "string" and _microseconds(values.dropna()) is not None


def _microseconds(values: pd.Series) -> np.ndarray | None:
    if _textual(values) and not values.astype(str).head(100).str.match(r"\d{4}-\d\d").all():
        return None
    try:
        found: np.ndarray = utc_microseconds(pa.array(values, from_pandas=True), "", "").to_numpy(zero_copy_only=False)
    except (DataError, pa.ArrowException):
        return None
    return found


def _span(values: pd.Series) -> tuple[int, str]:
    """Days, and the last of them, in UTC."""
    times = _microseconds(values)
    if times is None:
        return 0, ""
    first, last = int(times.min()), int(times.max())
    return (last - first) // _DAY + 1, str(np.datetime64(last, "us").astype("datetime64[D]"))


def _splits_by_time(frame: pd.DataFrame, stamp: str, target: str, classes: Sequence[Any] | None) -> bool:
    """Whether both sides of a split by time, a fifth held out, have every class."""
    times = _microseconds(frame[stamp])
    if times is None:
        return False
    if classes is None:
        return True
    ordered = frame[target].to_numpy()[np.argsort(times, kind="stable")]
    cut = int(len(ordered) * 0.8)
    return all(pd.Series(side).nunique() == len(classes) for side in (ordered[:cut], ordered[cut:]))


# --- model and metrics ---------------------------------------------------------------------------


def _estimator(task: str, rows: int, features: Sequence[Feature]) -> tuple[str, Mapping[str, Any]]:
    kind = "Classifier" if task == "classification" else "Regressor"
    if rows > MANY_ROWS or any(f.kind == "category" for f in features):
        return f"sklearn.ensemble.HistGradientBoosting{kind}", {"max_iter": 100}
    if task == "classification":
        return "sklearn.linear_model.LogisticRegression", {"max_iter": 1000}
    return "sklearn.linear_model.Ridge", {}


def _bar(classes: Sequence[Any] | None, share: float | None) -> tuple[tuple[str, ...], Bar]:
    """Metrics, and what a constant prediction scores on the first of them."""
    if classes is None:
        return ("r2", "rmse"), Bar("r2", 0.0, "a model that always predicts the mean")
    if len(classes) > 2:
        chance = math.ceil(1000 / len(classes)) / 1000
        return ("balanced_accuracy", "log_loss"), Bar("balanced_accuracy", chance, "a model that always says the same")
    rare = share is not None and min(share, 1 - share) < 0.1
    metrics = ("roc_auc", "average_precision", "log_loss") if rare else ("roc_auc", "log_loss")
    return metrics, Bar("roc_auc", 0.5, "a model that knows nothing")


# --- small things --------------------------------------------------------------------------------


def _words(name: str) -> list[str]:
    """``FlightID``, ``flight-id``, ``flight id`` → flight, id."""
    return [w.lower() for w in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def _textual(values: pd.Series) -> bool:
    return pd.api.types.infer_dtype(values, skipna=True) in ("string", "categorical", "mixed", "mixed-integer")


def _distinct(values: pd.Series) -> int:
    try:
        return int(values.nunique())
    except TypeError:  # lists and mappings
        return 0
