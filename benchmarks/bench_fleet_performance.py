"""Falls of a fleet's scores: how often one alarms by chance, alone and among all keys of a night, and what is seen.

    python benchmarks/bench_fleet_performance.py [--keys 100] [--nights 60]
    python benchmarks/bench_fleet_performance.py --nights 0 --each 40,625

Then the check of a whole fleet: ``--speed-keys`` models and a capture with ``--each`` rows of each, joined with
outcomes that come in another order, some twice, some late. In a process of its own; the memory is its peak.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from airflow_mlops.config.models import Data, Labels, Performance
from airflow_mlops.ml.drift import critical_p
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.falls import fall_p_value
from airflow_mlops.ml.fleet.performance import fleet_performance
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate
from airflow_mlops.ml.prediction import CaptureWriter, find_capture
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, put_json
from airflow_mlops.window import Window

NOISE: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "long tails (t, 4)": lambda rng, n: rng.standard_t(4, size=n),
    "skewed (exponential)": lambda rng, n: rng.exponential(size=n) - 1,
}
CLASSES = ("roc_auc", "average_precision", "log_loss", "accuracy", "f1")


def rows(rng: np.random.Generator, n: int, name: str, noise: str, by: float) -> tuple[np.ndarray, Predictions]:
    """Outcomes and predictions of a key; ``by`` times the noise that there was at training."""
    x = rng.normal(size=n)
    if name not in CLASSES:
        return x + by * NOISE[noise](rng, n), Predictions(labels=x)
    p = 1 / (1 + np.exp(-1.5 * x))
    y = rng.random(n) < 1 / (1 + np.exp(-1.5 * x / by))
    return y.astype(np.int64), Predictions((p > 0.5).astype(np.int64), np.column_stack([1 - p, p]))


def p_value(rng: np.random.Generator, name: str, noise: str, by: float) -> float:
    """Of a key with 40 to 80 rows in its holdout and 30 to 60 in the window."""
    metric, classes = Metric(name), 2 if name in CLASSES else None
    before, now = int(rng.integers(40, 80)), int(rng.integers(30, 60))
    y, said = rows(rng, before, name, noise, 1.0)
    baseline = metric.score(y, said, n_classes=classes)
    y, said = rows(rng, now, name, noise, by)
    return fall_p_value(metric, estimate(metric, y, said, n_classes=classes, seed=7), baseline, before)


WINDOW = Window.of("2026-01-01", "2026-01-02")
WORSE = 10
"""Keys whose predictions become worse."""


def stored(folder: Path, keys: int, each: int) -> None:
    """Champions, a capture with ``each`` rows of each key in one order, outcomes in another."""
    store = LocalStore(folder / "store")
    registry = Registry(store, "bench")
    schema = FeatureSchema((Feature("x", "number"),), target="y").to_dict()
    of = put_json(store, {"schema": schema, "task": "regression"})
    names = [f"k{i:05d}" for i in range(keys)]
    for first in range(0, keys, 500):
        some = names[first : first + 500]
        record = {
            "of": of,
            "model": {"digest": "0" * 64},
            "metrics": {"r2": 0.5},
            "rows": {"train": 160, "holdout": 40},
        }
        registry.register_many(dict.fromkeys(some, record), op_id=f"r{first}")
        registry.promote_many(dict.fromkeys(some, (1, None)), op_id=f"p{first}", reason="bench")
    rng = np.random.default_rng(5)
    known = []
    with CaptureWriter(store, "bench", WINDOW, model_version=None) as capture:
        for first in range(0, keys * each, 2**18):
            ids = np.arange(first, min(first + 2**18, keys * each))
            # In turn, as rows of one hour come: those of a key are all over the capture.
            key, said = ids % keys, rng.normal(size=len(ids))
            y = said + rng.normal(size=len(ids)) * np.where(key < WORSE, 5.0, 1.0)
            of_row = pa.array(names).take(pa.array(key))
            rows = {
                "id": ids,
                "key": of_row,
                "prediction": said,
                "model_key": of_row,
                "model_version": np.ones(len(ids), int),
            }
            capture.write(pa.table(rows).combine_chunks().to_batches()[0])
            known.append(pd.DataFrame({"id": ids, "y": np.where(rng.random(len(ids)) < 0.02, np.nan, y)}))
    outcomes = pd.concat(known)
    late = outcomes.sample(frac=0.01, random_state=1).assign(y=9.0)  # counts for nothing: another one follows
    pd.concat([late, outcomes.sample(frac=1, random_state=2)]).to_parquet(folder / "outcomes.parquet", index=False)


def check(folder: Path) -> None:
    """The check alone, in this process."""
    store = LocalStore(folder / "store")
    began, spent = time.perf_counter(), time.process_time()
    found = fleet_performance(
        store, Registry(store, "bench"), find_capture(store, "bench", WINDOW),
        data=Data(source="none.parquet", target="y", id="id"),
        labels=Labels(source="outcomes.parquet", join_on="id"),
        config=Performance(), metrics=["r2"], files=Files(root=str(folder)), drifted={}, log=lambda *_: None,
    )  # fmt: skip
    took = f"{time.perf_counter() - began:.1f} s, {time.process_time() - spent:.1f} CPU s"
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM:"))
    print(f"the check: {found['keys']:,} keys, {found['rows']:,} rows with an outcome in {took}, peak {peak:,.0f} MB; "
          f"{found['worse_keys']} alarms, {WORSE} keys are worse; table {found['table'][:12]}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--nights", type=int, default=60, help="0: no nights, the check alone")
    parser.add_argument("--speed-keys", type=int, default=16_000)
    parser.add_argument("--each", default="40", help="rows of a key, by commas (default: 40)")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.check:
        check(a.check)
        return
    if a.nights:
        nights(a.keys, a.nights)
    for each in map(int, a.each.split(",")):
        with tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder:
            stored(Path(folder), a.speed_keys, each)
            subprocess.run([sys.executable, __file__, "--check", folder], check=True)


def nights(keys: int, many: int) -> None:
    cases = [(name, noise) for name in ("r2", "rmse", "mae") for noise in NOISE] + [(name, "") for name in CLASSES]
    for name, noise in cases:
        rng = np.random.default_rng(0)
        p = np.array([[p_value(rng, name, noise, 1.0) for _ in range(keys)] for _ in range(many)])
        alarms = sum(critical_p(night.tolist(), 0.05, "bh") >= 0 for night in p)
        alone = ", ".join(f"{(p <= level).mean():.2%} at {level:.1%}" for level in (0.05, 0.01, 0.001))
        worse = np.array([p_value(rng, name, noise, 3.0) for _ in range(keys)])
        print(f"{name} {noise}: alone {alone}; {alarms} of {many} nights of {keys} keys alarm; noise × 3: "
              f"p ≤ 0.001 in {(worse <= 0.001).mean():.0%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
