"""The demo's two Airflows with the project of the scaffold, and what was deployed of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from airflow_mlops.delivery.bundle import pack, read_bundle
from airflow_mlops.delivery.deployment import Deployment, History, Request, Target, deploy, history
from airflow_mlops.delivery.remote import Remote
from airflow_mlops.delivery.repository import Repository
from airflow_mlops.delivery.scaffold import example_customers, new_project
from airflow_mlops.demo.two_airflows import TwoAirflows
from airflow_mlops.registry.signing import Verifier

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


class World(TwoAirflows):
    """The project ``crm``, whose first version is deployed to both.

    :param smoke: whether staging is asked for smoke runs.
    """

    def __init__(self, folder: Path, *, smoke: bool = False, say: Callable[[str], None] = print) -> None:
        super().__init__(folder, "crm", folder / "lake", say=say)
        self.data_root.mkdir()
        (self.data_root / "customers.csv").write_bytes(example_customers())
        new_project(self.project)
        asked = ", smoke: {}" if smoke else ""
        files = {"project.yaml": PROJECT.format(remote=self.remote, smoke=asked), "delivery/dag.py": LOADER}
        self.push("First version", files)
        self.first = self._deploy_first()

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

    def versions(self, environment: str) -> dict[str, str]:
        """DAG → version of its bundle, as an environment's Airflow shows it."""
        live = {"staging": self.staging, "production": self.production}[environment]
        found = live.get("dags", bundle_name="crm", exclude_stale=True)["dags"]
        return {dag["dag_id"]: dag["bundle_version"] for dag in found}
