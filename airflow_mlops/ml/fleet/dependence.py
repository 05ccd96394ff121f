"""How far the rows of a fleet's keys hang together: how many of them, in their order, are worth one independent row.

By the means of eight blocks of each key (see :mod:`airflow_mlops.ml.dependence`), over all keys together: of one key's
200 rows it could not be told.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import chdtri

from airflow_mlops.ml.drift_values import to_numbers
from airflow_mlops.ml.fleet.drift_tests import Side

_BLOCKS = 8
_WINDOW_BLOCKS = (2, 4, 8)
_EVIDENCE = 0.002
_BOUND = 0.01


def marked(ref: Side, kind: str) -> Side:
    """Numbers as they are; of categories whether the row has the one that its key has most often."""
    if kind != "category":
        return ref
    key, width = ref.of_row, int(ref.values.max(initial=0)) + 1
    cells, counts = np.unique(key * width + ref.values.astype(np.int64), return_counts=True)
    owner, code = np.divmod(cells, width)
    order = np.lexsort((-counts, owner))
    first = order[np.concatenate([[True], np.diff(owner[order]) > 0])]
    most = np.full(ref.keys, -1)
    most[owner[first]] = code[first]
    return Side((ref.values == most[key]).astype(np.float64), ref.starts)


def dependence_of(values: pd.Series, kind: str, starts: np.ndarray) -> tuple[float, float]:
    """How many rows of a key, in the order of their time, are worth one independent row: its values, and its gaps.

    :param values: one column, ordered by key and then by time.
    :param kind: ``number``, ``boolean``, ``category`` or ``datetime``.
    :param starts: shape (keys + 1,): where the rows of each key begin, and the end.
    """
    if kind == "category":
        numbers = pd.factorize(values)[0].astype(np.float64)
        missing = numbers < 0
    else:
        numbers = to_numbers(values.astype(np.float64) if kind == "boolean" else values)
        missing = np.isnan(numbers)
    side = Side(numbers, starts)
    return dependence(marked(side.present(missing), kind)), dependence(Side(missing.astype(np.float64), starts))


def dependence(ref: Side) -> float:
    """How many rows of a key are worth one independent row: 1.0 or more, the same for all keys.

    1.0 unless the means of eight blocks vary more than those of rows in random order; else the upper end of the ratio's
    99 % bound. A key whose values only rise or only fall has been sorted and says nothing.

    :param ref: without missing rows, in the order of their time.
    """
    return _Ranked(ref).worth(_BLOCKS, shared=False)


def window_dependence(cur: Side) -> float:
    """:func:`dependence` of the few rows of a window, in their order.

    Halves and quarters are looked at beside eighths: rows that hang together over a quarter of the window vary little
    less within an eighth than as a whole. What all keys do at one place of the window, such as an hour of the day, is
    left out: rows at random hours do not vary so (where there are several keys to tell it by).
    """
    ranked = _Ranked(cur)
    return max(ranked.worth(blocks, shared=True) for blocks in _WINDOW_BLOCKS)


class _Ranked:
    """Ranks of the rows among those of their key: one absurd value would be all that a block says."""

    def __init__(self, side: Side) -> None:
        self._side, self._rows, self._key = side, np.diff(side.starts), side.of_row
        key = self._key
        along, same = np.diff(side.values), key[1:] == key[:-1]
        rises = np.bincount(key[1:][same & (along < 0)], minlength=side.keys) == 0
        falls = np.bincount(key[1:][same & (along > 0)], minlength=side.keys) == 0
        order = np.lexsort((side.values, key))
        new = np.concatenate([[True], (np.diff(side.values[order]) != 0) | (np.diff(key[order]) != 0)])[: len(key)]
        size = np.bincount(np.cumsum(new) - 1) if len(key) else np.zeros(0)
        ranks = np.empty(len(key))
        ranks[order] = (np.cumsum(size) - (size + 1) / 2)[np.cumsum(new) - 1]
        mean = np.bincount(key, ranks, minlength=side.keys) / np.maximum(self._rows, 1)
        self._centred = ranks - mean[key]
        self._variance = np.bincount(key, self._centred**2, minlength=side.keys) / np.maximum(self._rows - 1, 1)
        self._usable = (self._rows >= 4 * _BLOCKS) & ~(rises | falls) & (self._variance > 0)

    def worth(self, blocks: int, *, shared: bool) -> float:
        """By so many blocks of each key; ``shared``: but for what the keys have in common."""
        length = np.maximum(self._rows // blocks, 1)
        block = (np.arange(len(self._key)) - self._side.starts[:-1][self._key]) // length[self._key]
        counted = (block < blocks) & self._usable[self._key]
        keys = int(self._usable.sum())
        if not keys:
            return 1.0
        cells = (self._key * blocks + block)[counted]
        sums = np.bincount(cells, self._centred[counted], minlength=self._side.keys * blocks).reshape(-1, blocks)
        # A block of rows drawn without replacement.
        foretold = length * self._variance * (1 - length / np.maximum(self._rows, 1))
        means = sums[self._usable] / np.sqrt(foretold[self._usable, None])
        if shared and keys > 1:
            means = means - means.mean(axis=0)
            keys -= 1
        squares, degrees = float((means**2).sum()) / blocks, keys * (blocks - 1)
        found = squares / keys * degrees
        if found <= float(chdtri(degrees, _EVIDENCE)):
            return 1.0
        return max(1.0, found / float(chdtri(degrees, 1 - _BOUND)))
