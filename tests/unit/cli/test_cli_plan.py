"""``airflow mlops plan``: what another level would change."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_mlops.cli.plan import plan, plan_level
from airflow_mlops.config.loader import load_text, read_pipeline
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.yaml_source import Source
from airflow_mlops.factory.builder import build_pipeline

DEMOS = Path(__file__).parents[3] / "dags" / "pipelines"
CANCER, FLIGHTS = DEMOS / "breast_cancer.yaml", DEMOS / "flight_delays.yaml"
LEVEL_0 = """\
pipeline: churn
level: 0
data: {source: churn.csv, target: y}
train: {estimator: sklearn.linear_model.ESTIMATOR}
"""
LEVEL_1 = """\
pipeline: churn
level: 1
extends: base.yaml
data: {source: "churn/*.csv", target: y, watch: 1h}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {gates: [{metric: roc_auc, at_least: 0.6}]}
retrain: {when: [new_data, staleness]}
deploy: {batch: {schedule: "@daily"}}
environments:
  live: {monitor: {max_age: 3d}}
"""


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def _run(
    capsys: pytest.CaptureFixture[str], file: Path, level: str, output: str = "text", environment: str | None = None
) -> str:
    plan(Namespace(file=str(file), level=level, output=output, environment=environment))
    return capsys.readouterr().out


def _read(folder: Path, text: str) -> tuple[PipelineConfig, Source]:
    (folder / "base.yaml").write_text("owner: ana\nmonitor: {max_age: 9d}\n")
    (folder / "churn.yaml").write_text(text)
    config, source = read_pipeline(folder / "churn.yaml")
    assert config is not None, source.issues
    return config, source


def _pasted(text: str, snippets: list[str], level: int, removed: list[str]) -> dict[str, Any]:
    """What a person makes of a file who follows the plan."""

    def join(data: dict[str, Any], more: dict[str, Any]) -> None:
        for key, value in more.items():
            if isinstance(value, dict):
                join(data.setdefault(key, {}), value)
            elif isinstance(value, list):
                data[key] = data.get(key, []) + value
            else:
                data[key] = value

    data = yaml.safe_load(text) | {"level": level}
    for key in removed:
        *path, last = key.split(".")
        inner = data
        for step in path:
            inner = inner[step]
        del inner[last]
    for snippet in snippets:
        join(data, yaml.safe_load(snippet))
    return data


@pytest.mark.parametrize("text", [LEVEL_0.replace("ESTIMATOR", "Ridge"), CANCER.read_text()])
@pytest.mark.parametrize("optional", [False, True])
def test_a_file_that_follows_the_plan_loads_and_becomes_the_dags(tmp_path: Path, text: str, optional: bool) -> None:
    config, source = _read(tmp_path, text)
    planned = plan_level(config, source, 1)
    additions = (*planned.missing, *(planned.optional if optional else ()))
    data = _pasted(text, [a.snippet for a in additions], 1, [])
    then = load_text(yaml.safe_dump(data))
    dags = {dag.id: dag for dag in planned.dags}
    before, after = build_pipeline(config), build_pipeline(then)
    for name in after if not optional else ():
        assert {t.task_id for t in after[name].tasks} == {t.task_id for t in before[name].tasks} - {
            *dags[name].tasks_removed
        } | {*dags[name].tasks_added}
    if optional:
        assert set(after) == {*before, f"{config.pipeline}__monitor"}


@pytest.mark.parametrize(
    ("train", "metric"),
    [
        ("{estimator: sklearn.linear_model.LogisticRegression}", "roc_auc"),
        ("{estimator: sklearn.linear_model.Ridge}", "r2"),
        ("{estimator: sklearn.linear_model.LogisticRegression}\nevaluate: {metrics: [log_loss, accuracy]}", "accuracy"),
        ("{callable: 'm:f'}", "roc_auc"),
        ("{callable: 'm:f'}\ntask: regression", "r2"),
        ("{callable: 'm:f'}\nevaluate: {metrics: [rmse]}", "r2"),
    ],
)
def test_what_level_1_needs(tmp_path: Path, train: str, metric: str) -> None:
    planned = plan_level(*_read(tmp_path, LEVEL_0.replace("{estimator: sklearn.linear_model.ESTIMATOR}", train)), 1)
    assert [a.key for a in planned.missing] == ["retrain", "evaluate.gates"]
    assert f"metric: {metric}," in planned.missing[1].snippet
    assert [a.key for a in planned.optional] == ["data.timestamp", "evaluate.gates", "deploy.batch.schedule", "monitor"]
    assert planned.remove == ()
    train, predict, registry = planned.dags
    assert (train.change, predict.change, registry.change) == ("changed", "changed", "unchanged")
    assert (train.starts_now, train.starts_then) == (("a person, with the trigger form",), ("cron @weekly (UTC)",))
    assert train.tasks_added == ("retrain.claim", "promote.champion")
    assert train.tasks_removed == ("data.profile", "approve.ask", "promote.handover")


def test_what_level_0_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, source = _read(tmp_path, LEVEL_1)
    planned = plan_level(config, source, 0)
    assert {r.key: (Path(r.origin).name, r.layer) for r in planned.remove} == {
        "data.watch": ("churn.yaml:4", "file"),
        "deploy.batch.schedule": ("churn.yaml:8", "file"),
        "monitor": ("base.yaml:2", "extends"),
        "retrain": ("churn.yaml:7", "file"),
    }
    assert [(dag.id, dag.change) for dag in planned.dags] == [
        ("churn__train", "changed"), ("churn__predict", "changed"), ("churn__monitor", "removed"),
        ("churn__registry", "unchanged"),
    ]  # fmt: skip
    assert planned.missing == planned.optional == ()
    assert "or, for this file alone, write it here" in _run(capsys, tmp_path / "churn.yaml", "0")
    assert "churn.yaml:10, environment live): level 0 has" in " ".join(
        _run(capsys, tmp_path / "churn.yaml", "0", environment="live").split()
    )
    assert source.data["data"]["watch"] == "1h"  # what was read is as it was


def test_the_file_loads_at_level_0_without_what_is_to_be_removed(tmp_path: Path) -> None:
    text = FLIGHTS.read_text()
    planned = plan_level(*_read(tmp_path, text), 0)
    assert load_text(yaml.safe_dump(_pasted(text, [], 0, [r.key for r in planned.remove]))).level == 0


@pytest.mark.parametrize(("file", "level"), [(CANCER, "1"), (FLIGHTS, "0"), (CANCER, "aws:repeatable")])
def test_the_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, file: Path, level: str) -> None:
    monkeypatch.chdir(DEMOS)
    before = file.read_bytes()
    text = _run(capsys, file, level)
    assert max(map(len, text.splitlines())) <= 80
    assert "Nothing is changed" in text
    for word in ("Google Cloud", "Microsoft", "AWS", "→", "THE FILE", "THE DAGS", "was started by"):
        assert word in text
    assert file.read_bytes() == before


def test_stand_ins_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _read(tmp_path, LEVEL_0.replace("ESTIMATOR", "Ridge"))
    lines = _run(capsys, tmp_path / "churn.yaml", "1").splitlines()
    assert "THE DAGS, with `retrain` and `evaluate.gates` as above" in lines
    assert '        schedule: "@weekly"' in lines


@pytest.mark.parametrize("level", ["1", "google:1", "microsoft:2", "aws:repeatable"])
def test_the_same_level_changes_nothing(capsys: pytest.CaptureFixture[str], level: str) -> None:
    assert "nothing changes" in _run(capsys, FLIGHTS, level)
    data = json.loads(_run(capsys, FLIGHTS, level, "json"))
    assert (data["changes"], data["dags"], data["missing"], data["remove"]) == (False, [], [], [])


@pytest.mark.parametrize("level", ["2", "microsoft:3", "microsoft:4", "aws:reliable", "aws:scalable"])
def test_level_2_needs_nothing_that_level_1_has_not(capsys: pytest.CaptureFixture[str], level: str) -> None:
    data = json.loads(_run(capsys, FLIGHTS, level, "json"))
    assert (data["changes"], data["then"]["number"], data["missing"], data["remove"]) == (True, 2, [], [])
    assert [a["key"] for a in data["optional"]] == ["deploy.rollout"]
    changed = {dag["id"]: dag["tasks_added"] for dag in data["dags"] if dag["change"] == "changed"}
    assert changed == {
        "flight_delays__train": ["promote.rollout"],
        "flight_delays__monitor": ["rollout.advance", "experiment.request"],
    }
    assert "1 ML pipeline automation → 2 CI/CD pipeline automation" in " ".join(_run(capsys, FLIGHTS, level).split())


def test_from_level_0_to_2_needs_what_level_1_needs(tmp_path: Path) -> None:
    config, source = _read(tmp_path, LEVEL_0.replace("ESTIMATOR", "Ridge"))
    planned = plan_level(config, source, 2)
    assert [a.key for a in planned.missing] == ["retrain", "evaluate.gates"]
    data = _pasted((tmp_path / "churn.yaml").read_text(), [a.snippet for a in planned.missing], 2, [])
    assert load_text(yaml.safe_dump(data)).level == 2


def test_who_predicts_on_sagemaker_has_no_steps_at_level_2(tmp_path: Path) -> None:
    text = LEVEL_0.replace("ESTIMATOR", "Ridge") + "deploy: {batch: {sagemaker: {image: i, role: r}}}\n"
    planned = plan_level(*_read(tmp_path, text), 2)
    assert [a.key for a in planned.missing] == ["retrain", "evaluate.gates", "deploy.rollout"]
    assert "deploy.rollout" not in [a.key for a in planned.optional]
    data = _pasted((tmp_path / "churn.yaml").read_text(), [a.snippet for a in planned.missing], 2, [])
    assert load_text(yaml.safe_dump(data)).rollout == ("full",)


@pytest.mark.parametrize("level", [0, 1])
def test_down_from_level_2(tmp_path: Path, level: int) -> None:
    text = FLIGHTS.read_text().replace("level: 1", "level: 2")
    text = text.replace("\ndeploy:\n", "\ndeploy:\n  rollout: [shadow, full]\n  verdict: {max_windows: 3}\n")
    planned = plan_level(*_read(tmp_path, text), level)
    assert planned.missing == planned.optional == ()
    assert [r.key for r in planned.remove][:2] == ["deploy.rollout", "deploy.verdict"]
    assert len(planned.remove) == (2 if level == 1 else 4)
    assert load_text(yaml.safe_dump(_pasted(text, [], level, [r.key for r in planned.remove]))).level == level


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(_run(capsys, CANCER, "1", "json"))
    assert data["changes"] is True
    assert data["now"] == {
        "number": 0, "google": ["0 manual process"], "microsoft": ["0 No MLOps", "1 DevOps but no MLOps"],
        "aws": ["initial"],
    }  # fmt: skip
    assert [a["key"] for a in data["missing"]] == ["retrain"]
    assert [dag["change"] for dag in data["dags"]] == ["changed", "changed", "unchanged"]


@pytest.mark.parametrize("level", ["seven", "aws:3", "true", ""])
def test_what_is_no_level(capsys: pytest.CaptureFixture[str], level: str) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(capsys, CANCER, level)
    assert ended.value.code == 1
    assert "aws: initial, repeatable, reliable, scalable" in capsys.readouterr().err


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_a_file_with_errors_has_no_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path, level: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(LEVEL_0.replace("ESTIMATOR", "Ridge") + "retrain: {schedule: '@daily'}\n")
    with pytest.raises(SystemExit) as ended:
        _run(capsys, file, level)
    assert ended.value.code == 1
    assert "x.yaml:5" in capsys.readouterr().err


def test_a_fleet_is_not_told_of_steps_that_it_cannot_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "base.yaml").write_text("owner: ana\nmonitor: {max_age: 9d}\n")
    (tmp_path / "churn.yaml").write_text(LEVEL_1 + "fleet: {key: plan}\n")
    told = " ".join(_run(capsys, tmp_path / "churn.yaml", "2").split())
    assert "promotion gates decide key by key; approval is optional → as at level 1: a fleet has no shadow" in told
    assert "a change of the pipeline by a commit, which `airflow mlops ci` tries with some keys" in told
    assert "rollout" not in told
    data = json.loads(_run(capsys, tmp_path / "churn.yaml", "2", "json"))
    assert (data["missing"], data["optional"], data["fleet"]) == ([], [], True)
    assert {dag["change"] for dag in data["dags"]} == {"unchanged"}
