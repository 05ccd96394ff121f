"""A real MLflow server on a free port of 127.0.0.1, from a virtual environment of its own.

``mlflow-skinny`` has the whole server but its pages; with what it imports it is built in half the time of
``mlflow``. The environment is kept, so that the next run only starts it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from airflow_mlops.demo.airflow import free_port

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
# What `mlflow server` of 3.17 imports and mlflow-skinny does not ask for.
PACKAGES = ("mlflow-skinny", "SQLAlchemy", "alembic", "Flask", "flask-cors", "aiohttp", "numpy", "pandas")
_HELP = "it needs PyPI the first time; its environment is kept in"


def environment(cache: Path) -> Path:
    """Build the environment, or find the one of an earlier run; returns its Python."""
    wanted = "\n".join([sys.version, *PACKAGES, CONSTRAINTS.read_text()])
    folder = cache / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    python, ready = folder / "bin" / "python", folder / "ready"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            # The caller's pip, and no bytecode of modules that are never imported: half the time again.
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-compile",
                   "--disable-pip-version-check", "--prefer-binary", "-c", str(CONSTRAINTS)]  # fmt: skip
            for command in (
                [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)],
                [*pip, *PACKAGES],
            ):
                done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
                if done.returncode:
                    pytest.fail(f"no environment for MLflow ({_HELP} {cache}):\n{(done.stdout + done.stderr)[-3000:]}")
            ready.touch()
    return python


@contextmanager
def mlflow_server(python: Path, folder: Path, *, port: int | None = None) -> Iterator[str]:
    """Start a server on SQLite that passes artifacts through; yields its address.

    :param folder: of its database, artifacts and log; a second server there finds what the first one had.
    """
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        # One: several workers would each migrate the new database, and crash.
        "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHONPATH"))}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log, url = folder / "server.log", f"http://127.0.0.1:{port}"
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=own | quiet, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait(process, url, log)
        yield url
    finally:
        # The server is a child of this process, in the same session.
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 90
    with httpx.Client(trust_env=False, timeout=5) as client:
        while True:
            try:
                if client.get(f"{url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"MLflow did not start; its log:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)
