"""What is known of every key of a fleet: its row of the last training that decided about it, whichever that was.

A training of some keys has a row for these alone. The rows of the others are carried on from the training before, so
that a broken key stays in sight until a training answers it. They stand in a table of their own, beside the run's: what
a run decided is decided over its own rows.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.ml.fleet.parents import is_parent
from airflow_mlops.ml.fleet.result import read_newest, read_table
from airflow_mlops.store import put_blob
from airflow_mlops.store.base import Store

DECIDED_IN = "decided_in"
"""Column: the run that decided about this key; null: the newest, or none did."""
NOT_DUE = "not_due"
_NEVER = "it was not part of the newest training"


def table_of_all(result: Mapping[str, Any]) -> str:
    """Digest of the table with a row for each key that is known, by a run's summary."""
    return str(result.get("all_keys") or result["table"])


def earlier(store: Store, pipeline: str, dag_id: str, run_id: str) -> dict[str, str] | None:
    """What a run carries on from, ``{"table": digest, "run_id": …}``; ``None`` without a training before it."""
    newest = read_newest(store, pipeline)
    if newest is None:
        return None
    if (newest["dag_id"], newest["run_id"]) == (dag_id, run_id):
        # A second try has its own first one before it.
        found: dict[str, str] | None = newest.get("carried_from")
        return found
    return {"table": table_of_all(newest), "run_id": newest["run_id"]}


def carry_on(
    store: Store,
    table: str,
    before: Mapping[str, str] | None,
    *,
    not_due: Collection[str],
    absent: Collection[str],
) -> dict[str, Any]:
    """Put the rows of the other keys beside those of a run.

    Those of retired keys are left behind, and after a training of all keys those without a row and without a model;
    parents stay.

    :param table: digest of the run's own rows.
    :param before: :func:`earlier`.
    :param not_due: keys that needed no training; ``absent``: those with a model and without rows.
    :return: ``{"all_keys": digest, "states": {state: keys}, "carried_from": before}``, for the run's summary.
    """
    own = read_table(store, table)
    rest = own.slice(0, 0)
    if before is not None:
        rest = read_table(store, before["table"])
        known = rest[DECIDED_IN] if DECIDED_IN in rest.column_names else pa.nulls(len(rest), pa.string())
        never = pc.equal(rest["status"], NOT_DUE)
        decided = pc.if_else(never, pa.scalar(None, pa.string()), pc.fill_null(known, before["run_id"]))
        rest = rest.drop_columns([DECIDED_IN]) if DECIDED_IN in rest.column_names else rest
        rest = rest.append_column(DECIDED_IN, decided).filter(pc.not_equal(rest["status"], "retired"))
        if not not_due:
            # A parent goes on serving where it was not trained: keys were named, or its group has too few rows by now.
            stays = [key in absent or is_parent(key) for key in rest["key"].to_pylist()]
            rest = rest.filter(pa.array(stays, pa.bool_()))
    new = sorted({*not_due}.difference(own["key"].to_pylist(), rest["key"].to_pylist()))
    if new:
        known_by_name = {"key": new, "status": [NOT_DUE] * len(new), "reason": [_NEVER] * len(new)}
        rest = pa.concat_tables([rest, pa.table(known_by_name)], promote_options="default")
    return {**_put(store, table, own, rest), "carried_from": dict(before) if before else None}


def renew(store: Store, table: str, all_keys: str | None) -> dict[str, Any]:
    """Put the rows of a run as they became in the place of those before.

    :param table: digest of the run's rows now.
    :param all_keys: digest of the table that :func:`carry_on` wrote; ``None``: it wrote none.
    """
    own = read_table(store, table)
    return _put(store, table, own, read_table(store, all_keys) if all_keys else own.slice(0, 0))


def read_key(store: Store, table: str, key: str) -> dict[str, Any] | None:
    """The row of one key, :data:`DECIDED_IN` with it in tables of older stores too; ``None``: nothing is known."""
    rows = read_table(store, table, filters=[("key", "=", key)]).to_pylist()
    return {DECIDED_IN: None, **rows[0]} if rows else None


def _put(store: Store, table: str, own: pa.Table, rest: pa.Table) -> dict[str, Any]:
    others = rest.filter(pc.invert(pc.is_in(rest["key"], own["key"].combine_chunks())))
    if not len(others):
        return {"all_keys": table, "states": states(own)}
    made = pa.concat_tables([own, others], promote_options="default").sort_by("key")
    sink = io.BytesIO()
    pq.write_table(made, sink, compression="zstd", write_page_checksum=True)
    return {"all_keys": put_blob(store, sink.getvalue()), "states": states(made)}


def states(table: pa.Table) -> dict[str, int]:
    """How many keys came to what: ``promoted``, else their status."""
    found = pc.if_else(pc.fill_null(table["promoted"], fill_value=False), "promoted", table["status"])
    return {str(each["values"]): each["counts"] for each in pc.value_counts(found).to_pylist()}
