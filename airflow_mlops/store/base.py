"""What every store can do. Keys are ``/``-separated, relative, and made only by :mod:`.layout`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Stat:
    """What a store knows of an object: its size in bytes and when it was last written or touched (aware)."""

    key: str
    size: int
    modified: datetime


@runtime_checkable
class Store(Protocol):
    """Bytes under keys, with one atomic primitive: put-if-absent.

    Every write is atomic: a reader sees the whole object or none. All methods raise
    :class:`~airflow_mlops.exceptions.StoreUnavailable` where a retry can help, and
    :class:`~airflow_mlops.exceptions.StoreError` (with the key) where it cannot.
    """

    uri: str
    """Where the store is, without credentials: ``file:///…`` or ``s3://bucket/prefix``."""

    def get(self, key: str) -> bytes:
        """Return the object's bytes; :class:`ObjectNotFound` if there is none."""

    def peek(self, key: str, length: int) -> bytes:
        """Return at most ``length`` bytes (one or more) from the object's beginning."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object; :class:`ObjectExists` if the key is taken (even by equal bytes)."""

    def get_file(self, key: str, path: Path) -> None:
        """Download the object to ``path`` without holding it in memory."""

    def put_file(self, key: str, path: Path) -> None:
        """Upload the file at ``path`` without holding it in memory; replaces atomically."""

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""

    def stat(self, key: str) -> Stat:
        """Return the object's size and time; :class:`ObjectNotFound` if there is none."""

    def touch(self, key: str) -> None:
        """Set the object's time to now; :class:`ObjectNotFound` if there is none."""

    def move(self, key: str, target: str) -> None:
        """Take the object to ``target``, where its time is now; whoever stops in between leaves it at both."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, in ascending order."""

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Like :meth:`list`, with size and time; costs no request for each object."""

    def delete(self, key: str) -> None:
        """Remove the object; no error if it is already gone."""

    def sweep(self, before: datetime, *, dry_run: bool = False) -> tuple[Stat, ...]:
        """Remove what writers that were killed before that time left behind, and return it; it is no object."""
