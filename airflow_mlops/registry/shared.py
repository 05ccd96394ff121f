"""What the records of many versions have in common, kept once: ``record["of"]`` is the digest of a blob with it."""

from __future__ import annotations

import copy
import json
import re
import threading
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_text

OF = "of"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEPT = 128

Record = dict[str, Any]


def shared_digest(record: Any) -> str | None:
    """Digest of the blob with the rest of a record; None where the record is whole."""
    digest = record.get(OF) if isinstance(record, dict) else None
    return digest if isinstance(digest, str) and _DIGEST.fullmatch(digest) else None


class Shared:
    """The shared parts of the records of one registry; the last ones that were read are kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, tuple[bytes, Record]] = {}
        self._lock = threading.Lock()

    def whole(self, record: Any) -> Any:
        """Return a record with its shared part, ``{**shared, **own}``, where dicts are merged one level deep.

        Treat it as read-only: other records have the same parts.

        :raises CorruptObject: when the shared part is missing or damaged.
        """
        digest = shared_digest(record)
        return record if digest is None else merged(self._read(digest)[1], record)

    def named(self, digest: str) -> Record:
        """A JSON object that the records of many versions name, such as the list of a drift reference; read-only.

        :raises CorruptObject: when it is missing or damaged.
        """
        return self._read(digest)[1]

    def own_copy(self, record: Any) -> Any:
        """Return what :meth:`whole` does, as a copy that may be changed."""
        own, digest = copy.deepcopy(record), shared_digest(record)
        # Parsed again: that is several times as fast as a deep copy.
        return own if digest is None else merged(json.loads(self._read(digest)[0]), own)

    def _read(self, digest: str) -> tuple[bytes, Record]:
        with self._lock:
            if digest in self._kept:
                return self._kept[digest]
        try:
            raw = get_text(self._store, digest)
            body = json.loads(raw)
            if not isinstance(body, dict):
                raise ValueError("it is no JSON object")
        except (ObjectNotFound, CorruptObject, ValueError) as e:
            what = "is missing" if isinstance(e, ObjectNotFound) else "is damaged"
            raise CorruptObject(
                f"the shared part {digest} of the records of a training run {what} in {self._store.uri}",
                hint="restore this object from a backup, or run the training again; see `airflow mlops registry fsck`",
            ) from e
        with self._lock:
            while len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[digest] = raw, body
        return raw, body


def merged(shared: Record, own: Record) -> Record:
    """``{**shared, **own}``, where a dict on both sides is merged likewise."""
    whole = {**shared, **own}
    for name, value in own.items():
        if isinstance(value, dict) and isinstance(before := shared.get(name), dict):
            whole[name] = {**before, **value}
    return whole
