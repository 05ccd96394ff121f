"""From a pipeline's ``data`` section to a stream of Arrow batches: files, a query, or a callable."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pyarrow import fs as pafs

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import (
    DataError,
    DataNotFound,
    DataUnavailable,
    MLOpsError,
    TargetError,
    WindowError,
)
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.csvfiles import CsvPart
from airflow_mlops.ml.files import FileInfo, Files
from airflow_mlops.ml.parts import EPOCH, ChunkPart, ParquetPart, Part, plain_type, utc_microseconds
from airflow_mlops.ml.privacy import cause, told
from airflow_mlops.window import Window

Sql = Callable[[str, str], Iterator[pa.Table]]


def render_source(template: str, window: Window | None) -> str:
    """Fill ``{{ window.start }}`` and ``{{ window.end }}`` in; nothing else is available there.

    :raises WindowError: when the template needs a window and there is none.
    """
    names = {} if window is None else {"window": window}
    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(template).render(names)
    except TemplateError as e:
        if window is None:
            raise WindowError(
                f"{template!r} needs the run's window, and this run has none",
                hint="give window_start and window_end in the trigger form",
            ) from e
        raise DataError(
            f"{template!r} cannot be filled in: {e}", hint="use {{ window.start }} and {{ window.end }}"
        ) from e


class SourceBatches:
    """The rows of a source as Arrow batches of one schema; iterate it (again, if needed).

    ``rows_read``, ``rows_outside`` (outside the window, dropped) and ``newest`` (latest ``data.timestamp``) are
    complete when an iteration has ended; ``warnings`` from the start.
    """

    def __init__(
        self, parts: Sequence[Part], source: dict[str, Any], data: Data, window: Window | None,
        *, target_optional: bool = False, columns: Sequence[str] | None = None, keep: object = None,
    ) -> None:  # fmt: skip
        self.source, self.data, self.window, self.target_optional = source, data, window, target_optional
        self.warnings: list[str] = [w for p in parts for w in p.warnings]
        self._parts, self._keep = parts, keep
        self.schema = self._one_schema(columns)
        self.rows_read = self.rows_outside = 0
        self.newest: datetime | None = None

    def _one_schema(self, columns: Sequence[str] | None) -> pa.Schema:
        first = self._parts[0]
        for part in self._parts:
            doubled = sorted({n for n in part.schema.names if part.schema.names.count(n) > 1})
            if doubled:
                raise DataError(f"{part.name} has more than one column {', '.join(map(repr, doubled))}")
        names = [n for n in first.schema.names if not n.startswith("__index_level_")]
        if len(names) < len(first.schema.names):
            self.warnings.append(f"{first.name}: the pandas index stored as {first.schema.names[-1]} is left out")
        unused = set(self.data.exclude)
        for part in self._parts[1:]:
            lacks = [n for n in names if n not in part.schema.names]
            extra = [n for n in part.schema.names if n not in names and not n.startswith("__index_level_")]
            problems = [f"lacks {n!r}" for n in lacks if n not in unused] + [
                f"has {n!r} too" for n in extra if n not in unused
            ]
            if problems:
                raise DataError(
                    f"the files have different columns: against {first.name}, {part.name} " + ", ".join(problems),
                    hint="narrow data.source to files of one layout, or list the columns in data.exclude",
                )
            names = [n for n in names if n not in lacks]
        if columns is not None:
            names = [n for n in columns if self._require(n, names, "columns")]
        for key, name in (("data.timestamp", self.data.timestamp), ("data.id", self.data.id)):
            if name is not None and columns is None:
                self._require(name, names, key)
        if not self.target_optional:
            self._require(self.data.target, names, "data.target")
            # A misspelt name would leave the column's values to every report.
            for name in self.data.private if columns is None else ():
                self._require(name, names, "data.private")
        return pa.schema([pa.field(n, self._one_type(n)) for n in names])

    def _require(self, name: str, names: Sequence[str], key: str) -> bool:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise (TargetError if key == "data.target" else DataError)(
                f"{self._parts[0].name} has no column {name!r} ({key})"
                + (f"; did you mean {near[0]!r}?" if near else ""),
                hint="it has: " + ", ".join(names[:30]) + (" …" if len(names) > 30 else ""),
            )
        return True

    def _one_type(self, name: str) -> pa.DataType:
        """The narrowest type that holds every part's values: null and integer give way to what the others have."""
        kinds = [plain_type(p.schema.field(name).type) for p in self._parts]
        common = kinds[0]
        for part, kind in zip(self._parts, kinds, strict=True):
            if kind == common:
                continue
            text = pa.types.is_string(kind) or pa.types.is_string(common)
            if text and name in (self.data.id, *self.data.exclude):
                common = pa.string()
                continue
            try:
                fields = [pa.schema([pa.field(name, k)]) for k in (common, kind)]
                common = pa.unify_schemas(fields, promote_options="permissive").field(0).type
            except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
                raise DataError(
                    f"column {name!r} is {kind} in {part.name} and {common} in {self._parts[0].name}",
                    hint="deliver the column with one type",
                ) from e
        return common

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        self.rows_read = self.rows_outside = 0
        self.newest = None
        newest: int | None = None
        kept = 0
        stamp, bounds, limits = self.data.timestamp, None, None
        if stamp not in self.schema.names:
            stamp = None
        if stamp is not None and self.window is not None:
            bounds = (stamp, self.window.start, self.window.end)
            limits = [_microseconds(self.window.start), _microseconds(self.window.end)]
        for part in self._parts:
            kept_here = 0
            for raw in part.scan(self.schema.names, bounds):
                batch = self._fit(raw, part)
                if stamp is not None:
                    times = utc_microseconds(batch.column(self.schema.names.index(stamp)), stamp, part.name)
                    if times.null_count:
                        self._null_times(part, stamp)
                    if limits is not None:
                        inside = pc.and_(pc.greater_equal(times, limits[0]), pc.less(times, limits[1]))
                        batch, times = batch.filter(inside), times.filter(inside)
                    if len(times):
                        newest = max(pc.max(times).as_py(), newest if newest is not None else -(2**63))
                        self.newest = EPOCH + timedelta(microseconds=newest)
                if batch.num_rows:
                    kept_here += batch.num_rows
                    yield batch
            kept += kept_here
            self.rows_read += part.rows
            self.rows_outside += part.rows - kept_here
        if not kept:
            where = self._parts[0].name if len(self._parts) == 1 else f"{len(self._parts)} files"
            if self.rows_read:
                raise DataNotFound(
                    f"none of the {self.rows_read} rows of {where} lies in the window {self.window}",
                    hint=f"check {self.data.timestamp!r} (times without a zone are taken as UTC), and data.window: "
                    "how far back a run reads",
                )
            raise DataNotFound(f"{where}: 0 rows", hint="check the source and the window it was made from")

    def _fit(self, batch: pa.RecordBatch, part: Part) -> pa.RecordBatch:
        if batch.schema.equals(self.schema, check_metadata=False):
            return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)
        columns = []
        for field in self.schema:
            column = batch.column(field.name)
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            try:
                columns.append(column if column.type == field.type else column.cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
                hidden = {field.name} & set(self.data.private)
                raise DataError(
                    f"{part.name}, column {field.name!r}: {told(e, hidden)}", hint="deliver the column with one type"
                ) from cause(e, hidden)
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _null_times(self, part: Part, stamp: str) -> None:
        """Count the rows without a time in the whole part, for the message."""
        count, offset, rows = 0, 0, list[int]()
        for batch in part.scan([stamp]):
            missing = pc.is_null(batch.column(0))
            count += pc.sum(missing).as_py() or 0
            if len(rows) < 5:
                rows += [offset + i.as_py() + 1 for i in pc.indices_nonzero(missing)[: 5 - len(rows)]]
            offset += batch.num_rows
        raise DataError(
            f"{part.name}: {count} of {part.rows} rows have no value in {stamp!r} (data.timestamp): "
            f"data row {', '.join(map(str, rows))}" + (" …" if count > len(rows) else ""),
            hint="without a time a row cannot be placed inside or outside the window: repair or drop these rows",
        )


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def read_batches(
    data: Data,
    *,
    files: Files,
    window: Window | None,
    sql: Sql | None = None,
    allowed_imports: Sequence[str] = (),
    target_optional: bool = False,
    columns: Sequence[str] | None = None,
) -> SourceBatches:
    """Open the source of ``data``; the rows come when the result is iterated.

    With ``data.timestamp`` set, only rows in the half-open ``window`` are kept; the others are counted.
    Times without a zone are taken as in UTC. Parquet reads only the row groups and columns it needs.

    :param sql: ``(conn_id, rendered query) -> tables``, given by whoever knows connections.
    :param target_optional: the target may be absent (rows to score).
    :param columns: read only these.
    :raises DataNotFound: no file, object or row. :raises DataTruncated: a file that ends early.
    :raises DataUnavailable: the source cannot be reached. :raises DataError: anything else wrong with it.
    """
    keep: object = None
    parts: list[Part]
    if data.source is not None:
        uri = render_source(data.source, window)
        parts, source = _open_files(uri, files, data)
    else:
        keep = tempfile.TemporaryDirectory(prefix="mlops-source-")
        if data.sql is not None:
            if sql is None:
                raise DataError("data.sql needs a way to run queries, and none was given")
            query = render_source(data.sql.query, window)
            chunks: Iterable[Any] = sql(data.sql.conn_id, query)
            source = {"kind": "sql", "conn_id": data.sql.conn_id, "query": query, "version": None}
            name = f"the query on {data.sql.conn_id}"
        else:
            name = str(data.callable)
            chunks = _call(name, window, allowed_imports)
            source = {"kind": "callable", "callable": name, "version": None}
        parts = [ChunkPart(t, name, Path(keep.name) / f"{i}.arrow") for i, t in enumerate(_tables(chunks, name, data))]
        if not parts:
            raise DataNotFound(
                f"{name} returned nothing", hint="check it for this window" + (f": {window}" if window else "")
            )
        # A chunk without rows says nothing about its columns' types, but all of them may be so.
        parts = [p for p in parts if p.rows] or parts[:1]
    return SourceBatches(parts, source, data, window, target_optional=target_optional, columns=columns, keep=keep)


def _open_files(uri: str, files: Files, data: Data) -> tuple[list[Part], dict[str, Any]]:
    found = files.expand(uri)
    filesystem = files.resolve(uri)[0]
    free = [*([data.id] if data.id else []), *data.exclude]

    def open_one(info: FileInfo) -> Part:
        path = info.path.lower()
        if path.endswith((".parquet", ".pq")):
            return ParquetPart(filesystem, info)
        if path.endswith((".csv", ".csv.gz")):
            return CsvPart(filesystem, info, free, data.private)
        raise DataError(f"{info.uri} is neither CSV nor Parquet by its name", hint="use .csv, .csv.gz or .parquet")

    with ThreadPoolExecutor(1 if isinstance(filesystem, pafs.LocalFileSystem) else 8) as pool:
        parts = list(pool.map(open_one, found))
    listed = [{"uri": f.uri, "size": f.size, "version": f.version} for f in found]
    version = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return parts, {"kind": "files", "uri": uri, "files": listed, "version": version}


def _call(path: str, window: Window | None, allowed: Sequence[str]) -> Iterable[Any]:
    function = resolve(path, allowed)
    if not callable(function):  # pragma: no cover - resolve returns classes and functions only
        raise DataError(f"{path} cannot be called")
    wanted = inspect.signature(function).parameters
    try:
        result = function(window=window) if "window" in wanted else function()
    except MLOpsError:
        raise
    except Exception as e:
        raise _failed(e, f"{path} failed") from e
    return [result] if isinstance(result, (pd.DataFrame, pa.Table, pa.RecordBatch)) else result


def may_pass(error: Exception) -> bool:
    """Whether an error of a database's driver, or of the network, says that a connection was lost."""
    # Drivers share these class names (PEP 249), not a base class. SQLite, which has no connection to lose, calls
    # a missing table so.
    names = {c.__name__ for c in type(error).__mro__ if c.__module__ != "sqlite3"}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(names & {"OperationalError", "InterfaceError"})


def _failed(error: Exception, what: str) -> DataError:
    """What a query's or callable's own error means: a lost connection may come back, anything else is a fault."""
    kind = DataUnavailable if may_pass(error) else DataError
    return kind(f"{what}: {type(error).__name__}: {error}", hint="its own traceback is in the log, after this one")


def _tables(chunks: Iterable[Any], name: str, data: Data) -> Iterator[pa.Table]:
    try:
        iterator = iter(chunks)
    except TypeError as e:
        raise DataError(
            f"{name} returned {type(chunks).__name__}", hint="return a DataFrame, an Arrow table, or an iterator"
        ) from e
    number = 0
    while True:
        number += 1
        try:
            chunk = next(iterator, None)
        except MLOpsError:
            raise
        except Exception as e:
            raise _failed(e, f"{name} failed at chunk {number}") from e
        if chunk is None:
            return
        if isinstance(chunk, pd.DataFrame):
            try:
                chunk = pa.Table.from_pandas(chunk, preserve_index=False)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
                raise DataError(
                    f"{name}, chunk {number}: {told(e, data.private)}", hint="give every column one type"
                ) from cause(e, data.private)
        elif isinstance(chunk, pa.RecordBatch):
            chunk = pa.Table.from_batches([chunk])
        if not isinstance(chunk, pa.Table):
            raise DataError(
                f"{name} returned {type(chunk).__name__}", hint="return a DataFrame, an Arrow table, or an iterator"
            )
        yield chunk.replace_schema_metadata(None)
