"""What a log keeps of the entries it has read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from airflow_mlops.registry.entry import Entry

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)


class Memory(Protocol[S_co]):
    """A state that takes entries one by one."""

    seq: int
    """The last entry taken in; 0: none."""
    checksum: str
    """Its checksum; empty: none."""
    weight: int
    """How much was taken in since it was saved: one for each entry and each item of a batch."""

    def clear(self) -> None:
        """Go back to before the first entry."""

    def take(self, entry: Entry) -> None:
        """Take in entry ``seq + 1``, which is verified."""

    def state(self) -> S_co:
        """What the entries add up to."""

    def find(self, op_id: str) -> int | None:
        """The seq of an operation's entry."""

    def due(self, least: int) -> bool:
        """Whether a checkpoint is due, of which there is none for less than ``least``."""

    def checksum_of(self, seq: int) -> str:
        """The checksum of an entry taken in."""

    def recall(self, seq: int) -> Entry | None:
        """An entry taken in, if it is kept."""

    def save(self, *, mend: bool) -> str | None:
        """Store a checkpoint and return its digest; None: there is none."""

    def restore(self, digest: str, seq: int, checksum: str) -> None:
        """Become what the checkpoint says, which stands for the entries up to ``seq``.

        :raises UnusablePage: when it cannot be read, or stands for something else.
        """


class Whole(Generic[S]):
    """Keeps every entry, and folds them all when asked."""

    def __init__(self, fold: Callable[[tuple[Entry, ...]], S]) -> None:
        self._fold = fold
        self.clear()

    def clear(self) -> None:
        """Go back to before the first entry."""
        self.seq, self.checksum, self.weight = 0, "", 0
        self.entries: list[Entry] = []
        self._by_op: dict[str, int] = {}
        self._state: tuple[int, Any] | None = None

    def take(self, entry: Entry) -> None:
        """Take in the next entry."""
        self.entries.append(entry)
        self._by_op.setdefault(entry.op_id, entry.seq)
        self.seq, self.checksum = entry.seq, entry.checksum

    def state(self) -> S:
        """The fold of all entries."""
        if self._state is None or self._state[0] != self.seq:
            self._state = (self.seq, self._fold(tuple(self.entries)))
        state: S = self._state[1]
        return state

    def find(self, op_id: str) -> int | None:
        """The seq of an operation's entry."""
        return self._by_op.get(op_id)

    def due(self, least: int) -> bool:
        """Never."""
        return False

    def checksum_of(self, seq: int) -> str:
        """The checksum of an entry."""
        return self.entries[seq - 1].checksum

    def recall(self, seq: int) -> Entry | None:
        """The entry."""
        return self.entries[seq - 1]

    def save(self, *, mend: bool) -> str | None:
        """There is nothing to save that the entries do not say."""
        return None

    def restore(self, digest: str, seq: int, checksum: str) -> None:
        """A checkpoint holds no entries: they are read."""
