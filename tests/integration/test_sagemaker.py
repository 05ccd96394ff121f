"""Training on SageMaker: against a server that checks every request by botocore's model, and against moto."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import boto3
import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import TrainingUnavailable
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.operators.sagemaker import SageMakerTrainOperator
from airflow_mlops.registry.artifacts import dump_model, fetch_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.triggers.sagemaker import TrainingJobTrigger
from tests.integration.sagemaker_containers import leave, train_there

ROLE = "arn:aws:iam::123456789012:role/trainer"
TRAIN: dict[str, Any] = {"sagemaker": {"image": "registry/trainer:1", "role": ROLE}, "params": {"max_iter": 5}}
DATA = {"source": "people.csv", "target": "target", "id": "id", "exclude": ["texture"]}
pytestmark = pytest.mark.usefixtures("models_are_read_once")


@pytest.fixture
def snapshot(s3_store, tmp_path: Path) -> dict[str, Any]:
    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 2, 3, -1]]
    frame.columns = ["radius", "texture", "perimeter", "area", "target"]
    frame.insert(0, "id", range(len(frame)))
    frame["ward"] = ["north", "south", "east"] * (len(frame) // 3) + ["north"] * (len(frame) % 3)
    frame.to_csv(tmp_path / "people.csv", index=False)
    data = Data.model_validate(DATA)
    batches = read_batches(data, files=Files(root=str(tmp_path)), window=None)
    return take_snapshot(s3_store, "people", batches, data=data, window=None).to_ref()


def operator(snapshot: dict[str, Any], **train: Any) -> SageMakerTrainOperator:
    return SageMakerTrainOperator(
        task_id="train.fit",
        pipeline="people",
        snapshot=snapshot,
        data=DATA,
        train={**TRAIN, **train},
        poll_interval=0.05,
    )


def context(task: SageMakerTrainOperator) -> Any:
    ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull", "try_number"])
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "people__train", "manual__1", task.task_id, -1
    run = SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None)
    return {"ti": ti, "task": task, "params": {}, "dag_run": run}


def submit(task: SageMakerTrainOperator) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as waiting:
        task.execute(context(task))
    assert waiting.value.method_name == "execute_complete"
    return waiting.value


def resume(task: SageMakerTrainOperator, waiting: TaskDeferred) -> tuple[Any, Any]:
    """Run the trigger as the triggerer does, from its serialized form, then the task's second half."""
    path, arguments = waiting.trigger.serialize()
    assert path == "airflow_mlops.triggers.sagemaker.TrainingJobTrigger"
    trigger = TrainingJobTrigger(**arguments)

    async def first() -> Any:
        return await anext(trigger.run())

    event = asyncio.run(first())
    here = context(task)
    return task.execute_complete(here, event.payload, **waiting.kwargs), here


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads two of the columns."""
    frame = load_breast_cancer(as_frame=True).frame
    features = frame[["mean radius", "mean area"]].set_axis(["radius", "area"], axis=1)
    path = tmp_path_factory.mktemp("model") / "model.skops"
    dump_model(LogisticRegression().fit(features, frame["target"]), path)
    return path


def keys(client: Any, bucket: str, part: str) -> list[str]:
    found = client.list_objects_v2(Bucket=bucket, Prefix="mlops/").get("Contents", [])
    return [item["Key"] for item in found if part in item["Key"]]


def test_from_a_snapshot_to_a_version(sagemaker, connect, snapshot, s3_client, s3_bucket, s3_store, tmp_path) -> None:
    connect(sagemaker.url)
    task = operator(snapshot, sagemaker=TRAIN["sagemaker"] | {"price_per_hour": 0.4, "max_runtime": "2h"})
    waiting = submit(task)
    (name,) = sagemaker.created
    job = sagemaker.jobs[name]
    assert re.fullmatch(r"people-[0-9a-f]{24}-1", name)
    assert job["HyperParameters"] == {"max_iter": "5", "seed": "7", "target": "target"}
    assert job["RoleArn"] == ROLE
    assert job["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200}

    seen = train_there(s3_client, s3_bucket, job, tmp_path)
    assert list(seen.columns) == ["radius", "perimeter", "area", "ward", "target"]
    sagemaker.end(name)
    result, here = resume(task, waiting)

    version = Registry(s3_store, "people").get(result["version"])
    record = version.record
    assert (result["version"], result["digest"]) == (1, record["model"]["digest"])
    assert len(seen) == record["rows"]["train"]
    assert record["rows"]["train"] + record["rows"]["holdout"] == 569
    assert record["estimator"] == "SageMaker: registry/trainer:1"
    assert record["job"] == {
        "arn": job["TrainingJobArn"], "name": name, "image": "registry/trainer:1", "instance_type": "ml.m5.large",
        "seconds": 60, "billed_seconds": 90, "finished": "2026-01-01T00:02:00+00:00",
    }  # fmt: skip
    (cost,) = version.notes["cost"]
    assert (cost["task"], cost["wall_seconds"], cost["price_per_hour"]) == ("SageMaker ml.m5.large", 90.0, 0.4)
    spent = here["ti"].xcom_push.call_args.kwargs["value"]
    assert spent["wall_seconds"] > waiting.kwargs["cost"]["wall_seconds"] > 0
    model = fetch_model(s3_store, record["model"])
    assert set(model.predict(seen.drop(columns="target"))) == {0, 1}
    assert keys(s3_client, s3_bucket, "/jobs/") == []

    # The task again, after its result was lost.
    assert (
        operator(snapshot, sagemaker=TRAIN["sagemaker"] | {"price_per_hour": 0.4, "max_runtime": "2h"}).execute(
            context(task)
        )
        == result
    )
    assert sagemaker.created == [name]


def test_another_try_finds_the_job_that_runs(sagemaker, connect, snapshot, s3_client, s3_bucket, model_file) -> None:
    connect(sagemaker.url)
    submit(operator(snapshot))
    again = operator(snapshot)
    waiting = submit(again)
    assert len(sagemaker.created) == 1
    name = sagemaker.created[0]
    leave(s3_client, s3_bucket, sagemaker.jobs[name], model_file)
    sagemaker.end(name)
    assert operator(snapshot).execute(context(again))["version"] == 1
    # Airflow may run a task twice: what the other try has registered and cleared away is found.
    assert resume(again, waiting)[0]["version"] == 1


def test_a_reply_that_was_lost_is_no_second_job(sagemaker, connect, snapshot, monkeypatch) -> None:
    connect(sagemaker.url)
    task = operator(snapshot)
    from airflow_mlops.hooks.sagemaker import TrainingJobs

    find, missed = TrainingJobs.find, []

    def blind(self: TrainingJobs, name: str) -> Any:
        missed.append(name)
        return None if len(missed) == 1 else find(self, name)

    submit(task)
    monkeypatch.setattr(TrainingJobs, "find", blind)
    assert submit(operator(snapshot)).trigger.job == sagemaker.created[0]
    assert len(sagemaker.jobs) == 1


def test_what_a_retry_mends_and_what_not(sagemaker, connect, snapshot, s3_client, s3_bucket) -> None:
    connect(sagemaker.url)
    task = operator(snapshot)
    waiting = submit(task)
    first = sagemaker.created[0]
    sagemaker.end(first, "Failed", FailureReason="CapacityError: Unable to provision requested ML compute capacity.")
    with pytest.raises(TrainingUnavailable, match="CapacityError: Unable to provision"):
        resume(task, waiting)
    assert keys(s3_client, s3_bucket, "/jobs/") == []
    waiting = submit(task)
    assert sagemaker.created == [first, first[:-1] + "2"]
    sagemaker.end(first[:-1] + "2", "Failed", FailureReason="AlgorithmError: ValueError: no such column, exit code: 1")
    with pytest.raises(AirflowFailException, match=r"(?s)AlgorithmError: ValueError: no such column.*CloudWatch"):
        resume(task, waiting)
    waiting = submit(task)
    sagemaker.end(first[:-1] + "3", "Stopped", SecondaryStatus="MaxRuntimeExceeded")
    with pytest.raises(AirflowFailException, match=r"(?s)took longer than 86,400 s.*max_runtime"):
        resume(task, waiting)


def test_a_model_that_cannot_be_used(sagemaker, connect, snapshot, s3_client, s3_bucket, model_file) -> None:
    connect(sagemaker.url)
    task = operator(snapshot)
    waiting = submit(task)
    (name,) = sagemaker.created
    sagemaker.end(name)
    with pytest.raises(AirflowFailException, match=r"(?s)left nothing at s3://.*s3:PutObject"):
        resume(task, waiting)
    waiting = submit(task)
    again = sagemaker.created[1]
    leave(s3_client, s3_bucket, sagemaker.jobs[again], model_file, "model.joblib")
    sagemaker.end(again)
    with pytest.raises(AirflowFailException, match=r"left no model.skops in /opt/ml/model \(found: model.joblib\)"):
        resume(task, waiting)
    assert keys(s3_client, s3_bucket, "/jobs/") == []


def test_who_stops_the_task_stops_the_job(sagemaker, connect, snapshot) -> None:
    connect(sagemaker.url)
    task = operator(snapshot)
    task.on_kill()
    waiting = submit(task)
    (name,) = sagemaker.created
    asyncio.run(waiting.trigger.on_kill())
    assert sagemaker.jobs[name]["TrainingJobStatus"] == "Stopped"
    task.on_kill()  # it has ended: nothing more to stop
    submit(task)
    task.on_kill()
    assert [job["TrainingJobStatus"] for job in sagemaker.jobs.values()] == ["Stopped", "Stopped"]


def test_refused_requests(sagemaker, connect, snapshot) -> None:
    connect(sagemaker.url)
    task = operator(snapshot)
    for refused, error, said in (
        ((400, "ThrottlingException", "Rate exceeded"), TrainingUnavailable, "Rate exceeded"),
        ((400, "ResourceLimitExceeded", "ml.m5.large: 0 Instances"), TrainingUnavailable, "0 Instances"),
        ((503, "ServiceUnavailable", "later"), TrainingUnavailable, "later"),
        ((400, "AccessDeniedException", "no PassRole"), AirflowFailException, r"(?s)no PassRole.*iam:PassRole"),
    ):
        sagemaker.refuse = refused
        with pytest.raises(error, match=said):
            task.execute(context(task))
    submit(task)


def test_fields_of_the_request_are_checked_before_it_is_sent(sagemaker, connect, snapshot) -> None:
    connect(sagemaker.url)
    wrong = operator(snapshot, sagemaker=TRAIN["sagemaker"] | {"request": {"VpcConfg": {}}})
    with pytest.raises(AirflowFailException, match=r'(?s)Unknown parameter in input: "VpcConfg".*`request`'):
        wrong.execute(context(wrong))
    assert sagemaker.jobs == {}
    more = {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}, "Tags": [{"Key": "a", "Value": "b"}]}
    submit(operator(snapshot, sagemaker=TRAIN["sagemaker"] | {"request": more}))
    (job,) = sagemaker.jobs.values()
    assert job["VpcConfig"] == more["VpcConfig"]


def test_the_store_must_be_on_s3(sagemaker, connect, snapshot, monkeypatch, tmp_path) -> None:
    connect(sagemaker.url)
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    task = operator(snapshot)
    with pytest.raises(AirflowFailException, match="needs a store on S3"):
        task.execute(context(task))


def test_moto_trains_at_once(connect, snapshot, s3_endpoint, s3_client, s3_bucket, model_file) -> None:
    connect(s3_endpoint)
    login = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    iam = boto3.client("iam", endpoint_url=s3_endpoint, **login)
    arn = iam.create_role(RoleName=s3_bucket, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    task = operator(snapshot, sagemaker=TRAIN["sagemaker"] | {"role": s3_bucket})
    with pytest.raises(AirflowFailException, match="left nothing at"):
        task.execute(context(task))
    there = boto3.client("sagemaker", endpoint_url=s3_endpoint, **login)
    mine = [s["TrainingJobName"] for s in there.list_training_jobs(NameContains="people")["TrainingJobSummaries"]]
    job = next(j for name in mine if (j := there.describe_training_job(TrainingJobName=name))["RoleArn"] == arn)
    assert job["TrainingJobStatus"] == "Completed"
    assert job["AlgorithmSpecification"]["TrainingImage"] == "registry/trainer:1"
    assert job["ModelArtifacts"]["S3ModelArtifacts"].startswith(f"s3://{s3_bucket}/mlops/pipelines/people/jobs/people-")
    # The model arrives: the job of the first try has one now.
    leave(s3_client, s3_bucket, job, model_file)
    assert task.execute(context(task))["version"] == 1
    assert len(there.list_training_jobs(NameContains=job["TrainingJobName"][:-2])["TrainingJobSummaries"]) == 1
