"""Do outcomes come for all predictions alike, or for those that the model's own decisions chose?

Where only refused payments are looked into, or only granted loans can fail, outcomes arrive for one side of the model's
decisions. The metric on them is not the metric on all, and the next model learns from what this one chose: a feedback
loop. What shows it is a share of outcomes that differs between predicted classes, or along the score.

References: Lakkaraju, Kleinberg, Leskovec, Ludwig & Mullainathan (2017), "The selective labels problem", KDD 275-284;
Sculley et al. (2015), "Hidden technical debt in machine learning systems", NeurIPS 28 (feedback loops).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency

from airflow_mlops.ml.prediction import PREDICTION, PROBABILITY, SCORE

MIN_GAP = 0.2
"""A difference of coverage smaller than this is not told."""

MIN_GROUP = 30
ALPHA = 0.01
_FIFTHS = 5


@dataclass(frozen=True)
class Selection:
    """How much the share of predictions with an outcome depends on what was predicted.

    :param by: ``prediction`` (predicted classes) or ``score`` (fifths of probability, score, or predicted number).
    :param groups: group → (predictions, share of them with an outcome), for groups of 30 and more.
    :param p_value: χ² test that the share is the same in all groups; uncorrected.
    """

    by: str
    groups: dict[str, tuple[int, float]]
    p_value: float
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self) | {"groups": {name: [*found] for name, found in self.groups.items()}}


def check_selection(predicted: pd.DataFrame, labelled: np.ndarray, *, classes: bool) -> Selection | None:
    """Look for outcomes that come for one side of the predictions only; ``None`` where there is no such sign.

    A sign must be large (shares 20 points apart) and significant (χ², 1 % over both looks together).

    :param predicted: columns as :func:`~airflow_mlops.ml.prediction.predict_batches` names them.
    :param labelled: shape (rows of ``predicted``,), bool: whether the outcome is known.
    :param classes: whether classes were predicted, and not numbers.
    """
    looks = {}
    if classes:
        looks["prediction"] = predicted[PREDICTION].astype(str)
    score = next((c for c in (PROBABILITY, SCORE) if c in predicted), None if classes else PREDICTION)
    if score is not None:
        ranks = predicted[score].rank(method="first", pct=True).to_numpy()
        fifths = np.ceil(ranks * _FIFTHS).clip(1, _FIFTHS)
        looks["score"] = pd.Series(fifths, index=predicted.index).map(lambda k: f"fifth {int(k)} of {_FIFTHS}")
    found = [s for by, groups in looks.items() if (s := _look(by, groups.to_numpy(), labelled, len(looks)))]
    return max(found, key=lambda s: _gap(s.groups), default=None)


def _look(by: str, groups: np.ndarray, labelled: np.ndarray, looks: int) -> Selection | None:
    frame = pd.DataFrame({"group": groups, "known": labelled.astype(bool)})
    counts = frame.groupby("group")["known"].agg(["size", "sum"])
    counts = counts[counts["size"] >= MIN_GROUP]
    known = counts["sum"].to_numpy()
    table = np.column_stack([known, counts["size"].to_numpy() - known])
    if len(table) < 2 or not table.sum(axis=0).all():
        return None
    p_value = float(chi2_contingency(table).pvalue)
    shares = {str(name): (int(row["size"]), float(row["sum"] / row["size"])) for name, row in counts.iterrows()}
    if _gap(shares) < MIN_GAP or p_value > ALPHA / looks:
        return None
    (low, few), (high, many) = (pick(shares.items(), key=lambda s: s[1][1]) for pick in (min, max))
    what = "predictions" if by == "prediction" else "scores in"
    sentence = (
        f"outcomes came for {many[1]:.0%} of {what} {high} and for {few[1]:.0%} of {what} {low}: where the model's own "
        "decisions choose them, this value and the next training are biased (feedback loop)"
    )
    return Selection(by, shares, p_value, sentence)


def _gap(groups: dict[str, tuple[int, float]]) -> float:
    shares = [share for _, share in groups.values()]
    return max(shares) - min(shares)
