"""What a commit about many models says of each: the items lie in one blob that the entry names."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.shared import Shared
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_text, put_json

BATCH = "batch"
_KEPT = 16 << 20  # bytes of JSON

Item = dict[str, Any]


class Items:
    """The batches of one log; the last few that were read are kept, so treat them as read-only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[int, dict[str, dict[str, Item]]]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def put(self, items: list[Item], conflicts: list[Item]) -> str:
        """Store a batch and return its digest, for the entry that commits it.

        :raises CorruptObject: when an earlier attempt left it, and it was damaged since: nothing may name it.
        """
        digest = put_json(self._store, {"items": items, "conflicts": conflicts}, packed=True)
        self._read(digest)
        return digest

    def get(self, entry: Entry) -> dict[str, Item]:
        """Return the items of a batch entry by model key.

        :raises CorruptObject: when they are missing or damaged.
        """
        return self._batch(entry)["items"]

    def conflicts(self, entry: Entry) -> dict[str, Item]:
        """Return what the batch left out, by model key."""
        return self._batch(entry)["conflicts"]

    def expand(self, entry: Entry) -> Iterator[Entry]:
        """Yield the entry, or one entry for each item of a batch, as if each had been committed alone.

        :raises CorruptObject: when items are missing or damaged.
        """
        if entry.type != BATCH:
            yield entry
            return
        for key, item in self.get(entry).items():
            yield _change(entry, key, item)

    def of(self, entry: Entry, key: str | None) -> Entry:
        """Return what an entry says of one model, as if that had been committed alone.

        :raises CorruptObject: when items are missing or damaged.
        """
        return entry if entry.type != BATCH else _change(entry, key, self.get(entry)[key or ""])

    def _batch(self, entry: Entry) -> dict[str, dict[str, Item]]:
        digest = entry.payload["items"]
        try:
            return self._read(digest)
        except ObjectNotFound as e:
            raise CorruptObject(
                f"the items {digest} of the log's entry {entry.seq} are missing in {self._store.uri}",
                hint="restore this object from a backup; a log's items are never deleted by this package",
            ) from e

    def _read(self, digest: str) -> dict[str, dict[str, Item]]:
        with self._lock:
            if digest in self._kept:
                return self._kept[digest][1]
        raw = get_text(self._store, digest)
        body = json.loads(raw)
        batch = {part: {item["key"]: item for item in body[part]} for part in ("items", "conflicts")}
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = len(raw), batch
                self._size += len(raw)
            while self._size > _KEPT and len(self._kept) > 1:
                self._size -= self._kept.pop(next(iter(self._kept)))[0]
        return batch


def expanded(store: Store, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield entries with every batch replaced by its items, and every record whole, oldest first; read-only.

    :raises CorruptObject: when items, or what records share, are missing or damaged.
    """
    items, shared = Items(store), Shared(store)
    for entry in entries:
        for change in items.expand(entry):
            yield whole(shared, change)


def whole(shared: Shared, change: Entry) -> Entry:
    """Return a registration with its record whole; any other entry as it is.

    :raises CorruptObject: when what its record shares with others is missing or damaged.
    """
    if change.type != "register":
        return change
    own = change.payload["record"]
    record = shared.whole(own)
    return change if record is own else replace(change, payload=change.payload | {"record": record})


def _change(entry: Entry, key: str | None, item: Item) -> Entry:
    payload = {k: v for k, v in entry.payload.items() if k not in ("action", "items", "count")}
    payload |= {k: v for k, v in item.items() if k != "key"}
    return replace(entry, type=entry.payload["action"], key=key, payload=payload)
