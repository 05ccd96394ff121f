from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from airflow.cli.cli_config import GroupCommand

from airflow_mlops.cli import commands
from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.exceptions import ConfigError

SMALL = """pipeline: {}
level: 0
data: {{source: a.csv, target: y}}
train: {{estimator: sklearn.linear_model.LogisticRegression}}
"""


def test_the_group_and_its_commands() -> None:
    (group,) = get_mlops_cli_commands()
    assert group.name == "mlops"
    names = {command.name for command in group.subcommands}
    assert names >= {
        "assess", "backfill", "describe", "keys", "lint", "loaders", "new", "plan", "run", "schema", "status", "upgrade"
    }  # fmt: skip


def test_the_definition_is_light() -> None:
    code = (
        "import sys, airflow.cli.cli_config; before = set(sys.modules); import airflow_mlops.cli.definition as d;"
        "d.get_mlops_cli_commands(); print([m for m in set(sys.modules) - before if not m.startswith('airflow_mlops')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_resolves() -> None:
    (group,) = get_mlops_cli_commands()
    nested = [command for command in group.subcommands if isinstance(command, GroupCommand)]
    flat = [command for command in group.subcommands if command not in nested]
    for command in [*flat, *(inner for outer in nested for inner in outer.subcommands)]:
        # Reading the arguments' names imports nothing; calling without them shows that the function is there.
        with pytest.raises(AttributeError, match="Namespace"):
            command.func(Namespace())


def test_a_pipeline_is_found_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.yaml").write_text(SMALL.format("one"))
    (tmp_path / "y.yml").write_text(SMALL.format("two"))
    assert commands.find_pipeline("one", [tmp_path]).pipeline == "one"
    assert commands.find_pipeline("two", [tmp_path, tmp_path]).pipeline == "two"
    with pytest.raises(ConfigError, match="no pipeline file under"):
        commands.find_pipeline("three", [tmp_path])
    (tmp_path / "z.yaml").write_text(SMALL.format("one"))
    with pytest.raises(ConfigError, match="2 pipeline files"):
        commands.find_pipeline("one", [tmp_path])


def test_an_error_is_a_message_and_exit_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SMALL.format("one"))
    with pytest.raises(SystemExit) as ended:
        commands.backfill(Namespace(pipeline="other", file=str(tmp_path / "x.yaml")))
    assert ended.value.code == 1
    assert "is the pipeline 'one', not 'other'" in capsys.readouterr().err


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    commands.schema(Namespace(out=None, project=False))
    assert "pipeline" in json.loads(capsys.readouterr().out)["properties"]
