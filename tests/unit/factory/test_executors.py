"""Pool, queue, executor and pod reach the tasks, and the pods that the KubernetesExecutor makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from kubernetes.client import models as k8s

from airflow_mlops.config import load_text
from airflow_mlops.factory.builder import build_pipeline
from airflow_mlops.factory.loading import load_dags

FILE = """
pipeline: churn
level: 2
resources: {pool: small, queue: default}
data: {source: a.csv, target: y, resources: {pool: lake}}
train:
  estimator: sklearn.linear_model.LogisticRegression
  resources:
    pool: ml
    queue: gpu
    executor: LocalExecutor
    executor_config:
      pod_override:
        metadata: {labels: {team: crm}}
        spec:
          nodeSelector: {pool: ml}
          containers:
            - name: base
              resources:
                requests: {cpu: 2, memory: 8Gi}
                limits: {memory: 8Gi}
experiment:
  space: {C: [0.1, 1.0]}
  resources: {pool: trials, executor_config: {pod_override: {metadata: {labels: {a: b}}}}}
evaluate: {gates: [{metric: roc_auc, at_least: 0.5}]}
retrain: {schedule: "@weekly"}
"""


@pytest.fixture(autouse=True)
def _executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")


def stored(dag: DAG) -> Any:
    """The DAG as the scheduler reads it back from the database."""
    return DagSerialization.from_dict(DagSerialization.to_dict(dag))


def test_each_section_has_its_own_place() -> None:
    dags = build_pipeline(load_text(FILE))
    train = stored(dags["churn__train"])
    places = {t.task_id: (t.pool, t.queue, t.executor) for t in train.tasks}
    assert places["data.snapshot"] == ("lake", "default", None)
    assert places["train.fit"] == ("ml", "gpu", "LocalExecutor")
    assert places["evaluate.gates"] == ("small", "default", None)
    trials = stored(dags["churn__experiment"]).get_task("experiment.trials")
    assert trials.pool == "trials"
    assert trials.executor_config["pod_override"].metadata.labels == {"a": "b"}


def test_the_pod_of_a_task_has_what_the_file_says() -> None:
    task = stored(build_pipeline(load_text(FILE))["churn__train"]).get_task("train.fit")
    base = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(labels={"tier": "airflow"}),
        spec=k8s.V1PodSpec(
            service_account_name="worker",
            containers=[
                k8s.V1Container(
                    name="base",
                    env=[k8s.V1EnvVar(name="AIRFLOW__MLOPS__STORE", value="s3://lake/mlops")],
                    resources=k8s.V1ResourceRequirements(requests={"cpu": "100m"}),
                )
            ],
        ),
    )
    pod = PodGenerator.construct_pod(
        dag_id="churn__train", task_id="train.fit", pod_id="churn-train-fit", try_number=1, kube_image="mlops:1",
        date=None, args=["airflow"], pod_override_object=PodGenerator.from_obj(task.executor_config),
        base_worker_pod=base, namespace="airflow", scheduler_job_id="1",
    )  # fmt: skip
    (container,) = pod.spec.containers
    assert (container.name, container.image) == ("base", "mlops:1")
    assert container.resources.requests == {"cpu": "2", "memory": "8Gi"}
    assert container.resources.limits == {"memory": "8Gi"}
    assert "AIRFLOW__MLOPS__STORE" in {variable.name for variable in container.env}
    assert pod.spec.node_selector == {"pool": "ml"}
    assert pod.spec.service_account_name == "worker"
    assert pod.metadata.labels.items() >= {"team": "crm", "tier": "airflow", "dag_id": "churn__train"}.items()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("executor: LocalExecutor", "executor: KubernetesExecutor", "this Airflow has LocalExecutor"),
        ("limits:", "limit:", "ResourceRequirements has no field `limit`; did you mean `limits`?"),
    ],
)
def test_a_mistake_takes_no_other_pipeline_with_it(tmp_path: Path, old: str, new: str, said: str) -> None:
    (tmp_path / "churn.yaml").write_text(FILE.replace(old, new))
    (tmp_path / "good.yaml").write_text(FILE.replace("pipeline: churn", "pipeline: good"))
    dags = load_dags(tmp_path)
    assert "good__train" in dags
    assert "churn__train" not in dags
    assert said in " ".join(dags["churn__invalid"].doc_md.split())


def test_kubernetes_is_imported_only_where_a_pod_is_and_not_to_start_a_task(tmp_path: Path) -> None:
    (tmp_path / "churn.yaml").write_text(FILE)
    (tmp_path / "plain.yaml").write_text(FILE.replace("pod_override", "other").replace("churn", "plain"))
    code = (
        "import os, sys; from airflow_mlops import load_dags\n"
        f"os.environ['_AIRFLOW_PARSING_CONTEXT_DAG_ID'] = 'churn__train'; load_dags({str(tmp_path)!r})\n"
        "print('kubernetes' in sys.modules)\n"
        f"del os.environ['_AIRFLOW_PARSING_CONTEXT_DAG_ID']; load_dags({str(tmp_path)!r})\n"
        "print('kubernetes' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["False", "True"]


def test_a_pool_that_is_not_there_is_a_warning_on_the_dag(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/churn.yaml").write_text(FILE)
    text = "# an airflow dag\nfrom airflow_mlops import load_dags\nglobals().update(load_dags())\n"
    (tmp_path / "loader.py").write_text(text)
    bag = DagBag(tmp_path, bundle_path=tmp_path, bundle_name="here", known_pools={"default_pool", "small", "lake"})
    assert bag.import_errors == {}
    told = {warning.dag_id: warning.message for warning in bag.dag_warnings}
    assert told["churn__train"] == "Dag 'churn__train' references non-existent pools: ['ml']"
