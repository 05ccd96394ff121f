"""A version's drift reference: made once, kept with it, and all that a check needs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from airflow_mlops import Pipeline
from airflow_mlops.config import load_text
from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.ml.batch_inference import score
from airflow_mlops.ml.drift_profile import Profile, make_profile
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.prediction import find_capture
from airflow_mlops.ml.reference import SAMPLE_ROWS, Reference, load_reference, make_reference, store_reference
from airflow_mlops.ml.served_drift import drift, snapshot_reference
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.reachable import reachable
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.store.content import get_json
from airflow_mlops.window import Window

WINDOW = Window.of("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z")
FILE = """
pipeline: people
level: 0
data: {source: people.csv, target: TARGET, id: person, timestamp: seen, min_rows: 30}
train: {estimator: sklearn.ESTIMATOR, params: PARAMS}
MORE
"""
CASES = [
    ("stays", "linear_model.LogisticRegression"),  # asked for classes
    ("stays", "ensemble.HistGradientBoostingClassifier"),  # whose class is the likeliest one
    ("stays", "svm.LinearSVC"),  # decision function only
    ("ward", "linear_model.LogisticRegression"),  # three classes, text
    ("age", "linear_model.Ridge"),
]


def people(rows: int, shift: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(rows)
    pay = random.normal(shift, 1, rows)
    return pd.DataFrame(
        {
            "person": range(rows),
            "seen": pd.date_range("2024-01-01", periods=rows, freq="h")[::-1],
            "pay": pay,
            "size": np.where(random.random(rows) < 0.1, np.nan, random.normal(0, 1, rows)),
            "kind": random.choice(["a", "b", "c"], rows),
            "old": random.random(rows) < 0.3,
            "stays": (pay + random.normal(0, 1, rows) > 0).astype(int),
            "ward": np.array(["north", "south", "west"])[
                np.clip(pay + random.normal(0, 1, rows) + 1, 0, 2).astype(int)
            ],
            "age": pay + random.normal(0, 1, rows),
        }
    )


def served(
    tmp_path: Path, target: str, estimator: str, shift: float = 0.0
) -> tuple[LocalStore, Version, dict[str, Any]]:
    """Train, evaluate and score."""
    lake, store = tmp_path / "lake", LocalStore(tmp_path / "store")
    lake.mkdir(exist_ok=True)
    others = [c for c in ("stays", "ward", "age") if c != target]
    people(600).drop(columns=others).to_csv(lake / "people.csv", index=False)
    people(400, shift).drop(columns=[*others, target]).to_csv(lake / "new.csv", index=False)
    more = "evaluate: {metrics: [roc_auc]}" if "SVC" in estimator else ""
    params = "{max_iter: 3}" if "HistGradient" in estimator else "{}"
    config = load_text(
        FILE.replace("TARGET", target).replace("ESTIMATOR", estimator).replace("MORE", more).replace("PARAMS", params)
    )
    Pipeline(config, data_root=lake).run(
        store=store, register=True, say=lambda line: None, start="2024-01-01", end="2025-01-01"
    )
    version = Registry(store, "people").get(1)
    score(
        store, version, data=config.data, source="new.csv", output="out", name="x", window=WINDOW,
        files=Files(root=str(lake)), log=logging.getLogger("x").info,
    )  # fmt: skip
    return store, version, find_capture(store, "people", WINDOW)


@pytest.mark.parametrize(("target", "estimator"), CASES)
def test_what_is_kept_is_what_the_snapshot_would_give(tmp_path: Path, target: str, estimator: str) -> None:
    store, version, _ = served(tmp_path, target, estimator)
    kept = load_reference(store, version)
    assert kept is not None
    made = snapshot_reference(store, version, allowed_imports=(), trusted_types=())
    assert kept.profile.to_dict() == made.profile.to_dict()
    holdout, outputs = version.record["rows"]["holdout"], {*kept.profile.columns} - {"pay", "size", "kind", "old"}
    assert "prediction" in outputs
    assert all(kept.profile.columns[name].side.rows == holdout for name in outputs)
    assert len(kept.sample) == kept.profile.rows == 600
    assert kept.sample["prediction"].notna().sum() == holdout


def test_the_check_reads_neither_snapshot_nor_model(tmp_path: Path) -> None:
    store, version, capture = served(tmp_path, "stays", "linear_model.LogisticRegression", shift=1.0)
    manifest = get_json(store, version.record["snapshot"]["snapshot"])
    for digest in (version.record["model"]["digest"], *(f["digest"] for f in manifest["files"])):
        store.delete(layout.blob(digest))
    result, page = drift(store, capture, version, Drift())
    assert result["verdict"] == "drift"
    assert "pay" in result["skew"]["data"]
    assert {"prediction", "probability"} <= set(result["skew"]["prediction"])
    assert result["sentence"].startswith("distribution skew (data drift and prediction drift): drift in ")
    assert b"show 600 and 400 of them" in page
    together, _ = drift(store, capture, version, Drift(multivariate=True))
    assert together["columns"][-1]["name"] in together["skew"]["data"]
    assert "AUC" in together["columns"][-1]["sentence"]
    theirs, page = drift(store, capture, version, Drift(engine="evidently"))
    assert theirs["verdict"] == "drift"
    assert "pay (wasserstein " in theirs["sentence"]
    assert b"Evidently&#x27;s wasserstein" in page


def test_a_version_without_one_is_compared_with_its_snapshot_and_that_is_said(tmp_path: Path) -> None:
    store, version, capture = served(tmp_path, "stays", "linear_model.LogisticRegression")
    notes = {kind: [{k: v for k, v in note.items() if k != "reference"} for note in found]
             for kind, found in version.notes.items()}  # fmt: skip
    older = Version("people", 1, None, version.record, notes)
    lines: list[str] = []
    mine, _ = drift(store, capture, version, Drift(), log=lambda text, *args: lines.append(text % args))
    assert lines == []
    theirs, _ = drift(store, capture, older, Drift(), log=lambda text, *args: lines.append(text % args))
    assert lines == ["people v1 has no drift reference of its own: making it from its snapshot"]
    assert theirs == mine
    assert mine["verdict"] == "no_drift"


def test_it_is_in_use_and_checked_like_all_that_a_version_names(tmp_path: Path) -> None:
    store, version, _ = served(tmp_path, "stays", "linear_model.LogisticRegression")
    digest = version.notes["evaluation"][-1]["reference"]
    present = {bytes.fromhex(key.rpartition("/")[2]) for key in store.list("blobs/")}
    assert bytes.fromhex(digest) in reachable(store, present, present)
    assert check(store).findings == []
    store.put(layout.blob(digest), b"rubbish")
    (found,) = check(store).findings
    assert found.key == layout.blob(digest)
    with pytest.raises(CorruptObject):
        load_reference(store, version)


def test_the_same_rows_give_the_same_blob(tmp_path: Path) -> None:
    store, version, _ = served(tmp_path, "stays", "linear_model.LogisticRegression")
    digest = version.notes["evaluation"][-1]["reference"]
    made = snapshot_reference(store, version, allowed_imports=(), trusted_types=())
    kept = load_reference(store, version)
    assert kept is not None
    assert store_reference(store, kept) == store_reference(store, kept)
    pd.testing.assert_frame_equal(kept.sample, made.sample, check_dtype=False)
    assert store.exists(layout.blob(digest))


def test_rows_are_put_in_the_order_of_their_times(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    walk = pd.Series(np.repeat(random.normal(size=60), 20), name="x")
    shuffled = random.permutation(len(walk))
    schema = FeatureSchema((Feature("x", "number"),), "y")
    frame = pd.DataFrame({"x": walk.to_numpy()[shuffled], "prediction": np.nan})
    times = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(shuffled, unit="h"))
    assert make_reference(frame, schema).profile.columns["x"].side.factor == 1.0
    assert make_reference(frame, schema, times).profile.columns["x"].side.factor > 10
    assert make_reference(frame, schema, times.astype(str)).sample["x"].tolist() == walk.tolist()


def test_a_profile_is_small_and_a_sample_is_bounded(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"x": random.normal(size=50_000), "c": random.integers(0, 20_000, 50_000).astype(str)})
    profile = make_profile(frame, {"x": "number", "c": "category"})
    again = Profile.from_dict(json.loads(json.dumps(profile.to_dict(), allow_nan=False)))
    assert again.to_dict() == profile.to_dict()
    assert len(profile.columns["x"].scale.cuts) <= 1024
    assert 1000 < len(profile.columns["c"].side.counts) <= 10_000
    Reference(profile, frame.head(SAMPLE_ROWS)).to_parquet(tmp_path / "r.parquet")
    assert (tmp_path / "r.parquet").stat().st_size < 600_000
    frame.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(CorruptObject, match="not a drift reference"):
        Reference.from_parquet(tmp_path / "other.parquet")
