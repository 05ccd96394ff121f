"""Batch transform jobs on Amazon SageMaker, without AWS: what is asked of one, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.config.models import BatchSageMaker
from airflow_mlops.jobs import TRANSFORM, check_ended
from airflow_mlops.ml.frozen_rows import Plan
from airflow_mlops.ml.transform_parts import CONTRACT_VARIABLE, PARQUET
from airflow_mlops.window import parse_duration

PATIENCE = {"InvocationsTimeoutInSeconds": 3600, "InvocationsMaxRetries": 1}
"""How long SageMaker waits for the answer to a part, its longest; a second try of a model is as good as its first."""


def longest(asked: BatchSageMaker, timeout: float | None) -> int:
    """Seconds that a job may take, from its creation.

    :param timeout: seconds that the task may take, if there is a limit.
    """
    own = parse_duration(asked.max_runtime).total_seconds()
    return max(1, int(min(own, timeout or own)))


def model_request(asked: BatchSageMaker, *, name: str, plan: Plan, model_uri: str) -> dict[str, Any]:
    """The request CreateModel; the role may still be a name.

    :param model_uri: of the archive with the model and its contract.
    """
    return {
        "ModelName": name,
        "PrimaryContainer": {
            "Image": asked.image,
            "ModelDataUrl": model_uri,
            "Environment": {CONTRACT_VARIABLE: plan.contract},
        },
        "ExecutionRoleArn": asked.role,
        **asked.model_request,
    }


def job_request(asked: BatchSageMaker, *, name: str, input_uri: str, output_uri: str) -> dict[str, Any]:
    """The request CreateTransformJob.

    :param input_uri: prefix of the parts; each is one request to the container. :param output_uri: a folder.
    """
    return {
        "TransformJobName": name,
        "ModelName": name,
        "MaxPayloadInMB": asked.max_payload_mb,
        "ModelClientConfig": PATIENCE,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_uri}},
            "ContentType": PARQUET,
            "SplitType": "None",
            "CompressionType": "None",
        },
        "TransformOutput": {"S3OutputPath": output_uri, "Accept": PARQUET, "AssembleWith": "None"},
        "TransformResources": {"InstanceType": asked.instance_type, "InstanceCount": asked.instance_count},
        **asked.request,
    }


def check_predicted(job: Mapping[str, Any], limit: int, *, now: datetime | None = None) -> None:
    """:func:`~airflow_mlops.jobs.check_ended` of a job that Airflow stops in time: SageMaker has no limit for it.

    :param job: what DescribeTransformJob tells. :param limit: seconds, see :func:`longest`.
    """
    ended = job.get("TransformEndTime") or now or datetime.now(UTC)
    late = (ended - job["CreationTime"]).total_seconds() >= limit
    check_ended(TRANSFORM, job, limit=limit if late else None)


def job_facts(job: Mapping[str, Any], asked: BatchSageMaker, currency: str) -> dict[str, Any]:
    """What the record of a prediction says of its job, plain JSON.

    :param job: what DescribeTransformJob tells.
    :return: ``arn``, ``name``, ``image``, ``instance_type``, ``instances``, ``seconds`` by the clock (None: not told),
        ``finished`` (ISO 8601), and ``cost``, as :func:`~airflow_mlops.ml.cost.total` sums it: the seconds between
        start and end, which SageMaker bills, of all instances. What it bills in the end it does not tell.
    """
    start, end = job.get("TransformStartTime"), job.get("TransformEndTime")
    seconds = (end - start).total_seconds() if start is not None and end is not None else None
    resources = job["TransformResources"]
    instances = int(resources["InstanceCount"])
    price = asked.price_per_hour
    return {
        "arn": job["TransformJobArn"],
        "name": job["TransformJobName"],
        "image": asked.image,
        "instance_type": resources["InstanceType"],
        "instances": instances,
        "seconds": seconds,
        "finished": end.isoformat() if end is not None else None,
        "cost": {
            "task": f"SageMaker {instances} × {resources['InstanceType']}",
            "wall_seconds": (seconds or 0.0) * instances,
            "cpu_seconds": 0.0,
            "peak_mb": 0.0,
            **({"price_per_hour": price, "currency": currency} if price is not None else {}),
        },
    }
