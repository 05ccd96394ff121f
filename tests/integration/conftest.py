"""A real S3 server (moto in a process of its own), shared by the tests of one run."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from airflow_mlops.store import S3Store


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
