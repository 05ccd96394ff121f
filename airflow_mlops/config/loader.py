"""From a YAML file to a checked pipeline: the one way in."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from airflow_mlops.config.explain import explain
from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.yaml_source import parse, read_text


def load_pipeline(path: Path) -> PipelineConfig:
    """Read and check one pipeline file.

    :raises InvalidPipeline: a :class:`ConfigError` with every problem of the file and its place.
    """
    return load_text(read_text(path), str(path))


def load_text(text: str, filename: str = "<text>") -> PipelineConfig:
    """Check the text of a pipeline file; ``filename`` is for messages only.

    :raises InvalidPipeline: a :class:`ConfigError` with every problem of the text and its place.
    """
    source = parse(text, filename)
    config: PipelineConfig | None = None
    if isinstance(source.data, dict):
        try:
            config = PipelineConfig.model_validate(source.data, by_alias=True, by_name=False)
        except ValidationError as e:
            explain(source, e)
    if config is None or source.issues:
        raise InvalidPipeline(source.issues)
    return config
