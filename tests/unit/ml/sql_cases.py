"""A table and its expectations, asked of a database and of a DataFrame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from airflow_mlops.config.models import Data
from airflow_mlops.config.sql_expectations import why_not
from airflow_mlops.exceptions import ExpectationError
from airflow_mlops.ml.data import Snapshot, read_batches, take_snapshot
from airflow_mlops.ml.expectations import Check, build, run
from airflow_mlops.ml.expectations_sql import run as run_sql
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.schema import family
from airflow_mlops.store.base import Store
from tests.unit.ml.test_expectations_parts import CONDITION, SUITE, TABLE

QUERY = "SELECT * FROM cases ORDER BY i  -- in their order"
TYPES = {
    "n": sa.Double, "m": sa.Double, "i": sa.BigInteger, "k": sa.BigInteger, "b": sa.Boolean, "c": sa.Text, "u": sa.Text,
    "late": sa.Text, "j": sa.Text, "s": sa.Text, "t": sa.DateTime, "z": sa.DateTime(timezone=True), "d": sa.Date,
}  # fmt: skip
EITHER, ANY = {"ignore_row_if": "either_value_is_missing"}, {"ignore_row_if": "any_value_is_missing"}
# With what a database needs to be told, and what it alone can do.
MORE: list[dict[str, dict[str, Any]]] = [
    {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "m", "column_B": "n", "mostly": 0.5, **EITHER}},
    {"expect_column_pair_values_to_be_equal": {"column_A": "k", "column_B": "m", **EITHER}},
    {
        "expect_column_pair_values_to_be_in_set": {
            "column_A": "k", "column_B": "c", "value_pairs_set": [[1, "c1"]], **EITHER,
        }
    },
    {"expect_compound_columns_to_be_unique": {"column_list": ["c", "k"], **ANY, **CONDITION}},
    {"expect_multicolumn_sum_to_equal": {"column_list": ["k", "m"], "sum_total": 5, **ANY}},
    {"expect_column_values_to_be_between": {"column": "n", "min_value": 0, "strict_min": True}},
    {
        "expect_column_values_to_match_regex": {
            "column": "u", "regex": "^u[0-9]$", "row_condition": "t > '2024-01-02' and n not in [1, 2] or b",
            "condition_parser": "pandas",
        }
    },
]  # fmt: skip
LIKE = {
    "expect_column_values_to_match_like_pattern": ({"like_pattern": "u1%"}, 49),
    "expect_column_values_to_not_match_like_pattern": ({"like_pattern": "u1%"}, 11),
    "expect_column_values_to_match_like_pattern_list": ({"like_pattern_list": ["u1%"]}, 49),
    "expect_column_values_to_not_match_like_pattern_list": ({"like_pattern_list": ["u1%"]}, 11),
}
# What a database calls a quantile is one of the values; sums of floats end in other digits.
BY_ANOTHER_RULE = ("expect_column_quantile_values_to_be_between",)


def fill(engine: sa.Engine) -> None:
    """Make the table."""
    table = sa.Table("cases", sa.MetaData(), *(sa.Column(name, kind) for name, kind in TYPES.items()))
    with engine.begin() as connection:
        table.drop(connection, checkfirst=True)
        table.create(connection)
        connection.execute(table.insert(), TABLE.to_pylist())


def data(**more: Any) -> Data:
    """The ``data`` section."""
    given = {"sql": {"conn_id": "lake", "query": QUERY}, "target": "n", "id": "i", "min_rows": 5}
    return Data.model_validate(given | more)


def snapshot(store: Store, read: Callable[..., Any], section: Data) -> Snapshot:
    """What a run takes of it."""
    batches = read_batches(section, files=Files(""), window=None, sql=read)
    return take_snapshot(store, "cases", batches, data=section, window=None)


def assert_as_a_frame(taken: Snapshot, store: Store, database: Callable[[str], sa.Engine]) -> None:
    """Every expectation that a database computes says what it says of a DataFrame; the others are refused."""
    families = {n: family(t) for n, t in taken.columns.items()}
    frame, compared = taken.to_pandas(store), 0
    for entry in [*SUITE, *MORE]:
        ((name, arguments),) = entry.items()
        suite = build([entry], families)
        if why_not(name, arguments) is not None:
            try:
                run_sql(suite, taken, data(), database)
            except ExpectationError as e:
                assert "engine: pandas" in str(e), entry  # noqa: PT017
                continue
            raise AssertionError(f"{entry} was not refused")
        try:
            ((expected,), _) = run(suite, frame)
        except ExpectationError:
            continue  # pandas cannot compare dates and times with a zone; a database can
        ((found,), _, against, asked) = run_sql(suite, taken, data(), database)
        compared += 1
        assert all(check.success for check in against)
        assert asked.rows == len(frame)
        if name not in BY_ANOTHER_RULE:
            assert said(found) == said(expected), entry
        # Of combinations Great Expectations tells none in a database.
        if found.unexpected_count and found.row_level and name != "expect_compound_columns_to_be_unique":
            assert found.ids, entry
            assert not found.rows
    assert compared > 50
    for name, (arguments, bad) in LIKE.items():
        ((found,), _, _, _) = run_sql(build([{name: {"column": "u", **arguments}}], families), taken, data(), database)
        assert found.unexpected_count == bad
    other = build([{"expect_table_row_count_to_equal_other_table": {"other_table_name": "cases"}}], families)
    assert run_sql(other, taken, data(), database)[0][0].success


def said(check: Check) -> tuple[Any, ...]:
    """What must be the same; an observed number to nine digits."""
    try:
        observed: Any = f"{float(check.observed):.9g}"
    except ValueError:
        observed = check.observed
    return check.success, check.unexpected_count, check.unexpected_percent, observed
