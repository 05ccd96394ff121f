"""``airflow mlops rerun``: what it takes from Airflow's configuration, what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mlops import Pipeline
from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.cli.rerun import render, rerun
from airflow_mlops.exceptions import TrainingError
from airflow_mlops.ml import rerun as module
from airflow_mlops.ml.rerun import Rerun
from airflow_mlops.ml.rerun_findings import Finding
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.registry import Registry
from airflow_mlops.store import LocalStore, layout

YAML = """
pipeline: parts
level: 0
data: {source: parts.csv, target: bad, id: part}
validate: {schema: "off"}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc, log_loss], gates: [{metric: roc_auc, at_least: 0.6}]}
"""


def arguments(*words: str) -> Namespace:
    (command,) = (c for group in get_mlops_cli_commands() for c in group.subcommands if c.name == "rerun")
    parser = ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)
    return parser.parse_args(words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with one version, made by a local run."""
    folder = tmp_path_factory.mktemp("trained")
    random = np.random.default_rng(5)
    size, heat = random.normal(size=200), random.normal(size=200)
    bad = (size + heat + random.normal(size=200) > 0).astype(int)
    pd.DataFrame({"part": range(200), "size": size, "heat": heat, "bad": bad}).to_csv(folder / "parts.csv", index=False)
    (folder / "parts.yaml").write_text(YAML)
    pipeline = Pipeline.from_yaml(folder / "parts.yaml", data_root=folder)
    pipeline.run(store=f"file://{folder}/store", register=True, say=lambda _: None).close()
    return folder / "store"


@pytest.fixture
def store(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    shutil.copytree(trained, tmp_path / "store")
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    return LocalStore(tmp_path / "store")


@pytest.fixture
def ends(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command; its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str, str]:
        code = 0
        try:
            rerun(arguments(*words))
        except SystemExit as e:
            code = int(str(e.code))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let training make another model than it did."""
    real = module.train_candidate

    def other(*args, **kwargs):
        config = kwargs["train_config"].model_copy(update={"params": {"C": 0.001}})
        return real(*args, **kwargs | {"train_config": config})

    monkeypatch.setattr(module, "train_candidate", other)


def test_the_same_again(store: LocalStore, ends: Callable[..., tuple[int, str, str]]) -> None:
    before = sorted(store.list(""))
    code, out, err = ends("parts:1", "--verify")
    assert (code, out) == (
        0,
        "data ✓  config ✓  code ✓ none of its own  env ✓  metrics Δ=0  model ✓ same bytes\nparts v1 was made again.\n",
    )
    assert "parts v1: trained again, here; nothing is registered" in err
    assert "rows for training" in err
    assert sorted(store.list("")) == before


def test_as_json(store: LocalStore, ends: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = ends("parts:1", "--output", "json")
    found = json.loads(out)
    assert (code, found["version"], found["verified"], found["failed"]) == (0, "parts v1", True, None)
    assert found["metrics"]["roc_auc"]["delta"] == 0
    assert {f["what"]: f["answer"] for f in found["findings"]}["predictions"] == "same"


def test_a_difference_is_an_error_only_where_it_is_asked_for(
    store: LocalStore, ends: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    code, out, _ = ends("parts:1")
    assert code == 0
    assert "parts v1 was not made again: metrics, predictions." in out
    assert "  metrics: log_loss 0." in out
    assert "predictions ✗ 39 rows differ" in out
    assert max(map(len, out.splitlines())) <= 80
    code, again, _ = ends("parts:1", "--verify")
    assert (code, again) == (1, out)
    assert ends("parts:1", "--verify", "--output", "json")[0] == 1


def test_deleted_data_ends_with_1(store: LocalStore, ends: Callable[..., tuple[int, str, str]]) -> None:
    version = Registry(store, "parts").get(1)
    digest = version.record["snapshot"]["snapshot"]
    store.delete(layout.blob(Snapshot.load(store, digest).files[0].digest))
    note = {"what": "snapshot", "digest": digest, "window": None, "older_than": "30 days"}
    Registry(store, "parts").annotate(1, "retention", note, op_id="x")
    code, out, _ = ends("parts:1")
    assert code == 1
    assert out.startswith("data ✗ deleted by retention  config ✓")
    assert out.endswith("parts v1 cannot be made again here.\n")


def test_who_deploys_decides_what_runs(
    store: LocalStore, ends: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def record(*args, **kwargs):
        seen.update(kwargs)
        raise TrainingError("enough", hint="stop here")

    monkeypatch.setattr(module, "train_candidate", record)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "my_pkg, other")
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_TYPES", "my_pkg.Thing")
    code, out, _ = ends("parts:1", "--folder", "/code")
    assert (code, seen["allowed_imports"], seen["trusted_types"]) == (1, ("my_pkg", "other"), ("my_pkg.Thing",))
    assert seen["folder"] == Path("/code")
    assert "not trained again: enough\n  What to do: stop here\n" in out


def test_commands_need_the_deployments_leave(
    store: LocalStore, ends: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.registry.lineage import config_hash

    registry = Registry(store, "parts")
    config = registry.get(1).record["config"]
    config = config | {"train": config["train"] | {"estimator": None, "command": "python t.py {model_dir}"}}
    record = registry.get(1).record | {"config": config, "config_hash": config_hash(config)}
    registry.register(record, op_id="c")
    code, out, err = ends("parts:2")
    assert (code, out) == (1, "")
    assert "train.command is not allowed here" in err
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_COMMANDS", "True")
    code, out, err = ends("parts:2")
    assert (code, out) == (1, "")
    assert "was trained by a command: python t.py {model_dir}" in err
    assert "not trained again: " in ends("parts:2", "--allow-command")[1]


def test_a_name_that_is_wrong(store: LocalStore, ends: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = ends("part:1")
    assert (code, out) == (1, "")
    assert "did you mean parts?" in err


def test_what_differs_is_told_in_80_columns() -> None:
    findings = (
        Finding("data", "same"),
        Finding("config", "same"),
        Finding("code", "different", "1 of 1 files differ", (f"/a/{'long/' * 30}x.py has changed",)),
        Finding("env", "different", "scikit-learn 1.9.0 → 1.9.1, numpy 2.0.0 → 2.1.0, pandas 1 → 2, skops 1 → 2"),
        Finding("metrics", "unknown", "no evaluation was recorded"),
        Finding("predictions", "unknown", "not recorded"),
        Finding("model", "different", "other bytes"),
    )
    text = render(Rerun("parts v1", findings, {}))
    assert max(map(len, text.splitlines())) <= 80
    assert text.splitlines()[0] == "data ✓  config ✓  code ✗ 1 of 1 files differ"
    assert "env ✗ (scikit-learn 1.9.0 → 1.9.1" in text
    assert "metrics ? no evaluation was recorded" in text
    assert text.endswith("parts v1 was not made again: code.")


def test_another_environment_is_told_and_no_error() -> None:
    same = tuple(Finding(what, "same") for what in ("data", "config", "code", "metrics", "predictions", "model"))
    result = Rerun("parts v1", (*same, Finding("env", "different", "numpy 1 → 2")), {})
    assert result.verified
    assert render(result).endswith("parts v1 was made again, in another environment.")
