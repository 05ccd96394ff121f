"""Packs: up to 128 models of a fleet in one Parquet blob, compressed together.

Columns ``key`` and ``model``, row groups of 64 models, zstd, checksums of pages. A model is a skops file, or the entry
of a kind (:mod:`airflow_mlops.registry.kinds`); the kinds of a pack's entries are in its metadata.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound, UntrustedArtifact
from airflow_mlops.registry.kinds import Kind, join, kind_of
from airflow_mlops.registry.version import model_name
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_blob, put_blob

PACK = "pack"
"""Format of a model that lies in a pack."""

MOST_MODELS = 128
MOST_BYTES = 16 << 20
"""Of all models of a pack together; a larger one has a pack of its own."""

_KINDS = "airflow_mlops.kinds"
_GROUP = 64
_OPEN, _MOST_KINDS = 4, 64
_SCHEMA = pa.schema([pa.field("key", pa.string(), nullable=False), pa.field("model", pa.binary(), nullable=False)])
_HINT = "restore the store from a backup, or run the training again; see `airflow mlops registry fsck`"


def write_pack(store: Store, models: Sequence[tuple[str, bytes]], kinds: Mapping[str, Kind] | None = None) -> str:
    """Store models as a pack and return its digest; the same models give the same bytes.

    :param models: key and skops bytes or entry of each, at most 128 and 16 MB unless it is one alone.
    :param kinds: of the entries, by sha256.
    :raises ValueError: they are more, none, a key is there twice, or the kind of an entry is missing.
    """
    keys, size = [key for key, _ in models], sum(len(data) for _, data in models)
    if not models or len(models) > MOST_MODELS or (size > MOST_BYTES and len(models) > 1):
        raise ValueError(f"{len(models)} models of {size:,} bytes are no pack: 1 to {MOST_MODELS} and {MOST_BYTES:,}")
    if len(set(keys)) < len(keys):
        raise ValueError("a pack has each key once")
    data = [pa.array(keys, pa.string()), pa.array([data for _, data in models], pa.binary())]
    told = _told(models, kinds or {})
    buffer = io.BytesIO()
    with pq.ParquetWriter(
        buffer,
        _SCHEMA,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(pa.Table.from_arrays(data, schema=_SCHEMA), row_group_size=_GROUP)
        if told:
            writer.add_key_value_metadata(told)
    return put_blob(store, buffer.getvalue())


def _told(models: Sequence[tuple[str, bytes]], kinds: Mapping[str, Kind]) -> dict[str, str]:
    """The kinds of a pack's entries, for its metadata."""
    used = sorted({kind for _, data in models if (kind := kind_of(data)) is not None})
    if missing := [digest for digest in used if digest not in kinds]:
        raise ValueError(f"the kind {missing[0]!r} of an entry is missing")
    packed = {digest: base64.b64encode(zlib.compress(kinds[digest], 9)).decode() for digest in used}
    return {_KINDS: json.dumps(packed)} if used else {}


def packs_of(models: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Cut models into what :func:`write_pack` takes, in their order."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for key, data in models:
        if part and (len(part) == MOST_MODELS or size + len(data) > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append((key, data))
        size += len(data)
    if part:
        yield part


@dataclass
class _Pack:
    """An open pack, the row where each of its row groups begins, and the group that was read last."""

    file: pq.ParquetFile
    starts: list[int]
    kinds: dict[str, str]
    group: int = -1
    rows: list[tuple[str, bytes]] = field(default_factory=list)


class PackReader:
    """Reads models from packs; the last few packs stay open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, _Pack] = {}
        self._kinds: dict[str, Kind] = {}
        self._lock = threading.Lock()

    def read(self, info: dict[str, Any], key: str | None, *, pipeline: str = "", max_bytes: int = 2 << 30) -> bytes:
        """Return the skops file of a model.

        :param info: model info of a version's record: ``pack``, ``entry``, ``digest``, ``bytes``.
        :param key: whose model it must be.
        :param max_bytes: the most that the pack, or a row group of it, or the model may have in memory.
        :raises CorruptObject: the pack is damaged, or holds another model there.
        :raises UntrustedArtifact: the pack is too large.
        """
        kind, data = self.parts(info, key, pipeline=pipeline, max_bytes=max_bytes)
        return data if kind is None else join(kind, data, max_bytes=max_bytes)

    def parts(
        self, info: dict[str, Any], key: str | None, *, pipeline: str = "", max_bytes: int = 2 << 30
    ) -> tuple[Kind | None, bytes]:
        """Return a model's kind and entry; of one that is a whole skops file, ``None`` and that file.

        As :meth:`read`.
        """
        with self._lock:
            found = self._row(info["pack"], info["entry"], max_bytes)
        name = model_name(pipeline, key)
        if found is None or found[0] != key:
            other = f"entry {info['entry']}" if found is None else f"{name} in entry {info['entry']} but {found[0]!r}"
            raise CorruptObject(f"the pack {info['pack']} of {name} in {self._store.uri} has no {other}", hint=_HINT)
        if len(found[1]) != info["bytes"] or (digest := hashlib.sha256(found[1]).hexdigest()) != info["digest"]:
            said = f"{len(found[1]):,} bytes" if len(found[1]) != info["bytes"] else f"the sha256 {digest}"
            raise CorruptObject(
                f"the model of {name} in the pack {info['pack']} in {self._store.uri} has {said}, which is not what "
                "was registered",
                hint=_HINT,
            )
        kind = kind_of(found[1])
        if kind is None:
            return None, found[1]
        with self._lock:
            return self._kind(info["pack"], kind, max_bytes), found[1]

    def _kind(self, pack: str, digest: str, max_bytes: int) -> Kind:
        """A kind, once for all packs that hold it."""
        if digest not in self._kinds:
            with self._sound(pack):
                packed = zlib.decompressobj()
                kind = packed.decompress(base64.b64decode(self._opened(pack, max_bytes).kinds[digest]), max_bytes)
                if hashlib.sha256(kind).hexdigest() != digest:
                    raise ValueError(f"the kind {digest} is another one, or too large")
            while len(self._kinds) >= _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
            self._kinds[digest] = kind
        return self._kinds[digest]

    def models(self, digest: str, *, max_bytes: int = 2 << 30) -> Iterator[tuple[str, bytes]]:
        """Yield key and skops bytes, or entry, of every model of a pack, one row group in memory.

        :raises CorruptObject, UntrustedArtifact: as :meth:`read`.
        """
        pack = self._opened(digest, max_bytes)
        for group in range(len(pack.starts) - 1):
            yield from self._group(pack, digest, group, max_bytes)

    def _row(self, digest: str, entry: int, max_bytes: int) -> tuple[str, bytes] | None:
        pack = self._opened(digest, max_bytes)
        for group, start in enumerate(pack.starts[:-1]):
            if start <= entry < pack.starts[group + 1]:
                return self._group(pack, digest, group, max_bytes)[entry - start]
        return None

    def _opened(self, digest: str, max_bytes: int) -> _Pack:
        if digest in self._open:
            self._open[digest] = self._open.pop(digest)
            return self._open[digest]
        with suppress(ObjectNotFound):  # it may be in the trash, from where it is restored
            self._check_size(digest, self._store.stat(layout.blob(digest)).size, max_bytes)
        raw = get_blob(self._store, digest)
        with self._sound(digest):
            file = pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True)
            if [(f.name, f.type) for f in file.schema_arrow] != [(f.name, f.type) for f in _SCHEMA]:
                raise ValueError("it has other columns")
            rows = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]
            kinds = json.loads((file.metadata.metadata or {}).get(_KINDS.encode(), b"{}"))
        while len(self._open) >= _OPEN:
            del self._open[next(iter(self._open))]
        self._open[digest] = _Pack(file, [sum(rows[:n]) for n in range(len(rows) + 1)], kinds)
        return self._open[digest]

    def _group(self, pack: _Pack, digest: str, group: int, max_bytes: int) -> list[tuple[str, bytes]]:
        if pack.group != group:
            self._check_size(digest, pack.file.metadata.row_group(group).total_byte_size, max_bytes)
            with self._sound(digest):
                table = pack.file.read_row_group(group, use_threads=False)
                pack.rows = [*zip(table["key"].to_pylist(), table["model"].to_pylist(), strict=True)]
                if len(pack.rows) != pack.starts[group + 1] - pack.starts[group]:
                    raise ValueError("a row group has other rows than it says")
            pack.group = group
        return pack.rows

    @contextmanager
    def _sound(self, digest: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError, zlib.error) as e:
            raise CorruptObject(f"the pack {digest} in {self._store.uri} cannot be read: {e}", hint=_HINT) from e

    def _check_size(self, digest: str, size: int, max_bytes: int) -> None:
        if size > max_bytes:
            raise UntrustedArtifact(
                f"the pack {digest} in {self._store.uri} has {size:,} bytes; the limit is {max_bytes:,}",
                hint="train smaller models (fewer or shallower trees)",
            )
