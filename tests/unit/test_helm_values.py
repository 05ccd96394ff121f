"""docs/helm-values.yaml has no key that Airflow's chart does not know, and its values fit the package.

The names are copied by hand from the chart's documentation, 1.19 to 1.22; True stands for whatever Kubernetes or
Airflow takes there. The chart's own schema is not in this repository.
"""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.config import load_text
from airflow_mlops.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/helm-values.yaml"
VALUES: dict[str, Any] = yaml.safe_load(FILE.read_text())
PAGE = (ROOT / "docs/how-to/kubernetes.md").read_text()

_SET = {"name": True, "queue": True, "replicas": True, "resources": True, "persistence": {"enabled": True}}
_SERVICE = {"resources": True, "replicas": True}
KNOWN: dict[str, Any] = {
    "executor": True,
    "airflowVersion": True,
    "defaultAirflowRepository": True,
    "defaultAirflowTag": True,
    "postgresql": {"enabled": True},
    "data": {"metadataSecretName": True, "resultBackendSecretName": True, "brokerUrlSecretName": True},
    "fernetKeySecretName": True,
    "apiSecretKeySecretName": True,
    "jwtSecretName": True,
    "secret": [{"envName": True, "secretName": True, "secretKey": True}],
    "config": True,
    "dags": {"persistence": {"enabled": True}, "gitSync": {"enabled": True}},
    "dagProcessor": {**_SERVICE, "dagBundleConfigList": [{"name": True, "classpath": True, "kwargs": True}]},
    "apiServer": _SERVICE,
    "scheduler": _SERVICE,
    "triggerer": {**_SERVICE, "enabled": True, "persistence": {"enabled": True}},
    "workers": {
        "celery": {**_SET, "enableDefault": True, "sets": [_SET]},
        "kubernetes": {"resources": True},
    },
}


def unknown(values: Any, known: Any, path: str = "") -> Iterator[str]:
    if isinstance(known, dict):
        for key, value in values.items():
            if key in known:
                yield from unknown(value, known[key], f"{path}.{key}")
            else:
                yield f"{path}.{key}"
    elif isinstance(known, list):
        for item in values:
            yield from unknown(item, known[0], f"{path}[]")


def test_every_key_is_the_chart_s() -> None:
    assert list(unknown(VALUES, KNOWN)) == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("apiServer:", "webserver:", [".webserver"]),
        ("sets:", "set:", [".workers.celery.set"]),
        ("secretKey: connection", "key: connection", [".secret[].key", ".secret[].key"]),
    ],
)
def test_a_key_of_another_chart_is_found(old: str, new: str, found: list[str]) -> None:
    assert list(unknown(yaml.safe_load(FILE.read_text().replace(old, new)), KNOWN)) == found


def test_options_of_mlops_are_the_package_s() -> None:
    assert set(VALUES["config"]["mlops"]) <= set(get_provider_info()["config"]["mlops"]["options"])


def test_versions_are_those_of_the_repository() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert VALUES["defaultAirflowTag"] == project["version"]
    assert f"apache-airflow=={VALUES['airflowVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert f'"apache-airflow=={VALUES["airflowVersion"]}"' in PAGE


def test_what_is_named_is_there() -> None:
    for bundle in VALUES["dagProcessor"]["dagBundleConfigList"]:
        module, _, name = bundle["classpath"].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        assert cls.supports_versioning
        assert f"AIRFLOW_CONN_{bundle['kwargs']['git_conn_id'].upper()}" in {s["envName"] for s in VALUES["secret"]}
    needed = {value for key, value in VALUES.items() if key.endswith("SecretName")}
    needed |= {*VALUES["data"].values(), *(s["secretName"] for s in VALUES["secret"])}
    assert set(re.findall(r"^secret (\S+) ", PAGE, re.MULTILINE)) == needed
    for connection in re.findall(r"--from-literal=connection='(\{.*\})'", PAGE):
        assert json.loads(connection)["conn_type"] in ("aws", "git")


def test_the_page_s_pipeline_runs_in_a_queue_and_an_executor_that_are_there() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = load_text(block)
    queues = {VALUES["workers"]["celery"]["queue"], *(s["queue"] for s in VALUES["workers"]["celery"]["sets"])}
    assert config.train.resources.queue in queues
    assert config.deploy.batch.resources.executor in VALUES["executor"].split(",")
