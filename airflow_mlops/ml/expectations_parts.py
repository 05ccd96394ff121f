"""Great Expectations on data larger than memory, with the result that it would give of all rows at once.

What an expectation is given depends on what it looks at:

- *rows by themselves* (ranges, sets, patterns, types, gaps, pairs of columns): batches of rows; counts are added up,
  and its own ``mostly`` decides on the sums.
- *which values or rows repeat* (``expect_column_values_to_be_unique``, ``expect_compound_columns_to_be_unique``):
  batches too; what repeats is found by hashes sorted on disk, see :mod:`~airflow_mlops.ml.hashed`.
- *names of columns*: the names.
- *a column as a whole* (mean, median, quantiles, distinct values, order, z-scores …), and every expectation that is
  not known here: all rows, but only of the columns that it names. That takes memory for these columns alone, with
  Great Expectations' own copies about 50 bytes a row and number; a sum of parts would differ in its last digits.

Where Great Expectations fails on a batch, the columns as a whole decide: what fails there is told as ever.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from great_expectations.expectations.expectation import _format_map_output
from great_expectations.expectations.expectation_configuration import parse_result_format

from airflow_mlops.ml.expectations import (
    Check,
    Expectation,
    as_json,
    checked,
    crash_of,
    evaluate,
    statistics,
    unexpected_rows,
    without_zones,
)
from airflow_mlops.ml.frames import Frames, joined
from airflow_mlops.ml.hashed import Repeats
from airflow_mlops.ml.schema import family

MOST_COLUMNS = 8
"""Columns of a batch, but where one expectation names more."""
MOST_VALUES = 2**24
"""Values of columns that are looked at as a whole at the same time, but where one column has more."""
SHOWN = 20
"""Unexpected values and rows in a result of Great Expectations, as it has it."""

_ROWS = {
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal",
    "expect_column_pair_values_to_be_in_set",
    "expect_column_type_to_be",
    "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_dateutil_parseable",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_in_type_list",
    "expect_column_values_to_be_json_parseable",
    "expect_column_values_to_be_null",
    "expect_column_values_to_be_of_type",
    "expect_column_values_to_match_json_schema",
    "expect_column_values_to_match_like_pattern",
    "expect_column_values_to_match_like_pattern_list",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_match_regex_list",
    "expect_column_values_to_match_strftime_format",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_match_like_pattern",
    "expect_column_values_to_not_match_like_pattern_list",
    "expect_column_values_to_not_match_regex",
    "expect_column_values_to_not_match_regex_list",
    "expect_multicolumn_sum_to_equal",
    "expect_multicolumn_values_to_be_equal",
    "expect_select_column_values_to_be_unique_within_record",
}
_VALUES = {
    "expect_column_distinct_values_to_be_in_set",
    "expect_column_distinct_values_to_contain_set",
    "expect_column_distinct_values_to_equal_set",
    "expect_column_kl_divergence_to_be_less_than",
    "expect_column_max_to_be_between",
    "expect_column_min_to_be_between",
    "expect_column_most_common_value_to_be_in_set",
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_unique_value_count_to_be_between",
}
"""Those that ask of a text only which it is: equal texts may be one object."""
_UNIQUE, _COMPOUND = "expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"
_HASHED = ("number", "text", "boolean", "time")
_DROPPED: dict[str, Literal["any", "all"]] = {"all_values_are_missing": "all", "any_value_is_missing": "any"}
"""``ignore_row_if`` → which rows pandas drops."""


def run(
    expectations: Sequence[Expectation], read: Frames, private: Collection[str] = ()
) -> tuple[list[Check], dict[str, Any]]:
    """Do what :func:`~airflow_mlops.ml.expectations.run` does, with the rows that ``read`` gives.

    :raises ExpectationError: when one crashed, which Great Expectations reports like bad data.
    """
    if read.single:
        return checked(expectations, as_json(evaluate(expectations, _at_once(expectations, read), "SUMMARY")), private)
    found: dict[int, Any] = {}
    repeats = [e for e in expectations if _may_repeat(e, read)]
    by_row = [e for e in expectations if e.name in _ROWS]
    # First what takes most, as long as nothing else was held.
    found |= _whole([e for e in expectations if not (e in repeats or e in by_row or _about_names(e))], read)
    found |= _repeats(repeats, read)
    for group in _groups(by_row, MOST_COLUMNS):
        found |= _rows(group, read)
    found |= _whole([e for e in by_row if e.number not in found], read)
    names = [e for e in expectations if _about_names(e)]
    if names:
        found |= _numbered(evaluate(names, pd.DataFrame(np.nan, [0], list(read.snapshot.columns)), "SUMMARY"))
    results = [found[e.number] for e in expectations]
    raw = as_json(evaluate([], pd.DataFrame(), "SUMMARY"))
    raw["results"] = [as_json(r) for r in results]
    raw["success"] = all(r.success for r in results)
    raw["statistics"] = statistics([r.success for r in results])
    return checked(expectations, raw, private)


def failing_rows(expectations: Sequence[Expectation], read: Frames) -> dict[int, np.ndarray[Any, Any]]:
    """Positions of the rows that fail, by number of the expectation; those without row positions are left out.

    :param expectations: that :func:`run` could evaluate.
    """
    if read.single:
        return unexpected_rows(expectations, _at_once(expectations, read))
    found: dict[int, list[np.ndarray[Any, Any]]] = {}
    by_row = [e for e in expectations if e.name in _ROWS]
    hashed = [e for e in expectations if _may_repeat(e, read)]
    for group in _groups(by_row, MOST_COLUMNS):
        for frame in read.batches(_columns(group)):
            for number, rows in unexpected_rows(group, frame).items():
                found.setdefault(number, []).append(rows)
            _release()
    for expectation in hashed:
        found[expectation.number] = [frame.index[mask].to_numpy() for frame, _, mask in _marked(expectation, read)]
    rest = [e for e in expectations if e not in by_row and e not in hashed and not _about_names(e)]
    for group in _groups(rest, MOST_VALUES // read.snapshot.rows):
        for number, rows in unexpected_rows(group, read.whole(_columns(group))).items():
            found[number] = [rows]
        _release()
    return {number: np.concatenate(rows) for number, rows in found.items()}


def by_rows(expectation: Expectation) -> bool:
    """Whether it looks at each row by itself, so that what it says of some rows depends on no others."""
    return expectation.name in _ROWS


def asks_what_repeats(expectation: Expectation) -> bool:
    """Whether it asks that values, or combinations of them, are there once."""
    return expectation.name in (_UNIQUE, _COMPOUND)


def _at_once(expectations: Sequence[Expectation], read: Frames) -> pd.DataFrame:
    """All rows of the columns that are looked at; one where none is, as rows may be counted."""
    names = list(read.snapshot.columns)
    frame = read.whole(_columns(expectations) or names[:1])
    if any(_about_names(e) for e in expectations):
        # Asked for names alone: an empty column answers that as well as one with values.
        frame = frame.reindex(columns=[*names])
    return frame


def _about_names(expectation: Expectation) -> bool:
    name = expectation.name
    return name == "expect_column_to_exist" or name.startswith("expect_table_column")


def _columns(expectations: Sequence[Expectation]) -> list[str]:
    return list(dict.fromkeys(c for e in expectations for c in e.columns))


def _groups(expectations: Sequence[Expectation], most: int) -> Iterator[list[Expectation]]:
    """Those that are evaluated on the same rows: together they read ``most`` columns, or those of one of them."""
    group: list[Expectation] = []
    for expectation in sorted(expectations, key=lambda e: e.columns):
        if group and len(_columns([*group, expectation])) > max(most, len(_columns(group))):
            yield group
            group = []
        group.append(expectation)
    if group:
        yield group


def _numbered(result: Any) -> dict[int, Any]:
    return {r.expectation_config.meta["number"]: r for r in result.results}


def _release() -> None:
    """Give back what was held for a batch: Great Expectations leaves cycles, in which copies of its columns hang."""
    gc.collect()
    pa.default_memory_pool().release_unused()


# --- columns as a whole --------------------------------------------------------------------------


def _whole(expectations: Sequence[Expectation], read: Frames) -> dict[int, Any]:
    """Results of expectations that are given all rows."""
    texts = [e for e in expectations if e.name in _VALUES and family(read.snapshot.columns[e.columns[0]]) == "text"]
    texts = [e for e in texts if len(e.columns) == 1]
    found: dict[int, Any] = {}
    for group in _groups(texts, 1):
        name = group[0].columns[0]
        frame = pd.DataFrame({name: joined((batch[name] for batch in read.batches([name])), read.snapshot.rows)})
        _release()
        results = _numbered(evaluate(group, frame, "SUMMARY"))
        found |= {n: r for n, r in results.items() if not crash_of(r.exception_info)}
        del frame
        _release()
    for group in _groups([e for e in expectations if e.number not in found], MOST_VALUES // read.snapshot.rows):
        frame = read.whole(_columns(group))
        _release()
        found |= _numbered(evaluate(group, frame, "SUMMARY"))
        del frame
        _release()
    return found


# --- rows by themselves --------------------------------------------------------------------------


def _rows(expectations: Sequence[Expectation], read: Frames) -> dict[int, Any]:
    """Results of expectations that look at rows by themselves; those that fail on a batch are left out."""
    waiting = {e.number: e for e in expectations}
    sums: dict[int, _Sum] = {}
    found: dict[int, Any] = {}
    for frame in read.batches(_columns(expectations)):
        for number, result in _numbered(evaluate(list(waiting.values()), frame, "SUMMARY")).items():
            if crash_of(result.exception_info):
                del waiting[number]
                sums.pop(number, None)
            elif "unexpected_count" not in result.result:
                found[number] = result  # of a column's type, which all batches share
                del waiting[number]
            else:
                sums.setdefault(number, _Sum(waiting[number], result)).add(result.result)
        _release()
        if not waiting:
            break
    return found | {number: part.result() for number, part in sums.items()}


class _Sum:
    """The results of one row-level expectation on some batches, as one result.

    :param result: Great Expectations' own of the first batch; it becomes that of all of them.
    """

    def __init__(self, expectation: Expectation, result: Any) -> None:
        self._mostly = float(getattr(expectation.built, "mostly", 1))
        self._result = result
        self._rows = self._missing = self._unexpected = 0
        self._values: list[Any] = []
        self._places: list[int] = []
        self._keys = set(result.result)

    def add(self, part: Mapping[str, Any]) -> None:
        self._rows += part["element_count"]
        self._missing += part.get("missing_count") or 0
        self._unexpected += part["unexpected_count"]
        self._values += part.get("partial_unexpected_list", [])[: SHOWN - len(self._values)]
        self._places += part.get("partial_unexpected_index_list", [])[: SHOWN - len(self._places)]

    def result(self) -> Any:
        looked_at = self._rows - self._missing
        # As Great Expectations has it: the share of good rows, of those that count, is at least `mostly`.
        good = not looked_at or (looked_at - self._unexpected) / looked_at >= self._mostly
        found = _format_map_output(
            parse_result_format("SUMMARY"),
            success=good,
            element_count=self._rows,
            nonnull_count=looked_at if "missing_count" in self._keys else None,
            unexpected_count=self._unexpected,
            unexpected_list=self._values if "partial_unexpected_list" in self._keys else None,
            unexpected_index_list=self._places if "partial_unexpected_index_list" in self._keys else None,
        )
        self._result.success, self._result.result = found["success"], found["result"]
        return self._result


# --- what repeats --------------------------------------------------------------------------------


def _may_repeat(expectation: Expectation, read: Frames) -> bool:
    """Whether it asks what repeats, of all rows, in columns whose values can be hashed."""
    return (
        expectation.name in (_UNIQUE, _COMPOUND)
        and not expectation.arguments.get("row_condition")
        and all(family(read.snapshot.columns[c]) in _HASHED for c in expectation.columns)
    )


def _marked(expectation: Expectation, read: Frames) -> Iterator[tuple[pd.DataFrame, int, np.ndarray[Any, Any]]]:
    """The rows that count, by batches, how many the batch has in all, and which of them occur more than once."""
    ignored: Literal["any", "all"] | None = (
        "any" if expectation.name == _UNIQUE else _DROPPED.get(str(expectation.built.ignore_row_if))
    )

    def parts() -> Iterator[tuple[pd.DataFrame, int]]:
        for frame in read.batches(tuple(dict.fromkeys(expectation.columns))):
            yield (without_zones(frame.dropna(how=ignored)) if ignored else without_zones(frame)), len(frame)

    with Repeats(read.snapshot.rows) as repeats:
        for frame, _ in parts():
            repeats.add(frame)
        repeats.finish()
        for frame, rows in parts():
            yield frame, rows, repeats.mask(frame)


def _repeats(expectations: Sequence[Expectation], read: Frames) -> dict[int, Any]:
    """Results of expectations that ask what repeats."""
    if not expectations:
        return {}
    # Their form: on a single row nothing repeats.
    first = next(read.batches(_columns(expectations))).head(1)
    found = _numbered(evaluate(expectations, first, "SUMMARY"))
    for expectation in expectations:
        part = _Sum(expectation, found[expectation.number])
        for frame, rows, mask in _marked(expectation, read):
            bad = frame[mask].head(SHOWN)
            values = list(bad[expectation.columns[0]]) if expectation.name == _UNIQUE else bad.to_dict("records")
            part.add(
                {
                    "element_count": rows,
                    "missing_count": rows - len(frame),
                    "unexpected_count": int(mask.sum()),
                    "partial_unexpected_list": values,
                    "partial_unexpected_index_list": bad.index.tolist(),
                }
            )
        found[expectation.number] = part.result()
    return found
