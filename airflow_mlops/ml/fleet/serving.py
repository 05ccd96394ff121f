"""Plan one batch inference of a fleet: read the rows once, decide which model serves each key, divide the rows.

Memory holds about a million rows, however many there are: they are read into a file, counted by key on the way, and
from there divided into files for the shards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.config.models import Fleet
from airflow_mlops.exceptions import DataError, PredictionError, VersionNotFound
from airflow_mlops.ml.fleet.keys import ALL, is_parent
from airflow_mlops.ml.fleet.partition import Log, divide, key_columns, keyed, present, shard_count
from airflow_mlops.ml.reading import SourceBatches
from airflow_mlops.ml.spool import Spool
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import get_json, put_blob_file, put_json
from airflow_mlops.store.base import Store

ROW = "airflow_mlops.row"
"""Column of the files of rows and of predictions: the place of the row among those that were read, from 0."""
NO_KEY = ""
"""Stands for the key of a row that has none; no key is the empty text."""

_FILE_ROWS = 2**19
_MODEL_ROWS = 250
"""To load a model costs about as much as to predict so many rows more."""
_LEAST_KEYS, _LEAST_ROWS = 1000, 500_000
"""With fewer in a shard, its task costs more than their predictions."""


@dataclass(frozen=True)
class Part:
    """Some keys and their rows.

    :param files: digests of Parquet files, to be read one after the other.
    :param keys: ``(key, rows, key of the group's model)`` in the order of the rows.
    """

    files: tuple[str, ...]
    keys: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class ServingPlan:
    """Which model serves which rows; immutable, named by its digest.

    :param champions: version by model key, of the models that may be asked, as of one moment.
    :param parts: what each shard predicts.
    :param unserved: keys for which there is no model, and their rows.
    :param unserved_files: digests of Parquet files with the ids of those rows.
    :param rows: how many were read.
    :param newest: latest ``data.timestamp`` among them.
    """

    pipeline: str
    champions: dict[str, int]
    parts: tuple[Part, ...]
    unserved: dict[str, int]
    unserved_files: tuple[str, ...]
    rows: int
    newest: str | None
    digest: str = ""

    def save(self, store: Store) -> ServingPlan:
        """Put the plan into the store; the result knows its digest."""
        body = asdict(self)
        del body["digest"]
        return ServingPlan(**vars(self) | {"digest": put_json(store, {"kind": "serving plan", "format": 1, **body})})

    @classmethod
    def load(cls, store: Store, digest: str) -> ServingPlan:
        """Read a plan.

        :raises DataError: the digest names something else.
        """
        body = get_json(store, digest)
        if not isinstance(body, dict) or body.get("kind") != "serving plan":
            raise DataError(f"{digest} is no plan of a batch inference", hint="pass on what predict.partition returned")
        parts = tuple(Part(tuple(p["files"]), tuple((k, n, g) for k, n, g in p["keys"])) for p in body["parts"])
        return cls(
            body["pipeline"],
            body["champions"],
            parts,
            body["unserved"],
            tuple(body["unserved_files"]),
            body["rows"],
            body["newest"],
            digest,
        )

    def label(self, number: int) -> str:
        """What a shard is called in Airflow's grid."""
        part = self.parts[number]
        return f"{number} {sum(rows for _, rows, _ in part.keys):,} rows of {len(part.keys):,} keys"


def choices(key: str, group: str, champions: Mapping[str, int]) -> list[str]:
    """Keys of the models that can serve a key, the first choice first: its own, its group's, that of all rows."""
    return [k for k in dict.fromkeys((key, group, ALL)) if k in champions]


def begin_prediction(
    store: Store,
    registry: Registry,
    batches: SourceBatches,
    fleet: Fleet,
    *,
    id_column: str | None,
    slots: int,
    log: Log,
) -> ServingPlan:
    """Read the rows, divide them by key and by the model that serves it. All is in the store when it returns.

    :param slots: tasks that the executor runs at a time.
    :raises VersionNotFound: the fleet has no champion at all.
    :raises PredictionError: none of its champions serves any of the rows' keys.
    :raises DataError: a column of the key is missing. :raises DataNotFound: there is no row.
    """
    champions = {key: version.number for key, version in registry.champions().items() if key is not None}
    if not champions:
        raise VersionNotFound(
            f"{registry.pipeline} has no champion yet: nothing to score with",
            hint=f"run {registry.pipeline}__train first, and let it promote versions",
        )
    parents = sum(map(is_parent, champions))
    log("%s keys have a champion, and %s parents", f"{len(champions) - parents:,}", f"{parents:,}")
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        read = _Read(Path(folder), batches, fleet, id_column)
        log("%s rows of %s keys", f"{read.rows:,}", f"{len(read.keys):,}")
        parts, apart, files = _divide(store, Path(folder), read, champions, id_column, slots)
    if not parts:
        raise PredictionError(
            f"none of the {len(read.keys):,} keys in {read.rows:,} rows has a model, like {read.keys[0]!r}",
            hint="look at fleet.key: are these keys the ones that were trained?",
        )
    asked = {k for part in parts for key, _, group in part.keys for k in choices(key, group, champions)}
    newest = batches.newest.isoformat() if batches.newest else None
    plan = ServingPlan(
        registry.pipeline,
        {key: champions[key] for key in sorted(asked)},
        parts,
        apart,
        files,
        read.rows,
        newest,
    ).save(store)
    if apart:
        log("%s rows of %s keys have no model, own or parent's", f"{sum(apart.values()):,}", f"{len(apart):,}")
    log("%s shards", len(parts))
    return plan


class _Read:
    """The rows of a source in one local file, each with its place and the number of its key; and what they count to."""

    _CODE = "airflow_mlops.code"

    def __init__(self, folder: Path, batches: SourceBatches, fleet: Fleet, id_column: str | None) -> None:
        columns = present(batches.schema.names, key_columns(fleet), fleet)
        if id_column is not None:
            present(batches.schema.names, [id_column], fleet)
        self._path = folder / "read.arrow"
        self._codes: dict[str, int] = {}
        self.groups: list[str] = []
        self.counts = np.zeros(0, dtype=np.int64)
        self.rows = 0
        schema = batches.schema.append(pa.field(ROW, pa.int64())).append(pa.field(self._CODE, pa.int32()))
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(str(self._path), schema, options=options) as writer:
            for batch in batches:
                codes = self._take(batch.select(columns), fleet)
                place = np.arange(self.rows, self.rows + batch.num_rows)
                columns_out = [*batch.columns, pa.array(place), pa.array(codes, pa.int32())]
                writer.write_batch(pa.RecordBatch.from_arrays(columns_out, schema=schema))
                self.rows += batch.num_rows

    @property
    def keys(self) -> list[str]:
        """The keys, by number."""
        return [*self._codes]

    def _take(self, batch: pa.RecordBatch, fleet: Fleet) -> np.ndarray:
        keys, groups = keyed_or_not(batch, fleet)
        codes, values = pd.factorize(keys)
        firsts = np.full(len(values), len(codes))
        np.minimum.at(firsts, codes, np.arange(len(codes)))
        for value, first in zip(values, firsts, strict=True):
            if value not in self._codes:
                self._codes[value] = len(self._codes)
                self.groups.append(groups[first] if groups is not None and value != NO_KEY else ALL)
        numbers = np.array([self._codes[v] for v in values], dtype=np.int64)[codes]
        counted = np.bincount(numbers, minlength=len(self._codes))
        counted[: len(self.counts)] += self.counts
        self.counts = counted
        return numbers

    def discard(self) -> None:
        """Delete the local file."""
        self._path.unlink()

    def batches(self) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
        """Yield the rows again, and the numbers of their keys."""
        with pa.memory_map(str(self._path)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                yield batch.drop_columns([self._CODE]), batch.column(self._CODE).to_numpy()


def keyed_or_not(batch: pa.RecordBatch, fleet: Fleet) -> tuple[np.ndarray, np.ndarray | None]:
    """As :func:`keyed`; a row without a key has :data:`NO_KEY`, and does not keep the others from being predicted."""
    known = np.ones(batch.num_rows, dtype=bool)
    for column in fleet.columns:
        values = batch.column(column)
        valid = pc.invert(pc.is_null(values, nan_is_null=True))
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            valid = pc.and_(valid, pc.not_equal(values, "")).fill_null(False)
        known &= valid.to_numpy(zero_copy_only=False)
    if known.all():
        return keyed(batch, fleet)
    keys = np.full(batch.num_rows, NO_KEY, dtype=object)
    groups = np.full(batch.num_rows, ALL, dtype=object)
    keys[known], of_known = keyed(batch.filter(pa.array(known)), fleet)
    if of_known is not None:
        groups[known] = of_known
    return keys, groups


def _divide(
    store: Store, folder: Path, read: _Read, champions: Mapping[str, int], id_column: str | None, slots: int
) -> tuple[tuple[Part, ...], dict[str, int], tuple[str, ...]]:
    """Write the rows of each shard, and the ids of those that no model serves.

    :return: the shards, the rows by key that no model serves, and the files with their ids.
    """
    keys, counts = read.keys, dict(zip(read.keys, read.counts.tolist(), strict=True))
    group_of = dict(zip(keys, read.groups, strict=True))
    asked = {key: choices(key, group_of[key], champions) for key in keys}
    served = {key: counts[key] for key in keys if asked[key]}
    unserved = {key: counts[key] for key in sorted(counts) if key not in served}
    shards = shard_count(len(served), sum(served.values()), "auto", slots, least=(_LEAST_KEYS, _LEAST_ROWS))
    stretches = divide({key: rows + _MODEL_ROWS for key, rows in served.items()}, shards) if served else []
    # The keys of one model together, so that a parent is asked once for many of them.
    ordered = [sorted(stretch, key=lambda key: (asked[key][0], key)) for stretch in stretches]
    blocks = [*ordered, [*unserved]] if unserved else ordered
    codes = {key: code for code, key in enumerate(keys)}
    starts = np.zeros(len(keys), dtype=np.int64)
    opens = np.zeros(len(keys), dtype=np.int64)
    files: list[range] = []
    for block in blocks:
        numbers = [codes[key] for key in block]
        ends = np.cumsum(read.counts[numbers])
        starts[numbers] = ends - read.counts[numbers]
        opens[numbers] = files[-1].stop if files else 0
        files.append(range(opens[numbers[0]], opens[numbers[0]] + -(-ends[-1] // _FILE_ROWS)))
    with Spool(folder, files[-1].stop) as spool:
        for batch, of_row in read.batches():
            place = starts[of_row] + nth(of_row)
            starts += np.bincount(of_row, minlength=len(keys))
            spool.add(batch, opens[of_row] + place // _FILE_ROWS, place % _FILE_ROWS)
    read.discard()
    parts = tuple(
        Part(
            tuple(_kept(store, spool.ordered(file, 0)[0]) for file in numbers),
            tuple((key, counts[key], group_of[key]) for key in block),
        )
        for block, numbers in zip(ordered, files, strict=False)
    )
    ids = [*([id_column] if id_column is not None else []), ROW]
    apart: list[str] = []
    for file in files[-1] if unserved else ():
        path = folder / "apart.parquet"
        table = spool.table(file)[0].select(ids).replace_schema_metadata(None)
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)
        apart.append(_kept(store, path))
    return parts, unserved, tuple(apart)


def nth(codes: np.ndarray) -> np.ndarray:
    """How many rows before each one have the same code, shape (rows,)."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(codes)])
    nth = np.empty(len(codes), dtype=np.int64)
    nth[order] = np.arange(len(codes)) - np.repeat(starts, lengths)
    return nth


def _kept(store: Store, path: Path) -> str:
    digest = put_blob_file(store, path)
    path.unlink()
    return digest
