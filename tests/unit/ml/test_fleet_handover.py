"""A fleet's bundle, used as by somebody who has neither Airflow nor this package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.exceptions import ConfigError, UntrustedArtifact
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.fleet.handover import make_fleet_bundle
from airflow_mlops.pipeline import Pipeline
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore

FLEET = """
pipeline: routes
level: 0
data: {source: trips.parquet, target: late, positive: "yes", id: trip}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.6}]}
fleet: {key: [stop, route], parent: stop, shard_size: 3}
"""
# Refuses to import Airflow and this package, in a process that finds both.
ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("airflow", "airflow_mlops"):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""
Fleet = tuple[LocalStore, Registry, pd.DataFrame]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer.generate()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, signer: Signer) -> Fleet:
    """Champions of three keys, a group and all rows; ``007`` and ``a/b`` are values of a key. Trained in two runs."""
    root = tmp_path_factory.mktemp("fleet")
    rng = np.random.default_rng(3)
    places = [("007", "x"), ("007", "a/b"), ("8", "x")]
    frame = pd.DataFrame([p for p in places for _ in range(400)] + [("9", "x")] * 20, columns=["stop", "route"])
    frame["trip"], frame["hour"] = range(len(frame)), rng.normal(size=len(frame))
    frame["rain"] = rng.choice(["no", "much"], len(frame))
    chance = frame["hour"] * 2 + (frame["rain"] == "much") + rng.normal(size=len(frame))
    frame["late"] = np.where(chance > 0.5, "yes", "no")
    store, registry = LocalStore(root / "store"), Registry(LocalStore(root / "store"), "routes")
    for number in (1, 2):
        frame.sample(frac=1, random_state=number).to_parquet(root / "trips.parquet")
        (root / "routes.yaml").write_text(FLEET)
        made = Pipeline.from_yaml(root / "routes.yaml", data_root=root).run_fleet(
            store=store, register=True, signer=signer, say=lambda line: None, keys=None if number == 1 else ["8/x"]
        )
        going = {r["key"]: (r["version"], r["champion"]) for r in made.rows if r["status"] in ("no_baseline", "passed")}
        registry.promote_many(going, op_id=str(number) * 64, reason="test", by=None, window=None)
    return store, registry, frame


@pytest.fixture
def unzipped(tmp_path: Path) -> Callable[[Path], Path]:
    def unzip(path: Path) -> Path:
        with zipfile.ZipFile(path) as bundle:
            bundle.extractall(tmp_path / "there")
        return tmp_path / "there"

    return unzip


def predict(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE, "predict.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def test_each_row_is_predicted_by_the_model_of_its_key(
    fleet: Fleet, signer: Signer, tmp_path: Path, unzipped: Callable[[Path], Path]
) -> None:
    store, registry, frame = fleet
    verifier = Verifier().trusting(signer.public)
    made = make_fleet_bundle(store, registry, tmp_path / "b.zip", verifier=verifier)
    assert made.models == len(registry.champions()) >= 5
    assert make_fleet_bundle(store, registry, tmp_path / "c.zip", verifier=verifier).digest == made.digest

    folder = unzipped(tmp_path / "b.zip")
    asked = frame.groupby(["stop", "route"]).head(5).drop(columns="late")
    new = pd.DataFrame({"stop": ["007", "8"], "route": "new", "trip": [-1, -2], "hour": [1.0, -1.0], "rain": "no"})
    asked = pd.concat([asked, new], ignore_index=True)
    asked.to_csv(folder / "in.csv", index=False)
    done = predict(folder, "in.csv")
    assert done.returncode == 0, done.stderr
    said = pd.read_csv(folder / "predictions.csv", dtype={"stop": str, "route": str})
    assert list(said.columns[:3]) == ["trip", "stop", "route"]  # its id tells which row of the input this is of
    assert list(said["trip"]) == list(asked["trip"])
    by = dict(zip(said["trip"], said["model_key"], strict=True))
    assert {by[t] for t in asked["trip"][asked["route"] == "a/b"]} == {"007/a%2Fb"}
    assert {by[t] for t in asked["trip"][asked["stop"] == "9"]} == {"*"}
    assert (by[-1], by[-2]) == ("007/*", "8/*")
    for key in ("007/a%2Fb", "8/x", "*"):
        version = registry.champion(key)
        assert version is not None
        rows = asked[(said["model_key"] == key).to_numpy()]
        model = fetch_model(store, version.record["model"], verifier=verifier, pipeline="routes", key=key)
        expected = model.predict_proba(FeatureSchema.from_dict(version.record["schema"]).check(rows))[:, 1]
        assert said.loc[said["model_key"] == key, "probability"].to_numpy() == pytest.approx(expected, abs=1e-12)
        assert set(said.loc[said["model_key"] == key, "model_version"]) == {version.number}
    assert registry.champion("8/x").number == 2  # type: ignore[union-attr]


def test_what_was_changed_is_not_loaded(fleet: Fleet, tmp_path: Path, unzipped: Callable[[Path], Path]) -> None:
    store, registry, _ = fleet
    make_fleet_bundle(store, registry, tmp_path / "b.zip", keys=["8/x"])
    folder = unzipped(tmp_path / "b.zip")
    table = (folder / "models.csv").read_text()
    assert table.count("\n") == 2
    assert set(pd.read_csv(folder / "sample_input.csv")["stop"]) == {8}
    (folder / "models.csv").write_text(table.replace("8/x,2", "8/x,1"))
    done = predict(folder, "sample_input.csv")
    assert done.returncode == 2
    assert "models.csv is not the file that was handed over" in done.stderr


def test_rows_that_no_model_of_the_bundle_serves_have_no_prediction(
    fleet: Fleet, tmp_path: Path, unzipped: Callable[[Path], Path]
) -> None:
    store, registry, frame = fleet
    make_fleet_bundle(store, registry, tmp_path / "b.zip", keys=["8/x", "007/x"])
    folder = unzipped(tmp_path / "b.zip")
    frame.drop(columns="late").groupby(["stop", "route"]).head(2).to_parquet(folder / "in.parquet")
    done = predict(folder, "in.parquet")
    assert "4 rows have no prediction: no model of this bundle serves their key" in done.stderr
    said = pd.read_csv(folder / "predictions.csv", dtype=str)
    assert said["prediction"].notna().sum() == 4


def test_what_cannot_be_handed_over_is_told(fleet: Fleet, tmp_path: Path) -> None:
    store, registry, _ = fleet
    with pytest.raises(ConfigError, match="routes has no champion for 'nowhere'"):
        make_fleet_bundle(store, registry, tmp_path / "b.zip", keys=["8/x", "nowhere"])
    with pytest.raises(UntrustedArtifact):
        make_fleet_bundle(store, registry, tmp_path / "b.zip", verifier=Verifier().trusting(Signer.generate().public))
    with pytest.raises(ConfigError, match="no models with keys"):
        make_fleet_bundle(store, Registry(store, "other"), tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()
