"""A part of a source's rows, drawn while they go by."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa

from airflow_mlops.ml.reading import SourceBatches
from airflow_mlops.ml.splitting import draws


class SampledBatches(SourceBatches):
    """At most ``rows`` of the rows of ``batches``, each with the same chance, in their order.

    A row's draw follows from ``seed`` and its position alone, however the rows are batched; memory holds about
    twice the sample. ``rows_read`` and ``rows_outside`` go on counting all rows.

    :param rows: at least 1.
    """

    def __init__(self, batches: SourceBatches, rows: int, seed: int) -> None:
        vars(self).update(vars(batches))
        self.rows, self.seed = rows, seed
        self.source = {**batches.source, "sample": {"rows": rows, "seed": seed}}

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        random = np.random.default_rng(self.seed)
        # The rows with the smallest draws stay; a draw above the limit can no longer be among them.
        limit, held = 1.0, 0
        kept: list[pa.RecordBatch] = []
        draws: list[np.ndarray] = []
        for batch in super().__iter__():
            drawn = random.random(batch.num_rows)
            inside = drawn < limit
            kept.append(batch.filter(pa.array(inside)))
            draws.append(drawn[inside])
            held += len(draws[-1])
            if held >= 2 * self.rows:
                kept, draws = self._smallest(kept, draws)
                held, limit = self.rows, float(draws[0].max())
        if held > self.rows:
            kept, draws = self._smallest(kept, draws)
        yield from kept

    def _smallest(
        self, kept: list[pa.RecordBatch], draws: list[np.ndarray]
    ) -> tuple[list[pa.RecordBatch], list[np.ndarray]]:
        """The ``rows`` rows with the smallest draws, in their order."""
        every = np.concatenate(draws)
        chosen = np.zeros(len(every), dtype=bool)
        chosen[np.argpartition(every, self.rows - 1)[: self.rows]] = True
        table = pa.Table.from_batches(kept, self.schema).filter(pa.array(chosen)).combine_chunks()
        return table.to_batches(), [every[chosen]]


class RowsById:
    """At most ``rows`` of the rows that go by, chosen by a seeded hash of their id, in their order.

    The same ids are chosen however the rows are batched and whoever keeps them, so that two sides that never met
    keep the same rows. Memory holds about twice the sample.

    :param rows: at least 1.
    :param id_column: names a row; rows without an id are passed over.
    :param drop: columns that are not kept.
    """

    def __init__(self, rows: int, id_column: str, *, seed: int = 7, drop: Collection[str] = ()) -> None:
        self.rows, self.id_column, self.seed, self.drop = rows, id_column, seed, frozenset(drop)
        self._kept: list[pa.Table] = []
        self._draws: list[np.ndarray] = []
        self._held, self._limit = 0, 1.0

    def add(self, table: pa.Table | pa.RecordBatch) -> None:
        """Look at more rows; all tables have one schema."""
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        ids = table.column(self.id_column)
        drawn = draws(ids.to_pandas(), self.seed)
        inside = (drawn <= self._limit) & ids.is_valid().to_numpy()
        if not inside.any():
            return
        self._kept.append(
            table.drop_columns([c for c in table.column_names if c in self.drop]).filter(pa.array(inside))
        )
        self._draws.append(drawn[inside])
        self._held += int(inside.sum())
        if self._held >= 2 * self.rows:
            self._shrink()

    def table(self) -> pa.Table | None:
        """The rows that were chosen; ``None`` where none went by."""
        if self._held > self.rows:
            self._shrink()
        return pa.concat_tables(self._kept, promote_options="permissive").combine_chunks() if self._kept else None

    def _shrink(self) -> None:
        every, kept = np.concatenate(self._draws), pa.concat_tables(self._kept, promote_options="permissive")
        chosen = np.zeros(len(every), dtype=bool)
        chosen[np.argpartition(every, self.rows - 1)[: self.rows]] = True
        self._kept, self._draws = [kept.filter(pa.array(chosen)).combine_chunks()], [every[chosen]]
        self._held, self._limit = self.rows, float(self._draws[0].max())
