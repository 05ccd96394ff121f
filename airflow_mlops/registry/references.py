"""What a version needs, by name: for telling people what a damaged object is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.released import reference_of, snapshot_of
from airflow_mlops.registry.salvage import Known
from airflow_mlops.registry.shared import Shared, shared_digest
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_json


@dataclass(frozen=True)
class Referenced:
    """An object that a version names.

    :param role: ``model``, ``snapshot``, ``evidence`` or ``page``.
    :param what: in words.
    :param again: how to get it again.
    :param page: prefix of a report or bundle, which the version can do without; empty: it is a blob.
    :param packed: of a pack, which model of it is named: key, entry, digest and bytes.
    """

    role: str
    digest: str
    what: str
    again: str = "run the training again"
    page: str = ""
    packed: tuple[str | None, Any, Any, Any] | None = None


def references(store: Store, shared: Shared, known: Known, released: set[bytes]) -> Iterator[Referenced]:
    """Yield what a version names.

    :param released: snapshots and drift references (32 bytes each) whose rows were given up: what lists them counts.
    """
    record = known.record
    if digest := shared_digest(record):
        yield Referenced("model", digest, "shared part of the record")
        with suppress(CorruptObject):  # told as that part's damage
            record = shared.whole(record)
    yield from _model(known.key, record.get("model"))
    if snapshot := snapshot_of(record):
        yield Referenced("snapshot", snapshot, "list of contents of the snapshot")
        if bytes.fromhex(snapshot) not in released:
            yield from _parts(store, snapshot)
    if digest := reference_of(record):
        again = "train this key again"
        yield Referenced("evidence", digest, "list of contents of the drift reference", again)
        if bytes.fromhex(digest) not in released:
            for file in _named(shared, digest, "file"):
                yield Referenced("evidence", file, "drift reference", again)
    reference = record.get("snapshot")
    validation = reference.get("validation") if isinstance(reference, dict) else None
    if digest := digest_in(validation, "result"):
        yield Referenced("evidence", digest, "result of the validation")
    broken = validation.get("broken_keys") if isinstance(validation, dict) else None
    if digest := digest_in(broken, "why"):
        yield Referenced("evidence", digest, "keys that validation set aside")
    if digest := digest_in(validation, "report"):
        yield Referenced("page", digest, "report (validation)", page="reports/")
    if digest := digest_in(record, "trials"):
        yield Referenced("evidence", digest, "record of the search")
    for kind, note in known.notes:
        if kind == "evaluation":
            for name in ("evaluation", "sample", "expected", "reference", "importance", "behaviours"):
                if digest := digest_in(note, name):
                    yield Referenced("evidence", digest, f"evaluation ({name})", "run the evaluation again")
        if kind == "card":
            for name in ("markdown", "html"):
                if digest := digest_in(note, name):
                    yield Referenced("evidence", digest, f"model card ({name})", "run the gates again")
        if digest := digest_in(note, "report"):
            yield Referenced("page", digest, f"report ({kind})", page="reports/")
        if digest := digest_in(note, "bundle"):
            yield Referenced("page", digest, "handover bundle", page="handover/")


def _model(key: str | None, model: Any) -> Iterator[Referenced]:
    if digest := digest_in(model, "pack"):
        packed = (key, model.get("entry"), model.get("digest"), model.get("bytes"))
        yield Referenced("model", digest, "pack with the model", packed=packed)
        if digest := digest_in(model.get("prepare"), "digest"):
            yield Referenced("model", digest, "preparation of the data before the model")
    elif digest := digest_in(model, "digest"):
        yield Referenced("model", digest, "model")


def _parts(store: Store, snapshot: str) -> Iterator[Referenced]:
    try:
        files = get_json(store, snapshot)["files"]
    except (CorruptObject, ObjectNotFound, ValueError, TypeError, KeyError):
        return  # told as the manifest's damage
    for number, file in enumerate(files, 1):
        if digest := digest_in(file, "digest"):
            yield Referenced("snapshot", digest, f"snapshot (file {number} of {len(files)})")


def _named(shared: Shared, digest: str, name: str) -> list[str]:
    try:
        found = digest_in(shared.named(digest), name)
    except CorruptObject:
        return []  # told as its own damage
    return [found] if found else []


def digest_in(body: Any, name: str) -> str | None:
    """The digest in field ``name`` of ``body``; None where there is none."""
    value = body.get(name) if isinstance(body, dict) else None
    ours = isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")
    return value if ours else None
