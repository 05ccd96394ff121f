"""What a drift check remembers of a column: enough to decide as if all reference rows were there.

The reference's values are cut at up to 1,024 of its own values (all of them where it has no more), evenly
spaced among its sorted rows. Of either side is kept how many rows lie below and at each cut, and the sum of
those between two cuts. Counts give the distribution functions exactly at the cuts; counts and sums give the
area between them exactly wherever they do not cross between two cuts. So a check reads the current side
only, in batches, in memory that does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.ml.drift_counts import BATCH_ROWS, Categories, CategoryCounter, NumberCounter, Numbers, Scale
from airflow_mlops.ml.drift_values import NUMBER_KINDS, core, to_numbers

CUTS = 1024


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
