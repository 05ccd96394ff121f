"""The records of one model of a fleet, out of the commits about many."""

from __future__ import annotations

from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.items import BATCH, whole
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.records import Records
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.state import State
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

MOST = 60
"""So many of the newest versions are told: each takes two or three commits about hundreds of models."""


def key_records(store: Store, pipeline: str, key: str, most: int | None = MOST) -> Records:
    """Return the log of one model: its newest versions, what was said of them, and what became of them.

    A version that became champion more than once is told the last time.

    :param most: how many versions; ``None``: all.

    :raises CorruptObject, StoreUnavailable: as the registry does.
    """
    registry = Registry(store, pipeline)

    def look(state: State) -> tuple[set[int], set[str]]:
        rows = state.rows(state.model(key))
        rows = rows if most is None else rows[-most:]
        seqs = {seq for row in rows for seq in (row.seq, *row.more.get("notes", ()))}
        return seqs, {row.more["promoted"] for row in rows if "promoted" in row.more}

    seqs, promoted = registry.log.view(look)
    # The state knows when a version was promoted, not by which commit.
    log: list[Entry] = []
    for entry in Log(store, layout.log_prefix(pipeline)).entries():
        if entry.type != BATCH:
            mine = entry.key == key
        elif entry.seq in seqs:
            mine = True
        else:
            mine = entry.at in promoted and entry.payload["action"] == "promote" and key in registry.items.get(entry)
        if mine:
            log.append(whole(registry.shared, registry.items.of(entry, key)))
    return Records(tuple(log), (), (), seq=log[-1].seq if log else 0)
