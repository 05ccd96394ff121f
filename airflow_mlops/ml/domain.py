"""Drift that no single column shows: can a classifier tell the current rows from the reference's?

A classifier two-sample test (D. Lopez-Paz and M. Oquab, Revisiting classifier two-sample tests, ICLR 2017).
Each row is scored by a classifier that was fitted without it; where both sides come from one population the
scores say nothing, and their AUC is 0.5 but for chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingClassifier

from airflow_mlops.ml.dependence import Dependence
from airflow_mlops.ml.drift_statistics import Signal
from airflow_mlops.ml.drift_values import NUMBER_KINDS, coded, to_numbers

_FOLDS = 4
_MOST_CATEGORIES = 200  # of a column, by frequency; the others are one
_NAMED = 3
_SEED = 7


def domain_signal(
    reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str], effect: float, min_rows: int
) -> Signal | None:
    """Tell two samples of rows apart by all their columns; None where a side has fewer than ``min_rows`` rows, or
    no column has a value.

    The effect is the AUC, and its threshold what a shift of ``effect`` σ in one normal column would give to the best
    classifier, Φ(effect/√2). Rows are cut into four parts in their order, so that neighbours are scored by a
    classifier that saw neither. The p-value is Mann and Whitney's; scores that hang together count for
    less (:mod:`~airflow_mlops.ml.dependence`). Of an AUC above the threshold the text names the columns it
    rests on: those that cost it most when their values are shuffled.

    :param reference: rows × columns of ``kinds``, at most about 5,000 for speed; likewise ``current``.
    """
    if min(len(reference), len(current)) < max(min_rows, 2 * _FOLDS):
        return None
    filled = {n: k for n, k in kinds.items() if reference[n].notna().any() or current[n].notna().any()}
    if not filled:
        return None
    table, categorical = _table(reference, current, filled)
    side = np.repeat([0, 1], [len(reference), len(current)])
    fold = np.concatenate([np.arange(n) * _FOLDS // n for n in (len(reference), len(current))])
    models = []
    ranks = np.empty(len(side))
    for number in range(_FOLDS):
        model = HistGradientBoostingClassifier(
            max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=_SEED, categorical_features=categorical
        )
        learned = table[fold != number]
        # A column may have values in the held part only: boosting refuses one without any, and learns nothing of zeros.
        learned[:, np.isnan(learned).all(axis=0)] = 0.0
        models.append(model.fit(learned, side[fold != number]))
        held = fold == number
        ranks[held] = rankdata(model.decision_function(table[held])) / held.sum()
    auc = _auc(ranks, side, fold)
    factors = []
    for value in (0, 1):
        seen = Dependence()
        seen.add(ranks[side == value])
        factors.append(seen.factor())
    deviation = math.sqrt((factors[0] / len(reference) + factors[1] / len(current)) / 12)
    threshold = float(ndtr(effect / math.sqrt(2)))
    text = f"a classifier tells current rows from the reference's with AUC {auc:.3f}"
    if auc >= threshold and (named := _rests_on(models, table, side, fold, auc, list(filled))):
        text += f", by {', '.join(named)}"
    return Signal("AUC", auc, threshold, float(ndtr((0.5 - auc) / deviation)), text)


def _table(reference: pd.DataFrame, current: pd.DataFrame, kinds: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Both samples as numbers, missing NaN, shape (n + m, columns); and which columns are categories."""
    columns, categorical = [], []
    for name, kind in kinds.items():
        if kind in NUMBER_KINDS:
            columns.append(np.concatenate([to_numbers(frame[name], kind) for frame in (reference, current)]))
        else:
            texts: list[list[str | None]] = []
            for frame in (reference, current):
                codes, labels = coded(frame[name], boolean=kind == "boolean")
                texts.append([labels[c] if c >= 0 else None for c in codes])
            values = pd.Series([*texts[0], *texts[1]], dtype=object)
            order = {text: float(i) for i, text in enumerate(values.value_counts(sort=True).index[:_MOST_CATEGORIES])}
            others = values.map(lambda v, order=order: order.get(v, float(_MOST_CATEGORIES)), na_action="ignore")
            columns.append(others.to_numpy(dtype=float))
        categorical.append(kind not in NUMBER_KINDS)
    return np.column_stack(columns), np.array(categorical)


def _auc(ranks: np.ndarray, side: np.ndarray, fold: np.ndarray) -> float:
    """Mean of the folds' AUCs."""
    found = []
    for number in range(_FOLDS):
        held = fold == number
        n, m = int((side[held] == 0).sum()), int((side[held] == 1).sum())
        found.append((float(rankdata(ranks[held])[side[held] == 1].sum()) - m * (m + 1) / 2) / (n * m))
    return float(np.mean(found))


def _rests_on(
    models: list[HistGradientBoostingClassifier],
    table: np.ndarray,
    side: np.ndarray,
    fold: np.ndarray,
    auc: float,
    names: list[str],
) -> list[str]:
    """The columns that cost the AUC most when their values are shuffled within a part, most first."""
    random = np.random.default_rng(_SEED)
    losses = []
    for column in range(table.shape[1]):
        ranks = np.empty(len(side))
        for number, model in enumerate(models):
            held = table[fold == number]
            held[:, column] = random.permutation(held[:, column])
            ranks[fold == number] = model.decision_function(held)
        losses.append(auc - _auc(ranks, side, fold))
    order = np.argsort(losses)[::-1][:_NAMED]
    return [names[i] for i in order if losses[i] > (auc - 0.5) / 10]
