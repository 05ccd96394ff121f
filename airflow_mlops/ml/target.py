"""Is the target fit to learn from: there, known in every row, not constant."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import TargetError

_SHOWN = 5


def unusable(column: pa.Array) -> pa.BooleanArray:
    """Which values of a target are null, NaN or infinite; shape (rows,)."""
    if pa.types.is_floating(column.type):
        return pc.invert(pc.fill_null(pc.is_finite(column), False))
    return pc.is_null(column)


class TargetCheck:
    """What is known of the target after the batches that went by; row numbers count from 1.

    :param gaps: whether some rows may lack it: each key of a fleet is judged by its own, later.
    """

    def __init__(self, data: Data, *, gaps: bool = False) -> None:
        self.data, self.gaps = data, gaps
        self.missing, self.examples = 0, list[int]()
        self.values: set[Any] = set()
        self.rows = 0
        self.positive_seen = False

    def see(self, batch: pa.RecordBatch) -> None:
        """Take the next rows into account."""
        column = batch.column(batch.schema.names.index(self.data.target))
        bad = unusable(column)
        count = pc.sum(bad).as_py() or 0
        if count and len(self.examples) < _SHOWN:
            rows = pc.indices_nonzero(bad)[: _SHOWN - len(self.examples)]
            self.examples += [self.rows + i.as_py() + 1 for i in rows]
        self.missing += count
        self.rows += batch.num_rows
        if (self.data.positive is not None and not self.positive_seen) or len(self.values) <= 20:
            values = pc.unique(column.filter(pc.invert(bad))).to_pylist()
            self.values.update(values[:21])
            self.positive_seen = self.positive_seen or any(_same(v, self.data.positive) for v in values)

    def check(self) -> None:
        """Raise :class:`TargetError` when the target of all rows seen cannot be learned."""
        name = repr(self.data.target)
        if self.missing and (not self.gaps or self.missing == self.rows):
            rows = ", ".join(map(str, self.examples)) + (" …" if self.missing > len(self.examples) else "")
            raise TargetError(
                f"the target {name} has no usable value in {self.missing} of {self.rows} rows "
                f"(null, NaN or infinite): row {rows}",
                hint="drop or repair these rows at the source; a label cannot be guessed",
            )
        shown = ", ".join(repr(v) for v in sorted(self.values, key=str)[:20])
        if len(self.values) < 2:
            raise TargetError(
                f"the target {name} is constant: {shown} in all {self.rows} rows",
                hint="a model cannot learn from one value; widen data.window or check the source",
            )
        if self.data.positive is not None and not self.positive_seen:
            raise TargetError(
                f"data.positive is {self.data.positive!r}, which the target {name} never holds; it holds {shown}",
                hint="set data.positive to one of these (text and numbers differ)",
            )


def _same(value: Any, positive: object) -> bool:
    return bool(value == positive)
