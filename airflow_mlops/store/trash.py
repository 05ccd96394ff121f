"""Where an object waits before it is deleted for good: ``trash/<its key>.<time>-<random>``.

Every removal has a name of its own here, so that of two processes that remove the same object none deletes
what the other one has just put by.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.store.base import Store

T = TypeVar("T")

PREFIX = "trash/"
_SUFFIX = re.compile(r"\.\d{8}T\d{6}Z-[0-9a-f]{8}")
_logger = logging.getLogger(__name__)


def removal(key: str, now: datetime) -> str:
    """A new key in the trash for the object at ``key``; ``now`` is aware."""
    return f"{PREFIX}{key}.{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}"


def original(key: str) -> str | None:
    """The key that an object in the trash had; None: it is not named by :func:`removal`."""
    inside = key.removeprefix(PREFIX)
    found = _SUFFIX.search(inside)
    return inside[: found.start()] if found and found.end() == len(inside) else None


def copies(store: Store, key: str) -> list[str]:
    """Keys in the trash of the object that was at ``key``, the newest first."""
    return sorted((copy for copy in store.list(f"{PREFIX}{key}.") if original(copy) == key), reverse=True)


def restore(store: Store, key: str) -> bool:
    """Bring the object back from the trash; whether there was one. What is in the trash stays.

    A blob's copy is verified before it is taken.
    """
    for copy in copies(store, key):
        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            path = Path(folder, "object")
            try:
                store.get_file(copy, path)
            except ObjectNotFound:  # deleted since it was listed
                continue
            if not key.startswith("blobs/") or _digest(path) == key.rpartition("/")[2]:
                store.put_file(key, path)
                _logger.warning("%s was in the trash of %s and is needed: it was restored", key, store.uri)
                return True
    return False


def recovering(store: Store, key: str, read: Callable[[], T]) -> T:
    """Return ``read()``; where the object is missing, bring it back from the trash and read again.

    :raises ObjectNotFound: when it is in neither place.
    """
    for _ in range(2):
        try:
            return read()
        except ObjectNotFound:
            restore(store, key)
    return read()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
