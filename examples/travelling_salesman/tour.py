"""A travelling salesman by simulated annealing: a heuristic with settings that nobody knows, for an experiment to find.

Kirkpatrick, Gelatt & Vecchi (1983), "Optimization by simulated annealing", *Science* 220, 671-680.
"""

from __future__ import annotations

import math
import random

CITIES = 60
"""Drawn evenly from a square of side 1, always the same ones."""


def cities() -> list[tuple[float, float]]:
    """Where the cities lie."""
    draw = random.Random(2016)  # noqa: S311 - no secret
    return [(draw.random(), draw.random()) for _ in range(CITIES)]


def length(
    *, seed: int, iterations: int = 20_000, heat: float = 0.1, cold: float = 0.001, move: str = "reverse"
) -> float:
    """The length of the round trip that annealing finds: lower is better.

    :param iterations: how many changes are tried.
    :param heat: the temperature at the beginning, in lengths of the square's side.
    :param cold: the temperature at the end; between the two it falls by the same share each time.
    :param move: ``reverse`` turns a part of the trip around (2-opt), ``swap`` exchanges two cities.
    """
    places, draw = cities(), random.Random(seed)  # noqa: S311 - no secret
    far = [[math.dist(a, b) for b in places] for a in places]
    trip = list(range(len(places)))
    draw.shuffle(trip)
    n, total = len(trip), sum(far[trip[i - 1]][trip[i]] for i in range(len(trip)))
    for step in range(iterations):
        temperature = heat * (cold / heat) ** (step / iterations)
        i, j = sorted(draw.sample(range(n), 2))
        if move == "reverse":
            if i == 0 and j == n - 1:
                continue
            a, b, c, d = trip[i - 1], trip[i], trip[j], trip[(j + 1) % n]
            change = far[a][c] + far[b][d] - far[a][b] - far[c][d]
            if change <= 0 or draw.random() < math.exp(-change / temperature):
                trip[i : j + 1] = reversed(trip[i : j + 1])
                total += change
        else:
            before = _around(trip, far, i, j)
            trip[i], trip[j] = trip[j], trip[i]
            change = _around(trip, far, i, j) - before
            if change <= 0 or draw.random() < math.exp(-change / temperature):
                total += change
            else:
                trip[i], trip[j] = trip[j], trip[i]
    return total


def _around(trip: list[int], far: list[list[float]], i: int, j: int) -> float:
    """Length of the legs at two places of the trip, each leg once."""
    n = len(trip)
    return sum(far[trip[k]][trip[(k + 1) % n]] for k in {(i - 1) % n, i, (j - 1) % n, j})
