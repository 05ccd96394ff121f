"""A real S3 server (moto in a process of its own), shared by the tests of one run."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.loaders
import pytest
from botocore.config import Config

from airflow_mlops.store import S3Store

if TYPE_CHECKING:
    from tests.integration.sagemaker_server import SageMaker


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint URL of the server; any credentials do, the other tests use test/test."""
    script = Path(__file__).with_name("s3_process.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        port = process.stdout.readline().strip()
        if not port:
            pytest.fail(f"the S3 server did not start: {process.stderr.read()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def s3_endpoint(s3_server: str) -> str:
    return s3_server


@pytest.fixture
def s3_client(s3_endpoint: str):
    return boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"mode": "standard", "total_max_attempts": 2}),
    )


@pytest.fixture
def s3_bucket(s3_client) -> str:
    """A new, empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def s3_store(s3_client, s3_bucket: str) -> S3Store:
    return S3Store(s3_bucket, "mlops", s3_client)


# --- SageMaker -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models_are_read_once() -> Iterator[None]:
    """Each client reads botocore's model of its service, megabytes of JSON, and here are many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", functools.cache(botocore.loaders.create_loader))
        yield


@pytest.fixture
def sagemaker() -> Iterator[SageMaker]:
    from tests.integration.sagemaker_server import serving  # reads megabytes

    with serving() as service:
        yield service


@pytest.fixture
def connect(monkeypatch, s3_endpoint: str, s3_bucket: str) -> Callable[[str], None]:
    """Point Airflow's AWS connection at a SageMaker; S3 and IAM are moto's."""

    def at(url: str) -> None:
        places = {"s3": s3_endpoint, "iam": s3_endpoint, "sagemaker": url}
        extra = {"region_name": "us-east-1", "service_config": {k: {"endpoint_url": v} for k, v in places.items()}}
        # A refused request is an answer: botocore need not ask again.
        extra["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
        connection = {"conn_type": "aws", "login": "test", "password": "test", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"s3://{s3_bucket}/mlops")

    return at
