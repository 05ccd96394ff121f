"""The version that losses are counted from, through whole training runs: scored, judged, noted, and told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from airflow_mlops.local_result import Result
from airflow_mlops.pipeline import Pipeline
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

FILE = """
pipeline: parts
level: 0
data: {source: parts.csv, target: bad, positive: 1, id: part, split: {by: random, test: 0.5}}
train: {estimator: sklearn.linear_model.LogisticRegression, params: {C: COST}}
evaluate:
  metrics: [roc_auc]
  holdout_uses: 1000
  gates: [{metric: roc_auc, versus: champion, not_worse_by: 0.05}]
"""


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    size, heat = rng.normal(size=3000), rng.normal(size=3000)
    bad = (size + heat + rng.normal(size=3000) > 0).astype(int)
    pd.DataFrame({"part": range(3000), "size": size, "heat": heat, "bad": bad}).to_csv(tmp_path / "parts.csv")
    return tmp_path


def train(lake: Path, store: LocalStore, cost: float, reports: Path | None = None) -> Result:
    file = lake / "parts.yaml"
    file.write_text(FILE.replace("COST", str(cost)))
    made = Pipeline.from_yaml(file, data_root=lake)
    return made.run(store=store, register=True, say=lambda text: None, reports=reports)


def promote(store: LocalStore, result: Result, by: str | None = None) -> None:
    registry, number = Registry(store, "parts"), result.version
    before = registry.champion()
    expected = before.number if before else None
    registry.promote(number, expected=expected, op_id=f"promote {number}", reason="test", by=by)


def test_the_reference_stays_until_a_person_or_a_better_version_takes_its_place(lake: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    registry = Registry(store, "parts")
    promote(store, train(lake, store, 1.0))
    assert registry.reference().number == 1

    second = train(lake, store, 0.5)
    assert second.verdict == "passed"
    (note,) = registry.get(2).notes["gates"]
    assert (note["reference_version"], note["next_reference"]) == (1, 1)
    promote(store, second)
    assert registry.reference().number == 1

    third = train(lake, store, 0.2, reports=tmp_path / "reports")
    assert third.verdict == "passed"
    (sentence,) = [gate["sentence"] for gate in third.gates]
    assert "vs champion" in sentence
    assert "vs v1, the reference since" in sentence
    (evaluation,) = registry.get(3).notes["evaluation"]
    assert (evaluation["champion"], evaluation["reference_version"]) == (2, 1)
    pages = [path.read_text() for path in (tmp_path / "reports").glob("*.html")]
    assert any("Losses are counted from v1" in page for page in pages)
    promote(store, third, by="ann")
    assert registry.reference().number == 3
