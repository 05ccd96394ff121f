"""Strict streaming CSV: every short row, cut end, damaged archive and change of type is an error with its place."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv
from pyarrow import fs as pafs

from airflow_mlops.exceptions import DataError, DataNotFound, DataTruncated
from airflow_mlops.ml.files import FileInfo, io_errors
from airflow_mlops.ml.privacy import cause

BLOCK_BYTES = 8 * 2**20
_CONFLICT = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to ([^:]+): (.*)", re.DOTALL)
_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
# A text column with this share of numbers, and at least as many values, is a number column with a fault in it.
_MOSTLY, _MOSTLY_ROWS = 0.95, 20


class _Watched(io.RawIOBase):
    """Passes bytes on and remembers what tells a cut file: its last line, its line and quote counts."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.bytes = self.lines = self.quotes = 0
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size if size >= 0 else None)
        if data:
            self.bytes += len(data)
            self.lines += data.count(b"\n")
            self.quotes += data.count(b'"')
            self.tail = (self.tail + data)[-65536:]
        return data

    @property
    def cut(self) -> bool:
        """Whether the last line does not end."""
        return bool(self.tail) and not self.tail.endswith((b"\n", b"\r"))


class CsvPart:
    """One CSV file, plain or ``.gz``: UTF-8, comma-separated, with a header.

    Read once to learn and check every row's shape and type, and again for the values, so that nothing is held in
    memory and nothing is yielded from a bad file. Empty fields and ``NA``-like ones are null unless quoted.

    :raises DataTruncated: when the file ends inside a row, a quoted field or an archive.
    :raises DataError: for a row of another length, or a value that does not fit its column's type.
    """

    def __init__(
        self,
        filesystem: pafs.FileSystem,
        info: FileInfo,
        free: Sequence[str] = (),
        private: Collection[str] = (),
    ) -> None:
        """``free`` names columns that may mix numbers and text (ids, columns that are not used).

        ``private`` names columns whose values no error may quote.
        """
        self._private = private
        self.name = info.uri
        self.warnings: list[str] = []
        self._filesystem, self._info, self._free = filesystem, info, set(free)
        if info.size == 0:
            raise DataNotFound(f"{self.name} is empty (0 bytes)", hint="check what writes it")
        self._types: dict[str, pa.DataType] = {}
        self._bad: list[tuple[int, int, int | None, str]] = []
        self.rows = 0
        while not self._inspect():
            pass
        self.schema = pa.schema(list(self._types.items()))

    def _open(self) -> Any:
        # "detect" would decompress by the name's end; said explicitly so that a misnamed file is an error.
        compression = "gzip" if self._info.path.lower().endswith(".gz") else None
        return self._filesystem.open_input_stream(self._info.path, compression=compression, buffer_size=BLOCK_BYTES)

    def _reader(self, stream: Any, columns: Sequence[str] | None = None, handler: Any = None) -> Any:
        return csv.open_csv(
            stream,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=csv.ParseOptions(newlines_in_values=True, invalid_row_handler=handler),
            convert_options=csv.ConvertOptions(
                column_types=self._types or None,
                include_columns=list(columns) if columns is not None else None,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )

    def _keep_bad(self, row: Any) -> str:
        if len(self._bad) < 5 or row.number is None:
            self._bad.append((row.expected_columns, row.actual_columns, row.number, row.text))
        else:
            self._bad[-1] = (row.expected_columns, row.actual_columns, row.number, row.text)
        return "skip"

    def _inspect(self) -> bool:
        """Read the file once; False when a column needs a wider type and the reading must start again."""
        self._bad, self.rows, self.warnings = [], 0, []
        with io_errors(self.name):
            watched = _Watched(self._open())
        try:
            with io_errors(self.name):
                reader = self._reader(watched, handler=self._keep_bad)
                try:
                    names = reader.schema.names
                except UnicodeDecodeError as e:
                    raise DataError(
                        f"{self.name} is not UTF-8: byte 0x{e.object[e.start]:02x} in the header",
                        hint="save the file as UTF-8",
                    ) from None
                other = next((sign for sign in (";", "\t", "|") if len(names) == 1 and sign in names[0]), None)
                if other:
                    raise DataError(
                        f"{self.name}: the header is one field that holds {other!r}",
                        hint="save the file with commas between the fields",
                    )
                doubled = sorted({n for n in names if names.count(n) > 1})
                if doubled:
                    raise DataError(f"{self.name}: the header names {', '.join(map(repr, doubled))} more than once")
                if not self._types:
                    self._types = dict(zip(names, reader.schema.types, strict=True))
                for number, batch in enumerate(reader):
                    if number == 0:
                        self._mostly_numbers(batch)
                    self.rows += batch.num_rows
        except pa.ArrowInvalid as e:
            conflict = str(e)
        except OSError as e:
            raise self._archive(e, watched) from e
        else:
            self._shape(watched)
            return True
        # Not within the handler: Arrow's message quotes the value, and would be told with ours.
        self._conflict(conflict, watched)
        return False

    def _archive(self, error: OSError, watched: _Watched) -> DataError:
        seen = f"after {watched.lines} complete lines ({watched.bytes} bytes unpacked)"
        if "runcated" in str(error):
            return DataTruncated(
                f"{self.name} ends early: the archive of {self._info.size} bytes breaks off {seen}",
                hint="deliver the file again, whole",
            )
        return DataError(f"{self.name} is damaged {seen}: {error}", hint="deliver the file again")

    def _shape(self, watched: _Watched) -> None:
        last = watched.tail.rsplit(b"\n", 1)[-1]
        if self._bad:
            expected, actual, row, text = self._bad[-1]
            if (
                watched.cut
                and actual < expected
                and last.decode("utf-8", "replace").endswith(text.strip("\r\n")[-200:])
            ):
                raise DataTruncated(
                    f"{self.name} ends in the middle of line {watched.lines + 1}: {actual} of {expected} fields, "
                    f"after {self.rows} complete rows",
                    hint="deliver the file again, whole",
                )
            expected, actual, row, text = self._bad[0]
            raise DataError(
                f"{self.name}, row {row} (the header is row 1): {actual} fields, the header has {expected}"
                + ("" if self._private else f": {text[:80]!r}"),
                hint="quote fields that contain commas; every row needs as many fields as the header",
            )
        if watched.quotes % 2:
            if watched.cut:
                raise DataTruncated(
                    f"{self.name} ends inside a quoted field, at line {watched.lines + 1}, "
                    f"after about {self.rows} rows",
                    hint="deliver the file again, whole",
                )
            self.warnings.append(f"{self.name} has an odd number of quote characters ({watched.quotes})")
        if watched.cut:
            self.warnings.append(
                f"{self.name} does not end in a newline; its last line {watched.lines + 1} has all "
                f"{len(self._types)} fields, but the last value may be cut"
            )

    def _conflict(self, message: str, watched: _Watched) -> None:
        """Widen a column's type where no value changes its meaning (1 → 1.5, a date → a time), else raise."""
        match = _CONFLICT.search(message)
        if not match:
            if not self._types and watched.lines <= 1 and "Empty CSV" in message:
                raise DataTruncated(
                    f"{self.name} has no row, and its header does not end: {watched.bytes} bytes",
                    hint="deliver the file again, whole",
                )
            why = "" if self._private else f": {message}"
            raise DataError(f"{self.name} is not a CSV file that can be read{why}")
        name, row, detail = list(self._types)[int(match[1])], match[2], match[4]
        value = re.search(r"invalid value '(.*)'", detail, re.DOTALL)
        if "UTF8" in detail or not value:
            raise DataError(f"{self.name}, row {row}, column {name!r}: {detail}", hint="save the file as UTF-8")
        have, seen = self._types[name], _type_of(value[1])
        wider = _wider(have, seen)
        if wider is None or wider == have:
            if name in self._free and seen is not None:
                wider = pa.string()
            else:
                shown = "a value" if name in self._private else repr(value[1])
                raise DataError(
                    f"{self.name}, row {row} (the header is row 1), column {name!r}: {shown} is not "
                    f"{_said(have)}, which the rows before hold",
                    hint="correct the value, leave the field empty, or deliver Parquet with the type you mean",
                )
        self._types[name] = wider

    def _mostly_numbers(self, batch: pa.RecordBatch) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_binary(column.type):
                raise DataError(f"{self.name}, column {name!r} is not UTF-8 text", hint="save the file as UTF-8")
            if not pa.types.is_string(column.type) or name in self._free:
                continue
            values = len(column) - column.null_count
            if values < _MOSTLY_ROWS:
                continue
            number = pc.match_substring_regex(column, _NUMBER)
            if pc.sum(number).as_py() >= _MOSTLY * values:
                row = pc.index(number, False).as_py()
                shown = "a value" if name in self._private else repr(column[row].as_py())
                raise DataError(
                    f"{self.name}, row {row + 2} (the header is row 1), column {name!r}: {shown} "
                    f"is not a number, as {pc.sum(number).as_py()} of the first {values} values are",
                    hint="correct the value, leave the field empty, or deliver Parquet with the type you mean",
                )

    def scan(self, columns: Sequence[str], bounds: Any = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows with ``columns``, in this order; ``bounds`` cannot be pushed into a CSV file."""
        with io_errors(self.name):
            stream = self._open()
        try:
            with io_errors(self.name):
                yield from self._reader(stream, columns)
        except (pa.ArrowInvalid, OSError) as e:
            why = "" if self._private else f": {e}"
            raise DataError(
                f"{self.name} changed while it was read{why}", hint="start again when it is complete"
            ) from cause(e, self._private)


def _type_of(value: str) -> pa.DataType | None:
    """The type one value would have in a column of its own."""
    quoted = '"' + value.replace('"', '""') + '"'
    options = csv.ParseOptions(newlines_in_values=True)
    try:
        return csv.read_csv(pa.BufferReader(f"x\n{quoted}\n".encode()), parse_options=options).schema.types[0]
    except pa.ArrowInvalid:
        return None


def _wider(have: pa.DataType, seen: pa.DataType | None) -> pa.DataType | None:
    if seen is None or pa.types.is_null(have):
        return seen
    if pa.types.is_integer(have) and pa.types.is_floating(seen):
        return seen
    if pa.types.is_date(have) and pa.types.is_timestamp(seen):
        return seen
    if pa.types.is_timestamp(have) and pa.types.is_timestamp(seen) and have.tz == seen.tz:
        return pa.timestamp("ns", have.tz)
    return None


def _said(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "a whole number"
    if pa.types.is_floating(kind):
        return "a number"
    if pa.types.is_boolean(kind):
        return "true or false"
    return "a date" if pa.types.is_date(kind) else f"of type {kind}"
