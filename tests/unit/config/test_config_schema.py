from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import pytest
import yaml
from hypothesis import strategies as st

from airflow_mlops.config import InvalidPipeline, PipelineConfig, load_pipeline, load_text
from airflow_mlops.config.explain import PLANNED
from airflow_mlops.config.json_schema import json_schema
from airflow_mlops.config.keys import models_in
from airflow_mlops.config.maturity import LEVELS, TERMS, VOCABULARIES
from airflow_mlops.config.reference import reference
from airflow_mlops.config.settings import Settings

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCKS = [
    pytest.param(page, block, id=f"{page.relative_to(ROOT)}:{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```ya?ml\n(.*?)^```", page.read_text(), re.M | re.S), 1)
    if re.match(r"(#[^\n]*\n|\n)*pipeline:|# yaml-language-server", block)
]
FILES = sorted((ROOT / "dags").rglob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


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
        ("level", 3),
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


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_pipeline_in_the_docs_loads(
    page: Path, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_BUCKET", "lake")
    monkeypatch.setenv("MLOPS_MIN_ROWS", "10")
    # A block that another one of its page extends begins with its name.
    for name, base in re.findall(r"^```yaml\n# pipelines/(\w+\.yaml):?(.*?)^```", page.read_text(), re.M | re.S):
        (tmp_path / name).write_text("#" + base)
    (tmp_path / "this.yaml").write_text(block)
    load_pipeline(tmp_path / "this.yaml")
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
    assert sorted(LEVELS) == [0, 1, 2]
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


COMPLETE: dict[str, Any] = {
    "schema": 1,
    "pipeline": "a",
    "level": 1,
    "owner": "team",
    "dag": {"default_args": {"retries": 1}},
    "data": {"source": "a.csv", "target": "y", "timestamp": "t"},
    "train": {
        "estimator": "sklearn.linear_model.LogisticRegression",
        "search": {"space": {"C": [0.1, 1.0]}},
    },
    "evaluate": {"gates": [{"metric": "roc_auc", "at_least": 0.6}]},
    "retrain": {"schedule": "@weekly"},
}
BASE = {key: value for key, value in COMPLETE.items() if key != "pipeline"}
# Parts of an overlay, each right by itself and beside the others.
RIGHT: list[dict[str, Any]] = [
    {"owner": "me"},
    {"owner": None},
    {"level": {"aws": "repeatable"}},
    {"level": "microsoft:2"},
    {"level": 2},
    {"level": {"aws": "reliable"}},
    {"level": "microsoft:3"},
    {"task": "classification"},
    {"dag": {"start_date": "2013-01-01", "default_args": {"retries": None, "retry_delay": "5m"}}},
    {"dag": None},
    {"data": {"min_rows": "${env:MLOPS_NUMBER}"}},
    {"data": {"split": {"by": "time"}}},
    {"data": {"timestamp": None}},
    {"train": {"search": {"n_iter": 3}}},
    {"train": {"search": {"space": {"C": None, "max_iter": [9]}}}},
    {"train": {"search": None}},
    {"validate": {"on_failure": "${env:MLOPS_WORD}"}},
    {"validate": {"expectations": []}},
    {"approve": {"required": "${env:MLOPS_SWITCH}", "timeout": "${env:MLOPS_NUMBER}h"}},
    {"monitor": {"drift": {"effect": 0.2}}},
    {"monitor": None},
    {"notify": {"notifiers": [{"class": "airflow.x.Notifier"}]}},
    {"retrain": {"cooldown": "7d"}},
    {"deploy": {"batch": {"schedule": "@daily"}}},
    {},
]
WRONG: list[dict[str, Any]] = [
    {"ownr": "me"},
    {"owner": 3},
    {"owner": ["me"]},
    {"level": 3},
    {"level": "1"},
    {"level": {"aws": "relyable"}},
    {"level": {"ibm": 1}},
    {"dag": {"catchup": "no"}},
    {"dag": {"default_args": {"retrys": 1}}},
    {"dag": ["x"]},
    {"data": {"min_rows": "50"}},
    {"data": {"min_rows": 0}},
    {"data": {"split": {"by": "tim"}}},
    {"data": {"targt": "y"}},
    {"train": {"search": {"n_iter": 0}}},
    {"train": {"search": {"spce": {}}}},
    {"train": {"search": {"space": {"C": 1}}}},
    {"evaluate": {"gates": {"metric": "roc_auc"}}},
    {"evaluate": {"gates": [{"metrc": "roc_auc", "at_least": 0.6}]}},
    {"evaluate": {"gates": [None]}},
    {"validate": {"on_failure": "blok"}},
    {"approve": {"timeout": "x"}},
    {"monitor": {"drift": {"efect": 0.2}}},
    {"notify": {"notifiers": [{"args": {}}]}},
    {"retrain": {"when": ["drfit"]}},
    {"retrain": {"confirm": "2/3"}},
]


def accepted(data: dict[str, Any]) -> bool:
    return VALIDATOR.is_valid(data)


def loads(folder: Path, data: dict[str, Any], environment: str | None = None) -> bool:
    """The loader's verdict; JSON would do as YAML, but quotes would make text of placeholders."""
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "a.yaml").write_text(yaml.safe_dump(data, default_flow_style=False))
    try:
        load_pipeline(folder / "a.yaml", Settings(environment=environment))
    except InvalidPipeline:
        return False
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("NUMBER", "12"), ("WORD", "warn"), ("SWITCH", "true")):
            patch.setenv(f"MLOPS_{name}", value)
        yield tmp_path_factory.mktemp("layers")


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        found |= copy.deepcopy(part)
    return found


@pytest.mark.parametrize("part", RIGHT, ids=json.dumps)
def test_what_an_overlay_may_say(part: dict[str, Any], folder: Path) -> None:
    overlaid = {**COMPLETE, "environments": {"staging": part, "production": None}}
    extending = {"pipeline": "a", "extends": "base.yaml", **part}
    assert accepted(overlaid), list(VALIDATOR.iter_errors(overlaid))
    assert accepted(extending), list(VALIDATOR.iter_errors(extending))
    assert accepted({**extending, "extends": ["base.yaml", "more.yml"], "environments": {"staging": part}})


@pytest.mark.parametrize("part", WRONG, ids=json.dumps)
def test_mistakes_in_an_overlay(part: dict[str, Any], folder: Path) -> None:
    overlaid = {**COMPLETE, "environments": {"staging": part}}
    extending = {"pipeline": "a", "extends": "base.yaml", **part}
    assert not loads(folder, overlaid, "staging")
    assert not loads(folder, extending)
    assert not accepted(overlaid)
    assert not accepted(extending)
    assert not accepted({**extending, "environments": {"staging": part}})


@pytest.mark.timeout(120)
@hypothesis.settings(
    max_examples=120, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(st.data())
def test_schema_and_loader_agree_on_layers(folder: Path, data: st.DataObject) -> None:
    parts = st.lists(st.sampled_from(RIGHT), max_size=4)
    part = joined(data.draw(parts))
    if data.draw(st.booleans(), label="with a mistake"):
        part |= copy.deepcopy(data.draw(st.sampled_from(WRONG)))
    if data.draw(st.booleans(), label="as an overlay"):
        overlay = {"staging": part, "production": data.draw(st.none() | st.just({}))}
        file, environment = {**COMPLETE, "environments": overlay}, "staging"
    else:
        file, environment = {"pipeline": "a", "extends": data.draw(st.sampled_from(["base.yaml", ["base.yaml"]]))}, ""
        file |= part
    assert accepted(file) == loads(folder, file, environment or None)


@pytest.mark.parametrize(
    "change",
    [
        {"environments": {"staging": {"pipeline": "b"}}},
        {"environments": {"staging": {"schema": 1}}},
        {"environments": {"staging": {"extends": "base.yaml"}}},
        {"environments": {"staging": {"environments": {}}}},
        {"environments": {"staging": [{"owner": "me"}]}},
        {"environments": ["staging"]},
        {"extends": "base.txt"},
        {"extends": "${env:MLOPS_WORD}.yaml"},
        {"extends": None},
        {"extends": 1},
        {"pipeline": "${env:MLOPS_WORD}"},
    ],
    ids=json.dumps,
)
def test_what_no_layer_may_say(change: dict[str, Any], folder: Path) -> None:
    assert not accepted(COMPLETE | change)
    assert not loads(folder, COMPLETE | change)


@pytest.mark.parametrize("key", ["pipeline", "level", "data", "train"])
def test_a_file_that_extends_none_is_complete(key: str) -> None:
    rest = {name: value for name, value in COMPLETE.items() if name != key}
    assert accepted(COMPLETE)
    assert not accepted(rest)
    assert accepted({**rest, "extends": "base.yaml"}) == (key != "pipeline")


def test_null_is_for_layers_alone() -> None:
    assert not accepted({**COMPLETE, "owner": None})
    assert not accepted({**COMPLETE, "data": {"source": "a.csv", "target": None}})


@pytest.mark.parametrize(
    ("path", "placeholder", "right"),
    [
        (("data", "min_rows"), "${env:A}", True),
        (("data", "min_rows"), "1${env:A}", False),
        (("data", "min_rows"), "$${env:A}", False),
        (("data", "min_rows"), "${conn:A}", False),
        (("data", "positive"), "${env:A}", True),
        (("data", "split", "test"), "${env:A}", True),
        (("dag", "catchup"), "${env:A}", True),
        (("dag", "start_date"), "2013-${env:A}-01", True),
        (("level",), "${env:A}", True),
        (("level",), {"microsoft": "${env:A}"}, True),
        (("train", "search", "strategy"), "${env:A}", True),
        (("data",), "${env:A}", False),
        (("dag", "tags"), "${env:A}", False),
    ],
)
def test_where_a_variable_may_stand(path: tuple[str, ...], placeholder: object, right: bool) -> None:
    file = copy.deepcopy(COMPLETE)
    section = file
    for step in path[:-1]:
        section = section.setdefault(step, {})
    section[path[-1]] = placeholder
    assert accepted(file) is right


def test_the_words_of_other_models_are_those_of_the_table() -> None:
    for term in TERMS:
        word = int(term.word) if term.word.isdigit() else term.word
        assert accepted({**COMPLETE, "level": {term.vocabulary: word}})
        assert accepted({**COMPLETE, "level": f"{term.vocabulary}:{word}"})
    assert not accepted({**COMPLETE, "level": dict.fromkeys(VOCABULARIES, 0)})
    assert not accepted({**COMPLETE, "level": {}})


def test_every_key_of_an_overlay_is_described() -> None:
    schema = json_schema()
    for name, definition in schema["$defs"].items():
        for key, value in definition.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key}"
        if name.endswith("Patch") or name == "Overlay":
            assert "required" not in definition
            assert definition["additionalProperties"] is False
    assert all(value["description"] for value in schema["properties"].values())
