"""One row of the table: a fault, how often it was tried, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

HEAD = ["fault", "tried", "lost", "half-visible", "duplicates", "false conflicts", "other", "seconds", ""]


@dataclass
class Row:
    """What one kind of fault came to.

    :param least: how many tries the row needs to count.
    :param more: what else there is to say of the tries.
    :param problems: everything that was wrong, each with what repeats it.
    """

    fault: str
    unit: str
    least: int
    tried: int = 0
    lost: int = 0
    half: int = 0
    duplicates: int = 0
    conflicts: int = 0
    other: int = 0
    seconds: float = 0.0
    more: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the row holds."""
        wrong = self.lost + self.half + self.duplicates + self.conflicts + self.other
        return not wrong and not self.problems and self.tried >= self.least

    def wrong(self, kind: str, what: str) -> None:
        """Count something wrong: ``lost``, ``half``, ``duplicates``, ``conflicts`` or ``other``."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.problems.append(f"{kind}: {what}")

    def timed(self, work: Callable[[], Any]) -> Row:
        """Do the row's work; an error in it fails the row and no other."""
        start = time.monotonic()
        try:
            work()
        except Exception as e:  # noqa: BLE001 - the other rows go on
            self.problems.append(f"it stopped: {type(e).__name__}: {e}")
        self.seconds = time.monotonic() - start
        return self

    def cells(self) -> list[str]:
        """The row of the table."""
        tried = f"{self.tried:,} {self.unit}" + (f" ({self.more})" if self.more else "")
        counts = [self.lost, self.half, self.duplicates, self.conflicts, self.other]
        return [self.fault, tried, *map(str, counts), f"{self.seconds:.0f}", "holds" if self.ok else "**FAILS**"]


def line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def some(points: Sequence[T], most: int | None) -> list[T]:
    """At most ``most`` of the points, evenly spread; None: all."""
    if most is None or len(points) <= most:
        return list(points)
    return [points[(2 * i + 1) * len(points) // (2 * most)] for i in range(most)]
