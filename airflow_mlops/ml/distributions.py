"""How one column was spread in what a version learned from, and in what it scored in a window.

Read by pages: of both sides one column, with NumPy and Arrow alone.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject, DataNotFound
from airflow_mlops.ml.categories import label
from airflow_mlops.ml.outputs import PREDICTION, is_output
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.version import Version
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_blob_file, get_json
from airflow_mlops.window import Window

BINS, CATEGORIES = 24, 20
OTHERS = "all others"
SAMPLE_ROWS = 100_000
"""Rows of the window that are looked at, evenly spaced; a drawing needs no more."""
_REFERENCE = b"airflow_mlops.reference"
_BATCH = 20_000  # rows
_BUFFER = 1 << 20  # bytes


@dataclass(frozen=True)
class Bin:
    """Shares (0 to 1) of the rows of either side that have a value; ``low`` and ``high`` of numbers are its ends.

    The first bin of numbers also holds what lies below it, and the last what lies above.
    """

    label: str
    low: float | None
    high: float | None
    reference: float
    current: float


@dataclass(frozen=True)
class Spread:
    """Both sides of one column.

    :param kind: ``number``, ``category`` or ``boolean``.
    :param reference_rows: of what the version learned from; ``reference_sample``: how many of them are kept to be
        drawn; of predictions those on the holdout.
    :param reference_missing: share of the rows without a value, 0 to 1.
    """

    column: str
    kind: str
    version: int
    reference_rows: int
    reference_sample: int
    current_rows: int
    reference_missing: float
    current_missing: float
    bins: tuple[Bin, ...]


def spread(store: Store, pipeline: str, window: Window, column: str, *, private: Collection[str] = ()) -> Spread:
    """Compare one column of a window's capture with the reference of the version that scored it.

    :param private: columns that are private now, beside those that were when the version was trained.

    :raises DataNotFound: nothing was captured for the window, the column is not in it or private, the version has no
        reference, or many versions of a fleet have scored it.
    :raises ObjectNotFound: there is no capture of the window, or what it names is gone.
    :raises CorruptObject, StoreUnavailable: as the store does.
    """
    capture = json.loads(store.get(layout.capture(pipeline, window.key)))
    if capture["version"] is None:
        raise DataNotFound(
            f"{pipeline} is a fleet: each key is compared with rows of its own, and there is no picture of all of them",
            hint="the drift report of the window names the keys",
        )
    manifest = get_json(store, capture["capture"])
    version = Registry(store, pipeline).get(capture["version"])
    kind = _kind(version, column) if column in manifest["columns"] and column not in private else None
    before, profile = _reference(store, version, column) if kind is not None else (None, {})
    if kind is None or before is None:
        # Whether it is private or not there is the same to whoever asks.
        raise DataNotFound(f"{column!r} is not a column that {version.name} is checked for in {window}")
    if is_output(column):
        # Predictions were kept for the holdout alone.
        before = before.drop_null()
    now = _column(store, manifest["file"], column)[0]
    bins = _numbers(before, now) if kind == "number" else _categories(before, now, kind)
    return Spread(
        column=column,
        kind=kind,
        version=version.number,
        reference_rows=int(profile["rows"]),
        reference_sample=len(before),
        current_rows=int(manifest["rows"]),
        reference_missing=_missing(before),
        current_missing=_missing(now),
        bins=tuple(bins),
    )


def _kind(version: Version, column: str) -> str | None:
    """The column's kind, as the drift check takes it; ``None``: it is not checked."""
    schema = version.record["schema"]
    kinds = {f["name"]: str(f["kind"]) for f in schema["features"] if not f.get("private")}
    if column in kinds or column in {f["name"] for f in schema["features"]}:
        return kinds.get(column)
    if column == PREDICTION:
        return "number" if schema.get("classes") is None else "category"
    return "number" if is_output(column) else None


def _reference(store: Store, version: Version, column: str) -> tuple[pa.ChunkedArray | None, dict[str, Any]]:
    """The column in the kept sample of the version's reference, and what the profile says of all rows."""
    kept = [note["reference"] for note in version.notes.get("evaluation", ()) if note.get("reference")]
    if not kept:
        return None, {}
    values, metadata = _column(store, kept[-1], column)
    if _REFERENCE not in metadata:
        raise CorruptObject(f"{kept[-1]} is no drift reference", hint="train and evaluate again")
    return values, json.loads(metadata[_REFERENCE])


def _column(store: Store, digest: str, column: str) -> tuple[Any, dict[bytes, bytes]]:
    """One column of a Parquet blob, verified (``None``: it has none), and the file's metadata.

    Of more than :data:`SAMPLE_ROWS` rows that many, evenly spaced; the others are let go of batch by batch.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-column-") as folder:
        path = Path(folder, "rows.parquet")
        get_blob_file(store, digest, path)
        try:
            # Through a buffer: a row group's whole part of the column would be in memory otherwise.
            with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=_BUFFER) as parquet:
                known = parquet.schema_arrow
                found = _sampled(parquet, column) if column in known.names else None
                return found, dict(known.metadata or {})
        except (OSError, pa.ArrowException) as e:
            raise CorruptObject(f"{digest} cannot be read: {e}", hint="score this window, or train, again") from e


def _sampled(parquet: pq.ParquetFile, column: str) -> pa.ChunkedArray:
    """Evenly spaced rows of a column, at most :data:`SAMPLE_ROWS`."""
    rows, begin = parquet.metadata.num_rows, 0
    wanted = np.arange(min(rows, SAMPLE_ROWS)) * rows // min(rows, SAMPLE_ROWS) if rows else np.arange(0)
    chosen = []
    # Group by group: a reader of all groups keeps something of each until it has come to the end.
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=[column]):
            here = wanted[np.searchsorted(wanted, begin) : np.searchsorted(wanted, begin + batch.num_rows)]
            # A copy of the rows: the batch is not kept alive by them.
            chosen.append(batch.column(0).take(pa.array(here - begin)))
            begin += batch.num_rows
    return pa.chunked_array(chosen, parquet.schema_arrow.field(column).type)


def _missing(values: pa.ChunkedArray) -> float:
    gaps = values.null_count
    if pa.types.is_floating(values.type):
        gaps += pc.sum(pc.is_nan(values)).as_py() or 0
    return gaps / len(values) if len(values) else 0.0


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    """The finite values as float64."""
    found = values.drop_null().cast(pa.float64(), safe=False).to_numpy()
    return found[np.isfinite(found)]


def _numbers(before: pa.ChunkedArray, now: pa.ChunkedArray) -> list[Bin]:
    """Bins of equal width between the outermost 1 % of both sides."""
    sides = [_floats(values) for values in (before, now)]
    some = [s for s in sides if len(s)]
    if not some:
        return []
    # Of each side by itself: a shift of the smaller one must not lie beyond the ends.
    low = min(float(np.quantile(s, 0.01)) for s in some)
    high = max(float(np.quantile(s, 0.99)) for s in some)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    shares = [np.histogram(np.clip(s, low, high), edges)[0] / max(len(s), 1) for s in sides]
    return [
        Bin(f"{a:.4g} to {b:.4g}", float(a), float(b), float(r), float(c))
        for a, b, r, c in zip(edges[:-1], edges[1:], *shares, strict=True)
    ]


def _categories(before: pa.ChunkedArray, now: pa.ChunkedArray, kind: str) -> list[Bin]:
    """The categories that are most frequent on either side; the others together."""
    shares = [_shares(values, kind) for values in (before, now)]
    highest = {name: max(s.get(name, 0.0) for s in shares) for s in shares for name in s}
    names = sorted(highest, key=lambda name: (-highest[name], name))
    bins = [Bin(name, None, None, *(s.get(name, 0.0) for s in shares)) for name in names[:CATEGORIES]]
    if len(names) > CATEGORIES:
        bins.append(Bin(OTHERS, None, None, *(sum(s.get(n, 0.0) for n in names[CATEGORIES:]) for s in shares)))
    return bins


def _shares(values: pa.ChunkedArray, kind: str) -> dict[str, float]:
    counts: Counter[str] = Counter()
    found = pc.value_counts(values.drop_null())
    for value, n in zip(found.field("values"), found.field("counts"), strict=True):
        counts[label(value.as_py(), boolean=kind == "boolean")] += n.as_py()
    total = counts.total()
    return {name: n / total for name, n in counts.items()}
