"""How good are predictions whose outcomes are not known yet? An estimate from the model's own probabilities.

A probability that is calibrated says how often its row turns out positive. So each row stands for every class, with
the class's probability as its weight, and any metric of scikit-learn that takes weights is computed on these rows: the
expected confusion table for accuracy and the like, the expected share of ordered pairs for ROC AUC. Probabilities are
calibrated on the holdout of the version's evaluation first: by isotonic regression from 5,000 rows on, by a logistic
curve (Platt) below.

**It cannot see concept drift**: where the same inputs lead to other outcomes than in training, the probabilities are
wrong and so is the estimate. It sees what a shift of the inputs does to a model that goes on being calibrated.

References: NannyML's confidence-based performance estimation (CBPE), described by Białek et al. (2024), "Estimating
model performance under covariate shift without labels", arXiv:2401.08348; Platt (1999); Niculescu-Mizil & Caruana
(2005), "Predicting good probabilities with supervised learning", ICML 625-632 (when which calibration).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.metrics import Metric, Predictions

ISOTONIC_ROWS = 5000
"""With fewer rows steps fit the holdout too well: on 1,200 rows of three classes the estimate came out too good."""
MOST_ROWS = 20_000
DRAWS = 40
_CLIP = 1e-6

Calibration = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimated:
    """A metric as people read it, estimated; ``low`` and ``high`` are where it would lie with 95 % confidence.

    :param rows: predictions that the estimate stands on.
    :param calibrated_on: holdout rows that the probabilities were calibrated on.
    """

    metric: str
    value: float
    low: float
    high: float
    rows: int
    calibrated_on: int
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self)


def estimate_performance(
    metric: str, predictions: Predictions, holdout_y: np.ndarray, holdout: Predictions, *, seed: int = 7
) -> Estimated:
    """Estimate ``metric`` of ``predictions`` without their outcomes.

    The interval counts what is not known of the outcomes and of the calibration (redrawn outcomes, resampled holdout);
    not what concept drift does.

    :param predictions: what was said about rows without outcomes; of more than 20,000 a seeded sample counts.
    :param holdout_y: shape (n,): class codes of the holdout.
    :param holdout: what the same model said about the holdout.
    :raises EvaluationError: there are no probabilities, no rows, a class is missing in the holdout, or the metric takes
        no weights.
    """
    scorer = Metric(metric)
    if predictions.proba is None or holdout.proba is None:
        raise EvaluationError(
            f"{metric!r} cannot be estimated without outcomes: the model gives no probabilities",
            hint="use an estimator with predict_proba, or set monitor.performance.estimate: false",
        )
    said, known = predictions.proba, holdout.proba
    classes = known.shape[1]
    scorer.check_task("classification", classes)
    if not len(said) or len(np.unique(holdout_y)) < classes:
        raise EvaluationError(f"{metric!r} cannot be estimated: no rows, or a class that the holdout does not have")
    random = np.random.default_rng(seed)
    if len(said) > MOST_ROWS:
        predictions = predictions.take(np.sort(random.choice(len(said), MOST_ROWS, replace=False)))
        said = predictions.proba if predictions.proba is not None else said
    chances = _calibrate(known, holdout_y)(said)
    value = _expected(scorer, predictions, chances)
    redrawn = []
    for _ in range(DRAWS):
        rows = random.integers(0, len(holdout_y), len(holdout_y))
        if len(np.unique(holdout_y[rows])) < classes:
            continue
        again = _calibrate(known[rows], holdout_y[rows])(said)
        y = (again.cumsum(axis=1) < random.random((len(again), 1))).sum(axis=1).clip(0, classes - 1)
        if len(np.unique(y)) == classes:
            redrawn.append(scorer.score(y, predictions, n_classes=classes))
    if len(redrawn) < DRAWS // 2:
        raise EvaluationError(f"{metric!r} cannot be estimated: {len(said):,} rows are too few to say how sure it is")
    half = 1.96 * float(np.std(redrawn, ddof=1))
    low, high = sorted(scorer.printed(scorer.limited(v)) for v in (value - half, value + half))
    told = scorer.printed(value)
    sentence = (
        f"estimated without outcomes: {metric} {told:.4g} ({low:.4g} … {high:.4g}) on {len(said):,} rows, by the "
        "model's own calibrated probabilities, which cannot see concept drift"
    )
    return Estimated(metric, told, low, high, len(said), len(holdout_y), sentence)


def _expected(scorer: Metric, predictions: Predictions, chances: np.ndarray) -> float:
    """The metric with every row once for each class, weighted by the chance of it."""
    rows, classes = chances.shape
    every = np.tile(np.arange(rows), classes)
    y = np.repeat(np.arange(classes), rows)
    return scorer.score(y, predictions.take(every), n_classes=classes, weight=chances.T.ravel())


def _calibrate(proba: np.ndarray, y: np.ndarray) -> Calibration:
    """Learn, class against the rest, how often a probability is right; returns (n, classes) → (n, classes)."""
    classes = proba.shape[1]
    # Of two classes one says it all.
    columns = [1] if classes == 2 else [*range(classes)]
    curves = [_curve(proba[:, k], y == k) for k in columns]

    def calibrated(said: np.ndarray) -> np.ndarray:
        found = np.column_stack([curve(said[:, k]) for k, curve in zip(columns, curves, strict=True)])
        if classes == 2:
            return np.column_stack([1 - found[:, 0], found[:, 0]])
        found = found.clip(_CLIP)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    return calibrated


def _curve(proba: np.ndarray, hit: np.ndarray) -> Calibration:
    if len(proba) >= ISOTONIC_ROWS:
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(proba, hit.astype(float))
        return lambda said: np.asarray(curve.predict(said))
    fitted = LogisticRegression(C=1e6).fit(_logit(proba), hit)
    return lambda said: np.asarray(fitted.predict_proba(_logit(said))[:, 1])


def _logit(proba: np.ndarray) -> np.ndarray:
    clipped = np.clip(proba, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)).reshape(-1, 1))
