"""Great Expectations in the database where the data is (``validate.engine: sql``): the rows stay there.

The suite is asked of the query that the snapshot was read with, on one connection, that only reads. All questions are
asked in one transaction; PostgreSQL, MySQL, MariaDB and SQLite then answer all of them of the same rows. What was
written between the snapshot and these questions is found where it changes the number of rows.

Great Expectations' own data sources are not used: they take a connection as text, with its password, and fetch a whole
query to learn the names of its columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import great_expectations
import sqlalchemy as sa
from great_expectations.core.batch import Batch
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.execution_engine.sqlalchemy_batch_data import SqlAlchemyBatchData
from great_expectations.validator.validator import Validator
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from airflow_mlops.config.models import Data
from airflow_mlops.config.sql_expectations import why_not
from airflow_mlops.exceptions import DataError, DataUnavailable, ExpectationError
from airflow_mlops.ml.expectations import Check, Expectation, as_json, checked, crash_of, statistics
from airflow_mlops.ml.privacy import IDS, cause, reads, told
from airflow_mlops.ml.reading import may_pass
from airflow_mlops.ml.row_conditions import sql_condition
from airflow_mlops.ml.schema import family
from airflow_mlops.ml.snapshot import Snapshot

Database = Callable[[str], sa.Engine]
"""Opens the database of an Airflow connection, by its id."""

_ONE_STATE = {"postgresql": "REPEATABLE READ", "mysql": "REPEATABLE READ", "mariadb": "REPEATABLE READ"}
_FIRST = {
    "postgresql": "SET LOCAL TIME ZONE 'UTC'",
    "mysql": "SET time_zone = '+00:00'",
    "mariadb": "SET time_zone = '+00:00'",
    "sqlite": "BEGIN",
}
"""Times of the snapshot, and bounds, are in UTC."""
_OF_NUMBERS = (
    "expect_column_mean_to_be_between", "expect_column_median_to_be_between", "expect_column_stdev_to_be_between",
    "expect_column_sum_to_be_between", "expect_column_value_z_scores_to_be_less_than",
    "expect_column_values_to_not_be_outliers", "expect_multicolumn_sum_to_equal",
)  # fmt: skip
_OF_TEXT = (
    "expect_column_value_lengths_to_be_between", "expect_column_value_lengths_to_equal",
    "expect_column_values_to_match_like_pattern", "expect_column_values_to_match_like_pattern_list",
    "expect_column_values_to_match_regex", "expect_column_values_to_match_regex_list",
    "expect_column_values_to_not_match_like_pattern", "expect_column_values_to_not_match_like_pattern_list",
    "expect_column_values_to_not_match_regex", "expect_column_values_to_not_match_regex_list",
)  # fmt: skip
_OF_VALUES = (
    "expect_column_max_to_be_between", "expect_column_min_to_be_between", "expect_column_values_to_be_between",
)  # fmt: skip
_NAN_IS_A_NUMBER = ("postgresql", "redshift", "snowflake")
# What databases and SQLAlchemy add to an error: the statement, with the query in it.
_STATEMENT = re.compile(r"\n(?:LINE \d+:|\[SQL:)")
# As SQLAlchemy finds parameters in text; a query of YAML has none.
_PARAMETER = re.compile(r"(?<![:\w\x5c]):(\w+)(?!:)")


@dataclass(frozen=True)
class Asked:
    """What was asked: the connection, the kind of database, the rows there, and whether all answers are of the same."""

    conn_id: str
    dialect: str
    rows: int
    one_state: bool

    @property
    def sentence(self) -> str:
        """One line for logs."""
        return (
            f"the expectations were evaluated in the database of {self.conn_id!r} ({self.dialect}), {self.rows:,} rows"
        )


def run(
    expectations: Sequence[Expectation], snapshot: Snapshot, data: Data, database: Database
) -> tuple[list[Check], dict[str, Any], list[Check], Asked]:
    """Evaluate on the rows that the snapshot's query has in the database now.

    :param snapshot: one that was read by ``data.sql``.
    :returns: checks in the given order, the raw result as JSON, checks of the database's rows against the snapshot's,
        and what was asked.
    :raises ExpectationError: a database cannot compute one, or failed at it.
    :raises DataUnavailable: the database cannot be reached, or no longer. :raises DataError: it refuses the query.
    """
    families = {n: family(t) for n, t in snapshot.columns.items()}
    for e in expectations:
        if why := why_not(e.name, e.arguments) or _unfit(e, families):
            raise ExpectationError(f"validate.expectations, number {e.number}, {e.name}: {why[0]}", hint=why[1])
    conn_id = snapshot.source["conn_id"]
    engine = database(conn_id)
    try:
        asking = _Asking(engine, snapshot, data)
        with asking.connected(conn_id):
            rows, nans = asking.count(expectations)
            found = asking.evaluate(expectations)
    finally:
        engine.dispose()
    asked = Asked(conn_id, engine.dialect.name, rows, engine.dialect.name in _FIRST)
    raw = {
        "success": all(r["success"] for r in found),
        "results": found,
        "statistics": statistics([r["success"] for r in found]),
        "meta": {"great_expectations_version": great_expectations.__version__, **asdict(asked)},
    }
    checks, raw = checked(expectations, raw, data.private)
    return checks, raw, _against(snapshot, data, rows, nans), asked


def _unfit(expectation: Expectation, families: Mapping[str, str]) -> tuple[str, str] | None:
    """What some databases would not refuse: they make a number of a text, or a text of a number, to compare them."""
    name = expectation.name
    arguments = {k: v for k, v in expectation.arguments.items() if k != "row_condition"}
    for column in reads({name: arguments}, families):
        kind = families[column]
        if name in _OF_NUMBERS and kind in ("text", "time", "boolean"):
            return f"{column!r} holds no numbers, but {kind}", "take it away, or name another column"
        if name in _OF_TEXT and kind not in ("text", "empty"):
            return f"{column!r} holds no text, but {kind}", "take it away, or name another column"
        values = [arguments.get("min_value"), arguments.get("max_value")] if name in _OF_VALUES else []
        for value in values + list(arguments.get("value_set") or ()):
            if (kind == "text" and isinstance(value, (int, float))) or (kind == "number" and isinstance(value, str)):
                other = "a text" if isinstance(value, str) else "a number"
                return f"{column!r} holds {kind}, and is compared with {other}", "give values of the column's type"
    return None


def _against(snapshot: Snapshot, data: Data, rows: int, nans: dict[str, int]) -> list[Check]:
    observed = f"{rows:,} in the database, {snapshot.rows:,} in the snapshot"
    if rows != snapshot.rows and snapshot.window and not _bounds(snapshot, data):
        observed += "; the window is not applied in the database: put it in data.sql.query"
    checks = [Check("rows are those of the snapshot", "", rows == snapshot.rows, observed=observed)]
    for name, count in nans.items():
        told = "private" if name in data.private else f"{count:,} NaN"
        checks.append(
            Check(
                "no NaN among numbers", name, False, severity="warning", private=name in data.private,
                observed=f"{told}: a value above all others in this database, a missing one with engine: pandas",
            )
        )  # fmt: skip
    return checks


def _bounds(snapshot: Snapshot, data: Data) -> tuple[datetime, datetime] | None:
    """Start and end of the window as the timestamp's column has times; None where it holds none, or there is no window.

    Text may be in any form of ISO 8601, which a database would compare letter by letter.
    """
    kind = snapshot.columns.get(data.timestamp or "", "")
    if snapshot.window is None or family(kind) != "time":
        return None
    start, end = (t.astimezone(UTC) for t in (snapshot.window.start, snapshot.window.end))
    return (start, end) if "tz=" in kind else (start.replace(tzinfo=None), end.replace(tzinfo=None))


class _Asking(SqlAlchemyExecutionEngine):
    """All that Great Expectations asks goes through one connection, and names of columns are quoted as they are."""

    def __init__(self, engine: sa.Engine, snapshot: Snapshot, data: Data) -> None:
        super().__init__(engine=engine, create_temp_table=False)
        self._snapshot, self._data = snapshot, data
        self._held: sa.Connection | None = None
        self._lost: Exception | None = None
        self._names: list[Any] = []
        self._rows: Any = None

    @contextmanager
    def connected(self, conn_id: str) -> Iterator[None]:
        """Hold a transaction that only reads while the block runs.

        :raises DataUnavailable: the connection is lost. :raises DataError: the query is refused.
        """
        dialect = self.engine.dialect.name
        hidden = self._data.private
        try:
            self._held = self.engine.connect()
        except Exception as e:  # drivers have no common base class for "cannot connect"
            raise DataUnavailable(
                f"cannot connect through {conn_id!r}: {_short(e)}", hint="check the connection in Airflow"
            ) from e
        try:
            if dialect in _ONE_STATE:
                self._held = self._held.execution_options(isolation_level=_ONE_STATE[dialect])
            if dialect == "postgresql":
                self._held = self._held.execution_options(postgresql_readonly=True)
            if dialect in _FIRST:
                self._held.exec_driver_sql(_FIRST[dialect])
            self._open()
            yield
        except SQLAlchemyError as e:
            failed = DataUnavailable if self._lost else DataError
            what = told(e, hidden) if hidden else _short(e)
            raise failed(f"the query through {conn_id!r} failed: {what}", hint="run it in a SQL client") from cause(
                e, hidden
            )
        finally:
            self._held.close()

    def _open(self) -> None:
        text = _PARAMETER.sub(r"\\:\1", self._snapshot.source["query"].strip().rstrip(";").rstrip())
        # On a line of its own, what closes the query is not part of a comment that ends it.
        query = sa.text(text + "\n")
        head = self.execute_query(
            sa.select(sa.text("*")).select_from(query.columns().alias("q")).where(sa.text("1 = 0"))
        )
        # As the driver has them, which is as the snapshot has them: SQLAlchemy changes upper case for some databases.
        self._names = [sa.quoted_name(c[0], quote=True) for c in head.cursor.description]
        head.close()
        rows: Any = query.columns(*(sa.column(n) for n in self._names))
        if bounds := _bounds(self._snapshot, self._data):
            whole = rows.alias("q")
            time = whole.c[self._data.timestamp]
            rows = sa.select(*whole.c).where(time >= bounds[0], time < bounds[1])
        self._rows = rows
        self.load_batch_data(
            "rows", SqlAlchemyBatchData(execution_engine=self, selectable=rows, create_temp_table=False)
        )

    def count(self, expectations: Sequence[Expectation]) -> tuple[int, dict[str, int]]:
        """Rows, and NaN in the columns that are looked at, where the database takes it for a number."""
        rows = self._rows.alias("r")
        kinds = self._snapshot.columns
        looked_at = list(dict.fromkeys(c for e in expectations for c in e.columns))
        if self.engine.dialect.name not in _NAN_IS_A_NUMBER:
            looked_at = []
        looked_at = [c for c in looked_at if kinds[c] in ("double", "float", "halffloat")]
        nan = sa.cast(sa.literal("NaN"), sa.Float)
        sums = [sa.func.sum(sa.case((rows.c[c] == nan, 1), else_=0)) for c in looked_at]
        answer = self.execute_query(sa.select(sa.func.count(), *sums).select_from(rows)).one()
        return int(answer[0]), {c: int(n) for c, n in zip(looked_at, answer[1:], strict=True) if n}

    def evaluate(self, expectations: Sequence[Expectation]) -> list[dict[str, Any]]:
        """Great Expectations' own results as JSON, in the given order."""
        id_ = self._data.id
        format_ = {"result_format": "SUMMARY", "return_unexpected_index_query": False}
        if id_:
            format_["unexpected_index_column_names"] = [id_]
        data: Any = self.batch_manager.active_batch_data
        validator = Validator(execution_engine=self, batches=[Batch(data=data)])
        validator.metrics_calculator._show_progress_bars = False
        configurations = [e.built.configuration for e in expectations]
        results = validator.graph_validate(configurations, runtime_configuration={"result_format": format_})
        if self._lost:
            raise self._lost
        plain = {r["expectation_config"]["meta"]["number"]: r for r in (_plain(r, id_) for r in results)}
        return [plain[e.number] for e in expectations]

    # --- what Great Expectations calls ---------------------------------------------------------------

    @contextmanager
    def get_connection(self) -> Iterator[sa.Connection]:
        """The one that is held."""
        if self._held is None:
            raise DataError("no connection is held")
        yield self._held

    def execute_query(self, query: Any) -> Any:
        """Run a query; one that fails leaves the transaction as it was."""
        with self.get_connection() as connection:
            try:
                if self.engine.dialect.name != "postgresql":
                    return connection.execute(query)
                with connection.begin_nested():
                    return connection.execute(query)
            except DBAPIError as e:
                if isinstance(e.orig, Exception) and may_pass(e.orig):
                    self._lost = e
                raise

    def get_inspector(self) -> Any:
        """What tells the names of the columns; a query is no table that a database could describe."""
        return SimpleNamespace(
            dialect=self.engine.dialect,
            get_columns=lambda **_: [{"name": n} for n in self._names],
            get_pk_constraint=lambda **_: {},
        )

    def get_domain_records(self, domain_kwargs: dict[str, Any]) -> Any:
        """The rows that an expectation is about, those of its ``row_condition`` where it has one."""
        condition = domain_kwargs.get("row_condition")
        if condition is None:
            return super().get_domain_records(domain_kwargs)
        rows: Any = super().get_domain_records({**domain_kwargs, "row_condition": None})
        if isinstance(condition, dict):
            condition = condition["pass_through_filter"]
        text = condition if isinstance(condition, str) else condition.pass_through_filter
        columns: dict[str, Any] = {str(n): sa.column(n) for n in self._names}
        times = {n: c for n, c in columns.items() if family(self._snapshot.columns.get(n, "")) == "time"}
        source: Any = rows if isinstance(rows, sa.FromClause) else rows.subquery()
        return sa.select(sa.text("*")).select_from(source).where(sql_condition(text, columns, times)).subquery()


def _plain(result: Any, id_: str | None) -> dict[str, Any]:
    """``result`` as JSON, with the ids alone of the rows that fail, which come with the values that were looked at."""
    found = as_json(result)
    if crash := crash_of(found.get("exception_info")):
        found["exception_info"] = {"raised_exception": True, "exception_message": _said(crash)}
    inside = dict(found["result"])
    rows = inside.pop("partial_unexpected_index_list", None)
    inside.pop("unexpected_index_column_names", None)
    if rows and id_:
        inside[IDS] = [row[id_] for row in rows]
    # Some are NumPy's, which would be the text "False".
    return {**found, "success": bool(result.success), "result": inside}


def _short(error: Exception) -> str:
    """What a driver says, without the statement and the link that SQLAlchemy adds to it."""
    inner = getattr(error, "orig", None) or error
    return f"{type(inner).__name__}: {_said(str(inner))}"


def _said(text: str) -> str:
    """An error on one line, up to where the statement begins."""
    if text.startswith("No provider found"):
        return "a database cannot compute it; set validate.engine to pandas"
    return " ".join(_STATEMENT.split(text, maxsplit=1)[0].split())
