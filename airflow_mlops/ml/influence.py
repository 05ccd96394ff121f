"""Influence values: how much each row moves a score, so that score and truth differ by about their mean.

A score that is no mean over rows is one to first order: value − truth ≈ mean of φ over independent rows. Its
standard error, skewness and dependence within blocks follow from φ, whatever the metric.

References: Hampel (1974), *JASA* 69, 383-393 (the influence function); Jaeckel (1972), *The infinitesimal jackknife*,
Bell Laboratories; DeLong, DeLong & Clarke-Pearson (1988), *Biometrics* 44, 837-845; Sun & Xu (2014), *IEEE Signal
Processing Letters* 21, 1389-1393 (DeLong by one sort).
"""

from __future__ import annotations

import math

import numpy as np

from airflow_mlops.ml.metrics import Metric, Predictions

MOST_CELLS = 1000
"""More different rows (truth × predicted classes) than this, and a metric is resampled instead."""


def auc_components(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """ROC AUC and DeLong's structural components, one per row.

    :param positive: shape (n,), bool; both classes present.
    :param score: shape (n,), finite; higher means more likely positive. Rows already in the order of their scores
        are sorted faster.
    :return: the AUC, and shape (n,): for a positive row the share of negatives it beats, for a negative row the share
        of positives that beat it; a tie counts one half.
    """
    order, ranked, _, size, pos = _ranked(positive, score)
    neg = size - pos
    m, n = int(pos.sum()), int(neg.sum())
    wins = (np.cumsum(neg) - neg / 2) / n
    losses = (m - np.cumsum(pos) + pos / 2) / m
    components = np.empty(len(score))
    components[order] = np.where(ranked, np.repeat(wins, size), np.repeat(losses, size))
    return float(components[positive].mean()), components


def _ranked(
    positive: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows by ascending score, and which of them are positive; first place, size and positives of equal scores."""
    order = np.argsort(score)  # in which order equal scores come makes no difference
    s, ranked = score[order], positive[order]
    start = np.flatnonzero(np.concatenate(([True], s[1:] != s[:-1])))
    size = np.diff(np.append(start, len(s)))
    return order, ranked, start, size, np.add.reduceat(ranked.astype(np.int64), start)


def auc_influence(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """ROC AUC and its influence values, shape (n,), whose variance is DeLong's unbiased one.

    :param positive: shape (n,), bool; at least two rows of each class.
    """
    value, components = auc_components(positive, score)
    n, m = len(score), int(positive.sum())
    scale = [n / k * math.sqrt(k / (k - 1)) for k in (n - m, m)]
    return value, (components - value) * np.where(positive, scale[1], scale[0])


def average_precision_influence(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """Average precision and its influence values, shape (n,): a row moves the precision at every lower score.

    :param positive: shape (n,), bool; at least one positive.
    """
    order, ranked, start, size, pos = _ranked(positive, score)
    n, m = len(score), int(pos.sum())
    above = n - start  # rows at this score or higher
    precision = (m - np.cumsum(pos) + pos) / above
    value = float((pos * precision).sum() / m)
    gained = precision - value + np.cumsum(pos * (1 - precision) / above)
    lost = -np.cumsum(pos * precision / above)
    found = np.empty(n)
    found[order] = np.where(ranked, np.repeat(gained, size), np.repeat(lost, size)) * (n / m)
    return value, found


def influence(
    metric: Metric, y: np.ndarray, predictions: Predictions, n_classes: int | None
) -> tuple[float, np.ndarray | None]:
    """One model's score, and its influence values, shape (n,), with mean zero; ``None`` where there is no formula.

    :param y: shape (n,): class codes, or numbers.
    :param n_classes: ``None`` for regression.
    :raises EvaluationError: when the metric cannot be computed, see :meth:`Metric.score`.
    """
    name, ranking = metric.scorer_name, predictions.ranking
    if name in _RANKINGS and n_classes == 2 and ranking is not None:
        positive = y == 1
        if min(np.count_nonzero(positive), np.count_nonzero(~positive)) >= 2:
            return _RANKINGS[name](positive, ranking)
    value = metric.score(y, predictions, n_classes=n_classes)
    rows = metric.row_scores(y, predictions)
    return value, rows - value if rows is not None else _formula(metric, y, predictions, n_classes)


_RANKINGS = {"roc_auc": auc_influence, "average_precision": average_precision_influence}


def _formula(metric: Metric, y: np.ndarray, predictions: Predictions, n_classes: int | None) -> np.ndarray | None:
    name, labels = metric.scorer_name, predictions.labels
    if name == "roc_auc_ovr" and predictions.proba is not None:
        return _one_vs_rest(y, predictions.proba)
    if name in ("neg_root_mean_squared_error", "r2") and labels is not None:
        return _of_squares(name, y, labels)
    if metric.needs_labels and n_classes is not None and labels is not None:
        return _of_table(metric, y, labels, n_classes)
    return None


def _of_squares(name: str, y: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    squared = (labels - y) ** 2
    mean = squared.mean()
    if name == "r2":
        spread = (y - y.mean()) ** 2
        total = spread.mean()
        return (mean * spread / total - squared) / total if total > 0 else None
    return (mean - squared) / (2 * math.sqrt(mean)) if mean > 0 else np.zeros(len(y))


def _one_vs_rest(y: np.ndarray, proba: np.ndarray) -> np.ndarray | None:
    """DeLong's components of each class against the rest, averaged over classes."""
    classes = proba.shape[1]
    if np.bincount(y, minlength=classes).min() < 2:
        return None
    return sum((auc_influence(y == k, proba[:, k])[1] for k in range(classes)), np.zeros(len(y))) / classes


def _of_table(metric: Metric, y: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray | None:
    """For a score of counts: what one more row of a cell (truth × prediction) would change, for every cell."""
    cell = y * n_classes + labels
    counts = np.bincount(cell, minlength=n_classes**2)
    cells = np.flatnonzero(counts)
    if len(cells) > MOST_CELLS:
        return None
    weight, truth = counts[cells].astype(float), cells // n_classes
    said = Predictions(labels=cells % n_classes)

    def score(weights: np.ndarray) -> float:
        return metric.score(truth, said, n_classes=n_classes, weight=weights)

    n, value = len(y), score(weight)
    moved = np.array([score(weight + (np.arange(len(cells)) == k)) - value for k in range(len(cells))]) * (n + 1)
    by_cell = np.zeros(len(counts))
    by_cell[cells] = moved - (moved * weight).sum() / n
    return by_cell[cell]
