"""A fall of one key's score against the one at training: how large, and how likely without any.

Of the score at training only the number of rows is known that it stands on; its standard error is taken as that of so
many rows like the ones that are judged, which it is where nothing has changed. Losses are compared by their logarithm,
shares like the ROC AUC by that of their odds: there this holds best, and few rows are least skewed (delta method). A
share of right predictions is compared by Fisher's exact test.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.blocks import MIN_BLOCKS
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import Estimate, estimate
from airflow_mlops.ml.performance import said_of, truth_of
from airflow_mlops.registry.registry import Version


@dataclass(frozen=True)
class Judged:
    """The predictions of one key.

    :param value: the metric as people read it; ``baseline``: at training.
    :param fell: as a score, positive is worse.
    :param p_value: of a fall of 0 or less; 1 where the fall is too small to be an alarm.
    :param single: its rows count one by one, as their blocks are too few.
    """

    key: str
    version: int
    rows: int
    value: float
    baseline: float
    fell: float
    p_value: float
    single: bool = False


def fall_p_value(metric: Metric, found: Estimate, baseline: float, baseline_rows: int) -> float:
    """The p-value of no fall, one-sided.

    :param found: the score now. :param baseline: the score at training, higher is better, on so many rows.
    """
    if found.counts is not None and metric.scorer_name == "accuracy":
        right, rows = found.counts[0], found.counted
        before = round(baseline * baseline_rows)
        return float(hypergeom.cdf(right, rows + baseline_rows, right + before, rows))
    if found.se is None or not math.isfinite(found.se) or found.se == 0:
        return 1.0
    now, then = _badness(metric, found.value), _badness(metric, baseline)
    if now is None or then is None:
        now, then = _Badness(-found.value, -1.0, 0.0), _Badness(-baseline, -1.0, 0.0)
    ratio = found.rows / max(baseline_rows, 1)
    se = found.se * abs(now.slope)
    skew = -found.skew - 3 * found.se * now.bend / now.slope
    fall = Estimate(
        now.value - then.value,
        found.rows,
        found.method,
        se=se * math.sqrt(1 + ratio),
        # Where the few rows at hand happen to spread little, both standard errors are too small at once. Half of the
        # degrees of freedom keep the error rate also with long tails (benchmarks/bench_fleet_performance.py).
        dof=max(min(found.dof, baseline_rows - 1) / 2, 2),
        # Third cumulants add up; that of the score at training is not known, and may be of the worse sign.
        skew=-abs(skew) * (1 + ratio**2) / (1 + ratio) ** 1.5,
    )
    return fall.p_value(0.0)


@dataclass(frozen=True)
class _Badness:
    """A score as a number that grows with the error, on a scale on which its standard error hangs less on its value.

    :param slope: its derivative by the score, negative. :param bend: the second one.
    """

    value: float
    slope: float
    bend: float


def _badness(metric: Metric, score: float) -> _Badness | None:
    """Logarithm of a loss (of r2 the share that is not explained), or of the odds of a share; ``None``: it has none."""
    top = 0.0 if metric.lower_is_better else 1.0
    loss = top - score
    if loss <= 0:
        return None
    if metric.lower_is_better or metric.scorer_name in ("r2", "explained_variance", "d2_absolute_error_score"):
        return _Badness(math.log(loss), -1 / loss, -1 / loss**2)
    if score <= 0:
        return None
    spread = score * loss
    return _Badness(math.log(loss / score), -1 / spread, (1 - 2 * score) / spread**2)


def by_training(versions: Sequence[Version]) -> list[list[Version]]:
    """Versions of one training together: they have one schema."""
    found: dict[str, list[Version]] = defaultdict(list)
    for version in versions:
        found[version.record.get("of") or version.name].append(version)
    return [*found.values()]


def judge(
    metric: Metric,
    versions: Sequence[Version],
    predicted: pd.DataFrame,
    truth: pd.Series,
    places: Mapping[str, np.ndarray],
    codes: np.ndarray | None,
    max_drop: float,
) -> Iterator[Judged]:
    """Judge keys.

    :param predicted: rows as they were captured; ``truth``: their outcomes.
    :param places: by key, the numbers of its rows.
    :param codes: of each row its block; ``None``: each row is one.
    """
    for group in by_training(versions):
        schema = FeatureSchema.from_dict(group[0].record["schema"])
        rows = np.concatenate([places[str(version.key)] for version in group])
        y, n_classes = truth_of(truth.iloc[rows], schema)
        said = said_of(predicted.iloc[rows], schema)
        metric.check_task("regression" if n_classes is None else "classification", n_classes)
        at = 0
        for version in group:
            mine = slice(at, at := at + len(places[str(version.key)]))
            blocks = np.unique(codes[rows[mine]], return_inverse=True)[1] if codes is not None else None
            yield from _of_key(metric, version, y[mine], _part(said, mine), n_classes, blocks, max_drop)


def holdout_rows(version: Version) -> int | None:
    """How many rows its score at training stands on; None where its record does not say."""
    rows = version.record.get("rows")
    count = rows.get("holdout") if isinstance(rows, dict) else None
    return count if isinstance(count, int) else None


def _part(said: Predictions, rows: slice) -> Predictions:
    labels, proba, decision = (None if a is None else a[rows] for a in (said.labels, said.proba, said.decision))
    return Predictions(labels, proba, decision)


def _of_key(
    metric: Metric,
    version: Version,
    y: np.ndarray,
    said: Predictions,
    n_classes: int | None,
    blocks: np.ndarray | None,
    max_drop: float,
) -> Iterator[Judged]:
    if metric.is_ranking and (y == y[0]).all():
        return
    try:
        score = metric.score(y, said, n_classes=n_classes)
    except EvaluationError:
        return  # of these rows it says nothing, as of a single value r2 does
    before = metric.printed(version.metrics[metric.name])  # as a score: printing turns it around and back
    fell = before - score
    p_value = 1.0
    single = blocks is not None and int(blocks.max()) + 1 < MIN_BLOCKS
    if fell >= max_drop - 1e-12:
        found = estimate(metric, y, said, n_classes=n_classes, seed=7, blocks=None if single else blocks)
        p_value = fall_p_value(metric, found, before, holdout_rows(version) or 0)
    yield Judged(
        str(version.key), version.number, len(y), metric.printed(score), version.metrics[metric.name], fell, p_value,
        single,
    )  # fmt: skip
