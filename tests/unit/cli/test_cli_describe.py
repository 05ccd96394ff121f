"""``airflow mlops describe``: the page, the JSON and the graph."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
from airflow.cli.cli_config import ActionCommand

from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.cli.describe import describe, flow
from airflow_mlops.config.loader import load_pipeline
from airflow_mlops.factory.builder import build_pipeline

DEMOS = Path(__file__).parents[3] / "dags" / "pipelines"
FLIGHTS = DEMOS / "flight_delays.yaml"
LONG = "x" * 300

FILE = """\
pipeline: churn
level: 1
extends: base.yaml
description: "a \\e[31mred\\e[0m word"
data:
  source: "s3://ana:h1dden@lake/${env:MLOPS_FOLDER}/*.csv"
  target: y
train: {estimator: sklearn.linear_model.LogisticRegression}
resources: {executor_config: {words: WORDS, name: LONG}}
evaluate: {gates: [{metric: roc_auc, at_least: 0.6}]}
retrain: {schedule: "@weekly"}
environments:
  live: {deploy: {batch: {schedule: "@daily"}}}
""".replace("WORDS", " ".join(["word"] * 200)).replace("LONG", LONG)


def _run(capsys: pytest.CaptureFixture[str], file: Path, output: str = "text", environment: str | None = None) -> str:
    describe(Namespace(file=str(file), output=output, environment=environment))
    return capsys.readouterr().out


@pytest.fixture
def churn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLOPS_FOLDER", "resolved")
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "churn.yaml").write_text(FILE)
    (tmp_path / "base.yaml").write_text(
        "owner: ana\nnotify: {notifiers: [{class: airflow.a.B, args: {url: h1dden}}]}\n"
    )
    return tmp_path / "churn.yaml"


def test_the_page_of_the_demo(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(FLIGHTS.parent)
    lines = _run(capsys, FLIGHTS).splitlines()
    assert lines[0] == "flight_delays, level 1"
    assert max(map(len, lines)) <= 80
    text = FLIGHTS.read_text().splitlines()
    said = {line.split()[0]: line.split() for line in lines if line}
    for key, value in (("window", "90d"), ("no_champion", "promote"), ("cooldown", "45d")):
        (number,) = [i for i, line in enumerate(text, 1) if line.strip().startswith(f"{key}:")]
        assert said[key][1:] == [value, "line", str(number)]
    assert said["max_active_tasks"][1:] == ["16", "default"]
    assert next(line for line in lines if "after each batch of predictions" in line).endswith("default")
    assert "          or asset flight_delays.retrain" in lines
    # Sections stand in the order of the file.
    sections = [line for line in lines if line and line[0].isalpha() and line in ("dag", "data", "monitor", "approve")]
    assert sections == ["dag", "data", "monitor", "approve"]


def test_layers_variables_and_secrets(capsys: pytest.CaptureFixture[str], churn: Path) -> None:
    page = _run(capsys, churn, environment="live")
    lines = {line.split()[0]: line for line in page.splitlines() if line.split()}
    assert lines["owner"].endswith("base.yaml:1")
    assert lines["batch.schedule"].endswith("line 13, live")
    assert lines["environment"].split() == ["environment", "live"]
    assert "s3://lake/${env:MLOPS_FOLDER}/*.csv" in page
    assert "cron @daily (UTC)" in page
    for output in ("text", "json", "mermaid"):
        shown = _run(capsys, churn, output, "live")
        assert "h1dden" not in shown
        assert "resolved" not in shown


def test_long_and_hostile_values(
    capsys: pytest.CaptureFixture[str], churn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(churn.parent)  # a file's name is not broken
    lines = _run(capsys, churn).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("word word" in line for line in lines) == 4
    assert "\x1b" not in "".join(lines)
    assert any(line.endswith(" …") for line in lines)
    assert json.loads(_run(capsys, churn, "json"))["settings"]  # JSON has all of it
    assert LONG in _run(capsys, churn, "json")


@pytest.mark.parametrize("columns", ["20", "100", "500"])
def test_other_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.chdir(FLIGHTS.parent)
    assert max(map(len, _run(capsys, FLIGHTS).splitlines())) <= min(120, max(60, int(columns)))


@pytest.mark.parametrize("file", sorted(DEMOS.glob("*.yaml")), ids=lambda path: path.stem)
def test_json_has_everything(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    data = json.loads(_run(capsys, file, "json"))
    config = load_pipeline(file)
    assert (data["pipeline"], data["level"]["number"]) == (config.pipeline, config.level)
    assert set(data["level"]) == {"number", "google", "microsoft", "aws"}
    assert data["environment"] is None
    built = build_pipeline(config)
    assert {dag["id"]: [task["id"] for task in dag["tasks"]] for dag in data["dags"]} == {
        name: [task.task_id for task in dag.tasks] for name, dag in built.items()
    }
    settings = {setting["path"]: setting for setting in data["settings"]}
    assert settings["data.target"]["value"] == config.data.target
    assert settings["data.target"]["origin"].startswith(f"{file}:")


def test_a_base_above_the_file_is_found_from_the_current_folder(
    capsys: pytest.CaptureFixture[str], churn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = churn.parent / "team"
    team.mkdir()
    (team / "churn.yaml").write_text(FILE.replace("base.yaml", "../base.yaml"))
    monkeypatch.chdir(churn.parent)
    assert "  extends       base.yaml" in _run(capsys, Path("team/churn.yaml")).splitlines()
    monkeypatch.chdir(team)
    assert _run(capsys, churn)  # and beside the file, from anywhere


def test_mermaid_is_the_graph_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, FLIGHTS, "mermaid").startswith("flowchart LR\n  subgraph ")


def test_a_variable_that_is_not_set_is_a_warning(
    capsys: pytest.CaptureFixture[str], churn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLOPS_FOLDER")
    describe(Namespace(file=str(churn), output="text", environment=None))
    shown = capsys.readouterr()
    assert f"{churn}:6:11: warning: the environment variable MLOPS_FOLDER is not set" in shown.err
    assert "h1dden" not in shown.err
    assert "s3://lake/${env:MLOPS_FOLDER}/*.csv" in shown.out


@pytest.mark.parametrize("text", ["pipeline: x\nlevel: 7\n", ": :", ""])
def test_errors_of_the_file_end_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SystemExit) as ended:
        _run(capsys, tmp_path / "x.yaml")
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "x.yaml:1" in shown.err
    assert shown.out == ""


def test_flow() -> None:
    assert (
        flow({"a": [1, 2.5, None, True, "x y", "", "a\nb", " c"]})
        == '{a: [1, 2.5, null, true, x y, "", "a\\nb", " c"]}'
    )


def test_the_command_is_the_one_that_is_declared() -> None:
    (group,) = get_mlops_cli_commands()
    (command,) = [c for c in group.subcommands if c.name == "describe"]
    assert isinstance(command, ActionCommand)
    assert {arg.flags[-1] for arg in command.args} == {"file", "--output", "--environment"}
