"""The JSON Schema of pipeline files, for editors: ``python -m airflow_mlops.config.json_schema``."""

from __future__ import annotations

import json
import sys
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from airflow_mlops.config.models import PipelineConfig


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles that only repeat the key."""
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a pipeline file, made from the models.

    It has keys, types and limits; checks across keys are made by the loader alone.
    """
    schema = PipelineConfig.model_json_schema(by_alias=True, schema_generator=_Generator)
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "airflow-mlops pipeline",
        "description": "One machine learning pipeline on Apache Airflow.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def main() -> None:
    """Print the schema."""
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
