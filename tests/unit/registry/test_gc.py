"""Garbage collection takes what nothing names, and never what a writer is about to name."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import CorruptObject, ObjectExists, ObjectNotFound
from airflow_mlops.registry import Registry, log, op_id
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.items import Items
from airflow_mlops.registry.released import released_references
from airflow_mlops.store import LocalStore, Store, content, get_blob, layout, put_blob, put_json, trash
from airflow_mlops.store.base import Stat
from airflow_mlops.store.content import unpacked

GRACE = timedelta(hours=48)
START = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryStore:
    """Objects in a dict, with a clock of its own; ``step`` is called before everything that others can see."""

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.uri = "file:///memory"
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.now = START
        self.step = step

    def _get(self, key: str) -> tuple[bytes, datetime]:
        self.step()
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key]

    def get(self, key: str) -> bytes:
        return self._get(key)[0]

    def peek(self, key: str, length: int) -> bytes:
        return self._get(key)[0][:length]

    def put(self, key: str, data: bytes) -> None:
        self.step()
        self.objects[key] = data, self.now

    def put_if_absent(self, key: str, data: bytes) -> None:
        self.step()
        if key in self.objects:
            raise ObjectExists(key)
        self.objects[key] = data, self.now

    def get_file(self, key: str, path: Path) -> None:
        path.write_bytes(self.get(key))

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def exists(self, key: str) -> bool:
        self.step()
        return key in self.objects

    def stat(self, key: str) -> Stat:
        data, modified = self._get(key)
        return Stat(key, len(data), modified)

    def touch(self, key: str) -> None:
        self.objects[key] = self._get(key)[0], self.now

    def move(self, key: str, target: str) -> None:
        self.objects[target] = self._get(key)[0], self.now
        self.delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        return (found.key for found in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[Stat]:
        self.step()
        found = sorted((k, v) for k, v in self.objects.items() if k.startswith(prefix))
        return iter([Stat(key, len(data), modified) for key, (data, modified) in found])

    def delete(self, key: str) -> None:
        self.step()
        self.objects.pop(key, None)

    def sweep(self, before: datetime, *, dry_run: bool = False) -> tuple[Stat, ...]:
        return ()


class Play:
    """Runs functions in threads of which only one is awake: at every call to the store another may take over.

    The clock jumps between calls, but no writer takes longer than ``writer`` from its first write to its commit,
    and nobody who is at work sleeps for longer than ``call`` in one call.
    """

    writer, call = GRACE * 5 / 8, GRACE / 8

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = MemoryStore(self.pause)
        self.turn: dict[int, threading.Semaphore] = {}
        self.back = threading.Semaphore(0)
        self.asleep: dict[int, datetime] = {}
        self.writing: dict[int, datetime] = {}
        self.errors: list[BaseException] = []

    def pause(self) -> None:
        me = threading.get_ident()
        if me in self.turn:
            self.asleep[me] = self.store.now
            self._sleep(me)
            del self.asleep[me]

    def idle(self) -> None:
        """For as long as it pleases the clock."""
        self._sleep(threading.get_ident())

    def _sleep(self, me: int) -> None:
        self.back.release()
        self.turn[me].acquire()

    def run(self, *actors: Callable[[], None]) -> None:
        def body(actor: Callable[[], None]) -> None:
            me = threading.get_ident()
            self.turn[me] = threading.Semaphore(0)
            self.idle()
            try:
                actor()
            except BaseException as e:  # noqa: BLE001 - raised again by run
                self.errors.append(e)
            del self.turn[me]
            self.back.release()

        for actor in actors:
            threading.Thread(target=body, args=(actor,)).start()
            self.back.acquire()
        while self.turn:
            chosen = self.random.choice(sorted(self.turn))
            for _ in range(self.random.choice((1, 1, 2, 5, 25, 60))):
                if chosen not in self.turn:
                    break
                self.let_time_pass()
                self.turn[chosen].release()
                self.back.acquire()
        if self.errors:
            raise self.errors[0]

    def let_time_pass(self) -> None:
        then = self.store.now + self.random.choice((0, 0, 0, 1, 8, 100)) * GRACE / 64
        late = [*(since + self.call for since in self.asleep.values())]
        late += [since + self.writer for since in self.writing.values()]
        self.store.now = max(self.store.now, min([then, *late]))


CONTENTS = [b'{"part":%d}' % n for n in range(6)]


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def play(seed: int) -> None:
    """Two collections, two writers of the same few blobs, and a reader, in an order of ``seed``."""
    stage = Play(seed)
    store: MemoryStore = stage.store
    committed: list[str] = []
    for data in CONTENTS:
        store.objects[layout.blob(name_of(data))] = data, START - 10 * GRACE

    def write(writer: int) -> None:
        rng = random.Random(seed * 10 + writer)
        for run in range(5):
            stage.idle()
            stage.writing[writer] = store.now
            parts = [put_blob(store, data) for data in rng.sample(CONTENTS, 2)]
            manifest = put_json(store, {"files": parts})
            if rng.random() < 0.3:
                Registry(store, "p").register({"snapshot": {"snapshot": manifest}}, op_id=op_id(writer, run))
                committed.extend([manifest, *parts])
            del stage.writing[writer]

    def read() -> None:
        for _ in range(4):
            stage.idle()
            for digest in [*committed]:
                assert name_of(get_blob(store, digest)) == digest

    def sweep() -> None:
        for _ in range(5):
            stage.idle()
            collect(store, grace=GRACE, now=store.now)

    stage.run(lambda: write(0), lambda: write(1), read, sweep, sweep)
    for _ in range(3):
        store.now += 2 * GRACE
        collect(store, grace=GRACE, now=store.now)
    # In their places again, and nothing else is left.
    for digest in committed:
        assert name_of(store.get(layout.blob(digest))) == digest
    left = {key for key in store.objects if key.startswith(("blobs/", "trash/"))}
    assert left == {layout.blob(digest) for digest in committed}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_committed_is_never_lost(seed: int) -> None:
    play(seed)


def test_the_play_loses_blobs_where_nothing_protects_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryStore, "touch", MemoryStore.exists)
    monkeypatch.setattr(MemoryStore, "move", lambda self, key, target: self.delete(key))
    lost = 0
    for seed in range(20):
        try:
            play(seed)
        except ObjectNotFound:
            lost += 1
    assert lost


def test_the_memory_store_is_a_store() -> None:
    assert isinstance(MemoryStore(), Store)


class Interrupting(MemoryStore):
    """Calls ``between`` once, in the middle of moving an object to the trash."""

    between: Callable[[], None] | None = None

    def delete(self, key: str) -> None:
        if key.startswith("blobs/") and (between := self.between):
            self.between = None
            between()
        super().delete(key)


def test_a_writer_that_finds_a_blob_on_its_way_to_the_trash() -> None:
    store = Interrupting()
    digest = put_blob(store, b"model")
    store.now += 3 * GRACE

    def write() -> None:
        put_blob(store, b"model")
        Registry(store, "p").register({"model": {"digest": digest}}, op_id=op_id(1))

    store.between = write
    collect(store, grace=GRACE, now=store.now)
    assert not store.exists(layout.blob(digest))
    store.now += 3 * GRACE
    assert collect(store, grace=GRACE, now=store.now).restored["blobs"].objects == 1
    assert store.get(layout.blob(digest)) == b"model"
    store.now += 3 * GRACE
    collect(store, grace=GRACE, now=store.now)
    assert not [*store.list("trash/")]
    assert store.get(layout.blob(digest)) == b"model"


# --- on a real store ---------------------------------------------------------------------------


def age(store: LocalStore, days: float = 30) -> None:
    """Let everything in the store be that old."""
    for path in store.path.rglob("*"):
        if path.is_file():
            os.utime(path, ((then := path.stat().st_mtime - days * 86400), then))


def keys(store: Store, *prefixes: str) -> list[str]:
    return [key for prefix in prefixes for key in store.list(prefix)]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def used(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A pipeline that names blobs in every way there is; returns what must stay."""
    monkeypatch.setattr(log, "_PACK", 8)
    monkeypatch.setattr(log, "_CHECKPOINT", 10)
    registry = Registry(store, "churn")
    parts = [put_blob(store, b"PAR1 rows %d" % n) for n in range(3)]
    snapshot = put_json(store, {"kind": "snapshot", "files": [{"digest": parts[0]}, {"digest": parts[1]}]})
    capture = put_json(store, {"file": parts[2]})
    digests = [put_blob(store, b"%d" % n) for n in range(5)]
    report, bundle = hashlib.sha256(b"<p>").hexdigest(), hashlib.sha256(b"zip").hexdigest()
    store.put(layout.report("churn", report), b"<p>")
    store.put(layout.handover("churn", bundle), b"zip")
    record = {"model": {"digest": digests[0]}, "snapshot": {"snapshot": snapshot}}
    registry.register(record, op_id=op_id(1))
    registry.annotate(1, "gates", {"report": report, "handover": [bundle]}, op_id=op_id(2))
    registry.register_many({"LGA": {"model": {"digest": digests[1]}}}, op_id=op_id(3))
    store.put(layout.capture("churn", "w1"), content.canonical_json({"capture": capture}))
    store.put(layout.check("churn", "w1", "drift", rehearsal=True), b'{"x":"%s"}' % digests[2].encode())
    store.put(layout.schema("churn"), b'{"snapshot":"%s"}' % digests[3].encode())
    store.put("index.json", b'{"x":"%s"}' % digests[4].encode())
    for i in range(20):
        registry.tag(1, "n", i, op_id=op_id("tag", i))
    return {key: store.get(key) for key in keys(store, "blobs/", "reports/", "handover/")}


def test_what_is_named_in_any_way_stays(store: LocalStore, used: dict[str, bytes]) -> None:
    age(store)
    before = {key: store.get(key) for key in store.list("pipelines/")}
    first = collect(store)
    # Checkpoints of the log that a later one replaced are garbage, and all there is.
    gone = used.keys() - keys(store, "blobs/", "reports/", "handover/")
    left = [unpacked(used[key]) for key in gone]
    assert all(b'"versions"' in raw or raw.startswith(b"[") for raw in left)
    assert first.trashed.keys() <= {"blobs"}
    assert {key: store.get(key) for key in store.list("pipelines/")} == before
    assert Registry(store, "churn").get(1).tags == {"n": 19}
    assert Registry(store, "churn").get(1, "LGA").record["model"]


def test_garbage_goes_in_two_stages(store: LocalStore, used: dict[str, bytes]) -> None:
    for days in (3, 6):  # checkpoints that later ones replaced
        collect(store, now=datetime.now(UTC) + timedelta(days=days))
    garbage = put_blob(store, b"x" * 1000)
    store.put(layout.report("churn", garbage), b"<html>")
    store.put(layout.handover("churn", garbage), b"zip")
    (store.path / "blobs" / ".tmp-killed").write_bytes(b"half")
    assert "nothing to collect" in collect(store, dry_run=True).sentence
    age(store, 100)
    before = keys(store, "")
    dry = collect(store, dry_run=True)
    assert keys(store, "") == before
    report = collect(store)
    assert report.to_dict() == dry.to_dict() | {"dry_run": False, "sentence": report.sentence}
    assert {kind: (c.objects, c.bytes) for kind, c in report.trashed.items()} == {
        "blobs": (1, 1000),
        "reports": (1, 6),
        "handover": (1, 3),
    }
    assert report.deleted["leftovers"].examples == ["blobs/.tmp-killed"]
    assert report.sentence.startswith("3 objects (1 blobs, 1 reports, 1 handover; 1,009 bytes) put in the trash; 1")
    assert [trash.original(key) for key in keys(store, "trash/")] == [
        layout.blob(garbage), layout.handover("churn", garbage), layout.report("churn", garbage),
    ]  # fmt: skip
    assert collect(store).trashed == collect(store).deleted == {}
    age(store, 3)
    assert collect(store).deleted["blobs"].objects == 1
    assert keys(store, "trash/") == []


def test_reports_are_kept_longer(store: LocalStore) -> None:
    store.put(layout.report("churn", "a" * 64), b"<html>")
    age(store, 80)
    assert collect(store).trashed == {}
    age(store, 20)
    assert collect(store).trashed["reports"].objects == 1


def test_a_reader_restores_from_the_trash(store: LocalStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    digest = put_blob(store, b"model")
    age(store)
    for read in (
        lambda: get_blob(store, digest),
        lambda: (content.get_blob_file(store, digest, tmp_path / "out"), (tmp_path / "out").read_bytes())[1],
    ):
        collect(store, now=datetime.now(UTC) + 2 * GRACE, grace=GRACE)
        assert not store.exists(layout.blob(digest))
        assert read() == b"model"
        assert store.exists(layout.blob(digest))
        assert "was in the trash" in caplog.text


def test_a_damaged_copy_in_the_trash_is_not_restored(store: LocalStore) -> None:
    digest = put_blob(store, b"model")
    age(store)
    collect(store)
    (copy,) = keys(store, "trash/")
    store.put(copy, b"nodel")
    with pytest.raises(ObjectNotFound):
        get_blob(store, digest)


def test_storing_a_blob_again_makes_it_young(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"two")
    for data, again in (
        (b"one", lambda: put_blob(store, b"one")),
        (b"two", lambda: content.put_blob_file(store, tmp_path / "f")),
    ):
        put_blob(store, data)
        age(store)
        again()
        assert collect(store).trashed == {}
        age(store)
        collect(store)


def test_a_damaged_record_stops_the_collection(store: LocalStore, used: dict[str, bytes]) -> None:
    put_blob(store, b"garbage")
    age(store)
    before = keys(store, "")
    snapshot = next(key for key, data in used.items() if b'"kind":"snapshot"' in data)
    store.put(snapshot, store.get(snapshot).replace(b"files", b"fires"))
    with pytest.raises(CorruptObject, match="nothing is collected, because a record is damaged") as e:
        collect(store)
    assert snapshot in str(e.value)
    assert "fsck" in str(e.value)
    assert keys(store, "") == before


def test_a_hole_in_a_log_stops_the_collection(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    for i in range(3):
        registry.register({"model": {"digest": put_blob(store, b"%d" % i)}}, op_id=op_id(i))
    age(store)
    store.delete(layout.log_entry(layout.log_prefix("churn"), 2))
    with pytest.raises(CorruptObject, match="entry 2"):
        collect(store)
    assert len(keys(store, "blobs/")) == 3


@pytest.mark.parametrize("kill", range(0, 40, 3))
def test_killed_anywhere_and_repeated(kill: int) -> None:
    store = MemoryStore()
    kept = put_blob(store, b"kept")
    Registry(store, "p").register({"model": {"digest": kept}}, op_id=op_id(1))
    for n in range(3):
        put_blob(store, b"garbage %d" % n)
    steps = itertools.count()

    class Killed(BaseException):
        pass

    def step() -> None:
        if next(steps) == kill:
            raise Killed

    for _ in range(3):
        store.now += 3 * GRACE
        steps, store.step = itertools.count(), step
        with pytest.raises(Killed) if kill < 12 else _either(Killed):
            collect(store, grace=GRACE, now=store.now)
        store.step = lambda: None
        assert get_blob(store, kept) == b"kept"
    for _ in range(2):
        store.now += 3 * GRACE
        collect(store, grace=GRACE, now=store.now)
    assert [k for k in store.objects if k.startswith(("blobs/", "trash/"))] == [layout.blob(kept)]


class _either:
    """Whether the block raised or not."""

    def __init__(self, kind: type[BaseException]) -> None:
        self.kind = kind

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, self.kind)


def changes(registry: Registry) -> list[Entry]:
    items = Items(registry.store)
    return [
        change for entry in log.Log(registry.store, "pipelines/routes/log/").entries() for change in items.expand(entry)
    ]


def test_a_key_that_has_vanished_keeps_no_drift_reference(tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path), "routes")
    gone, stays = "a" * 64, "b" * 64
    registry.register_many({"a": {"reference": gone}, "b": {"reference": stays}}, op_id=op_id("r"))
    registry.promote_many({"a": (1, None), "b": (1, None)}, op_id=op_id("p"), reason="x")
    assert released_references(changes(registry)) == set()
    registry.retire_many({"a": 1}, op_id=op_id("gone"), reason="no rows")
    assert released_references(changes(registry)) == {bytes.fromhex(gone)}
