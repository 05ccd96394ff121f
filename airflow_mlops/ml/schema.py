"""The locked schema: the first good run fixes columns and their type families; what differs later is schema skew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import CorruptObject, ObjectExists, ObjectNotFound, SchemaSkew
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

_FAMILIES = {
    "number": ("int", "uint", "float", "double", "halffloat", "decimal"),
    "text": ("string", "large_string"),
    "boolean": ("bool",),
    "time": ("timestamp", "date", "time", "duration"),
    "empty": ("null",),
}


def family(arrow_type: str) -> str:
    """The family of an Arrow type given as text.

    One of ``number``, ``text``, ``boolean``, ``time``, ``empty`` (no value yet: fits all) and ``other``.
    """
    for name, starts in _FAMILIES.items():
        if arrow_type.startswith(starts):
            return name
    return "other"


@dataclass(frozen=True)
class SchemaDiff:
    """What differs from the lock: names of columns, and for retyped ones (locked, now) type families."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    retyped: dict[str, tuple[str, str]]
    key: str

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.retyped)

    @property
    def message(self) -> str:
        """One clause per column."""
        parts = [f"{c!r} was {old} and is {new}" for c, (old, new) in self.retyped.items()]
        parts += [f"{c!r} is missing" for c in self.removed] + [f"{c!r} is new" for c in self.added]
        return "; ".join(parts) or "no difference"

    def check(self) -> None:
        """Raise :class:`SchemaSkew` when something differs."""
        if self:
            raise SchemaSkew(
                f"the data's schema differs from the locked one: {self.message}",
                hint="repair the source; or list columns that are not used in data.exclude; or, when the change is "
                f"meant, remove the lock {self.key} from the store and the next good run sets a new one",
            )


def used_columns(snapshot: Snapshot, data: Data) -> dict[str, str]:
    """Column → type family, without ``data.exclude``."""
    return {n: family(t) for n, t in snapshot.columns.items() if n not in data.exclude}


def lock_schema(snapshot: Snapshot, store: Store, data: Data) -> dict[str, str]:
    """Lock the snapshot's schema unless one is locked; return the lock in force."""
    columns = used_columns(snapshot, data)
    body = {"columns": columns, "snapshot": snapshot.digest}
    try:
        store.put_if_absent(layout.schema(snapshot.pipeline), json.dumps(body, sort_keys=True).encode())
    except ObjectExists:
        return locked_schema(store, snapshot.pipeline) or columns
    return columns


def locked_schema(store: Store, pipeline: str) -> dict[str, str] | None:
    """The locked column → type family, or None before the first good run.

    :raises CorruptObject: when the lock cannot be read.
    """
    key = layout.schema(pipeline)
    try:
        raw = store.get(key)
    except ObjectNotFound:
        return None
    try:
        columns: Any = json.loads(raw)["columns"]
        if not isinstance(columns, dict):
            raise TypeError("columns")
    except (ValueError, KeyError, TypeError) as e:
        raise CorruptObject(
            f"the schema lock {key} cannot be read", hint="remove it; the next good run sets a new one"
        ) from e
    return columns


def compare_schema(snapshot: Snapshot, store: Store, data: Data, *, target_optional: bool = False) -> SchemaDiff:
    """Compare the used columns with the lock; nothing differs before there is one.

    Integer → float is no change (both number), nor is a column without values. The target may be absent with
    ``target_optional``.
    """
    locked = locked_schema(store, snapshot.pipeline)
    key = f"{store.uri}/{layout.schema(snapshot.pipeline)}"
    now: Mapping[str, str] = used_columns(snapshot, data)
    if locked is None:
        return SchemaDiff((), (), {}, key)
    # A column excluded since the lock was set is no longer looked at.
    locked = {n: f for n, f in locked.items() if n not in data.exclude}
    if target_optional:
        locked = {n: f for n, f in locked.items() if n != data.target}
        now = {n: f for n, f in now.items() if n != data.target}
    retyped = {
        n: (locked[n], now[n])
        for n in locked
        if n in now and locked[n] != now[n] and "empty" not in (locked[n], now[n])
    }
    return SchemaDiff(tuple(n for n in now if n not in locked), tuple(n for n in locked if n not in now), retyped, key)
