"""What a store's records name, directly or through other objects: everything else is garbage.

Nothing here knows fields: every 64 hex digits in a record count as the name of an object, wherever they
stand. What is no name only keeps an object too long.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.items import expanded
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.registry.records import stored_pipelines
from airflow_mlops.registry.released import released_captures, released_references, released_snapshots
from airflow_mlops.store import layout, trash
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, unpacked

T = TypeVar("T")

COLLECTED = ("blobs/", "reports/", "handover/")
"""Prefixes of what is named by its content, and kept only as long as something names it."""

_RUN = re.compile(rb"[0-9a-f]{64,}")
_ENTRY = re.compile(r"pipelines/[^/]+/(log|ledger)/\d{10}\.json")
_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z]+)?")
# How files begin that name no object: Parquet, zip (skops, bundles), NumPy.
_OPAQUE = (b"PAR1", b"PK\x03\x04", b"\x93NUMPY")
_CHUNK = 256


def digests_in(raw: bytes) -> Iterator[bytes]:
    """Yield every sha256 (32 bytes) that ``raw`` spells out in hex."""
    for run in _RUN.findall(raw):
        for first in range(len(run) - 63):
            yield bytes.fromhex(run[first : first + 64].decode())


def digest_of(key: str) -> bytes | None:
    """The sha256 that a collected object is named by, also in the trash; None: it is not named by one."""
    if key.startswith(trash.PREFIX):
        key = trash.original(key) or ""
    found = _NAME.fullmatch(key.rpartition("/")[2]) if key.startswith(COLLECTED) else None
    return bytes.fromhex(found[1]) if found else None


def reachable(store: Store, present: Collection[bytes], blobs: Collection[bytes]) -> set[bytes]:
    """Return those of ``present`` (32 bytes each) that the store's records name, or objects they name, and so on.

    :param blobs: those of them that are blobs, which may name others; also where they are in the trash.

    The rows of snapshots and captures that retention has released, and of drift references that no version needs, count
    only where something else names them.

    :raises CorruptObject: when a log or an object that may name others is damaged: what it named is not known.
    """
    reached: set[bytes] = set()
    waiting: list[bytes] = []
    released: set[bytes] = set()

    def name(raw: bytes) -> None:
        for digest in digests_in(raw):
            if digest in present and digest not in reached:
                reached.add(digest)
                waiting.append(digest)

    for pipeline in stored_pipelines(store):
        released |= _logs(store, pipeline, name)
    _in_chunks(store, _roots(store), lambda key: _read(store, key), name)
    while waiting:
        batch = [waiting.pop() for _ in range(min(_CHUNK, len(waiting)))]
        follow = [digest for digest in batch if digest in blobs and digest not in released]
        for raw in parallel(lambda digest: _content(store, digest), follow, store):
            name(raw)
    return reached


def _logs(store: Store, pipeline: str, name: Callable[[bytes], None]) -> set[bytes]:
    """Name what the logs of a pipeline name; return what retention has released of it."""
    registry = Log(store, layout.log_prefix(pipeline)).entries()
    for entry in (*registry, *Log(store, layout.ledger_prefix(pipeline)).entries()):
        name(canonical_json(vars(entry)))
    entries = [*expanded(store, registry)]
    return released_snapshots(entries) | released_captures(store, pipeline, entries) | released_references(entries)


def _roots(store: Store) -> Iterator[str]:
    """Keys of every record but the logs' entries."""
    for key in store.list(""):
        if not key.startswith((*COLLECTED, trash.PREFIX)) and not _ENTRY.fullmatch(key):
            yield key


def _read(store: Store, key: str) -> bytes:
    with suppress(ObjectNotFound):  # deleted since it was listed
        if not store.peek(key, 8).startswith(_OPAQUE):
            return store.get(key)
    return b""


def _content(store: Store, digest: bytes) -> bytes:
    """The bytes of a blob that may name others; else none."""
    key = layout.blob(digest.hex())
    for place in _places(store, key):
        with suppress(ObjectNotFound):
            if store.peek(place, 8).startswith(_OPAQUE):
                return b""
            raw = store.get(place)
            if hashlib.sha256(raw).digest() != digest:
                raise CorruptObject(f"the object {place!r} in {store.uri} is damaged: its sha256 is not its name")
            return _text(raw)
    return b""  # it was there a moment ago: somebody deletes by hand


def _text(raw: bytes) -> bytes:
    """What a blob says; a compressed file that is no JSON of this package names nothing."""
    try:
        return unpacked(raw)
    except ValueError:
        return b""


def _places(store: Store, key: str) -> Iterator[str]:
    yield key
    yield from trash.copies(store, key)
    yield key  # restored, and the trash emptied, in between


def _in_chunks(store: Store, keys: Iterable[str], read: Callable[[str], T], take: Callable[[T], None]) -> None:
    """Read many objects a few at a time, so that they are never all in memory."""
    left = iter(keys)
    while chunk := [*islice(left, _CHUNK)]:
        for found in parallel(read, chunk, store):
            take(found)
