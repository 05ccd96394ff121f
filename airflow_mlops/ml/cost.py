"""What a step costs: processor time, wall-clock time and memory, as the operating system counts them."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, and KiB on Linux


class Meter:
    """Measures from its making on.

    Processor seconds are user and system time of this process and of those of its children that have ended. Peak
    memory is the largest resident set (MB, 10^6 bytes) that this process, or any one child, has had since it
    began: the system keeps no other. A task of Airflow is a process of its own; in a notebook it is all that ran
    before, too.
    """

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = _cpu()

    def read(self) -> dict[str, float]:
        """Return ``{"wall_seconds", "cpu_seconds", "peak_mb"}`` up to now."""
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return {
            "wall_seconds": round(time.monotonic() - self._wall, 3),
            "cpu_seconds": round(_cpu() - self._cpu, 3),
            "peak_mb": round(peak * _RSS_UNIT / 1e6, 1),
        }


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def total(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the ``cost`` notes of a version.

    :param costs: each with what :meth:`Meter.read` gives, and maybe ``price_per_hour`` and ``currency``.
    :return: ``wall_seconds`` and ``cpu_seconds`` summed, ``peak_mb`` the largest, and ``money``: text for each
        currency, ``0.12 EUR``, of the wall-clock time of the steps that have a price.
    """
    money: dict[str, float] = {}
    for cost in costs:
        if cost.get("price_per_hour") is not None:
            currency = str(cost.get("currency") or "")
            money[currency] = money.get(currency, 0.0) + price(cost)
    return {
        "wall_seconds": sum(c["wall_seconds"] for c in costs),
        "cpu_seconds": sum(c["cpu_seconds"] for c in costs),
        "peak_mb": max((c["peak_mb"] for c in costs), default=0.0),
        "money": [amount(value, currency) for currency, value in sorted(money.items())],
    }


def price(cost: Mapping[str, Any]) -> float:
    """What one step's wall-clock time costs, in its currency; 0 without a price."""
    return float(cost["wall_seconds"]) / 3600 * float(cost.get("price_per_hour") or 0.0)


def amount(value: float, currency: str) -> str:
    """Money as text: two digits after the point, more where it is less than a tenth."""
    return f"{value:,.2f} {currency}".strip() if value == 0 or value >= 0.1 else f"{value:.2g} {currency}".strip()
