from __future__ import annotations

import json
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from airflow_mlops.cli import assess as module
from airflow_mlops.cli.assess import PipelineFiles, assess, render
from airflow_mlops.cli.live import LiveScheduler
from airflow_mlops.registry import Registry
from airflow_mlops.registry import evidence as levels
from airflow_mlops.registry.checks import write_check
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

YAML = """pipeline: {}
level: 1
data: {{source: a.csv, target: y}}
train: {{estimator: sklearn.linear_model.LogisticRegression}}
evaluate: {{gates: [{{metric: roc_auc, at_least: 0.6}}]}}
retrain: {{schedule: "@weekly"}}
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "dags"))
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "dags").mkdir()
    monkeypatch.setattr(LiveScheduler, "dag_file", lambda self, dag_id: None)
    return LocalStore(tmp_path / "store")


def live(store: LocalStore, name: str) -> None:
    """All of level 0, but for the handover."""
    registry = Registry(store, name)
    snapshot = {"fingerprint": "f", "validation": {"sentence": "ok"}}
    registry.register({"snapshot": snapshot, "run": {"run_id": "manual__1"}}, op_id="r")
    note = {"verdict": "passed", "go": True, "results": [{"verdict": "passed"}]}
    registry.annotate(1, "gates", note, op_id="g")
    registry.annotate(1, "approval", {"by": "ann", "answer": ["Approve"]}, op_id="a")
    registry.promote(1, expected=None, op_id="p", reason="passed", by="ann")
    write_check(store, name, Window.of("2013-01-01", "2013-02-01"), "prediction", {"rows": 3}, start="manual")


def hand_over(store: LocalStore, name: str) -> None:
    Registry(store, name).annotate(1, "handover", {"bundle": "b"}, op_id="h")


def run(*pipelines: str, days: int = 90, output: str = "text") -> None:
    assess(Namespace(pipelines=list(pipelines), days=days, output=output))


def narrow(text: str) -> bool:
    return max(len(line) for line in text.splitlines()) <= 80


def test_one_pipeline_in_full(store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live(store, "churn")
    hand_over(store, "churn")
    (tmp_path / "dags" / "churn.yaml").write_text(YAML.format("churn"))
    run("churn")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(
        "churn: level 0 reached by runs of the last 90 days\n  Google Cloud  0 manual process\n"
    )
    lines = printed.out.splitlines()
    assert f"exercised on {datetime.now(UTC):%Y-%m-}" in next(li for li in lines if "a person approves" in li)
    assert next(li for li in lines if "by its schedule" in li).endswith("configured, never exercised")
    assert next(li for li in lines if "by drift" in li).endswith(" absent")
    assert next(li for li in lines if "canary" in li).endswith(" absent")
    assert "  1. keep churn__train switched on until" in printed.out
    assert "--from DATE --to DATE --promote" in " ".join(printed.out.split())
    assert narrow(printed.out)


def test_every_pipeline_in_one_table(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    live(store, "churn")
    live(store, "flights")
    hand_over(store, "flights")
    run()
    printed = capsys.readouterr()
    rows = {
        line.split()[0]: line.split()[1] for line in printed.out.splitlines() if line.startswith(" ") and "20" in line
    }
    assert rows == {"churn": "–", "flights": "0"}
    assert "churn is judged without its file: no pipeline file under" in printed.err
    assert "capability" not in printed.out
    assert narrow(printed.out)


def test_the_only_pipeline_is_shown_in_full(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    live(store, "churn")
    run()
    out = capsys.readouterr().out
    assert out.startswith("churn: no level reached by runs of the last 90 days\n")
    assert "approve its candidate under Required Actions" in " ".join(out.split())


def test_several_named_pipelines_as_json(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    live(store, "churn")
    live(store, "flights")
    hand_over(store, "flights")
    run("flights", "churn", "flights", output="json", days=7)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [(one["pipeline"], one["level"], one["days"]) for one in found] == [("flights", 0, 7), ("churn", None, 7)]
    assert found[0]["terms"]["aws"] == "initial"
    assert found[1]["missing"]["0"] == ["handover"]
    assert all(len(one["next"]) == 3 for one in found)


def test_an_empty_store(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert "No pipeline has run records in file://" in capsys.readouterr().out
    run(output="json")
    assert json.loads(capsys.readouterr().out) == []


def test_an_unknown_pipeline_names_close_ones(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    live(store, "churn")
    for name, hint in (("chrun", "did you mean churn?"), ("xyz", "the store has churn")):
        with pytest.raises(SystemExit) as ended:
            run(name)
        assert ended.value.code == 1
        err = capsys.readouterr().err
        assert f"there is nothing about '{name}'" in err
        assert hint in err


def test_a_pipeline_that_has_a_file_and_never_ran(
    store: LocalStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dags" / "new.yaml").write_text(YAML.format("new"))
    run("new")
    out = capsys.readouterr().out
    assert out.startswith("new: no level reached")
    assert "  1. start new__train" in out


def test_days_must_leave_a_day(store: LocalStore, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(days=0)
    assert "--days 0 leaves no day to look at" in capsys.readouterr().err


def test_the_file_is_found_beside_the_dag(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "x.yaml").write_text(YAML.format("churn"))
    monkeypatch.setattr(
        LiveScheduler, "dag_file", lambda self, dag_id: asked.append(dag_id) or str(tmp_path / "bundle" / "loader.py")
    )
    files = PipelineFiles()
    config = files.find("churn")
    assert config is not None
    assert (config.pipeline, asked, files.notes) == ("churn", ["churn__train"], [])


def test_without_a_database_it_is_one_note_and_the_dags_folder(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def no_database(self: LiveScheduler, dag_id: str) -> str:
        asked.append(dag_id)
        raise OperationalError("SELECT 1", {}, Exception("no such table: dag"))

    monkeypatch.setattr(LiveScheduler, "dag_file", no_database)
    for name in ("churn", "flights"):
        (tmp_path / "dags" / f"{name}.yaml").write_text(YAML.format(name))
    files = PipelineFiles()
    assert files.find("churn") is not None
    assert files.find("flights") is not None
    assert asked == ["churn__train"]
    assert files.notes == [
        "Airflow's database cannot be read (no such table: dag): files are looked for in the DAGs folder"
    ]


def test_a_file_with_mistakes_is_a_note(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "dags" / "churn.yaml").write_text(YAML.format("churn") + "nonsense: 1\n")
    files = PipelineFiles()
    assert files.find("churn") is None
    (note,) = files.notes
    assert note.startswith("churn is judged without its file: ")
    assert "\n" not in note


def test_what_is_old_is_said_to_be(store: LocalStore) -> None:
    live(store, "churn")
    found = levels.assess(store, "churn", None, datetime(2199, 1, 1, tzinfo=UTC), 30)
    text = render(found, width=80)
    assert next(line for line in text.splitlines() if "a person approves" in line).endswith("; not recent")
    assert narrow(text)


def test_the_command_is_declared_as_it_is_called() -> None:
    from airflow_mlops.cli.definition import get_mlops_cli_commands

    (group,) = get_mlops_cli_commands()
    (command,) = (c for c in group.subcommands if c.name == "assess")
    assert {arg.flags[0].lstrip("-") for arg in command.args} == {"pipelines", "days", "output"}
    assert callable(module.assess)
