"""Retention: giving up the rows of old snapshots and captures, on the record."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.registry.entry import Entry, op_id
from airflow_mlops.registry.items import expanded
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.released import RETENTION, capture_pointers, retention_notes, snapshot_of
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

_Model = tuple[str | None, int]


@dataclass
class Expired:
    """What :func:`expire` released: digests of snapshots, and keys of the pointers to captures.

    ``kept`` counts what was old enough, but belongs to a version that may still serve.
    """

    pipeline: str
    snapshots: list[str] = field(default_factory=list)
    captures: list[str] = field(default_factory=list)
    kept: int = 0

    @property
    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.pipeline}: {len(self.snapshots)} snapshots and {len(self.captures)} captures released; "
            f"{self.kept} as old are kept for the champion, the challenger and the champion before. "
            "The next garbage collections delete what nothing else needs."
        )


def expire(
    store: Store,
    pipeline: str,
    *,
    snapshots: timedelta | None = None,
    captures: timedelta | None = None,
    now: datetime | None = None,
) -> Expired:
    """Release the rows of snapshots and captures that are older than that; None: of any age are kept.

    A snapshot's age counts from the end of its window, or where it has none from the registration of the
    newest version trained on it; a capture's from the end of its window. Never released are those of the
    champion, of the challenger, and of the champion before, to which a rollback returns. Each release is a
    note ``retention`` of the version that was trained on the snapshot, or scored the capture. A fleet's capture is
    released by its age alone, with a note of the fleet's first version. A snapshot's manifest stays: columns, rows,
    fingerprint.

    The files themselves are deleted by :func:`~airflow_mlops.registry.gc.collect`, in its own time, unless
    something that is kept needs them, too. It may be killed anywhere, and repeated.

    :param now: aware; default: now.
    :raises CorruptObject, StoreUnavailable: as the store and the registry do.
    """
    now = now or datetime.now(UTC)
    registry = Registry(store, pipeline)
    entries = [*expanded(store, Log(store, layout.log_prefix(pipeline)).entries())]
    needed = _needed(registry)
    done = Expired(pipeline)
    if snapshots is not None:
        _snapshots(registry, entries, needed, snapshots, now, done)
    if captures is not None:
        versions = {_model(e) for e in entries if e.type == "register"}
        _captures(registry, versions, needed, captures, now, done)
    return done


def _needed(registry: Registry) -> set[_Model]:
    """Versions that serve, are tried, or would serve after a rollback."""
    return registry.log.view(
        lambda state: {
            (model.key, number)
            for model in state.models.values()
            for number in (model.champion, model.challenger, *model.before[-1:])
            if number is not None
        }
    )


def _snapshots(
    registry: Registry, entries: list[Entry], needed: set[_Model], age: timedelta, now: datetime, done: Expired
) -> None:
    released = {(e.key, e.payload["version"]) for e, note in retention_notes(entries) if note["what"] == "snapshot"}
    trained: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.type == "register" and (digest := snapshot_of(entry.payload["record"])):
            trained.setdefault(digest, []).append(entry)
    for digest, registrations in trained.items():
        # All versions of a snapshot let go of it together, or the note of one would say what is not so.
        left = [e for e in registrations if _model(e) not in released]
        if not left or max(_end(e) for e in left) >= now - age:
            continue
        if any(_model(e) in needed for e in left):
            done.kept += 1
            continue
        window = left[0].payload["record"]["snapshot"].get("window")
        _note_snapshot(registry, [_model(e) for e in left], digest, window, age)
        done.snapshots.append(digest)


def _captures(
    registry: Registry, versions: set[_Model], needed: set[_Model], age: timedelta, now: datetime, done: Expired
) -> None:
    store = registry.store
    # Rows of a fleet are scored by thousands of versions. One of them, always the same, has the note: it says of the
    # capture that it is gone, and nothing of the version.
    of_fleet = min((model for model in versions if model[0] is not None), default=None)
    for key, pointer in [*capture_pointers(store, registry.pipeline)]:
        window, digest, version = pointer.get("window"), pointer.get("capture"), pointer.get("version")
        if not isinstance(window, dict) or not isinstance(digest, str) or _time(window["end"]) >= now - age:
            continue
        model = (pointer.get("key"), version)
        if version is None and of_fleet is not None:
            model = of_fleet
        elif model in needed:
            done.kept += 1
            continue
        if model in versions:
            _note(registry, model, "capture", digest, window, age)
        if _still(store, key, pointer):
            store.delete(key)
            done.captures.append(key)


def _note_snapshot(
    registry: Registry, models: list[_Model], digest: str, window: dict[str, Any] | None, age: timedelta
) -> None:
    """One commit for each model without a key, and one for a version of each of the models of a fleet."""
    rounds: list[dict[str, int]] = []
    for key, number in models:
        if key is None:
            _note(registry, (key, number), "snapshot", digest, window, age)
            continue
        free = next((round for round in rounds if key not in round), None)
        if free is None:
            rounds.append(free := {})
        free[key] = number
    note = {"what": "snapshot", "digest": digest, "window": window, "older_than": _days(age)}
    for numbers in rounds:
        operation = op_id(RETENTION, "snapshot", registry.pipeline, sorted(numbers.items()), digest)
        registry.annotate_many({key: (number, RETENTION, note) for key, number in numbers.items()}, op_id=operation)


def _note(
    registry: Registry, model: _Model, what: str, digest: str, window: dict[str, Any] | None, age: timedelta
) -> None:
    key, number = model
    note = {"what": what, "digest": digest, "window": window, "older_than": _days(age)}
    operation = op_id(RETENTION, what, registry.pipeline, key, number, digest)
    registry.annotate(number, RETENTION, note, op_id=operation, key=key)


def _still(store: Store, key: str, pointer: dict[str, Any]) -> bool:
    """Whether the pointer is what it was: the window may have been scored again."""
    try:
        return bool(json.loads(store.get(key)) == pointer)
    except ObjectNotFound:
        return False


def _model(entry: Entry) -> _Model:
    return entry.key, entry.payload["version"]


def _end(registration: Entry) -> datetime:
    window = registration.payload["record"]["snapshot"].get("window")
    return _time(window["end"] if window else registration.at)


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _days(age: timedelta) -> str:
    days = age / timedelta(days=1)
    return f"{days:g} days"
