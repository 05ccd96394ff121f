"""Falls of a fleet's scores: the error rate of one test, and of all of them together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from airflow_mlops.ml.drift import critical_p
from airflow_mlops.ml.fleet.falls import fall_p_value
from airflow_mlops.ml.fleet.served import Served
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate
from airflow_mlops.store import LocalStore, put_blob_file, put_json


def rows(rng: np.random.Generator, n: int, noise: float, classes: bool) -> tuple[np.ndarray, Predictions]:
    x = rng.normal(size=n)
    if not classes:
        return x + noise * rng.standard_t(4, size=n), Predictions(labels=x)
    p = 1 / (1 + np.exp(-2 * x))
    y = rng.random(n) < 1 / (1 + np.exp(-2 * x / noise))
    return y.astype(np.int64), Predictions((p > 0.5).astype(np.int64), np.column_stack([1 - p, p]))


def p_values(name: str, keys: int, *, noise: float = 1.0, seed: int = 0, many: int = 1) -> np.ndarray:
    """Of keys that were scored on 40 to 80 rows, and are judged on 30 to 60 (times ``many``)."""
    rng, metric, found = np.random.default_rng(seed), Metric(name), []
    classes = 2 if name in ("roc_auc", "log_loss", "accuracy") else None
    for _ in range(keys):
        before, now = (int(rng.integers(*span)) * many for span in ((40, 80), (30, 60)))
        y, said = rows(rng, before, 1.0, classes is not None)
        baseline = metric.score(y, said, n_classes=classes)
        y, said = rows(rng, now, noise, classes is not None)
        found.append(fall_p_value(metric, estimate(metric, y, said, n_classes=classes), baseline, before))
    return np.array(found)


@pytest.mark.parametrize("name", ["r2", "roc_auc", "accuracy"])
def test_a_fall_by_chance_is_as_rare_as_its_p_value_says(name: str) -> None:
    keys = 450
    p = p_values(name, keys)
    for level in (0.05, 0.01, 0.002):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / keys)
    nights = [critical_p(night.tolist(), 0.05, "bh") >= 0 for night in p.reshape(-1, 30)]
    assert sum(nights) <= 3  # of 15 nights at 5 % more than 3 alarm with a probability of 0.5 %


@pytest.mark.parametrize("name", ["r2", "roc_auc", "accuracy"])
def test_a_fall_is_seen(name: str) -> None:
    noise = 4.0 if name == "r2" else 20.0
    assert np.median(p_values(name, 40, noise=noise, many=3)) < 0.01


def test_shares_are_compared_exactly() -> None:
    y = np.zeros(40, dtype=np.int64)
    said = Predictions(labels=np.array([0] * 20 + [1] * 20))
    found = fall_p_value(Metric("accuracy"), estimate(Metric("accuracy"), y, said, n_classes=2), 0.9, 50)
    assert found == pytest.approx(stats.fisher_exact([[20, 20], [45, 5]], alternative="less").pvalue)
    same = Predictions(labels=y)
    assert fall_p_value(Metric("accuracy"), estimate(Metric("accuracy"), y, same, n_classes=2), 0.9, 50) > 0.5


def test_rows_of_own_models_come_with_the_number_of_their_key(tmp_path: Path) -> None:
    keys = [f"route {i % 50}" for i in range(100_000)]
    models = [key if i % 4 else "all" for i, key in enumerate(keys)]
    table = pa.table({
        "id": [None if i % 1000 == 1 else float(i) for i in range(len(keys))],
        "key": [None if i < 10 else key for i, key in enumerate(keys)],
        "model_key": models,
        "model_version": [1] * len(keys),
        "prediction": np.arange(len(keys), dtype=float),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "capture.parquet", write_page_checksum=True)
    store = LocalStore(tmp_path / "store")
    file = put_blob_file(store, tmp_path / "capture.parquet")
    digest = put_json(store, {"file": file, "rows": len(keys), "columns": table.column_names})
    served = Served(store, {"capture": digest})
    numbers = {key: number for number, key in enumerate(sorted(served.own))}
    found = pa.Table.from_batches([*served.own_batches(["id", "prediction"], numbers)])
    frame = table.to_pandas()
    mine = frame[frame["key"] == frame["model_key"]].reset_index(drop=True)
    assert found.column_names == ["id", "prediction", "key"]
    assert found["key"].to_pylist() == mine["key"].map(numbers).tolist()
    pd.testing.assert_frame_equal(found.to_pandas()[["id", "prediction"]], mine[["id", "prediction"]])
