"""Running a project's code: in a process of its own, with a time limit, and with no more rights than the caller's."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LARGEST_FILE = 1 << 30
"""Bytes that a file may have which a project's code writes, where the system has such limits."""
_KEPT = 20_000
_PARENT = "AIRFLOW_MLOPS_PARENT"
_PR_SET_PDEATHSIG = 1
# What leads a child to the caller's own Airflow, and the keys that what is delivered is signed with.
_WITHHELD = (
    "AIRFLOW_HOME", "AIRFLOW_CONFIG", "AIRFLOW__DATABASE__", "AIRFLOW__MLOPS__", "AIRFLOW__CORE__DAGS_FOLDER",
    # With these a child could speak for Airflow, where it runs beside one. And it reads one folder, not bundles.
    "AIRFLOW__API__SECRET_KEY", "AIRFLOW__API_AUTH__", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__CELERY__",
    "AIRFLOW__DAG_PROCESSOR__",
    # A secrets backend has every connection: the key that bundles are signed with, the logins of the environments.
    "AIRFLOW__SECRETS__", "AIRFLOW__WORKERS__SECRETS_BACKEND",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    :param code: exit code, negative for a signal; ``None``: it was killed at the time limit.
    :param output: the end of what it printed, on both streams.
    """

    code: int | None
    output: str
    seconds: float


def child_environment(
    home: Path, mlops: Mapping[str, str], *, project: Path, withheld_conn_ids: Collection[str] = ()
) -> dict[str, str]:
    """Return the environment for a project's code: an Airflow home of its own, and no key to sign with.

    The code runs as the same user. What that user can read in files it can read, too: a signing key that its
    tests must not see belongs where they do not run.

    :param home: becomes ``AIRFLOW_HOME``, with a database of its own.
    :param mlops: options of ``[mlops]``; no others are passed on.
    :param project: the folder that was copied: its code must not be imported in the place of the copy's.
    :param withheld_conn_ids: connections that are left out, such as the one that holds the private key.
    """
    own = dict(os.environ)
    secrets = {f"AIRFLOW_CONN_{conn_id.upper()}" for conn_id in withheld_conn_ids}
    kept = {key: value for key, value in own.items() if not key.startswith(_WITHHELD) and key not in secrets}
    return (
        kept
        | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "PYTHONPATH": os.pathsep.join(_elsewhere(own.get("PYTHONPATH", ""), project)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        | {f"AIRFLOW__MLOPS__{name.upper()}": value for name, value in mlops.items()}
    )


def _elsewhere(paths: str, project: Path) -> list[str]:
    """Those of ``paths`` that do not lead into the project; relative ones do, from the folder of the command."""
    every = [path for path in paths.split(os.pathsep) if path]
    return [path for path in every if not Path(path).resolve().is_relative_to(project.resolve())]


def end_with_parent() -> None:
    """Let this process, which :func:`run` has started, be killed when whoever started it is; by Linux alone.

    A task that is killed ends nothing itself, and its tests would run on beside those of the next try.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before this was asked for.
    if os.environ.get(_PARENT, str(os.getppid())) != str(os.getppid()):
        os.kill(os.getpid(), signal.SIGKILL)


def limit_files() -> None:
    """Let this process, and what it starts, write no file larger than :data:`LARGEST_FILE`: it gets an OSError.

    A disk that a project's code has filled would stop all that runs beside it.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    most = min((LARGEST_FILE, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def run(arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], seconds: float, log: Path) -> Ended:
    """Run Python with ``arguments`` in ``folder``; whatever it started ends with it.

    :param seconds: after these it is killed, with all that it started.
    :param log: what it prints goes there.
    """
    began = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**environment, _PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code: int | None = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(seconds)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    with log.open("rb") as printed:
        size = printed.seek(0, os.SEEK_END)
        printed.seek(max(0, size - _KEPT))
        output = printed.read().decode(errors="replace")
    return Ended(code, output, time.monotonic() - began)
