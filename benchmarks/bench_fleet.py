"""What a fleet costs beside a bare loop of the same fits and scores on the same cores: time, memory, bytes kept.

    python benchmarks/bench_fleet.py
    python benchmarks/bench_fleet.py --keys 2000 --estimators ridge

Made-up rows, 200 a key, six numbers each. The bare loop is joblib's, over arrays that lie in memory by key: it fits the
estimator on the training rows of a key and scores it on the others by r2, nothing else; it also fits the model of all
rows, on as many of them as the fleet does. The fleet does what its DAG's tasks do, without Airflow: read the snapshot,
divide it by key, train in shards (as many at a time as there are cores), judge by a gate, register, write verdicts,
promote. Throughput is keys a second by the clock; both sides are run on the same cores, one after the other.

Exit code 1 when the fleet has less than 0.35 of the bare loop's throughput with ridge (a fit of half a millisecond), or
0.8 with a forest (10 ms and more); when a process takes more than 2 GB; when the store grows by more than three times
the bytes of the pickled models; or when a champion is not found within 20 ms.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before scikit-learn starts its threads

import argparse
import pickle
import resource
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from airflow_mlops.config.models import Data, Evaluate, Fleet, Train
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.begin import FleetSettings, begin_fleet
from airflow_mlops.ml.fleet.partition import PARENT_ROWS
from airflow_mlops.ml.fleet.plan import Plan
from airflow_mlops.ml.fleet.shard import Trust, train_shard
from airflow_mlops.ml.fleet.verdict import collect, judge, note_verdicts, promote_rows
from airflow_mlops.ml.snapshot import take_snapshot
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

ROWS, COLUMNS = 200, [f"x{i}" for i in range(6)]
ESTIMATORS: dict[str, tuple[str, dict[str, Any], float]] = {
    "ridge": ("sklearn.linear_model.Ridge", {}, 0.35),
    "forest": ("sklearn.ensemble.RandomForestRegressor", {"n_estimators": 12, "max_depth": 4}, 0.8),
}
"""Name → (estimator, parameters, least share of the bare loop's throughput)."""
MEMORY_MB, GROWTH, LOOKUP_MS = 2000, 3.0, 20.0
EVALUATE = Evaluate.model_validate({"metrics": ["r2"], "gates": [{"metric": "r2", "at_least": 0.3}]})
CORES = len(os.sched_getaffinity(0))


def build(name: str) -> BaseEstimator:
    params = ESTIMATORS[name][1]
    return Ridge() if name == "ridge" else RandomForestRegressor(random_state=7, **params)


def make_rows(keys: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = keys * ROWS
    frame = pd.DataFrame(rng.normal(size=(n, len(COLUMNS))), columns=COLUMNS)
    frame["late"] = frame[COLUMNS].sum(axis=1) + rng.normal(size=n)
    frame["route"] = np.repeat([f"r{i:05d}" for i in range(keys)], ROWS)
    frame["id"] = np.arange(n)
    return frame


def bare_part(name: str, inputs: np.ndarray, y: np.ndarray) -> tuple[list[float], int]:
    scores, size, fitted = [], 0, ROWS * 4 // 5
    for start in range(0, len(y), ROWS):
        rows, target = inputs[start : start + ROWS], y[start : start + ROWS]
        model = build(name).fit(rows[:fitted], target[:fitted])
        scores.append(r2_score(target[fitted:], model.predict(rows[fitted:])))
        size += len(pickle.dumps(model)) if start % (ROWS * 50) == 0 else 0
    return scores, size


def bare_parent(name: str, inputs: np.ndarray, y: np.ndarray) -> float:
    fitted = len(y) * 4 // 5
    model = build(name).fit(inputs[:fitted], y[:fitted])
    return float(r2_score(y[fitted:], model.predict(inputs[fitted:])))


def bare(name: str, frame: pd.DataFrame) -> tuple[float, float]:
    """Seconds of the bare loop, and bytes of a pickled model."""
    inputs, y = frame[COLUMNS].to_numpy(), frame["late"].to_numpy()
    parts = np.array_split(np.arange(len(y) // ROWS), CORES * 4)
    pool = Parallel(n_jobs=CORES)
    pool(delayed(bare_part)(name, inputs[:ROWS], y[:ROWS]) for _ in range(CORES))  # the workers are there
    started = time.perf_counter()
    cut = [slice(p[0] * ROWS, (p[-1] + 1) * ROWS) for p in parts if len(p)]
    parent = delayed(bare_parent)(name, inputs[:PARENT_ROWS], y[:PARENT_ROWS])
    _, *found = pool([parent, *(delayed(bare_part)(name, inputs[c], y[c]) for c in cut)])
    seconds = time.perf_counter() - started
    sizes = sum(size for _, size in found) / sum(-(-len(scores) // 50) for scores, _ in found)
    return seconds, sizes


def shard(root: str, plan: str, number: int, data: dict[str, Any]) -> float:
    store = LocalStore(Path(root))
    train_shard(
        store,
        Registry(store, "routes"),
        Plan.load(store, plan),
        number,
        run=op_id("run"),
        evaluate=EVALUATE,
        data=Data.model_validate(data),
        trust=Trust(),
        processes=1,
        op_id=op_id("register", number),
        log=lambda *words: None,
    )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def fleet(name: str, lake: Path, root: Path, pool: ProcessPoolExecutor) -> dict[str, float]:
    path, params, _ = ESTIMATORS[name]
    given = {"source": str(lake / "rows.parquet"), "target": "late", "id": "id"}
    data, store = Data.model_validate(given), LocalStore(root)
    registry = Registry(store, "routes")
    settings = FleetSettings(Fleet(key="route"), data, Train(estimator=path, params=params), EVALUATE)
    batches = read_batches(data, files=Files(str(lake)), window=None)
    snapshot = take_snapshot(store, "routes", batches, data=data, window=None)
    before = size_of(root)
    started = time.perf_counter()
    plan = begin_fleet(
        store, registry, snapshot.to_ref(), settings, slots=CORES, due=None, absent_before={}, about={}, run={},
        allowed_imports=(), signer=None, log=lambda *words: None,
    )  # fmt: skip
    begun = time.perf_counter() - started
    numbers = range(len(plan.shards))
    memory = max(
        pool.map(shard, [str(root)] * len(numbers), [plan.digest] * len(numbers), numbers, [given] * len(numbers))
    )
    trained = time.perf_counter() - started - begun
    verdicts = judge(collect(store, plan, op_id("run")), EVALUATE, plan.wear)
    note_verdicts(registry, verdicts.rows, operation=op_id("note"))
    going, _ = verdicts.deliverable(EVALUATE, "asked")
    done, _ = promote_rows(registry, going, operation=op_id("promote"), reason="passed", by=None, window=None)
    seconds = time.perf_counter() - started
    divided = sum((root / "blobs" / s.rows[:2] / s.rows).stat().st_size for s in plan.shards)
    looks = []
    for key in sorted(done)[:: max(len(done) // 20, 1)]:
        looked = time.perf_counter()
        assert Registry(store, "routes").champion(key) is not None
        looks.append(1e3 * (time.perf_counter() - looked))
    return {
        "seconds": seconds,
        "begun": begun,
        "trained": trained,
        "memory": memory,
        "growth": size_of(root) - before - divided,
        "promoted": len(done),
        "shards": len(plan.shards),
        "lookup": statistics.median(looks),
    }


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=16_000, help="keys with ridge; forests have a quarter of them")
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=[*ESTIMATORS])
    args = parser.parse_args()
    missed = []
    print(f"{CORES} cores, {ROWS} rows a key")
    for name in args.estimators:
        keys = args.keys if name == "ridge" else max(args.keys // 4, 1)
        least = ESTIMATORS[name][2]
        with tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder:
            lake, root = Path(folder, "lake"), Path(folder, "store")
            lake.mkdir()
            frame = make_rows(keys)
            frame.sample(frac=1, random_state=0).to_parquet(lake / "rows.parquet")
            alone, pickled = bare(name, frame)
            del frame
            with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
                [*pool.map(abs, range(CORES))]
                found = fleet(name, lake, root, pool)
        ratio, growth = alone / found["seconds"], found["growth"] / (pickled * keys)
        print(
            f"{name}: {keys:,} keys, {found['promoted']:,.0f} promoted, {found['shards']:.0f} shards\n"
            f"  bare loop {alone:.1f} s ({1e3 * alone * CORES / keys:.2f} ms of a core a key), fleet "
            f"{found['seconds']:.1f} s (divide {found['begun']:.1f}, train {found['trained']:.1f}): {ratio:.2f} of its "
            f"throughput (least {least})\n"
            f"  memory of a shard's process {found['memory']:.0f} MB (most {MEMORY_MB}); the store grew by "
            f"{found['growth'] / keys:.0f} bytes a key, {growth:.2f} times the pickled model (most {GROWTH:g}); a "
            f"champion is found in {found['lookup']:.1f} ms (most {LOOKUP_MS:g})",
            flush=True,
        )
        missed += [f"{name}: throughput"] if ratio < least else []
        missed += [f"{name}: memory"] if found["memory"] > MEMORY_MB else []
        missed += [f"{name}: growth"] if growth > GROWTH else []
        missed += [f"{name}: lookup"] if found["lookup"] > LOOKUP_MS else []
    print("missed: " + ", ".join(missed) if missed else "all targets hold")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
