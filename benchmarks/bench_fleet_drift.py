"""Drift of a fleet: how often a night without drift alarms, what is found, and how long it takes.

``python benchmarks/bench_fleet_drift.py [--nights 300] [--keys 2000] [--speed-keys 16000]``
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import pandas as pd
from scipy.stats import beta

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.fleet.drift import Stretch, check_fleet_drift

KINDS = {"a": "number", "b": "number", "ties": "number", "skewed": "number", "flag": "boolean", "kind": "category"}


def frame(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    a = rng.normal(size=rows)
    return pd.DataFrame(
        {
            "a": a,
            "b": 0.7 * a + rng.normal(size=rows),
            "ties": rng.poisson(1.5, rows).astype(float),
            "skewed": rng.lognormal(size=rows),
            "flag": (rng.random(rows) < 0.15).astype(float),
            "kind": np.array(["u", "v", "w", "x", "y"], dtype=object)[np.minimum(rng.geometric(0.45, rows) - 1, 4)],
        }
    )


def stretch(rng: np.random.Generator, keys: int, moved: int = 0, by: float = 1.0) -> Stretch:
    """``keys`` keys of about 200 reference and 40 current rows; in the first ``moved`` column ``a`` moved by σ."""
    sizes = rng.integers(100, 300, keys), rng.integers(30, 51, keys)
    starts = [np.concatenate([[0], np.cumsum(s)]) for s in sizes]
    current = frame(rng, int(sizes[1].sum()))
    current.iloc[: starts[1][moved], 0] += by
    names = [f"k{i:05d}" for i in range(keys)]
    return Stretch(names, [1] * keys, frame(rng, int(sizes[0].sum())), starts[0], current, starts[1], KINDS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nights", type=int, default=300)
    parser.add_argument("--keys", type=int, default=2000)
    parser.add_argument("--speed-keys", type=int, default=16_000)
    a = parser.parse_args()
    config = Drift()
    alarms = 0
    for night in range(a.nights):
        alarms += check_fleet_drift([stretch(np.random.default_rng([1, night]), a.keys)], config).verdict == "drift"
    high = beta.ppf(0.95, alarms + 1, a.nights - alarms) if alarms < a.nights else 1.0
    print(f"null: {alarms} of {a.nights} nights of {a.keys:,} keys alarm ({alarms / a.nights:.1%}, 95 % sure: at most "
          f"{high:.1%}); alpha {config.alpha:.0%}", flush=True)  # fmt: skip
    moved = max(1, a.keys // 100)
    for by in (0.5, 1.0, 1.5, 2.0):
        found, wrong = [], []
        for night in range(10):
            drifted = check_fleet_drift([stretch(np.random.default_rng([2, night]), a.keys, moved, by)], config).drifted
            right = sum(int(key[1:]) < moved for key in drifted)
            found.append(right / moved)
            wrong.append((len(drifted) - right) / max(len(drifted), 1))
        print(f"power: 1 % of keys moved by {by} σ: {np.mean(found):.0%} found, {np.mean(wrong):.1%} of alarms false",
              flush=True)  # fmt: skip
    if a.speed_keys:
        one = stretch(np.random.default_rng(3), a.speed_keys)
        began = time.perf_counter()
        result = check_fleet_drift([one], config)
        seconds, peak = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"speed: {a.speed_keys:,} keys, {len(result.tests):,} tests in {seconds:.1f} s; peak memory {peak:.2f} GB"
        )


if __name__ == "__main__":
    main()
