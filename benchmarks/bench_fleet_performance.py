"""Falls of a fleet's scores: how often one alarms by chance, alone and among all keys of a night, and what is seen.

``python benchmarks/bench_fleet_performance.py [--keys 100] [--nights 60]``
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from airflow_mlops.ml.drift import critical_p
from airflow_mlops.ml.fleet.performance import fall_p_value
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate

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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--nights", type=int, default=60)
    a = parser.parse_args()
    cases = [(name, noise) for name in ("r2", "rmse", "mae") for noise in NOISE] + [(name, "") for name in CLASSES]
    for name, noise in cases:
        rng = np.random.default_rng(0)
        p = np.array([[p_value(rng, name, noise, 1.0) for _ in range(a.keys)] for _ in range(a.nights)])
        nights = sum(critical_p(night.tolist(), 0.05, "bh") >= 0 for night in p)
        alone = ", ".join(f"{(p <= level).mean():.2%} at {level:.1%}" for level in (0.05, 0.01, 0.001))
        worse = np.array([p_value(rng, name, noise, 3.0) for _ in range(a.keys)])
        print(f"{name} {noise}: alone {alone}; {nights} of {a.nights} nights of {a.keys} keys alarm; noise × 3: "
              f"p ≤ 0.001 in {(worse <= 0.001).mean():.0%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
