"""How sure a score, or the difference of two models' scores on the same rows, is.

One estimate per metric, by the sharpest method that fits it:

* ROC AUC: DeLong's structural components, ties exact, one sort a model.
* means over rows (accuracy, log loss, Brier, squared and absolute error): paired per-row differences, Student's t.
* RMSE, R², macro one-vs-rest ROC AUC: the same on their influence functions (delta method).
* other metrics of predicted classes: multinomial bootstrap of the table (truth × candidate × champion).
* everything else: paired bootstrap of rows, m out of n on large holdouts.

References: DeLong, DeLong & Clarke-Pearson (1988), *Biometrics* 44, 837-845; Sun & Xu (2014), *IEEE
Signal Processing Letters* 21, 1389-1393 (the sort-based form); Bickel, Götze & van Zwet (1997),
*Statistica Sinica* 7, 1-31 (m out of n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.metrics import Metric, Predictions

BOOTSTRAP_ROWS = 10_000
BOOTSTRAP_DRAWS = 500


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of scores (positive = candidate better), and how sure it is.

    :param value: on all rows.
    :param rows: how many rows it stands on.
    :param se: standard error, for the t interval; ``None`` when ``deviations`` are given.
    :param dof: degrees of freedom of the t interval.
    :param deviations: bootstrap deviations from ``value``, scaled to ``rows`` rows.
    :param silent_rows: set when two models that do differ scored the same everywhere they could differ: the
        interval then is what a share can be that was never seen in so many rows (the "rule of three").
    :param span: how far two models can be apart in such a row.
    """

    value: float
    rows: int
    method: str
    se: float | None = None
    dof: float = math.inf
    deviations: np.ndarray | None = None
    silent_rows: int | None = None
    span: float = 1.0

    def bounds(self, confidence: float) -> tuple[float, float] | None:
        """One-sided lower and one-sided upper bound, each at ``confidence``; ``None`` when unknown."""
        if self.silent_rows is not None:
            half = self.span * (1 - (1 - confidence) ** (1 / self.silent_rows))
            return self.value - half, self.value + half
        if self.deviations is not None:
            low, high = np.quantile(self.deviations, [1 - confidence, confidence])
            return self.value + float(low), self.value + float(high)
        if self.se is None or not math.isfinite(self.se):
            return None
        half = float(student.ppf(confidence, self.dof)) * self.se
        return self.value - half, self.value + half


def auc_components(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """ROC AUC and DeLong's structural components, one per row.

    :param positive: shape (n,), bool; both classes present.
    :param score: shape (n,), finite; higher means more likely positive.
    :return: the AUC, and shape (n,): for a positive row the share of negatives it beats, for a negative row the share
        of positives that beat it; a tie counts one half.
    """
    order = np.argsort(score, kind="stable")
    s, p = score[order], positive[order]
    start = np.flatnonzero(np.concatenate(([True], s[1:] != s[:-1])))
    size = np.diff(np.append(start, len(s)))
    pos = np.add.reduceat(p.astype(np.int64), start)
    neg = size - pos
    m, n = int(pos.sum()), int(neg.sum())
    wins = (np.cumsum(neg) - neg / 2) / n
    losses = (m - np.cumsum(pos) + pos / 2) / m
    components = np.empty(len(s))
    components[order] = np.where(p, np.repeat(wins, size), np.repeat(losses, size))
    return float(components[positive].mean()), components


def _delong(y: np.ndarray, candidate: np.ndarray, champion: np.ndarray | None) -> Estimate:
    positive = y == 1
    value, components = auc_components(positive, candidate)
    if champion is not None:
        other, theirs = auc_components(positive, champion)
        value, components = value - other, components - theirs
    m = int(positive.sum())
    n = len(y) - m
    if min(m, n) < 2:
        return Estimate(value, len(y), "DeLong")
    variance = components[positive].var(ddof=1) / m + components[~positive].var(ddof=1) / n
    # The rarer class rules how well the variance is known.
    return Estimate(value, len(y), "DeLong", se=math.sqrt(variance), dof=min(m, n) - 1)


def _influence(metric: Metric, y: np.ndarray, predictions: Predictions) -> np.ndarray | None:
    """Per-row values whose standard error is the score's; shape (n,), or ``None`` where not known."""
    rows = metric.row_scores(y, predictions)
    if rows is not None:
        return rows
    if metric.scorer_name == "roc_auc_ovr" and predictions.proba is not None:
        return _one_vs_rest_influence(y, predictions.proba)
    if metric.scorer_name not in ("neg_root_mean_squared_error", "r2") or predictions.labels is None:
        return None
    squared = (predictions.labels - y) ** 2
    mean = squared.mean()
    if metric.scorer_name == "r2":
        spread = (y - y.mean()) ** 2
        total = spread.mean()
        return -squared / total + mean * spread / total**2 if total > 0 else None
    return -squared / (2 * math.sqrt(mean)) if mean > 0 else np.zeros(len(y))


def _one_vs_rest_influence(y: np.ndarray, proba: np.ndarray) -> np.ndarray | None:
    """DeLong's components of each class against the rest, averaged over classes."""
    classes = proba.shape[1]
    if np.bincount(y, minlength=classes).min() < 2:
        return None
    total = np.zeros(len(y))
    for k in range(classes):
        positive = y == k
        auc, components = auc_components(positive, proba[:, k])
        total += (components - auc) / np.where(positive, positive.mean(), 1 - positive.mean())
    return total / classes


def estimate(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None = None,
    *,
    n_classes: int | None,
    seed: int = 0,
) -> Estimate:
    """Estimate the candidate's score or, with a champion, candidate minus champion on the same rows.

    :param y: shape (n,): class codes (two classes: 1 is positive) or numbers.
    :param n_classes: ``None`` for regression.
    :param seed: of the bootstrap; the same input gives the same estimate.
    :raises EvaluationError: when the metric cannot be computed, see :meth:`Metric.score`.
    """
    if metric.is_ranking and len(np.unique(y)) < 2:
        metric.score(y, candidate, n_classes=n_classes)  # raises with the reason
    result = _estimate(metric, y, candidate, champion, n_classes, seed)
    if champion is None or n_classes is None or candidate.same_as(champion):
        return result
    spread = result.se if result.deviations is None else float(np.ptp(result.deviations))
    if spread == 0:
        rarest = int(np.bincount(y, minlength=n_classes).min())
        rows = len(y) if metric.is_row_mean else max(rarest, 1)
        return Estimate(result.value, result.rows, "rule of three", silent_rows=rows)
    return result


def _estimate(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None,
    n_classes: int | None,
    seed: int,
) -> Estimate:
    if metric.scorer_name == "roc_auc" and candidate.ranking is not None:
        theirs = champion.ranking if champion is not None else None
        if champion is None or theirs is not None:
            return _delong(y, candidate.ranking, theirs)
    value = metric.score(y, candidate, n_classes=n_classes)
    influence = _influence(metric, y, candidate)
    if champion is not None:
        value -= metric.score(y, champion, n_classes=n_classes)
        other = _influence(metric, y, champion)
        influence = None if influence is None or other is None else influence - other
    if influence is not None:
        n = len(y)
        se = float(influence.std(ddof=1)) / math.sqrt(n) if n > 1 else None
        method = "paired t" if metric.is_row_mean else "delta method"
        return Estimate(value, n, method, se=se, dof=max(n - 1, 1))
    if metric.needs_labels and n_classes is not None:
        return _table_bootstrap(metric, y, candidate, champion, n_classes, value, seed)
    return _row_bootstrap(metric, y, candidate, champion, n_classes, value, seed)


def _table_bootstrap(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None,
    n_classes: int,
    value: float,
    seed: int,
) -> Estimate:
    """Resampling rows is resampling the counts of the few different rows there are: no cap is needed."""
    said = [p.labels for p in (candidate, champion) if p is not None and p.labels is not None]
    cells, counts = np.unique(np.column_stack([y, *said]), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(y), counts / len(y), size=BOOTSTRAP_DRAWS)
    values = []
    for weight in draws:
        seen = weight > 0
        row = cells[seen]
        try:
            scores = [
                metric.score(row[:, 0], Predictions(labels=row[:, i]), n_classes=n_classes, weight=weight[seen])
                for i in range(1, row.shape[1])
            ]
        except EvaluationError:
            continue  # a resample without some class; counted below
        values.append(scores[0] - scores[1] if len(scores) == 2 else scores[0])
    return _from_draws(np.array(values), value, value, len(y), len(y))


def _row_bootstrap(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None,
    n_classes: int | None,
    value: float,
    seed: int,
) -> Estimate:
    rng = np.random.default_rng(seed)
    n, m = len(y), min(len(y), BOOTSTRAP_ROWS)
    base = rng.choice(n, size=m, replace=False) if m < n else np.arange(n)

    def score(rows: np.ndarray) -> float:
        mine = metric.score(y[rows], candidate.take(rows), n_classes=n_classes)
        return mine - metric.score(y[rows], champion.take(rows), n_classes=n_classes) if champion else mine

    values = []
    try:
        centre = score(base)
    except EvaluationError:
        return Estimate(value, n, "bootstrap")  # the sample lost a class: no interval, so no gate passes
    for _ in range(BOOTSTRAP_DRAWS):
        try:
            values.append(score(base[rng.integers(0, m, size=m)]))
        except EvaluationError:
            continue  # a resample without some class; counted below
    return _from_draws(np.array(values), centre, value, n, m)


def _from_draws(values: np.ndarray, centre: float, value: float, rows: int, drawn: int) -> Estimate:
    # Resamples that cannot be scored are not missing at random: with more than a few there is no interval.
    if len(values) < 0.99 * BOOTSTRAP_DRAWS:
        return Estimate(value, rows, "bootstrap")
    return Estimate(value, rows, "bootstrap", deviations=(values - centre) * math.sqrt(drawn / rows))
