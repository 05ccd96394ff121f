"""Columns that tell the target alone: often something that is only known after the fact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

ALMOST = 0.99
_ROWS, _COLUMNS = 10_000, 300
_ENOUGH = 30
_LEAVES = 32
_ORDERED = 0.999


def leaks(frame: pd.DataFrame, target: str, features: Sequence[str], *, classification: bool) -> Iterator[str]:
    """Yield the features from which a small tree alone tells the target almost without error.

    Judged on up to 10,000 rows that are drawn with a fixed seed, half of which the tree does not see: balanced
    accuracy, or r2, of at least 0.99; of numbers also those in the target's own order. The first 300 features
    are looked at.
    """
    known = frame[frame[target].notna()]
    if len(known) < _ENOUGH:
        return
    drawn = known.sample(min(len(known), _ROWS), random_state=0)
    half = len(drawn) // 2
    y = pd.factorize(drawn[target])[0] if classification else drawn[target].to_numpy(dtype=float)
    if len(np.unique(y[:half])) < 2:
        return
    tree = DecisionTreeClassifier if classification else DecisionTreeRegressor
    score = balanced_accuracy_score if classification else r2_score
    for name in features[:_COLUMNS]:
        x = _numbers(drawn[name], y, half).reshape(-1, 1)
        if not classification and _same_order(x[:, 0], y):
            yield name
            continue
        model = tree(max_leaf_nodes=_LEAVES, min_samples_leaf=3, random_state=0).fit(x[:half], y[:half])
        if score(y[half:], model.predict(x[half:])) >= ALMOST:
            yield name


def _same_order(x: np.ndarray, y: np.ndarray) -> bool:
    """Whether two columns of numbers rise (or one falls as the other rises) together: the same in other units."""
    together = pd.Series(x).rank().corr(pd.Series(y).rank())
    return bool(abs(together) > _ORDERED)


def _numbers(values: pd.Series, y: np.ndarray, half: int) -> np.ndarray:
    """One finite number a row; categories in the order of their mean target in the first half, missing ones below."""
    if not pd.api.types.is_numeric_dtype(values):
        codes = pd.Series(pd.factorize(values.astype(object).astype(str))[0])
        order = pd.Series(y[:half]).groupby(codes[:half]).mean()
        return codes.map(order).fillna(-1).to_numpy(dtype=float)
    numbers = values.to_numpy(dtype=float, na_value=np.nan)
    finite = numbers[np.isfinite(numbers)]
    lowest, highest = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return np.nan_to_num(numbers, nan=lowest - 1, posinf=highest, neginf=lowest).clip(-1e30, 1e30)
