"""Sizes and times of objects, moving them, and what killed writers leave (S3: tests/integration/test_gc_s3.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_mlops.exceptions import ObjectNotFound, StoreUnavailable
from airflow_mlops.store import LocalStore, Store, layout, put_blob, trash
from airflow_mlops.store.overlay import OverlayStore

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    for key in ("a/1", "a/2", "b"):
        store.put(key, key.encode())
        make_old(store, key)
    return store


def make_old(store: LocalStore, key: str) -> None:
    os.utime(store.path / key, (LONG_AGO.timestamp(),) * 2)


def young(store: Store, key: str) -> bool:
    return datetime.now(UTC) - store.stat(key).modified < timedelta(minutes=5)


def test_stat_and_scan(store: LocalStore) -> None:
    found = store.stat("a/1")
    assert (found.key, found.size, found.modified) == ("a/1", 3, LONG_AGO)
    assert [(f.key, f.size, f.modified) for f in store.scan("a")] == [("a/1", 3, LONG_AGO), ("a/2", 3, LONG_AGO)]
    store.put("a/2", b"longer")
    assert store.stat("a/2").size == 6
    assert young(store, "a/2")


def test_touch(store: LocalStore) -> None:
    store.touch("a/1")
    assert young(store, "a/1")
    assert store.get("a/1") == b"a/1"
    assert not young(store, "a/2")


def test_touch_of_another_users_file(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "utime", refuse)
    store.touch("a/1")
    assert young(store, "a/1")
    assert store.get("a/1") == b"a/1"


def test_move_makes_young(store: LocalStore) -> None:
    store.move("a/1", "trash/a/1.x")
    assert young(store, "trash/a/1.x")
    assert store.get("trash/a/1.x") == b"a/1"
    assert not store.exists("a/1")


def test_peek(store: LocalStore) -> None:
    store.put("empty", b"")
    assert [store.peek(key, 2) for key in ("a/1", "empty")] == [b"a/", b""]
    assert store.peek("a/1", 100) == b"a/1"


def test_what_is_not_there(store: LocalStore) -> None:
    for key in ("x", "a", "b/x"):
        for call in (store.stat, store.touch, lambda k: store.move(k, "y"), lambda k: store.peek(k, 1)):
            with pytest.raises(ObjectNotFound):
                call(key)


def test_sweep_takes_old_leftovers_alone(store: LocalStore) -> None:
    for name in (".tmp-old", "a/.tmp-old", "a/.tmp-new"):
        (store.path / name).write_bytes(b"half")
    make_old(store, ".tmp-old")
    make_old(store, "a/.tmp-old")
    before = datetime.now(UTC) - timedelta(hours=1)
    assert [f.key for f in store.sweep(before, dry_run=True)] == [".tmp-old", "a/.tmp-old"]
    assert [(f.key, f.size) for f in store.sweep(before)] == [(".tmp-old", 4), ("a/.tmp-old", 4)]
    assert store.sweep(before) == ()
    assert (store.path / "a/.tmp-new").exists()
    assert list(store.list("")) == ["a/1", "a/2", "b"]


def test_a_killed_writer_leaves_nothing_that_is_listed(store: LocalStore) -> None:
    code = (
        "import sys, time\n"
        "from airflow_mlops.store import local\n"
        "def slow(file, data):\n"
        "    file.write(data[:5]); file.flush(); print('half', flush=True); time.sleep(60)\n"
        "local._write_all = slow\n"
        "local.LocalStore(sys.argv[1]).put('a/3', b'x' * 10)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(store.path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert list(store.list("")) == ["a/1", "a/2", "b"]
    (left,) = store.sweep(datetime.now(UTC) + timedelta(minutes=1))
    assert left.size == 5
    assert not list(store.path.rglob(".tmp-*"))


def test_the_overlay_shows_and_changes_what_is_above(store: LocalStore, tmp_path: Path) -> None:
    upper = LocalStore(tmp_path / "upper")
    overlay = OverlayStore(upper, store)
    upper.put("a/2", b"above")
    assert [(f.key, f.size) for f in overlay.scan("")] == [("a/1", 3), ("a/2", 5), ("b", 1)]
    assert (overlay.stat("a/1").size, overlay.stat("a/2").size) == (3, 5)
    assert (overlay.peek("a/1", 2), overlay.peek("a/2", 2)) == (b"a/", b"ab")
    overlay.touch("a/1")
    assert store.stat("a/1").modified == LONG_AGO
    with pytest.raises(ObjectNotFound):
        overlay.touch("x")
    with pytest.raises(ObjectNotFound):
        overlay.move("a/1", "c")
    overlay.move("a/2", "c")
    assert (overlay.get("c"), overlay.get("a/2")) == (b"above", b"a/2")
    (store.path / ".tmp-1").write_bytes(b"")
    (upper.path / ".tmp-2").write_bytes(b"")
    assert [f.key for f in overlay.sweep(datetime.now(UTC) + timedelta(minutes=1))] == [".tmp-2"]


def test_names_in_the_trash_lead_back() -> None:
    for key in (layout.blob("a" * 64), layout.report("churn", "a" * 64), "x.y"):
        one, two = (trash.removal(key, LONG_AGO) for _ in range(2))
        assert one != two
        assert trash.original(one) == trash.original(two) == key
    assert trash.original("trash/blobs/aa/readme") is None
    assert trash.original("trash/a.20200101T000000Z-abcdef01.txt") is None


def test_a_blob_that_comes_and_goes_is_stored_again(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = put_blob(store, b"x")
    touch = LocalStore.touch

    def collected(self: LocalStore, key: str) -> None:
        self.delete(key)
        touch(self, key)

    monkeypatch.setattr(LocalStore, "touch", collected)
    assert put_blob(store, b"x") == digest
    assert store.get(layout.blob(digest)) == b"x"


def test_a_blob_that_never_stays_is_an_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put_blob(store, b"x")

    def missing(self: LocalStore, key: str) -> None:
        raise ObjectNotFound(key)

    monkeypatch.setattr(LocalStore, "touch", missing)
    with pytest.raises(StoreUnavailable, match="came and went"):
        put_blob(store, b"x")
