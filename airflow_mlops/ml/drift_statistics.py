"""What one column's two samples say: effect sizes with the p-value that belongs to each.

Both sides are taken as random samples of independent rows. Rows that depend on each other (one
day's weather in every flight of that day) make any such test too quick to call a difference
significant; that is why an alarm needs a large effect as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

NUMERIC_MAX = 1e150
"""Larger magnitudes, infinities too, count as this: squares and differences stay finite."""

_TAIL = 0.01  # the fence of the Wasserstein distance starts from these reference quantiles
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
    reference: pd.Series, current: pd.Series, kind: str, *, effect: float, missing_points: float, min_rows: int
) -> list[Signal]:
    """Return the signals of one column: first of its values (if both sides have ``min_rows``), then of gaps.

    :param reference: values of the reference, any dtype; for ``number``, what is not a number is missing.
    :param kind: ``number``, ``category`` or ``boolean``.
    :param effect: threshold of W1/σ; shares alarm from half of it.
    :param missing_points: threshold for the change of the missing rate, as a share.
    """
    signals: list[Signal] = []
    if kind == "number":
        ref, cur = to_numbers(reference), to_numbers(current)
        gaps = (int(np.isnan(ref).sum()), int(np.isnan(cur).sum()))
        ref, cur = ref[~np.isnan(ref)], cur[~np.isnan(cur)]
        if min(len(ref), len(cur)) >= min_rows:
            signals.append(numeric_signal(ref, cur, effect))
    else:
        table = category_counts(reference, current, boolean=kind == "boolean")
        gaps = (len(reference) - int(table["reference"].sum()), len(current) - int(table["current"].sum()))
        if min(table["reference"].sum(), table["current"].sum()) >= min_rows:
            signals.append(category_signal(table, effect / 2))
            unseen = unseen_signal(table, effect / 2)
            if unseen:
                signals.append(unseen)
    if sum(gaps):
        signals.append(missing_signal(gaps, (len(reference), len(current)), missing_points))
    return signals


# --- numbers -----------------------------------------------------------------------------------


def to_numbers(values: pd.Series) -> np.ndarray:
    """Return float64 of the same length; what is not a number is NaN, magnitudes end at NUMERIC_MAX."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype="float64", na_value=np.nan)
    return np.clip(numbers, -NUMERIC_MAX, NUMERIC_MAX)


def core(ordered: np.ndarray) -> tuple[float, float]:
    """The 1 % and 99 % quantiles of sorted values; both are values that occur."""
    last = len(ordered) - 1
    return float(ordered[math.floor(_TAIL * last)]), float(ordered[math.ceil((1 - _TAIL) * last)])


def numeric_signal(ref: np.ndarray, cur: np.ndarray, threshold: float) -> Signal:
    """Wasserstein-1 distance in standard deviations of the reference, and the two-sample KS test's p-value.

    One sort serves both. For W1 the values are drawn to a fence, one reference range (1 % to 99 %
    quantile) outside that range, and σ is taken of the fenced reference: a single absurd value can
    then neither raise an alarm nor hide one, and distances below about two ranges are exact. A
    reference that is constant (up to 1 % of its rows) has no σ: then the effect is the change of
    the share of rows below, at and above its median, and half the threshold applies.

    :param ref: finite values, shape (n,); likewise ``cur``, shape (m,).
    """
    n, m = len(ref), len(cur)
    both = np.concatenate([ref, cur])
    order = np.argsort(both, kind="stable")
    ordered, from_ref = both[order], order < n
    gap = np.abs(np.cumsum(np.where(from_ref, 1 / n, -1 / m)))
    ends = np.append(ordered[1:] != ordered[:-1], True)
    ks = float(min(gap[ends].max(), 1.0)) if ends.any() else 0.0
    p = float(np.clip(stats.kstwo.sf(ks, max(round(n * m / (n + m)), 1)), 0.0, 1.0))

    ref_sorted, cur_sorted = ordered[from_ref], ordered[~from_ref]
    low, high = core(ref_sorted)
    middle, now = float(ref_sorted[n // 2]), float(cur_sorted[m // 2])
    if high <= low:
        shares = [np.array([(x < middle).mean(), (x == middle).mean(), (x > middle).mean()]) for x in (ref, cur)]
        effect = float(np.abs(shares[0] - shares[1]).max())
        return Signal(
            "share off the constant",
            effect,
            threshold / 2,
            p,
            f"rows other than {middle:.4g}: {1 - shares[0][1]:.1%} → {1 - shares[1][1]:.1%}",
        )
    with np.errstate(over="ignore"):  # a quotient beyond float64 is drawn to the fence like any other
        fenced = np.clip((ordered - low) / (high - low), -1.0, 2.0)
    distance = float(np.sum(gap[:-1] * np.diff(fenced)) / np.std(fenced[from_ref]))
    return Signal("W1", distance, threshold, p, f"W1 {distance:.2g} σ, median {middle:.4g} → {now:.4g}")


# --- categories --------------------------------------------------------------------------------


def label(value: Any, *, boolean: bool = False) -> str:
    """A category as text: 1, 1.0 and "1" are one, and so are True, 1 and "true" in a boolean column."""
    if isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_)):
        value = int(value) if float(value).is_integer() else value
    text = str(value)
    if boolean:
        return {"1": "True", "0": "False", "true": "True", "false": "False"}.get(text.lower(), text)
    return text


def _counts(values: pd.Series, boolean: bool) -> pd.Series:
    try:
        codes, labels = pd.factorize(values, use_na_sentinel=True)
    except TypeError:  # a column of lists or dicts: compare them by their text
        codes, labels = pd.factorize(values.map(str, na_action="ignore"), use_na_sentinel=True)
    counts = np.bincount(codes[codes >= 0], minlength=len(labels))
    # 1, 1.0 and "1" are one category: a column with gaps comes as floats, one read from CSV as text.
    return pd.Series(counts, index=[label(v, boolean=boolean) for v in labels], dtype="int64").groupby(level=0).sum()


def category_counts(reference: pd.Series, current: pd.Series, *, boolean: bool = False) -> pd.DataFrame:
    """Return rows per category on both sides: index = category as text, columns ``reference``, ``current``."""
    table = pd.concat({"reference": _counts(reference, boolean), "current": _counts(current, boolean)}, axis=1)
    return table.fillna(0).astype("int64")


def category_signal(table: pd.DataFrame, threshold: float) -> Signal:
    """Largest change of any category's share (L∞), and the chi-square test of the 2 × K table.

    Both rows of the table are random. Categories that expect fewer than 5 rows on the smaller side
    are pooled for the test, so that its distribution holds however many categories there are.
    """
    ref, cur = table["reference"].to_numpy(float), table["current"].to_numpy(float)
    n, m = ref.sum(), cur.sum()
    change = np.abs(ref / n - cur / m)
    worst = int(change.argmax())

    rare = (ref + cur) * min(n, m) / (n + m) < 5
    cells = np.vstack([ref[~rare], cur[~rare]])
    if rare.any():
        pooled = np.array([[ref[rare].sum()], [cur[rare].sum()]])
        if cells.shape[1] and pooled.sum() * min(n, m) / (n + m) < 5:
            cells[:, [cells.sum(axis=0).argmin()]] += pooled
        else:
            cells = np.hstack([cells, pooled])
    p = 1.0
    if cells.shape[1] > 1:
        expected = np.outer([n, m], cells.sum(axis=0)) / (n + m)
        p = float(stats.chi2.sf(((cells - expected) ** 2 / expected).sum(), cells.shape[1] - 1))
    name = str(table.index[worst])
    name = name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…"
    text = f"share of {name!r} {ref[worst] / n:.1%} → {cur[worst] / m:.1%}"
    return Signal("L∞", float(change[worst]), threshold, p, text)


def unseen_signal(table: pd.DataFrame, threshold: float) -> Signal | None:
    """Share of current rows in categories the reference never saw, beyond what its singletons foretell.

    The chance that a row is of an unseen category is estimated by Good and Turing: categories seen
    once, over rows (I. J. Good, 1953). It catches a vocabulary that was replaced although no single
    category is large. None if every category was seen.
    """
    ref, cur = table["reference"].to_numpy(), table["current"].to_numpy()
    n, m, fresh = int(ref.sum()), int(cur.sum()), int(cur[ref == 0].sum())
    if not fresh:
        return None
    once, twice = int((ref == 1).sum()), int((ref == 2).sum())
    share, expected = fresh / m, once / n
    deviation = math.sqrt(max(share * (1 - share), 1 / m) / m + (once + 2 * twice) / n**2)
    p = float(stats.norm.sf((share - expected) / deviation))
    text = f"rows of categories new to it {share:.1%}, expected {expected:.1%}"
    return Signal("new categories", max(share - expected, 0.0), threshold, p, text)


def missing_signal(gaps: tuple[int, int], rows: tuple[int, int], threshold: float) -> Signal:
    """Change of the missing rate, and the test of the 2 × 2 table (Fisher's where counts are small)."""
    table = np.array([[gaps[0], rows[0] - gaps[0]], [gaps[1], rows[1] - gaps[1]]], dtype=float)
    rates = table[:, 0] / table.sum(axis=1)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    if not table.sum(axis=0).all():
        p = 1.0
    elif expected.min() < 10:
        p = float(stats.fisher_exact(table.astype(int)).pvalue)
    else:
        p = float(stats.chi2.sf(((table - expected) ** 2 / expected).sum(), 1))
    text = f"missing {rates[0]:.1%} → {rates[1]:.1%}"
    return Signal("missing rate", float(abs(rates[0] - rates[1])), threshold, min(p, 1.0), text)
