"""How much rows that hang together inflate what a test takes for chance.

A day's flights share the day's weather: a thousand of them say less about flights than a thousand flights
of different days. By how much is measured on the rows in their order, by the means of blocks ("batch means":
C. J. Geyer, Practical Markov chain Monte Carlo, Statistical Science 7, 1992; H. Flyvbjerg and H. G. Petersen,
Error estimates on averages of correlated data, J. Chem. Phys. 91, 1989): means of blocks of independent rows
vary by σ²/length, and by a factor more where neighbours are alike. Rows divided by that factor are the
independent rows that the sample is worth.
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri, ndtr

_HELD = 2**14  # block sums in memory, and first rows looked at for short-range dependence
_BLOCKS = 32
_FEWEST_BLOCKS = 8
_EVIDENCE = 0.002  # at each of about a dozen block lengths: independent rows are mistaken in 1 to 2 % of columns
_BOUND = 0.01


class Dependence:
    """Collects one column's values in the order of its rows; memory stays flat.

    ``changes`` counts the values that differ from the one before.
    """

    def __init__(self) -> None:
        self.rows = self.changes = 0
        self._rises = self._falls = True
        self._last = np.empty(0)
        self._sum = self._squares = 0.0
        self._first = np.empty(0)
        self._length = 1  # rows of a block
        self._blocks = np.empty(0)  # sums of whole blocks
        self._open, self._open_rows = 0.0, 0

    def add(self, values: np.ndarray) -> None:
        """Take the next values, shape (n,), finite, of moderate size."""
        if len(self._first) < _HELD:
            self._first = np.concatenate([self._first, values[: _HELD - len(self._first)]])
        along = np.concatenate([self._last, values])
        ups, downs = (int(np.count_nonzero(c)) for c in (along[1:] > along[:-1], along[1:] < along[:-1]))
        self.changes += ups + downs
        self._rises, self._falls = self._rises and not downs, self._falls and not ups
        self._last = along[-1:]
        self.rows += len(values)
        self._sum += float(values.sum())
        self._squares += float(np.square(values).sum())
        if self._open_rows:
            fill = values[: self._length - self._open_rows]
            self._open, self._open_rows = self._open + float(fill.sum()), self._open_rows + len(fill)
            if self._open_rows < self._length:
                return
            self._blocks = np.append(self._blocks, self._open)
            values = values[len(fill) :]
        whole = len(values) // self._length * self._length
        sums, length = values[:whole], 1
        while length < self._length:  # numpy sums up many short rows slowly
            sums, length = sums[0::2] + sums[1::2], 2 * length
        self._blocks = np.concatenate([self._blocks, sums])
        self._open, self._open_rows = float(values[whole:].sum()), len(values) - whole
        while len(self._blocks) > _HELD:
            self._double()

    def _double(self) -> None:
        if len(self._blocks) % 2:  # the last block begins one of twice its length
            self._open += float(self._blocks[-1])
            self._open_rows += self._length
            self._blocks = self._blocks[:-1]
        self._blocks = self._blocks[0::2] + self._blocks[1::2]
        self._length *= 2

    def factor(self, *, shown: bool = False) -> float:
        """How many rows are worth one independent row, 1.0 or more.

        :param shown: that rows hang together has been shown already.

        1.0 unless blocks of some length vary more than independent rows' would. Else the ratio at 32 blocks
        (8 where there are fewer than 256 rows), as the upper end of its 99 % bound: a block that is not much
        longer than the memory of the rows measures too little, and few blocks measure badly. Values that only
        rise, or only fall, have been sorted: their order says nothing.
        """
        if self.rows < 2 * _FEWEST_BLOCKS or self._rises or self._falls:
            return 1.0
        mean = self._sum / self.rows
        variance = self._squares / self.rows - mean * mean
        if not variance > 1e-12 * max(self._squares / self.rows, 1e-300):
            return 1.0
        first = self._first - self._first.mean()
        blocks = self._blocks - mean * self._length
        shown = shown or _varies(first, 1, float(first @ first) / len(first))
        if not shown and not (self._length > 1 and _varies(blocks, self._length, variance)):
            return 1.0
        return float(inflation(blocks[:, None], self._length, np.array([variance]), self.rows)[0])


def inflation(blocks: np.ndarray, length: int, variance: np.ndarray, rows: int) -> np.ndarray:
    """The factor of :meth:`Dependence.factor` for rows that are known to hang together, shape (k,).

    :param blocks: sums of k columns over blocks of ``length`` rows, shape (blocks, k); at least 16 blocks.
    :param variance: of one row, shape (k,); 0 where a column is constant.
    """
    count = min(_BLOCKS, max(_FEWEST_BLOCKS, rows // _BLOCKS))
    joined = len(blocks) // count
    sums = blocks[: joined * count].reshape(count, joined, -1).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(variance > 0, sums.var(axis=0, ddof=1) / (joined * length * variance), 1.0)
    found: np.ndarray = np.maximum(1.0, ratio * (count - 1) / float(chdtri(count - 1, 1 - _BOUND)))
    return found


def few_runs(changes: int, counts: np.ndarray) -> bool:
    """Whether rows of one category stand together more than in a random order.

    The number of runs is held against its distribution over all orders (A. M. Mood, The distribution theory of runs,
    Ann. Math. Stat. 11, 1940), normal approximation. On few rows it sees what means of blocks cannot.

    :param changes: rows whose category is not that of the row before.
    :param counts: rows of each category, shape (k,).
    """
    sizes = counts.astype(np.float64)
    n, squares, cubes = float(sizes.sum()), float((sizes**2).sum()), float((sizes**3).sum())
    if n < 2 * _FEWEST_BLOCKS:
        return False
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    if variance <= 0:  # one category, or each once
        return False
    return bool(ndtr((changes + 1 - (n + 1 - squares / n)) / np.sqrt(variance)) < _EVIDENCE)


def _varies(sums: np.ndarray, length: int, variance: float) -> bool:
    """Whether blocks of any length (doubled step by step) vary more than those of independent rows."""
    while len(sums) >= 2 * _FEWEST_BLOCKS:
        if length > 1 and variance > 0:
            degrees = len(sums) - 1
            if float(sums.var(ddof=1)) * degrees > length * variance * float(chdtri(degrees, _EVIDENCE)):
                return True
        even = len(sums) // 2 * 2
        sums, length = sums[0:even:2] + sums[1:even:2], length * 2
    return False
