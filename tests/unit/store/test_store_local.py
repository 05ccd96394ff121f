"""What only the local store can do wrong (the promises of every store: tests/integration/test_store_s3.py)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from airflow_mlops.exceptions import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from airflow_mlops.store import LocalStore, open_store


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, airflow_mlops.store as s, airflow_mlops.registry as r, airflow_mlops.registry.lineage\n"
        "s.open_store('/tmp/x'); r.Registry(s.LocalStore('/tmp/x'), 'p'); s.put_blob, s.get_json, r.op_id\n"
        "bad = {'boto3', 'botocore', 'pandas', 'numpy', 'sklearn', 'skops', 'pyarrow', 'airflow'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(bad)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("uri", ["file:///tmp/a%20b", "/tmp/a b"])
def test_open_store_local(uri: str) -> None:
    store = open_store(uri)
    assert isinstance(store, LocalStore)
    assert store.path == Path("/tmp/a b")
    assert open_store(store.uri).uri == store.uri


@pytest.mark.parametrize("uri", ["", "mlops", "file://mlops", "gs://bucket/x", "s3://", "s3:///x"])
def test_open_store_refuses(uri: str) -> None:
    with pytest.raises(StoreError, match="What to do"):
        open_store(uri)


def test_credentials_in_a_uri_are_refused_and_not_shown() -> None:
    with pytest.raises(StoreError) as e:
        open_store("s3://AKIA:hunter2@bucket/x")
    assert "hunter2" not in str(e.value)


def test_a_left_over_temporary_file_is_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")
    (tmp_path / "a" / ".tmp-0123").write_bytes(b"half")
    assert list(store.list("")) == ["a/b"]
    with pytest.raises(StoreError, match="not usable as a key"):
        store.get("a/.tmp-0123")


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "s")
    store.put("k", b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="free some disk space") as e:
        store.put("k", b"new")
    assert not e.value.retryable
    monkeypatch.undo()
    assert store.get("k") == b"old"
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["k"]


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StoreUnavailable), (errno.EACCES, StoreError)])
def test_errors_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(kind, match="'k' in the store file://") as e:
        LocalStore(tmp_path).put_if_absent("k", b"x")
    assert type(e.value) is kind


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"x")
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        store.put("a/b", b"y")
    with pytest.raises(ObjectNotFound):
        store.get("a/b")
    store.delete("a/b")
    store.put("c/d", b"y")
    with pytest.raises(StoreError, match="folder"):
        store.put("c", b"y")
    with pytest.raises(ObjectNotFound):
        store.get("c")


def test_readers_never_see_half_an_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    versions = [bytes([n]) * 300_000 for n in range(4)]
    store.put("k", versions[0])
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n = (n + 1) % 4
            store.put("k", versions[n])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [store.get("k") for _ in range(200)]
    finally:
        stop.set()
        writer.join()
    assert all(s in versions for s in seen)


def test_one_of_many_threads_takes_a_key(tmp_path: Path) -> None:
    store, won = LocalStore(tmp_path), []

    def work(me: int) -> None:
        for i in range(20):
            try:
                store.put_if_absent(f"k/{i}", str(me).encode())
            except ObjectExists:
                continue
            won.append((i, me))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(i for i, _ in won) == list(range(20))
    assert all(store.get(f"k/{i}") == str(me).encode() for i, me in won)


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot write 'a' in the store file:///proc/none: .*No such file") as raised:
        LocalStore("/proc/none").put("a", b"x")
    assert "check [mlops] store" in (raised.value.hint or "")


def test_a_folder_in_the_place_of_an_object_is_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(StoreError, match="a folder where a file should be") as raised:
        store.put_if_absent("a", b"x")
    assert not isinstance(raised.value, ObjectExists)
