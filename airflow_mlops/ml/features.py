"""Which columns are features, how rows must look at prediction, and the preprocessing fitted inside every model."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError, MLOpsError, PredictionError, TargetError
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.preprocessing import preprocessor
from airflow_mlops.ml.privacy import cause, told

__all__ = [
    "Feature",
    "FeatureSchema",
    "apply_features",
    "classes_of",
    "infer_schema",
    "plain",
    "positive_class",
    "preprocessor",
]

MAX_CATEGORIES = 1000
_BOOLEANS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


@dataclass(frozen=True)
class Feature:
    """One input column. ``categories``: the sorted texts seen in training, for ``kind == "category"``.

    ``private``: nothing but its name may be told.
    """

    name: str
    kind: str
    categories: tuple[str, ...] | None = None
    private: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; inverse of :meth:`from_dict`."""
        categories = list(self.categories) if self.categories is not None else None
        plainly = {"name": self.name, "kind": self.kind, "categories": categories}
        return plainly | {"private": True} if self.private else plainly

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Feature:
        """Rebuild from :meth:`to_dict`."""
        categories = tuple(value["categories"]) if value["categories"] is not None else None
        return cls(value["name"], value["kind"], categories, bool(value.get("private")))


@dataclass(frozen=True)
class FeatureSchema:
    """The columns a model reads, in order, and what it predicts."""

    features: tuple[Feature, ...]
    target: str
    classes: tuple[Any, ...] | None = None
    positive: Any = None
    excluded: tuple[tuple[str, str], ...] = ()
    """``(column, why)`` for each column that is not a feature."""

    @property
    def names(self) -> list[str]:
        """The feature columns, in the order the model takes them."""
        return [f.name for f in self.features]

    @property
    def private(self) -> list[str]:
        """The features of which nothing but the name may be told."""
        return [f.name for f in self.features if f.private]

    def hiding(self, private: Collection[str]) -> FeatureSchema:
        """The same schema with these features private too: a file may say so after the model was trained."""
        return replace(self, features=tuple(replace(f, private=f.private or f.name in private) for f in self.features))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; inverse of :meth:`from_dict`."""
        return {
            "features": [f.to_dict() for f in self.features],
            "target": self.target,
            "classes": list(self.classes) if self.classes is not None else None,
            "positive": self.positive,
            "excluded": [{"name": n, "why": why} for n, why in self.excluded],
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> FeatureSchema:
        """Rebuild from :meth:`to_dict`."""
        return cls(
            features=tuple(Feature.from_dict(f) for f in value["features"]),
            target=value["target"],
            classes=tuple(value["classes"]) if value["classes"] is not None else None,
            positive=value["positive"],
            excluded=tuple((e["name"], e["why"]) for e in value["excluded"]),
        )

    def narrowed(self, names: Sequence[str], why: str) -> FeatureSchema:
        """The schema of a model that reads only ``names``, in that order; the rest is excluded with ``why``."""
        by_name = {f.name: f for f in self.features}
        dropped = tuple((n, why) for n in self.names if n not in set(names))
        return replace(self, features=tuple(by_name[n] for n in names), excluded=self.excluded + dropped)

    def check(self, frame: pd.DataFrame, *, error: type[MLOpsError] = PredictionError) -> pd.DataFrame:
        """Return the feature columns of ``frame``, ordered, with the dtypes the model was trained on.

        Numbers and booleans become float64 (missing: NaN), categories objects of ``str`` (missing or empty: NaN).
        New categories pass: the model's encoder knows what to do with them. Other columns are dropped.

        :raises PredictionError: (or ``error``) naming every missing column, or each column whose values do not fit,
            with an example (none of a private column).
        """
        missing = [n for n in self.names if n not in frame.columns]
        if missing:
            others = [str(c) for c in frame.columns]
            near = {n: m[0] for n in missing if (m := difflib.get_close_matches(n, others, 1))}
            raise error(
                f"{_count(len(missing), 'column')} the model needs {'is' if len(missing) == 1 else 'are'} missing: "
                + ", ".join(missing),
                hint="; ".join(f"is {there!r} meant to be {name!r}?" for name, there in near.items())
                or f"give all of: {', '.join(self.names)}",
            )
        doubled = [n for n in self.names if not isinstance(frame[n], pd.Series)]
        if doubled:
            raise error(f"columns appear twice: {', '.join(doubled)}", hint="give each column once")
        columns, problems = {}, []
        for feature in self.features:
            try:
                columns[feature.name] = _CONVERT[feature.kind](frame[feature.name])
            except ValueError as e:
                problems.append(f"{feature.name} {_NO_FIT[feature.kind] if feature.private else e}")
        if problems:
            raise error(
                f"{_count(len(problems), 'column')} cannot be read as the model needs: " + "; ".join(problems),
                hint="give these columns the type they had in training",
            )
        return pd.DataFrame(columns, index=frame.index, columns=self.names)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _numbers(values: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise ValueError(f"must be a number, not a time like {values.dropna().iloc[:1].to_list()}")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    bad = numbers.isna() & values.notna() & (values.astype(str).str.strip() != "") if _textual(values) else None
    if bad is not None and bad.any():
        raise ValueError(f"must be a number, but {int(bad.sum()):,} rows are not, like {values[bad].iloc[0]!r}")
    endless = np.isinf(numbers.to_numpy())
    if endless.any():
        raise ValueError(f"is infinite in {int(endless.sum()):,} rows")
    return numbers


def _booleans(values: pd.Series) -> pd.Series:
    if pd.api.types.is_bool_dtype(values) and not values.hasnans:
        return values.astype("float64")
    text = values.astype(object).map(lambda v: str(v).strip().lower(), na_action="ignore")
    result = text.map(_BOOLEANS).astype("float64")
    bad = result.isna() & values.notna() & (text != "")
    if bad.any():
        raise ValueError(f"must be true or false, but {int(bad.sum()):,} rows are not, like {values[bad].iloc[0]!r}")
    return result


def _text(value: Any) -> str:
    # A whole number that a missing neighbour turned into a float is still the same code: 7.0 is "7".
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _categories(values: pd.Series) -> pd.Series:
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    if pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        raise ValueError(f"must be text, not a time like {values.dropna().iloc[:1].to_list()}")
    if isinstance(values.dtype, pd.StringDtype):
        # One Python object a category: one a row would take 60 bytes beside the reference to it.
        codes, texts = pd.factorize(values)
        shared = np.array([text if text != "" else np.nan for text in texts] + [np.nan], dtype=object)
        return pd.Series(shared[codes], index=values.index, name=values.name, dtype=object)
    plain = values.astype(object)
    if pd.api.types.infer_dtype(plain, skipna=True) not in ("string", "empty"):
        nested = next((v for v in plain if isinstance(v, list | dict | tuple | set | np.ndarray)), None)
        if nested is not None:
            raise ValueError(f"must be text, not nested like {nested!r}")
        plain = plain.map(_text, na_action="ignore")
    # One form of missing, and an empty text from a CSV file is one: None, NA and NaN would be three categories.
    return plain.where(plain.notna() & (plain != ""), np.nan)


_CONVERT: dict[str, Callable[[pd.Series], pd.Series]] = {
    "number": _numbers,
    "boolean": _booleans,
    "category": _categories,
}


_NO_FIT = {
    "number": "must be a number in every row",
    "boolean": "must be true or false in every row",
    "category": "must be text in every row",
}


def _textual(values: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values))


def infer_schema(frame: pd.DataFrame, data: Data, *, source_columns: Sequence[str] = ()) -> FeatureSchema:
    """Decide which columns of the training part (rows × columns) are features.

    Never features: id, timestamp, target, the group column of the split, ``data.exclude``. Excluded with the reason:
    times, nested values, columns without values or with one value only, and text with more than 1000 different
    values or with more different values than half the rows (it names rows and would be learned by heart). Text in
    ``data.private`` neither: a model keeps the categories it has seen.
    ``classes`` are set when the target is text, boolean, has at most 20 different whole numbers, or ``data.positive``
    is given; training replaces them by what the estimator learned.

    :param source_columns: columns before the feature code, which may have dropped some of ``data.exclude``.
    :raises TargetError: if the target is not a column, or ``data.positive`` is none of its values.
    :raises DataError: if a named column does not exist or no feature is left.
    """
    present = [str(c) for c in frame.columns]
    if data.target not in present:
        near = difflib.get_close_matches(data.target, present, 1)
        raise TargetError(
            f"the target column {data.target!r} is not in the data",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"the columns are: {', '.join(present)}",
        )
    unknown = [c for c in data.exclude if c not in present and c not in source_columns]
    if unknown:
        raise DataError(
            f"data.exclude names columns that are not in the data: {', '.join(unknown)}",
            hint=f"a misspelled name would leave the column in; the columns are: {', '.join(present)}",
        )
    roles = {data.target: "the target"}
    roles |= dict.fromkeys(data.exclude, "in data.exclude")
    roles |= {
        c: why
        for c, why in (
            (data.id, "names the row (data.id)"),
            (data.timestamp, "the row's time (data.timestamp)"),
            (data.split.column, "the group of the split"),
        )
        if c is not None
    }
    features, excluded = [], []
    for name in present:
        if name == data.target:
            continue
        kind, why = ("", roles[name]) if name in roles else _kind(frame[name])
        if name in data.private and name not in roles:
            # Why a column is no feature may quote it, and a model keeps the categories it has seen.
            why = "private and no number (data.private)" if why or kind == "category" else ""
        if why:
            excluded.append((name, why))
            continue
        categories = tuple(sorted(_categories(frame[name]).dropna().unique())) if kind == "category" else None
        features.append(Feature(name, kind, categories, name in data.private))
    if not features:
        raise DataError(
            "no column is left to learn from: " + "; ".join(f"{n}: {why}" for n, why in excluded),
            hint="give data with numbers, booleans or text that repeats",
        )
    classes = classes_of(frame[data.target].dropna(), data)
    positive = positive_class(classes, data.positive, data.target) if classes is not None else None
    return FeatureSchema(tuple(features), data.target, classes, positive, tuple(excluded))


def _kind(values: pd.Series) -> tuple[str, str]:
    """Return ``(kind, "")`` for a feature, else ``("", why not)``."""
    if values.notna().sum() == 0:
        return "", "has no values"
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if inferred == "categorical":
        inferred = "string"
    if inferred.startswith(("datetime", "date", "time", "period", "interval")):
        return "", "a time: make features of it in features.callable"
    if inferred in ("bytes", "complex"):
        return "", f"holds {inferred}"
    if inferred in ("string", "mixed", "mixed-integer"):
        return _text_kind(values)
    distinct = values.nunique(dropna=False) if inferred == "boolean" or values.dtype == object else None
    constant = distinct == 1 if distinct is not None else bool(values.notna().all() and values.min() == values.max())
    if constant:
        return "", f"has the same value in every row: {values.iloc[0]}"
    return ("boolean" if inferred == "boolean" else "number"), ""


def _text_kind(values: pd.Series) -> tuple[str, str]:
    try:
        text = _categories(values)
    except ValueError:
        return "", "holds nested values (lists or structures)"
    distinct, rows = text.nunique(), int(text.notna().sum())
    if distinct == 0:
        return "", "has no values"
    if distinct == 1 and rows == len(text):
        return "", f"has the same value in every row: {text.iloc[0]}"
    if distinct > MAX_CATEGORIES or distinct > max(rows / 2, 2):
        return "", f"text with {distinct:,} different values in {rows:,} rows"
    return "category", ""


def plain(value: Any) -> Any:
    """A label as plain Python, fit for JSON; whole floats become integers."""
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value


def classes_of(target: pd.Series, data: Data) -> tuple[Any, ...] | None:
    """The classes among labels without gaps, sorted; ``None`` where the numbers are a measure."""
    values = target.unique()
    numeric = pd.api.types.is_numeric_dtype(target) and not pd.api.types.is_bool_dtype(target)
    if numeric and data.positive is None and (len(values) > 20 or any(float(v) % 1 for v in values)):
        return None
    return tuple(sorted({plain(v) for v in values}, key=lambda v: (str(type(v)), v)))


def positive_class(classes: Sequence[Any], wanted: Any, target: str) -> Any:
    """The class whose probability is reported: ``wanted``, or the last of two classes, or None for more.

    :raises TargetError: if ``wanted`` is none of ``classes``.
    """
    if wanted is None:
        return classes[-1] if len(classes) == 2 else None
    for c in classes:
        if c == wanted:
            return c
    raise TargetError(
        f"data.positive is {wanted!r}, but {target} only has {_listed(map(repr, classes))}",
        hint="name one of them; text needs quotes in YAML, numbers must have none",
    )


def _listed(items: Iterable[str], most: int = 12) -> str:
    all_items = list(items)
    return ", ".join(all_items[:most]) + (f" and {len(all_items) - most} more" if len(all_items) > most else "")


def recorded_code(record: dict[str, Any]) -> str | None:
    """The feature code (``module:function``) of a version's training; it goes with the model."""
    features = record["config"]["features"]
    return features["callable"] if features else None


def apply_features(
    path: str,
    frame: pd.DataFrame,
    allowed: Sequence[str],
    *,
    target: str | None = None,
    keep: Sequence[str] = (),
    private: Collection[str] = (),
) -> pd.DataFrame:
    """Run the user's feature code ``path`` (``module:function``, DataFrame → DataFrame) on ``frame``.

    The code never sees ``target`` (a column), so that it does the same in training and prediction; ``target`` and
    the columns ``keep`` (id, time) are put back as they were.

    :param private: columns whose values no error may quote.
    :raises CodeNotAllowed: if the path is outside ``allowed``.
    :raises DataError: if the code fails, returns no DataFrame, or changes the number or index of the rows.
    """
    function: Any = resolve(path, allowed)
    given = frame.drop(columns=[target]) if target in frame.columns else frame
    try:
        made = function(given.copy())
    except MLOpsError:
        raise
    except Exception as e:  # noqa: BLE001 - raised as our own; its own words may quote what is private
        raise DataError(
            f"the feature code {path} failed on {len(frame):,} rows: {told(e, private)}",
            hint=f"call it in a notebook with these columns: {', '.join(map(str, given.columns))}",
        ) from cause(e, private)
    if not isinstance(made, pd.DataFrame):
        raise DataError(
            f"the feature code {path} returned {type(made).__name__}, not a DataFrame",
            hint="return a pandas DataFrame with one row for each row given",
        )
    if not made.index.equals(frame.index):
        raise DataError(
            f"the feature code {path} was given {len(frame):,} rows and returned {len(made):,}, or changed their index",
            hint="keep every row and the index; drop rows in data.source or with validate.on_failure: quarantine",
        )
    kept = [c for c in (*keep, target) if c is not None and c in frame.columns]
    return pd.concat([made.drop(columns=[c for c in kept if c in made.columns]), frame[kept]], axis=1)
