"""What a database computes of Great Expectations (``validate.engine: sql``), and what it would compute otherwise.

Tests run every expectation of the library in databases and on a DataFrame, so that these lists are neither too long
nor too short.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES = "types have other names there; `schema: infer` locks those of the columns"
_FORM = "it has no form in SQL"
_ORDER = "rows of a database have no order"

NOT_IN_SQL = {
    "expect_column_type_to_be": _TYPES,
    "expect_column_values_to_be_dateutil_parseable": _FORM,
    "expect_column_values_to_be_decreasing": _ORDER,
    "expect_column_values_to_be_in_type_list": _TYPES,
    "expect_column_values_to_be_increasing": _ORDER,
    "expect_column_values_to_be_json_parseable": _FORM,
    "expect_column_values_to_be_of_type": _TYPES,
    "expect_column_values_to_match_json_schema": _FORM,
    "expect_column_values_to_match_strftime_format": _FORM,
    "expect_query_results_to_match_comparison": "it compares with a data source of Great Expectations' own",
}
"""Name → the reason."""

ONLY_IN_SQL = (
    "expect_column_values_to_match_like_pattern",
    "expect_column_values_to_match_like_pattern_list",
    "expect_column_values_to_not_match_like_pattern",
    "expect_column_values_to_not_match_like_pattern_list",
    "expect_table_row_count_to_equal_other_table",
)

_IGNORED = {
    "expect_column_pair_values_a_to_be_greater_than_b": "either_value_is_missing",
    "expect_column_pair_values_to_be_in_set": "either_value_is_missing",
    "expect_compound_columns_to_be_unique": "any_value_is_missing",
    "expect_multicolumn_sum_to_equal": "any_value_is_missing",
}
"""Those that take a missing value for one, which SQL does not: rows with one must be left out on purpose."""


def why_not(name: str, arguments: Mapping[Any, Any]) -> tuple[str, str] | None:
    """Why a database cannot compute this as pandas would, and what to do; ``None`` where it can, as far as is known."""
    if name in NOT_IN_SQL:
        return f"a database cannot compute it: {NOT_IN_SQL[name]}", "take it away, or set `engine: pandas`"
    ignored = _IGNORED.get(name)
    if ignored is not None and arguments.get("ignore_row_if") != ignored:
        return "a database compares no missing values", f"add `ignore_row_if: {ignored}`, or set `engine: pandas`"
    return None
