"""A table of JSON rows in content-addressed blobs of 1,000 rows each, read when a row is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, get_json, put_blob

ROWS = 1000


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

    def save(self, *, known: Iterable[str] = (), mend: bool = False) -> list[str]:
        """Store the pages that are new or changed, and return the digests of all.

        :param known: digests of pages that need no writing.
        :param mend: write over a page that is already there: it may be damaged.
        """
        for number, digest in enumerate(self._stored):
            if digest is None:
                self._stored[number] = self._save(canonical_json(self._read[number]), known, mend)
        return [digest for digest in self._stored if digest is not None]

    def _save(self, data: bytes, known: Iterable[str], mend: bool) -> str:
        digest = hashlib.sha256(data).hexdigest()
        if mend:
            self._store.put(layout.blob(digest), data)
        elif digest not in known:
            put_blob(self._store, data)
        return digest

    def _page(self, number: int) -> list[Any]:
        if number not in self._read:
            self._read[number] = self._fetch(number)
        return self._read[number]

    def _fetch(self, number: int) -> list[Any]:
        digest = self._stored[number]
        expected = min(ROWS, self._length - number * ROWS)
        try:
            rows = get_json(self._store, digest or "")
        except (ObjectNotFound, CorruptObject, ValueError, TypeError) as e:
            raise UnusablePage(f"page {digest} of a checkpoint cannot be read") from e
        if not isinstance(rows, list) or len(rows) != expected:
            raise UnusablePage(f"page {digest} of a checkpoint does not hold {expected} rows")
        return rows
