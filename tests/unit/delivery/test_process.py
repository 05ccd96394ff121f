"""A project's code runs in a process that ends when it must, and knows no more than it may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from airflow_mlops.delivery.process import child_environment, run

CHILDREN = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep({seconds})
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("seconds", "code"), [(60, None), (0, 0)])
def test_what_it_started_ends_with_it(seconds: int, code: int | None, tmp_path: Path) -> None:
    ended = run(
        ["-c", CHILDREN.format(seconds=seconds)],
        folder=tmp_path,
        environment=os.environ,
        seconds=1.5 if code is None else 30,
        log=tmp_path / "log",
    )
    assert ended.code == code
    assert ended.seconds < 20
    child = int(ended.output)
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_end_of_what_it_printed_is_kept(tmp_path: Path) -> None:
    code = "import sys; print('x' * 100_000); print('the end \\udcff', file=open(2, 'w', errors='surrogateescape'))"
    ended = run(["-c", code], folder=tmp_path, environment=os.environ, seconds=30, log=tmp_path / "log")
    assert (ended.code, len(ended.output)) == (0, 20_000)
    assert ended.output.endswith("the end \ufffd\n")


def test_a_signal_is_told(tmp_path: Path) -> None:
    code = "import os; os.kill(os.getpid(), 9)"
    assert run(["-c", code], folder=tmp_path, environment={}, seconds=30, log=tmp_path / "log").code == -9


def test_no_key_to_sign_with_and_no_airflow_of_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    given = {
        "AIRFLOW_HOME": "/mine", "AIRFLOW_CONFIG": "/mine/airflow.cfg", "AIRFLOW__MLOPS__SIGNING_KEY_FILE": "/key",
        "AIRFLOW__MLOPS__STORE": "s3://real", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://real",
        "AIRFLOW__SECRETS__BACKEND_KWARGS": "secret", "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS": "secret",
        "AIRFLOW_CONN_SIGNING": "secret", "AIRFLOW_CONN_PROD_API": "secret", "AIRFLOW__API__SECRET_KEY": "secret",
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret", "AIRFLOW__CORE__FERNET_KEY": "secret",
        "AIRFLOW_CONN_WAREHOUSE": "sqlite://", "OTHER": "1",
        "PYTHONPATH": os.pathsep.join([".", str(project), str(project / "a"), "/libraries"]),
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    found = child_environment(
        tmp_path, {"store": "file:///x"}, project=project, withheld_conn_ids=("signing", "prod_api")
    )
    assert found["AIRFLOW_HOME"] == str(tmp_path)
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == f"sqlite:///{tmp_path}/airflow.db"
    assert (found["AIRFLOW_CONN_WAREHOUSE"], found["OTHER"], found["PYTHONPATH"]) == ("sqlite://", "1", "/libraries")
    mlops = {name: value for name, value in found.items() if name.startswith("AIRFLOW__MLOPS__")}
    assert mlops == {"AIRFLOW__MLOPS__STORE": "file:///x"}
    assert not any(word in json.dumps(found) for word in ("/key", "secret", "/mine", "real"))


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent has died")
def test_what_was_started_ends_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    inner = (
        "import os, pathlib, time; from airflow_mlops.delivery.process import end_with_parent; end_with_parent(); "
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(600)"
    )
    outer = (
        "from pathlib import Path; from airflow_mlops.delivery.process import run; "
        f"run(['-c', {inner!r}], folder=Path('.'), environment=dict(__import__('os').environ), seconds=600, "
        f"log=Path({str(tmp_path / 'log')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", outer], cwd=Path(__file__).parents[3])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        child = int((tmp_path / "pid").read_text())
        assert alive(child)
    finally:
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while alive(child):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lower_limit_of_the_system_stays(tmp_path: Path) -> None:
    code = (
        "import resource as r; from airflow_mlops.delivery.process import limit_files as l; f = r.RLIMIT_FSIZE;"
        "l(); print(r.getrlimit(f)); r.setrlimit(f, (4096, 1 << 20)); l(); print(r.getrlimit(f))"
    )
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    ended = run(["-c", code], folder=tmp_path, environment=here, seconds=60, log=tmp_path / "log")
    assert ended.output.splitlines() == ["(1073741824, 1073741824)", "(4096, 4096)"]
