"""A model that is trained on SageMaker predicts on SageMaker, and Airflow defers both tasks and resumes them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_breast_cancer

from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import layout
from tests.integration.sagemaker_containers import ROOT, predict_there, train_there

pytestmark = pytest.mark.usefixtures("models_are_read_once")
ROLE = "arn:aws:iam::123456789012:role/of-jobs"
FILE = f"""
pipeline: people
level: 0
data: {{source: people.csv, target: target, id: id}}
train:
  sagemaker: {{image: "registry/trainer:1", role: "{ROLE}"}}
  params: {{max_iter: 5}}
deploy:
  batch:
    source: new.csv
    sagemaker: {{image: "registry/predictor:1", role: "{ROLE}"}}
"""
DAGS = """
import os, subprocess, sys
subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.sdk import DAG
from airflow_mlops import load_dags
from airflow_mlops.hooks.mlops import MLOpsHook
predict = load_dags(".")["people__predict"]
predict.get_task("predict.batch").poll_interval = 0.2
made = load_dags(".")["people__train"]
# As far as the file's own DAG goes without a person, who must agree.
train = made.partial_subset(["data.snapshot", "validate.expectations", "train.fit"], include_upstream=False)
train.get_task("train.fit").poll_interval = 0.2
DagBundlesManager().sync_bundles_to_db()
bag = DagBag(os.devnull, bundle_path=None, bundle_name="dags-folder")
for dag in (train, predict):
    bag.bag_dag(dag)
sync_bag_to_db(bag, "dags-folder", None)
def run(dag):
    found = dag.test()
    print("ended:", found.state, *sorted(f"{ti.task_id}={ti.state}" for ti in found.get_task_instances()))
run(train)
MLOpsHook().registry("people").promote(1, expected=None, op_id="yes", reason="test")
run(predict)
"""


def test_airflow_defers_both_tasks_of_a_file_and_resumes_them(
    sagemaker, connect, s3_client, s3_bucket, s3_store, tmp_path: Path
) -> None:
    connect(sagemaker.url)
    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 2, 3, -1]]
    frame.columns = ["radius", "perimeter", "area", "target"]
    frame.insert(0, "id", range(len(frame)))
    frame.to_csv(tmp_path / "people.csv", index=False)
    frame.drop(columns="target").iloc[:300].to_csv(tmp_path / "new.csv", index=False)
    (tmp_path / "dags.py").write_text(DAGS)
    (tmp_path / "people.yaml").write_text(FILE)

    def asked(operation: str, times: int) -> None:
        """Wait until SageMaker was asked so often: by the task, which found no job, by it again, by the trigger."""
        while [name for name, _ in sagemaker.asked].count(operation) < times:
            time.sleep(0.05)

    def work() -> None:
        asked("DescribeTrainingJob", 4)
        (job,) = sagemaker.jobs.values()
        train_there(s3_client, s3_bucket, job, tmp_path / "trainer")
        sagemaker.end(job["TrainingJobName"])
        asked("DescribeTransformJob", 4)
        (name,) = sagemaker.transforms
        predict_there(s3_store, sagemaker, name, tmp_path / "predictor")
        sagemaker.end_transform(name)

    there = threading.Thread(target=work, daemon=True)
    there.start()
    env = os.environ | {"AIRFLOW_HOME": str(tmp_path / "home"), "AIRFLOW__MLOPS__DATA_ROOT": str(tmp_path)}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "dags.py")], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    said = (done.stdout + done.stderr)[-3000:]
    assert "ended: success data.snapshot=success train.fit=success validate.expectations=success" in done.stdout, said
    assert "ended: success predict.batch=success" in done.stdout, said
    there.join(10)
    version = Registry(s3_store, "people").get(1)
    assert version.record["job"]["name"] == sagemaker.created[0]
    assert len(sagemaker.created) == len(sagemaker.transforms) == 1
    (note,) = version.notes["prediction"]
    assert note["job"]["name"] == next(iter(sagemaker.transforms))
    (written,) = (tmp_path / "predictions/people").iterdir()
    assert pq.read_table(written).num_rows == 300
    assert list(s3_store.list(layout.jobs_prefix("people"))) == []
