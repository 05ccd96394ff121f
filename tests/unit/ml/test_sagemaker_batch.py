"""What is asked of a batch transform job, and what its end means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator

from airflow_mlops.config.loader import load_text
from airflow_mlops.config.models import BatchSageMaker, PipelineConfig
from airflow_mlops.exceptions import ConfigError, PredictionError, PredictionUnavailable
from airflow_mlops.factory.builder import build_pipeline
from airflow_mlops.ml.cost import price
from airflow_mlops.ml.frozen_rows import Part, Plan
from airflow_mlops.ml.sagemaker_batch import check_predicted, job_facts, job_request, longest, model_request
from airflow_mlops.triggers.sagemaker import TransformJobTrigger

SERVICE = botocore.session.get_session().get_service_model("sagemaker")
ASKED = {"image": "registry/predictor:1", "role": "arn:aws:iam::123456789012:role/predictor"}
PLAN = Plan("of", 3, "m" * 64, "c" * 64, {"prediction": "int64"}, (Part(2, "a" * 64, "b" * 64),), None)
START = datetime(2026, 1, 1, tzinfo=UTC)
FILE = """
pipeline: churn
level: 0
data: {source: a.csv, target: y}
train: {estimator: sklearn.linear_model.LogisticRegression}
deploy:
  batch:
    sagemaker: {image: i, role: r}
"""


def asked(**more: Any) -> BatchSageMaker:
    return BatchSageMaker.model_validate(ASKED | more)


def test_the_requests_are_what_botocore_takes() -> None:
    more = asked(
        request={"Tags": [{"Key": "a", "Value": "b"}], "ModelClientConfig": {"InvocationsTimeoutInSeconds": 60}},
        model_request={"EnableNetworkIsolation": True},
    )
    made = model_request(more, name="p-1", plan=PLAN, model_uri="s3://b/model.tar.gz")
    job = job_request(more, name="p-1", input_uri="s3://b/input/", output_uri="s3://b/output")
    for operation, found in (("CreateModel", made), ("CreateTransformJob", job)):
        report = ParamValidator().validate(found, SERVICE.operation_model(operation).input_shape)
        assert not report.has_errors(), report.generate_report()
    assert made["PrimaryContainer"]["Environment"] == {"AIRFLOW_MLOPS_CONTRACT": "c" * 64}
    assert made["EnableNetworkIsolation"] is True
    assert job["ModelClientConfig"] == {"InvocationsTimeoutInSeconds": 60}


@pytest.mark.parametrize(
    ("own", "timeout", "seconds"), [("2h", None, 7200), ("2h", 60.0, 60), ("1m", 3600.0, 60), ("28d", None, 2419200)]
)
def test_a_job_never_outlives_its_task(own: str, timeout: float | None, seconds: int) -> None:
    assert longest(asked(max_runtime=own), timeout) == seconds


def test_a_job_that_was_stopped_for_its_time_says_so() -> None:
    job = {"TransformJobName": "p-1", "TransformJobStatus": "Stopped", "CreationTime": START}
    late = START + timedelta(seconds=100)
    for ended in ({"TransformEndTime": late}, {}):
        with pytest.raises(PredictionError, match="longer than 100 s"):
            check_predicted(job | ended, 100, now=late)
        with pytest.raises(PredictionError, match="p-1 was stopped"):
            check_predicted(job | ended, 101, now=late)
    with pytest.raises(PredictionUnavailable, match="it is Stopping"):
        check_predicted(job | {"TransformJobStatus": "Stopping"}, 100, now=late)
    # One that made it in the last moment is as good as any.
    check_predicted(job | {"TransformJobStatus": "Completed", "TransformEndTime": late}, 100)


def test_the_clock_of_all_instances_is_what_it_costs() -> None:
    job = {
        "TransformJobArn": "arn", "TransformJobName": "p-1", "TransformStartTime": START,
        "TransformEndTime": START + timedelta(minutes=30),
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 4},
    }  # fmt: skip
    facts = job_facts(job, asked(price_per_hour=0.5), "EUR")
    assert (facts["seconds"], facts["instances"], facts["cost"]["currency"]) == (1800.0, 4, "EUR")
    assert price(facts["cost"]) == 1.0
    unknown = job_facts(job | {"TransformEndTime": None}, asked(), "EUR")
    assert (unknown["seconds"], unknown["finished"], "currency" in unknown["cost"]) == (None, None, False)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("image: i, ", "", 8, "`image` is missing in `deploy.batch.sagemaker`"),
        ("role: r", "role: r, max_runtime: 29d", 8, "may take 28d at most"),
        ("role: r", "role: r, max_payload_mb: 101", 8, "max_payload_mb"),
        ("role: r", "role: r, instance_count: 0", 8, "instance_count"),
        ("role: r", "role: r, request: {DataProcessing: {}}", 8, "DataProcessing follows from the other keys"),
        ("role: r", "role: r, model_request: {ExecutionRoleArn: x}", 8, "ExecutionRoleArn follows from the other keys"),
        (
            "role: r",
            "role: r, request: {MaxConcurrentTransforms: 4}",
            8,
            "(4) times `max_payload_mb` (32) is more than",
        ),
        ("role: r", "role: r, volume_gb: 3", 8, "volume_gb"),
        ("level: 0", "level: 0\nfleet: {key: k}", 4, "`fleet` predicts in tasks here"),
        (
            "level: 0",
            "level: 2\nretrain: {when: [new_data]}\nevaluate: {gates: [{metric: roc_auc, at_least: 0.5}]}",
            10,
            "`deploy.batch.sagemaker` predicts with one version; give `deploy.rollout: [full]`",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(old: str, new: str, line: int, said: str) -> None:
    assert isinstance(load_text(FILE, "p.yaml"), PipelineConfig)
    with pytest.raises(ConfigError) as e:
        load_text(FILE.replace(old, new), "p.yaml")
    assert said in str(e.value)
    assert f"p.yaml:{line}:" in str(e.value)


def test_a_rollout_in_one_step_goes_together_with_it() -> None:
    level = "level: 2\nretrain: {when: [new_data]}\nevaluate: {gates: [{metric: roc_auc, at_least: 0.5}]}"
    text = FILE.replace("level: 0", level) + "  rollout: [full]\n"
    assert load_text(text, "p.yaml").deploy.batch.sagemaker is not None


def test_the_file_makes_the_operator() -> None:
    batch = "sagemaker: {image: i, role: r}\n    resources: {timeout: 1h, pool: ml}"
    config = load_text(FILE.replace("sagemaker: {image: i, role: r}", batch), "p.yaml")
    task: Any = build_pipeline(config)["churn__predict"].get_task("predict.batch")
    assert type(task).__name__ == "SageMakerPredictOperator"
    assert (task.execution_timeout, task.pool) == (timedelta(hours=1), "ml")


def test_the_trigger_is_made_again_from_what_it_says() -> None:
    trigger = TransformJobTrigger(
        "p-1", "aws", "ab", pipeline="p", max_seconds=60, once=True, poll_interval=5, mlops_conn_id="m"
    )
    path, arguments = trigger.serialize()
    assert path == "airflow_mlops.triggers.sagemaker.TransformJobTrigger"
    assert TransformJobTrigger(**arguments).serialize() == (path, arguments)
    assert (arguments["pipeline"], arguments["max_seconds"], arguments["mlops_conn_id"]) == ("p", 60, "m")
