"""The least that a verdict can stand on: rows, rows of each class, blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from airflow_mlops.ml.blocks import MIN_BLOCKS
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.metrics import Metric

MIN_CLASS = 30
"""Fewer rows of a class (regression: of the holdout), and no interval can be trusted."""


@dataclass(frozen=True)
class Scarce:
    """What there is too little of.

    :param why: in words, ending in what is needed.
    :param factor: how many times as many rows would have enough of it.
    """

    why: str
    factor: float


def scarce(
    metric: Metric, evaluation: Evaluation, rows: np.ndarray | None = None, *, intervals: bool = True
) -> Scarce | None:
    """Say what these rows lack to judge the metric; ``None`` where there is enough.

    :param rows: places of the rows judged; default: the whole holdout.
    :param intervals: whether an interval is asked for, which needs blocks enough where rows depend on each other.
    """
    n = evaluation.rows if rows is None else len(rows)
    what = "the holdout has" if rows is None else "it has"
    if n < MIN_CLASS:
        return Scarce(f"{what} {n} rows, and {MIN_CLASS} are needed", MIN_CLASS / max(n, 1))
    classes = evaluation.classes
    # A mean over rows needs no rows of every single class when there are many.
    if classes is not None and not (len(classes) > 2 and metric.is_row_mean):
        y = evaluation.y if rows is None else evaluation.y[rows]
        counts = np.bincount(y, minlength=len(classes))
        rarest = int(counts.argmin())
        if counts[rarest] < MIN_CLASS:
            return Scarce(
                f"class {classes[rarest]!r} has {counts[rarest]} "
                + ("holdout rows" if rows is None else "rows in it")
                + f", and {MIN_CLASS} are needed",
                MIN_CLASS / max(int(counts[rarest]), 1),
            )
    return _few_blocks(evaluation, rows) if intervals else None


def _few_blocks(evaluation: Evaluation, rows: np.ndarray | None) -> Scarce | None:
    found = evaluation.block_count if rows is None else evaluation.blocks_among(rows)
    if found is None or found[1] >= MIN_BLOCKS:
        return None
    count, worth = found
    sizes = f" (as unequal as they are, they are worth {worth:.1f})" if count >= MIN_BLOCKS else ""
    return Scarce(
        f"its rows depend on each other within {evaluation.blocks or 'blocks'}, of which there are {count}{sizes}, and "
        f"{MIN_BLOCKS:.0f} are needed",
        MIN_BLOCKS / worth,
    )


def wanted_rows(rows: int, short: Scarce | None, decided: int | None) -> int | None:
    """Rows in all that would have enough of everything and, as far as is known, decide."""
    if short is None:
        return decided
    return max(decided or 0, math.ceil(rows * short.factor))
