"""Tests of two samples for thousands of keys at once: arrays with the rows of all keys in, one p-value a key out.

Among 100,000 tests those count whose p-value is far below 1e-5, of 40 rows against 200. So nothing here leans on large
samples: Kolmogorov and Smirnov's test counts paths (J. L. Hodges, *Arkiv för Matematik* 3, 1958), which is exact
without ties and errs to the safe side with them; shares are tested by Fisher's hypergeometric tails, doubled. Mann and
Whitney's test of the ranks, which sees a shift sooner, takes the normal distribution, whose tails are longer than its
own (kurtosis below 3), with the correction for continuity, and is left out where most of the rows are tied.

Over all keys: van Elteren's sum of rank tests (*Bulletin of the Institute of International Statistics* 37, 1960) for
numbers, Cochran, Mantel and Haenszel's (*JNCI* 22, 1959) for shares. Both only compare rows of one key with each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.special import gammaln, kolmogorov, ndtr

_CELLS = 2**21  # of a padded array in memory
_SURE = 0.25
"""From this p-value on, Kolmogorov's limit is near enough: nobody rejects here."""
_LEAST_P = 1e-12
"""Below this p-values are not told apart: 1 minus the sum of all other paths has no more digits."""
_MOST_TIED = 0.25  # sum of the cubed shares of tied rows; one value in 63 % of the rows has that
_TAIL = 0.01
_LEAST_VARIANCE = 5.0


@dataclass(frozen=True)
class Side:
    """One column's values of all keys on one side.

    :param values: shape (rows,), float64, NaN where missing; of a column of categories codes from 0, −1 where missing.
    :param starts: shape (keys + 1,): where the rows of each key begin, and the end.
    """

    values: np.ndarray
    starts: np.ndarray

    @property
    def keys(self) -> int:
        """How many keys."""
        return len(self.starts) - 1

    @property
    def of_row(self) -> np.ndarray:
        """The number of each row's key."""
        return np.repeat(np.arange(self.keys), np.diff(self.starts))

    def present(self, missing: np.ndarray) -> Side:
        """The rows that are not missing."""
        counts = np.bincount(self.of_row[~missing], minlength=self.keys)
        return Side(self.values[~missing], np.concatenate([[0], np.cumsum(counts)]))


@dataclass(frozen=True)
class Found:
    """What one kind of test says of each key, all of shape (keys,).

    :param effect: size of the change; NaN where nothing was tested.
    :param p_value: NaN where nothing was tested.
    :param constant: of numbers, whether the reference is constant, so that the effect is a change of shares.
    """

    effect: np.ndarray
    p_value: np.ndarray
    constant: np.ndarray


@dataclass
class Together:
    """What adds up to a test over all keys, and over all but some.

    :param first: number of the first key of those that are added now.
    """

    first: int = 0
    parts: list[np.ndarray] = field(default_factory=list)

    def add(
        self, off: np.ndarray, variance: np.ndarray, change: np.ndarray, weight: np.ndarray, keys: np.ndarray
    ) -> None:
        """Take some keys, all arrays of shape (keys,).

        :param off: differences from what chance foretells; ``variance``: of these.
        :param change: of each key; ``weight``: what it counts for the mean change.
        :param keys: their numbers, from :attr:`first` on.
        """
        self.parts.append(np.stack([keys + self.first, off, variance, change * weight, weight]).astype(np.float64))

    def take(self, other: Together) -> None:
        """Take what another one has, whose keys are those from :attr:`first` on."""
        self.parts += [part + np.array([[self.first], [0], [0], [0], [0]]) for part in other.parts]

    def weight(self, without: np.ndarray | None = None) -> float:
        """What all keys count for, but those ``without``."""
        kept = [p[4] if without is None else p[4, ~np.isin(p[0], without)] for p in self.parts]
        return float(sum(part.sum() for part in kept))

    def tested(self, without: np.ndarray | None = None) -> tuple[float, float]:
        """The mean change over keys, weighted by what each knows, and the p-value of none in any of them (normal).

        :param without: numbers of keys that are left out.
        """
        parts = np.concatenate(self.parts, axis=1) if self.parts else np.zeros((5, 0))
        if without is not None:
            parts = parts[:, ~np.isin(parts[0], without)]
        _, off, variance, weighted, weight = parts.sum(axis=1)
        # Of a category that is in a few rows of all keys a normal p-value says nothing.
        p = float(2 * ndtr(-abs(off) / np.sqrt(variance))) if variance >= _LEAST_VARIANCE else 1.0
        return (float(weighted / weight) if weight else 0.0), p


# --- numbers -----------------------------------------------------------------------------------


def compare_numbers(ref: Side, cur: Side, tested: np.ndarray, factor: float, together: Together) -> Found:
    """Compare the numbers of each key: Wasserstein distance in σ of the reference, Kolmogorov–Smirnov and ranks.

    Values beyond a fence, one reference range (1 % to 99 % quantile) outside that range, count as on it. Of a reference
    that is constant (up to 1 %) the effect is the change of the share of rows below, at and above its value.

    :param ref: without missing rows, like ``cur``.
    :param tested: shape (keys,), True for those with rows enough.
    :param factor: how many rows are worth one independent row.
    :param together: takes what the ranks say.
    """
    found = Found(np.full(ref.keys, np.nan), np.full(ref.keys, np.nan), np.zeros(ref.keys, dtype=bool))
    for some in _batches(np.diff(ref.starts) + np.diff(cur.starts), tested):
        _numbers(ref, cur, some, factor, together, found)
    return found


def _numbers(ref: Side, cur: Side, some: np.ndarray, factor: float, together: Together, found: Found) -> None:
    n, m = np.diff(ref.starts)[some], np.diff(cur.starts)[some]
    total = n + m
    values = np.full((len(some), int(total.max()) + 1), np.inf)
    current = np.zeros(values.shape, dtype=bool)
    for side, counts, first in ((ref, n, np.zeros(len(some), dtype=np.int64)), (cur, m, n)):
        rows = np.repeat(np.arange(len(some)), counts)
        at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        values[rows, at + first[rows]] = side.values[side.starts[some][rows] + at]
        if side is cur:
            current[rows, at + first[rows]] = True
    order = np.argsort(values, axis=1, kind="stable")
    values, current = np.take_along_axis(values, order, 1), np.take_along_axis(current, order, 1)
    place = np.arange(values.shape[1])[None, :]
    below_cur = np.cumsum(current, axis=1, dtype=np.int64)
    below_ref = np.minimum(place + 1, total[:, None]) - below_cur
    inside = place < total[:, None]
    # The last one of equal values; beyond the rows there is infinity.
    larger = np.concatenate([values[:, 1:] > values[:, :-1], np.zeros((len(some), 1), dtype=bool)], axis=1)
    ends = inside & larger
    gap = np.where(ends, np.abs(below_cur * n[:, None] - below_ref * m[:, None]), 0)
    largest = gap.max(axis=1)

    # Mann and Whitney: pairs in which the current value is the larger one, ties by half.
    last = np.maximum.accumulate(np.where(ends, place, -1), axis=1)
    before = np.concatenate([np.full((len(some), 1), -1), last[:, :-1]], axis=1)
    zero = np.zeros((len(some), 1), dtype=np.int64)
    ref_before = np.take_along_axis(np.concatenate([zero, below_ref], axis=1), before + 1, 1)
    cur_before = np.take_along_axis(np.concatenate([zero, below_cur], axis=1), before + 1, 1)
    tied = np.where(ends, place - before, 0).astype(np.float64)
    pairs = np.where(ends, (below_cur - cur_before) * (ref_before + below_ref), 0).sum(axis=1) / 2
    size, both = total.astype(np.float64), n * m / 1.0
    cubes = (tied**3).sum(axis=1)
    variance = both / 12 * (size + 1 - (cubes - size) / (size * (size - 1))) * factor
    off = pairs - both / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        ranks = np.where(variance > 0, 2 * ndtr(-np.maximum(np.abs(off) - 0.5, 0) / np.sqrt(variance)), 1.0)
    together.add(off / size, variance / size**2, off / both, both / size, some)
    alone = cubes > _MOST_TIED * size**3
    p = ks_p_values(largest / both, n / factor, m / factor)
    found.p_value[some] = np.where(alone, p, np.minimum(1.0, 2 * np.minimum(p, ranks)))
    found.effect[some], found.constant[some] = _distance(values, current, below_ref, ends, gap / both[:, None], n, m)


def _distance(
    values: np.ndarray,
    current: np.ndarray,
    below_ref: np.ndarray,
    ends: np.ndarray,
    gap: np.ndarray,
    n: np.ndarray,
    m: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Wasserstein distance in σ, or of a constant reference the change of shares; and which keys are of that kind."""
    every = np.arange(len(n))
    low_place, high_place = np.floor(_TAIL * (n - 1)), np.ceil((1 - _TAIL) * (n - 1))
    low = values[every, np.argmax(below_ref > low_place[:, None], axis=1)]
    high = values[every, np.argmax(below_ref > high_place[:, None], axis=1)]
    reach = high - low
    constant = reach <= 0
    inside = np.isfinite(values)
    fenced = np.clip(values, (low - reach)[:, None], (high + reach)[:, None])
    of_ref = inside & ~current
    # From its own low end: a large common part would cost digits.
    shifted = np.where(of_ref, fenced - low[:, None], 0.0)
    mean = shifted.sum(axis=1) / n
    sigma = np.sqrt(np.where(of_ref, (shifted - mean[:, None]) ** 2, 0.0).sum(axis=1) / n)
    steps = np.where(ends[:, :-1] & inside[:, 1:], np.diff(fenced, axis=1), 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        effect = np.where(constant, 0.0, (gap[:, :-1] * steps).sum(axis=1) / sigma)
    if constant.any():
        value, some = low[constant, None], values[constant]
        shares = []
        for mask, count in ((of_ref, n), (inside & current, m)):
            mine = mask[constant]
            around = (some < value, some == value, some > value)
            shares.append([(mine & where).sum(axis=1) / count[constant] for where in around])
        effect[constant] = np.abs(np.array(shares[0]) - np.array(shares[1])).max(axis=0)
    return effect, constant


def ks_p_values(gap: np.ndarray, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    """p-values of Kolmogorov and Smirnov's two-sample test, shape (tests,).

    :param gap: largest distance of the distribution functions; ``n`` and ``m``: rows of the sides, or so many as they
        are worth (rounded).
    """
    n, m = np.maximum(np.rint(n), 1).astype(np.int64), np.maximum(np.rint(m), 1).astype(np.int64)
    p = np.minimum(kolmogorov(gap * np.sqrt(n * m / (n + m))), 1.0)
    small = np.flatnonzero(p < _SURE)
    small = small[np.lexsort((m[small], n[small]))]
    begin = 0
    while begin < len(small):
        width = int(np.maximum(n, m)[small[begin:]].max()) + 1
        some = small[begin : begin + max(1, _CELLS // (4 * width))]
        p[some] = _paths_outside(gap[some], n[some], m[some])
        begin += len(some)
    return p


def _paths_outside(gap: np.ndarray, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Share of the paths from (0, 0) to (n, m) that leave the band of less than ``gap`` around the diagonal."""
    n, m = np.maximum(n, m), np.minimum(n, m)
    # In whole numbers, so that a distance that is equal counts as reached.
    reach = np.ceil(gap * n * m - 1e-6).astype(np.int64)
    j = np.arange(int(n.max()) + 1)[None, :]
    paths = (j * m[:, None] < reach[:, None]).astype(np.float64) * (j <= n[:, None])
    inside = np.zeros(len(n))
    for i in range(1, int(m.max()) + 1):
        diagonal = i * n
        low, high = (diagonal - reach) // m + 1, -(-(diagonal + reach) // m) - 1
        paths = np.cumsum(np.where(j >= low[:, None], paths, 0.0), axis=1)
        paths = np.where(j <= np.minimum(high, n)[:, None], paths, 0.0) * (i / (n + i))[:, None]
        done = m == i
        inside[done] = paths[done, n[done]]
    return np.clip(1 - inside, _LEAST_P, 1.0)


# --- shares ------------------------------------------------------------------------------------


def compare_shares(
    hits: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    factor: float,
    together: Together,
    keys: np.ndarray | None = None,
) -> np.ndarray:
    """p-values of two shares being one, shape (tests,): Fisher's exact test, the smaller tail doubled.

    :param hits: of reference and current; ``rows`` likewise.
    :param factor: how many rows are worth one independent row.
    :param together: takes the same tests as Mantel and Haenszel do.
    :param keys: number of each test's key; default: from 0 on.
    """
    (a, b), (n, m) = hits, rows
    size = (n + m).astype(np.float64)
    share = (a + b) / size
    # Rows divided by the factor are the independent rows that they are worth.
    variance = n * m * share * (1 - share) / np.maximum(size - 1, 1) / factor
    owners = np.arange(len(a)) if keys is None else keys
    together.add((b - m * share) / factor, variance, b / m - a / n, n * m / size, owners)
    if factor > 1:
        a, b, n, m = (np.rint(x / factor).astype(np.int64) for x in (a, b, n, m))
    p = np.ones(len(a))
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(b / m - a / n) / np.sqrt(share * (1 - share) * (1 / n + 1 / m))
    todo = np.flatnonzero(far >= 1)
    todo = todo[np.argsort(np.minimum(m, a + b)[todo], kind="stable")]
    begin = 0
    while begin < len(todo):
        some = todo[begin : begin + max(1, _CELLS // (int(np.minimum(m, a + b)[todo].max()) + 1))]
        p[some] = _fisher(a[some], b[some], n[some], m[some])
        begin += len(some)
    return p


def _fisher(a: np.ndarray, b: np.ndarray, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    together = a + b
    factorials = gammaln(np.arange(int((n + m).max()) + 1) + 1.0)
    k = np.arange(int(np.minimum(m, together).max()) + 1)[None, :]
    rest = together[:, None] - k
    possible = (k <= np.minimum(m, together)[:, None]) & (rest <= n[:, None]) & (rest >= 0)
    k_, rest_ = np.where(possible, k, 0), np.where(possible, rest, 0)

    def chosen(of: np.ndarray, some: np.ndarray) -> np.ndarray:
        return factorials[of] - factorials[some] - factorials[np.maximum(of - some, 0)]

    logs = chosen(m[:, None], k_) + chosen(n[:, None], rest_) - chosen(n + m, together)[:, None]
    chances = np.where(possible, np.exp(np.minimum(logs, 0.0)), 0.0)
    upper = np.where(k >= b[:, None], chances, 0.0).sum(axis=1)
    lower = np.where(k <= b[:, None], chances, 0.0).sum(axis=1)
    return np.minimum(1.0, 2 * np.minimum(upper, lower))


def compare_categories(ref: Side, cur: Side, tested: np.ndarray, factor: float, together: dict[int, Together]) -> Found:
    """Compare the shares of each key's categories: the change that is the least likely, among as many as the key has.

    :param ref: codes from 0, without missing rows, like ``cur``.
    :param together: by code; takes what Mantel and Haenszel's test needs.
    """
    n, m = np.diff(ref.starts), np.diff(cur.starts)
    codes = int(max(ref.values.max(initial=0), cur.values.max(initial=0))) + 1
    cells = [side.of_row * codes + side.values.astype(np.int64) for side in (ref, cur)]
    cells = [c[np.repeat(tested, np.diff(side.starts))] for c, side in zip(cells, (ref, cur), strict=True)]
    known, place = np.unique(np.concatenate(cells), return_inverse=True)
    cut = len(cells[0])
    hits = [np.bincount(part, minlength=len(known)) for part in (place[:cut], place[cut:])]
    key, code = np.divmod(known, codes)
    p = np.ones(len(known))
    for one in range(codes):
        mine = np.flatnonzero(code == one)
        if len(mine):
            of_code = together.setdefault(one, Together())
            own = key[mine]
            p[mine] = compare_shares((hits[0][mine], hits[1][mine]), (n[own], m[own]), factor, of_code, own)
    found = Found(np.full(ref.keys, np.nan), np.full(ref.keys, np.nan), np.zeros(ref.keys, dtype=bool))
    if not len(known):
        return found
    change = np.abs(hits[0] / n[key] - hits[1] / m[key])
    order = np.lexsort((-change, p, key))
    first = order[np.concatenate([[True], np.diff(key[order]) > 0])]
    many = np.bincount(key, minlength=ref.keys)[key[first]]
    # Two categories are one: what one wins the other loses.
    found.p_value[key[first]] = np.minimum(1.0, p[first] * np.where(many == 2, 1, many))
    found.effect[key[first]] = change[first]
    return found


def _batches(sizes: np.ndarray, tested: np.ndarray) -> Iterator[np.ndarray]:
    """Keys of like size, a padded array at a time."""
    keys = np.flatnonzero(tested)
    keys = keys[np.argsort(-sizes[keys], kind="stable")]
    begin = 0
    while begin < len(keys):
        count = max(1, _CELLS // (int(sizes[keys[begin]]) + 1))
        yield keys[begin : begin + count]
        begin += count
