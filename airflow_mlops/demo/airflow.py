"""A real Airflow on this machine for as long as a ``with`` block lasts: the demo's and the system tests'.

``airflow standalone`` is not used: its log servers listen on all interfaces, and this one is for
loopback only. The same four processes are started here, each in a session of its own, and all that
they started is gone when the block ends.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import psutil

from airflow_mlops.cli.live import readable
from airflow_mlops.exceptions import MLOpsError

COMPONENTS = {
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "api-server": ["api-server"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
AUTH_MANAGER = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
PRELOAD = '''"""LocalExecutor forks the scheduler for each task: what it has imported, no task has to import again."""
import importlib
import sys
import warnings

LIBRARIES = """
pyarrow.parquet pandas scipy.stats sklearn.ensemble sklearn.pipeline sklearn.impute sklearn.linear_model sklearn.metrics
skops.io great_expectations evidently airflow_mlops.factory.loading airflow_mlops.factory.builder
airflow_mlops.ml.retrain airflow_mlops.ml.fleet.begin airflow_mlops.ml.fleet.shard airflow_mlops.ml.fleet.report
airflow_mlops.ml.expectations
"""
if "scheduler" in sys.argv:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for library in LIBRARIES.split():
            importlib.import_module(library)
'''
FINAL = ("success", "failed")


class AirflowDown(MLOpsError):
    """Airflow did not start, or ended before its time."""


class ApiError(MLOpsError):
    """Airflow's REST API answered with an error."""


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port``."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class LiveAirflow:
    """An Airflow with SQLite and LocalExecutor, on loopback, with the login admin/admin.

    Of any other user too the password is the name.

    :param home: becomes ``AIRFLOW_HOME``; logs of the processes go to ``<home>/<component>.log``.
    :param dags_folder: folder of DAG files.
    :param port: of UI and REST API; default: a free one.
    :param env: further environment, such as ``AIRFLOW__MLOPS__DATA_ROOT``. Of the caller's own
        environment nothing that starts with ``AIRFLOW`` is passed on.
    :param say: where progress goes.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        *,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.home = home.resolve()
        self.port = port or free_port()
        given = dict(env or {})
        # A path below which all of it lives, as behind a proxy that serves others too.
        self.prefix = urlsplit(given.get("AIRFLOW__API__BASE_URL", "")).path.rstrip("/")
        self.url = f"http://localhost:{self.port}{self.prefix}"
        self.say = say
        self.env = self._environment(dags_folder.resolve(), given)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}{self.prefix}", timeout=30, trust_env=False)

    def _environment(self, dags_folder: Path, more: dict[str, str]) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        here = f"http://127.0.0.1:{self.port}{self.prefix}"
        settings = {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{here}/execution/",
            # Seconds to wait for another process's transaction; SQLite's 5 are few on a busy disk.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}?timeout=60",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            # The four processes and the command line have to agree on these.
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Fast on one machine: a task slot does not sleep five seconds after its task.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            # Else it is one folder of the machine, for every Airflow on it.
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.home / "dag_bundles"),
            "NO_PROXY": ",".join(filter(None, (own.get("NO_PROXY", ""), "127.0.0.1,localhost"))),
            "PYTHONUNBUFFERED": "1",
        }
        return own | settings | more

    # --- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 180) -> None:
        """Start the processes and return when all four report that they are healthy.

        :raises AirflowDown: the port is taken, a process ended, or ``timeout`` seconds went by.
        """
        if not port_is_free(self.port):
            raise AirflowDown(f"port {self.port} is in use", hint="end what listens there, or choose another port")
        self.home.mkdir(parents=True, exist_ok=True)
        passwords = self.home / "passwords.json"
        users = self.env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"].split(",")
        passwords.write_text(json.dumps({name: name for name in (user.partition(":")[0] for user in users)}))
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in self.env.items() if k.startswith("AIRFLOW"))
        environment = self.home / "env"
        environment.touch(mode=0o600)
        environment.write_text(exports)
        config = self.home / "config"
        config.mkdir(exist_ok=True)
        (config / "airflow_local_settings.py").write_text(PRELOAD)
        self.say("creating Airflow's database")
        done = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AirflowDown(f"airflow db migrate failed:\n{(done.stdout + done.stderr)[-3000:]}")
        for name, command in COMPONENTS.items():
            with (self.home / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", "airflow", *command],
                    env=self.env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        deadline, told = time.monotonic() + timeout, ""
        while waiting := self._unhealthy():
            self.check_alive()
            if time.monotonic() > deadline:
                raise AirflowDown(
                    f"Airflow was not ready after {timeout:.0f} s: {waiting}", hint=f"read {self.home}/*.log"
                )
            if waiting != told:
                self.say(f"waiting for {waiting}")
                told = waiting
            time.sleep(0.5)
        self.say(f"Airflow answers at {self.url}")

    def _unhealthy(self) -> str:
        try:
            health = self._client.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return ", ".join(COMPONENTS)
        keys = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}
        return ", ".join(n for n, key in keys.items() if (health.get(key) or {}).get("status") != "healthy")

    def check_alive(self) -> None:
        """Raise :class:`AirflowDown`, with the end of its log, if one of the processes has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                tail = (self.home / f"{name}.log").read_text(errors="replace")[-3000:]
                raise AirflowDown(
                    f"Airflow's {name} ended with exit code {process.returncode}. The end of its log:\n{tail}",
                    hint=f"the whole log is {self.home}/{name}.log",
                )

    def stop(self) -> None:
        """End the four processes and everything they started; never raises for one already gone."""
        family: dict[int, psutil.Process] = {}
        for process in self._processes.values():
            try:
                parent = psutil.Process(process.pid)
                family.update({p.pid: p for p in [parent, *parent.children(recursive=True)]})
            except psutil.NoSuchProcess:
                continue
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(list(family.values()), timeout=15)
        for left in alive:
            # By id, and psutil compares start times: a reused id is not hit.
            try:
                left.kill()
            except psutil.NoSuchProcess:
                continue
        sessions = set()
        for process in self._processes.values():
            process.wait()
            sessions.add(process.pid)
        # Each has a session of its own, whose id stays taken: also what was started while they ended is found.
        for late in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if os.getsid(late.pid) in sessions:
                    late.kill()
        self._processes.clear()
        self._client.close()

    def command(self, *args: str) -> subprocess.Popen[str]:
        """Start ``airflow ARGS`` against this Airflow; stdout and stderr together, as text."""
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", *args],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    # --- REST ------------------------------------------------------------------------------------

    def _request(self, method: str, path: str, root: str = "/api/v2", **kwargs: Any) -> Any:
        for attempt in range(5):
            if "authorization" not in self._client.headers:
                answer = self._client.post("/auth/token", json={"username": "admin", "password": "admin"})
                answer.raise_for_status()
                self._client.headers["authorization"] = f"Bearer {answer.json()['access_token']}"
            try:
                response = self._client.request(method, f"{root}/{path.lstrip('/')}", **kwargs)
            except httpx.TransportError:
                # Reading again is safe; a write may have arrived and must not be repeated blindly.
                self.check_alive()
                if method != "GET" or attempt == 4:
                    raise
                time.sleep(1)
                continue
            if response.status_code == 401:
                del self._client.headers["authorization"]
                continue
            if response.is_error:
                raise ApiError(f"{method} {path}: {response.status_code} {response.text[:500]}")
            return response.json() if response.content else None
        raise ApiError(f"{method} {path}: the login admin was refused")

    def get(self, path: str, **params: Any) -> Any:
        """GET ``/api/v2/<path>``; returns the decoded JSON. Raises :class:`ApiError`."""
        return self._request("GET", path, params=params)

    def pages(self, path: str, **params: Any) -> Any:
        """GET ``/mlops/api/<path>``, what the MLOps pages read; returns the decoded JSON. Raises :class:`ApiError`."""
        return self._request("GET", path, root="/mlops/api", params=params)

    def post(self, path: str, body: Any) -> Any:
        """POST JSON; returns the decoded JSON. Raises :class:`ApiError`."""
        return self._request("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH JSON; returns the decoded JSON. Raises :class:`ApiError`."""
        return self._request("PATCH", path, json=body)

    def import_errors(self) -> dict[str, str]:
        """DAG file → stack trace, for files that could not be imported."""
        return {e["filename"]: e["stack_trace"] for e in self.get("importErrors")["import_errors"]}

    def dags(self) -> set[str]:
        """Ids of all DAGs that were read."""
        return {d["dag_id"] for d in self.get("dags", limit=1000, exclude_stale=True)["dags"]}

    def wait_for_dags(self, *dag_ids: str, timeout: float = 120) -> None:
        """Return when all of ``dag_ids`` are read.

        :raises AirflowDown: an import error in a DAG file, or ``timeout`` seconds went by.
        """
        deadline = time.monotonic() + timeout
        while missing := set(dag_ids) - self.dags():
            self.check_alive()
            if errors := self.import_errors():
                text = "\n".join(f"{name}:\n{trace}" for name, trace in errors.items())
                raise AirflowDown(f"Airflow cannot read these DAG files:\n{text}")
            if time.monotonic() > deadline:
                raise AirflowDown(
                    f"no DAG {', '.join(sorted(missing))} after {timeout:.0f} s",
                    hint=f"read {self.home}/dag-processor.log",
                )
            time.sleep(0.5)

    def unpause(self, *dag_ids: str) -> None:
        """Switch DAGs on."""
        for dag_id in dag_ids:
            self.patch(f"dags/{dag_id}", {"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run as the form in the UI does; returns its run id."""
        return str(self.post(f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})["dag_run_id"])

    def wait(self, dag_id: str, run_id: str, states: Collection[str] = FINAL, timeout: float = 600) -> str:
        """Return the run's state once it is one of ``states`` (or final).

        :raises AirflowDown: Airflow ended, or ``timeout`` seconds went by.
        """
        deadline = time.monotonic() + timeout
        while True:
            state = str(self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])
            if state in states or state in FINAL:
                return state
            self.check_alive()
            if time.monotonic() > deadline:
                raise AirflowDown(
                    f"{dag_id} {run_id} is still {state} after {timeout:.0f} s: {self.task_states(dag_id, run_id)}"
                )
            time.sleep(0.3)

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Task id → state."""
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=1000)["task_instances"]
        return {t["task_id"]: t["state"] for t in found}

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the text of a task's log."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.get(path, full_content=True)["content"]
        if isinstance(content, str):
            return content
        return "\n".join(readable(line) if isinstance(line, dict) else str(line) for line in content)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """Return an XCom value."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.get(path, deserialize=False, stringify=False)["value"]

    def approve(self, dag_id: str, run_id: str, *, option: str = "Approve", timeout: float = 300) -> str:
        """Answer the run's open question with ``option``; returns the id of the task that asked.

        :raises AirflowDown: the run ended without a question, or ``timeout`` seconds went by.
        """
        deadline = time.monotonic() + timeout
        while True:
            found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/hitlDetails", response_received=False)["hitl_details"]
            waiting = [d["task_instance"] for d in found if d["task_instance"]["state"] == "awaiting_input"]
            if waiting:
                break
            state = self.wait(dag_id, run_id, states=("queued", "running"))
            if state in FINAL or time.monotonic() > deadline:
                raise AirflowDown(
                    f"{dag_id} {run_id} is {state} and asked for nothing: {self.task_states(dag_id, run_id)}"
                )
            time.sleep(0.5)
        # An answer within seconds of the question can meet the task before it has come to rest.
        time.sleep(4)
        task = waiting[0]
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task['task_id']}/{task['map_index']}/hitlDetails"
        self.patch(path, {"chosen_options": [option], "params_input": {}})
        return str(task["task_id"])


@contextmanager
def ended_on_exit(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Interrupt ``process`` if the block ends before it does, and kill it ten seconds later."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
