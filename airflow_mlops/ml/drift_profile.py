"""What a drift check remembers of a column: enough to decide as if all reference rows were there.

The reference's values are cut at up to 1,024 of its own values (all of them where it has no more), evenly
spaced among its sorted rows. Of either side is kept how many rows lie below and at each cut, and the sum of
those between two cuts. Counts give the distribution functions exactly at the cuts; counts and sums give the
area between them exactly wherever they do not cross between two cuts. So a check reads the current side
only, in batches, in memory that does not grow with the rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.ml.categories import label
from airflow_mlops.ml.dependence import Dependence, few_runs, inflation

CUTS = 1024
CATEGORIES = 10_000
"""More categories than that are kept as one, the rarest ones."""
NUMBER_KINDS = ("number", "datetime")
NUMERIC_MAX = 1e150
"""Larger magnitudes, infinities too, count as this: squares and differences stay finite."""

_SERIES = 3
_BLOCKS, _TRACKED, _FREQUENT = 64, 200, 0.01
_TAIL = 0.01  # the fence of the Wasserstein distance starts from these reference quantiles
BATCH_ROWS = 2**16


# --- values ------------------------------------------------------------------------------------


def to_numbers(values: pd.Series, kind: str = "number") -> np.ndarray:
    """Return float64 of the same length; what is not a number is NaN, magnitudes end at NUMERIC_MAX.

    :param kind: ``datetime`` gives seconds since 1970; what is no time is missing, naive times count as UTC.
    """
    if kind == "datetime":
        if isinstance(values.dtype, pd.PeriodDtype):
            values = values.dt.to_timestamp()
        text = pd.api.types.infer_dtype(values, skipna=True) == "string"
        times = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601" if text else None)
        seconds = times.to_numpy(dtype="datetime64[us]").astype("int64") / 1e6
        return np.where(times.isna().to_numpy(), np.nan, seconds)
    if values.dtype != np.float64:
        values = pd.to_numeric(values, errors="coerce")
    return np.clip(values.to_numpy(dtype="float64", na_value=np.nan), -NUMERIC_MAX, NUMERIC_MAX)


def core(ordered: np.ndarray) -> tuple[float, float]:
    """The 1 % and 99 % quantiles of sorted values; both are values that occur."""
    last = len(ordered) - 1
    return float(ordered[int(np.floor(_TAIL * last))]), float(ordered[int(np.ceil((1 - _TAIL) * last))])


def coded(values: pd.Series, *, boolean: bool = False) -> tuple[np.ndarray, list[str]]:
    """Codes of shape (n,), -1 where missing, and their texts; two codes may have one text."""
    try:
        codes, found = pd.factorize(values, use_na_sentinel=True)
    except TypeError:  # a column of lists or dicts: compare them by their text
        codes, found = pd.factorize(values.map(str, na_action="ignore"), use_na_sentinel=True)
    return codes, [label(v, boolean=boolean) for v in found]


def _scores(texts: list[str], number: int) -> np.ndarray:
    """A fixed number in [0, 1) for each category, so that runs of a category can be seen as such; shape (k,)."""
    return np.array([zlib.crc32(f"{number}{t}".encode("utf-8", "surrogatepass")) / 2**32 for t in texts])


# --- one side of a column ----------------------------------------------------------------------


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


# --- a reference -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColumnProfile:
    """What is remembered of a reference column; numbers and times have a ``scale``."""

    kind: str
    side: Numbers | Categories
    scale: Scale | None = None

    def counter(self) -> NumberCounter | CategoryCounter:
        """Takes the current rows of the column."""
        if self.scale is not None:
            return NumberCounter(self.scale)
        known = self.side.counts if isinstance(self.side, Categories) else None
        return CategoryCounter(self.kind, known)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; inverse of :meth:`from_dict`."""
        scale = _plain(self.scale) if self.scale is not None else None
        return {"kind": self.kind, "side": _plain(self.side), "scale": scale}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> ColumnProfile:
        """Rebuild from :meth:`to_dict`."""
        side = value["side"]
        if value["scale"] is None:
            return cls(value["kind"], Categories(**side))
        arrays = {"below": np.int64, "upto": np.int64, "between": np.float64}
        scale = value["scale"] | {"cuts": np.asarray(value["scale"]["cuts"], np.float64)}
        numbers = side | {name: np.asarray(side[name], kind) for name, kind in arrays.items()}
        return cls(value["kind"], Numbers(**numbers), Scale(**scale))


@dataclass(frozen=True)
class Profile:
    """A drift check's reference without its rows; ``rows`` are those it was made of."""

    rows: int
    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; inverse of :meth:`from_dict`."""
        return {"rows": self.rows, "columns": {name: c.to_dict() for name, c in self.columns.items()}}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Profile:
        """Rebuild from :meth:`to_dict`."""
        return cls(value["rows"], {name: ColumnProfile.from_dict(c) for name, c in value["columns"].items()})


def column_profile(values: pd.Series, kind: str) -> ColumnProfile:
    """Profile the rows of one reference column in their order.

    :param kind: ``number``, ``datetime``, ``category`` or ``boolean``.
    """
    if kind not in NUMBER_KINDS:
        categories = CategoryCounter(kind)
        for batch in _batches(values):
            categories.add(batch)
        return ColumnProfile(kind, categories.finish())
    numbers = to_numbers(values, kind)
    ordered = np.sort(numbers)  # missing ones last
    ordered = ordered[: len(ordered) - int(np.isnan(numbers).sum())]
    scale = _scale(ordered)
    counter = NumberCounter(scale)
    counter.add(numbers, ordered)
    return ColumnProfile(kind, counter.finish(), scale)


def make_profile(frame: pd.DataFrame, kinds: Mapping[str, str]) -> Profile:
    """Profile the columns of ``kinds`` of a reference frame; one column is worked on at a time."""
    return Profile(len(frame), {name: column_profile(frame[name], kind) for name, kind in kinds.items()})


def _plain(part: Numbers | Categories | Scale) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(part).items()}


def _scale(ordered: np.ndarray) -> Scale:
    """The scale of sorted values, shape (n,)."""
    if not len(ordered):
        return Scale(np.empty(0), 0.0, 0.0, 0.0)
    low, high = core(ordered)
    if high <= low:  # the median, as every value between them
        low = high = float(ordered[len(ordered) // 2])
    scaled = Scale(ordered, low, high, 0.0).scaled(ordered)
    first = np.concatenate([[True], scaled[1:] != scaled[:-1]])
    places = np.flatnonzero(first)
    if len(places) > CUTS:
        wanted = np.unique(scaled[np.linspace(0, len(scaled) - 1, CUTS).round().astype(np.int64)])
        places = np.searchsorted(scaled, wanted, "left")
    return Scale(ordered[places].copy(), low, high, float(np.std(scaled)))


def _batches(values: pd.Series) -> Iterator[pd.Series]:
    for first in range(0, len(values), BATCH_ROWS):
        yield values.iloc[first : first + BATCH_ROWS]
