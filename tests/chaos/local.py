"""A local disk: the process is killed, or the disk fails, at each system call that writes."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

from airflow_mlops.store import LocalStore
from tests.chaos import forks, life, syscalls
from tests.chaos.life import BASES, MODEL, OPERATIONS, Expected, Operation
from tests.chaos.rows import Row, some
from tests.chaos.syscalls import Call, Ended, Fault

T = TypeVar("T")


def _fork(work: Callable[[], T]) -> T:
    """Do it in a fresh process, without syncing, which takes most of the time and tells nothing here."""

    def unsynced() -> T:
        os.fsync = lambda fd: None
        return work()

    return forks.start(unsynced)()


class Disk:
    """Copies of stores in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "model"
        self.file.write_bytes(MODEL)

    def base(self, name: str) -> Path:
        """Where stores of that name begin; it is made when it is needed."""
        base = self.folder / name
        if not base.exists():
            base.mkdir()
            _fork(partial(BASES[name], LocalStore(base)))
            # What a killed writer left long before.
            (base / ".tmp-0").write_bytes(b"half")
        return base

    @contextmanager
    def copy(self, base: str) -> Iterator[LocalStore]:
        """A store that begins where ``base`` ends."""
        at = self.folder / "copy"
        shutil.copytree(self.base(base), at)
        try:
            yield LocalStore(at)
        finally:
            shutil.rmtree(at)

    def calls(self, operation: Operation) -> tuple[Expected, list[Call]]:
        """What the operation does undisturbed, and the calls that do it."""
        with self.copy(operation.base) as store:
            expected = _fork(lambda: life.expect(operation, store, self.file))
        with self.copy(operation.base) as store:
            ended = self.run(operation, store, None)
            if ended.result != expected.result or ended.error:
                raise RuntimeError(f"{operation.name} gives {ended}")
        return expected, ended.calls

    def run(self, operation: Operation, store: LocalStore, fault: Fault | None) -> Ended:
        """Do the operation in a traced process."""
        return syscalls.run(lambda: operation.do(store, self.file), store.path, fault)


@contextmanager
def _disk(small: bool) -> Iterator[Disk]:
    if not syscalls.can_trace():
        raise RuntimeError("it needs Linux on x86_64")
    with (
        life.steady(),
        life.small_packs() if small else nullcontext(),
        tempfile.TemporaryDirectory(prefix="mlops-chaos-") as folder,
    ):
        yield Disk(Path(folder).resolve())


def killed(most: int | None = None) -> Row:
    """SIGKILL before, within and after every call.

    :param most: points of each operation; None: all.
    """
    row = Row("SIGKILL at every system call that writes, local disk", "points", 150 if most is None else 1)

    def work() -> None:
        calls = 0
        with _disk(most is not None) as disk:
            for operation in OPERATIONS:
                expected, found = disk.calls(operation)
                calls += len(found)
                points = [
                    (at, do)
                    for at, call in enumerate(found)
                    for do in ("before", "within", "after")
                    if do != "within" or call.name == "write"
                ]
                for at, do in some(points, most):
                    _kill(row, disk, operation, expected, Fault(at, do), found[at])
        row.more = f"{len(OPERATIONS)} operations, {calls} calls"

    return row.timed(work)


def _kill(row: Row, disk: Disk, operation: Operation, expected: Expected, fault: Fault, call: Call) -> None:
    with disk.copy(operation.base) as store:
        ended = disk.run(operation, store, fault)
        wrong = _fork(lambda: life.judge(operation, store, disk.file, expected))
        if not ended.killed:
            wrong.append(("other", "it was not killed"))
        life.count(row, f"{operation.name}, killed {fault.do} call {fault.at} ({call.name} {call.path})", wrong)


def full(most: int | None = None) -> Row:
    """ENOSPC and EIO at every call, once and for good.

    :param most: points of each operation; None: all.
    """
    row = Row("ENOSPC and EIO at every write, local disk", "points", 100 if most is None else 1)
    errors = doubts = 0

    def work() -> None:
        nonlocal errors, doubts
        with _disk(most is not None) as disk:
            for operation in OPERATIONS:
                expected, found = disk.calls(operation)
                points = [
                    Fault(at, "fail", error, stays)
                    for at, call in enumerate(found)
                    for error in (errno.ENOSPC, errno.EIO)
                    for stays in (False, True)
                    if syscalls.may_fail(call.name, error)
                ]
                for fault in some(points, most):
                    error, doubt = _fail(row, disk, operation, expected, fault)
                    errors, doubts = errors + error, doubts + doubt
        row.more = f"{errors} errors raised, {doubts} of them after the commit had its name"

    return row.timed(work)


def _fail(row: Row, disk: Disk, operation: Operation, expected: Expected, fault: Fault) -> tuple[bool, bool]:
    """Return whether the operation raised, and whether its commit was there all the same."""
    with disk.copy(operation.base) as store:
        ended = disk.run(operation, store, fault)
        now = _fork(lambda: life.seen(store))
        wrong = _fork(lambda: life.judge(operation, store, disk.file, expected))
        doubt = False
        if ended.error is None:
            if ended.result != expected.result or now != expected.after:
                wrong.append(("other", f"it gives {ended.result!r} without having done it"))
        else:
            wrong += _unclear(ended, fault, store, operation)
            doubt = now == expected.after != expected.before
            # Whether a name will survive is not known when only the sync of its folder fails.
            if doubt and not any(call.name in ("fsync", "unlink") for call in ended.failed):
                wrong.append(("other", f"it is committed in spite of {ended.error['text']}"))
        kind = f"{errno.errorcode[fault.error]}{' for good' if fault.stays else ''}"
        if not ended.failed:
            wrong.append(("other", "no call failed"))
        at = ", ".join(f"{call.name} {call.path}" for call in ended.failed[:1])
        life.count(row, f"{operation.name}, {kind} at call {fault.at} ({at})", wrong)
        return ended.error is not None, doubt


def _unclear(ended: Ended, fault: Fault, store: LocalStore, operation: Operation) -> life.Wrong:
    """What an error does not say."""
    error = ended.error or {}
    text = str(error["text"])
    needed = [str(store.path), "What to do:"]
    if fault.error == errno.ENOSPC:
        needed.append("No space left on device")
        if operation.name != "gc":  # which writes no object
            needed.append("bytes are needed for")
    missing = [part for part in needed if part not in text]
    wrong: life.Wrong = []
    if not error["ours"] or missing:
        wrong.append(("other", f"the error lacks {missing}: {text}"))
    if error["ours"] and error["retryable"] == (fault.error == errno.ENOSPC):
        wrong.append(("other", f"the error says the wrong thing about retries: {text}"))
    return wrong
