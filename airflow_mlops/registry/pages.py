"""A table of JSON rows in content-addressed blobs of 250 rows each, read when a row is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_json, packed_json, put_blob

ROWS = 250


class UnusablePage(Exception):
    """A part of a checkpoint is missing or damaged; the log's entries say the same as it did."""


class Pages:
    """The table.

    :param digests: sha256 of the stored pages, in order; all but the last are full.
    :param length: how many rows they hold.
    """

    def __init__(self, store: Store, digests: Iterable[str] = (), length: int = 0) -> None:
        self._store = store
        self._stored: list[str | None] = [*digests]
        self._length = length
        self._read: dict[int, list[Any]] = {}
        if len(self._stored) != -(-length // ROWS):
            raise UnusablePage(f"{len(self._stored)} pages cannot hold {length} rows")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> Any:
        """Return row ``place`` (from 0); call :meth:`touch` after changing it.

        :raises UnusablePage: when its page is missing or damaged.
        """
        return self._page(place // ROWS)[place % ROWS]

    def rows(self) -> list[Any]:
        """Return every row."""
        missing = [n for n in range(len(self._stored)) if n not in self._read]
        self._read.update(zip(missing, parallel(self._fetch, missing, self._store), strict=True))
        return [row for n in range(len(self._stored)) for row in self._read[n]]

    def append(self, row: Any) -> None:
        """Add a row at the end."""
        number = self._length // ROWS
        if number == len(self._stored):
            self._read[number] = []
            self._stored.append(None)
        self._page(number).append(row)
        self._stored[number] = None
        self._length += 1

    def touch(self, place: int) -> None:
        """Say that row ``place`` was changed."""
        self._stored[place // ROWS] = None

    def save(self, *, mend: bool = False) -> list[str]:
        """Store the pages that are new or changed, and return the digests of all.

        :param mend: write over a page that is already there: it may be damaged.
        """
        for number, digest in enumerate(self._stored):
            if digest is None:
                self._stored[number] = write_page(self._store, self._read[number], (), mend)
        return [digest for digest in self._stored if digest is not None]

    def _page(self, number: int) -> list[Any]:
        if number not in self._read:
            self._read[number] = self._fetch(number)
        return self._read[number]

    def _fetch(self, number: int) -> list[Any]:
        return read_page(self._store, self._stored[number], min(ROWS, self._length - number * ROWS))


def read_page(store: Store, digest: str | None, expected: int) -> list[Any]:
    """Return the rows of a stored page.

    :raises UnusablePage: when it is missing or damaged, or there are not as many as expected.
    """
    try:
        rows = get_json(store, digest or "")
    except (ObjectNotFound, CorruptObject, ValueError, TypeError) as e:
        raise UnusablePage(f"page {digest} of a checkpoint cannot be read") from e
    if not isinstance(rows, list) or len(rows) != expected:
        raise UnusablePage(f"page {digest} of a checkpoint does not hold {expected} rows")
    return rows


def write_page(store: Store, rows: list[Any], known: Container[str | None], mend: bool) -> str:
    """Store a page and return its digest.

    :param known: digests of pages that need no writing.
    :param mend: write over a page that is already there: it may be damaged.
    """
    data = packed_json(rows)
    digest = hashlib.sha256(data).hexdigest()
    if mend:
        store.put(layout.blob(digest), data)
    elif digest not in known:
        put_blob(store, data)
    return digest
