"""How sure a score, or the difference of two models' scores on the same rows, is.

One estimate per metric, by the sharpest method that fits it:

* accuracy, and recall of two classes: counts. Alone Clopper & Pearson's exact interval; paired Tango's score interval.
* metrics with influence values (:mod:`airflow_mlops.ml.influence`; ROC AUC by DeLong): their paired differences, an
  interval by Student's t that is widened on the side of the long tail.
* everything else: the same interval from a paired bootstrap of rows, m out of n on large holdouts.

Rows of one block (a group, a day) may depend on each other: influence values are then summed by block, and blocks
are what is counted and resampled.

References: Clopper & Pearson (1934), *Biometrika* 26, 404-413; Tango (1998), *Statistics in Medicine* 17, 891-908;
Johnson (1978), *JASA* 73, 536-544, and Hall (1992), *JRSS B* 54, 221-228 (skewness); Satterthwaite (1946),
*Biometrics Bulletin* 2, 110-114; Obuchowski (1997), *Biometrics* 53, 567-578 (AUC of clustered rows); Cameron &
Miller (2015), *Journal of Human Resources* 50, 317-372 (clusters); Bickel, Götze & van Zwet (1997), *Statistica
Sinica* 7, 1-31 (m out of n).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit
from scipy.stats import beta

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.influence import auc_components, influence
from airflow_mlops.ml.metrics import Metric, Predictions

__all__ = ["Estimate", "auc_components", "estimate"]

BOOTSTRAP_ROWS = 10_000
BOOTSTRAP_DRAWS = 500
_LEAST_P = 1e-12
"""Below this a p-value is not told apart."""
_MOST_SKEW = 2.0
"""A sum more skewed than this is known too badly for the correction to grow with it."""


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of scores (positive = candidate better), and how sure it is.

    :param value: on all rows.
    :param rows: how many rows it stands on.
    :param se: standard error, for the t interval; ``None`` when unknown.
    :param dof: degrees of freedom of the t interval.
    :param skew: skewness of the estimate's distribution.
    :param counts: where the score is a share of ``counted`` rows: the right ones and the wrong ones, or of two models
        those rows that only the candidate and that only the champion got right.
    :param silent_rows: set when two models that do differ scored the same everywhere they could differ: the
        interval then is what a share can be that was never seen in so many rows (the "rule of three").
    :param span: how far two models can be apart in such a row.
    :param pair: of a difference: the two scores.
    :param blocks: how many independent units it stands on, of equal size as good as these; ``None``: rows.
    """

    value: float
    rows: int
    method: str
    se: float | None = None
    dof: float = math.inf
    skew: float = 0.0
    counts: tuple[int, int] | None = None
    counted: int = 0
    paired: bool = False
    silent_rows: int | None = None
    span: float = 1.0
    pair: tuple[float, float] | None = None
    blocks: float | None = None

    def bounds(self, confidence: float) -> tuple[float, float] | None:
        """One-sided lower and one-sided upper bound, each at ``confidence``; ``None`` when unknown."""
        if self.silent_rows is not None:
            half = self.span * (1 - (1 - confidence) ** (1 / self.silent_rows))
            return self.value - half, self.value + half
        if self.counts is not None:
            if self.paired:
                return tango(*self.counts, self.counted, confidence)
            return clopper_pearson(self.counts[0], self.counted, confidence)
        if self.se is None or not math.isfinite(self.se):
            return None
        # Quantiles of a studentised sum, Hall (1992): the side of the long tail is further away. The other side, which
        # would come nearer, stays: the skewness is an estimate itself.
        down, up = self._quantiles(confidence)
        return self.value - down * self.se, self.value + up * self.se

    def _quantiles(self, confidence: float) -> tuple[float, float]:
        """How many standard errors the lower and the upper bound are away."""
        quantile = float(stdtrit(self.dof, confidence)) if math.isfinite(self.dof) else float(ndtri(confidence))
        skew = min(max(self.skew, -_MOST_SKEW), _MOST_SKEW)
        more = (2 * float(ndtri(confidence)) ** 2 + 1) / 6
        return quantile + more * max(-skew, 0.0), quantile + more * max(skew, 0.0)

    def p_value(self, limit: float) -> float:
        """The smallest error probability at which the lower bound reaches ``limit``; 1 when it is unknown or above 0.5.

        Of the hypothesis that the score or difference lies below ``limit``; for :meth:`bounds` turned around.
        """
        if self.value <= limit:
            return 1.0

        def short(error: float) -> float:
            bounds = self.bounds(1 - error)
            return bounds[0] - limit if bounds is not None else -1.0

        if not short(0.5) >= 0:
            return 1.0
        if short(_LEAST_P) >= 0:
            return _LEAST_P
        # By the logarithm: what counts among thousands of tests are its small values.
        return float(math.exp(brentq(lambda e: short(math.exp(e)), math.log(_LEAST_P), math.log(0.5), xtol=1e-6)))


def clopper_pearson(right: int, rows: int, confidence: float) -> tuple[float, float]:
    """Exact one-sided bounds of a share, each at ``confidence``."""
    low = float(beta.ppf(1 - confidence, right, rows - right + 1)) if right > 0 else 0.0
    high = float(beta.ppf(confidence, right + 1, rows - right)) if right < rows else 1.0
    return low, high


def tango(gained: int, lost: int, rows: int, confidence: float) -> tuple[float, float]:
    """Score bounds of a paired difference of shares, each one-sided at ``confidence``, with a continuity correction.

    Without that correction of half a row a gate with a handful of discordant rows errs up to 9 % at 95 % confidence.

    :param gained: rows that only the candidate got right; ``lost``: that only the champion did.
    """
    value, wanted = (gained - lost) / rows, float(ndtri(confidence))

    def score(delta: float, correction: float) -> float:
        linear = (2 * rows - gained + lost) * delta - gained - lost
        constant = -lost * delta * (1 - delta)
        q = (math.sqrt(max(linear**2 - 8 * rows * constant, 0.0)) - linear) / (4 * rows)
        variance = rows * (2 * q + delta * (1 - delta))
        off = gained - lost - rows * delta + correction
        return off / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, off)

    edge, half = 1 - 1e-12, 0.5
    low = brentq(lambda d: score(d, -half) - wanted, -edge, value) if score(-edge, -half) > wanted else -1.0
    high = brentq(lambda d: score(d, half) + wanted, value, edge) if score(edge, half) < -wanted else 1.0
    return float(low), float(high)


def estimate(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None = None,
    *,
    n_classes: int | None,
    seed: int = 0,
    blocks: np.ndarray | None = None,
) -> Estimate:
    """Estimate the candidate's score or, with a champion, candidate minus champion on the same rows.

    :param y: shape (n,): class codes (two classes: 1 is positive) or numbers.
    :param n_classes: ``None`` for regression.
    :param seed: of the bootstrap; the same input gives the same estimate.
    :param blocks: shape (n,), whole numbers from 0: rows of one block may depend on each other; ``None``: none do.
    :raises EvaluationError: when the metric cannot be computed, see :meth:`Metric.score`.
    """
    if blocks is None and (found := _counts(metric, y, candidate, champion, n_classes)):
        return found
    value, values = influence(metric, y, candidate, n_classes)
    pair = None
    if champion is not None:
        other, theirs = influence(metric, y, champion, n_classes)
        pair = value, other
        value, values = value - other, None if values is None or theirs is None else values - theirs
    if values is None:
        result = _bootstrap(metric, y, candidate, champion, n_classes, value, seed, blocks)
    else:
        scarcest = None
        if metric.scorer_name in ("roc_auc", "average_precision"):
            positives = int((y == 1).sum())
            scarcest = min(positives, len(y) - positives)
        result = _by_influence(metric, values, value, scarcest, blocks)
    result = replace(result, pair=pair)
    if champion is None or result.se is None or result.se > 0:
        return result
    units = len(y) if blocks is None else max(int(result.blocks or 1), 1)
    if blocks is None and n_classes is not None and not metric.is_row_mean:
        units = max(int(np.bincount(y, minlength=n_classes).min()), 1)
    return replace(result, method="rule of three", silent_rows=units) if n_classes else result


def _counts(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None,
    n_classes: int | None,
) -> Estimate | None:
    """Shares of rows that are right: of all (accuracy), or of the positive ones (recall)."""
    if candidate.labels is None or n_classes is None or metric.scorer_name not in ("accuracy", "recall"):
        return None
    value, pair = metric.score(y, candidate, n_classes=n_classes), None
    rows = y == 1 if metric.scorer_name == "recall" else np.ones(len(y), dtype=bool)
    mine = candidate.labels[rows] == y[rows]
    n, right = len(mine), int(mine.sum())
    if champion is None:
        counts, gained, lost = (right, n - right), 0, 0
    else:
        pair = value, metric.score(y, champion, n_classes=n_classes)
        value = pair[0] - pair[1]
        theirs = np.asarray(champion.labels)[rows] == y[rows]
        counts = gained, lost = int((mine & ~theirs).sum()), int((theirs & ~mine).sum())
        if gained == lost == 0:
            return Estimate(value, len(y), "rule of three", silent_rows=n, pair=pair)
    share = right / n if n else 0.0
    variance = share * (1 - share) if champion is None else (gained + lost) / n - ((gained - lost) / n) ** 2
    method = "Clopper-Pearson" if champion is None else "Tango"
    se = math.sqrt(variance / n) if n else None
    return Estimate(value, len(y), method, se=se, counts=counts, counted=n, paired=champion is not None, pair=pair)


def _by_influence(
    metric: Metric, values: np.ndarray, value: float, scarcest: int | None, blocks: np.ndarray | None
) -> Estimate:
    n = len(values)
    method = {"roc_auc": "DeLong"}.get(metric.scorer_name, "paired t" if metric.is_row_mean else "delta method")
    parts = values / n if blocks is None else np.bincount(blocks, weights=values) / n
    units = len(parts)
    if units < 2:
        return Estimate(value, n, method, blocks=None if blocks is None else float(units))
    squares = parts**2
    variance = float(squares.sum())
    skew = float(squares @ parts) / variance**1.5 if variance > 0 else 0.0
    # How well the variance is known: for normal values one degree of freedom a unit, for long tails fewer.
    kurtosis = units * float(squares @ squares) / variance**2 if variance > 0 else 3.0
    dof = min(2 * units / max(kurtosis - 1, 1e-9), units - 1.0)
    if scarcest is not None:
        dof = min(dof, scarcest - 1.0)
    effective = None
    if blocks is not None:
        sizes = np.bincount(blocks).astype(float) ** 2
        effective = float(sizes.sum() ** 2 / (sizes**2).sum())
        dof = min(dof, effective - 1)
    # DeLong's values are unbiased within each class already.
    unbiased = metric.scorer_name == "roc_auc" and blocks is None
    se = math.sqrt(variance if unbiased else variance * units / (units - 1))
    return Estimate(
        value,
        n,
        method if blocks is None else f"{method} by blocks",
        se=se,
        dof=max(dof, 1.0),
        skew=skew,
        blocks=effective,
    )


def _bootstrap(
    metric: Metric,
    y: np.ndarray,
    candidate: Predictions,
    champion: Predictions | None,
    n_classes: int | None,
    value: float,
    seed: int,
    blocks: np.ndarray | None,
) -> Estimate:
    rng = np.random.default_rng(seed)
    n = len(y)
    members, effective, units = None, None, n
    if blocks is not None:
        sizes = np.bincount(blocks)
        members = np.split(np.argsort(blocks, kind="stable"), np.cumsum(sizes)[:-1])
        units = len(members)
        effective = float((sizes**2.0).sum() ** 2 / (sizes**4.0).sum())
    drawn = min(units, max(math.ceil(units * BOOTSTRAP_ROWS / n), 2))
    base = rng.choice(units, size=drawn, replace=False) if drawn < units else np.arange(units)

    def score(chosen: np.ndarray) -> float:
        rows = chosen if members is None else np.concatenate([members[i] for i in chosen])
        mine = metric.score(y[rows], candidate.take(rows), n_classes=n_classes)
        return mine - metric.score(y[rows], champion.take(rows), n_classes=n_classes) if champion else mine

    method = "bootstrap" if blocks is None else "bootstrap of blocks"
    unknown = Estimate(value, n, method, blocks=effective)
    values = []
    try:
        score(base)
    except EvaluationError:
        return unknown  # the sample lost a class: no interval, so no gate passes
    for _ in range(BOOTSTRAP_DRAWS):
        try:
            values.append(score(base[rng.integers(0, drawn, size=drawn)]))
        except EvaluationError:
            continue  # a resample without some class; counted below
    # Resamples that cannot be scored are not missing at random: with more than a few there is no interval.
    if len(values) < 0.99 * BOOTSTRAP_DRAWS:
        return unknown
    deviations = np.array(values) - np.mean(values)
    variance = float((deviations**2).mean())
    skew = float((deviations**3).mean()) / variance**1.5 if variance > 0 else 0.0
    shrink = math.sqrt(drawn / units)  # from the resamples' size to all rows
    dof = max((effective if effective is not None else units) - 1.0, 1.0)
    return Estimate(value, n, method, se=math.sqrt(variance) * shrink, dof=dof, skew=skew * shrink, blocks=effective)
