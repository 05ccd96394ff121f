"""One model of a fleet, trained again from its record: the same bytes, or what differs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.ml.fleet import partition
from airflow_mlops.ml.fleet.result import put_table
from airflow_mlops.ml.fleet.run_again import rerun_fleet
from airflow_mlops.ml.rerun import Rerun, rerun
from airflow_mlops.pipeline import Pipeline
from airflow_mlops.registry.fleet_runs import FleetRun
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore

FLEET = """
pipeline: routes
level: 0
data: {source: trips.parquet, target: late, id: trip, split: {by: random, test: 0.3}}
train:
  estimator: sklearn.ensemble.RandomForestClassifier
  params: {n_estimators: 5}
  search: {space: {max_depth: [1, 4], min_samples_leaf: [1, 9]}, n_iter: 3, cv: 2}
evaluate: {metrics: [roc_auc, log_loss]}
fleet: {key: route, parent: line, shard_size: 2}
"""


@pytest.fixture(scope="module", autouse=True)
def sampled() -> Iterator[None]:
    """The parents of all rows and of line A learn from a sample of their rows, as those of a large fleet do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "PARENT_ROWS", 200)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sampled: None) -> tuple[LocalStore, Registry]:
    """Three keys, two groups and the model of all rows, made by a local run; the rows are in no order."""
    root = tmp_path_factory.mktemp("fleet")
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"route": np.repeat(["a", "b", "c"], 150), "line": np.repeat(["A", "A", "B"], 150)})
    frame["trip"], frame["hour"] = range(450), rng.normal(size=450)
    frame["rain"] = rng.choice(["no", "much"], 450)
    frame["late"] = (frame["hour"] + rng.normal(size=450) > 0.3).astype(int)
    frame.sample(frac=1, random_state=1).to_parquet(root / "trips.parquet")
    (root / "routes.yaml").write_text(FLEET)
    store = LocalStore(root / "store")
    Pipeline.from_yaml(root / "routes.yaml", data_root=root).run_fleet(store=store, register=True, say=lambda s: None)
    return store, Registry(store, "routes")


def answers(result: Rerun) -> dict[str, str]:
    return {finding.what: finding.answer for finding in result.findings}


@pytest.mark.parametrize("key", ["b", "A/*", "*"])
def test_a_model_is_made_again_byte_for_byte(made: tuple[LocalStore, Registry], key: str) -> None:
    store, registry = made
    before = [*store.list("")]
    result = rerun(store, registry.get(1, key))
    assert answers(result) == dict.fromkeys(("data", "config", "code", "env", "metrics", "model"), "same")
    assert result.verified
    rows = sum(registry.get(1, key).record["rows"].values())
    assert rows == 150 if key == "b" else 150 < rows < 250
    assert set(result.metrics) == {"roc_auc", "log_loss"}
    # What the key's own search chose, over what all have in common.
    params = registry.get(1, key).record["params"]
    assert params["n_estimators"] == 5
    assert params["max_depth"] in (1, 4)
    assert params["min_samples_leaf"] in (1, 9)
    assert [*store.list("")] == before


def test_a_key_without_gaps_is_made_again_where_another_has_one(tmp_path: Path) -> None:
    """Without ``data.id`` the whole row is drawn; read alone, the numbers of a key are integers."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"route": np.repeat(["a", "b"], 150), "hour": rng.normal(size=300)})
    frame["stops"] = pd.array(rng.integers(0, 9, 300), dtype="Int64")
    frame.loc[299, "stops"] = None
    frame["late"] = (frame["hour"] + rng.normal(size=300) > 0.3).astype(int)
    frame.to_parquet(tmp_path / "trips.parquet")
    (tmp_path / "routes.yaml").write_text(FLEET.replace(", id: trip", "").replace(", parent: line", ""))
    store = LocalStore(tmp_path / "store")
    registry = Registry(store, "routes")
    Pipeline.from_yaml(tmp_path / "routes.yaml", data_root=tmp_path).run_fleet(
        store=store, register=True, say=lambda line: None
    )
    for key in ("a", "b", "*"):
        result = rerun(store, registry.get(1, key))
        assert (key, result.answer("model"), result.answer("metrics")) == (key, "same", "same")


def test_what_is_not_as_recorded_is_told(made: tuple[LocalStore, Registry]) -> None:
    store, registry = made
    version = registry.get(1, "b")
    changed = Version("routes", 1, "b", version.record | {"params": {"n_estimators": 6}}, dict(version.notes))
    other = rerun(store, changed)
    assert (other.answer("model"), other.answer("metrics"), other.verified) == ("different", "different", False)
    gone = rerun(store, Version("routes", 1, "nowhere", version.record, {}))
    assert gone.failed == "the snapshot has no row of the key 'nowhere'"
    # The preparation is loaded, and nobody has signed it.
    unsigned = rerun(store, version, verifier=Verifier().trusting(Signer.generate().public))
    assert "not signed" in str(unsigned.failed)


def test_code_that_is_another_one_now_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"route": np.repeat(["a", "b"], 100), "trip": range(200)})
    frame["hour"] = np.random.default_rng(1).normal(size=200)
    frame["late"] = (frame["hour"] > 0.1).astype(int)
    frame.to_parquet(tmp_path / "trips.parquet")
    code = 'features: {callable: "again_trips:build"}\n'
    (tmp_path / "routes.yaml").write_text(FLEET.replace(", parent: line", "") + code)
    for name in ("then", "now"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "again_trips.py").write_text(f"def build(frame):\n    return frame  # {name}\n")
    store, allowed = LocalStore(tmp_path / "store"), ("again_trips",)
    with monkeypatch.context() as then:
        then.syspath_prepend(str(tmp_path / "then"))
        pipeline = Pipeline.from_yaml(tmp_path / "routes.yaml", data_root=tmp_path, allowed_imports=allowed)
        made = pipeline.run_fleet(store=store, register=True, say=lambda line: None)
    monkeypatch.delitem(sys.modules, "again_trips")
    monkeypatch.syspath_prepend(str(tmp_path / "now"))
    # The file of then lies where it lay: what counts is the one that ran.
    one = rerun(store, Registry(store, "routes").get(1, "a"), allowed_imports=allowed)
    table = put_table(store, made.rows)
    run = FleetRun("routes__train", "local", "", made.sentence, made.counts, table, None, 2, 0, None, None, 200, False)
    every = rerun_fleet(store, "routes", run, allowed_imports=allowed, processes=1)
    assert every.sentence == "3 of 3 models have the same bytes"
    assert {f.what: f.answer for f in every.findings}["code"] == one.answer("code") == "different"
    assert not every.verified
    assert not one.verified
