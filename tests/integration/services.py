"""docker-compose.yml without containers: its services as processes on free ports of 127.0.0.1.

No container engine is needed. Commands and environment are read from the file, so that what runs
here is what runs there; only hosts, ports and paths are swapped, and what makes it faster is added.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.demo.airflow import PRELOAD, AirflowDown, LiveAirflow, free_port, port_is_free

REPOSITORY = Path(__file__).parents[2]
COMPOSE_FILE = REPOSITORY / "docker-compose.yml"
HOME = "/opt/airflow"
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<kind>:?[-?])(?P<rest>[^{}]*))?\})")


# --- the file ------------------------------------------------------------------------------------


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Replace ``${NAME}``, ``${NAME:-default}``, ``${NAME:?error}`` and ``$$`` as Compose does, in all strings."""

    def one(match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        found = variables.get(match["name"])
        if found is None or (not found and (match["kind"] or "").startswith(":")):
            if (match["kind"] or "").endswith("?"):
                raise ValueError(f"{match['name']} has to be set: {match['rest']}")
            return match["rest"] or ""
        return found

    if isinstance(value, str):
        return _VARIABLE.sub(one, value)
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    return value


def read_compose(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read docker-compose.yml with the defaults that are written in it, or with ``variables``."""
    return interpolate(yaml.safe_load(COMPOSE_FILE.read_text()), variables or {})


# --- processes -----------------------------------------------------------------------------------


def _program(name: str) -> str:
    """Return the program's path; Debian keeps PostgreSQL's outside PATH."""
    newest = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]), reverse=True
    )
    found = shutil.which(name) or next(map(str, newest), None)
    if found is None:
        pytest.skip(f"{name} is not installed (on Debian: apt install postgresql redis-server)")
    return found


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{what} did not start; its log:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


@contextmanager
def _running(
    command: list[str], log: Path, *, stop: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def postgres(service: Mapping[str, Any]) -> Iterator[int]:
    """A new PostgreSQL with user, password and database of the compose service; yields its port."""
    initdb, server = _program("initdb"), _program("postgres")
    as_user: list[str] = []
    # Not pytest's folder: only its owner may enter that, and PostgreSQL refuses to run as root.
    folder = Path(tempfile.mkdtemp(prefix="mlops-postgres-"))
    try:
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
            # setpriv becomes the program, where runuser would stay in between and keep the signals.
            as_user = [_program("setpriv"), "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        settings = service["environment"]
        password = folder / "password"
        password.write_text(settings["POSTGRES_PASSWORD"] + "\n")
        password.chmod(0o644)
        data = folder / "data"
        subprocess.run(
            [*as_user, initdb, "-D", str(data), "-U", settings["POSTGRES_USER"], "--pwfile", str(password),
             "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        port, log = free_port(), folder / "log"
        command = [server, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"]
        # SIGINT: "fast shutdown", which ends open connections.
        with _running([*as_user, *command], log, stop=signal.SIGINT) as process:
            import psycopg2

            login = {"user": settings["POSTGRES_USER"], "password": settings["POSTGRES_PASSWORD"]}

            def ready() -> bool:
                try:
                    psycopg2.connect(host="127.0.0.1", port=port, dbname="postgres", **login).close()
                except psycopg2.OperationalError:
                    return False
                return True

            _wait(ready, process, log, "PostgreSQL", 60)
            connection = psycopg2.connect(host="127.0.0.1", port=port, dbname="postgres", **login)
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{settings["POSTGRES_DB"]}"')
            connection.close()
            yield port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis(service: Mapping[str, Any], folder: Path) -> Iterator[int]:
    """Redis by the compose service's own command; yields its port."""
    port, log = free_port(), folder / "redis.log"
    command = [_program(service["command"][0]), *service["command"][1:]]
    more = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
    with _running([*command, *more], log) as process:
        _wait(lambda: not port_is_free(port), process, log, "Redis", 20)
        yield port


class ComposeAirflow(LiveAirflow):
    """The Airflow services of docker-compose.yml as processes.

    :param home: what ``/opt/airflow`` is in the containers.
    :param swaps: text → text, applied to every environment value: where the other services really are.
        Each has to occur somewhere.
    """

    ONCE = ("migrate", "prepare")
    LASTING = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")

    def __init__(self, home: Path, swaps: Mapping[str, str]) -> None:
        self.compose = read_compose()
        self.folder = home.resolve()
        port = free_port()
        self.health_port = free_port()
        self.swaps = {
            **swaps,
            "http://api-server:8080/": f"http://127.0.0.1:{port}/",
            "http://localhost:8080": f"http://localhost:{port}",
        }
        self.used: set[str] = set()
        super().__init__(home, REPOSITORY / "dags", port=port)
        if unused := set(self.swaps) - self.used:
            raise ValueError(f"docker-compose.yml does not name {', '.join(unused)} any more")

    def _environment(self, dags_folder: Path, more: dict[str, str]) -> dict[str, str]:
        return self.environment("worker")

    def path(self, service: str, text: str) -> str:
        """Turn a path inside the container into one of this machine, by the service's mounts."""
        for mount in self.compose["services"][service].get("volumes", ()):
            source, target = mount.split(":")[:2]
            if text == target or text.startswith(f"{target}/"):
                real = REPOSITORY / source if source.startswith(".") else self.folder / "volumes" / source
                return str(real.resolve()) + text.removeprefix(target)
        # What the Dockerfile copies.
        if text.startswith(f"{HOME}/docker/"):
            return str(REPOSITORY) + text.removeprefix(HOME)
        return str(self.folder) + text.removeprefix(HOME) if text.startswith(HOME) else text

    def environment(self, service: str) -> dict[str, str]:
        """Environment of one service: what the file says, and what one machine needs beside it."""
        found: dict[str, str] = {}
        for key, value in self.compose["services"][service]["environment"].items():
            for old, new in self.swaps.items():
                if old in value:
                    value = value.replace(old, new)
                    self.used.add(old)
            found[key] = self.path(service, value)
        here = {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": self.path(service, f"{HOME}/logs"),
            # Containers have addresses of their own; here all share one, and loopback is enough.
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port if hasattr(self, "port") else 0),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(self.health_port),
            # As the demo's: no sleep after a task.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
        }
        own = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        return own | found | here

    def approve(self, dag_id: str, run_id: str, *, option: str = "Approve", timeout: float = 300) -> str:
        """As the parent's; a run that failed instead of asking is told with its tasks' logs."""
        try:
            return super().approve(dag_id, run_id, option=option, timeout=timeout)
        except AirflowDown as e:
            failed = [task for task, state in self.task_states(dag_id, run_id).items() if state == "failed"]
            logs = "".join(f"\n  task {task}:\n{self.log(dag_id, run_id, task)[-3000:]}" for task in failed)
            raise AirflowDown(f"{e}{logs}") from e

    def run(self, service: str, timeout: float = 120) -> str:
        """Run a service that ends by itself; returns what it printed."""
        done = subprocess.run(
            self.argv(service),
            cwd=self.folder,
            env=self.environment(service),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise AirflowDown(f"{service} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def argv(self, service: str) -> list[str]:
        """Return the service's command for this machine."""
        program, *rest = self.compose["services"][service]["command"]
        command = {"airflow": [sys.executable, "-m", "airflow"], "python": [sys.executable]}[program]
        if rest[-1] in ("worker", "triggerer"):
            # Their log servers listen on all interfaces; the log folder is shared.
            rest.append("--skip-serve-logs")
        return [*command, *(self.path(service, part) for part in rest)]

    def start(self, timeout: float = 180) -> None:
        """Start everything in the order of ``depends_on`` and return when all are healthy.

        :raises AirflowDown: a service failed, or ``timeout`` seconds went by.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:
            for said in pool.map(self.run, self.ONCE):
                self.say(said)
        # Celery's processes are forks of the worker's first one: what that has imported, no task imports again.
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config/airflow_local_settings.py").write_text(PRELOAD.replace('"scheduler"', '"worker"'))
        for service in self.LASTING:
            with (self.folder / f"{service}.log").open("ab") as log:
                self._processes[service] = subprocess.Popen(
                    self.argv(service),
                    cwd=self.folder,  # a stray relative path must not end up in the repository
                    env=self.environment(service),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        deadline = time.monotonic() + timeout
        while waiting := self._unhealthy():
            self.check_alive()
            if time.monotonic() > deadline:
                raise AirflowDown(f"not ready after {timeout:.0f} s: {waiting}", hint=f"read {self.folder}/*.log")
            time.sleep(0.5)
