"""Divide a snapshot by key, once, in bounded memory: a file of rows for each shard, ordered by key."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.config.models import MOST_SHARDS, Data, Fleet
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.data import Snapshot
from airflow_mlops.ml.fleet.keys import ALL, group_key, key_of
from airflow_mlops.ml.fleet.plan import Shard
from airflow_mlops.ml.frames import frames
from airflow_mlops.ml.splitting import Splitter, draws
from airflow_mlops.ml.spool import Spool
from airflow_mlops.store import get_blob_file, put_blob_file
from airflow_mlops.store.base import Store

PARENT_ROWS = 200_000
"""Most rows that a parent's model learns from and is judged on: an even sample."""
_LEAST_KEYS, _LEAST_ROWS = 25, 100_000
_TOLD_ROWS = 1_000_000

Log = Callable[..., None]


def shard_count(
    keys: int, rows: int, size: int | str, slots: int, *, least: tuple[int, int] = (_LEAST_KEYS, _LEAST_ROWS)
) -> int:
    """How many shards: about four for each slot, so that the last ones to end leave no slot idle for long.

    Fewer where a shard would have less than 25 keys and 100,000 rows: a task costs more than their training.

    :param size: ``fleet.shard_size``.
    :param slots: tasks that the executor runs at a time.
    :param least: these keys and rows of a shard, where the work on them is another one.
    """
    if size == "auto":
        worthwhile = max(-(-keys // least[0]), -(-rows // least[1]))
        wanted = min(4 * slots, worthwhile)
    else:
        wanted = -(-keys // int(size))
    return max(1, min(wanted, keys, MOST_SHARDS))


def divide(counts: Mapping[str, int], shards: int) -> list[list[str]]:
    """Divide keys, in their order, into at most ``shards`` stretches of about as many rows each; none is empty."""
    keys = sorted(counts)
    ends = np.cumsum([counts[k] for k in keys])
    # A key belongs to the shard in which its middle row lies.
    middles = ends - np.array([counts[k] for k in keys]) / 2
    places = np.minimum((middles * shards / ends[-1]).astype(int), shards - 1) if keys else np.array([], int)
    stretches: list[list[str]] = [[] for _ in range(shards)]
    for key, place in zip(keys, places, strict=True):
        stretches[place].append(key)
    return [s for s in stretches if s]


def parent_share(rows: int) -> float:
    """Which part of its ``rows`` a parent's model learns from and is judged on."""
    return min(1.0, PARENT_ROWS / max(rows, 1))


def row_draws(first: int, count: int, seed: int) -> np.ndarray:
    """One draw in [0, 1) for each of ``count`` rows of a snapshot from its row ``first`` on: which ones a sample takes.

    Of another seed than the split's: ids that are row numbers would be drawn alike.
    """
    return draws(pd.Series(np.arange(first, first + count)), f"{seed} rows")


class Counts:
    """Rows by key, and by the group of each key."""

    def __init__(self, store: Store, snapshot: Snapshot, fleet: Fleet) -> None:
        self.keys: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.group_of: dict[str, str] = {}
        for batch in snapshot.batches(store, present(snapshot.columns, key_columns(fleet), fleet)):
            keys, groups = keyed(batch, fleet)
            self.keys.update(_counted(keys))
            if groups is not None:
                self.groups.update(_counted(groups))
                first = pd.Series(groups, index=keys).groupby(level=0).first()
                for key, group in first.items():
                    self.group_of.setdefault(str(key), group)

    def parent(self, key: str) -> str:
        """The key of the parent that serves a key."""
        return self.group_of.get(key, ALL)


def _counted(values: np.ndarray) -> dict[str, int]:
    """How often each text is there."""
    codes, found = pd.factorize(values)
    return dict(zip(found.tolist(), np.bincount(codes, minlength=len(found)).tolist(), strict=True))


def present(columns: Collection[str], wanted: Sequence[str], fleet: Fleet) -> list[str]:
    """Return ``wanted``: columns of the key, the parent's, or the row's id.

    :raises DataError: the data does not have all of them.
    """
    if missing := next((c for c in wanted if c not in columns), None):
        where = "fleet.key" if missing in fleet.columns else "fleet.parent" if missing == fleet.parent else "data.id"
        near = get_close_matches(missing, list(columns), 1)
        raise DataError(
            f"{where} names the column {missing!r}, which the data does not have",
            hint=f"did you mean {near[0]!r}?" if near else "the columns are: " + ", ".join(columns),
        )
    return list(wanted)


def keyed(batch: pa.RecordBatch, fleet: Fleet) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the key, and the parent group's key, of each row of a batch: object arrays of shape (rows,)."""
    frame = batch.to_pandas()
    keys = key_of(frame, fleet.columns).to_numpy(object)
    if fleet.parent is None:
        return keys, None
    codes, values = pd.factorize(frame[fleet.parent])
    # A row without a group counts to the model of all rows alone.
    return keys, np.array([*map(group_key, values), ALL], dtype=object)[codes]


def write_shards(
    store: Store,
    snapshot: Snapshot,
    fleet: Fleet,
    stretches: Sequence[Sequence[str]],
    counts: Counts,
    *,
    parents: Collection[str],
    seed: int,
    log: Log,
    sample: int = 0,
    among: np.ndarray | None = None,
) -> list[Shard]:
    """Write the rows of each stretch of keys, and those that parents learn from, into files; return the shards.

    The rows of a key are together, in the order of the snapshot. The parents' shard, where there are any, is the
    first one: it takes longest.

    :param sample: with a shard of rows of all keys as the last one, evenly drawn: of all rows so many.
    :param among: of these alone, shape (rows of the snapshot,); default: of all rows.
    """
    sizes = {ALL: sum(counts.keys.values()), **counts.groups}
    kept = {key: parent_share(sizes[key]) for key in parents}
    of_parents = [sorted(parents)] if parents else []
    divided = [*of_parents, *stretches]
    drawn_from = {key: (len(divided), place) for place, key in enumerate(sorted(counts.keys))} if sample else {}
    places = {key: (number, place) for number, keys in enumerate(divided) for place, key in enumerate(keys)}
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        rows = 0
        with Spool(Path(folder), len(divided) + bool(sample)) as spool:
            columns = present(snapshot.columns, key_columns(fleet), fleet)
            for batch in snapshot.batches(store):
                keys, groups = keyed(batch.select(columns), fleet)
                spool.add(batch, *_placed(keys, places))
                if kept or sample:
                    drawn = row_draws(rows, batch.num_rows, seed)
                    some = drawn < sample / sizes[ALL]
                    some &= True if among is None else among[rows : rows + batch.num_rows]
                    if some.any():
                        spool.add(batch.filter(pa.array(some)), *_placed(keys[some], drawn_from))
                    for of_row in (np.full(batch.num_rows, ALL, dtype=object), groups):
                        if of_row is not None:
                            shares = pd.Series(of_row).map(kept).fillna(0.0).to_numpy()
                            spool.add(batch.filter(pa.array(drawn < shares)), *_placed(of_row[drawn < shares], places))
                rows += batch.num_rows
                if rows // _TOLD_ROWS > (rows - batch.num_rows) // _TOLD_ROWS:
                    log("%s of %s rows divided by key", f"{rows:,}", f"{snapshot.rows:,}")
        shards = []
        for number, of_shard in enumerate([*divided, *([sorted(counts.keys)] if sample else [])]):
            path, found = spool.ordered(number, len(of_shard))
            rows_of = {key: int(many) for key, many in zip(of_shard, found, strict=True) if many}
            shards.append(Shard(put_blob_file(store, path), rows_of))
            path.unlink()
    return shards


def training_rows(store: Store, snapshot: Snapshot, fleet: Fleet, counts: Counts, data: Data, seed: int) -> np.ndarray:
    """Which rows of a snapshot models learn from, shape (rows,), bool: of each key those that it does not hold out.

    None of a key whose rows cannot be split. Memory grows by some 30 bytes a row.

    :raises DataError: as :class:`~airflow_mlops.ml.splitting.Splitter`.
    """
    numbers = {key: number for number, key in enumerate(sorted(counts.keys))}
    found = []
    for batch in snapshot.batches(store, present(snapshot.columns, key_columns(fleet), fleet)):
        codes, values = pd.factorize(keyed(batch, fleet)[0])
        found.append(np.array([numbers[value] for value in values], dtype=np.int32)[codes])
    code = np.concatenate(found)
    with frames(snapshot, store) as rows:
        splitter = Splitter(rows, data, seed)
    order = np.argsort(code, kind="stable").astype(np.int32)
    mask = np.zeros(len(code), dtype=bool)
    for mine in np.split(order, np.cumsum(np.bincount(code, minlength=len(numbers)))[:-1]):
        try:
            mask[mine] = ~splitter.mask(mine)
        except DataError:
            continue
    return mask


def key_columns(fleet: Fleet) -> list[str]:
    """The columns that name a row's key and its group."""
    return [*dict.fromkeys([*fleet.columns, *([fleet.parent] if fleet.parent else [])])]


def _placed(keys: np.ndarray, places: Mapping[str, tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The shard of each row, and the place of its key among the keys of the shard; −1: none has it."""
    codes, values = pd.factorize(keys)
    found = np.array([places.get(v, (-1, -1)) for v in values] or [(-1, -1)], dtype=np.int32)
    return found[codes, 0], found[codes, 1]


def read_shard(store: Store, shard: Shard) -> pd.DataFrame:
    """Return a shard's rows as a DataFrame with a fresh index, ordered by key."""
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        path = Path(folder, "rows.parquet")
        get_blob_file(store, shard.rows, path)
        table = pq.read_table(path, page_checksum_verification=True)
    return frame_of(table, spent=True)


def frame_of(table: pa.Table, *, spent: bool = False) -> pd.DataFrame:
    """Rows as feature code and models take them, with a fresh index.

    :param spent: the table is not needed any more, and its memory is given up on the way.
    """
    for i, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.float64()))
    frame: pd.DataFrame = table.to_pandas(date_as_object=False, split_blocks=spent, self_destruct=spent)
    return frame


def bounds_of(shard: Shard) -> dict[str, slice]:
    """Where the rows of each key lie in the shard's file."""
    bounds: dict[str, slice] = {}
    at = 0
    for key, rows in shard.counts.items():
        bounds[key] = slice(at, at + rows)
        at += rows
    return bounds
