"""Drift of a fleet: how often a night without drift alarms, what is found, and how long it takes.

``python benchmarks/bench_fleet_drift.py [--nights 300] [--keys 2000] [--speed-keys 16000]``
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.stats import beta

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.fleet.drift import Stretch, check_fleet_drift
from airflow_mlops.ml.fleet.reference import keep_reference
from airflow_mlops.ml.fleet.served_drift import fleet_drift
from airflow_mlops.ml.prediction import CaptureWriter, to_arrow
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, get_json, layout
from airflow_mlops.window import Window

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


def stored(folder: str, keys: int, shard: int = 500) -> tuple[LocalStore, Registry, dict[str, object]]:
    """A store with champions, their references, and the capture of one night, in which ten keys moved by 2 σ."""
    store = LocalStore(folder)
    registry = Registry(store, "bench")
    schema = FeatureSchema(tuple(Feature(name, kind) for name, kind in KINDS.items()), target="y")
    window = Window.of("2026-01-01", "2026-01-02")
    spent, size = 0.0, 0
    with CaptureWriter(store, "bench", window, model_version=None) as capture:
        for first in range(0, keys, shard):
            one = stretch(np.random.default_rng([4, first]), min(shard, keys - first), 10 if first == 0 else 0, 2.0)
            names = [f"k{first + i:05d}" for i in range(len(one.keys))]
            sizes, now = np.diff(one.reference_starts), np.diff(one.current_starts)
            counts, began = dict(zip(names, sizes.tolist(), strict=True)), time.process_time()
            digest = keep_reference(store, one.reference, schema, counts)
            spent += time.process_time() - began
            size += store.stat(layout.blob(get_json(store, digest)["file"])).size
            records = {name: {"model": {"digest": "0" * 64}, "metrics": {}, "reference": digest} for name in names}
            registry.register_many(records, op_id=f"r{first}")
            registry.promote_many(dict.fromkeys(names, (1, None)), op_id=f"p{first}", reason="bench")
            of_row = pa.array(np.repeat(names, now))
            columns = {name: to_arrow(one.current[name], kind) for name, kind in KINDS.items()}
            rows = pa.table({"key": of_row, **columns, "model_key": of_row, "model_version": [1] * len(of_row)})
            for batch in rows.combine_chunks().to_batches():
                capture.write(batch)
    print(f"references of {keys:,} keys: {spent:.1f} CPU s in training, {size / 1e6:.0f} MB", flush=True)
    return store, registry, capture.ref


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
        print(f"tests alone: {a.speed_keys:,} keys, {len(result.tests):,} tests in {time.perf_counter() - began:.1f} s")
        del one, result
        with tempfile.TemporaryDirectory() as folder:
            store, registry, ref = stored(folder, a.speed_keys)
            began, spent = time.perf_counter(), time.process_time()
            found, _ = fleet_drift(store, registry, ref, config, log=lambda *_: None)
            took = f"{time.perf_counter() - began:.1f} s, {time.process_time() - spent:.1f} CPU s"
            print(f"the check: {found['keys']:,} keys, {found['rows']:,} rows from the store in {took}; "
                  f"{found['drifted_keys']} of 10 keys found", flush=True)  # fmt: skip
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory of all of this: {peak:.2f} GB")


if __name__ == "__main__":
    main()
