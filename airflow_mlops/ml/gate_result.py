"""Outcomes of gates, and the words and numbers they are told in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from airflow_mlops.config.models import Gate

Verdict = Literal["passed", "rejected", "inconclusive", "no_baseline"]


@dataclass(frozen=True)
class SliceResult:
    """One value of a slice column.

    :param value: as printed; ``None`` when it could not be computed.
    :param low: the interval that the verdict stands on, as printed; ``None`` without one.
    :param why: why it is inconclusive, where that is no matter of the interval.
    """

    column: str
    value_of: str
    rows: int
    value: float | None
    verdict: Verdict
    low: float | None = None
    high: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class GateResult:
    """The outcome of one gate.

    :param value: what was judged: the printed metric (of the worst slice), or the difference to the champion.
    :param low: one-sided bounds of ``value`` at the gate's confidence; ``None`` where the value alone is judged.
    :param threshold: what ``value`` or a bound is held against.
    :param needed_rows: estimated holdout rows, in all, that would decide; ``None`` when not inconclusive or hopeless.
    :param slices_missing: values that a model knows from training and the holdout does not have.
    :param reference: of ``not_worse_by``: ``version`` that losses are counted from (``None``: the champion), the
        bounds of the difference to it, and whether the candidate was shown to be better (``better``); ``needed`` holds
        the rows that each undecided comparison wants, by ``champion`` and ``reference`` (``None``: cannot be said).
    """

    gate: dict[str, Any]
    name: str
    verdict: Verdict
    sentence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    needed_rows: int | None = None
    slices: tuple[SliceResult, ...] = ()
    slices_too_small: int = 0
    slices_missing: tuple[str, ...] = ()
    serving: dict[str, Any] | None = None
    reference: dict[str, Any] | None = None
    behaviours: dict[str, Any] | None = None


@dataclass(frozen=True)
class GateReport:
    """All gates' outcomes and what follows from them.

    :param holdout: how often the holdout has decided (:class:`airflow_mlops.ml.wear.Wear`); ``None``: not counted.
    """

    verdict: Verdict
    sentence: str
    results: tuple[GateResult, ...]
    holdout: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, fit for XCom."""
        return asdict(self) | {"results": [asdict(r) | {"slices": [asdict(s) for s in r.slices]} for r in self.results]}


def gate_dict(gate: Gate) -> dict[str, Any]:
    """The gate as it stands in the file, without defaults."""
    return gate.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def gate_name(gate: Gate) -> str:
    """A short name for tables."""
    subject = gate.value.name if gate.value is not None else gate.metric
    for key in ("at_least", "at_most", "not_worse_by", "better_by", "max_gap"):
        value = getattr(gate, key)
        if value is not None:
            by = f" by {', '.join(gate.columns)}" if gate.columns else " vs champion" if gate.versus else ""
            return f"{subject} {key} {value:g}{by}"
    return str(subject)


def decimals(value: float, *small: float) -> int:
    """Digits after the point that keep the smallest of these differences visible."""
    base = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    # The factor keeps 0.0099999999 from asking for one digit more than 0.01.
    sizes = [abs(s) * (1 + 1e-6) for s in small if s and math.isfinite(s)]
    return min(max([base, *(-math.floor(math.log10(s)) for s in sizes)]), 8)


def number(value: float, digits: int | None = None) -> str:
    """A number with ``digits`` after the point; ``None``: as short as it is exact to six figures."""
    if digits is None:
        digits, short = 0, abs(value) < 1e6
    else:
        short = False
    text = f"{value:.6g}" if short else f"{value:,.{digits}f}"
    return text.replace("-", "−")


def signed(value: float, digits: int) -> str:
    """Like :func:`number`, with a sign."""
    return number(value, digits) if value < 0 else "+" + number(value, digits)
