"""What an experiment costs beside scikit-learn's own search with the same budget, and how good its winner is.

    python benchmarks/bench_experiment.py
    python benchmarks/bench_experiment.py --runs 2 --rows 5000

Both sides search the same space of `HistGradientBoostingClassifier` on the same made-up rows, in one process on one
thread, in turns:

* random: `RandomizedSearchCV` tries the very combinations of the experiment, on the same rows, and scores them on the
  same validation rows.
* halving: `HalvingRandomSearchCV` and the experiment try 27 → 9 → 3 → 1 combinations with as many rows on each rung;
  each draws its own combinations and rows.

Both train the winner on all training rows; its score is that on a holdout that neither has seen. The experiment begins
with a snapshot in a store on disk and records every trial there, scikit-learn with arrays in memory. Exit code 1 when
the experiment takes more than 1.25 times the processor time of scikit-learn (halving, with its many small trials: 1.5),
or its winners are worse by more than two standard errors.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before scikit-learn starts its threads

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 - what it is there for
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import HalvingRandomSearchCV, PredefinedSplit, RandomizedSearchCV, ShuffleSplit

from airflow_mlops.config.models import Data, Experiment, Train
from airflow_mlops.ml.candidate import train_candidate
from airflow_mlops.ml.experiment import begin, finish, promoted, run, runner_of, settled_winner
from airflow_mlops.ml.experiment_models import ModelRunner
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.ml.splitting import split_mask
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.store import LocalStore

SPACE: dict[str, list[Any]] = {
    "learning_rate": [0.02, 0.05, 0.1, 0.2, 0.4],
    "max_leaf_nodes": [4, 8, 16, 32],
    "min_samples_leaf": [5, 20, 80],
    "l2_regularization": [0.0, 1.0, 10.0],
}
ITERATIONS, TRIALS, HALVED, FACTOR = 60, 16, 27, 3
DATA = Data.model_validate({"source": "made.parquet", "target": "y", "id": "id"})
TRAIN = Train.model_validate(
    {
        "estimator": "sklearn.ensemble.HistGradientBoostingClassifier",
        "params": {"max_iter": ITERATIONS, "early_stopping": False},
    }
)
LIMITS = {"random": 1.25, "halving": 1.5}


@dataclass
class Search:
    """One search: its processor seconds, and the score of its winner on the holdout."""

    cpu: float
    score: float


def made(rows: int, seed: int) -> pd.DataFrame:
    """Rows that boosting can learn, and not too easily."""
    x, y = make_classification(
        rows, 20, n_informative=8, n_redundant=4, n_clusters_per_class=4, class_sep=0.6, flip_y=0.1, random_state=seed
    )
    frame = pd.DataFrame(x, columns=[f"x{i:02d}" for i in range(20)])
    return frame.assign(y=y, id=np.arange(rows))


def timed(search: Callable[[], Callable[[pd.DataFrame], np.ndarray]], held: pd.DataFrame) -> Search:
    """Processor time of a search, and the score of what it returns."""
    began = time.process_time()
    predict = search()
    spent = time.process_time() - began
    return Search(spent, float(roc_auc_score(held["y"], predict(held))))


def ours(
    store: LocalStore, snapshot: dict[str, Any], config: Experiment
) -> Callable[[], Callable[[pd.DataFrame], np.ndarray]]:
    """The experiment, from the snapshot to the winner's model."""

    def search() -> Callable[[pd.DataFrame], np.ndarray]:
        records, plan = begin(
            store, "bench", config, rungs=config.rung_count, data=DATA, snapshot=snapshot, train=TRAIN
        )
        runner = runner_of(store, plan, data=DATA)
        for rung in plan["rungs"]:
            for number in promoted(records, plan, rung["number"]):
                run(records, plan, number, rung["number"], runner)
        result, _ = finish(records, plan)
        settled, features, _ = settled_winner(result)
        record = train_candidate(
            store, snapshot, data=DATA, train_config=settled, features=features, metrics=["roc_auc"], task=None,
            allowed_imports=(), trusted_types=(), log=lambda *_: None, pipeline="bench",
        )  # fmt: skip
        model, schema = fetch_model(store, record["model"]), FeatureSchema.from_dict(record["schema"])
        return lambda rows: model.predict_proba(schema.check(rows))[:, 1]

    return search


def theirs(search: Any, part: pd.DataFrame) -> Callable[[], Callable[[pd.DataFrame], np.ndarray]]:
    """scikit-learn's search, from the rows in memory to the winner's model."""
    columns = [c for c in part.columns if c.startswith("x")]

    def fit() -> Callable[[pd.DataFrame], np.ndarray]:
        found = search.fit(part[columns], part["y"])
        return lambda rows: found.predict_proba(rows[columns])[:, 1]

    return fit


def one_run(rows: int, seed: int, folder: str) -> dict[str, tuple[Search, Search]]:
    """Both strategies: what the experiment and what scikit-learn did."""
    frame, store = made(rows, seed), LocalStore(folder)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    (written,) = write_snapshots(
        store, "bench", [(b,) for b in table.to_batches()], table.schema, window=None, sources=[{"uri": "made"}]
    )
    snapshot = written.to_ref()
    held = split_mask(frame, DATA, TRAIN.seed)
    part, rest = frame[~held], frame[held]
    estimator = HistGradientBoostingClassifier(random_state=TRAIN.seed, **TRAIN.params)
    found = {}

    config = Experiment.model_validate({"n_trials": TRIALS, "space": SPACE, "seed": seed, "metric": "roc_auc"})
    # The same combinations, one grid each, and the same rows.
    _, plan = begin(store, "bench", config, rungs=1, data=DATA, snapshot=snapshot, train=TRAIN)
    grids = [{k: [v] for k, v in t["params"].items()} for t in plan["trials"]]
    runner = runner_of(store, plan, data=DATA)
    if not isinstance(runner, ModelRunner):
        raise TypeError("this is an experiment with models")
    scored = runner.validation_rows[~held]
    fold = PredefinedSplit(np.where(scored, 0, -1))
    searches = {
        "random": (
            ours(store, snapshot, config),
            theirs(
                RandomizedSearchCV(estimator, grids, n_iter=len(grids), scoring="roc_auc", cv=fold, random_state=seed),
                part,
            ),
        )
    }
    halving = {"factor": FACTOR, "min_resource": 1}
    config = Experiment.model_validate(
        {
            "strategy": "halving",
            "n_trials": HALVED,
            "halving": halving,
            "space": SPACE,
            "seed": seed,
            "metric": "roc_auc",
        }
    )
    searches["halving"] = (
        ours(store, snapshot, config),
        theirs(
            HalvingRandomSearchCV(
                estimator, SPACE, n_candidates=HALVED, factor=FACTOR, scoring="roc_auc", random_state=seed,
                min_resources=len(part) // HALVED, cv=ShuffleSplit(1, test_size=0.25, random_state=seed),
            ),
            part,
        ),
    )  # fmt: skip
    for name, sides in searches.items():
        # In turns, so that neither always begins.
        order = sides if seed % 2 else sides[::-1]
        results = [timed(side, rest) for side in order]
        found[name] = (results[0], results[1]) if seed % 2 else (results[1], results[0])
    return found


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--rows", type=int, default=20_000)
    options = parser.parse_args()
    runs = []
    for seed in range(1, options.runs + 1):
        with tempfile.TemporaryDirectory(prefix="mlops-bench-") as folder:
            runs.append(one_run(options.rows, seed, folder))
    print(f"{options.runs} runs on {options.rows:,} rows; {TRIALS} trials at random, {HALVED} halved; medians, means")
    print(f"{'':>8}  {'CPU s':>7}  {'sklearn':>7}  {'ratio':>6}  {'AUC':>7}  {'sklearn':>7}  {'difference':>18}")
    missed = False
    for name in ("random", "halving"):
        pairs = [found[name] for found in runs]
        mine, others = ([p[i] for p in pairs] for i in (0, 1))
        ratio = statistics.median(a.cpu / b.cpu for a, b in pairs)
        gains = [a.score - b.score for a, b in pairs]
        gain = statistics.mean(gains)
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
        missed |= ratio > LIMITS[name] or gain < -2 * error - 1e-9
        cpus = (statistics.median(s.cpu for s in side) for side in (mine, others))
        scores = (statistics.mean(s.score for s in side) for side in (mine, others))
        print(
            f"{name:>8}  {next(cpus):>7.2f}  {next(cpus):>7.2f}  {ratio:>6.3f}  {next(scores):>7.4f}  "
            f"{next(scores):>7.4f}  {gain:>+9.4f} ± {error:.4f}",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
