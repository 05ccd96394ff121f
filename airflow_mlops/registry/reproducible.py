"""The same model, the same bytes: what skops writes carries times, addresses in memory and unused bytes."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_PLAIN = 2**31 - 1  # bytes, from where a zip needs larger fields
_FIELDS = re.compile(rb"(?s).{10,12}\{'descr': '")  # an array file whose elements have no fields


def rewrite(source: IO[bytes], target: IO[bytes]) -> bytes:
    """Write the skops file ``source`` to ``target`` so that its bytes depend on the model alone; return its schema.

    Which object is the same as which other one is kept; the numbers that say so are counted from 1.
    """
    with zipfile.ZipFile(source) as old:
        tree = json.loads(old.read(SCHEMA))
        numbering = Numbering()
        numbering.apply(tree)
        schema = json.dumps(tree, separators=(",", ":")).encode()
        size = sum(i.file_size for i in old.infolist())
        files = ((after, _read(old, before)) for before, after in numbering.files.items())
        write_zip(target, files, schema, many=len(numbering.files), size=size)
    return schema


def write_zip(target: IO[bytes], files: Iterable[tuple[str, bytes]], schema: bytes, *, many: int, size: int) -> None:
    """Write a skops file.

    :param files: name and contents of each.
    :param many: how many they are.
    :param size: about how many bytes they have.
    """
    plain = many < 2**16 - 1 and size + len(schema) < _PLAIN
    with (_Plain if plain else _Large)(target) as new:
        for name, data in files:
            new.add(name, data)
        new.add(SCHEMA, schema)


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    data = archive.read(name)
    return _settled(data) if name.endswith(".npy") else data


class _Plain:
    """A zip of stored files: the bytes that zipfile would write, for a tenth of the time."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._at = 0
        self._directory: list[bytes] = []

    def __enter__(self) -> _Plain:
        return self

    def add(self, name: str, data: bytes) -> None:
        """Add a file; its name is ASCII."""
        raw = name.encode("ascii")
        # Version 2.0, no flags, stored, 1980-01-01; no extra fields.
        said = struct.pack(
            "<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(raw), 0
        )  # fmt: skip
        self._directory.append(
            b"PK\x01\x02\x14\x03" + said + struct.pack("<HHHII", 0, 0, 0, 0o600 << 16, self._at) + raw
        )
        for part in (b"PK\x03\x04", said, raw, data):
            self._target.write(part)
        self._at += 30 + len(raw) + len(data)

    def __exit__(self, error: object, *more: object) -> None:
        if error is None:
            directory, count = b"".join(self._directory), len(self._directory)
            end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), self._at, 0)
            self._target.write(directory + b"PK\x05\x06" + end)


class _Large:
    """A zip of stored files of any size."""

    def __init__(self, target: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(target, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> _Large:
        return self

    def add(self, name: str, data: bytes) -> None:
        """Add a file."""
        info = zipfile.ZipInfo(name, date_time=_EPOCH)
        info.create_system = 3  # Unix, whatever writes it
        info.external_attr = 0o600 << 16
        self._archive.writestr(info, data)

    def __exit__(self, *error: object) -> None:
        self._archive.close()


class Numbering:
    """Numbers for objects and names for files, by where they first appear in the tree."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, Any], int] = {}
        self.files: dict[str, str] = {}

    def apply(self, node: Any) -> None:
        """Renumber the node and all below it, in place."""
        if isinstance(node, list):
            for item in node:
                self.apply(item)
        if not isinstance(node, dict):
            return
        if node.get("__loader__") == "SetNode":
            node["content"].sort(key=_without_numbers)
        # A dict's own entries of these names are nodes, that is dicts.
        if isinstance(node.get("__id__"), int):
            node["__id__"] = self.numbers.setdefault(_identity(node), len(self.numbers) + 1)
        if isinstance(node.get("file"), str):
            name = node["file"]
            node["file"] = self.files.setdefault(name, f"{len(self.files) + 1}{Path(name).suffix}")
        for value in node.values():
            self.apply(value)


def _identity(node: dict[str, Any]) -> tuple[str, Any]:
    """What makes an object the same: its value where it cannot change (Python may or may not share it), else its id."""
    content = node.get("content")
    if node.get("__loader__") == "JsonNode" and isinstance(content, str) and content[:1] not in ("{", "["):
        return "value", content
    if node.get("__loader__") == "FunctionNode":
        return "function", (node["__module__"], node["__class__"])
    return "object", node["__id__"]


def _without_numbers(node: Any) -> str:
    """A node of a set as text to sort by; a set's order changes from process to process."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if k not in ("__id__", "file")}
        return [bare(v) for v in value] if isinstance(value, list) else value

    return json.dumps(bare(node), sort_keys=True)


def _settled(data: bytes) -> bytes:
    """An array file whose bytes between the fields of a record, which hold whatever was in memory, are zero."""
    if _FIELDS.match(data):
        return data
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.names is None:
        return data
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    buffer = io.BytesIO()
    # np.save copies record by record, and such a copy leaves the gaps as they happen to be.
    np.lib.format.write_array_header_2_0(buffer, np.lib.format.header_data_from_array_1_0(clean))
    buffer.write(clean.reshape(-1).view(np.uint8).tobytes())
    return buffer.getvalue()
