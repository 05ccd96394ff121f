from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from airflow_mlops.config import PipelineConfig, load_text
from airflow_mlops.config.explain import PLANNED
from airflow_mlops.config.json_schema import json_schema
from airflow_mlops.config.keys import models_in
from airflow_mlops.config.maturity import LEVELS
from airflow_mlops.config.reference import reference

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(), re.M | re.S), 1)
    if re.match(r"(#[^\n]*\n|\n)*pipeline:|# yaml-language-server", block)
]
FILES = sorted((ROOT / "dags").rglob("*.yaml"))


def every_model() -> list[type]:
    found: list[type] = [PipelineConfig]
    for model in found:
        for info in model.model_fields.values():
            found += [m for m in models_in(info.annotation) if m not in found]
    return found


def run(module: str) -> str:
    return subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, check=True).stdout


def test_the_schema_in_docs_is_the_models() -> None:
    printed = run("airflow_mlops.config.json_schema")
    assert printed == (ROOT / "docs/mlops.schema.json").read_text(), (
        "run: python -m airflow_mlops.config.json_schema > docs/mlops.schema.json"
    )


def test_the_reference_in_docs_is_the_models() -> None:
    printed = run("airflow_mlops.config.reference")
    assert printed == (ROOT / "docs/reference/pipeline.md").read_text(), (
        "run: python -m airflow_mlops.config.reference > docs/reference/pipeline.md"
    )


def test_the_schema_is_a_schema() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    assert {"title", "description"} <= schema.keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("level", 2),
        ("level", "1"),
        ("levle", 1),
        ("owner", 3),
        ("dag", {"catchup": "no"}),
        ("approve", {"timeout": "x"}),
    ],
)
def test_the_schema_finds_mistakes(key: str, value: object) -> None:
    good = {"pipeline": "a", "level": 0, "data": {"source": "a.csv", "target": "y"}, "train": {"estimator": "a.B"}}
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not list(validator.iter_errors(good))
    assert list(validator.iter_errors({**good, key: value}))


@pytest.mark.parametrize("block", BLOCKS)
def test_every_pipeline_in_the_docs_loads(block: str) -> None:
    load_text(block)
    # The loader of the YAML language server reads dates as text, too.
    data = yaml.load(block, Loader=yaml.BaseLoader)
    assert data["pipeline"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_shipped_pipeline_loads(path: Path) -> None:
    load_text(path.read_text(), str(path))


def test_there_are_pipelines_in_the_docs() -> None:
    assert len(BLOCKS) >= 2


def test_every_key_is_described() -> None:
    missing = [
        f"{model.__name__}.{name}"
        for model in every_model()
        for name, f in model.model_fields.items()
        if not f.description
    ]
    assert missing == []
    page = reference()
    for model in every_model():
        assert (model.__doc__ or "").strip() in page
        for name, info in model.model_fields.items():
            assert f"| `{info.alias or name}` |" in page


def test_planned_keys_are_not_in_the_models() -> None:
    keys = {info.alias or name for model in every_model() for name, info in model.model_fields.items()}
    assert keys & PLANNED == set()


def test_levels_name_keys_that_exist() -> None:
    assert sorted(LEVELS) == [0, 1]
    for level in LEVELS.values():
        assert level.source.startswith("https://")
        for key in (*level.requires, *level.adds):
            model: type | None = PipelineConfig
            for step in key.split("."):
                assert model is not None
                fields = {info.alias or name: info for name, info in model.model_fields.items()}
                assert step in fields, key
                model = next(models_in(fields[step].annotation), None)


def test_json_dump_is_stable() -> None:
    assert json.dumps(json_schema()) == json.dumps(json_schema())
