"""Many reads at once, where waiting for replies is what costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from airflow_mlops.store.base import Store

A = TypeVar("A")
T = TypeVar("T")

_READERS = 8  # boto3's connection pool holds 10


def parallel(read: Callable[[A], T], items: Sequence[A], store: Store) -> list[T]:
    """Return ``read(item)`` of every item, in order; in threads unless the store is a local folder."""
    # A local read is all CPU here: threads would only make it wait for its turn.
    if len(items) < 2 or store.uri.startswith("file:"):
        return [read(item) for item in items]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(read, items))
