"""Models of one kind: what all of them say is kept once, and of each its own values.

The skops file of a small model is mostly about what the model consists of: types, names of attributes, settings. Of
thousands of models that came from one estimator it says the same each time, and takes longer to write than many a
model to fit. So a pack keeps the *kind* once: the schema of the skops file without values, and what arrays it has.
A model's *entry* is the rest: numbers, texts, and the contents of its arrays. Both together are the skops file again,
byte for byte (:func:`join`), and whatever is loaded from it is checked as any other.

Most models are never written as a skops file: their values are read off the estimator itself. That is done only for a
kind whose first model was written by skops, split, and found to be equal to what was read off.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from airflow_mlops.exceptions import UntrustedArtifact
from airflow_mlops.registry.formats import MAX_BYTES, dump_bytes
from airflow_mlops.registry.reproducible import SCHEMA, Numbering, write_zip

MAGIC = b"MLOPSKD1"
"""How an entry begins; a skops file begins with ``PK``."""

_HEAD = struct.Struct("<8s32sI")
_MOST_KINDS = 256
HINT = "restore the store from a backup, or run the training again"

Entry = bytes
Kind = bytes


def kind_of(entry: Entry) -> str | None:
    """The sha256 of an entry's kind; ``None`` where it is a whole skops file."""
    if not entry.startswith(MAGIC):
        return None
    return _HEAD.unpack_from(entry)[1].hex() if len(entry) >= _HEAD.size else ""


def split(data: bytes) -> tuple[Kind, Entry] | None:
    """Part a skops file, as :func:`~airflow_mlops.registry.formats.dump_bytes` writes it, into kind and entry.

    :return: ``None`` where it holds files other than arrays, or something that would not come out the same.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            tree = json.loads(archive.read(SCHEMA))
            names = [name for name in archive.namelist() if name != SCHEMA]
            if names != [f"{n}.npy" for n in range(1, len(names) + 1)]:
                return None
            arrays = [np.load(io.BytesIO(archive.read(name)), allow_pickle=False) for name in names]
        values: list[Any] = []
        for node in _json_nodes(tree):
            if node["content"][:1] in ("{", "["):
                return None
            values.append(json.loads(node["content"]))
            node["content"], node["__id__"] = None, 0
        Numbering().apply(tree)
        said = {"arrays": [_told(array) for array in arrays], "schema": tree}
        kind = json.dumps(said, separators=(",", ":")).encode()
        entry = _entry(hashlib.sha256(kind).digest(), values, arrays)
        return (kind, entry) if join(kind, entry) == data else None
    except (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, RecursionError, UntrustedArtifact):
        return None  # it is no file that this package wrote


def join(kind: Kind, entry: Entry, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the skops file of a model.

    :param max_bytes: the most it may have.
    :raises UntrustedArtifact: the entry is damaged, of another kind, or too large.
    """
    if (digest := hashlib.sha256(kind).hexdigest()) != kind_of(entry):
        raise UntrustedArtifact(f"a model is of the kind {kind_of(entry)}, and this is {digest}", hint=HINT)
    try:
        said = json.loads(kind)
        values, arrays = read_entry(said, entry)
        if len(kind) + 2 * len(entry) > max_bytes:
            raise UntrustedArtifact(
                f"a model of {len(kind) + len(entry):,} bytes is too large; the limit is {max_bytes:,}",
                hint="train smaller models (fewer or shallower trees)",
            )
        tree = said["schema"]
        for node, value in zip(_json_nodes(tree), values, strict=True):
            node["content"] = json.dumps(value)
        numbering = Numbering()
        numbering.apply(tree)
        files = [
            (f"{n}.npy", _npy(array, *d)) for n, (array, d) in enumerate(zip(arrays, said["arrays"], strict=True), 1)
        ]
        target = io.BytesIO()
        schema = json.dumps(tree, separators=(",", ":")).encode()
        write_zip(target, files, schema, many=len(files), size=len(entry))
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError) as e:
        raise UntrustedArtifact(f"a model cannot be put together from its kind and values: {e}", hint=HINT) from e
    return target.getvalue()


def read_entry(said: dict[str, Any], entry: Entry) -> tuple[list[Any], list[np.ndarray]]:
    """Return values and arrays of an entry of the kind that says ``said``.

    :raises ValueError: it is damaged, or of another kind.
    """
    _, _, size = _HEAD.unpack_from(entry)
    at = _HEAD.size + size
    values, shapes = json.loads(entry[_HEAD.size : at])
    arrays: list[np.ndarray] = []
    for (descr, fortran), shape in zip(said["arrays"], shapes, strict=True):
        dtype = np.lib.format.descr_to_dtype(_tuples(descr))
        end = at + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or end > len(entry) or min(shape, default=0) < 0:
            raise ValueError(f"an entry of {len(entry):,} bytes has an array of type {dtype} and shape {shape}")
        # Bytes of its own, which may be written to; a copy as an array would leave the gaps between fields open.
        flat: np.ndarray = np.ndarray(math.prod(shape), dtype, bytearray(entry[at:end]))
        arrays.append(flat.reshape(shape, order="F" if fortran else "C"))
        at = end
    if at != len(entry):
        raise ValueError(f"an entry has {len(entry):,} bytes, and its arrays end at {at:,}")
    return values, arrays


class KindWriter:
    """Writes models as entries, of those kinds that can be told apart by their types alone; others as skops files.

    :param kinds: takes the kinds of the entries written, by sha256.
    """

    def __init__(self, kinds: dict[str, Kind]) -> None:
        self._kinds = kinds

    def dump(self, model: Any) -> Entry:
        """Return a model's entry, or its skops file; equal models give equal bytes.

        :raises TrainingError: as :func:`~airflow_mlops.registry.formats.dump_model`.
        """
        look = Look()
        if not look.of(model):
            return dump_bytes(model)
        form = tuple(look.form)
        if form not in _KNOWN:
            return self._first(model, form, look)
        found = _KNOWN[form]
        if found is None:
            return dump_bytes(model)
        digest, kind = found
        self._kinds[digest.hex()] = kind
        return _entry(digest, look.values, look.arrays)

    def _first(self, model: Any, form: tuple[Any, ...], look: Look) -> Entry:
        """Write the first model of a form by skops, and remember whether its values can be read off."""
        while len(_KNOWN) >= _MOST_KINDS:
            _KNOWN.pop(next(iter(_KNOWN)), None)
        data = dump_bytes(model)
        parts = split(data)
        _KNOWN[form] = None
        if parts is None:
            return data
        kind, entry = parts
        digest = hashlib.sha256(kind).digest()
        if _entry(digest, look.values, look.arrays) != entry:
            return data
        _KNOWN[form] = digest, kind
        self._kinds[digest.hex()] = kind
        return entry


_KNOWN: dict[tuple[Any, ...], tuple[bytes, Kind] | None] = {}
"""The kind of each form, as this process found out; ``None``: skops writes its models."""

_LEAF, _DICT, _LIST, _TUPLE, _ARRAY, _OBJECTS, _NUMBER, _OBJECT = range(8)
_SCALARS = frozenset({str, int, float, bool, type(None)})
_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was defined by a class statement
_CONTAINERS = (dict, list, tuple, set, frozenset, str, bytes, int, float, np.ndarray, np.generic, BaseException, type)


class Look:
    """What an estimator consists of, in the order in which skops writes it.

    :ivar form: types, names and which object is the same as which other one: two models with the same form have the
        same kind.
    :ivar values: numbers and texts.
    :ivar arrays: each once, where it comes first.
    """

    def __init__(self) -> None:
        self.form: list[Any] = []
        self.values: list[Any] = []
        self.arrays: list[np.ndarray] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # an object that is gone could leave its id to another one

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Look)
            and self.form == other.form
            and _entry(b"", self.values, self.arrays) == _entry(b"", other.values, other.arrays)
        )

    __hash__ = None  # type: ignore[assignment]

    def of(self, value: Any) -> bool:
        """Look at a value and all that it holds; False where something in it cannot be read off."""
        kind = type(value)
        form = self.form
        if kind in _SCALARS:
            form.append(_LEAF)
            self.values.append(value)
            return True
        seen = len(self._numbers)
        number = self._numbers.setdefault(id(value), seen)
        if number == seen:
            self._kept.append(value)
        if kind is dict:
            form += (_DICT, number, *value)
            return all(type(k) is str for k in value) and all(self.of(v) for v in value.values())
        if kind is list or kind is tuple:
            form += (_LIST if kind is list else _TUPLE, number, len(value))
            return all(self.of(v) for v in value)
        if kind is np.ndarray:
            return self._array(value, number, new=number == seen)
        if isinstance(value, np.generic):
            form += (_NUMBER, number, kind, value.dtype)
            if number == seen:
                self.arrays.append(np.asarray(value))
            return value.dtype.kind not in "OV"
        form += (_OBJECT, number, kind)
        if kind is np.random.RandomState:
            return self.of(value.get_state(legacy=False))
        if kind is np.random.Generator:
            return self.of(value.bit_generator.state) and self.of(value.bit_generator.seed_seq.state)
        if _plain(kind):  # type: ignore[arg-type]
            return self.of(value.__getstate__())
        if kind.__module__.startswith("sklearn.") and not kind.__flags__ & _HEAP:
            _, args, *state = value.__reduce__()
            return self.of(args) and (not state or self.of(state[0]))
        return False

    def _array(self, value: np.ndarray, number: int, *, new: bool) -> bool:
        dtype = value.dtype
        if dtype.kind == "O":
            self.form += (_OBJECTS, number, len(value.shape))
            return all(self.of(v) for v in value.tolist()) and self.of(value.shape)
        fortran = value.flags.f_contiguous and not value.flags.c_contiguous
        self.form += (_ARRAY, number, dtype, fortran, value.ndim)
        if new:
            self.arrays.append(value)
        return not dtype.hasobject


@lru_cache(maxsize=1024)
def _plain(kind: type) -> bool:
    """Whether objects of a class are their attributes, as Python itself would have them."""
    own = {name for base in kind.__mro__[:-1] for name in ("__reduce__", "__reduce_ex__") if name in vars(base)}
    return bool(kind.__flags__ & _HEAP) and not own and not issubclass(kind, _CONTAINERS)


def _entry(digest: bytes, values: list[Any], arrays: list[np.ndarray]) -> Entry:
    head = json.dumps([values, [array.shape for array in arrays]], separators=(",", ":")).encode()
    return b"".join([_HEAD.pack(MAGIC, digest, len(head)), head, *map(_contents, arrays)])


def _contents(array: np.ndarray) -> bytes:
    """An array's elements; the bytes between the fields of a record, which hold whatever was in memory, are zero."""
    if array.dtype.names is not None:
        clean = np.zeros(array.shape, array.dtype)
        for name in array.dtype.names:
            clean[name] = array[name]
        array = clean
    return array.tobytes("F" if _fortran(array) else "C")


def _fortran(array: np.ndarray) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


def _told(array: np.ndarray) -> list[Any]:
    return [np.lib.format.dtype_to_descr(array.dtype), _fortran(array)]


def _tuples(descr: Any) -> Any:
    """A type's description as numpy wants it; JSON has no tuples."""
    return [tuple(_tuples(part) for part in field) for field in descr] if isinstance(descr, list) else descr


def _npy(array: np.ndarray, descr: Any, fortran: bool) -> bytes:
    buffer = io.BytesIO()
    said = {"descr": _tuples(descr), "fortran_order": fortran, "shape": array.shape}
    header = np.lib.format.write_array_header_1_0 if array.dtype.names is None else np.lib.format.write_array_header_2_0
    header(buffer, said)
    buffer.write(array.tobytes("F" if fortran else "C"))
    return buffer.getvalue()


def is_value(node: dict[str, Any]) -> bool:
    """Whether a node of a skops file is a number, a text or None."""
    return node.get("__loader__") == "JsonNode"


def _json_nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes of values, in the order of the file."""
    if isinstance(node, dict):
        if is_value(node):
            yield node
            return
        for value in node.values():
            yield from _json_nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _json_nodes(value)
