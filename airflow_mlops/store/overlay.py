"""A store laid over another one: reads see both, writes go to the upper one alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from airflow_mlops.exceptions import ObjectExists, ObjectNotFound
from airflow_mlops.store.base import Stat, Store


class OverlayStore:
    """Work on what ``lower`` holds without ever writing to it.

    :param upper: takes every write; its objects hide those of the same key below.
    :param lower: is only read.
    """

    def __init__(self, upper: Store, lower: Store) -> None:
        self.upper, self.lower = upper, lower
        self.uri = upper.uri

    def __repr__(self) -> str:
        return f"OverlayStore({self.upper!r}, {self.lower!r})"

    def get(self, key: str) -> bytes:
        """Return the object's bytes."""
        try:
            return self.upper.get(key)
        except ObjectNotFound:
            return self.lower.get(key)

    def peek(self, key: str, length: int) -> bytes:
        """Return at most ``length`` bytes from the object's beginning."""
        try:
            return self.upper.peek(key, length)
        except ObjectNotFound:
            return self.lower.peek(key, length)

    def put(self, key: str, data: bytes) -> None:
        """Write the object above; one below is hidden by it."""
        self.upper.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object above if the key is free in both."""
        if self.lower.exists(key):
            raise ObjectExists(f"there is already an object {key!r} in the store {self.lower.uri}")
        self.upper.put_if_absent(key, data)

    def get_file(self, key: str, path: Path) -> None:
        """Copy the object to ``path``."""
        try:
            self.upper.get_file(key, path)
        except ObjectNotFound:
            self.lower.get_file(key, path)

    def put_file(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` into the upper store."""
        self.upper.put_file(key, path)

    def exists(self, key: str) -> bool:
        """Whether the key holds an object in either."""
        return self.upper.exists(key) or self.lower.exists(key)

    def stat(self, key: str) -> Stat:
        """Return the size and time of the object that is read."""
        try:
            return self.upper.stat(key)
        except ObjectNotFound:
            return self.lower.stat(key)

    def touch(self, key: str) -> None:
        """Set the time of the object above; one that is only below stays as it is."""
        try:
            self.upper.touch(key)
        except ObjectNotFound:
            self.lower.stat(key)

    def move(self, key: str, target: str) -> None:
        """Take the object above to ``target``; one below comes to light again."""
        self.upper.move(key, target)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key of both that starts with ``prefix``, once, in ascending order."""
        for key, _ in groupby(heapq.merge(self.upper.list(prefix), self.lower.list(prefix))):
            yield key

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Like :meth:`list`, with the size and time of the object that is read."""
        both = heapq.merge(self.upper.scan(prefix), self.lower.scan(prefix), key=attrgetter("key"))
        for _, found in groupby(both, key=attrgetter("key")):
            yield next(found)

    def delete(self, key: str) -> None:
        """Remove the object above; one below comes to light again."""
        self.upper.delete(key)

    def sweep(self, before: datetime, *, dry_run: bool = False) -> tuple[Stat, ...]:
        """Remove what killed writers left behind above."""
        return self.upper.sweep(before, dry_run=dry_run)
