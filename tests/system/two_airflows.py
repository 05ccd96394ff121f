"""A project in a bare repository, and two Airflows that track its branches: staging, which delivers, and production."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_mlops.delivery.bundle import pack, read_bundle
from airflow_mlops.delivery.deployment import Deployment, History, Request, Target, deploy, history
from airflow_mlops.delivery.remote import Remote
from airflow_mlops.delivery.repository import Repository
from airflow_mlops.delivery.scaffold import example_customers, new_project
from airflow_mlops.demo.airflow import LiveAirflow, free_port
from airflow_mlops.registry.signing import Signer, Verifier

DELIVERY = "crm__delivery"
DAGS = ("churn__train", "churn__predict", "churn__registry")
PROJECT = """\
project: crm
remote: {remote}
watch: {{every: 2s}}
environments:
  staging: {{branch: deploy/staging, api: airflow_staging, verify_timeout: 2m{smoke}}}
  production: {{branch: deploy/production, api: airflow_production, verify_timeout: 2m, approve: {{required: true}}}}
"""
LOADER = """\
# airflow dag
from datetime import timedelta
from airflow_mlops import load_delivery

def hurried(dag, project):
    for task in dag.tasks:
        task.retry_delay = timedelta(seconds=1)
        task.retry_exponential_backoff = False

globals().update(load_delivery("..", sample=400, customise=hurried))
"""


def git(folder: Path, *arguments: str) -> str:
    who = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.strip()


class World:
    """The project, its remote and the two Airflows.

    :param smoke: whether staging is asked for smoke runs.

    The first deployment is made before they start: a git bundle whose branch is not there yet does not find it later.
    """

    def __init__(self, folder: Path, *, smoke: bool = False, say: Callable[[str], None] = print) -> None:
        self.folder, self.say = folder, say
        self.remote, self.project = folder / "crm.git", folder / "crm"
        git(folder, "init", "-q", "--bare", "-b", "main", str(self.remote))
        new_project(self.project)
        git(self.project, "remote", "add", "origin", str(self.remote))
        (folder / "lake").mkdir()
        (folder / "lake" / "customers.csv").write_bytes(example_customers())
        self.signer = Signer.generate()
        (folder / "key.pem").touch(0o600)
        (folder / "key.pem").write_bytes(self.signer.pem())
        first = {
            "project.yaml": PROJECT.format(remote=self.remote, smoke=", smoke: {}" if smoke else ""),
            "delivery/dag.py": LOADER,
        }
        self.push("First version", **first)
        self.first = self._deploy_first()
        ports = {name: free_port() for name in ("staging", "production")}
        self.staging, self.production = (self._airflow(name, ports) for name in ports)

    def push(self, message: str, **files: str) -> str:
        """Commit files to the project's main branch and push it."""
        for path, text in files.items():
            (self.project / path).parent.mkdir(exist_ok=True)
            (self.project / path).write_text(text)
        git(self.project, "add", "-A")
        git(self.project, "commit", "-q", "-m", message)
        git(self.project, "push", "-q", "origin", "HEAD:main")
        return git(self.project, "rev-parse", "HEAD")

    def _deploy_first(self) -> str:
        repository = Repository.around(self.project)
        data = pack(repository.files(), project="crm", commit=repository.head, signer=self.signer)
        bundle = read_bundle(data, verifier=Verifier((self.signer.public,)))
        for target, operation in zip(self.targets().values(), ("1" * 64, "2" * 64), strict=True):
            deploy(target, bundle, Request("the first", operation))
        return bundle.digest

    def targets(self) -> dict[str, Target]:
        remote = Remote(str(self.remote))
        staging = Target(remote, "crm", "staging", "deploy/staging")
        return {"staging": staging, "production": Target(remote, "crm", "production", "deploy/production", staging)}

    def history(self, environment: str) -> History:
        """What was deployed to an environment; raises where its branch is no whole deployment."""
        return history(self.targets()[environment])

    def current(self, environment: str) -> Deployment:
        found = self.history(environment).current
        assert found is not None
        return found

    def _airflow(self, name: str, ports: dict[str, int]) -> LiveAirflow:
        def bundle(called: str, ref: str, **more: str) -> dict[str, Any]:
            given = {"repo_url": str(self.remote), "tracking_ref": ref, "refresh_interval": 2, **more}
            return {"name": called, "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": given}

        bundles = [bundle("crm", f"deploy/{name}")]
        if name == "staging":
            bundles.append(bundle("crm-delivery", "main", subdir="delivery"))
        connections = {
            f"AIRFLOW_CONN_AIRFLOW_{each.upper()}": json.dumps(
                {"conn_type": "http", "host": "127.0.0.1", "port": port, "login": "admin", "password": "admin"}
            )
            for each, port in ports.items()
        }
        nothing = self.folder / "none"
        nothing.mkdir(exist_ok=True)
        return LiveAirflow(
            self.folder / name,
            nothing,
            port=ports[name],
            env={
                **(connections if name == "staging" else {}),
                "AIRFLOW__MLOPS__STORE": (self.folder / f"{name}-store").as_uri(),
                "AIRFLOW__MLOPS__DATA_ROOT": str(self.folder / "lake"),
                "AIRFLOW__MLOPS__ALLOWED_IMPORTS": "features",
                "AIRFLOW__MLOPS__ENVIRONMENT": name,
                "AIRFLOW__MLOPS__TRUSTED_KEYS": self.signer.public,
                **({"AIRFLOW__MLOPS__SIGNING_KEY_FILE": str(self.folder / "key.pem")} if name == "staging" else {}),
                "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
                "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
                # Plugins of this environment make pytest slow to start.
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            },
            say=lambda text: self.say(f"{name}: {text}"),
        )

    @contextmanager
    def running(self) -> Iterator[World]:
        """Both Airflows, for as long as the block lasts."""
        try:
            with ThreadPoolExecutor(2) as pool:
                for started in [pool.submit(each.start) for each in (self.staging, self.production)]:
                    started.result()
            self.staging.wait_for_dags(DELIVERY, *DAGS)
            self.production.wait_for_dags(*DAGS)
            yield self
        finally:
            self.staging.stop()
            self.production.stop()

    # --- deliveries --------------------------------------------------------------------------------

    def runs(self) -> list[dict[str, Any]]:
        """Runs of the delivery, newest first."""
        return list(self.staging.get(f"dags/{DELIVERY}/dagRuns", order_by="-run_after")["dag_runs"])

    def next_run(self, before: int, timeout: float = 60) -> str:
        """The id of the run that comes by itself after ``before`` runs."""
        deadline = time.monotonic() + timeout
        while len(runs := self.runs()) <= before:
            assert time.monotonic() < deadline, "no delivery has begun"
            time.sleep(0.5)
        return str(runs[0]["dag_run_id"])

    def versions(self, environment: str) -> dict[str, str]:
        """DAG → version of its bundle, as an environment's Airflow shows it."""
        live = {"staging": self.staging, "production": self.production}[environment]
        return {
            d["dag_id"]: d["bundle_version"] for d in live.get("dags", bundle_name="crm", exclude_stale=True)["dags"]
        }

    def verdict(self, run_id: str) -> str:
        """What the report of a run says in one line."""
        states = self.staging.task_states(DELIVERY, run_id)
        if states["report.outcome"] == "success":
            return str(self.staging.xcom(DELIVERY, run_id, "report.outcome")["told"])
        path = f"dags/{DELIVERY}/dagRuns/{run_id}/taskInstances/report.outcome"
        said = self.staging.log(DELIVERY, run_id, "report.outcome", self.staging.get(path)["try_number"])
        return next(line for line in said.splitlines() if "is not delivered" in line)
