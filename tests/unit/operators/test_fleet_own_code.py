"""Estimators of one's own, and those that choose their settings by themselves, in a fleet."""

from __future__ import annotations

from pathlib import Path

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from tests.unit.operators import test_fleet_runs as runs
from tests.unit.operators.test_fleet_runs import Fleet, by_key, fleet, registry, store  # noqa: F401

OWN = """
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

class Clipped(RegressorMixin, BaseEstimator):
    def __init__(self, share=0.99):
        self.share = share

    def fit(self, X, y):
        y = np.clip(y, *np.quantile(y, [1 - self.share, self.share]))
        self.coef_ = np.linalg.lstsq(np.c_[X, np.ones(len(X))], y, rcond=None)[0]
        return self

    def predict(self, X):
        return np.c_[X, np.ones(len(X))] @ self.coef_
"""


def test_a_class_of_ones_own_must_be_trusted_before_anything_is_registered(
    fleet: Fleet,  # noqa: F811
    store: LocalStore,  # noqa: F811
    registry: Registry,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "route_code.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "route_code")
    monkeypatch.setattr(runs, "TRAIN", {"estimator": "route_code.Clipped", "params": {"share": 0.98}})
    shards = fleet.partition("one")
    with pytest.raises(AirflowFailException, match=r"not trusted: route_code.Clipped"):
        fleet.train(shards[1], "one")
    assert registry.keys() == []
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_TYPES", "route_code.Clipped")
    for item in shards:
        fleet.train(item, "one")
    found = by_key(store, fleet.decide(shards, "one")["table"])
    assert found["r01"]["metrics"]["r2"] > 0.5
    version = registry.get(1, "r01")
    model = fetch_model(store, version.record["model"], trusted=["route_code.Clipped"], pipeline="routes", key="r01")
    assert model[-1].share == 0.98


def test_each_key_may_choose_its_own_settings(
    fleet: Fleet,  # noqa: F811
    store: LocalStore,  # noqa: F811
    registry: Registry,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = {"estimator": "sklearn.linear_model.RidgeCV", "params": {"alphas": [0.01, 1.0, 100.0]}}
    monkeypatch.setattr(runs, "TRAIN", train)
    fleet.run("one")
    champion = registry.champion("r01")
    assert champion is not None
    model = fetch_model(store, champion.record["model"], pipeline="routes", key="r01")
    assert model[-1].alpha_ in (0.01, 1.0, 100.0)
