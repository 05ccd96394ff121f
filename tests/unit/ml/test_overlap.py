from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.config.models import Data, Evaluate, Gate, Train
from airflow_mlops.ml.candidate import train_candidate
from airflow_mlops.ml.candidate_verdict import evaluate_candidate
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.evaluation import Evaluation, Reference
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.gates import decide
from airflow_mlops.ml.overlap import learned_rows
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.ml.splitting import split_mask
from airflow_mlops.registry import Registry
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

SPLITS = {
    "random": {"by": "random", "test": 0.3},
    "group": {"by": "group", "column": "shop", "test": 0.3},
    "time": {"by": "time", "test": 0.3},
}


def rows(days=90, a_day=20):
    rng = np.random.default_rng(3)
    n = days * a_day
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(n)], "a": rng.normal(size=n), "b": rng.normal(size=n)})
    frame["shop"] = [f"s{i % 17}" for i in range(n)]
    frame["day"] = pd.Timestamp("2025-01-01") + pd.to_timedelta(np.repeat(range(days), a_day), unit="D")
    frame["y"] = (frame["a"] + rng.normal(size=n) > 0).astype(int)
    return frame


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rows().to_csv(folder / "rows.csv", index=False)
    rows().drop(columns="b").to_csv(folder / "narrow.csv", index=False)
    return folder


class Bench:
    """Snapshots and versions of one store, without any training."""

    def __init__(self, folder, store):
        self.folder, self.store = folder, store

    def snapshot(self, window=None, **data):
        config = Data.model_validate(
            {"source": "rows.csv", "target": "y", "id": "id", "timestamp": "day", "split": SPLITS["random"]} | data
        )
        files = Files(root=str(self.folder))
        batches = read_batches(config, files=files, window=window)
        return config, take_snapshot(self.store, "p", batches, data=config, window=window)

    def record(self, seed=1, window=None, newest=None, **data):
        config, snapshot = self.snapshot(window, **data)
        train = {"estimator": "sklearn.linear_model.LogisticRegression", "window": newest}
        return {
            "snapshot": snapshot.to_ref(),
            "seed": seed,
            "config": {"data": config.model_dump(mode="json"), "train": Train.model_validate(train).model_dump()},
        }

    def learned(self, record, seed=1, window=None, **data):
        """What is said, and what is true: by id, from the training rows."""
        config, snapshot = self.snapshot(window, **data)
        frame = snapshot.to_pandas(self.store)
        holdout = frame[split_mask(frame, config, seed)]
        said = learned_rows(self.store, record, holdout, data=config, seed=seed, snapshot=snapshot.digest)
        before = Data.model_validate(record["config"]["data"])
        known = Snapshot.load(self.store, record["snapshot"]).to_pandas(self.store)
        known = known[~split_mask(known, before, record["seed"])]
        if record["config"]["train"]["window"]:
            known = known[known["day"] >= known["day"].max() - timedelta(days=30)]
        return said, int(holdout["id"].isin(known["id"]).sum())


@pytest.fixture
def bench(source, tmp_path):
    return Bench(source, LocalStore(tmp_path))


JANUARY, TO_MARCH = (Window.of("2025-01-01", end) for end in ("2025-02-01", "2025-03-15"))


@pytest.mark.parametrize("by", ["random", "group"])
@pytest.mark.parametrize("name", ["id", None])
def test_the_same_draw_keeps_rows_apart(bench, by, name):
    record = bench.record(window=JANUARY, split=SPLITS[by], id=name)
    assert bench.learned(record, window=TO_MARCH, split=SPLITS[by], id=name) == (0, 0)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {"seed": 2}),
        ({"split": SPLITS["group"]}, {}),
        ({"split": SPLITS["time"]}, {}),
        ({"window": None, "timestamp": None, "exclude": ["day"]}, {"split": SPLITS["time"]}),
        ({"newest": "30d", "window": TO_MARCH}, {"seed": 2}),
        ({"id": None}, {}),
        ({"id": None, "source": "narrow.csv"}, {"id": None}),
        ({"split": {"by": "random", "test": 0.1}}, {}),
        ({"split": SPLITS["time"], "window": TO_MARCH}, {"split": SPLITS["time"], "window": JANUARY}),
    ],
)
def test_other_draws_are_counted_row_by_row(bench, before, now):
    said, true = bench.learned(bench.record(**{"window": JANUARY} | before), **{"window": TO_MARCH} | now)
    assert said == true > 0


def test_windows_that_move_on_are_not_read_again(bench, monkeypatch):
    time = SPLITS["time"]
    first = bench.record(window=JANUARY, split=time)
    assert bench.learned(first, window=Window.of("2025-02-01", "2025-03-15"), split=time) == (0, 0)
    assert bench.learned(first, window=JANUARY, split=time) == (0, 0)
    monkeypatch.setattr(Snapshot, "batches", None)
    config, snapshot = bench.snapshot(TO_MARCH, split=time)
    late = rows()[lambda f: f["day"] >= "2025-03-01"]
    assert learned_rows(bench.store, first, late, data=config, seed=1, snapshot=snapshot.digest) == 0


def test_who_cannot_tell_says_so(bench):
    record = bench.record(seed=2)
    config, snapshot = bench.snapshot()
    frame = snapshot.to_pandas(bench.store)

    def said(record):
        return learned_rows(bench.store, record, frame, data=config, seed=1, snapshot=snapshot.digest)

    assert said(record) > 0
    assert said({"model": {}}) is None
    assert said(record | {"snapshot": record["snapshot"] | {"snapshot": "0" * 64}}) is None


def judged(learned, gate, aucs=(0.6, 0.9), reference=None):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    columns = {"y": y}
    for name, pull in zip(("candidate", "champion", "reference"), aucs, strict=False):
        p = np.clip(0.5 + 0.3 * pull * (y - 0.5) + 0.2 * rng.normal(size=2000), 0.01, 0.99)
        columns |= {f"{name}_proba_0": 1 - p, f"{name}_proba_1": p}
    found = Evaluation("classification", (0, 1), (), pd.DataFrame(columns), True, reference=reference, learned=learned)
    return decide([gate], found)


@pytest.mark.parametrize("gate", [{"not_worse_by": 0.01}, {"better_by": 0.0}])
def test_nothing_is_rejected_for_a_champion_that_knew_the_answers(gate):
    gate = Gate(metric="roc_auc", versus="champion", **gate)
    assert judged({}, gate).verdict == "rejected"
    told = judged({"champion": 1200}, gate)
    assert told.verdict == "inconclusive"
    assert "champion has learned from 1,200 of these 2,000 rows, which makes it look better than it is" in told.sentence
    assert "more holdout rows" not in told.sentence
    assert told.results[0].needed_rows is None
    assert judged({"champion": 1200}, gate, aucs=(1.5, 0.5)).verdict == "passed"


def test_the_reference_too():
    gate = Gate(metric="roc_auc", versus="champion", not_worse_by=0.05)
    third = Reference(3, "2025-01-01T00:00:00+00:00")
    assert judged({}, gate, (0.6, 0.6, 1.5), third).verdict == "rejected"
    told = judged({"reference": 900}, gate, (0.6, 0.6, 1.5), third)
    assert told.verdict == "inconclusive"
    assert "it has learned from 900 of these 2,000 rows" in told.sentence


def test_a_champion_made_from_all_rows_is_noticed_where_the_candidate_is_scored(bench):
    """Level 0 on one file, then level 1 on windows of the same file, with another split."""
    registry, lines = Registry(bench.store, "p"), []
    common = {"allowed_imports": (), "trusted_types": (), "log": lambda text, *args: lines.append(text % args)}
    train = Train.model_validate({"estimator": "sklearn.linear_model.LogisticRegression"})

    def trained(config, snapshot):
        record = train_candidate(
            bench.store,
            snapshot.to_ref(),
            data=config,
            train_config=train,
            features=None,
            metrics=["roc_auc"],
            task="classification",
            **common,
        )
        return registry.register(record, op_id=f"r{len(registry.versions())}")

    trained(*bench.snapshot(split={"by": "random", "test": 0.1}))
    registry.promote(1, expected=None, op_id="p", reason="first")
    config, snapshot = bench.snapshot(TO_MARCH)
    version = trained(config, snapshot)
    result = evaluate_candidate(
        bench.store, version.record, registry.champion(), data=config, config=Evaluate(metrics=["roc_auc"]), **common
    )
    told = next(line for line in lines if "has learned" in line)
    assert told.startswith("v1 has learned from ")
    assert result["champion"] == 1
