"""An append-only log of small JSON entries in a store, safe with many writers and no lock.

One commit is one put-if-absent of entry N+1, so that of all writers that saw N entries exactly one
wins, and the others look again. Each entry carries its own checksum and that of the entry before.
A writer that got no reply finds out by its operation id whether its entry is there.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar, overload

from airflow_mlops.exceptions import ObjectExists, RegistryError, StoreError, StoreUnavailable
from airflow_mlops.registry.chain import Chain
from airflow_mlops.registry.entry import Entry, op_id
from airflow_mlops.registry.memory import Memory, Whole
from airflow_mlops.registry.pages import UnusablePage
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import put_json

__all__ = ["Entry", "Log", "op_id"]

S = TypeVar("S")
T = TypeVar("T")

_logger = logging.getLogger(__name__)
_PACK = 256
_CHECKPOINT = 64
_AHEAD = 32
_LOST_REPLIES = 4
_LOST_RACES = 500


class Log(Generic[S]):
    """The log under ``prefix``.

    :param fold: turns all entries, oldest first, into the state that ``append`` hands to its callbacks;
        by default the state is the tuple of entries itself.
    :param memory: takes the place of ``fold``: a state that takes entries one by one, and can be saved.
    :param first: called before the log's first entry is written.
    """

    @overload
    def __init__(self: Log[tuple[Entry, ...]], store: Store, prefix: str) -> None: ...

    @overload
    def __init__(self, store: Store, prefix: str, fold: Callable[[tuple[Entry, ...]], S]) -> None: ...

    @overload
    def __init__(
        self, store: Store, prefix: str, *, memory: Memory[S], first: Callable[[], None] | None = None
    ) -> None: ...

    def __init__(
        self,
        store: Store,
        prefix: str,
        fold: Callable[[tuple[Entry, ...]], Any] = tuple,
        *,
        memory: Memory[Any] | None = None,
        first: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._chain = Chain(store, prefix)
        self._memory: Memory[Any] = Whole(fold) if memory is None else memory
        self._first = first
        self._whole: Log[tuple[Entry, ...]] | None = None
        self._packs: list[str] = []
        self._checkpoint: dict[str, Any] | None = None
        self._distrust = False  # of the checkpoint that the hint names
        self._lock = threading.RLock()

    def entries(self) -> tuple[Entry, ...]:
        """Return all entries committed until now, oldest first.

        :raises CorruptObject: when an entry is damaged, missing, or does not follow from the one before.
        """
        with self._lock:
            if isinstance(self._memory, Whole):
                self._catch_up()
                return tuple(self._memory.entries)
            if self._whole is None:
                self._whole = Log(self._store, self._prefix)
            return self._whole.entries()

    def state(self) -> S:
        """Return what all entries committed until now add up to; treat it as read-only."""
        return self.view(lambda state: state)

    def view(self, look: Callable[[S], T]) -> T:
        """Return ``look(state)``, while no other thread can change the state."""
        with self._lock:
            try:
                self._catch_up()
                return look(self._memory.state())
            except UnusablePage as e:
                self._start_over(e)
                self._catch_up()
                return look(self._memory.state())

    def find(self, op_id: str) -> Entry | None:
        """Return the entry of this operation, if it was committed."""
        seq = self.view(lambda _: self._memory.find(op_id))
        return None if seq is None else self.read(seq)

    def read(self, seq: int) -> Entry:
        """Return entry ``seq``, which was committed.

        :raises CorruptObject: when it is damaged, missing, or another one than was committed there.
        """
        expected, kept = self.view(lambda _: (self._memory.checksum_of(seq), self._memory.recall(seq)))
        return kept or self._chain.known(seq, expected)

    def append(
        self,
        type: str,
        payload: dict[str, Any] | Callable[[S], dict[str, Any]],
        *,
        op_id: str,
        key: str | None = None,
        check: Callable[[S], object] | None = None,
    ) -> Entry:
        """Commit one entry; an operation committed before is returned as it is.

        :param payload: plain JSON, or a function that computes it from the state the entry will follow.
        :param check: called with that same state; raises to refuse. Both are called again whenever
            another writer was faster, so the committed entry always fits the state before it.
        :raises RegistryError: when ``op_id`` was used for an entry of another type or key.
        :raises StoreUnavailable: when the store does not answer; repeating with the same ``op_id`` is safe.
        """
        silent = 0

        def draft(state: S) -> Entry | int:
            # Also where a lost reply ends: the entry is there, and it is ours.
            if (mine := self._memory.find(op_id)) is not None:
                return mine
            if check is not None:
                check(state)
            return Entry(
                seq=self._memory.seq + 1,
                prev=self._memory.checksum,
                type=type,
                op_id=op_id,
                at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                key=key,
                payload=payload(state) if callable(payload) else payload,
            ).seal()

        for _ in range(_LOST_RACES):
            with self._lock:
                entry = self.view(draft)
                if isinstance(entry, int):
                    return self._same(self.read(entry), type, key)
                try:
                    if entry.seq == 1 and self._first is not None:
                        self._first()
                    entry = self._chain.write(entry)
                except ObjectExists:
                    pause = 0.02
                except StoreUnavailable:
                    silent += 1
                    if silent == _LOST_REPLIES:
                        raise
                    pause = 0.1 * 2**silent
                except StoreError:
                    # A full disk may fail after the entry has its name; then it is committed, and is returned.
                    if self.find(op_id) is None:
                        raise
                    pause = 0.0
                else:
                    try:
                        self._accept(entry)
                    except UnusablePage as e:
                        self._start_over(e)
                        self._catch_up()
                    self._write_head()
                    return entry
            time.sleep(random.uniform(0, pause))  # noqa: S311 - jitter, not a secret
        raise StoreUnavailable(
            f"{_LOST_RACES} writers were faster at the log {self._chain.where}", hint="the task is retried"
        )

    def _same(self, entry: Entry, type: str, key: str | None) -> Entry:
        if (entry.type, entry.key) != (type, key):
            raise RegistryError(
                f"operation {entry.op_id} is already entry {entry.seq} of {self._chain.where}: {entry.type!r} for "
                f"model key {entry.key!r}, and cannot also be {type!r} for {key!r}",
                hint="give each action an operation id of its own",
            )
        return entry

    # --- reading ---------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Read what was committed since the last look: from the hint if nothing is known, then forward."""
        if not self._memory.seq and (hint := self._chain.read_head()) is not None:
            whole = False
            try:
                self._start(hint)
                whole = True
            finally:
                if not whole:
                    # Else the next call would take the sound beginning for the whole log.
                    self._forget()
        found = 0
        while (entry := self._chain.read(self._memory.seq + 1)) is not None:
            self._accept(entry)
            found += 1
            if found >= 4:  # far behind, as where there is no hint
                self._leap()

    def _start(self, hint: dict[str, Any]) -> None:
        checkpoint = None if self._distrust else hint["checkpoint"]
        if checkpoint is not None:
            try:
                self._memory.restore(checkpoint["digest"], checkpoint["seq"], checkpoint["checksum"])
            except UnusablePage as e:
                self._start_over(e)
        if self._memory.seq:
            self._packs, self._checkpoint = list(hint["packs"]), checkpoint
        else:
            self._read_packs(hint["packs"])
        rest = range(self._memory.seq + 1, hint["seq"] + 1)
        for seq, entry in zip(rest, self._chain.read_many(rest), strict=True):
            if entry is None:
                # The hint witnesses that it was committed.
                raise self._chain.corrupt(seq, "is missing, and later entries were written")
            self._accept(entry)
        if self._memory.checksum != hint["checksum"]:
            raise self._chain.corrupt(hint["seq"], "is not the entry that was committed there")

    def _read_packs(self, digests: list[str]) -> None:
        """Take entries from packs (blobs of 256 entries each, made by writers): one request instead of 256."""
        for digest in digests:
            entries = self._chain.pack(digest, self._memory.seq, self._memory.checksum)
            if entries is None:
                return
            for entry in entries:
                self._accept(entry)
            self._packs.append(digest)

    def _leap(self) -> None:
        """Read on in larger steps, until the end."""
        while True:
            ahead = range(self._memory.seq + 1, self._memory.seq + _AHEAD + 1)
            entries = self._chain.read_many(ahead)
            for seq, entry in zip(ahead, entries, strict=True):
                if entry is None:
                    # It may have been committed while those behind it were read.
                    if any(entries[seq - ahead[0] :]) and self._chain.read(seq) is None:
                        raise self._chain.corrupt(seq, "is missing, and later entries were written")
                    break
                self._accept(entry)
            if entries[-1] is None:
                return

    def _accept(self, entry: Entry) -> None:
        if entry.prev != self._memory.checksum:
            raise self._chain.corrupt(entry.seq, "does not follow from the entry before it")
        whole = False
        try:
            self._memory.take(entry)
            whole = True
        finally:
            if not whole:
                # It may have been taken in halfway.
                self._forget()

    def _start_over(self, reason: Exception) -> None:
        """Go by the entries alone from now on, until a checkpoint of our own is written."""
        _logger.warning(
            "a checkpoint of the log %s is unusable, reading entries instead: %s", self._chain.where, reason
        )
        self._forget()
        self._distrust = True

    def _forget(self) -> None:
        self._memory.clear()
        self._packs, self._checkpoint = [], None

    # --- the hint --------------------------------------------------------------------------------

    def _write_head(self) -> None:
        """Write what spares readers requests. The commit stands without any of it."""
        memory = self._memory
        try:
            while memory.seq >= (len(self._packs) + 1) * _PACK:
                self._packs.append(put_json(self._store, self._pack(len(self._packs) * _PACK)))
        except (StoreError, UnusablePage) as e:
            _logger.warning("could not pack entries of the log %s: %s", self._chain.where, e)
        try:
            if memory.due(_CHECKPOINT) and (digest := memory.save(mend=self._distrust)) is not None:
                self._checkpoint = {"digest": digest, "seq": memory.seq, "checksum": memory.checksum}
                self._distrust = False
            self._chain.write_head(memory.seq, memory.checksum, self._packs, self._checkpoint)
        except StoreError as e:
            _logger.warning("could not write the hint %s: %s", self._chain.where, e)

    def _pack(self, first: int) -> list[dict[str, Any]]:
        """The entries after ``first``, as they go into a pack."""

        def entry(seq: int) -> Entry:
            return self._memory.recall(seq) or self._chain.known(seq, self._memory.checksum_of(seq))

        return [vars(e) for e in parallel(entry, range(first + 1, first + _PACK + 1), self._store)]
