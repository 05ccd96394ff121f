"""How often the checks of what is served are wrong where nothing is, and what they find where something is.

    python benchmarks/bench_monitoring.py [--runs 2000]

1. **Feature skew**: ten features, each of which differs in exactly ``max_share`` of all rows, by chance; then one that
   differs in five times as many.
2. **Performance**: a model that has not changed, judged on 1,000 outcomes against its value on a holdout of 200, 1,000
   and 5,000 rows, with ``max_drop`` next to nothing so that significance alone decides; then the same with the value
   at promotion taken as exact, which the check does not do.
3. **Feedback loop**: outcomes for three rows in ten, at random.
4. **Estimated performance**: how often the interval holds the value that comes true, with inputs as in training and
   moved by one and a half standard deviations; ``--runs`` / 20 times.
5. **System**: log-normal durations of one kind of run after twelve others.

Ends with 1 when an alarm is more frequent than its limit plus three standard errors, or an interval holds less often.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, roc_auc_score

from airflow_mlops.config.models import Performance, Skew, System
from airflow_mlops.ml.estimated_performance import estimate_performance
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import estimate
from airflow_mlops.ml.performance import check_performance
from airflow_mlops.ml.selective_labels import check_selection
from airflow_mlops.ml.skew import check_skew
from airflow_mlops.ml.system_metrics import check_figures

FEATURES = [f"f{i}" for i in range(10)]
SCHEMA = FeatureSchema((Feature("x", "number"),), "y", (0, 1), 1)

Row = tuple[str, float, int, float | None, bool]
"""What, share, of how many, limit (None: only told), whether the limit is one from below."""


def skewed(rows: int, shares: list[float], rng: np.random.Generator) -> bool:
    """One check of ten features that differ in these shares of rows."""
    ids = pd.Series(np.arange(rows))
    replayed = pd.DataFrame({name: np.ones(rows) for name in FEATURES})
    served = pd.DataFrame(
        {n: np.where(rng.random(rows) < share, 2.0, 1.0) for n, share in zip(FEATURES, shares, strict=True)}
    )
    report = check_skew(
        served, replayed, dict.fromkeys(FEATURES, "number"), Skew(), served_ids=ids, replayed_ids=ids
    )  # fmt: skip
    return report.verdict == "skew"


def answered(rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes and probabilities of a model with ROC AUC 0.76."""
    y = rng.integers(0, 2, rows)
    return y, 1 / (1 + np.exp(-(rng.normal(size=rows) + y - 0.5)))


def dropped(holdout: int, rng: np.random.Generator, *, exact: bool) -> bool:
    """One check of a model that is what it was."""
    then, p = answered(holdout, rng)
    found = estimate(Metric("roc_auc"), then, Predictions(proba=np.column_stack([1 - p, p])), n_classes=2)
    y, said = answered(1000, rng)
    report = check_performance(
        pd.DataFrame({"id": np.arange(1000), "prediction": (said > 0.5).astype(int), "probability": said}),
        pd.DataFrame({"id": np.arange(1000), "y": y}),
        metric="roc_auc", baseline=found.value, config=Performance(max_drop=1e-9), schema=SCHEMA, id_column="id",
        baseline_bounds=None if exact else found.bounds(0.975),
    )  # fmt: skip
    return report.verdict == "drop"


def warned(rng: np.random.Generator) -> bool:
    """One look at outcomes that come at random."""
    p = rng.beta(2, 4, 1000)
    frame = pd.DataFrame({"prediction": (p > 0.5).astype(int), "probability": p})
    return check_selection(frame, rng.random(1000) < 0.3, classes=True) is not None


def world(rows: int, shift: float, rng: np.random.Generator) -> tuple[np.ndarray, Predictions]:
    """Outcomes, and a model that is 1.7 times too sure of them."""
    x = rng.normal(shift, 1.2, rows)
    p = 1 / (1 + np.exp(-1.7 * (x - 0.5)))
    y = (rng.random(rows) < 1 / (1 + np.exp(-(x - 0.5)))).astype(int)
    return y, Predictions(labels=(p > 0.5).astype(int), proba=np.column_stack([1 - p, p]))


def held(metric: str, shift: float, rng: np.random.Generator) -> bool:
    """Whether one estimate's interval holds what comes true."""
    holdout, then = world(2000, 0.0, rng)
    y, said = world(1000, shift, rng)
    found = estimate_performance(metric, said, holdout, then, seed=int(rng.integers(2**31)))
    truth = accuracy_score(y, said.labels) if metric == "accuracy" else roc_auc_score(y, said.proba[:, 1])
    return bool(found.low <= truth <= found.high)


def slow(noise: float, rng: np.random.Generator) -> bool:
    """One run like twelve before it."""
    runs = [{"wall_seconds": float(s)} for s in 10 * np.exp(rng.normal(0, noise, 13))]
    return any(f.alarm for f in check_figures("prediction", runs[-1], runs[:-1], System()))


def share(once: Callable[[], bool], runs: int) -> float:
    """How often."""
    return sum(once() for _ in range(runs)) / runs


def table(runs: int, rng: np.random.Generator) -> Iterator[Row]:
    """All figures."""
    for rows in (100, 500, 5000):
        none, one = [0.01] * 10, [0.05] + [0.0] * 9
        yield f"skew: false alarm, {rows:,} rows", share(lambda: skewed(rows, none, rng), runs), runs, 0.05, False  # noqa: B023
        yield f"skew: 5 % of rows found, {rows:,} rows", share(lambda: skewed(rows, one, rng), runs), runs, None, True  # noqa: B023
    for holdout in (200, 1000, 5000):
        for exact in (False, True):
            what = f"performance: false alarm, holdout {holdout:,}" + (", taken as exact" if exact else "")
            found = share(lambda: dropped(holdout, rng, exact=exact), runs)  # noqa: B023
            yield what, found, runs, None if exact else 0.05, False
    yield "feedback loop: false warning", share(lambda: warned(rng), runs), runs, 0.01, False
    few = max(runs // 20, 10)
    for metric in ("accuracy", "roc_auc"):
        for shift in (0.0, 1.5):
            what = f"estimate of {metric} held, inputs moved by {shift:g}"
            yield what, share(lambda: held(metric, shift, rng), few), few, 0.95, True  # noqa: B023
    for noise in (0.05, 0.15, 0.3):
        what = f"system: false alarm, noise {noise:.0%}"
        yield what, share(lambda: slow(noise, rng), runs), runs, 0.01 if noise < 0.2 else None, False  # noqa: B023


def main() -> int:
    """Print the table; returns 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulations of each line (default: 2000)")
    runs, missed = parser.parse_args().runs, False
    for what, found, of, limit, from_below in table(runs, np.random.default_rng(7)):
        bad = False
        if limit is not None:
            margin = 3 * (limit * (1 - limit) / of) ** 0.5
            bad = found < limit - margin if from_below else found > limit + margin
        missed |= bad
        told = "" if limit is None else f"  {'at least' if from_below else 'at most'} {limit:.0%}"
        print(f"{what:52} {found:7.2%} of {of:,}{told}{'  MISSED' if bad else ''}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
