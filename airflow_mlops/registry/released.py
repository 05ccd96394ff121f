"""What retention has given up, as the registry's entries say it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.salvage import Fold, Model
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

RETENTION = "retention"
"""Kind of the note ``{"what": "snapshot" or "capture", "digest", "window", "older_than"}``."""


def snapshot_of(record: Any) -> str | None:
    """Digest of the snapshot that a version's record names."""
    reference = record.get("snapshot") if isinstance(record, dict) else None
    digest = reference.get("snapshot") if isinstance(reference, dict) else None
    return digest if isinstance(digest, str) else None


def retention_notes(entries: Iterable[Entry]) -> list[tuple[Entry, dict[str, Any]]]:
    """The notes of retention, oldest first."""
    return [(e, e.payload["note"]) for e in entries if e.type == "annotate" and e.payload["kind"] == RETENTION]


def released_snapshots(entries: list[Entry]) -> set[bytes]:
    """Snapshots (32 bytes each) that retention has released of every version that was trained on them.

    A version that serves, is tried, or would serve after a rollback keeps its own whatever was noted: it
    may have been promoted since.

    :param entries: of a registry's log, batches expanded.
    """
    needed = _folded(entries).needed()
    noted = {
        (e.key, e.payload["version"], note["digest"])
        for e, note in retention_notes(entries)
        if note["what"] == "snapshot" and (e.key, e.payload["version"]) not in needed
    }
    trained = {
        (e.key, e.payload["version"], digest)
        for e in entries
        if e.type == "register" and (digest := snapshot_of(e.payload["record"]))
    }
    kept = {digest for _, _, digest in trained - noted}
    return {bytes.fromhex(digest) for _, _, digest in noted if digest not in kept}


def released_references(entries: list[Entry]) -> set[bytes]:
    """Drift references of a fleet (32 bytes each) whose rows nobody needs any more.

    A version needs its own while it serves, is tried, or would serve after a rollback, and as the newest of its key: a
    person may still say yes to it.

    :param entries: of a registry's log, batches expanded.
    """
    naming: dict[str, set[Model]] = defaultdict(set)
    newest: dict[str | None, int] = {}
    for e in entries:
        if e.type == "register":
            newest[e.key] = e.payload["version"]
            if digest := reference_of(e.payload["record"]):
                naming[digest].add((e.key, e.payload["version"]))
    if not naming:
        return set()
    folded = _folded(entries)
    # The newest version of a key that has vanished is retired: it comes to nothing any more.
    used = folded.needed() | {model for model in newest.items() if not folded.versions[model].retired}
    return {bytes.fromhex(digest) for digest, versions in naming.items() if not versions & used}


def reference_of(record: Any) -> str | None:
    """Digest of the drift reference that the record of a fleet's version names."""
    digest = record.get("reference") if isinstance(record, dict) else None
    return digest if isinstance(digest, str) and layout.is_digest(digest) else None


def _folded(entries: Iterable[Entry]) -> Fold:
    found = Fold()
    for entry in entries:
        found.take(entry)
    return found


def released_captures(store: Store, pipeline: str, entries: list[Entry]) -> set[bytes]:
    """Captures (32 bytes each) that retention has released and no window points to."""
    noted = {note["digest"] for _, note in retention_notes(entries) if note["what"] == "capture"}
    if not noted:
        return set()
    kept = {pointer.get("capture") for _, pointer in capture_pointers(store, pipeline)}
    return {bytes.fromhex(digest) for digest in noted - kept}


def capture_pointers(store: Store, pipeline: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield key and content of every pointer to a capture, also those of rehearsals and of versions that were rolling
    out; unreadable ones are left out.
    """
    prefixes = [layout.captures_prefix(pipeline, rehearsal=rehearsal) for rehearsal in (False, True)]
    for prefix in (*prefixes, layout.rollouts_prefix(pipeline)):
        for key in store.list(prefix):
            with suppress(ObjectNotFound, ValueError):
                body = json.loads(store.get(key))
                if isinstance(body, dict):
                    yield key, body
