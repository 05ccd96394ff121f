"""What is done to a store while something fails, and how it is judged afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.registry import Registry, log, op_id
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.gc import collect
from airflow_mlops.store import LocalStore, Store, get_blob, layout, put_blob, put_blob_file, put_json, trash
from tests.chaos.rows import Row

KEYS = [f"k{i}" for i in range(5)]
MODEL = hashlib.sha256(b"model").digest() * (1_000_000 // 32)


def _ago(days: int) -> datetime:
    # Times of files cannot be set on S3; a collection of the future sees old ones.
    return datetime.now(UTC) + timedelta(days=days)


# --- where it begins -----------------------------------------------------------------------------


def _version(store: Store, registry: Registry, number: int) -> None:
    digest = put_blob(store, b"PK\x03\x04" + bytes([number]) * 20_000)
    registry.register({"model": {"digest": digest}, "metrics": {"auc": 0.8}}, op_id=op_id("register", number))
    sample = put_blob(store, b"sample %d" % number)
    registry.annotate(number, "evaluation", {"sample": sample}, op_id=op_id("evaluate", number))


def lived(store: Store) -> None:
    """Three versions, the second is champion after the first; a fleet; and garbage in every stage."""
    registry = Registry(store, "churn")
    for number in (1, 2, 3):
        _version(store, registry, number)
    registry.promote(1, expected=None, op_id=op_id("promote", 1), reason="gates")
    registry.promote(2, expected=1, op_id=op_id("promote", 2), reason="gates")
    fleet = Registry(store, "fleet")
    fleet.register_many({key: {"x": key} for key in KEYS}, op_id=op_id("many", 1))
    for n in range(2):
        put_blob(store, b"garbage of long ago %d" % n)
    collect(store, now=_ago(5))
    put_blob(store, b"garbage of late")
    # As by a collection that met a slow writer: a version needs it.
    model = layout.blob(registry.get(1).record["model"]["digest"])
    store.move(model, trash.removal(model, _ago(5)))


def serving(store: Store) -> None:
    """A fleet that serves, but for one key; its records share a part."""
    lived(store)
    fleet, of = Registry(store, "fleet"), put_json(store, {"snapshot": {"rows": 5}})
    fleet.register_many({key: {"of": of, "x": key} for key in KEYS}, op_id=op_id("many", "shared"))
    fleet.promote_many(dict.fromkeys(KEYS[:3], (1, None)), op_id=op_id("serve"), reason="gates")


def long(store: Store) -> None:
    """A log whose next entry is written with a pack and a checkpoint."""
    registry = Registry(store, "churn")
    _version(store, registry, 1)
    for n in range(log._PACK - 1 - 2):
        registry.tag(1, f"t{n % 7}", n, op_id=op_id("tag", n))


class _Clock:
    """In place of ``datetime``."""

    @staticmethod
    def now(tz: tzinfo) -> datetime:
        return datetime(2026, 1, 1, tzinfo=tz)


@contextmanager
def steady() -> Iterator[None]:
    """One time for all entries: else digests differ, and with them how many folders must be made."""
    log.datetime = _Clock  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        log.datetime = datetime  # type: ignore[misc]


@contextmanager
def small_packs() -> Iterator[None]:
    """Packs and checkpoints after fewer entries: their steps are the same, and in between is less to read."""
    real = log._PACK, log._CHECKPOINT
    log._PACK, log._CHECKPOINT = 16, 8
    try:
        yield
    finally:
        log._PACK, log._CHECKPOINT = real


BASES: dict[str, Callable[[Store], None]] = {
    "empty": lambda store: None, "lived": lived, "serving": serving, "long": long,
}  # fmt: skip


# --- what is done --------------------------------------------------------------------------------


def _register(store: Store, file: Path) -> Any:
    digest = put_blob_file(store, file)
    return Registry(store, "churn").register({"model": {"digest": digest}}, op_id=op_id("new")).number


def _annotate(store: Store, file: Path) -> Any:
    note = {"sample": put_blob(store, b"rows" * 1000)}
    return Registry(store, "churn").annotate(3, "evaluation", note, op_id=op_id("note")).number


def _promote(store: Store, file: Path) -> Any:
    return Registry(store, "churn").promote(3, expected=2, op_id=op_id("go"), reason="gates").number


def _rollback(store: Store, file: Path) -> Any:
    return Registry(store, "churn").rollback(expected=2, op_id=op_id("back"), reason="worse").number


def _retire(store: Store, file: Path) -> Any:
    return Registry(store, "churn").retire(1, op_id=op_id("retire"), reason="old").number


def _register_many(store: Store, file: Path) -> Any:
    done = Registry(store, "fleet").register_many({key: {"x": 2} for key in KEYS}, op_id=op_id("many", 2))
    return {key: version.number for key, version in done.items()}


def _promote_many(store: Store, file: Path) -> Any:
    todo: dict[str, tuple[int, int | None]] = {key: (1, None if key != "k3" else 7) for key in KEYS}
    done = Registry(store, "fleet").promote_many(todo, op_id=op_id("go many"), reason="gates")
    return {key: getattr(version, "number", None) for key, version in done.items()}


def _annotate_many(store: Store, file: Path) -> Any:
    notes: dict[str, tuple[int, str, dict[str, Any]]] = {key: (1, "gates", {"verdict": "passed"}) for key in KEYS}
    done = Registry(store, "fleet").annotate_many(notes, op_id=op_id("note many"))
    return {key: version.number for key, version in done.items()}


def _retire_many(store: Store, file: Path) -> Any:
    gone = dict.fromkeys(["k0", "k1", "k3"], 1)
    done = Registry(store, "fleet").retire_many(gone, op_id=op_id("gone"), reason="vanished")
    return {key: getattr(version, "number", None) for key, version in done.items()}


def _checkpoint(store: Store, file: Path) -> Any:
    return Registry(store, "churn").tag(1, "last", 1, op_id=op_id("last")).number


def _collect(store: Store, file: Path) -> Any:
    collect(store, now=_ago(10))
    return None


@dataclass(frozen=True)
class Operation:
    """Something that writes, from where it begins; ``do`` returns plain JSON."""

    name: str
    base: str
    do: Callable[[Store, Path], Any]


OPERATIONS = [
    Operation("first register", "empty", _register),
    Operation("register", "lived", _register),
    Operation("annotate", "lived", _annotate),
    Operation("promote", "lived", _promote),
    Operation("rollback", "lived", _rollback),
    Operation("retire", "lived", _retire),
    Operation("register_many", "lived", _register_many),
    Operation("promote_many", "lived", _promote_many),
    Operation("annotate_many", "lived", _annotate_many),
    Operation("retire_many", "serving", _retire_many),
    Operation("checkpoint", "long", _checkpoint),
    Operation("gc", "lived", _collect),
]


# --- how it is judged ----------------------------------------------------------------------------


def _timeless(body: Any) -> Any:
    if isinstance(body, dict):
        return {k: _timeless(v) for k, v in body.items() if k != "at"}
    return [_timeless(v) for v in body] if isinstance(body, list) else body


def seen(store: Store) -> dict[str, Any]:
    """Everything a reader can see, but for times; each model and sample that versions name was read whole.

    :raises MLOpsError: when something that was committed cannot be read.
    """
    found: dict[str, Any] = {}
    for pipeline in ("churn", "fleet"):
        registry = Registry(store, pipeline)
        keys = registry.keys()
        versions = [v for key in keys for v in registry.versions(key)]
        for v in versions:
            notes = [note for kind in v.notes.values() for note in kind]
            digests = [v.record.get("model", {}).get("digest"), *(note.get("sample") for note in notes)]
            for digest in filter(None, digests):
                get_blob(store, digest)
        champions = {str(key): registry.champion(key) for key in keys}
        found[pipeline] = {
            "history": registry.history(),
            "versions": [[v.key, v.number, v.status, v.record, v.notes, v.tags] for v in versions],
            "champions": {key: v and v.number for key, v in champions.items()},
        }
    return dict(_timeless(json.loads(json.dumps(found))))


@dataclass(frozen=True)
class Expected:
    """What a reader sees before and after an operation, and what it returns."""

    before: dict[str, Any]
    after: dict[str, Any]
    result: Any


def expect(operation: Operation, store: Store, file: Path) -> Expected:
    """Do the operation undisturbed."""
    before = seen(store)
    result = operation.do(store, file)
    return Expected(before, seen(store), result)


Wrong = list[tuple[str, str]]


def judge(operation: Operation, store: Store, file: Path, expected: Expected) -> Wrong:
    """Look at the store, repeat the operation, and look again; return what is wrong, as kind and words."""
    wrong: Wrong = []
    try:
        now = seen(store)
    except MLOpsError as e:
        return [("lost", f"it cannot be read: {e}")]
    if now not in (expected.before, expected.after):
        wrong.append(("lost" if _lacks(now, expected.before) else "half", "neither the state before nor that after"))
    wrong += _torn(store)
    report = check(store)
    if any(f.severity == "damage" for f in report.findings):
        wrong.append(("half", report.text()))
    try:
        for _ in range(2):
            if (result := operation.do(store, file)) != expected.result:
                wrong.append(("other", f"the retry gives {result!r}, not {expected.result!r}"))
        wrong += afterwards(store, expected, "the retry")
        for days in (20, 30):
            collect(store, now=_ago(days))
        wrong += afterwards(store, expected, "garbage collection")
    except MLOpsError as e:
        wrong.append(("other", f"the retry fails: {e}"))
    if isinstance(store, LocalStore) and (left := [*store.path.rglob(".tmp-*")]):
        wrong.append(("other", f"left behind for ever: {left}"))
    if (report := check(store)).status:
        wrong.append(("other", f"fsck at the end: {report.text()}"))
    return wrong


def _lacks(now: dict[str, Any], before: dict[str, Any]) -> bool:
    """Whether something that was committed before is gone."""
    return any(now[name]["history"][: len(was["history"])] != was["history"] for name, was in before.items())


def _torn(store: Store) -> Wrong:
    """Blobs whose bytes are not those of their names."""
    return [
        ("half", f"{key} is not whole")
        for key in store.list("blobs/")
        if hashlib.sha256(store.get(key)).hexdigest() != key.rpartition("/")[2]
    ]


def afterwards(store: Store, expected: Expected, what: str) -> Wrong:
    """Whether the operation is there once, and nothing else has changed."""
    now = seen(store)
    ids = [(row["seq"], row["op_id"]) for name in now for row in now[name]["history"]]
    commits = [op for _, op in sorted({*ids})]
    wrong: Wrong = []
    if len(commits) != len(set(commits)):
        wrong.append(("duplicates", f"after {what} an operation is in the log twice"))
    if now != expected.after:
        kind = "lost" if _lacks(now, expected.after) else "other"
        wrong.append((kind, f"after {what} the state is not that of one commit"))
    return wrong


def count(row: Row, where: str, wrong: Wrong) -> None:
    """One more try."""
    row.tried += 1
    for kind, what in wrong:
        row.wrong(kind, f"{where}: {what}")
