"""What a training of a fleet came to: a row for each key in one table, and a summary."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject, DataError, ObjectNotFound
from airflow_mlops.store import get_blob, layout, put_blob
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json

Row = dict[str, Any]
"""What became of one key in a training."""

STATUSES = ("passed", "no_baseline", "inconclusive", "rejected", "failed", "fallback", "retired")
"""``failed``: this key's own error; ``fallback``: too few rows, a parent serves; ``retired``: no rows any more."""

_COLUMNS = {
    "key": pa.string(),
    "shard": pa.int64(),
    "status": pa.string(),
    "reason": pa.string(),
    "version": pa.int64(),
    "champion": pa.int64(),
    "reference": pa.int64(),
    "served_by": pa.string(),
    "train_rows": pa.int64(),
    "holdout_rows": pa.int64(),
    "p_value": pa.float64(),
    "seconds": pa.float64(),
    "promoted": pa.bool_(),
}
WORDS = {
    "promoted": "promoted",
    "passed": "passed",
    "no_baseline": "without a champion to compare with",
    "rejected": "rejected",
    "inconclusive": "inconclusive",
    "failed": "failed",
    "fallback": "served by a parent",
    "retired": "retired",
    "not_due": "not due",
}
"""What became of a key, in words; what was promoted first."""


def put_table(store: Store, rows: Iterable[Row]) -> str:
    """Store rows as a Parquet file; return its digest.

    Columns: ``key``, ``shard``, ``status``, ``reason``, ``version``, ``champion`` (the one before),
    ``reference`` (what later losses are counted from, where not this version), ``served_by``, ``train_rows``,
    ``holdout_rows``, ``p_value``, ``seconds``, ``promoted``, ``metric:<name>``, ``champion:<name>``.
    """
    rows = sorted(rows, key=lambda row: row["key"])
    columns: dict[str, pa.Array] = {
        name: pa.array([row.get(name) for row in rows], kind) for name, kind in _COLUMNS.items()
    }
    for prefix, field in (("metric", "metrics"), ("champion", "champion_metrics")):
        for name in dict.fromkeys(name for row in rows for name in row.get(field) or ()):
            values = [(row.get(field) or {}).get(name) for row in rows]
            columns[f"{prefix}:{name}"] = pa.array(values, pa.float64())
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", write_page_checksum=True)
    return put_blob(store, sink.getvalue())


def read_table(store: Store, digest: str, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Read the table of a result, or some of its columns and rows.

    :param filters: as ``pyarrow.parquet.read_table`` takes them, like ``[("status", "=", "failed")]``.
    """
    try:
        data = io.BytesIO(get_blob(store, digest))
        return pq.read_table(data, columns=columns, filters=filters, page_checksum_verification=True)
    except pa.ArrowException as e:
        raise CorruptObject(f"the result {digest} cannot be read: {e}", hint="restore it from a backup") from e


def read_rows(store: Store, digest: str) -> list[Row]:
    """Read the rows that :func:`put_table` stored."""
    rows: list[Row] = []
    for found in read_table(store, digest).to_pylist():
        row: Row = {name: found[name] for name in _COLUMNS if found.get(name) is not None}
        for prefix, field in (("metric:", "metrics"), ("champion:", "champion_metrics")):
            values = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix) and v is not None}
            row |= {field: values} if values else {}
        rows.append({"champion": None, **row})
    return rows


def spread(store: Store, digest: str) -> dict[str, tuple[float, float, float]]:
    """Quartiles over the keys of each metric: a quarter is below the first, half below the second."""
    table = read_table(store, digest)
    found: dict[str, tuple[float, float, float]] = {}
    for name in table.column_names:
        if name.startswith("metric:") and len(values := table[name].drop_null()):
            low, middle, high = np.quantile(values.to_numpy(), [0.25, 0.5, 0.75]).tolist()
            found[name.removeprefix("metric:")] = (low, middle, high)
    return found


def sentence(counts: Mapping[str, int]) -> str:
    """``15,982 promoted, 11 rejected, 7 failed``: the counts that are not zero, what was promoted first."""
    told = [f"{counts[name]:,} {words}" for name, words in WORDS.items() if counts.get(name)]
    return ", ".join(told) or "nothing to do"


def count(rows: Iterable[Row], *, not_due: int = 0) -> dict[str, int]:
    """Count keys by what became of them; one that was promoted counts as that alone."""
    found = Counter("promoted" if row.get("promoted") else row["status"] for row in rows)
    return dict(found) | ({"not_due": not_due} if not_due else {})


def save_result(store: Store, pipeline: str, run: str, result: dict[str, Any]) -> None:
    """Write the summary of a run, also among those of all runs, and the hint that it is the newest unless one is newer.

    :param result: plain JSON; ``started_at`` orders runs, and a ``rehearsal`` is no newest one.
    """
    body = canonical_json({"format": 1, "run": run, **result})
    store.put(layout.fleet_result(pipeline, run), body)
    # Without what grows with the keys: a page reads those of a year.
    short = canonical_json({k: v for k, v in {"format": 1, "run": run, **result}.items() if k != "absent"})
    store.put(layout.fleet_run(pipeline, datetime.fromisoformat(result["started_at"]), run), short)
    if result["rehearsal"]:
        return
    newest = read_newest(store, pipeline)
    if newest is None or newest["started_at"] <= result["started_at"]:
        store.put(layout.fleet_newest(pipeline), body)


def read_run(store: Store, pipeline: str, run: str) -> dict[str, Any]:
    """The summary of a run.

    :raises DataError: its gates have not decided.
    """
    found = _read(store, layout.fleet_result(pipeline, run))
    if found is None:
        raise DataError(
            f"nothing is known of the fleet's run {run[:12]} in {store.uri}",
            hint="run evaluate.gates of this run first",
        )
    return found


def read_newest(store: Store, pipeline: str) -> dict[str, Any] | None:
    """The summary of the newest run; ``None`` before the first one."""
    return _read(store, layout.fleet_newest(pipeline))


def _read(store: Store, key: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(store.get(key))
    except ObjectNotFound:
        return None
    return found
