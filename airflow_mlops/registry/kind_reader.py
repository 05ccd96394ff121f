"""Load many models of one kind: what the kind says is looked through once, not again for each model."""

from __future__ import annotations

import json
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from airflow_mlops.exceptions import UntrustedArtifact
from airflow_mlops.registry.formats import MAX_BYTES, load_model
from airflow_mlops.registry.kinds import HINT, Entry, Kind, Look, is_value, join, kind_of, read_entry

Values = Sequence[Any]
Arrays = Sequence[np.ndarray]
Made = dict[int, Any]
Build = Callable[[Values, Arrays, Made], Any]


class KindReader:
    """Loads models from kinds and entries.

    The first model of a kind is loaded as any skops file: its size and all its types, which are the kind's, are
    checked before anything is built. It is then built a second time, from its values alone; where that gives the same
    model, the others of its kind are built so, for a small part of the time.

    :param trusted: as :func:`~airflow_mlops.registry.formats.load_model`, with ``max_bytes``.
    """

    def __init__(self, trusted: Sequence[str] = (), max_bytes: int = MAX_BYTES) -> None:
        self._trusted, self._max_bytes = trusted, max_bytes
        self._known: dict[str, _Builder | None] = {}

    def load(self, kind: Kind, entry: Entry) -> Any:
        """Return the estimator.

        :raises UntrustedArtifact: as :func:`~airflow_mlops.registry.formats.load_model`, and for a damaged entry.
        """
        digest = str(kind_of(entry))
        if digest not in self._known:
            model = load_model(join(kind, entry), trusted=self._trusted, max_bytes=self._max_bytes)
            self._known[digest] = _builder(kind, entry, model)
            return model
        builder = self._known[digest]
        if builder is None:
            return load_model(join(kind, entry), trusted=self._trusted, max_bytes=self._max_bytes)
        try:
            return builder.build(entry)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, struct.error) as e:
            raise UntrustedArtifact(f"a model cannot be built of its values: {e}", hint=HINT) from e


def _builder(kind: Kind, entry: Entry, model: Any) -> _Builder | None:
    """What builds models of a kind; ``None`` where that would give another model than ``model``, the first one."""
    said = json.loads(kind)
    try:
        builder = _Builder(said)
    except _NotBuilt:
        return None
    loaded, built = Look(), Look()
    same = loaded.of(model) and built.of(builder.build(entry)) and loaded == built
    return builder if same else None


class _NotBuilt(Exception):
    """A node that only skops builds."""


class _Builder:
    """Builds models of a kind from their values."""

    def __init__(self, said: dict[str, Any]) -> None:
        self._said = said
        self._values = 0
        self._shared: Counter[int] = Counter()
        self._count(said["schema"])
        self._build = self._of(said["schema"])

    def build(self, entry: Entry) -> Any:
        values, arrays = read_entry(self._said, entry)
        if len(values) != self._values:
            raise ValueError(f"its kind has {self._values:,} values, and it has {len(values):,}")
        return self._build(values, arrays, {})

    def _count(self, node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                self._count(item)
        elif isinstance(node, dict):
            if isinstance(number := node.get("__id__"), int) and not is_value(node):
                self._shared[number] += 1
            for value in node.values():
                self._count(value)

    def _of(self, node: dict[str, Any]) -> Build:
        """How a node is built; an object that is there several times is built once."""
        if is_value(node):
            place = self._values
            self._values += 1
            return lambda values, arrays, made: values[place]
        build = _BUILDERS.get(node.get("__loader__", ""))
        if build is None:
            raise _NotBuilt
        once, number = build(self, node), node["__id__"]
        if self._shared[number] == 1:
            return once

        def shared(values: Values, arrays: Arrays, made: Made) -> Any:
            if number not in made:
                made[number] = once(values, arrays, made)
            return made[number]

        return shared

    def _dict(self, node: dict[str, Any]) -> Build:
        names = [*node["content"]]
        keys = node["key_types"]["content"]
        if _name(node) != "builtins.dict" or any(_name(k) != "builtins.str" for k in keys):
            raise _NotBuilt
        parts = [*zip(names, map(self._of, node["content"].values()), strict=True)]
        return lambda values, arrays, made: {name: part(values, arrays, made) for name, part in parts}

    def _list(self, node: dict[str, Any]) -> Build:
        if _name(node) != "builtins.list":
            raise _NotBuilt
        parts = [*map(self._of, node["content"])]
        return lambda values, arrays, made: [part(values, arrays, made) for part in parts]

    def _tuple(self, node: dict[str, Any]) -> Build:
        if _name(node) != "builtins.tuple":
            raise _NotBuilt
        parts = [*map(self._of, node["content"])]
        return lambda values, arrays, made: tuple([part(values, arrays, made) for part in parts])

    def _array(self, node: dict[str, Any]) -> Build:
        if node["type"] == "json":
            return self._objects(node)
        place = int(node["file"].partition(".")[0]) - 1
        if _name(node) == "numpy.ndarray":
            return lambda values, arrays, made: arrays[place]
        kind = _class(node)
        if not issubclass(kind, np.generic):
            raise _NotBuilt
        return lambda values, arrays, made: kind(arrays[place])

    def _objects(self, node: dict[str, Any]) -> Build:
        parts, shape = [*map(self._of, node["content"])], self._of(node["shape"])

        def build(values: Values, arrays: Arrays, made: Made) -> Any:
            items = [part(values, arrays, made) for part in parts]
            if len(shape(values, arrays, made)) != 1:
                return np.array(items, dtype=object)
            flat = np.empty(len(items), dtype=object)
            flat[:] = items
            return flat

        return build

    def _object(self, node: dict[str, Any]) -> Build:
        kind, content = _class(node), node.get("content")
        attributes = self._of(content) if content is not None else None

        def build(values: Values, arrays: Arrays, made: Made) -> Any:
            found = kind.__new__(kind)
            given = attributes(values, arrays, made) if attributes is not None else None
            if given is not None:
                if hasattr(found, "__setstate__"):
                    found.__setstate__(given)
                else:
                    found.__dict__.update(given)
            return found

        return build

    def _tree(self, node: dict[str, Any]) -> Build:
        from sklearn.tree._tree import Tree

        args, state = self._of(node["__reduce__"]["args"]), self._of(node["content"])

        def build(values: Values, arrays: Arrays, made: Made) -> Any:
            tree = Tree(*args(values, arrays, made))
            tree.__setstate__(state(values, arrays, made))
            return tree

        return build

    def _random_state(self, node: dict[str, Any]) -> Build:
        content = self._of(node["content"])

        def build(values: Values, arrays: Arrays, made: Made) -> Any:
            found = np.random.RandomState()
            found.set_state(content(values, arrays, made))
            return found

        return build


_BUILDERS: dict[str, Callable[[_Builder, dict[str, Any]], Build]] = {
    "DictNode": _Builder._dict,
    "ListNode": _Builder._list,
    "TupleNode": _Builder._tuple,
    "NdArrayNode": _Builder._array,
    "ObjectNode": _Builder._object,
    "TreeNode": _Builder._tree,
    "RandomStateNode": _Builder._random_state,
}
"""Nodes of skops that are built here, as skops builds them (skops.io._general, _numpy, _sklearn)."""


def _name(node: dict[str, Any]) -> str:
    return f"{node['__module__']}.{node['__class__']}"


def _class(node: dict[str, Any]) -> Any:
    """A class that was found to be trusted, and is imported since."""
    found = getattr(sys.modules.get(node["__module__"]), node["__class__"], None)
    if not isinstance(found, type):
        raise _NotBuilt
    return found
