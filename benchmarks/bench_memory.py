"""Memory and time of every step of the lifecycle on ten million rows, each in a process of its own.

    python benchmarks/bench_memory.py [--rows 10000000] [--only validate,drift] [--folder DIR]

Ten columns: id, time, two floats, a float with gaps, an integer, two texts of 12 and 400 values, one of a million, a
target with a little signal. Each step makes the library calls that its operator makes, on a store on
disk; Airflow itself is not loaded. Printed are, in MB, the peak of the process's resident memory (``VmHWM``), what its
imports take of it, and the difference; and seconds by the clock.

``fit`` uses an estimator that learns nothing, so that its need is the package's own; ``fit: boosting`` shows that of
one that learns. The frame that either is given takes ``frame`` MB. ``score`` of evaluation holds the rows of the
holdout, and ``performance`` ids, predictions and outcomes: they grow with the rows. So does ``validate``, by the column
of which an expectation asks the median.

Ends with 1 when a step of ``BOUNDED`` takes more than 1 GB in all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT = 1000  # MB
PIPELINE = "bench_memory"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
START, END = "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"
EXPECTATIONS = [
    {"expect_table_row_count_to_be_between": {"min_value": 1000}},
    {"expect_column_values_to_be_unique": {"column": "id"}},
    {"expect_column_values_to_not_be_null": {"column": "at"}},
    {"expect_column_values_to_be_between": {"column": "distance", "min_value": 0, "max_value": 6000, "mostly": 0.99}},
    {"expect_column_values_to_be_between": {"column": "speed", "min_value": -5, "max_value": 5}},
    {"expect_column_values_to_not_be_null": {"column": "gaps", "mostly": 0.9}},
    {"expect_column_mean_to_be_between": {"column": "speed", "min_value": -1, "max_value": 1}},
    {"expect_column_stdev_to_be_between": {"column": "speed", "min_value": 0.5, "max_value": 2}},
    {"expect_column_max_to_be_between": {"column": "stops", "min_value": 1, "max_value": 9}},
    {"expect_column_values_to_be_in_set": {"column": "carrier", "value_set": [f"carrier-{i:02d}" for i in range(12)]}},
    {"expect_column_unique_value_count_to_be_between": {"column": "route", "min_value": 10, "max_value": 1000}},
    {"expect_column_values_to_match_regex": {"column": "ticket", "regex": "^t[0-9]{9}$"}},
    {"expect_column_value_lengths_to_equal": {"column": "ticket", "value": 10}},
    {"expect_column_values_to_be_of_type": {"column": "distance", "type_": "float64"}},
    {"expect_column_median_to_be_between": {"column": "distance", "min_value": 100, "max_value": 5000}},
]
VALIDATE = {"expectations": EXPECTATIONS, "on_failure": "quarantine"}
DATA = {"target": "y", "positive": 1, "id": "id", "timestamp": "at", "split": {"by": "random", "test": 0.2}}
EVALUATE = {"metrics": ["roc_auc", "log_loss"], "gates": [{"metric": "roc_auc", "at_least": 0.45}]}
ESTIMATORS = {
    "fit": ("sklearn.dummy.DummyClassifier", {}),
    "fit: boosting": ("sklearn.ensemble.HistGradientBoostingClassifier", {"max_iter": 10}),
}


def make_data(folder: Path, rows: int) -> None:
    """Write ``rows.parquet`` and ``outcomes.parquet``, a part of the rows at a time."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(7)
    start, step = np.datetime64(START[:-1], "us"), np.timedelta64(30 * 86_400_000_000 // rows, "us")
    writers: dict[str, pq.ParquetWriter] = {}
    for first in range(0, rows, 500_000):
        n = min(500_000, rows - first)
        ids = np.arange(first, first + n)
        speed, distance = rng.normal(size=n), rng.gamma(2, 500, n)
        gaps = np.where(rng.random(n) < 0.05, np.nan, rng.normal(size=n))
        route = rng.integers(0, 400, n)
        y = (rng.random(n) < 1 / (1 + np.exp(1.5 - 0.5 * speed - (route % 7 == 0)))).astype("int64")
        frame = pd.DataFrame(
            {
                "id": ids,
                "at": start + ids * step,
                "distance": distance,
                "speed": speed,
                "gaps": gaps,
                "stops": rng.integers(0, 9, n),
                "carrier": [f"carrier-{i:02d}" for i in rng.integers(0, 12, n)],
                "route": [f"route-{i:03d}" for i in route],
                # One in ten million does not fit, so that there is something to set aside.
                "ticket": [f"t{i:09d}" if i else "none" for i in rng.integers(0, 1_000_000, n)],
                "y": y,
            }
        )
        for name, part in (("rows", frame), ("outcomes", frame[["id", "y"]])):
            table = pa.Table.from_pandas(part, preserve_index=False)
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", table.schema)
            writers[name].write_table(table)
    for writer in writers.values():
        writer.close()


# --- the steps -------------------------------------------------------------------------------------


class Bench:
    """What the steps have in common, read from the folder, as each is a process of its own."""

    def __init__(self, folder: Path) -> None:
        from airflow_mlops.config.models import Data, Evaluate, Validate
        from airflow_mlops.ml.files import Files
        from airflow_mlops.registry.registry import Registry
        from airflow_mlops.store import LocalStore
        from airflow_mlops.window import Window

        self.folder = folder
        self.store = LocalStore(str(folder / "store"))
        self.files = Files(root=str(folder))
        self.data = Data.model_validate({**DATA, "source": "rows.parquet"})
        self.validate = Validate.model_validate(VALIDATE)
        self.evaluate = Evaluate.model_validate(EVALUATE)
        self.window = Window.of(START, END)
        self.registry = Registry(self.store, PIPELINE)

    def keep(self, name: str, value: Any) -> None:
        """Keep plain JSON for later steps."""
        (self.folder / f"{name}.json").write_text(json.dumps(value))

    def kept(self, name: str) -> Any:
        """What an earlier step has kept."""
        return json.loads((self.folder / f"{name}.json").read_text())

    def version(self) -> Any:
        """The newest version of the registry."""
        return self.registry.get(max(v.number for v in self.registry.versions()))

    def capture(self) -> dict[str, Any]:
        """The window's capture."""
        from airflow_mlops.ml.prediction import find_capture

        return find_capture(self.store, PIPELINE, self.window)


def snapshot(b: Bench) -> str:
    """``data.snapshot``."""
    from airflow_mlops.ml.data import read_batches, take_snapshot

    batches = read_batches(b.data, files=b.files, window=b.window)
    b.keep("snapshot", take_snapshot(b.store, PIPELINE, batches, data=b.data, window=b.window).to_ref())
    return ""


def profile(b: Bench) -> str:
    """``data.profile``."""
    from airflow_mlops.ml.data import Snapshot
    from airflow_mlops.ml.profile import profile as describe
    from airflow_mlops.ml.profile import profile_html

    profile_html(describe(Snapshot.load(b.store, b.kept("snapshot")), b.store, target="y"))
    return ""


def validate(b: Bench) -> str:
    """``validate.expectations``, with a quarantine."""
    from airflow_mlops.ml.data import Snapshot
    from airflow_mlops.ml.validation import validate as check

    result = check(Snapshot.load(b.store, b.kept("snapshot")), b.store, b.validate, b.data)
    result.check()
    b.keep("validated", result.snapshot.to_ref())
    return result.sentence


def split(b: Bench) -> str:
    """Which rows are held out, as training and evaluation ask."""
    from airflow_mlops.ml.data import Snapshot
    from airflow_mlops.ml.splitting import snapshot_mask

    mask = snapshot_mask(Snapshot.load(b.store, b.kept("validated")), b.store, b.data, 7)
    return f"{mask.sum():,} rows held out"


def partition(b: Bench) -> str:
    """``fleet.partition``, for two slots."""
    from airflow_mlops.config.models import Fleet, Train
    from airflow_mlops.ml.fleet.begin import FleetSettings, begin_fleet

    train = Train.model_validate({"estimator": "sklearn.linear_model.LogisticRegression"})
    settings = FleetSettings(Fleet(key=["carrier", "route"]), b.data, train, b.evaluate)
    plan = begin_fleet(
        b.store, b.registry, b.kept("validated"), settings,
        slots=2, due=None, absent_before={}, about={}, run={}, allowed_imports=[], signer=None, log=lambda *a: None,
    )  # fmt: skip
    return f"{plan.keys:,} keys in {len(plan.shards)} shards"


def fit(b: Bench, name: str = "fit") -> str:
    """``train.fit`` and the registration."""
    from airflow_mlops.config.models import Train
    from airflow_mlops.ml.candidate import train_candidate

    estimator, params = ESTIMATORS[name]
    record = train_candidate(
        b.store, b.kept("validated"), data=b.data,
        train_config=Train.model_validate({"estimator": estimator, "params": params}),
        features=None, metrics=b.evaluate.metrics, task=None, allowed_imports=[], trusted_types=[],
        log=lambda *a: None, pipeline=PIPELINE,
    )  # fmt: skip
    b.registry.register(record, op_id=name)
    return f"{record['rows']['train']:,} rows; {record['seconds']:.0f} s in the estimator"


def score(b: Bench) -> str:
    """``evaluate.score``, without a champion."""
    from airflow_mlops.ml.candidate_verdict import evaluate_candidate

    version = b.version()
    found = evaluate_candidate(
        b.store, version.record, None, data=b.data, config=b.evaluate, allowed_imports=[], trusted_types=[],
        log=lambda *a: None,
    )  # fmt: skip
    b.keep("evaluation", found)
    b.registry.annotate(version.number, "evaluation", found, op_id="evaluation")
    return f"roc_auc {found['metrics']['roc_auc']['candidate']:.3f} on {found['rows']:,} rows"


def gates(b: Bench) -> str:
    """``evaluate.gates``."""
    from airflow_mlops.ml.candidate_verdict import decide_candidate

    report, _ = decide_candidate(
        b.store, b.version(), b.kept("evaluation"), b.evaluate, trusted_types=[], log=lambda *a: None
    )
    return str(report["verdict"])


def predict(b: Bench) -> str:
    """Batch prediction with its capture."""
    from airflow_mlops.ml.batch_inference import score as predict_all

    found = predict_all(
        b.store, b.version(), data=b.data, source=None, output="predictions", name="bench", window=b.window,
        files=b.files, log=lambda *a: None, replay_rows=500,
    )  # fmt: skip
    return f"{found['rows']:,} rows"


def quality(b: Bench) -> str:
    """``monitor.quality``: the expectations on what was captured."""
    from airflow_mlops.ml.quality import quality as check

    return str(check(b.store, b.capture(), b.version(), b.validate, b.data)[0]["sentence"])


def drift(b: Bench) -> str:
    """``monitor.drift``: the profile that evaluation stored against the window's capture."""
    from airflow_mlops.config.models import Drift
    from airflow_mlops.ml.served_drift import drift as check

    return str(check(b.store, b.capture(), b.version(), Drift())[0]["sentence"])


def skew(b: Bench) -> str:
    """``monitor.skew``: the rows kept as they came, replayed."""
    from airflow_mlops.config.models import Skew
    from airflow_mlops.ml.served_skew import skew as check

    return str(check(b.store, b.capture(), b.version(), Skew(), data=b.data, files=b.files)[0]["sentence"])


def performance(b: Bench) -> str:
    """``monitor.performance``: outcomes joined to predictions."""
    from airflow_mlops.config.models import Labels, Performance
    from airflow_mlops.ml.outcomes import performance as check

    labels = Labels.model_validate({"source": "outcomes.parquet", "join_on": "id"})
    found = check(
        b.store, b.capture(), b.version(), data=b.data, labels=labels, config=Performance(), metrics=["roc_auc"],
        files=b.files, evaluate=b.evaluate,
    )  # fmt: skip
    return str(found["sentence"])


STEPS: dict[str, tuple[Callable[[Bench], str], tuple[str, ...]]] = {
    "snapshot": (snapshot, ("airflow_mlops.ml.data",)),
    "profile": (profile, ("airflow_mlops.ml.profile",)),
    "validate": (validate, ("airflow_mlops.ml.validation",)),
    "split": (split, ("airflow_mlops.ml.splitting", "airflow_mlops.ml.data")),
    "partition": (partition, ("airflow_mlops.ml.fleet.begin",)),
    "fit": (fit, ("airflow_mlops.ml.candidate",)),
    "fit: boosting": (lambda b: fit(b, "fit: boosting"), ("airflow_mlops.ml.candidate", "sklearn.ensemble")),
    "score": (score, ("airflow_mlops.ml.candidate_verdict", "sklearn.ensemble")),
    "gates": (gates, ("airflow_mlops.ml.candidate_verdict",)),
    "predict": (predict, ("airflow_mlops.ml.batch_inference", "sklearn.ensemble")),
    "quality": (quality, ("airflow_mlops.ml.quality",)),
    "drift": (drift, ("airflow_mlops.ml.served_drift",)),
    "skew": (skew, ("airflow_mlops.ml.served_skew",)),
    "performance": (performance, ("airflow_mlops.ml.outcomes",)),
}
"""Step → what it does, and the modules whose import is counted apart."""
BOUNDED = ("snapshot", "profile", "validate", "split", "partition", "predict", "quality", "drift", "skew")


# --- measuring -------------------------------------------------------------------------------------


def memory(field: str) -> float:
    """Resident memory of this process in MB: ``VmRSS``, or ``VmHWM``, its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:"))


def measure(name: str, folder: Path) -> None:
    """Do one step in this process and print what it took as JSON."""
    import importlib

    step, modules = STEPS[name]
    for module in modules:
        importlib.import_module(module)
    bench = Bench(folder)
    floor, began = memory("VmRSS"), time.monotonic()
    said = step(bench)
    took = time.monotonic() - began
    print(json.dumps({"floor": floor, "peak": memory("VmHWM"), "seconds": took, "said": said}))


def main() -> int:
    """Print the table; returns 1 where a bounded step takes more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the made-up data (default: 10,000,000)")
    parser.add_argument(
        "--only", default="", help="some of the steps, by commas; the folder must hold the earlier ones"
    )
    parser.add_argument("--folder", type=Path, help="keep data, store and results here (default: a temporary folder)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        measure(given.step, given.folder)
        return 0
    with tempfile.TemporaryDirectory(prefix="mlops-memory-") as scratch:
        return table(given.folder or Path(scratch), given.rows, [n for n in given.only.split(",") if n] or [*STEPS])


def table(folder: Path, rows: int, names: list[str]) -> int:
    """Run the steps one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "rows.parquet").exists():
        make_data(folder, rows)
    size = (folder / "rows.parquet").stat().st_size / 1e6
    print(f"{rows:,} rows × 10 columns, {size:,.0f} MB of Parquet; limit {LIMIT:,} MB for {', '.join(BOUNDED)}\n")
    print(f"{'step':14} {'peak MB':>8} {'imports':>8} {'added':>8} {'s':>7}")
    missed = False
    for name in names:
        command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
        done = subprocess.run(command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:14} failed with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
            missed |= name in BOUNDED
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        over = name in BOUNDED and found["peak"] > LIMIT
        missed |= over
        added = found["peak"] - found["floor"]
        print(
            f"{name:14} {found['peak']:8,.0f} {found['floor']:8,.0f} {added:8,.0f} {found['seconds']:7.1f}"
            f"  {'MISSED  ' if over else ''}{found['said'][:100]}",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
