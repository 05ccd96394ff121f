"""A part of a fleet's rows: those of some keys. Of an even sample of all rows, no key would have enough for a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Fleet
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.ml.fleet.partition import key_columns, present
from airflow_mlops.ml.fleet.serving import NO_KEY, keyed_or_not, nth
from airflow_mlops.ml.reading import SourceBatches
from airflow_mlops.ml.splitting import draws

ROWS_OF_KEY = 500
"""So many rows of a key are taken, if more keys can be had for them."""


def choose_keys(
    counts: Mapping[str, int], rows: int, seed: int, *, min_rows: int, wanted: Collection[str] = ()
) -> dict[str, int]:
    """Choose keys, and how many rows of each: at most ``rows`` in all.

    In the order of a seeded hash of their names, so that the same keys are chosen whatever rows and keys come later:
    those with ``min_rows``, and the first one with less, which a parent will serve. Where there is room for all rows,
    all are taken.

    :param counts: rows by key.
    :param wanted: keys that come first.
    :raises ConfigError: no key can have a model of so few rows.
    """
    if rows < min_rows:
        raise ConfigError(
            f"a sample of {rows:,} rows is no sample of this fleet: a key has a model from {min_rows:,} rows on",
            hint="ask for more rows, or lower fleet.min_rows",
        )
    if sum(counts.values()) <= rows:
        return dict(counts)
    names = [*counts]
    drawn = dict(zip(names, draws(pd.Series(names, dtype=object), seed).tolist(), strict=True))
    order = sorted(names, key=lambda key: (key not in wanted, drawn[key], key))
    enough = [key for key in order if counts[key] >= min_rows]
    few = [key for key in order if counts[key] < min_rows]
    one = {key: counts[key] for key in few[:1] if counts[key] <= rows - min_rows or not enough}
    left = rows - sum(one.values())
    most = max(min_rows, min(ROWS_OF_KEY, left // 2))
    chosen: list[str] = []
    spent = 0
    for key in enough or few[1:]:
        spent += min(counts[key], most)
        if spent > left:
            break
        chosen.append(key)
    taken: dict[str, int] = {}
    # What the small ones leave is shared by the large ones.
    for number, key in enumerate(sorted(chosen, key=counts.__getitem__)):
        taken[key] = min(counts[key], left // (len(chosen) - number))
        left -= taken[key]
    return taken | one


class SampledKeys(SourceBatches):
    """The rows of some keys of ``batches``, at most ``rows``, in their order; rows without a key are left out.

    The source is read twice: once to count its keys. Which rows of a key are taken follows from ``seed``, the key and
    their places among its rows. Memory holds a byte for each row of the chosen keys.

    ``chosen`` (rows by key) and ``keys`` (how many there are) are known when an iteration has ended.

    :param rows: at least 1. :param wanted: keys that come first.
    """

    def __init__(
        self, batches: SourceBatches, rows: int, seed: int, fleet: Fleet, *, wanted: Collection[str] = ()
    ) -> None:
        vars(self).update(vars(batches))
        self.rows, self.seed, self._fleet, self._wanted = rows, seed, fleet, wanted
        self._columns = present(batches.schema.names, key_columns(fleet), fleet)
        self.source = {**batches.source, "sample": {"rows": rows, "seed": seed, "of": "keys"}}
        self.chosen: dict[str, int] = {}
        self.keys = 0

    @property
    def told(self) -> str:
        """Which keys the rows are of, in words."""
        few = [key for key, rows in self.chosen.items() if rows < self._fleet.min_rows]
        own = len(self.chosen) - len(few)
        too_few = f"{len(few):,} with too few" + (f" ({few[0]})" if len(few) == 1 else "")
        return f"{own:,} of {self.keys:,} keys with rows enough for a model" + (f", {too_few}" if few else "")

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        counts: Counter[str] = Counter()
        for batch in super().__iter__():
            codes, found = pd.factorize(self._keyed(batch))
            counts.update(dict(zip(found, np.bincount(codes, minlength=len(found)).tolist(), strict=True)))
        counts.pop(NO_KEY, None)
        self.keys = len(counts)
        self.chosen = choose_keys(
            counts, self.rows, self.seed, min_rows=self._fleet.min_rows, wanted=self._wanted
        )  # fmt: skip
        numbers = {key: number for number, key in enumerate(self.chosen)}
        ends = np.cumsum([counts[key] for key in self.chosen])
        taken = np.zeros(ends[-1] if len(ends) else 0, dtype=bool)
        for key, end in zip(self.chosen, ends, strict=True):
            drawn = draws(pd.Series(np.arange(counts[key])), f"{self.seed} {key}")
            taken[end - counts[key] + np.argsort(drawn, kind="stable")[: self.chosen[key]]] = True
        seen = ends - np.array([counts[key] for key in self.chosen], dtype=np.int64)
        for batch in super().__iter__():
            codes, found = pd.factorize(self._keyed(batch))
            of_row = np.array([numbers.get(key, -1) for key in found], dtype=np.int64)[codes]
            rows = np.flatnonzero(of_row >= 0)
            of_row = of_row[rows]
            chosen = rows[taken[seen[of_row] + nth(of_row)]]
            seen += np.bincount(of_row, minlength=len(seen))
            if len(chosen):
                yield batch.take(pa.array(chosen))

    def _keyed(self, batch: pa.RecordBatch) -> np.ndarray:
        return keyed_or_not(batch.select(self._columns), self._fleet)[0]
