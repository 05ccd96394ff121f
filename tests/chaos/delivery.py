"""Deliveries through a git remote: killed at every call of git, cut in the middle of a push, and many at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from airflow_mlops.delivery import git, remote
from airflow_mlops.delivery.bundle import Bundle, pack, read_bundle
from airflow_mlops.delivery.deployment import Request, Target, deploy, history, roll_back
from airflow_mlops.delivery.remote import Remote
from airflow_mlops.delivery.tree import TreeFile
from airflow_mlops.exceptions import DeploymentConflict, MLOpsError
from airflow_mlops.registry import op_id
from airflow_mlops.registry.signing import Verifier
from tests.chaos import forks
from tests.chaos.rows import Row, some

_ANY = Verifier()
_CUTS = 40  # moments in one push, one millisecond apart or more
_LOCK = "a lock that a killed git left"


def bundle(name: str) -> Bundle:
    """A bundle whose digest follows from its name."""
    files = {"loader.py": TreeFile(name.encode()), "data/big.bin": TreeFile(name.encode() * 20_000, executable=True)}
    return read_bundle(pack(files, project="crm", commit="1" * 40, packages={}), verifier=_ANY)


def target(folder: Path) -> Target:
    """The one environment of these tests."""
    return Target(Remote(str(folder)), "crm", "staging", "deploy/staging")


def _asked(*what: Any) -> Request:
    return Request("ana", op_id(*what), "why")


@dataclass(frozen=True)
class Operation:
    """What is done, after ``base`` bundles were deployed; ``after`` has the names of those that stand then."""

    name: str
    base: tuple[str, ...]
    do: Callable[[Target], Any]
    after: tuple[str, ...]


def _back(to: Target) -> Any:
    return roll_back(to, _asked("back"), verifier=_ANY, expected=bundle("c").digest)


OPERATIONS = [
    Operation("first deploy", (), lambda to: deploy(to, bundle("a"), _asked("a", "try")), ("a",)),
    Operation("deploy", ("a", "b"), lambda to: deploy(to, bundle("c"), _asked("c", "try")), ("a", "b", "c")),
    Operation("rollback", ("a", "b", "c"), _back, ("a", "b")),
]


class Remotes:
    """Bare repositories in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def copy(self, operation: Operation) -> Iterator[Path]:
        """A remote to which the bundles of ``base`` were deployed."""
        base, at = self.folder / "-".join(("base", *operation.base)), self.folder / "copy.git"
        if not base.exists():
            subprocess.run(["git", "init", "-q", "--bare", "--template=", str(base)], check=True)
            for name in operation.base:
                deploy(target(base), bundle(name), _asked(name))
        shutil.copytree(base, at)
        try:
            yield at
        finally:
            # A git that lost its parent may still be writing.
            for _ in range(50):
                shutil.rmtree(at, ignore_errors=True)
                if not at.exists():
                    break
                time.sleep(0.02)


def _seen(folder: Path) -> list[str]:
    """The digests that stand; reading them checks that the files of the last are whole, and its bundle's."""
    known = history(target(folder))
    operations = [d.operation for d in known.deployments]
    if len(operations) != len(set(operations)):
        raise RuntimeError("an operation is there twice")
    return [d.digest for d in known.standing]


def _forked(folder: Path, operation: Operation, patched: Callable[..., Any]) -> int:
    """Do the operation in a process group of its own, with ``patched`` in the place of git; returns how it ended."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        remote.run_git = patched
        try:
            operation.do(target(folder))
        except BaseException:  # noqa: BLE001 - the parent looks at what is left
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def _dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at(number: int, do: str, counted: list[str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Git that kills who calls it, before, within or after the call ``number``; within: git goes on alone."""

    def patched(folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        counted.append(next(a for a in arguments if not a.startswith("-") and "=" not in a))
        mine = len(counted) - 1 == number
        if mine and do == "before":
            _dies()
        if mine and do == "within":
            _start(folder, arguments, more.get("environment") or {})
            _dies()
        done = git.run_git(folder, *arguments, **more)
        if mine and do == "after":
            _dies()
        return done

    return patched


def _start(folder: Path, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
    command = ["git", "-C", str(folder), *arguments]
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, env=os.environ | dict(environment), stdin=quiet, stdout=quiet, stderr=quiet)


def _cut(seconds: float, counted: list[str]) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Git whose first push is killed with all that it started, and with who called it, a moment after it began."""

    def patched(folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        if "push" in arguments:
            counted.append("push")
            _start(folder, arguments, more.get("environment") or {})
            time.sleep(seconds)
            os.killpg(0, signal.SIGKILL)
        return git.run_git(folder, *arguments, **more)

    return patched


def _judge(folder: Path, operation: Operation) -> list[tuple[str, str]]:
    """Look, repeat the operation, and look again; what is wrong, as kind and words."""
    before, after = [[bundle(n).digest for n in names] for names in (operation.base, operation.after)]
    try:
        if (now := _seen(folder)) not in (before, after):
            return [("half", f"neither before nor after: {now}")]
        for _ in range(2):
            operation.do(target(folder))
        if (now := _seen(folder)) != after:
            return [("lost", f"after a second try: {now}")]
    except (MLOpsError, RuntimeError) as e:
        if "lock" in str(e):
            return [("other", _LOCK)]
        return [("other", f"{type(e).__name__}: {e}")]
    return []


def killed(most: int | None = None) -> Row:
    """SIGKILL before, within and after every call of git.

    :param most: points of each operation; None: all.
    """
    row = Row("SIGKILL at every call of git, deploy and rollback", "points", 100 if most is None else 1)

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="mlops-chaos-") as scratch:
            remotes = Remotes(Path(scratch))
            for operation in OPERATIONS:
                calls: list[str] = []
                with remotes.copy(operation) as folder:
                    found = forks.start(partial(_counted, folder, operation, calls))()
                points = [(n, do) for n in range(len(found)) for do in ("before", "within", "after")]
                for number, do in some(points, most):
                    with remotes.copy(operation) as folder:
                        ended = _forked(folder, operation, _at(number, do, []))
                        wrong = _judge(folder, operation)
                    if not os.WIFSIGNALED(ended):
                        wrong.append(("other", "it was not killed"))
                    row.tried += 1
                    for kind, what in wrong:
                        row.wrong(kind, f"{operation.name}, {do} call {number} (git {found[number]}): {what}")

    return row.timed(work)


def _counted(folder: Path, operation: Operation, calls: list[str]) -> list[str]:
    remote.run_git = _at(-1, "", calls)
    operation.do(target(folder))
    return calls


def cut(most: int | None = None) -> Row:
    """A push that is killed on both sides.

    A lock file may be left in the remote then, which is git's own; it is removed, as the error says.

    :param most: moments of each operation; None: all.
    """
    row = Row("SIGKILL of sender and receiver within a push", "moments", 100 if most is None else 1)
    locks = 0

    def work() -> None:
        nonlocal locks
        with tempfile.TemporaryDirectory(prefix="mlops-chaos-") as scratch:
            remotes = Remotes(Path(scratch))
            for operation in OPERATIONS:
                for moment in some(range(_CUTS), most):
                    with remotes.copy(operation) as folder:
                        ended = _forked(folder, operation, _cut(0.001 * moment * 1.5, []))
                        left = [*folder.rglob("*.lock")]
                        wrong = _judge(folder, operation)
                        if left and wrong == [("other", _LOCK)]:
                            locks += 1
                            for lock in left:
                                lock.unlink()
                            wrong = _judge(folder, operation)
                    if not os.WIFSIGNALED(ended):
                        wrong.append(("other", "it was not killed"))
                    row.tried += 1
                    for kind, what in wrong:
                        row.wrong(kind, f"{operation.name}, cut {moment}: {what}")
        row.more = f"{locks} left a lock"

    return row.timed(work)


def races(rounds: int = 25, processes: int = 8) -> Row:
    """Each round all of them deploy a bundle of their own, having looked at the same deployment."""
    row = Row(f"{processes} processes deploying at once", "rounds", rounds)
    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def one(folder: Path, me: int) -> list[str | None]:
        came: list[str | None] = []
        push = remote.Copy.push

        def together(self: remote.Copy, commit: str, ref: str, *, expected: str | None) -> str | None:
            if ref == target(folder).ref:
                barrier.wait(300)  # all have looked; now all push, in every other round one after the other
                time.sleep(0.2 * me * (len(came) % 2))
            return push(self, commit, ref, expected=expected)

        remote.Copy.push = together  # type: ignore[method-assign]
        try:
            for turn in range(rounds):
                barrier.wait(300)
                mine = bundle(f"{turn}-{me}")
                try:
                    deploy(target(folder), mine, _asked(turn, me))
                    came.append(mine.digest)
                except DeploymentConflict:
                    came.append(None)
        except BaseException:
            barrier.abort()
            raise
        return came

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="mlops-chaos-") as scratch:
            folder = Path(scratch, "r.git")
            subprocess.run(["git", "init", "-q", "--bare", "--template=", str(folder)], check=True)
            came = forks.together([partial(one, folder, me) for me in range(processes)])
            log = [d.digest for d in history(target(folder)).deployments]
            for turn, answers in enumerate(zip(*came, strict=True)):
                winners = [digest for digest in answers if digest]
                row.tried += 1
                if len(winners) != 1 or log[turn : turn + 1] != winners:
                    row.wrong("lost" if len(winners) > 1 else "conflicts", f"round {turn}: {len(winners)} winners")
            if len(log) != rounds:
                row.wrong("duplicates", f"{len(log)} deployments in {rounds} rounds")
        row.more = f"{row.tried * processes} deployments tried"

    return row.timed(work)
