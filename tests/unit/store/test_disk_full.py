"""A disk that fails at any one of the system calls of a registration and a promotion."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.exceptions import StoreError, StoreUnavailable
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.store import LocalStore, get_blob, put_blob, put_blob_file


class Disk:
    """Counts what writes; from call ``first`` on, or at that one alone, it fails with ``number``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.first, self.number, self.stays = 10**9, 0, False
        for module, name in ((os, "fsync"), (os, "link"), (os, "replace"), (os, "mkdir")):
            patch.setattr(module, name, self._failing(name, getattr(module, name)))
        opened = Path.open

        def open_(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
            if "x" not in mode:
                return opened(path, mode, *args, **more)
            self.call("open")
            return _File(opened(path, mode, *args, **more), self)

        patch.setattr(Path, "open", open_)

    def fails(self, first: int, number: int, *, stays: bool) -> None:
        self.calls, self.first, self.number, self.stays = [], first, number, stays

    def call(self, name: str) -> None:
        self.calls.append(name)
        n = len(self.calls)
        if n == self.first or (self.stays and n > self.first):
            raise OSError(self.number, os.strerror(self.number))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            self.call(name)
            # Syncing for real takes most of the time and tells nothing here.
            return None if name == "fsync" else real(*args, **more)

        return call


class _File:
    """A file whose writes are counted."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk = file, disk

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, data: bytes) -> int:
        self.disk.call("write")
        return int(self.file.write(data))

    def flush(self) -> None:
        self.disk.call("flush")
        self.file.flush()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return Disk(monkeypatch)


def run(store: LocalStore, model: Path) -> Iterator[str]:
    """What a training task writes; yields after each commit."""
    digest = put_blob_file(store, model)
    record = {"model": {"digest": digest}, "trials": put_blob(store, b"[1]")}
    Registry(store, "churn").register(record, op_id=op_id("r"))
    yield "registered"
    Registry(store, "churn").annotate(1, "evaluation", {"sample": put_blob(store, b"rows")}, op_id=op_id("e"))
    yield "evaluated"
    Registry(store, "churn").promote(1, expected=None, op_id=op_id("p"), reason="gates")
    yield "promoted"


def state(store: LocalStore) -> int:
    """How many of the three commits are there."""
    registry = Registry(store, "churn")
    return len(registry.history())


def attempt(store: LocalStore, model: Path) -> tuple[int, StoreError | None]:
    """How many commits were answered, and the error that ended it."""
    done = 0
    try:
        for _ in run(store, model):
            done += 1
    except StoreError as e:
        return done, e
    return done, None


def test_every_call_that_can_fail(disk: Disk, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"model" * 1000)
    disk.fails(10**9, 0, stays=False)
    assert attempt(LocalStore(tmp_path / "sound"), model) == (3, None)
    count, points = len(disk.calls), 0
    for k in range(1, count + 1):
        for number, stays in ((errno.ENOSPC, True), (errno.EIO, k % 2 == 0)):
            store = LocalStore(tmp_path / f"{k}-{number}-{stays}")
            disk.fails(k, number, stays=stays)
            done, error = attempt(store, model)
            failed = disk.calls[k - 1]
            disk.fails(10**9, 0, stays=False)
            points += 1
            now = state(store)
            if error is None:  # a hint or a summary could not be written, or it was tried again inside
                assert done == now == 3
            else:
                assert str(store.path) in str(error)
                if number == errno.ENOSPC:
                    assert not error.retryable
                    assert "No space left on device" in str(error)
                    assert "bytes are needed for" in str(error)
                    assert "free some disk space" in str(error)
                else:
                    assert isinstance(error, StoreUnavailable)
                # The commit is there or not; only a sync of the folder fails after it is.
                assert now == done or (now == done + 1 and failed == "fsync")
            assert attempt(store, model) == (3, None)
            registry = Registry(store, "churn")
            assert [row["action"] for row in registry.history()] == ["register", "annotate", "promote"]
            champion = registry.champion()
            assert champion is not None
            assert get_blob(store, champion.record["model"]["digest"]) == model.read_bytes()
            assert not list(store.path.rglob(".tmp-*"))
    assert points >= 100


def test_how_many_bytes_are_missing_is_said(disk: Disk, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "s")
    disk.fails(1, errno.ENOSPC, stays=True)
    with pytest.raises(StoreError, match=r"12,345 bytes are needed for /.*/a/b"):
        store.put("a/b", b"x" * 12345)
    (tmp_path / "file").write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match="5,000 bytes are needed"):
        store.put_file("a/b", tmp_path / "file")
    disk.fails(10**9, 0, stays=False)
    store.put("a/b", b"x" * 7000)
    disk.fails(1, errno.ENOSPC, stays=True)
    with pytest.raises(StoreError, match=r"cannot copy 'a/b' to /.*/out: No space.*7,000 bytes are needed for /.*/out"):
        store.get_file("a/b", tmp_path / "out")
    assert not (tmp_path / "out").exists()
