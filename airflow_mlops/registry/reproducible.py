"""The same model, the same bytes: what skops writes carries times, addresses in memory and unused bytes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

SCHEMA = "schema.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold


def rewrite(source: IO[bytes], path: Path) -> None:
    """Write the skops file ``source`` to ``path`` so that its bytes depend on the model alone.

    Which object is the same as which other one is kept; the numbers that say so are counted from 1.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        tree = json.loads(old.read(SCHEMA))
        numbering = _Numbering()
        numbering.apply(tree)
        for before, after in numbering.files.items():
            data = old.read(before)
            _add(new, after, _settled(data) if after.endswith(".npy") else data)
        _add(new, SCHEMA, json.dumps(tree, separators=(",", ":")).encode())


class _Numbering:
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


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = 3  # Unix, whatever writes it
    info.external_attr = 0o600 << 16
    archive.writestr(info, data)
