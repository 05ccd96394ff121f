"""Great Expectations on a DataFrame: build the suite with clear errors, run it, return plain results.

Great Expectations works on whole columns in memory; :mod:`~airflow_mlops.ml.expectations_parts` says which it needs.
"""

from __future__ import annotations

import ast
import difflib
import json
import logging
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.exceptions import ExpectationError
from airflow_mlops.ml.privacy import IDS, PRIVATE, reads, without_values

# Read when Great Expectations is imported: no call home from a task.
os.environ["GX_ANALYTICS_ENABLED"] = "false"
# It tells of each expectation that it registers, also while it is imported.
logging.getLogger("great_expectations").setLevel(logging.CRITICAL)

import great_expectations as gx
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations import expectation as gx_classes
from great_expectations.expectations import registry as gx_registry

MAX_EXAMPLES = 5
_COLUMN_KEYS = ("column", "column_A", "column_B", "column_list", "column_set")
_OURS = ("batch_id", "catch_exceptions", "id", "rendered_content", "result_format", "windows")
_ROW_LEVEL = (
    gx_classes.ColumnMapExpectation,
    gx_classes.ColumnPairMapExpectation,
    gx_classes.MulticolumnMapExpectation,
)
_CONDITION_NODES = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Name, ast.Load, ast.Constant, ast.List,
    ast.Tuple, ast.cmpop, ast.boolop, ast.operator, ast.unaryop,
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """The outcome of one expectation; counts are in rows, percents in 0…100, examples at most five texts.

    ``rows`` count from 1 in the snapshot; of a database's rows there are ``ids`` instead, by ``data.id``.
    ``private``: it reads a private column, so that there are no examples, and nothing observed.
    """

    expectation: str
    column: str
    success: bool
    arguments: str = ""
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    examples: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    observed: str = ""
    severity: str = "critical"
    row_level: bool = False
    private: bool = False

    @property
    def sentence(self) -> str:
        """One line for logs and notes."""
        where = f" on {self.column}" if self.column else ""
        what = ""
        if self.unexpected_count is not None:
            share = f" ({self.unexpected_percent:.3g} %)" if self.unexpected_percent is not None else ""
            what = f": {self.unexpected_count} unexpected{share}"
            what += f", such as {', '.join(self.examples)}" if self.examples else ""
        elif self.observed:
            what = f": observed {self.observed}"
        return f"{self.expectation}{where}{what}"


@dataclass(frozen=True)
class Expectation:
    """One entry of ``validate.expectations``, checked; ``columns`` are those it reads."""

    number: int
    name: str
    arguments: dict[str, Any]
    columns: tuple[str, ...]
    built: Any

    @property
    def whole_table(self) -> bool:
        """Whether it looks at the list of columns itself."""
        return self.name.startswith("expect_table_column")


def build(entries: Sequence[Mapping[str, Mapping[str, Any]]], columns: Mapping[str, str]) -> list[Expectation]:
    """Turn ``[{name: arguments}, …]`` into Great Expectations' objects.

    :param columns: name → type family of the data's columns.
    :raises ExpectationError: for an unknown name, a column the data does not have, or arguments that do not fit.
    """
    known = [n for n in gx_registry.list_registered_expectation_implementations() if n.startswith("expect_")]
    built = []
    for number, entry in enumerate(entries, 1):
        name, given = next(iter(entry.items()))
        where = f"validate.expectations, number {number}, {name}"
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ExpectationError(
                f"{where}: Great Expectations has no such expectation" + (f"; did you mean {near[0]}?" if near else ""),
                hint="see greatexpectations.io/expectations for the names",
            )
        implementation = gx_registry.get_expectation_impl(name)
        arguments = dict(given)
        _known_arguments(arguments, implementation, where)
        used = _columns(name, arguments, columns, where)
        arguments = {k: _time(k, v, arguments, columns) for k, v in arguments.items()}
        try:
            made = implementation(**{**arguments, "meta": {**(arguments.get("meta") or {}), "number": number}})
        except Exception as e:  # pydantic's ValidationError, and TypeErrors from validators of older expectations
            raise ExpectationError(f"{where}: {_reason(e)}", hint="correct the arguments") from e
        built.append(Expectation(number, name, dict(given), used, made))
    return built


def _known_arguments(arguments: Mapping[str, Any], implementation: Any, where: str) -> None:
    fields = [f for f in implementation.__fields__ if f not in _OURS]
    for key in arguments:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            raise ExpectationError(
                f"{where}: it takes no {key!r} here" + (f"; did you mean {near[0]!r}?" if near else ""),
                hint="it takes " + ", ".join(f for f in fields if f not in ("meta", "notes", "description")),
            )


def _reason(error: Exception) -> str:
    details = getattr(error, "errors", None)
    if not callable(details):
        return f"{type(error).__name__}: {error}"
    parts = []
    for e in details():
        names = [str(p) for p in e["loc"] if p != "__root__"]
        parts.append((f"{'.'.join(names)}: " if names else "") + str(e["msg"]))
    return "; ".join(dict.fromkeys(parts))


def _columns(name: str, arguments: Mapping[str, Any], columns: Mapping[str, str], where: str) -> tuple[str, ...]:
    used: list[str] = []
    if name != "expect_column_to_exist" and not name.startswith("expect_table_column"):
        for key in _COLUMN_KEYS:
            value = arguments.get(key)
            used += value if isinstance(value, list) else [value] if isinstance(value, str) else []
    used += _condition_columns(arguments.get("row_condition"), where)
    for column in used:
        if column not in columns:
            near = difflib.get_close_matches(str(column), list(columns), 1)
            raise ExpectationError(
                f"{where}: the data has no column {column!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                hint="it has: " + ", ".join(list(columns)[:30]),
            )
    return tuple(used)


def _condition_columns(condition: object, where: str) -> list[str]:
    """Names in a row condition. pandas would run code in it, so only comparisons of columns are let through."""
    if condition is None:
        return []
    hint = "compare columns with values: carrier == 'UA' and distance > 100"
    if not isinstance(condition, str):
        raise ExpectationError(f"{where}: row_condition must be text", hint=hint)
    try:
        tree = ast.parse(condition, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise ExpectationError(f"{where}: row_condition {condition!r} cannot be read: {e}", hint=hint) from e
    names = []
    for node in ast.walk(tree):
        if not isinstance(node, _CONDITION_NODES):
            raise ExpectationError(f"{where}: row_condition {condition!r} is more than a comparison", hint=hint)
        if isinstance(node, ast.Name):
            names.append(node.id)
    return names


def _time(key: str, value: Any, arguments: Mapping[str, Any], columns: Mapping[str, str]) -> Any:
    """Bounds of a time column as datetimes: Great Expectations reads a YAML date or text as a date and then fails."""
    if not key.startswith(("min_value", "max_value")) or columns.get(str(arguments.get("column"))) != "time":
        return value
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
    except ValueError:
        return value  # Great Expectations says what is wrong with it
    # Columns reach Great Expectations without a zone, in UTC.
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


def run(
    expectations: Sequence[Expectation], frame: pd.DataFrame, private: Collection[str] = ()
) -> tuple[list[Check], dict[str, Any]]:
    """Evaluate on all rows of ``frame`` (0…n-1 index); return checks in the given order and the raw result as JSON.

    :param private: columns of whose values neither holds any: only verdict, counts and row numbers.
    :raises ExpectationError: when one crashed, which Great Expectations reports like bad data.
    """
    return checked(expectations, as_json(evaluate(expectations, frame, "SUMMARY")), private)


def checked(
    expectations: Sequence[Expectation], raw: dict[str, Any], private: Collection[str]
) -> tuple[list[Check], dict[str, Any]]:
    """What :func:`run` returns, of Great Expectations' own result as JSON."""
    results = {r["expectation_config"]["meta"]["number"]: r for r in raw["results"]}
    checks = []
    for expectation in expectations:
        result = results[expectation.number]
        crash = crash_of(result.get("exception_info"))
        hidden = reads({expectation.name: expectation.arguments}, private)
        if hidden:
            crash = crash and "what it says may quote data.private and is left out"
            result = without_values(result)
        if crash:
            raise ExpectationError(
                f"validate.expectations, number {expectation.number}, {expectation.name}"
                + (f" on {', '.join(expectation.columns)}" if expectation.columns else "")
                + f" could not be evaluated: {crash}",
                hint="the expectation does not fit the column's type; this says nothing about the data",
            )
        results[expectation.number] = result
        checks.append(_check(expectation, result))
    return checks, {**raw, "results": [results[e.number] for e in expectations]}


def unexpected_rows(expectations: Sequence[Expectation], frame: pd.DataFrame) -> dict[int, np.ndarray[Any, Any]]:
    """What ``frame``'s index calls the rows that fail, by number of the expectation; those without are left out."""
    format_ = {"result_format": "COMPLETE", "exclude_unexpected_values": True}
    found = {}
    for result in evaluate(expectations, frame, format_).results:
        rows = result.result.get("unexpected_index_list")
        if rows is not None:
            found[result.expectation_config.meta["number"]] = np.array(rows, dtype=np.int64)
    return found


def evaluate(expectations: Sequence[Expectation], frame: pd.DataFrame, result_format: Any) -> Any:
    """Great Expectations' own result of a suite, on all rows of ``frame``."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    definition = (
        context.data_sources.add_pandas("snapshot")
        .add_dataframe_asset("rows")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = gx.ExpectationSuite(name="validate", expectations=[e.built for e in expectations])
    given = without_zones(frame)
    batch = definition.get_batch(batch_parameters={"dataframe": given})
    try:
        return batch.validate(suite, result_format=result_format)
    finally:
        # Great Expectations holds on to what it was given last.
        given.drop(columns=[*given.columns], inplace=True)


def without_zones(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` as Great Expectations gets it: times with a zone as UTC without one."""
    frame = frame.copy(deep=False)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.DatetimeTZDtype):
            frame[name] = frame[name].dt.tz_convert("UTC").dt.tz_localize(None)
    return frame


def as_json(result: Any) -> dict[str, Any]:
    """Great Expectations' own result, of a suite or of one expectation, as plain JSON."""
    plain: dict[str, Any] = _plain(json.loads(json.dumps(result.to_json_dict(), default=str)))
    return plain


def _plain(value: Any) -> Any:
    """NaN and infinity are not JSON: as text."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def statistics(successes: Sequence[bool]) -> dict[str, Any]:
    """Great Expectations' own counts of a suite's results."""
    good = sum(successes)
    return {
        "evaluated_expectations": len(successes),
        "successful_expectations": good,
        "unsuccessful_expectations": len(successes) - good,
        "success_percent": good / len(successes) * 100 if successes else None,
    }


def crash_of(info: object) -> str | None:
    """The message of a crash: ``exception_info`` is either one record or a dict of records by metric."""
    if not isinstance(info, dict):
        return None
    records = [info] if "raised_exception" in info else [v for v in info.values() if isinstance(v, dict)]
    for record in records:
        if record.get("raised_exception"):
            return str(record.get("exception_message") or "it raised an exception").strip()
    return None


def _check(expectation: Expectation, raw: Mapping[str, Any]) -> Check:
    result = raw["result"]
    left_out = (*_COLUMN_KEYS, "meta", "notes", "description")
    hidden = bool(raw.get(PRIVATE))
    shown = {
        k: v
        for k, v in expectation.arguments.items()
        if k not in left_out and (not hidden or k in ("mostly", "severity"))
    }
    columns = [
        c
        for key in _COLUMN_KEYS
        for c in (
            expectation.arguments[key]
            if isinstance(expectation.arguments.get(key), list)
            else [expectation.arguments.get(key)]
        )
        if c
    ]
    observed = result.get("observed_value")
    percent = result.get("unexpected_percent")
    return Check(
        expectation=expectation.name,
        column=", ".join(map(str, columns)),
        success=bool(raw["success"]),
        arguments=", ".join(f"{k}: {_text(v)}" for k, v in shown.items()),
        unexpected_count=result.get("unexpected_count"),
        unexpected_percent=percent if isinstance(percent, (int, float)) else None,
        examples=tuple(_text(v) for v in _distinct(result.get("partial_unexpected_list") or [])[:MAX_EXAMPLES]),
        rows=tuple(int(i) + 1 for i in (result.get("partial_unexpected_index_list") or [])[:MAX_EXAMPLES]),
        ids=tuple(_text(i) for i in (result.get(IDS) or [])[:MAX_EXAMPLES]),
        observed="" if observed is None else _text(observed),
        severity=str(raw["expectation_config"].get("severity") or "critical"),
        row_level=isinstance(expectation.built, _ROW_LEVEL),
        private=hidden,
    )


def _distinct(values: list[Any]) -> list[Any]:
    return list({json.dumps(v, sort_keys=True, default=str): v for v in values}.values())


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
