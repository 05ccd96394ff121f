"""Keys: the texts that name the models of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.fleet.parents import ALL, GROUP, is_parent

__all__ = ["ALL", "group_key", "is_parent", "key_of", "values_of"]

_ENCODED = {"%": "%25", "/": "%2F", "*": "%2A"}


def group_key(value: Any) -> str:
    """The key of a group's model."""
    return _text(value) + GROUP


def key_of(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return the key of each row (text, shape (rows,)): the values of ``columns`` as text, joined by ``/``.

    Whole floats are written as integers; ``%``, ``/`` and ``*`` in a value are percent-encoded, so that no two
    combinations have the same key and none has that of a parent.

    :raises DataError: for a column that is not there, or rows without a value.
    """
    parts: list[pd.Series] = []
    for column in columns:
        if column not in frame.columns:
            raise DataError(
                f"fleet.key names the column {column!r}, which the data does not have",
                hint="the columns are: " + ", ".join(map(str, frame.columns)),
            )
        codes, values = pd.factorize(
            frame[column].mask(frame[column] == "") if _textual(frame[column]) else frame[column]
        )
        if (codes < 0).any():
            raise DataError(
                f"{int((codes < 0).sum()):,} of {len(frame):,} rows have no value in {column!r} (fleet.key), the first "
                f"of them row {int((codes < 0).argmax()) + 1} of its batch",
                hint="drop or repair them, or expect_column_values_to_not_be_null with on_failure: quarantine",
            )
        texts = np.array(
            [*map(_text, values if isinstance(values, np.ndarray) else values.tolist())] or [""], dtype=object
        )
        parts.append(pd.Series(texts[codes], index=frame.index, dtype=object))
    keys = parts[0]
    for part in parts[1:]:
        keys = keys + "/" + part
    return keys


def values_of(key: str) -> list[str]:
    """The values that a key was made of, as text."""
    return [unquote(part) for part in key.split("/")]


def _textual(values: pd.Series) -> bool:
    return not (pd.api.types.is_numeric_dtype(values) or values.dtype.kind in "mM")


# The same values come with each batch of rows. 1, 1.0 and True are equal, and not the same text.
@lru_cache(maxsize=2**17, typed=True)
def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    for mark, code in _ENCODED.items():
        text = text.replace(mark, code)
    return text
