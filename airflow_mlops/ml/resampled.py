"""How sure a difference of cross-validated scores is.

The folds' differences are not independent: their training parts overlap. A plain t test over them takes each for new
evidence and finds differences between equal models in up to half of all cases. The corrected resampled t test adds to
the variance what the overlap hides.

References: Nadeau & Bengio (2003), "Inference for the generalization error", *Machine Learning* 52, 239-281; Bouckaert
& Frank (2004), *PAKDD*, 3-12 (for repeated cross-validation).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student


@dataclass(frozen=True)
class Resampled:
    """A mean difference over folds or splits.

    :param value: mean difference; positive: the first is better.
    :param se: corrected standard error.
    :param folds: how many differences there are.
    """

    value: float
    se: float
    folds: int

    def bounds(self, confidence: float) -> tuple[float, float]:
        """One-sided lower and one-sided upper bound, each at ``confidence``."""
        half = float(student.ppf(confidence, self.folds - 1)) * self.se
        return self.value - half, self.value + half


def corrected_t(first: Sequence[float], second: Sequence[float], *, train_rows: float, test_rows: float) -> Resampled:
    """Compare two models by their scores on the same folds or random splits.

    :param first: one score a fold, higher is better; at least two folds. ``second``: on the same folds.
    :param train_rows: rows that each model was fitted on; ``test_rows``: that it was scored on. Only their ratio
        counts.
    """
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    folds = len(differences)
    if folds < 2:
        raise ValueError("a comparison needs at least two folds")
    variance = float(differences.var(ddof=1)) * (1 / folds + test_rows / train_rows)
    return Resampled(float(differences.mean()), math.sqrt(variance), folds)
