"""What a column's two sides say: effect sizes with the p-value that belongs to each.

Either side is taken as a random sample of so many independent rows as it is worth (see
:mod:`~airflow_mlops.ml.dependence`): of rows that hang together fewer than there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from scipy import stats
from scipy.special import chdtrc, ndtr

from airflow_mlops.ml.drift_counts import Categories, Numbers, Scale
from airflow_mlops.ml.drift_profile import ColumnProfile

_LABEL_LENGTH = 40


@dataclass(frozen=True)
class Signal:
    """One way in which a column can have changed; it alarms when large and significant.

    :param effect: size of the change, in the unit of ``threshold``.
    :param p_value: probability of such a change between two samples of one population.
    :param text: the change in words, with numbers.
    """

    statistic: str
    effect: float
    threshold: float
    p_value: float
    text: str


def column_signals(
    reference: ColumnProfile, current: Numbers | Categories, *, effect: float, missing_points: float, min_rows: float
) -> list[Signal]:
    """Return the signals of one column: first of its values (if both sides are worth ``min_rows``), then of gaps.

    :param current: what the profile's :meth:`~airflow_mlops.ml.drift_profile.ColumnProfile.counter` counted.
    :param effect: threshold of W1/σ; shares alarm from half of it.
    :param missing_points: threshold for the change of the missing rate, as a share.
    """
    signals: list[Signal] = []
    if min(worth(reference.side), worth(current)) >= min_rows:
        if isinstance(reference.side, Numbers) and isinstance(current, Numbers) and reference.scale is not None:
            signals.append(
                numeric_signal(reference.side, current, reference.scale, effect, times=reference.kind == "datetime")
            )
        elif isinstance(reference.side, Categories) and isinstance(current, Categories):
            signals.append(category_signal(reference.side, current, effect / 2))
            unseen = unseen_signal(reference.side, current, effect / 2)
            if unseen:
                signals.append(unseen)
    if reference.side.missing + current.missing:
        signals.append(missing_signal(reference.side, current, missing_points))
    return signals


def worth(side: Numbers | Categories) -> float:
    """So many independent values the side is worth."""
    return side.values / side.factor


# --- numbers -----------------------------------------------------------------------------------


def numeric_signal(ref: Numbers, cur: Numbers, scale: Scale, threshold: float, *, times: bool = False) -> Signal:
    """Wasserstein-1 distance in standard deviations of the reference, and whether it can be chance.

    The p-value is twice the smaller one of two tests at the cuts: Kolmogorov and Smirnov's, which sees any change,
    and Mann and Whitney's of the ranks (H. B. Mann and D. R. Whitney, 1947), which sees a shift sooner.

    For W1 the values are drawn to a fence, one reference range (1 % to 99 % quantile) outside that range, and
    σ is taken of the fenced reference: a single absurd value can then neither raise an alarm nor hide one, and
    distances below about two ranges are true. It is the area between the distribution functions; between two
    cuts of the profile it is known from counts and sums, exactly where they do not cross there. A reference that
    is constant (up to 1 % of its rows) has no σ: then the effect is the change of the share of rows below, at and
    above its median, and half the threshold applies.

    :param times: the numbers are seconds since 1970, to be told as dates.
    """
    p = min(1.0, 2 * min(ks_test(ref, cur), rank_test(ref, cur)))
    if scale.constant:
        place = int(np.searchsorted(scale.cuts, scale.low))
        shares = [np.array([x.below[place], x.upto[place] - x.below[place], 0]) / x.values for x in (ref, cur)]
        for share in shares:
            share[2] = 1 - share[0] - share[1]
        effect = float(np.abs(shares[0] - shares[1]).max())
        text = f"rows other than {_told(scale.low, times)}: {1 - shares[0][1]:.1%} → {1 - shares[1][1]:.1%}"
        return Signal("share off the constant", effect, threshold / 2, p, text)
    distance = float(np.abs(_areas(ref, scale) - _areas(cur, scale)).sum() / scale.sigma)
    medians = [_median(x, scale, times) for x in (ref, cur)]
    return Signal("W1", distance, threshold, p, f"W1 {distance:.2g} σ, median {medians[0]} → {medians[1]}")


def ks_test(ref: Numbers, cur: Numbers) -> float:
    """p-value of Kolmogorov and Smirnov's two-sample test."""
    n, m = ref.values, cur.values
    gaps = np.abs(np.concatenate([ref.upto / n - cur.upto / m, ref.below / n - cur.below / m]))
    independent = worth(ref) * worth(cur) / (worth(ref) + worth(cur))
    p = stats.kstwo.sf(float(min(gaps.max(), 1.0)), max(round(independent), 1))
    return float(np.clip(p, 0.0, 1.0))


def rank_test(ref: Numbers, cur: Numbers) -> float:
    """p-value of Mann and Whitney's test, normal approximation; values between two cuts count as equal."""
    cells = [np.diff(np.concatenate([[0], _pairs(x), [x.values]])) for x in (ref, cur)]
    together = cells[0] + cells[1]
    total = float(together.sum())
    ties = float((together.astype(float) ** 3 - together).sum()) / (total**3 - total)
    if ties >= 1:
        return 1.0
    ranks = np.cumsum(together) - (together - 1) / 2
    n, m = ref.values, cur.values
    difference = float((cells[0] @ ranks) / n - (cells[1] @ ranks) / m)
    variance = total * (total + 1) / 12 * (1 - ties) * (1 / worth(ref) + 1 / worth(cur))
    return float(2 * ndtr(-abs(difference) / math.sqrt(variance)))


def _pairs(side: Numbers) -> np.ndarray:
    """Values below each cut and up to it, in turn."""
    return np.column_stack([side.below, side.upto]).ravel()


def _areas(side: Numbers, scale: Scale) -> np.ndarray:
    """Area under the distribution function before the first cut and between cuts, over it after the last."""
    at, n = scale.scaled(scale.cuts), side.values
    inside = np.append(side.below, n) - np.concatenate([[0], side.upto])
    areas = np.empty(len(at) + 1)
    areas[0] = (inside[0] * at[0] - side.between[0]) / n
    areas[1:-1] = side.upto[:-1] / n * np.diff(at) + (inside[1:-1] * at[1:] - side.between[1:-1]) / n
    areas[-1] = (side.between[-1] - inside[-1] * at[-1]) / n
    return areas


def _median(side: Numbers, scale: Scale, times: bool) -> str:
    """The first cut that half of the values do not pass."""
    place = int(np.searchsorted(side.upto, side.values / 2))
    if place == len(scale.cuts):
        return f"above {_told(scale.cuts[-1], times)}"
    below = place == 0 and 2 * side.below[0] > side.values
    return f"below {_told(scale.cuts[0], times)}" if below else _told(scale.cuts[place], times)


def _told(value: float, times: bool) -> str:
    if not times:
        return f"{value:.4g}"
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{value:.4g} s"


# --- categories --------------------------------------------------------------------------------


def category_signal(ref: Categories, cur: Categories, threshold: float) -> Signal:
    """Largest change of any category's share (L∞), and the test of its 2 × 2 table.

    Its p-value is corrected for having chosen the category: for each one the chance is added that it changes as
    significantly, or that it changes by ``threshold`` at all where that is smaller (S. Bernstein's inequality). However
    many rare categories there are, on many rows they add nothing. (A χ² test over all categories loses a large
    change of one of them among the chances of the others.)
    """
    n, m = ref.values, cur.values
    names = sorted({*ref.counts, *cur.counts})
    first = np.array([ref.counts.get(name, 0) for name in names], dtype=float)
    second = np.array([cur.counts.get(name, 0) for name in names], dtype=float)
    if not names:
        return Signal("L∞", 0.0, threshold, 1.0, "too many categories to compare shares")
    change = np.abs(first / n - second / m)
    worst = int(change.argmax())
    name = names[worst]
    factors = ref.factors.get(name, ref.factor), cur.factors.get(name, cur.factor)
    p = share_test((first[worst], second[worst]), (n, m), factors)
    if len(names) > 2:
        pooled = (first + second) / (n + m)
        spread = pooled * (1 - pooled) * (ref.factor / n + cur.factor / m)
        most = max(ref.factor / n, cur.factor / m)
        possible = 2 * np.exp(-(threshold**2) / (2 * (spread + threshold * most / 3)))
        p = float(np.minimum(p, possible).sum())
    name = name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…"
    text = f"share of {name!r} {first[worst] / n:.1%} → {second[worst] / m:.1%}"
    return Signal("L∞", float(change[worst]), threshold, min(p, 1.0), text)


def unseen_signal(ref: Categories, cur: Categories, threshold: float) -> Signal | None:
    """Share of current rows in categories the reference never saw, beyond what chance foretells.

    It catches a vocabulary that was replaced although no single category is large. None if every category was seen.
    Were the rows dealt out at random, a category of c rows would be current alone with probability q = (m/N)^c, m of
    all N rows being current; expectation and variance of such rows follow, and Cantelli's inequality bounds the
    p-value whatever the distribution: where one side is small, a single large category can be missed by chance.

    Where the reference has more categories than a profile names, those it does not name count as unseen. Then the
    expectation is Good and Turing's (I. J. Good, 1953), with the normal distribution.
    """
    n, m = ref.values, cur.values
    fresh = cur.others + sum(count for name, count in cur.counts.items() if name not in ref.counts)
    if not fresh:
        return None
    share = fresh / m
    if ref.others:
        expected = ref.rare / n
        variance = max(share * (1 - share), 1 / m) / m * cur.factor + ref.rare_variance / n**2 * ref.factor
        p = float(ndtr((expected - share) / math.sqrt(variance)))
    else:
        counts = np.array([ref.counts.get(name, 0) + cur.counts.get(name, 0) for name in {*ref.counts, *cur.counts}])
        alone = (m / (n + m)) ** (counts / max(ref.factor, cur.factor))
        expected = float((counts * alone).sum()) / m
        variance = float((counts.astype(float) ** 2 * alone * (1 - alone)).sum()) / m**2
        p = variance / (variance + (share - expected) ** 2) if share > expected else 1.0
    text = f"rows of categories new to it {share:.1%}, expected {expected:.1%}"
    return Signal("new categories", max(share - expected, 0.0), threshold, p, text)


# --- gaps --------------------------------------------------------------------------------------


def missing_signal(ref: Numbers | Categories, cur: Numbers | Categories, threshold: float) -> Signal:
    """Change of the missing rate, and the test of the 2 × 2 table."""
    rates = ref.missing / ref.rows, cur.missing / cur.rows
    p = share_test((ref.missing, cur.missing), (ref.rows, cur.rows), (ref.gap_factor, cur.gap_factor))
    text = f"missing {rates[0]:.1%} → {rates[1]:.1%}"
    return Signal("missing rate", abs(rates[0] - rates[1]), threshold, p, text)


def share_test(hits: tuple[float, float], rows: tuple[int, int], factors: tuple[float, float] = (1.0, 1.0)) -> float:
    """p-value of two shares being one: χ² of the 2 × 2 table, Fisher's exact test where counts are small.

    :param factors: how many rows of a side are worth one independent row. A side that has no such row, or no other,
        does not show how they hang together: there the other side's factor counts, if it is larger.
    """
    alike = [k in (0, r) for k, r in zip(hits, rows, strict=True)]
    counted = [max(factors) if same else own for same, own in zip(alike, factors, strict=True)]
    table = np.array([[k / f, (r - k) / f] for k, r, f in zip(hits, rows, counted, strict=True)])
    if not table.sum(axis=0).all():
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    if expected.min() < 10:
        return min(float(stats.fisher_exact(table.round().astype(np.int64)).pvalue), 1.0)
    return float(chdtrc(1, ((table - expected) ** 2 / expected).sum()))
