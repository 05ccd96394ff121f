"""TrainingJobs and TransformJobs: what is said where it cannot work."""

from __future__ import annotations

import sys

import pytest

from airflow_mlops.exceptions import ConfigError, PredictionError, TrainingError
from airflow_mlops.hooks.sagemaker import TrainingJobs, TransformJobs


def test_without_the_amazon_provider_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "airflow.providers.amazon.aws.operators.sagemaker", None)
    monkeypatch.delattr("airflow.providers.amazon.aws.operators.sagemaker", raising=False)
    for made, key in ((TrainingJobs, "train"), (TransformJobs, "deploy.batch")):
        with pytest.raises(ConfigError, match=rf"(?s){key}.sagemaker needs .*amazon provider.*airflow-mlops\[amazon\]"):
            made("aws_default")


def test_a_connection_without_a_region_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", '{"conn_type": "aws", "login": "a", "password": "b"}')
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(TrainingError, match=r"(?s)region.*credentials and region"):
        TrainingJobs("nowhere").find("x")
    with pytest.raises(PredictionError, match=r"(?s)region.*credentials and region"):
        TransformJobs("nowhere").find("x")
