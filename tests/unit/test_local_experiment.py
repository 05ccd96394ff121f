"""Experiments without Airflow: the example, a model's experiment, and going on after a stop."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer

from airflow_mlops import Pipeline
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

EXAMPLE = Path(__file__).parents[2] / "examples/travelling_salesman"
CELLS = """\
pipeline: cells
level: 2
data: {source: cells.csv, target: target, id: id}
train: {estimator: sklearn.tree.DecisionTreeClassifier, seed: 3}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.8}]}
retrain: {schedule: "@weekly"}
experiment:
  n_trials: 4
  space: {max_depth: [1, 2, 3, 4], min_samples_leaf: [1, 5, 20]}
"""


@pytest.fixture
def tour(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    monkeypatch.syspath_prepend(EXAMPLE)
    yield Pipeline.from_yaml(EXAMPLE / "tour.yaml", allowed_imports=["tour"])
    sys.modules.pop("tour", None)


@pytest.fixture
def cells(tmp_path: Path) -> Pipeline:
    frame = load_breast_cancer(as_frame=True).frame.iloc[:, [0, 1, 2, -1]]
    frame.columns = ["radius", "texture", "perimeter", "target"]
    frame.insert(0, "id", range(len(frame)))
    frame.to_csv(tmp_path / "cells.csv", index=False)
    (tmp_path / "cells.yaml").write_text(CELLS)
    return Pipeline.from_yaml(tmp_path / "cells.yaml", data_root=tmp_path)


def test_the_example_finds_a_short_tour(tour: Pipeline) -> None:
    said: list[str] = []
    with tour.experiment(say=said.append, space={"cold": [0.001, 0.003]}) as found:
        assert found.winner["params"]["move"] == "reverse"
        # Beardwood, Halton & Hammersley (1959): about 0.7124 √(n·area) plus the border's part, 6 … 7 for 60 cities.
        assert found.winner["score"] < 7.5
        assert found.result is None
        assert len(found.trials) == 20
        assert found.trials[0]["number"] == found.winner["number"]
        page = found.reports["Experiment report"]
    assert "<svg" in page
    assert "<script" not in page
    assert said[-1] == "nothing was trained: this experiment has no model"
    with pytest.raises(ConfigError, match="trains no model"):
        tour.run(say=said.append)


def test_the_winner_is_judged_and_nothing_is_kept(cells: Pipeline, tmp_path: Path) -> None:
    said: list[str] = []
    store = LocalStore(tmp_path / "store")
    with cells.experiment(say=said.append, store=store) as found:
        assert found.result is not None
        assert found.result.verdict == "passed"
        model = found.result.model[-1]
        assert {k: getattr(model, k) for k in found.winner["params"]} == found.winner["params"]
        assert set(found.reports) >= {"Experiment report", "Gate report", "Model card"}
    assert list(store.list("")) == []
    assert sum(bool(re.match(r"  \d/4 trial", line)) for line in said) == 4


def test_a_stopped_experiment_goes_on(cells: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.ml import experiment

    store, ran = LocalStore(tmp_path / "store"), []
    original = experiment.run_trial

    def stopped(*args: Any, **kwargs: Any) -> Any:
        if len(ran) == 2:
            raise KeyboardInterrupt
        ran.append(args[2])
        return original(*args, **kwargs)

    monkeypatch.setattr(experiment, "run_trial", stopped)
    with pytest.raises(KeyboardInterrupt):
        cells.experiment(say=lambda line: None, store=store, register=True)
    monkeypatch.setattr(experiment, "run_trial", original)
    fitted = []
    from airflow_mlops.ml import experiment_models

    train = experiment_models.train
    monkeypatch.setattr(experiment_models, "train", lambda *a, **k: fitted.append(1) or train(*a, **k))
    with cells.experiment(say=lambda line: None, store=store, register=True) as found:
        assert found.result is not None
        assert found.result.version == 1
    assert len(fitted) == 2
    record = Registry(store, "cells").get(1).record
    assert record["experiment"]["winner"]["number"] == found.winner["number"]
    assert record["run"]["dag_id"] == "cells__experiment"


def test_what_is_set_goes_before_the_file(cells: Pipeline) -> None:
    def numbers(**keys: Any) -> list[dict[str, Any]]:
        with cells.experiment(say=lambda line: None, **keys) as found:
            return [trial["params"] for trial in found.trials]

    assert len(numbers(n_trials=2)) == 2
    assert {p["max_depth"] for p in numbers(space={"max_depth": [2]})} == {2}
    assert len(numbers(strategy="all", space={"max_depth": [2], "min_samples_leaf": [1, 5]})) == 2
    with pytest.raises(ConfigError, match="no space of this experiment has 'depth'"):
        numbers(space={"depth": [1]})
    with pytest.raises(ConfigError, match="cannot be changed so"):
        numbers(n_trials=0)
