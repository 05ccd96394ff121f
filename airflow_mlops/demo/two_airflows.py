"""A project in a bare git repository, and two Airflows that track its branches: staging, which delivers, production.

The demo's and the system tests'. The first bundle has to be deployed before the two start: a git bundle whose branch is
not there yet does not find it later.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from airflow_mlops.delivery.git import run_git, said
from airflow_mlops.demo.airflow import AirflowDown, LiveAirflow, free_port
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.registry.signing import Signer

ENVIRONMENTS = ("staging", "production")
_GIT_BUNDLE = "airflow.providers.git.bundles.git.GitDagBundle"
_WHO = {
    "GIT_AUTHOR_NAME": "Demo", "GIT_AUTHOR_EMAIL": "demo@localhost",
    "GIT_COMMITTER_NAME": "Demo", "GIT_COMMITTER_EMAIL": "demo@localhost",
    "GIT_CONFIG_GLOBAL": os.devnull,
}  # fmt: skip


class GitFailed(MLOpsError):
    """A git command of the demo failed."""


def git(folder: Path, *arguments: str) -> str:
    """Run git in ``folder``; returns what it prints.

    :raises GitFailed: it ended with an error.
    """
    done = run_git(folder, *arguments, environment=_WHO)
    if done.returncode:
        raise GitFailed(f"git {arguments[0]} failed in {folder}: {said(done)}", hint="git 2.28 or newer is needed")
    return done.stdout.decode().strip()


class TwoAirflows:
    """A project with its remote, and the two Airflows that run it.

    :param folder: for the remote ``<name>.git``, the checkout ``<name>``, the signing key, and the Airflows' homes.
    :param name: of the project; the delivery DAG is ``<name>__delivery``.
    :param data_root: of both environments.
    :param ports: of the two UIs; default: free ones.
    :param env: more environment, by the name of the environment that gets it.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        data_root: Path,
        *,
        ports: tuple[int, int] | None = None,
        env: Mapping[str, Mapping[str, str]] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder, self.name, self.data_root, self.say = folder.resolve(), name, data_root.resolve(), say
        self.delivery = f"{name}__delivery"
        self.remote, self.project = self.folder / f"{name}.git", self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        git(self.folder, "init", "-q", "--bare", "-b", "main", str(self.remote))
        # Each signs what it makes, staging the bundles too; both trust both.
        self._signers = {each: Signer.generate() for each in ENVIRONMENTS}
        for each, signer in self._signers.items():
            self._key(each).touch(0o600)
            self._key(each).write_bytes(signer.pem())
        two = dict(zip(ENVIRONMENTS, ports or (free_port(), free_port()), strict=True))
        self.staging, self.production = (self._airflow(each, two, (env or {}).get(each, {})) for each in ENVIRONMENTS)

    @property
    def signer(self) -> Signer:
        """Whose signature bundles carry."""
        return self._signers[ENVIRONMENTS[0]]

    def _key(self, environment: str) -> Path:
        return self.folder / f"{environment}-key.pem"

    def push(self, message: str, files: Mapping[str, str] | None = None) -> str:
        """Commit ``files`` (path → text) to the project's main branch and push it; returns the commit."""
        self.project.mkdir(exist_ok=True)
        git(self.project, "init", "-q", "-b", "main")  # leaves one that is there as it is
        for path, text in (files or {}).items():
            (self.project / path).parent.mkdir(parents=True, exist_ok=True)
            (self.project / path).write_text(text, encoding="utf-8")
        git(self.project, "add", "-A")
        git(self.project, "commit", "-q", "-m", message)
        git(self.project, "push", "-q", str(self.remote), "HEAD:main")
        return git(self.project, "rev-parse", "HEAD")

    def _airflow(self, name: str, ports: Mapping[str, int], more: Mapping[str, str]) -> LiveAirflow:
        def bundle(called: str, ref: str, **given: str) -> dict[str, Any]:
            kwargs = {"repo_url": str(self.remote), "tracking_ref": ref, "refresh_interval": 2, **given}
            return {"name": called, "classpath": _GIT_BUNDLE, "kwargs": kwargs}

        bundles, own = [bundle(self.name, f"deploy/{name}")], {}
        if name == ENVIRONMENTS[0]:
            bundles.append(bundle(f"{self.name}-delivery", "main", subdir="delivery"))
            own = {
                f"AIRFLOW_CONN_AIRFLOW_{each.upper()}": json.dumps(
                    {"conn_type": "http", "host": "127.0.0.1", "port": port, "login": "admin", "password": "admin"}
                )
                for each, port in ports.items()
            }
        nothing = self.folder / "no-dags"
        nothing.mkdir(exist_ok=True)
        return LiveAirflow(
            self.folder / name,
            nothing,
            port=ports[name],
            env={
                "AIRFLOW__MLOPS__STORE": (self.folder / f"{name}-store").as_uri(),
                "AIRFLOW__MLOPS__DATA_ROOT": str(self.data_root),
                "AIRFLOW__MLOPS__ALLOWED_IMPORTS": "features",
                "AIRFLOW__MLOPS__ENVIRONMENT": name,
                "AIRFLOW__MLOPS__TRUSTED_KEYS": ",".join(signer.public for signer in self._signers.values()),
                "AIRFLOW__MLOPS__SIGNING_KEY_FILE": str(self._key(name)),
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
                "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
                # Plugins of this environment make the project's tests slow to start.
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                **own,
                **more,
            },
            say=lambda text: self.say(f"{name}: {text}"),
        )

    @contextmanager
    def running(self, *dag_ids: str) -> Iterator[None]:
        """Both Airflows, for as long as the block lasts; it begins when both have read ``dag_ids``.

        :raises AirflowDown: one of them did not start, or did not read its DAGs.
        """
        with ExitStack() as ended:
            for each in (self.staging, self.production):
                ended.callback(each.stop)
            with ThreadPoolExecutor(2) as pool:
                for started in [pool.submit(each.start) for each in (self.staging, self.production)]:
                    started.result()
            self.staging.wait_for_dags(self.delivery, *dag_ids)
            self.production.wait_for_dags(*dag_ids)
            yield

    def runs(self) -> list[dict[str, Any]]:
        """Runs of the delivery, newest first."""
        return list(self.staging.get(f"dags/{self.delivery}/dagRuns", order_by="-run_after")["dag_runs"])

    def next_run(self, before: int, timeout: float = 120) -> str:
        """The id of the run that comes by itself after ``before`` runs.

        :raises AirflowDown: none came in ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while len(runs := self.runs()) <= before:
            self.staging.check_alive()
            if time.monotonic() > deadline:
                raise AirflowDown(
                    f"no delivery has begun in {timeout:.0f} s", hint=f"read {self.staging.home}/triggerer.log"
                )
            time.sleep(0.5)
        return str(runs[0]["dag_run_id"])

    def verdict(self, run_id: str) -> str:
        """What the report of a delivery that has ended says in one line."""
        task = self.staging.get(f"dags/{self.delivery}/dagRuns/{run_id}/taskInstances/report.outcome")
        if task["state"] == "success":
            return str(self.staging.xcom(self.delivery, run_id, "report.outcome")["told"])
        said = self.staging.log(self.delivery, run_id, "report.outcome", task["try_number"])
        return next((line for line in said.splitlines() if "is not delivered" in line), "the report has failed")
