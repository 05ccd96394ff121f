"""The objects of one log: entries that follow from each other, packs of them, and the hint where they end."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.entry import Entry, sealed, unsealed
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, get_json

_logger = logging.getLogger(__name__)


class Chain:
    """The log's objects under ``prefix``, each verified by itself when it is read."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self.where = f"{prefix} in {store.uri}"

    def write(self, entry: Entry) -> Entry:
        """Commit an entry, and return it as a reader sees it, without the caller's own dicts.

        :raises ObjectExists: when another writer, or this one before a lost reply, was there first.
        """
        raw = canonical_json(vars(entry))
        self.store.put_if_absent(layout.log_entry(self.prefix, entry.seq), raw)
        return self._decode(entry.seq, raw)

    def read(self, seq: int) -> Entry | None:
        """Return entry ``seq``, or None where there is none.

        :raises CorruptObject: when it is damaged.
        """
        try:
            raw = self.store.get(layout.log_entry(self.prefix, seq))
        except ObjectNotFound:
            return None
        return self._decode(seq, raw)

    def read_many(self, seqs: Sequence[int]) -> list[Entry | None]:
        """Return these entries, None where there is none."""
        return parallel(self.read, seqs, self.store)

    def known(self, seq: int, checksum: str) -> Entry:
        """Return the entry that was committed as ``seq``.

        :raises CorruptObject: when it is damaged, missing, or another one.
        """
        entry = self.read(seq)
        if entry is None:
            raise self.corrupt(seq, "is missing, and was committed")
        if entry.checksum != checksum:
            raise self.corrupt(seq, "is not the entry that was committed there")
        return entry

    def pack(self, digest: str, seq: int, checksum: str) -> list[Entry] | None:
        """Return the entries of a pack that follows entry ``seq``; None when it is unusable.

        Packs only save requests: the entries themselves are the truth.
        """
        try:
            entries: list[Entry] = []
            for body in get_json(self.store, digest):
                entry = Entry.parse(seq + len(entries) + 1, body)
                if entry.prev != checksum:
                    raise ValueError(f"entry {entry.seq} in it does not follow from the one before")
                checksum = entry.checksum
                entries.append(entry)
        except (ObjectNotFound, CorruptObject, ValueError, TypeError) as e:
            _logger.warning("a pack of the log %s is unusable, reading its entries instead: %s", self.where, e)
            return None
        return entries

    def read_head(self) -> dict[str, Any] | None:
        """Return the hint: ``seq``, ``checksum``, ``packs``, ``checkpoint``; None when there is no usable one."""
        try:
            head = unsealed(self.store.get(layout.log_head(self.prefix)))
            if head.get("log") != self.prefix:
                raise ValueError(f"it belongs to {head.get('log')}")
        except ObjectNotFound:
            return None
        except ValueError as e:
            # Without it the entries are read one after the other.
            _logger.warning("the hint %s is unusable, reading the log from its start: %s", self.where, e)
            return None
        return head

    def write_head(self, seq: int, checksum: str, packs: list[str], checkpoint: dict[str, Any] | None) -> None:
        """Replace the hint."""
        head = {
            "format": 1,
            "log": self.prefix,
            "seq": seq,
            "checksum": checksum,
            "packs": packs,
            "checkpoint": checkpoint,
        }
        self.store.put(layout.log_head(self.prefix), sealed(head))

    def corrupt(self, seq: int, what: str) -> CorruptObject:
        """Say what is wrong with an entry."""
        return CorruptObject(
            f"entry {seq} of the log {self.where} {what}",
            hint="restore this folder from a backup; entries are never changed or deleted by this package",
        )

    def _decode(self, seq: int, raw: bytes) -> Entry:
        try:
            body = json.loads(raw)
        except ValueError as e:
            raise self.corrupt(seq, "is not a log entry") from e
        try:
            return Entry.parse(seq, body)
        except ValueError as e:
            raise self.corrupt(seq, str(e)) from e
