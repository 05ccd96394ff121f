"""YAML to a typed pipeline. Imports pydantic, PyYAML and the standard library, nothing of Airflow."""

from __future__ import annotations

from airflow_mlops.config.issues import InvalidPipeline, Issue
from airflow_mlops.config.loader import load_pipeline, load_text
from airflow_mlops.config.models import PipelineConfig

__all__ = ["InvalidPipeline", "Issue", "PipelineConfig", "load_pipeline", "load_text"]
