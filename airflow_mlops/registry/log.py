"""An append-only log of small JSON entries in a store, safe with many writers and no lock.

One commit is one put-if-absent of entry N+1, so that of all writers that saw N entries exactly one
wins, and the others look again. Each entry carries its own checksum and that of the entry before.
A writer that got no reply finds out by its operation id whether its entry is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, overload

from airflow_mlops.exceptions import (
    CorruptObject,
    ObjectExists,
    ObjectNotFound,
    RegistryError,
    StoreError,
    StoreUnavailable,
)
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, get_json, put_json

S = TypeVar("S")

_logger = logging.getLogger(__name__)
_READERS = 8  # boto3's connection pool holds 10
_PACK = 256
_LOST_REPLIES = 4
_LOST_RACES = 500


def op_id(*parts: Any) -> str:
    """Name an operation: sha256 of its parts (plain JSON values).

    The parts say what is done and with what input: DAG, run, task, map index, action, input fingerprint.
    Never the try number, else a retry is a second operation.
    """
    return hashlib.sha256(canonical_json(parts)).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One commit. ``at`` is UTC in ISO 8601; ``key`` names the model within a fleet, else None."""

    seq: int
    prev: str
    type: str
    op_id: str
    at: str
    key: str | None
    payload: dict[str, Any]
    checksum: str = ""

    def seal(self) -> Entry:
        """Return the entry with its checksum, which covers every other field and so the whole chain."""
        body = {k: v for k, v in vars(self).items() if k != "checksum"}
        return Entry(**body, checksum=hashlib.sha256(canonical_json(body)).hexdigest())


class Log(Generic[S]):
    """The log under ``prefix``.

    :param fold: turns all entries, oldest first, into the state that ``append`` hands to its callbacks;
        by default the state is the tuple of entries itself.
    """

    @overload
    def __init__(self: Log[tuple[Entry, ...]], store: Store, prefix: str) -> None: ...

    @overload
    def __init__(self, store: Store, prefix: str, fold: Callable[[tuple[Entry, ...]], S]) -> None: ...

    def __init__(self, store: Store, prefix: str, fold: Callable[[tuple[Entry, ...]], Any] = tuple) -> None:
        self._store = store
        self._prefix = prefix
        self._fold = fold
        # Entries never change: what this object has read and verified is not read again.
        self._entries: list[Entry] = []
        self._by_op: dict[str, Entry] = {}
        self._packs: list[str] = []
        self._state: tuple[int, S] | None = None
        self._lock = threading.RLock()

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries committed until now, oldest first.

        :raises CorruptObject: when an entry is damaged, missing, or does not follow from the one before.
        """
        with self._lock:
            self._catch_up()
            return tuple(self._entries)

    def state(self) -> S:
        """Return the fold of all entries committed until now; treat it as read-only."""
        with self._lock:
            self._catch_up()
            if self._state is None or self._state[0] != len(self._entries):
                self._state = (len(self._entries), self._fold(tuple(self._entries)))
            return self._state[1]

    def find(self, op_id: str) -> Entry | None:
        """Return the entry of this operation, if it was committed."""
        with self._lock:
            self._catch_up()
            return self._by_op.get(op_id)

    def append(
        self,
        type: str,
        payload: dict[str, Any] | Callable[[S], dict[str, Any]],
        *,
        op_id: str,
        key: str | None = None,
        check: Callable[[S], None] | None = None,
    ) -> Entry:
        """Commit one entry; an operation committed before is returned as it is.

        :param payload: plain JSON, or a function that computes it from the state the entry will follow.
        :param check: called with that same state; raises to refuse. Both are called again whenever
            another writer was faster, so the committed entry always fits the state before it.
        :raises RegistryError: when ``op_id`` was used for an entry of another type or key.
        :raises StoreUnavailable: when the store does not answer; repeating with the same ``op_id`` is safe.
        """
        silent = 0
        for _ in range(_LOST_RACES):
            with self._lock:
                state = self.state()
                # Also where a lost reply ends: the entry is there, and it is ours.
                if (mine := self._by_op.get(op_id)) is not None:
                    return self._same(mine, type, key)
                if check is not None:
                    check(state)
                entry = Entry(
                    seq=len(self._entries) + 1,
                    prev=self._entries[-1].checksum if self._entries else "",
                    type=type,
                    op_id=op_id,
                    at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                    key=key,
                    payload=payload(state) if callable(payload) else payload,
                ).seal()
                raw = canonical_json(vars(entry))
                try:
                    self._store.put_if_absent(layout.log_entry(self._prefix, entry.seq), raw)
                except ObjectExists:
                    pause = 0.02
                except StoreUnavailable:
                    silent += 1
                    if silent == _LOST_REPLIES:
                        raise
                    pause = 0.1 * 2**silent
                else:
                    # Keep what a reader would see, not the caller's own dict.
                    self._accept(self._decode(entry.seq, raw))
                    self._write_head(entry)
                    return self._entries[-1]
            time.sleep(random.uniform(0, pause))  # noqa: S311 - jitter, not a secret
        raise StoreUnavailable(
            f"{_LOST_RACES} writers were faster at the log {self._where()}", hint="the task is retried"
        )

    def _same(self, entry: Entry, type: str, key: str | None) -> Entry:
        if (entry.type, entry.key) != (type, key):
            raise RegistryError(
                f"operation {entry.op_id} is already entry {entry.seq} of {self._where()}: {entry.type!r} for model "
                f"key {entry.key!r}, and cannot also be {type!r} for {key!r}",
                hint="give each action an operation id of its own",
            )
        return entry

    def _catch_up(self) -> None:
        """Read what was committed since the last look: from the hint if nothing is known, then forward."""
        if not self._entries:
            hint = self._read_head()
            if hint is not None:
                try:
                    self._read_packs(hint["packs"])
                    self._read_all(hint["seq"], hint["checksum"])
                except CorruptObject:
                    # Else the next call would take the sound beginning for the whole log.
                    self._entries.clear()
                    self._by_op.clear()
                    self._packs.clear()
                    raise
        while (entry := self._read(len(self._entries) + 1)) is not None:
            self._accept(entry)

    def _read_packs(self, digests: list[str]) -> None:
        """Take entries from packs (blobs of 256 entries each, made by writers): one request instead of 256."""
        for digest in digests:
            try:
                for body in get_json(self._store, digest):
                    self._accept(self._check(len(self._entries) + 1, body))
            except (ObjectNotFound, CorruptObject, ValueError, TypeError) as e:
                # Packs only save requests: the entries themselves are the truth.
                _logger.warning("a pack of the log %s is unusable, reading its entries instead: %s", self._where(), e)
                return
            self._packs.append(digest)

    def _read_all(self, last: int, checksum: str) -> None:
        """Read up to entry ``last``; the hint witnesses that it was committed, so none may be missing."""
        rest = range(len(self._entries) + 1, last + 1)
        with ThreadPoolExecutor(_READERS) as pool:
            for seq, entry in zip(rest, pool.map(self._read, rest), strict=True):
                if entry is None:
                    raise self._corrupt(seq, "is missing, and later entries were written")
                self._accept(entry)
        if self._entries[last - 1].checksum != checksum:
            raise self._corrupt(last, "is not the entry that was committed there")

    def _read(self, seq: int) -> Entry | None:
        try:
            raw = self._store.get(layout.log_entry(self._prefix, seq))
        except ObjectNotFound:
            return None
        return self._decode(seq, raw)

    def _decode(self, seq: int, raw: bytes) -> Entry:
        try:
            body = json.loads(raw)
        except ValueError as e:
            raise self._corrupt(seq, "is not a log entry") from e
        return self._check(seq, body)

    def _check(self, seq: int, body: Any) -> Entry:
        try:
            entry = Entry(**body)
            sound = entry.seal() == entry and entry.seq == seq and isinstance(entry.payload, dict)
        except (ValueError, TypeError) as e:
            raise self._corrupt(seq, "is not a log entry") from e
        if not sound:
            raise self._corrupt(seq, "does not match its checksum")
        return entry

    def _accept(self, entry: Entry) -> None:
        if entry.prev != (self._entries[-1].checksum if self._entries else ""):
            raise self._corrupt(entry.seq, "does not follow from the entry before it")
        self._entries.append(entry)
        self._by_op.setdefault(entry.op_id, entry)

    def _read_head(self) -> dict[str, Any] | None:
        try:
            head = json.loads(self._store.get(layout.log_head(self._prefix)))
            return {"seq": max(1, int(head["seq"])), "checksum": head["checksum"], "packs": list(head["packs"])}
        except ObjectNotFound:
            return None
        except (ValueError, TypeError, KeyError):
            # Only a hint: without it the entries are read one after the other.
            _logger.warning("the hint %s is unreadable; reading the log from its start", self._where())
            return None

    def _write_head(self, entry: Entry) -> None:
        try:
            while len(self._entries) >= (len(self._packs) + 1) * _PACK:
                first = len(self._packs) * _PACK
                self._packs.append(put_json(self._store, [vars(e) for e in self._entries[first : first + _PACK]]))
            head = {"seq": entry.seq, "checksum": entry.checksum, "packs": self._packs}
            self._store.put(layout.log_head(self._prefix), canonical_json(head))
        except StoreError as e:
            # The commit stands without it; readers probe forward.
            _logger.warning("could not write the hint %s: %s", self._where(), e)

    def _where(self) -> str:
        return f"{self._prefix} in {self._store.uri}"

    def _corrupt(self, seq: int, what: str) -> CorruptObject:
        return CorruptObject(
            f"entry {seq} of the log {self._where()} {what}",
            hint="restore this folder from a backup; entries are never changed or deleted by this package",
        )
