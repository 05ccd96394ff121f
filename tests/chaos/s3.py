"""S3: the process is killed at each request, or a fifth of all requests goes wrong."""

from __future__ import annotations

import http.client
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from airflow_mlops.exceptions import PromotionConflict, RegistryError, StoreUnavailable
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry.fsck import check
from airflow_mlops.store import LocalStore, S3Store, Store
from tests.chaos import forks, life
from tests.chaos.life import BASES, MODEL, OPERATIONS, Expected, Operation
from tests.chaos.rows import Row, some

WRITERS, LOGS = 8, 4
_RETRIES = 200


class Server:
    """The server of ``s3_server.py`` at ``port``."""

    def __init__(self, port: int) -> None:
        self.port = port

    def plan(self, **told: Any) -> dict[str, Any]:
        """Tell what goes wrong from now on; return what was seen since the last plan."""
        found: dict[str, Any] = json.loads(self._ask("POST", "/-/plan", json.dumps(told).encode()))
        return found

    def load(self, bucket: str, objects: dict[str, bytes]) -> None:
        """Make a bucket that holds these objects."""
        self._ask("PUT", f"/-/bucket/{bucket}", pickle.dumps(objects))

    def dump(self, bucket: str) -> dict[str, bytes]:
        """The objects of a bucket."""
        found: dict[str, bytes] = pickle.loads(self._ask("GET", f"/-/bucket/{bucket}"))
        return found

    def forget(self, bucket: str) -> None:
        """Remove a bucket."""
        self._ask("DELETE", f"/-/bucket/{bucket}")

    def _ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body)
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        if answer.status != 200:
            raise RuntimeError(f"the S3 server answers {method} {path} with {answer.status}")
        return found

    def store(self, bucket: str) -> S3Store:
        """A store with a client of its own, which has the settings of the package's own client."""
        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1", aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=10),
        )  # fmt: skip
        return S3Store(bucket, "mlops", client)


@contextmanager
def _server() -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        port = process.stdout.readline().strip() if process.stdout else ""
        if not port:
            raise RuntimeError("the S3 server did not start")
        yield Server(int(port))
    finally:
        process.kill()
        process.communicate()


# --- killed at a request -------------------------------------------------------------------------


class Buckets:
    """Copies of stores in buckets of their own, named by numbers."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.file, self.copies = server, folder, folder / "model", 0
        self.file.write_bytes(MODEL * 9)  # large enough for an upload in parts
        self.objects: dict[str, dict[str, bytes]] = {}
        for name, build in BASES.items():
            local = LocalStore(folder / name)
            forks.start(partial(build, local))()
            self.objects[name] = {f"mlops/{key}": local.get(key) for key in local.list("")}

    @contextmanager
    def copy(self, base: str) -> Iterator[str]:
        """A bucket with a store that begins where ``base`` ends."""
        self.copies += 1
        bucket = f"copy-{self.copies}"
        self.server.load(bucket, self.objects[base])
        try:
            yield bucket
        finally:
            self.server.forget(bucket)

    @contextmanager
    def mirror(self, bucket: str) -> Iterator[LocalStore]:
        """The bucket's objects on a local disk, where they are looked at a hundred times faster."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            for key, data in self.server.dump(bucket).items():
                path = Path(folder, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            yield LocalStore(Path(folder, "mlops"))

    def expect(self, operation: Operation) -> tuple[Expected, int]:
        """What the operation does undisturbed, and in how many requests."""
        with self.copy(operation.base) as bucket:
            with self.mirror(bucket) as local:
                before = life.seen(local)
            self.server.plan()
            result = operation.do(self.server.store(bucket), self.file)
            requests = self.server.plan()["requests"]
            with self.mirror(bucket) as local:
                return Expected(before, life.seen(local), result), requests

    def kill(self, operation: Operation, bucket: str, at: int, when: str) -> bool:
        """Do the operation in a process that is killed at request ``at``; whether it was."""
        begin, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                mine = self.server.store(bucket)
                os.read(begin, 1)
                operation.do(mine, self.file)
            finally:
                os._exit(0)
        self.server.plan(kill=[pid, at, when])
        os.write(go, b"x")
        os.close(begin)
        os.close(go)
        _, status = os.waitpid(pid, 0)
        self.server.plan()
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    def judge(self, operation: Operation, bucket: str, expected: Expected) -> life.Wrong:
        """Look at what is left, repeat the operation on S3, and look again."""
        with self.mirror(bucket) as local:
            wrong = life.judge(operation, local, self.file, expected)
        again = operation.do(self.server.store(bucket), self.file)
        if again != expected.result:
            wrong.append(("other", f"the retry gives {again!r}, not {expected.result!r}"))
        with self.mirror(bucket) as local:
            wrong += life.afterwards(local, expected, "the retry on S3")
        return wrong


def killed(most: int | None = None) -> Row:
    """SIGKILL before and after every request.

    :param most: points of each operation; None: all.
    """
    row = Row("SIGKILL before and after every S3 request", "points", 1)

    def work() -> None:
        requests = 0
        with (
            life.steady(),
            life.small_packs(),
            _server() as server,
            tempfile.TemporaryDirectory(prefix="mlops-chaos-") as folder,
        ):
            buckets = Buckets(server, Path(folder))
            for operation in OPERATIONS:
                expected, count = buckets.expect(operation)
                requests += count
                points = [(at, when) for at in range(count) for when in ("before", "after")]
                for at, when in some(points, most):
                    with buckets.copy(operation.base) as bucket:
                        hit = buckets.kill(operation, bucket, at, when)
                        wrong = buckets.judge(operation, bucket, expected)
                    if not hit:
                        wrong.append(("other", "it was not killed"))
                    life.count(row, f"{operation.name}, killed {when} request {at} of {count}", wrong)
        row.more = f"{len(OPERATIONS)} operations, {requests} requests"
        row.least = row.tried if most else 2 * requests

    return row.timed(work)


# --- a fifth of all requests goes wrong ----------------------------------------------------------


def faulty(operations: int = 2000, rate: float = 0.2, seed: int = 7) -> Row:
    """Eight writers on four logs, two each; every writer has model keys of its own, so that no conflict is true.

    A task is repeated with its operation id, as Airflow does. One promotion in ten is stale on purpose.
    """
    row = Row(f"S3 with {rate:.0%} of the requests failing", "operations", operations)

    def work() -> None:
        with _server() as server:
            server.load("faulty", {})
            server.plan(rate=rate, seed=seed)
            each = operations // WRITERS
            done = forks.together([partial(_write, server, who, each, seed) for who in range(WRITERS)])
            seen = server.plan()
            for writer in done:
                row.tried += writer.operations
                for kind, what in writer.wrong:
                    row.wrong(kind, what)
            for number in range(LOGS):
                _compare(row, server.store("faulty"), number, done)
            faults = Counter(seen["faults"])
            stale, repeated = sum(w.stale for w in done), sum(w.repeated for w in done)
            row.more = (
                f"{seen['requests']:,} requests, {faults.total():,} failed: "
                f"{', '.join(f'{n:,} {kind}' for kind, n in sorted(faults.items()))}; "
                f"{repeated} operations repeated; {stale} stale promotions refused"
            )

    return row.timed(work)


class Writer:
    """What one writer believes of its own two model keys."""

    def __init__(self, who: int) -> None:
        self.who = who
        self.operations = self.stale = self.repeated = 0
        self.wrong: life.Wrong = []
        self.versions: dict[str, list[dict[str, Any]]] = {f"{who}a": [], f"{who}b": []}
        self.line: dict[str, list[int]] = {key: [] for key in self.versions}
        self.ids: list[str] = []


def _write(server: Server, who: int, operations: int, seed: int) -> Writer:
    """Do as many operations, each until it is answered."""
    chance, me = random.Random(seed * 1000 + who), Writer(who)
    registry = Registry(server.store("faulty"), f"log{who % LOGS}")
    for n in range(operations):
        if chance.random() < 0.05:  # a new process
            registry = Registry(server.store("faulty"), f"log{who % LOGS}")
        try:
            _step(me, registry, n, chance)
        except RegistryError:  # counted; what follows would only follow from it
            break
        me.operations += 1
    return me


def _step(me: Writer, registry: Registry, n: int, chance: random.Random) -> None:
    key = chance.choice([*me.versions])
    versions, line = me.versions[key], me.line[key]
    champion = line[-1] if line else None
    op, newest = op_id(me.who, n), len(versions)
    kind = chance.choice(["register", "promote", "promote", "rollback", "annotate", "many"])
    more: dict[str, Any] = {"key": key, "op_id": op}
    if kind == "many":
        records = {k: {"n": n} for k in me.versions}
        for k, version in _until(me, lambda: registry.register_many(records, op_id=op), op).items():
            me.versions[k].append({"n": n})
            _same(me, version.number, len(me.versions[k]), op)
    elif kind == "register" or not newest:
        version = _until(me, lambda: registry.register({"n": n}, **more), op)
        versions.append({"n": n})
        _same(me, version.number, newest + 1, op)
    elif kind == "promote":
        number = chance.randint(1, newest)
        if chance.random() < 0.1:
            return _stale(me, registry, number, newest, more)
        _until(me, lambda: registry.promote(number, expected=champion, reason="gates", **more), op)
        if number != champion:
            line.append(number)
    elif kind == "rollback" and champion is not None and set(line) != {champion}:
        while line[-1] == champion:
            line.pop()
        back = _until(me, lambda: registry.rollback(expected=champion, reason="worse", **more), op)
        _same(me, back.number, line[-1], op)
    else:
        _until(me, lambda: registry.annotate(newest, "gates", {"n": n}, **more), op)
    return None


def _stale(me: Writer, registry: Registry, number: int, newest: int, more: dict[str, Any]) -> None:
    while True:
        try:
            registry.promote(number, expected=newest + 1, reason="stale", **more)
            me.wrong.append(("other", f"a stale promotion was accepted: {more}"))
        except PromotionConflict:
            me.stale += 1
        except StoreUnavailable:
            continue
        return


def _until(me: Writer, task: Callable[[], Any], op: str) -> Any:
    """Repeat the task as Airflow would; one in four once more, as where its success was not recorded."""
    done = _answered(me, task, op)
    me.ids.append(op)
    if int(op[:4], 16) % 4 == 0:
        again = _answered(me, task, op)
        if _numbers(again) != _numbers(done):
            me.wrong.append(("duplicates", f"operation {op} gives {_numbers(done)}, then {_numbers(again)}"))
    return done


def _answered(me: Writer, task: Callable[[], Any], op: str) -> Any:
    for _ in range(_RETRIES):
        try:
            return task()
        except StoreUnavailable:
            me.repeated += 1
        except RegistryError as e:
            kind = "conflicts" if isinstance(e, PromotionConflict) else "other"
            me.wrong.append((kind, f"operation {op}: {e}"))
            raise
    raise RuntimeError(f"operation {op} was not answered in {_RETRIES} tries")


def _numbers(done: Any) -> Any:
    return {k: v.number for k, v in done.items()} if isinstance(done, dict) else done.number


def _same(me: Writer, found: int, expected: int, op: str) -> None:
    if found != expected:
        me.wrong.append(("other", f"operation {op} gives version {found}, not {expected}"))


def _compare(row: Row, store: Store, number: int, writers: list[Writer]) -> None:
    """Whether the log holds what its writers were told, once each."""
    registry = Registry(store, f"log{number}")
    mine = [writer for writer in writers if writer.who % LOGS == number]
    commits = Counter(entry.op_id for entry in registry.log.entries())
    told = {op for writer in mine for op in writer.ids}
    for op in told - set(commits):
        row.wrong("lost", f"operation {op} was answered and is not in the log")
    for op in (op for op, times in commits.items() if times > 1):
        row.wrong("duplicates", f"operation {op} is in the log {commits[op]} times")
    for op in set(commits) - told:
        row.wrong("other", f"operation {op} is in the log and was never answered")
    for writer in mine:
        for key, records in writer.versions.items():
            found = registry.versions(key)
            if [v.record for v in found] != records:
                row.wrong("lost" if len(found) < len(records) else "duplicates", f"{key} has {len(found)} versions")
            champion, line = registry.champion(key), writer.line[key]
            if (champion and champion.number) != (line[-1] if line else None):
                row.wrong("lost", f"the champion of {key} is {champion}, not that of {line[-1:]}")
    if (report := check(store, [f"log{number}"])).status:
        row.wrong("other", report.text())
