"""What is tried of a pipeline: on the rows and the split of the pipeline after a change, and without a trace."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from airflow_mlops.config.loader import load_text
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.delivery.compare import compare
from airflow_mlops.delivery.scaffold import example_customers
from airflow_mlops.delivery.trial import check_contract, refuse_foreign, same_features, take_rows, train, train_before
from airflow_mlops.exceptions import DataError, TargetError, WindowError
from airflow_mlops.ml.files import Files
from airflow_mlops.store import LocalStore

PIPELINE = """\
pipeline: churn
level: 1
data: {source: customers.csv, target: churned, positive: 1, id: customer_id, private: [spend], split: {test: 0.5}}
train: {estimator: sklearn.linear_model.LogisticRegression, seed: 3}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, versus: champion, not_worse_by: 0.3}]}
retrain: {schedule: "@weekly"}
"""
RIGHTS: dict[str, Any] = {"allowed_imports": ("trial_features",), "trusted_types": ()}


@pytest.fixture
def data(tmp_path: Path) -> Files:
    (tmp_path / "customers.csv").write_bytes(example_customers())
    return Files(root=str(tmp_path))


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PipelineConfig]:
    """Call it with the body of a feature function for the pipeline that uses it."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "trial_features", raising=False)

    def make(body: str) -> PipelineConfig:
        (tmp_path / "trial_features.py").write_text(f"seen = []\n\ndef build(frame):\n    {body}\n")
        return load_text(PIPELINE + 'features: {callable: "trial_features:build"}\n')

    return make


def tried(config: PipelineConfig, store: LocalStore, files: Files, sample: int = 600) -> dict[str, Any]:
    reading = {"files": files, "sql": None, "sample": sample, "start": None, "end": None}
    return train(config, Path(), store, **reading, **RIGHTS, allow_commands=False, say=lambda text: None)


def before(config: PipelineConfig, store: LocalStore, after: dict[str, Any], now: PipelineConfig) -> dict[str, Any]:
    same = {"data": now.data, "seed": now.train.seed, "evaluate": now.evaluate}
    return train_before(
        config, Path(), store, snapshot=after["snapshot"], **same, **RIGHTS, allow_commands=False
    )  # fmt: skip


def test_before_and_after_on_the_rows_of_the_one_after(tmp_path: Path, data: Files) -> None:
    store, now = LocalStore(tmp_path / "store"), load_text(PIPELINE)
    after = tried(now, store, data)
    json.dumps(after, allow_nan=False)
    assert after["columns"] == ["customer_id", "plan", "visits", "spend", "support_calls", "churned"]
    assert sum(after["rows"].values()) == 600
    assert [(gate["versus"], gate["verdict"]) for gate in after["gates"]] == [(True, "no_baseline")]
    # Another split, seed and id before: what counts is that of now.
    text = PIPELINE.replace("split: {test: 0.5}", "split: {by: group, column: plan}").replace("seed: 3", "seed: 4")
    then = load_text(text.replace("private: [spend]", "exclude: [support_calls]"))
    other = before(then, store, after, now)
    assert other["rows"] == after["rows"]
    assert same_features(other["features"], after["features"]) == ["+ support_calls (number)"]
    found = compare(store, other, after, metrics=["roc_auc"], gates=now.evaluate.gates)
    assert found.rows == after["rows"]["holdout"]
    assert (found.metrics[0].verdict, found.gates[0]["verdict"]) == ("better", "passed")
    same = compare(store, before(now, store, after, now), after, metrics=["roc_auc"], gates=())
    assert same.metrics[0].verdict == "the same"
    assert set(after["cost"]) == set(other["cost"]) == {"wall_seconds", "cpu_seconds"}
    # What is predicted is what is predicted now.
    renamed = load_text(PIPELINE.replace("target: churned", "target: left"))
    assert before(renamed, store, after, now)["rows"] == after["rows"]
    with pytest.raises(TargetError, match="has no column 'left'"):
        tried(renamed, store, data)


def test_the_rows_of_other_data(tmp_path: Path, data: Files) -> None:
    pd.DataFrame({"customer_id": range(50), "churned": [0, 1] * 25, "age": 1}).to_csv(tmp_path / "old.csv", index=False)
    config = load_text(PIPELINE.replace("customers.csv", "old.csv").replace("private: [spend], ", ""))
    reading = {"files": data, "sql": None, "start": None, "end": None, "allowed_imports": ()}
    found = take_rows(config, LocalStore(tmp_path / "store"), sample=20, **reading)
    assert found == {"rows": 20, "there": 50, "columns": ["customer_id", "churned", "age"]}
    windowed = load_text(PIPELINE.replace("customers.csv", '"{{ window.start }}.csv"'))
    with pytest.raises(WindowError):
        take_rows(windowed, LocalStore(tmp_path / "store"), sample=20, **reading)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return frame.assign(more=frame['visits'] * 2)", None),
        ("return frame.assign(more=frame['visits'] / frame['visits'].max())", "more"),
        ("return frame.assign(more=frame['visits'].rank())", "more"),
        ("seen.append(1); return frame.assign(more=frame['visits'] * len(seen))", "more"),
        ("return frame.assign(plan=frame['plan'].where(frame['visits'] < frame['visits'].max()))", "plan"),
        ("return frame.assign(spend=frame['spend'].rank())", None),  # private: not kept, not compared
    ],
)
def test_features_that_differ_between_training_and_prediction(
    body: str, problem: str | None, features: Callable[[str], PipelineConfig], tmp_path: Path, data: Files
) -> None:
    store, config = LocalStore(tmp_path / "store"), features(body)
    after = tried(config, store, data)
    found = check_contract(store, "churn", after["version"], data=config.data, **RIGHTS)
    assert found["rows"] == 200
    if problem is None:
        assert found["problems"] == []
    else:
        assert found["problems"][0].startswith(f"the feature {problem} is another in prediction than in training: ")


def test_features_that_cannot_be_made_of_one_row(
    features: Callable[[str], PipelineConfig], tmp_path: Path, data: Files
) -> None:
    config = features("assert len(frame) > 1, frame.iloc[0].to_dict(); return frame")
    store = LocalStore(tmp_path / "store")
    after = tried(config, store, data)
    (problem,) = check_contract(store, "churn", after["version"], data=config.data, **RIGHTS)["problems"]
    assert (
        "what the model needs for a prediction cannot be made: the feature code trial_features:build failed" in problem
    )
    assert "spend" not in problem


def test_code_of_another_place_is_refused(features: Callable[[str], PipelineConfig], tmp_path: Path) -> None:
    features("return frame")
    __import__("trial_features")
    refuse_foreign(["trial_features", "none"], tmp_path)
    with pytest.raises(DataError, match="was imported from"):
        refuse_foreign(["trial_features"], tmp_path / "elsewhere")
