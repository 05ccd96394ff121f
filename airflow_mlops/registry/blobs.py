"""Whether blobs are there and sound, each looked at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound, StoreError, UntrustedArtifact
from airflow_mlops.registry.reachable import digest_of
from airflow_mlops.registry.salvage import unreadable
from airflow_mlops.store import layout, trash
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import file_digest, unpacked

_SMALL = 4 << 20


class Blobs:
    """The blobs of a store.

    :param deep: read and hash each; else only look whether it is there.
    """

    IN_TRASH = "is in the trash"

    def __init__(self, store: Store, deep: bool) -> None:
        self._store, self._deep = store, deep
        self._sound: set[bytes] = set()
        self._wrong: dict[bytes, str] = {}
        self._packs: dict[str, list[tuple[str, str, int]] | None] = {}
        self.objects = self.bytes = 0

    def wrong(self, digest: str) -> str:
        """What is wrong with a blob; empty: nothing."""
        name = bytes.fromhex(digest)
        if name not in self._sound and name not in self._wrong:
            if wrong := self._look(digest):
                self._wrong[name] = wrong
            else:
                self._sound.add(name)
        return self._wrong.get(name, "")

    def json(self, digest: str) -> dict[str, Any]:
        """Content of a sound blob; empty where it is no JSON object."""
        try:
            body = json.loads(unpacked(self._store.get(layout.blob(digest))))
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    def unpacked(self, digest: str, key: str | None, entry: Any, model: Any, size: Any) -> str:
        """What is wrong with a model in a sound pack; empty: nothing, or the contents are not looked at."""
        if not self._deep:
            return ""
        if digest not in self._packs:
            self._packs[digest] = self._contents(digest)
        models = self._packs[digest]
        if models is None:
            return "is damaged: it cannot be read as a pack"
        if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry < len(models):
            return f"has {len(models):,} models, and no entry {entry!r}"
        if models[entry] != (key, model, size):
            return f"has another model in its entry {entry}"
        return ""

    def _contents(self, digest: str) -> list[tuple[str, str, int]] | None:
        """Key, sha256 and size of each model in a pack; None where it is none."""
        from airflow_mlops.registry.packs import PackReader

        try:
            models = PackReader(self._store).models(digest)
            return [(key, hashlib.sha256(data).hexdigest(), len(data)) for key, data in models]
        except (CorruptObject, UntrustedArtifact):
            return None

    def page(self, digest: str) -> bool:
        """Whether there is a report or bundle of that name."""
        return bytes.fromhex(digest) in self._pages

    @cached_property
    def _pages(self) -> set[bytes]:
        keys = (key for prefix in ("reports/", "handover/") for key in self._store.list(prefix))
        return {digest for key in keys if (digest := digest_of(key))}

    def _look(self, digest: str) -> str:
        key = layout.blob(digest)
        self.objects += 1
        try:
            if not self._deep:
                self.bytes += self._store.stat(key).size
                return ""
            return "" if self._digest(key) == digest else "is damaged: its bytes are not those that were stored"
        except ObjectNotFound:
            return self.IN_TRASH if trash.copies(self._store, key) else "is missing"
        except StoreError as e:
            if not unreadable(e):
                raise
            return f"cannot be read ({e.message})"

    def _digest(self, key: str) -> str:
        start = self._store.peek(key, _SMALL)
        if len(start) < _SMALL:  # it is the whole object
            self.bytes += len(start)
            return hashlib.sha256(start).hexdigest()
        with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
            path = Path(folder, "blob")
            self._store.get_file(key, path)
            self.bytes += path.stat().st_size
            return file_digest(path)
