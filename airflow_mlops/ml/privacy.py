"""``data.private``: columns whose values stay out of reports, captures, cards and logs.

Rows themselves (snapshots, quarantined rows, predictions by id) hold what they hold. What is told about
them does not: a private column is named, and nothing else is said of it.
"""

from __future__ import annotations

import ast
import traceback
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

PRIVATE = "private"
IDS = "unexpected_ids"
"""What ``data.id``, which is never private, calls rows that fail in a database; in a result of an expectation."""
_COUNTS = (
    "element_count", "missing_count", "missing_percent", "unexpected_count", "unexpected_percent",
    "unexpected_percent_nonmissing", "unexpected_percent_total", "partial_unexpected_index_list",
)  # fmt: skip
_COLUMN_KEYS = ("column", "column_A", "column_B", "column_list", "column_set")
_SAFE_ARGUMENTS = (*_COLUMN_KEYS, "mostly", "severity", "batch_id")


def told(error: Exception, private: Collection[str]) -> str:
    """An error of somebody else's code on one line; with private columns only its type and place, as it may quote."""
    if not private:
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place} (what it says may quote data.private and is left out)"


def cause(error: Exception, private: Collection[str]) -> Exception | None:
    """What to raise ``from``: the error itself, or nothing where a traceback of it might quote a private value."""
    return None if private else error


def masked(frame: pd.DataFrame, private: Collection[str]) -> pd.DataFrame:
    """The model's input with 0.0 in place of every private number; the same columns, rows and dtypes."""
    hidden = [c for c in frame.columns if c in private]
    return frame.assign(**dict.fromkeys(hidden, 0.0)) if hidden else frame


def reads(entry: Mapping[str, Mapping[str, Any]], private: Collection[str]) -> list[str]:
    """The private columns that one entry of ``validate.expectations`` reads, by its arguments or its row condition."""
    return [name for name in columns_of(entry) if name in private]


def columns_of(entry: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All columns that one entry of ``validate.expectations`` names, in its arguments or its row condition."""
    (arguments,) = entry.values()
    found: list[str] = []
    for key in _COLUMN_KEYS:
        value = arguments.get(key)
        found += [str(v) for v in (value if isinstance(value, list) else [value]) if v is not None]
    condition = arguments.get("row_condition")
    if isinstance(condition, str):
        found += _names(condition)
    return list(dict.fromkeys(found))


def _names(condition: str) -> list[str]:
    try:
        return [n.id for n in ast.walk(ast.parse(condition, mode="eval")) if isinstance(n, ast.Name)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # refused where the expectation is built


def without_values(result: dict[str, Any]) -> dict[str, Any]:
    """Great Expectations' result of one expectation, reduced to its verdict, counts and row numbers."""
    given = result["expectation_config"]
    config = {k: given[k] for k in ("type", "severity") if k in given}
    config["kwargs"] = {k: v for k, v in given.get("kwargs", {}).items() if k in _SAFE_ARGUMENTS}
    config["meta"] = {"number": given["meta"]["number"]}
    counts = {k: v for k, v in result["result"].items() if k == IDS or (k in _COUNTS and _numeric(v))}
    return {"success": result["success"], "expectation_config": config, "result": counts, PRIVATE: True}


def _numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(_numeric(v) for v in value)
    return isinstance(value, int | float)
