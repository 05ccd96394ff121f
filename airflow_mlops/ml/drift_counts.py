"""Counts one side of a column, reference or current, as its rows come; see :mod:`~airflow_mlops.ml.drift_profile`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from airflow_mlops.ml.dependence import Dependence, few_runs, inflation
from airflow_mlops.ml.drift_values import coded

CATEGORIES = 10_000
"""More categories than that are kept as one, the rarest ones."""
BATCH_ROWS = 2**16

_SERIES = 3
_BLOCKS, _TRACKED, _FREQUENT = 64, 200, 0.01


class _Gaps:
    """Counts rows and gaps of one side, and how either hangs together."""

    def __init__(self, series: int = 1) -> None:
        self.rows = self.missing = 0
        self._values, self._missing = [Dependence() for _ in range(series)], Dependence()

    def see(self, missing: np.ndarray, *values: np.ndarray) -> None:
        """Take the next rows: which are missing, shape (n,), and what the others are, as moderate numbers."""
        if gaps := int(missing.sum()):
            if not self.missing:
                self._missing.add(np.zeros(self.rows))
            self.missing += gaps
        if self.missing:
            self._missing.add(missing.astype(np.float64))
        self.rows += len(missing)
        for dependence, series in zip(self._values, values, strict=True):
            dependence.add(series)

    def factors(self, counts: np.ndarray | None = None) -> tuple[float, float]:
        """How many rows are worth one independent value, and one independent gap.

        :param counts: of categories, the rows of each, shape (k,); each stands in one run if they have been sorted.
        """
        changes = self._values[0].changes
        grouped = counts is not None and changes < len(counts)
        shown = counts is not None and few_runs(changes, counts)
        values = 1.0 if grouped else max(dependence.factor(shown=shown) for dependence in self._values)
        if not self.missing:
            return values, 1.0
        gaps = np.array([self.missing, self.rows - self.missing])
        return values, self._missing.factor(shown=few_runs(self._missing.changes, gaps))


@dataclass(frozen=True)
class Numbers:
    """One side of a column of numbers, at the cuts of a :class:`Scale`.

    :param rows: with missing ones; ``missing``: not a number.
    :param factor: how many values are worth one independent value; ``gap_factor`` likewise for the gaps.
    :param below: values below each cut, shape (k,); ``upto``: below or at it.
    :param between: sums of the scaled values before the first cut, between cuts and after the last, shape (k + 1,).
    """

    rows: int
    missing: int
    factor: float
    gap_factor: float
    below: np.ndarray
    upto: np.ndarray
    between: np.ndarray

    @property
    def values(self) -> int:
        """How many are not missing."""
        return self.rows - self.missing

    def independent(self) -> Numbers:
        """The same, with every row counted in full."""
        return replace(self, factor=1.0, gap_factor=1.0)


@dataclass(frozen=True)
class Categories:
    """One side of a column of categories.

    :param counts: rows by category, the most frequent ones; ``others``: rows of the rest, those with up to so many
        rows.
    :param rare: how many rows of another sample of this size are expected in categories outside ``counts``, by Good
        and Turing: the rows of categories that have at most one row more than the rest. (They are not ``others``:
        the rest were left out for being seen rarely, and are seen more often the next time.)
    :param rare_variance: of that estimate.
    :param factors: where rows hang together, how many are worth one when a category is counted, for frequent ones;
        ``factor`` is for the others. Of ten categories in a slow turn the first and the last come in long runs.
    """

    rows: int
    missing: int
    factor: float
    gap_factor: float
    counts: dict[str, int]
    others: int
    rare: int
    rare_variance: float
    factors: dict[str, float]

    @property
    def values(self) -> int:
        """How many are not missing."""
        return self.rows - self.missing

    def independent(self) -> Categories:
        """The same, with every row counted in full."""
        return replace(self, factor=1.0, gap_factor=1.0, factors={})


@dataclass(frozen=True)
class Scale:
    """How the numbers of a column are compared: cuts, and the fence outside which a value counts as on it.

    Scaled are ``low`` to 0 and ``high`` to 1, drawn to [-1, 2]: one range of the reference's 1 % to 99 %
    quantiles outside it. Where these are equal, below, at and above are -1, 0 and 1.

    :param cuts: ascending values of the reference that differ when scaled, shape (k,).
    :param sigma: standard deviation of the scaled reference.
    """

    cuts: np.ndarray
    low: float
    high: float
    sigma: float

    @property
    def constant(self) -> bool:
        """Whether all of the reference but at most 2 % is one value."""
        return self.high <= self.low

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """The values, not NaN, on the scale; the order is kept, far values fall together."""
        if self.constant:
            return np.sign(values - self.low)
        with np.errstate(over="ignore"):  # a quotient beyond float64 is drawn to the fence like any other
            return np.clip((values - self.low) / (self.high - self.low), -1.0, 2.0)


class NumberCounter:
    """Counts the rows of one side at the cuts of a scale."""

    def __init__(self, scale: Scale) -> None:
        self._scale, self._at = scale, scale.scaled(scale.cuts)
        self._gaps = _Gaps()
        k = len(self._at)
        self._below, self._upto = np.zeros(k, np.int64), np.zeros(k, np.int64)
        self._between = np.zeros(k + 1)

    def add(self, numbers: np.ndarray, ordered: np.ndarray | None = None) -> None:
        """Take the next rows as :func:`to_numbers` gives them, shape (n,).

        :param ordered: the same values sorted, without the missing ones, where somebody has sorted them already.
        """
        for first in range(0, len(numbers), BATCH_ROWS):
            batch = numbers[first : first + BATCH_ROWS]
            missing = np.isnan(batch)
            values = self._scale.scaled(batch[~missing] if missing.any() else batch)
            self._gaps.see(missing, values)
            if ordered is None:
                self._count(np.sort(values))
        if ordered is not None:
            for first in range(0, len(ordered), BATCH_ROWS):
                self._count(self._scale.scaled(ordered[first : first + BATCH_ROWS]))

    def _count(self, values: np.ndarray) -> None:
        """Count scaled values, sorted."""
        if len(values):
            below, upto = np.searchsorted(values, self._at, "left"), np.searchsorted(values, self._at, "right")
            self._below += below
            self._upto += upto
            sums = np.concatenate([[0.0], np.cumsum(values)])
            self._between += sums[np.append(below, len(values))] - sums[np.concatenate([[0], upto])]

    def finish(self) -> Numbers:
        """The counts so far."""
        gaps = self._gaps
        return Numbers(gaps.rows, gaps.missing, *gaps.factors(), self._below, self._upto, self._between)


class _Parts:
    """Counts categories in 64 to 128 blocks of rows, the first 200 that come."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._table = np.zeros((2 * _BLOCKS, _TRACKED), dtype=np.int64)
        self._length, self._rows = 1, 0

    def add(self, codes: np.ndarray, texts: list[str]) -> None:
        """Take the next rows, as codes of shape (n,) of ``texts``."""
        while self._rows + len(codes) > 2 * _BLOCKS * self._length:
            pairs = self._table[0::2] + self._table[1::2]
            self._table = np.concatenate([pairs, np.zeros_like(pairs)])
            self._length *= 2
        places = np.empty(len(texts), dtype=np.int64)
        for i, text in enumerate(texts):
            if text not in self._places and len(self._places) < _TRACKED:
                self._places[text] = len(self._places)
            places[i] = self._places.get(text, -1)
        columns = places[codes] if texts else np.empty(0, np.int64)
        cells = (self._rows + np.arange(len(codes))) // self._length * _TRACKED + columns
        self._table += np.bincount(cells[columns >= 0], minlength=self._table.size).reshape(self._table.shape)
        self._rows += len(codes)

    def factors(self) -> dict[str, float]:
        """The factor of each category with 1 % of the rows or more."""
        blocks = self._table[: self._rows // self._length]
        if len(blocks) < _BLOCKS // 4:
            return {}
        shares = self._table.sum(axis=0) / self._rows
        found = inflation(blocks.astype(np.float64), self._length, shares * (1 - shares), self._rows)
        return {text: float(found[i]) for text, i in self._places.items() if shares[i] >= _FREQUENT}


class CategoryCounter:
    """Counts the rows of one side by category.

    :param known: categories that are counted whatever else comes; of others the first 10,000 that come.
    """

    def __init__(self, kind: str, known: Mapping[str, int] | None = None) -> None:
        self._boolean = kind == "boolean"
        self._known = known
        self._counts: dict[str, int] = {}
        self._new = self._others = 0
        # Two categories have one way to take turns; of more, some may hang together and others not.
        self._series = 1 if self._boolean else _SERIES
        self._gaps = _Gaps(self._series)
        self._parts = _Parts()

    def add(self, values: pd.Series) -> None:
        """Take the next rows."""
        codes, texts = coded(values, boolean=self._boolean)
        missing = codes < 0
        present = codes[~missing] if missing.any() else codes
        self._gaps.see(missing, *(_scores(texts, i)[present] for i in range(self._series)))
        self._parts.add(present, texts)
        for text, count in zip(texts, np.bincount(present, minlength=len(texts)).tolist(), strict=True):
            if text not in self._counts and self._known is not None and text not in self._known:
                if self._new >= CATEGORIES:
                    self._others += count
                    continue
                self._new += 1
            self._counts[text] = self._counts.get(text, 0) + count

    def finish(self) -> Categories:
        """The counts so far; without ``known`` only the most frequent 10,000 by name."""
        counts, sizes, most = self._counts, np.array([*self._counts.values()], dtype=np.int64), 0
        if self._known is None and len(counts) > CATEGORIES:
            most = int(np.sort(sizes)[-CATEGORIES - 1])
            counts = {text: count for text, count in counts.items() if count > most}
        others = self._others + int(sizes[sizes <= most].sum())
        rows, next_to, after = max(int(sizes.sum()), 1), *((sizes == most + i).sum() for i in (1, 2))
        variance = others * (1 - others / rows) + (most + 1) * ((most + 1) * next_to + (most + 2) * after)
        factors = self._gaps.factors(sizes)
        return Categories(
            self._gaps.rows,
            self._gaps.missing,
            *factors,
            counts,
            others,
            rare=others + int((most + 1) * next_to),
            rare_variance=float(variance),
            factors=self._parts.factors() if factors[0] > 1 else {},
        )


def _scores(texts: list[str], number: int) -> np.ndarray:
    """A fixed number in [0, 1) for each category, so that runs of a category can be seen as such; shape (k,)."""
    return np.array([zlib.crc32(f"{number}{t}".encode("utf-8", "surrogatepass")) / 2**32 for t in texts])
