"""How several looks at growing evidence share one error probability.

Who tests after each window, and goes on as soon as one test says yes, is wrong more often than one test is: at 5 %, in
six looks up to 30 % of the time. So each look spends a part of the error probability, decided before anything is seen
by a spending function of the time that has passed (Lan & DeMets 1983, *Biometrika* 70, 659-663), here the one that they
give for Pocock's boundaries: looks get about the same, the early ones somewhat more, as most rollouts are decided by
their first windows. A look without enough rows spends nothing; what it leaves is the next one's.

The parts add up (a union bound), which uses nothing about how the looks hang together: it holds for every metric, every
interval and every dependence between windows, and costs some power against exact boundaries, which would need
independent increments.
"""

from __future__ import annotations

import math


def spent_by(look: int, looks: int) -> float:
    """The share (0…1) of the error probability that may be spent up to and with a look, from 1, of so many."""
    return math.log1p((math.e - 1) * min(look, looks) / looks)


def share_of_look(look: int, looks: int, spent: float) -> float:
    """The share of the error probability that this look may spend, at least 0.

    :param spent: what earlier looks have spent.
    """
    return max(spent_by(look, looks) - spent, 0.0)
