"""The keys of a fleet as one table: what serves each now, and what the newest training said of it.

16,000 keys are 2 MB of columns, which are searched and sorted in milliseconds; only the rows that are shown become
Python objects.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_mlops.ml.fleet.alarms import Alarms
from airflow_mlops.ml.fleet.carried import DECIDED_IN, NOT_DUE, states
from airflow_mlops.ml.fleet.result import read_table
from airflow_mlops.registry.overview import ModelSummary
from airflow_mlops.store.base import Store

METRIC, CHAMPION = "metric:", "champion:"
BINS = 30
SORTS = ("key", "state", "version", "serving", "versions", "train_rows", "holdout_rows", "p_value", "alarms")
"""What the table is sorted by, beside ``metric:<name>``."""


@dataclass(frozen=True)
class Spread:
    """How a metric is spread over keys: quartiles, and how many keys lie in each bin.

    :param edges: of the bins, one more than ``tally``; a hundredth of the keys on each side lies in the outermost bin.
    """

    metric: str
    keys: int
    quartiles: tuple[float, float, float]
    edges: list[float]
    tally: list[int]


def key_table(
    store: Store,
    result: str | None,
    models: Sequence[ModelSummary] | None,
    alarms: Mapping[str, Alarms] | None = None,
) -> pa.Table:
    """Return a row for each key, by key.

    Columns are those of :func:`airflow_mlops.ml.fleet.result.put_table`, ``decided_in``, and ``state``
    (``promoted``, else the status; ``not_due`` of keys that the training left out), ``serving`` (the champion now),
    ``versions``, ``alarms`` in words.

    :param result: digest of a training's result, or of what is known of all keys since.
    :param models: every model of the fleet as it is now; ``None``: the keys of the result alone, ``serving`` unknown.
    :param alarms: what the newest checks alarm about, by the check's name; one about a version that serves no more is
        answered.
    """
    table = read_table(store, result) if result else pa.table({name: pa.array([], kind) for name, kind in _LEAST})
    if DECIDED_IN not in table.column_names:
        table = table.append_column(DECIDED_IN, pa.nulls(len(table), pa.string()))
    known = {model.key: model for model in models or () if model.key is not None}
    keys = table["key"].to_pylist()
    there = set(keys)
    others = sorted(key for key in known if key not in there)
    if others:
        same = [NOT_DUE] * len(others)
        why = ["it was not part of the newest training"] * len(others)
        more = pa.table({"key": pa.array(others, pa.string()), "status": same, "reason": why})
        table = pa.concat_tables([table, more], promote_options="default")
    order = [*keys, *others]
    now = [known.get(key) for key in order]
    columns = {
        "state": pc.if_else(pc.fill_null(table["promoted"], fill_value=False), "promoted", table["status"]),
        "serving": pa.array([model.champion if model else None for model in now], pa.int64()),
        "versions": pa.array([model.versions if model else None for model in now], pa.int64()),
        "alarms": pa.array([_alarmed(model, alarms or {}) for model in now], pa.string()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table.sort_by("key").combine_chunks()


def _alarmed(model: ModelSummary | None, alarms: Mapping[str, Alarms]) -> str | None:
    """``drift: hour, rain; staleness``; ``None`` without an alarm about the version that serves."""
    if model is None or model.key is None:
        return None
    told = []
    for name, found in alarms.items():
        version, columns = found.get(model.key, (None, ()))
        if version is not None and version == model.champion:
            told.append(f"{name}: {', '.join(columns)}" if columns else name)
    return "; ".join(told) or None


_LEAST = (
    ("key", pa.string()),
    ("status", pa.string()),
    ("reason", pa.string()),
    ("version", pa.int64()),
    ("champion", pa.int64()),
    ("served_by", pa.string()),
    ("train_rows", pa.int64()),
    ("holdout_rows", pa.int64()),
    ("p_value", pa.float64()),
    ("promoted", pa.bool_()),
)


def metrics_of(table: pa.Table) -> list[str]:
    """Names of the metrics of a table's keys."""
    return [name.removeprefix(METRIC) for name in table.column_names if name.startswith(METRIC)]


def states_of(table: pa.Table) -> dict[str, int]:
    """How many keys are in each state."""
    return states(table)


def alarms_of(table: pa.Table) -> int:
    """How many keys have an alarm."""
    return len(table) - int(table["alarms"].null_count)


def pick(
    table: pa.Table,
    *,
    search: str = "",
    states: Collection[str] = (),
    alarmed: bool = False,
    sort: str = "key",
    descending: bool = False,
    offset: int = 0,
    limit: int = 50,
) -> tuple[int, int, list[dict[str, Any]]]:
    """Return how many keys match, where the page begins, and its rows; behind the end, the last page.

    :param search: part of a key or of a reason, in any case.
    :param states: only these; empty: all. ``alarmed``: only keys with an alarm.
    :param sort: one of :data:`SORTS`, or ``metric:<name>``; keys without it stand last.
    """
    found = pa.array(np.ones(len(table), bool))
    if search:
        for_each = (pc.match_substring(table[name], search, ignore_case=True) for name in ("key", "reason"))
        key, reason = (pc.fill_null(mask, fill_value=False) for mask in for_each)
        found = pc.or_(key, reason)
    if states:
        found = pc.and_(found, pc.is_in(table["state"], pa.array([*states], pa.string())))
    if alarmed:
        found = pc.and_(found, pc.is_valid(table["alarms"]))
    some = table.filter(found)
    if sort in some.column_names:
        # The table stands in the order of keys already, which is kept among equals.
        by = pc.array_sort_indices(
            some[sort].combine_chunks(), order="descending" if descending else "ascending", null_placement="at_end"
        )
        some = some.take(by)
    begin = offset if offset < len(some) else max(len(some) - 1, 0) // limit * limit
    return len(some), begin, some.slice(begin, limit).to_pylist()


def spreads(table: pa.Table) -> list[Spread]:
    """How each metric is spread over the keys that have it."""
    found = []
    for name in metrics_of(table):
        values = table[METRIC + name].drop_null().to_numpy()
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        # A few keys without any skill would leave all others in one bin.
        first, last = np.quantile(values, [0.01, 0.99])
        tally, edges = np.histogram(values.clip(first, last), bins=BINS)
        found.append(Spread(name, len(values), (low, middle, high), edges.tolist(), tally.tolist()))
    return found
