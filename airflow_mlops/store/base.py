"""What every store can do. Keys are ``/``-separated, relative, and made only by :mod:`.layout`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable


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

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, in ascending order."""

    def delete(self, key: str) -> None:
        """Remove the object; no error if it is already gone."""
