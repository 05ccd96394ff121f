"""What a fleet's batch inference has captured of a window: which model served which rows, and those rows by key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.ml.fleet.partition import frame_of
from airflow_mlops.ml.fleet.serving import nth
from airflow_mlops.ml.outputs import KEY, MODEL_KEY, VERSION
from airflow_mlops.ml.prediction import arrow_batches
from airflow_mlops.ml.spool import Spool
from airflow_mlops.store import get_json
from airflow_mlops.store.base import Store


class Served:
    """The rows of a capture, counted by the model that served them.

    :ivar own: by key that its own model served: the version, and how many rows.
    :ivar by_parent: rows by key that a parent served (``None``: rows without a key).
    :ivar models: by key of each model that served, parents too: the version.
    :ivar columns: of the capture. :ivar rows: of the capture.
    """

    def __init__(self, store: Store, capture: Mapping[str, Any]) -> None:
        self._store, self._capture = store, dict(capture)
        manifest = get_json(store, capture["capture"])
        self.columns, self.rows = [*manifest["columns"]], int(manifest["rows"])
        counts: Counter[tuple[str | None, str, int]] = Counter()
        for batch in arrow_batches(store, self._capture, [KEY, MODEL_KEY, VERSION]):
            table = pa.Table.from_batches([batch]).group_by([KEY, MODEL_KEY, VERSION]).aggregate([([], "count_all")])
            for row in table.to_pylist():
                counts[row[KEY], row[MODEL_KEY], row[VERSION]] += row["count_all"]
        self.own: dict[str, tuple[int, int]] = {}
        self.by_parent: Counter[str | None] = Counter()
        self.models: dict[str, int] = {}
        for (key, model, version), rows in sorted(counts.items(), key=lambda item: (item[0][0] or "", item[0][2])):
            self.models[model] = version
            if key == model:
                self.own[model] = (version, rows)
            else:
                self.by_parent[key] += rows

    def own_batches(self, columns: Sequence[str], numbers: Mapping[str, int]) -> Iterator[pa.RecordBatch]:
        """Yield the rows that their key's own model served, in their order.

        :param columns: what is yielded, and :data:`KEY`, which is the number of the row's key.
        :param numbers: of each key of :attr:`own`.
        """
        wanted = [c for c in dict.fromkeys(columns) if c != KEY]
        for batch in arrow_batches(self._store, self._capture, [*dict.fromkeys([*wanted, KEY, MODEL_KEY])]):
            code = _numbers(batch, numbers)
            batch, code = batch.select(wanted).filter(pa.array(code >= 0)), code[code >= 0]
            yield batch.append_column(KEY, pa.array(code))

    def by_key(
        self, groups: Sequence[Sequence[str]], columns: Sequence[str], folder: Path, *, most: int | None = None
    ) -> Iterator[tuple[pd.DataFrame, np.ndarray]]:
        """Yield for each group of keys the rows that their own models served, and where those of each key begin.

        About a million rows are in memory at a time, and one group.

        :param groups: keys of :attr:`own`, each at most once. :param folder: for files in between.
        :param most: of more rows of a key so many, at equal distances.
        """
        places = {key: (number, place) for number, keys in enumerate(groups) for place, key in enumerate(keys)}
        known = [*places]
        numbers = {key: number for number, key in enumerate(known)}
        place = np.array([places[key] for key in known], dtype=np.int64).reshape(-1, 2)
        counts = np.array([self.own[key][1] for key in known], dtype=np.int64)
        versions = np.array([self.own[key][0] for key in known], dtype=np.int64)
        kept = counts if most is None else np.minimum(counts, most)
        seen = np.zeros(len(known), dtype=np.int64)
        wanted = [*dict.fromkeys([*columns, KEY, MODEL_KEY, VERSION])]
        with Spool(folder, len(groups)) as spool:
            for batch in arrow_batches(self._store, self._capture, wanted):
                code = _codes(batch, numbers, versions)
                batch, code = batch.filter(pa.array(code >= 0)).select([*columns]), code[code >= 0]
                at = seen[code] + nth(code)
                seen += np.bincount(code, minlength=len(known))
                # Row ``at`` is taken where some k < kept has k · counts // kept == at.
                k = -(-at * kept[code] // counts[code])
                taken = (k < kept[code]) & (k * counts[code] // kept[code] == at)
                spool.add(batch, np.where(taken, place[code, 0], -1), place[code, 1])
        for number, keys in enumerate(groups):
            table, _ = spool.table(number)
            rows = kept[[numbers[key] for key in keys]]
            yield frame_of(table, spent=True), np.concatenate([[0], np.cumsum(rows)])


def _numbers(batch: pa.RecordBatch, numbers: Mapping[str, int]) -> np.ndarray:
    """The number of each row's key, −1 where another key's model served it; shape (rows,)."""
    model, key = (batch.column(name).to_numpy(zero_copy_only=False) for name in (MODEL_KEY, KEY))
    codes, values = pd.factorize(model)
    found = np.array([numbers.get(value, -1) for value in values] + [-1], dtype=np.int64)[codes]
    return np.where(key == model, found, -1)


def _codes(batch: pa.RecordBatch, numbers: Mapping[str, int], versions: np.ndarray) -> np.ndarray:
    """The number of each row's key, −1 for a row of another model or version; shape (rows,)."""
    found = _numbers(batch, numbers)
    version = batch.column(VERSION).to_numpy(zero_copy_only=False)
    ours = found >= 0
    ours[ours] = versions[found[ours]] == version[ours]
    return np.where(ours, found, -1)
