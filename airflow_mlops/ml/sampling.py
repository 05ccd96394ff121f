"""A part of a source's rows, drawn while they go by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from airflow_mlops.ml.reading import SourceBatches


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
