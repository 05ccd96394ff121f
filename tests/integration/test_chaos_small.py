"""A few tries of every row of ``make chaos``; and that the rows would notice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: it forks, and must not take the threads of other tests along."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200
    )


@pytest.mark.parametrize(
    "rows",
    ["kill-local full-disk", "kill-s3 faulty-s3", "promotions copies", "kill-delivery cut-delivery deliveries"],
)
def test_rows_hold(rows: str) -> None:
    done = python("import sys; from tests.chaos.__main__ import main; sys.exit(main())", "--small", *rows.split())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| holds |") == len(rows.split())


BREAK = """
import os, sys
from airflow_mlops.exceptions import ObjectExists
from airflow_mlops.store import LocalStore, S3Store
from tests.chaos import __main__ as chaos, delivery, life, local, races, s3
local.OPERATIONS = [o for o in life.OPERATIONS if o.name == "first register"]
{how}
sys.exit(chaos.main(sys.argv[1:]))
"""

IN_PLACE = """
def put_if_absent(self, key, data):
    file = self.path / key
    if file.exists():
        raise ObjectExists(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb", buffering=0) as out:
        out.write(data)
LocalStore.put_if_absent = put_if_absent
"""
LAST_WINS = "LocalStore.put_if_absent = LocalStore.put"
BARE = """
from contextlib import nullcontext
from airflow_mlops.store import local as module
module.disk_errors = lambda *_: nullcontext()
"""
FORGETFUL = "from airflow_mlops.registry.state import State; State.find = lambda self, op_id: None"
# Each push takes the branch, whatever is there by now.
FORCED = """
from airflow_mlops.delivery.remote import Remote
run = Remote.run
def forced(self, folder, *arguments):
    return run(self, folder, *("--force" if a.startswith("--force-") else a for a in arguments))
Remote.run = forced
"""
TWO_STEPS = """
from airflow_mlops.delivery.remote import Copy
commit = Copy.commit
def in_two_steps(self, content, *, parent, message, at):
    half = commit(self, {}, parent=parent, message=message, at=at)
    self.push(half, "refs/heads/deploy/staging", expected=parent)
    return commit(self, content, parent=half, message=message, at=at)
Copy.commit = in_two_steps
chaos.ROWS["kill-delivery"] = (0, lambda: delivery.killed(12))
"""
KILL = "\nchaos.ROWS['kill-local'] = (0, lambda: local.killed(14))"
CALM = "\nchaos.ROWS['faulty-s3'] = (0, lambda: s3.faulty(16, rate=0))"


@pytest.mark.parametrize(
    ("row", "how", "said"),
    [
        ("kill-local", IN_PLACE + KILL, "lost: first register, killed within"),
        ("kill-local", FORGETFUL + KILL, "duplicates: first register, killed"),
        ("full-disk", BARE, "the error lacks"),
        ("faulty-s3", FORGETFUL + CALM, "duplicates: operation"),
        ("promotions", LAST_WINS, "promotions: "),
        ("copies", FORGETFUL, "copies: other: operation 0 was answered"),
        ("deliveries", FORCED, "deliveries: "),
        ("kill-delivery", TWO_STEPS, "kill-delivery: "),
    ],
    ids=[
        "write in place",
        "retry twice",
        "bare errors",
        "repeat twice",
        "last write wins",
        "copies count",
        "every push wins",
        "deploy in two steps",
    ],
)
def test_a_broken_store_is_noticed(row: str, how: str, said: str) -> None:
    done = python(BREAK.format(how=how), "--small", row)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "| **FAILS** |" in done.stdout
    assert said in done.stderr


AT_EACH_CALL = """
import tempfile
from pathlib import Path
from airflow_mlops.store import LocalStore
from tests.chaos.syscalls import Fault, run
folder = Path(tempfile.mkdtemp())
store = LocalStore(folder)
store.put("a/b", b"x")
write = lambda: store.put("a/c", b"y" * 100)
print([call.name for call in run(write, folder).calls])
def left(at, do, error=0):
    for file in (folder / "a").iterdir():
        file.unlink()
    ended = run(write, folder, Fault(at, do, error))
    names = sorted((folder / "a").iterdir())
    sizes = [("tmp" if file.name[0] == "." else file.name, file.stat().st_size) for file in names]
    return ended.killed, sizes, ended.error and ended.error["type"]
print(left(1, "before"), left(1, "within"), left(1, "after"), left(3, "before"), left(3, "after"), left(3, "fail", 28))
import shutil; shutil.rmtree(folder)
"""


def test_what_a_kill_leaves() -> None:
    done = python(AT_EACH_CALL)
    assert done.stdout.splitlines() == [
        "['open', 'write', 'fsync', 'rename', 'fsync', 'unlink']",
        "(True, [('tmp', 0)], None) (True, [('tmp', 50)], None) (True, [('tmp', 100)], None) "
        "(True, [('tmp', 100)], None) (True, [('c', 100)], None) (False, [], 'StoreError')",
    ], done.stdout + done.stderr
