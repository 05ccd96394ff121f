"""Drift of each key of a fleet against what its model was trained on, and of all keys together.

A key's column drifts when its change is large (as for one model: ``monitor.drift.effect``, half of it for shares, two
points for the missing rate) and significant over all tests of the fleet: by Benjamini & Hochberg's procedure (1995,
*JRSS B* 57, 289-300) at most ``alpha`` of the alarms are expected to be false, and where nothing drifts anywhere the
probability of a single alarm is at most ``alpha``. What each key has too few rows to show, all keys show together: the
tests over all keys (key ``*``) belong to the same family. Where keys alarm by themselves, the others are asked again
without them: a column has changed everywhere only if it has changed in those, too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import ndtri

from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.ml.drift import MISSING_POINTS, critical_p
from airflow_mlops.ml.drift_values import coded, to_numbers
from airflow_mlops.ml.fleet.dependence import dependence, marked, window_dependence
from airflow_mlops.ml.fleet.drift_tests import (
    Found,
    Side,
    Together,
    compare_categories,
    compare_numbers,
    compare_shares,
)
from airflow_mlops.store import get_blob, put_blob
from airflow_mlops.store.base import Store

ALL_KEYS = "*"
MOST_ROWS = 500
"""Rows of a key and side that are compared: of more, so many at equal distances."""
_NAMED = 5

W1, CONSTANT, SHARE, MISSING = "W1", "share off the constant", "L∞", "missing rate"
_SHIFT, _SHARE_OF_ALL = "shift over all keys", "share over all keys"
_COLUMNS = ["key", "version", "column", "statistic", "effect", "threshold", "p_value", "reference_rows", "current_rows"]


@dataclass(frozen=True)
class Stretch:
    """Some keys with the rows of both sides.

    :param reference: rows ordered by key and then by time; ``reference_starts``, shape (keys + 1,): where each key's
        rows begin, and the end. ``current`` and ``current_starts`` likewise.
    :param versions: of each key, the version whose training rows these are.
    :param kinds: column → ``number``, ``boolean`` or ``category``.
    :param worth: column → how many neighbouring training rows are worth one independent row, of its values and of its
        gaps, as :func:`dependence_of` says of all of them. The rows of the reference may be far apart, those of a
        window are not.
    """

    keys: Sequence[str]
    versions: Sequence[int]
    reference: pd.DataFrame
    reference_starts: np.ndarray
    current: pd.DataFrame
    current_starts: np.ndarray
    kinds: Mapping[str, str]
    worth: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class FleetDrift:
    """What was found.

    :param tests: a row for each test: ``key`` (``*``: over all keys), ``version`` (0 there), ``column``, ``statistic``,
        ``effect``, ``threshold``, ``p_value``, ``reference_rows``, ``current_rows``, ``alarm``. What all keys show only
        because of those that alarm by themselves is no alarm.
    :param limit: the largest p-value that is significant over all of them; −1: none is.
    :param compared: keys that had a test; ``few``: keys with too few rows for any.
    :param everywhere: columns that drift over all keys together, also without the keys that alarm by themselves.
    """

    verdict: str
    sentence: str
    tests: pd.DataFrame
    limit: float
    compared: int
    few: int
    everywhere: tuple[str, ...] = ()

    @property
    def drifted(self) -> list[str]:
        """The keys with an alarm of their own."""
        alarms = self.tests[self.tests["alarm"]]
        return [key for key in alarms["key"].unique().tolist() if key != ALL_KEYS]

    @property
    def columns(self) -> list[dict[str, Any]]:
        """For each column in how many of its keys it drifted, as the drift check of one model tells columns."""
        told = []
        for name, tests in self.tests.groupby("column", sort=False):
            own = tests[tests["key"] != ALL_KEYS]
            everywhere = name in self.everywhere
            keys, drifted = own["key"].nunique(), own.loc[own["alarm"], "key"].nunique()
            words = f"{name}: drift in {drifted:,} of {keys:,} keys" + (", and in all together" if everywhere else "")
            told.append(
                {
                    "name": str(name),
                    "kind": "fleet",
                    "statistic": "share of keys",
                    "effect": drifted / keys if keys else 0.0,
                    "p_value": float(tests["p_value"].min()),
                    "drifted": bool(drifted or everywhere),
                    "sentence": words,
                    "threshold": None,
                }
            )
        return told


def check_fleet_drift(stretches: Iterable[Stretch], config: Drift) -> FleetDrift:
    """Compare both sides of each key, a stretch of keys in memory at a time.

    Rows of a key that hang together in time count as fewer, unless ``config.independent_rows``.
    """
    parts: list[pd.DataFrame] = []
    everywhere = _Everywhere()
    order: dict[str, int] = {}
    few = compared = 0
    keys: list[str] = []
    for stretch in stretches:
        everywhere.first = len(keys)
        keys += stretch.keys
        made = _stretch(stretch, config, everywhere)
        for name in stretch.kinds:
            order.setdefault(name, len(order))
        parts += made
        tested = len(set().union(*(part["key"] for part in made)))
        compared += tested
        few += len(stretch.keys) - tested
    over_all = everywhere.tests()
    tests = pd.concat([*parts, over_all], ignore_index=True) if parts else over_all
    limit = critical_p(tests["p_value"].tolist(), config.alpha, "bh")
    tests["alarm"] = (tests["p_value"] <= limit) & (tests["effect"] >= tests["threshold"])
    places = np.lexsort((tests["column"].map(order).to_numpy(), tests["key"].to_numpy()))
    tests = tests.iloc[places].reset_index(drop=True)
    # Where Benjamini and Hochberg's line lies; the limit is the last p-value below it.
    level = config.alpha * int((tests["p_value"] <= limit).sum()) / max(len(tests), 1)
    stands = _everywhere(tests, everywhere, keys, level)
    explained = (tests["key"] == ALL_KEYS) & ~tests["column"].isin(stands)
    tests["alarm"] &= ~explained
    return FleetDrift(*_told(tests, stands, compared, few), tests, limit, compared, few, stands)


def _everywhere(tests: pd.DataFrame, everywhere: _Everywhere, keys: Sequence[str], level: float) -> tuple[str, ...]:
    """Columns that drift over all keys together, with and without those that alarm by themselves."""
    over_all = tests[tests["alarm"] & (tests["key"] == ALL_KEYS)]
    alone = {*tests.loc[tests["alarm"], "key"]} - {ALL_KEYS}
    if over_all.empty:
        return ()
    rest = everywhere.tests(np.array([number for number, key in enumerate(keys) if key in alone]))
    still = rest[(rest["p_value"] <= level) & (rest["effect"] >= rest["threshold"])]
    shown = {*zip(still["column"], still["statistic"], strict=True)}
    pairs = zip(over_all["column"], over_all["statistic"], strict=True)
    return tuple(dict.fromkeys(column for column, statistic in pairs if (column, statistic) in shown))


def _told(tests: pd.DataFrame, everywhere: Sequence[str], compared: int, few: int) -> tuple[str, str]:
    tail = f"; {few:,} key{' has' if few == 1 else 's have'} too few rows" if few else ""
    if not compared:
        return "not_enough_data", f"not enough data: no key has rows enough{tail}"
    alarms = tests[tests["alarm"]]
    if alarms.empty:
        return "no_drift", f"no drift in {compared:,} keys ({len(tests):,} tests){tail}"
    own = alarms[alarms["key"] != ALL_KEYS]
    worst = own.sort_values("p_value", kind="stable").drop_duplicates("key")
    shown = [f"{r.key} ({r.column}, {r.statistic} {r.effect:.2g})" for r in worst.head(_NAMED).itertuples()]
    more = f" and {len(worst) - _NAMED:,} more" if len(worst) > _NAMED else ""
    head = [f"drift in {len(worst):,} of {compared:,} keys: {', '.join(shown)}{more}"] if shown else []
    head += [f"drift over all keys in {', '.join(everywhere)}"] if everywhere else []
    return "drift", "; ".join(head) + tail


# --- one stretch -------------------------------------------------------------------------------


def _stretch(stretch: Stretch, config: Drift, everywhere: _Everywhere) -> list[pd.DataFrame]:
    both = stretch.reference_starts, stretch.current_starts
    rows = [thinned(starts) for starts in both]
    kept = [np.concatenate([[0], np.cumsum(np.minimum(np.diff(starts), MOST_ROWS))]) for starts in both]
    found: list[pd.DataFrame] = []
    for column, kind in stretch.kinds.items():
        values = _values(stretch, column, kind, everywhere)
        ref, cur = (Side(v[r], s) for v, r, s in zip(values, rows, kept, strict=True))
        missing = [side.values < 0 if kind == "category" else np.isnan(side.values) for side in (ref, cur)]
        found += _gaps(stretch, column, (ref, cur), missing, config, everywhere)
        ref, cur = ref.present(missing[0]), cur.present(missing[1])
        n, m = np.diff(ref.starts), np.diff(cur.starts)
        tested = np.minimum(n, m) >= config.min_rows
        if not tested.any():
            continue
        sides = marked(ref, kind), marked(cur, kind)
        factor = 1.0 if config.independent_rows else _together(sides, _worth(stretch, column)[0])
        if kind == "number":
            of_all = everywhere.of(column, "", _SHIFT, config.effect)
            one, name, limit = compare_numbers(ref, cur, tested, factor, of_all), W1, config.effect
        else:
            codes: dict[int, Together] = {}
            one, name, limit = compare_categories(ref, cur, tested, factor, codes), SHARE, config.effect / 2
            everywhere.take(column, codes, limit, np.where(tested, n * m / np.maximum(n + m, 1), 0.0))
        statistic = np.where(one.constant, CONSTANT, name)
        found.append(_rows(stretch, column, statistic, np.where(one.constant, config.effect / 2, limit), one, n, m))
    return found


def thinned(starts: np.ndarray) -> np.ndarray:
    """Numbers of the rows that are compared, of each key at most so many at equal distances.

    :param starts: shape (keys + 1,): where the rows of each key begin, and the end.
    """
    counts = np.diff(starts)
    kept = np.minimum(counts, MOST_ROWS)
    at = np.arange(kept.sum()) - np.repeat(np.cumsum(kept) - kept, kept)
    return np.repeat(starts[:-1], kept) + at * np.repeat(counts, kept) // np.repeat(np.maximum(kept, 1), kept)


def _values(stretch: Stretch, column: str, kind: str, everywhere: _Everywhere) -> list[np.ndarray]:
    frames = stretch.reference, stretch.current
    sides = [f[column] if column in f else pd.Series(np.nan, index=f.index) for f in frames]
    if kind == "category":
        return [everywhere.codes(column, side).astype(np.float64) for side in sides]
    return [to_numbers(side.astype(np.float64) if kind == "boolean" else side) for side in sides]


def _together(sides: Sequence[Side], trained: float) -> float:
    """How many rows are worth one independent row, on the side where they hang together more."""
    return max(dependence(sides[0]), window_dependence(sides[1]), trained)


def _worth(stretch: Stretch, column: str) -> Sequence[float]:
    return stretch.worth.get(column, (1.0, 1.0))


def _gaps(
    stretch: Stretch,
    column: str,
    sides: tuple[Side, Side],
    missing: Sequence[np.ndarray],
    config: Drift,
    everywhere: _Everywhere,
) -> list[pd.DataFrame]:
    ref, cur = sides
    a, b = (np.bincount(s.of_row[gone], minlength=s.keys) for s, gone in zip(sides, missing, strict=True))
    n, m = np.diff(ref.starts), np.diff(cur.starts)
    tested = np.flatnonzero(np.minimum(n, m) >= config.min_rows)
    if not len(tested) or not (a + b).any():
        return []
    gone = [Side(mask.astype(np.float64), side.starts) for side, mask in zip(sides, missing, strict=True)]
    factor = 1.0 if config.independent_rows else _together(gone, _worth(stretch, column)[1])
    of_all = everywhere.of(column, "", MISSING, MISSING_POINTS)
    p = compare_shares((a[tested], b[tested]), (n[tested], m[tested]), factor, of_all)
    found = Found(np.full(ref.keys, np.nan), np.full(ref.keys, np.nan), np.zeros(ref.keys, dtype=bool))
    some = (a + b)[tested] > 0  # without a gap on either side there is nothing to test
    keys = tested[some]
    found.p_value[keys], found.effect[keys] = p[some], np.abs(a[keys] / n[keys] - b[keys] / m[keys])
    return [_rows(stretch, column, np.full(ref.keys, MISSING), np.full(ref.keys, MISSING_POINTS), found, n, m)]


def _rows(
    stretch: Stretch,
    column: str,
    statistic: np.ndarray,
    threshold: np.ndarray,
    found: Found,
    n: np.ndarray,
    m: np.ndarray,
) -> pd.DataFrame:
    known = np.flatnonzero(~np.isnan(found.p_value))
    keys, versions = np.asarray(stretch.keys, dtype=object), np.asarray(stretch.versions, dtype=np.int64)
    columns = (
        keys[known], versions[known], column, statistic[known], found.effect[known], threshold[known],
        found.p_value[known], n[known], m[known],
    )  # fmt: skip
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))


# --- all keys together -------------------------------------------------------------------------


class _Everywhere:
    """Adds up what each key says of each column, and keeps one code for each category of the fleet."""

    def __init__(self) -> None:
        self.first = 0
        """Number of the first key of the stretch."""
        self._codes: dict[str, dict[str, int]] = {}
        self._sums: dict[tuple[str, str, str], tuple[Together, float]] = {}
        self._weights: dict[str, Together] = {}

    def codes(self, column: str, values: pd.Series) -> np.ndarray:
        """Codes of shape (rows,), −1 where missing."""
        codes, texts = coded(values)
        known = self._codes.setdefault(column, {})
        return np.array([known.setdefault(text, len(known)) for text in texts] + [-1], dtype=np.int64)[codes]

    def of(self, column: str, category: str, statistic: str, threshold: float) -> Together:
        """The sum of one test, ready for the keys of the stretch."""
        total = self._sums.setdefault((column, category, statistic), (Together(), threshold))[0]
        total.first = self.first
        return total

    def take(self, column: str, codes: Mapping[int, Together], threshold: float, weight: np.ndarray) -> None:
        """Take the sums of some keys' categories.

        :param weight: what each key of the stretch counts for, shape (keys,), whether it has a category or not.
        """
        nothing, keys = np.zeros(len(weight)), np.arange(len(weight))
        of_column = self._weights.setdefault(column, Together())
        of_column.first = self.first
        of_column.add(nothing, nothing, nothing, weight, keys)
        for code, some in codes.items():
            self.of(column, str(code), _SHARE_OF_ALL, threshold).take(some)

    def tests(self, without: np.ndarray | None = None) -> pd.DataFrame:
        """A row for each column and statistic; of categories the least likely change, among as many as there are.

        :param without: numbers of keys that are left out.
        """
        found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
        for (column, _, statistic), (total, threshold) in self._sums.items():
            change, p = total.tested(without)
            if statistic == _SHIFT:
                # P(current > reference) of two normal distributions that are so many σ apart.
                change = math.sqrt(2) * float(ndtri(min(max(0.5 + change, 1e-9), 1 - 1e-9)))
            elif statistic == _SHARE_OF_ALL and (all_keys := self._weights[column].weight(without)):
                # In a key without the category its share has not changed.
                change *= total.weight(without) / all_keys
            found.setdefault((column, statistic), []).append((p, abs(change), threshold))
        rows = []
        for (column, statistic), tests in found.items():
            least, effect, threshold = min(tests, key=lambda t: (t[0], -t[1]))
            many = 1 if len(tests) == 2 else len(tests)
            rows.append((ALL_KEYS, 0, column, statistic, effect, threshold, min(1.0, least * many), 0, 0))
        return pd.DataFrame(rows, columns=_COLUMNS)


# --- tables ------------------------------------------------------------------------------------


def put_tests(store: Store, tests: pd.DataFrame) -> str:
    """Store a table of tests as Parquet and return its digest."""
    sink = io.BytesIO()
    table = pa.Table.from_pandas(tests, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return put_blob(store, sink.getvalue())


def read_tests(store: Store, digest: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table of tests, or some of its columns.

    :raises CorruptObject: it is damaged.
    """
    try:
        data = io.BytesIO(get_blob(store, digest))
        return pq.read_table(data, columns=columns, page_checksum_verification=True).to_pandas()
    except pa.ArrowException as e:
        raise CorruptObject(f"the table {digest} cannot be read: {e}", hint="run the check again") from e
