"""What the training rows held, as far as it bounds what a model can know: ranges, gaps, classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.ml.features import FeatureSchema, plain

MOST_COLUMNS = 200


def seen(part: pd.DataFrame, schema: FeatureSchema) -> dict[str, Any]:
    """Describe the training rows ``part`` (rows × columns) in plain JSON, for the version's record.

    Of the first 200 features that are not private: missing values, and the range of finite numbers. Of the
    target: rows per class, or its range.

    :return: ``{"columns": {name: {"missing", "min", "max"}}, "classes": [{"class", "rows"}] or None,
        "target": {"min", "max"} or None}``; ``min`` and ``max`` of numbers only, ``None`` where there are none.
    """
    columns: dict[str, dict[str, Any]] = {}
    for feature in [f for f in schema.features if not f.private][:MOST_COLUMNS]:
        values = part[feature.name]
        columns[feature.name] = {"missing": int(values.isna().sum())}
        if feature.kind == "number":
            columns[feature.name] |= _range(values)
    target = part[schema.target]
    if schema.classes is None:
        return {"columns": columns, "classes": None, "target": _range(target)}
    counts = target.map(plain).value_counts()
    classes = [{"class": c, "rows": int(counts.get(c, 0))} for c in schema.classes]
    return {"columns": columns, "classes": classes, "target": None}


def trained_classes(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Rows by class that a version was trained on, as its record has them; ``None``: a measure, or not recorded."""
    return (record.get("seen") or {}).get("classes")


def _range(values: pd.Series) -> dict[str, float | None]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    finite = numbers[np.isfinite(numbers)]
    return {"min": float(finite.min()), "max": float(finite.max())} if len(finite) else {"min": None, "max": None}
