"""Content-addressed blobs and canonical JSON on top of any store."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectExists, ObjectNotFound, StoreUnavailable
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.trash import recovering

PACKED = b"\x1f\x8b"
"""How compressed JSON begins."""

_ATTEMPTS = 5
_GZIP = 31
_LONG, _MOST = 1000, 1 << 30  # bytes of JSON: what is compressed, and what is unpacked at most
_UNUSUAL = re.compile(r"[^\n -~]")


def canonical_json(obj: Any) -> bytes:
    """Return ``obj`` as JSON with sorted keys and no spaces: equal objects give equal bytes.

    :raises ValueError: for NaN and infinity, which JSON does not have.
    :raises TypeError: for anything that is not plain Python.
    """
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def readable_json(value: Any) -> str:
    """Return ``value`` as JSON for people: indented, and escaped only where a terminal would obey or not show it.

    What somebody else wrote into a record may hold control characters, or half a character, which is no UTF-8.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _UNUSUAL.sub(lambda found: found[0] if found[0].isprintable() else _escaped(found[0]), text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def put_blob(store: Store, data: bytes) -> str:
    """Store ``data`` under its sha256 and return that; storing it twice is the same as once.

    A blob that is already there becomes as young as a new one, so that no garbage collection takes it before
    whoever stores it has committed what names it.
    """
    digest = hashlib.sha256(data).hexdigest()
    key = layout.blob(digest)
    for _ in range(_ATTEMPTS):
        try:
            store.put_if_absent(key, data)
        except ObjectExists:
            with suppress(ObjectNotFound):  # collected in between
                store.touch(key)
                return digest
        else:
            return digest
    raise StoreUnavailable(
        f"the object {key!r} in {store.uri} came and went {_ATTEMPTS} times", hint="the task is retried"
    )


def put_blob_file(store: Store, path: Path) -> str:
    """Store the file at ``path`` as :func:`put_blob` does, without holding it in memory."""
    digest = file_digest(path)
    key = layout.blob(digest)
    try:
        store.touch(key)
    except ObjectNotFound:
        store.put_file(key, path)
    return digest


def get_blob(store: Store, digest: str) -> bytes:
    """Return the blob, verified; one in the trash is restored.

    :raises CorruptObject: when the bytes do not have the digest.
    """
    key = layout.blob(digest)
    data = recovering(store, key, lambda: store.get(key))
    _verify(store, digest, hashlib.sha256(data).hexdigest())
    return data


def get_blob_file(store: Store, digest: str, path: Path) -> None:
    """Download the blob to ``path``; the file appears only once it is verified. One in the trash is restored.

    :raises CorruptObject: when the bytes do not have the digest.
    """
    path, key = Path(path), layout.blob(digest)
    tmp = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        recovering(store, key, lambda: store.get_file(key, tmp))
        _verify(store, digest, file_digest(tmp))
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def put_json(store: Store, obj: Any, *, packed: bool = False) -> str:
    """Store ``obj`` as canonical JSON and return the blob's sha256; NaN is refused with ValueError.

    :param packed: compress it where it is long; readers need not know.
    """
    return put_blob(store, packed_json(obj) if packed else canonical_json(obj))


def get_json(store: Store, digest: str) -> Any:
    """Return the object stored by :func:`put_json`, verified."""
    return json.loads(get_text(store, digest))


def get_text(store: Store, digest: str) -> bytes:
    """Return the JSON stored by :func:`put_json`, verified.

    :raises CorruptObject: when it cannot be unpacked.
    """
    raw = get_blob(store, digest)
    try:
        return unpacked(raw)
    except ValueError as e:
        raise CorruptObject(
            f"the object {layout.blob(digest)!r} in {store.uri} cannot be unpacked: {e}",
            hint="restore the store from a backup: it was not written by this package",
        ) from e


def packed_json(obj: Any) -> bytes:
    """Return ``obj`` as canonical JSON, compressed by gzip where it is long."""
    data = canonical_json(obj)
    if len(data) < _LONG:
        return data
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)  # its header names no time
    return packer.compress(data) + packer.flush()


def unpacked(raw: bytes) -> bytes:
    """Return the JSON that :func:`packed_json` packed; other bytes as they are.

    :raises ValueError: they are damaged, or too many.
    """
    if not raw.startswith(PACKED):
        return raw
    packer = zlib.decompressobj(_GZIP)
    try:
        data = packer.decompress(raw, _MOST)
    except zlib.error as e:
        raise ValueError(str(e)) from e
    if not packer.eof or packer.unused_data:
        raise ValueError(f"it does not end where it should, or has more than {_MOST:,} bytes")
    return data


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits, without holding it in memory."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(store: Store, expected: str, actual: str) -> None:
    if actual != expected:
        raise CorruptObject(
            f"the object {layout.blob(expected)!r} in {store.uri} is damaged: its sha256 is {actual}",
            hint="restore this object from a backup, or delete it and repeat the run that made it",
        )
