"""How far two models' predictions of the same rows are apart, with its uncertainty.

The distance of a column is Wasserstein's W1 between the two distributions, in standard deviations of the champion's,
as in the drift check. W1 is the area between the distribution functions; where these differ it is a smooth functional
of them, whose influence values are differences row by row: of what the sign of ``F - G``, added up to the one model's
prediction, makes of it, and to the other's. Their mean is W1 itself, and a t interval of them its interval (del Barrio,
Giné & Matrán 1999, *Annals of Probability* 27, 1009-1071, of the asymptotics). The rows are paired, so that the
interval knows that both models saw the same rows. Where the models say nearly the same, the estimate is too high: that
speaks against the version, never for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from airflow_mlops.ml.blocks import MIN_BLOCKS
from airflow_mlops.ml.paired import Estimate
from airflow_mlops.ml.prediction import PREDICTION, VERSION


@dataclass(frozen=True)
class Shift:
    """The distance of one column of the predictions, in standard deviations of the champion's."""

    column: str
    estimate: Estimate


def shifts(
    tried: pd.DataFrame, champion: pd.DataFrame, *, id_column: str | None, blocks: np.ndarray | None = None
) -> list[Shift]:
    """Return the distance of each column of predictions that is a number, or of each class's share where none is.

    :param tried: predictions of the version that rolls out, as
        :func:`~airflow_mlops.ml.prediction.predict_batches` gives them; ``champion`` those of the same rows in the same
        order.
    :param blocks: shape (rows,), whole numbers from 0: rows of one block may depend on each other.
    """
    outputs = [c for c in tried.columns if c not in (id_column, VERSION, PREDICTION) and c in champion.columns]
    pairs = [(c, tried[c].to_numpy(dtype=float), champion[c].to_numpy(dtype=float)) for c in outputs]
    if not pairs and pd.api.types.is_numeric_dtype(tried[PREDICTION]) and tried[PREDICTION].nunique() > 20:
        pairs = [(PREDICTION, tried[PREDICTION].to_numpy(dtype=float), champion[PREDICTION].to_numpy(dtype=float))]
    elif not pairs:
        said = sorted({*tried[PREDICTION].unique()} | {*champion[PREDICTION].unique()}, key=str)
        pairs = [
            (f"share of {c}", *((frame[PREDICTION] == c).to_numpy(dtype=float) for frame in (tried, champion)))
            for c in said
        ]
    return [Shift(name, shift(mine, theirs, blocks)) for name, mine, theirs in pairs]


def shift(tried: np.ndarray, champion: np.ndarray, blocks: np.ndarray | None = None) -> Estimate:
    """W1 between two models' numbers for the same rows, shape (rows,), in standard deviations of the champion's.

    Where the champion says the same of every row, the unit is one.
    """
    n = len(tried)
    values = np.concatenate([tried, champion])
    order = np.argsort(values, kind="stable")
    at = values[order]
    steps = np.where(order < n, 1.0, -1.0)
    # F - G right of each value, F of the tried version; its sign, added up over the axis, is the influence of a value.
    sign = np.sign(np.round(np.cumsum(steps), 9))
    upto = np.concatenate([[0.0], np.cumsum(sign[:-1] * np.diff(at))])
    added = np.empty(2 * n)
    added[order] = upto
    # A larger value takes away from F left of it: what W1 has from a row is how much further the champion's went.
    rows = added[n:] - added[:n]
    unit = float(champion.std()) or 1.0
    value = float(rows.mean() / unit)
    influence = rows / unit - value
    if champion.std() > 0:
        # The unit is an estimate, too: the delta method for a ratio.
        influence -= value / 2 * (((champion - champion.mean()) / unit) ** 2 - 1)
    parts, units = influence / n, n
    if blocks is not None:
        parts = np.bincount(blocks, weights=influence) / n
        units = len(parts)
    if units < 2:
        return Estimate(value, n, "W1", blocks=float(units) if blocks is not None else None)
    se = float(np.sqrt((parts**2).sum() * units / (units - 1)))
    worth = None
    if blocks is not None:
        sizes = np.bincount(blocks).astype(float) ** 2
        worth = float(sizes.sum() ** 2 / (sizes**2).sum())
    dof = max((worth if worth is not None else units) - 1.0, 1.0)
    return Estimate(value, n, "W1", se=se, dof=dof, blocks=worth)


def few_blocks(found: Estimate) -> bool:
    """Whether its rows hang together in too few blocks for an interval."""
    return found.blocks is not None and found.blocks < MIN_BLOCKS
