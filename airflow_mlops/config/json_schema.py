"""The JSON Schema of pipeline files, for editors: ``python -m airflow_mlops.config.json_schema``.

With ``project`` behind it, that of ``project.yaml``.

The models describe a whole pipeline. ``extends`` and ``environments`` are put beside them here, and so
is the *patch* of every section: the same keys with nothing required, ``null`` to take a value away, and
lists, which replace those below, complete. An overlay is made of patches, and so is a file that extends
others.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from airflow_mlops.config.layers import FIXED
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.project import Project

Schema = dict[str, Any]

EXTENDS = "A YAML file, or a list of them, that this one lies on top of; beside it or below."
ENVIRONMENTS = "Name → what is different there; [mlops] environment chooses one."
_OVERLAY = "What is different in this environment: any keys but schema, pipeline, extends and environments."

_REF = "#/$defs/"
_NULL: Schema = {"type": "null"}
_ABOUT = ("description", "default", "examples", "title")
_WHOLE = ("required", "minProperties", "maxProperties", "default")
_VARIABLE = r"\$\{env:[A-Za-z_][A-Za-z0-9_]*\}"
_PLACEHOLDERS: dict[str, Schema] = {
    "Variable": {
        "type": "string",
        "pattern": f"^{_VARIABLE}$",
        "description": "The value of an environment variable, read as YAML: unquoted, on a line of its own.",
    },
    "TextWithVariable": {
        "type": "string",
        "pattern": _VARIABLE,
        "description": "Text with values of environment variables in it.",
    },
}
_FILE_NAME: Schema = {"type": "string", "pattern": r"^(?!.*(\$\{|\{\{)).*\.ya?ml$"}


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles that only repeat the key."""
        return False


def json_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of a pipeline file, made from the models.

    It has keys, types and limits; checks across keys are made by the loader alone. A file that is only
    there to be extended has no ``pipeline``, and the schema is not for it.
    """
    made = _with_placeholders(PipelineConfig.model_json_schema(by_alias=True, schema_generator=_Generator))
    keys: dict[str, Schema] = made["properties"]
    # Airflow finds the file by the name: the loader takes no placeholder there.
    keys["pipeline"] = PipelineConfig.model_json_schema(schema_generator=_Generator)["properties"]["pipeline"]
    patches = _Patches(made["$defs"])
    by_layer = {key: value for key, value in keys.items() if key not in FIXED}
    overlay = patches.mapping({"type": "object", "properties": by_layer, "additionalProperties": False})
    environments: Schema = {
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": f"{_REF}Overlay"}, _NULL]},
        "description": ENVIRONMENTS,
    }
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "airflow-mlops pipeline",
        "description": "One machine learning pipeline on Apache Airflow.",
        "type": "object",
        "properties": {
            "schema": keys["schema"],
            "pipeline": keys["pipeline"],
            "extends": {
                "anyOf": [_FILE_NAME, {"type": "array", "items": _FILE_NAME}],
                "description": EXTENDS,
            },
            "environments": environments,
            # What they may hold follows below, from whether the file extends another.
            **{key: {"description": value["description"]} for key, value in by_layer.items()},
        },
        "additionalProperties": False,
        "if": {"required": ["extends"]},
        "then": {
            "properties": {key: {"$ref": f"{_REF}Overlay/properties/{key}"} for key in by_layer},
            "required": ["pipeline"],
        },
        "else": {"properties": by_layer, **_required(made["required"])},
        "$defs": {**made["$defs"], "Overlay": {**overlay, "description": _OVERLAY}, **patches.defs, **_PLACEHOLDERS},
    }


def project_schema() -> Schema:
    """The JSON Schema (draft 2020-12) of ``project.yaml``, made from its model."""
    made = Project.model_json_schema(by_alias=True, schema_generator=_Generator)
    about = "Where a project of airflow-mlops is delivered from, and to."
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": "airflow-mlops project", "description": about}
    return {**head, **{key: value for key, value in made.items() if key not in head}}


def _required(keys: list[str]) -> Schema:
    """What a file needs: a model, or an experiment on a callable, which has neither data nor training."""
    of_model = ["data", "train"]
    alone: Schema = {
        "required": ["experiment"],
        "properties": {"experiment": {"required": ["callable"]}, **dict.fromkeys(of_model, False)},
    }
    return {"required": [key for key in keys if key not in of_model], "anyOf": [{"required": of_model}, alone]}


def _inside(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """``schema`` with ``change`` made to each schema directly in it."""
    made = dict(schema)
    for keyword in ("properties", "$defs"):
        if keyword in made:
            made[keyword] = {name: change(inner) for name, inner in made[keyword].items()}
    for keyword in ("items", "additionalProperties"):
        if isinstance(made.get(keyword), dict):
            made[keyword] = change(made[keyword])
    if "anyOf" in made:
        made["anyOf"] = [change(inner) for inner in made["anyOf"]]
    return made


def _with_placeholders(schema: Schema) -> Schema:
    """``schema`` with a placeholder as an alternative wherever not every text is right."""
    if "anyOf" in schema:
        parts = schema["anyOf"]
        made = {**schema, "anyOf": [_inside(part, _with_placeholders) for part in parts]}
    else:
        parts, made = [schema], _inside(schema, _with_placeholders)
    names = [name for part in parts if (name := _placeholder(part))]
    if not names or {"type": "string"} in parts:
        return made
    name = "TextWithVariable" if "TextWithVariable" in names else names[0]
    if "anyOf" not in made:
        about = {key: made.pop(key) for key in _ABOUT if key in made}
        made = {"anyOf": [made], **about}
    made["anyOf"] = [*made["anyOf"], {"$ref": _REF + name}]
    return made


def _placeholder(schema: Schema) -> str | None:
    """The name of the placeholder that may stand for a scalar; ``None`` if none is needed."""
    kind = schema.get("type")
    if kind in ("integer", "number", "boolean") or (kind is None and "enum" in schema):
        return "Variable"
    if kind == "string" and {"const", "enum", "pattern", "format"} & schema.keys():
        return "TextWithVariable"
    return None


class _Patches:
    """Makes patches of definitions; ``defs`` has those that were needed."""

    def __init__(self, whole: dict[str, Schema]) -> None:
        self.whole = whole
        self.defs: dict[str, Schema] = {}

    def mapping(self, schema: Schema) -> Schema:
        """The patch of a mapping: nothing is required, and everything can be taken away."""
        made = {key: value for key, value in schema.items() if key not in _WHOLE}
        if "properties" in made:
            made["properties"] = {key: self.value(inner) for key, inner in made["properties"].items()}
        if isinstance(made.get("additionalProperties"), dict):
            made["additionalProperties"] = self.value(made["additionalProperties"])
        return made

    def value(self, schema: Schema) -> Schema:
        """The patch of a value, or ``null``."""
        if not set(schema) - set(_ABOUT):
            return schema
        about = {key: schema[key] for key in _ABOUT if key in schema and key != "default"}
        bare = {key: value for key, value in schema.items() if key not in _ABOUT}
        parts = [self.part(part) for part in bare["anyOf"]] if "anyOf" in bare else [self.part(bare)]
        return {"anyOf": parts if _NULL in parts else [*parts, _NULL], **about}

    def part(self, schema: Schema) -> Schema:
        """The patch of one of a value's alternatives; only mappings are patched, anything else is replaced."""
        if schema.get("type") == "object":
            return self.mapping(schema)
        name = schema.get("$ref", "").removeprefix(_REF)
        if name not in self.whole:
            return schema
        patch = f"{name}Patch"
        if patch not in self.defs:
            self.defs[patch] = {}  # keeps its place in the order of reading
            self.defs[patch] = self.mapping(self.whole[name])
        return {"$ref": _REF + patch}


def text(schema: Schema | None = None) -> str:
    """A schema as it is written to a file; default: that of pipeline files."""
    return json.dumps(schema or json_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Print the schema of pipeline files, or with ``project`` that of a project's file."""
    sys.stdout.write(text(project_schema() if sys.argv[1:] == ["project"] else None))


if __name__ == "__main__":
    main()
