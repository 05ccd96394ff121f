"""Compare a candidate with the champion; rows can be too few to tell, so there are three outcomes.

With the one-sided bounds ``low`` and ``high`` of the difference (positive = candidate better):

* ``not_worse_by: m`` passes when low ≥ −m, is rejected when high < −m, else inconclusive;
* ``better_by: m`` passes when low > m, is rejected when high ≤ m, else inconclusive.

A version that has learned from rows of the holdout looks better on them than it is. What passes against it passes all
the more; where it would reject, nothing has been shown.

``not_worse_by`` must hold against the *reference* too: the version that losses are counted from. Without it each
champion could be a little worse than the one before, and never too much. Both comparisons must pass, each at the
gate's confidence, which makes no error more likely: an intersection-union test (Berger 1982, *Technometrics* 24,
295-300).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from airflow_mlops.config.models import Gate
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.evidence import MIN_CLASS, Scarce, scarce, wanted_rows
from airflow_mlops.ml.gate_result import GateResult, Verdict, decimals, gate_dict, gate_name, number, signed
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.paired import Estimate

__all__ = ["MIN_CLASS", "three_way", "versus"]

_MOST_ROWS = 10**9
_ORDER: tuple[Verdict, ...] = ("rejected", "inconclusive", "passed")


@dataclass(frozen=True)
class _Comparison:
    """The candidate against one other version; ``words`` are a sentence's second half."""

    verdict: Verdict
    value: float
    low: float | None
    high: float | None
    needed: int | None
    words: str


def versus(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    """Judge a ``versus: champion`` gate.

    :raises EvaluationError: when the metric cannot be computed for one of the models.
    """
    tolerant = gate.not_worse_by is not None
    margin = float(gate.not_worse_by if gate.not_worse_by is not None else gate.better_by or 0.0)
    base: dict[str, Any] = {
        "gate": gate_dict(gate),
        "name": gate_name(gate),
        "threshold": 0.0 - margin if tolerant else margin,
    }
    if evaluation.has_champion:
        evaluation.estimate(metric, against="champion")  # has both scores, so that neither is computed twice
    mine = metric.printed(evaluation.value(metric))
    if not evaluation.has_champion:
        sentence = f"{metric.name} {number(mine, decimals(mine))}: there is no champion to compare with"
        return GateResult(**base, verdict="no_baseline", sentence=sentence, value=None)
    reference = evaluation.reference if tolerant else None
    # Two models that say the same of these rows may differ on others, so that a loss has to be bounded in any case.
    if evaluation.same_model or (evaluation.same_predictions and not tolerant):
        how = (
            "the candidate is the champion, byte for byte, so "
            if evaluation.same_model
            else f"the candidate predicts exactly what the champion does, on all {evaluation.rows:,} rows, so "
        )
        return GateResult(
            **base,
            verdict="passed" if tolerant else "rejected",
            sentence=f"{metric.name} {number(mine, decimals(mine))}: {how}"
            + ("it is not worse" if tolerant else "it is not better"),
            value=0.0,
            low=0.0,
            high=0.0,
            reference=_noted(reference.version if reference else None, None, {}) if tolerant else None,
        )
    short = scarce(metric, evaluation)
    found = _compare(gate, metric, evaluation, "champion", "champion", short)
    first = f"{metric.name} {number(mine, decimals(mine, margin, _half(found)))} {found.words}"
    standing = _blocks(evaluation)
    if reference is None:
        noted = _noted(None, found, {"champion": found}) if tolerant else None
        return GateResult(**base, **_told(found), sentence=first + standing, reference=noted)
    name = f"v{reference.version}"
    since = f", the reference since {reference.since[:10]}" if reference.since else ", the reference"
    if reference.problem is not None:
        verdict: Verdict = "rejected" if found.verdict == "rejected" else "inconclusive"
        sentence = (
            f"{first}; {name}{since}, cannot be scored on these rows ({reference.problem}): a version that a person "
            "approves or promotes becomes the new reference"
        )
        told, noted = _told(found) | {"verdict": verdict}, _noted(reference.version, None, {"champion": found})
        return GateResult(**base, **told, sentence=sentence + standing, reference=noted)
    against = _compare(gate, metric, evaluation, "reference", f"{name}{since},", short)
    sentence = f"{first}; {against.words}{standing}"
    decisive = min((found, against), key=lambda c: _ORDER.index(c.verdict))
    noted = _noted(reference.version, against, {"champion": found, "reference": against})
    return GateResult(**base, **_told(decisive), sentence=sentence, reference=noted)


def three_way(gate: Gate, value: float, bounds: tuple[float, float] | None) -> Verdict:
    """Verdict on a difference with its one-sided bounds; see the module's text."""
    if bounds is None or not all(map(math.isfinite, (value, *bounds))):
        return "inconclusive"
    low, high = bounds
    if gate.not_worse_by is not None:
        return "passed" if low >= -gate.not_worse_by else "rejected" if high < -gate.not_worse_by else "inconclusive"
    margin = gate.better_by or 0.0
    return "passed" if low > margin else "rejected" if high <= margin else "inconclusive"


def _compare(
    gate: Gate, metric: Metric, evaluation: Evaluation, model: str, name: str, short: Scarce | None
) -> _Comparison:
    difference = evaluation.estimate(metric, against=model)
    bounds = difference.bounds(gate.level)
    margin = float(gate.not_worse_by if gate.not_worse_by is not None else gate.better_by or 0.0)
    limit = 0.0 - margin if gate.not_worse_by is not None else margin
    verdict = "inconclusive" if short is not None else three_way(gate, difference.value, bounds)
    learned, needed = evaluation.learned.get(model, 0), None
    if learned and verdict == "rejected":
        verdict = "inconclusive"
    elif verdict == "inconclusive":
        needed = wanted_rows(evaluation.rows, short, needed_rows(difference, bounds, limit))
    value = difference.value
    low, high = bounds if bounds is not None else (None, None)
    theirs = metric.printed(evaluation.value(metric, model))
    d = decimals(theirs, margin, (high - low) / 2 if low is not None and high is not None else 0.0)
    words = f"vs {name} {number(theirs, d)}" + (" (lower is better): advantage " if metric.lower_is_better else ": ")
    words += signed(value, d)
    if low is not None and high is not None:
        words += f", {100 * (2 * gate.level - 1):.3g} % CI {signed(low, d)}…{signed(high, d)}"
    words += ": " + _conclusion(gate, verdict, margin)
    if short is not None:
        words += f"; {short.why}"
    if verdict == "inconclusive" and learned:
        who = "champion" if model == "champion" else "it"
        rows = f"{evaluation.rows:,} rows"
        words += (
            f"; {who} has learned from {f'{learned:,} of these' if learned < evaluation.rows else 'all'} {rows}, "
            "which makes it look better than it is: only rows that it has not seen can tell"
        )
    elif verdict == "inconclusive":
        words += more_rows(needed, evaluation.rows, low)
    return _Comparison(verdict, value, low, high, needed, words)


def _half(found: _Comparison) -> float:
    return (found.high - found.low) / 2 if found.low is not None and found.high is not None else 0.0


def _told(found: _Comparison) -> dict[str, Any]:
    return {
        "verdict": found.verdict,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "needed_rows": found.needed,
    }


def _noted(version: int | None, found: _Comparison | None, compared: dict[str, _Comparison]) -> dict[str, Any]:
    """What a gate keeps about the version that losses are counted from, and which comparisons want how many rows."""
    needed = {who: one.needed for who, one in compared.items() if one.verdict == "inconclusive"}
    if found is None:
        return {"version": version, "value": None, "low": None, "high": None, "better": False, "needed": needed}
    better = found.verdict == "passed" and found.low is not None and found.low > 0
    bounds = {"value": found.value, "low": found.low, "high": found.high}
    return {"version": version, **bounds, "better": better, "needed": needed}


def _blocks(evaluation: Evaluation) -> str:
    found = evaluation.block_count
    return f" ({found[0]:,} {evaluation.blocks or 'blocks'})" if found is not None else ""


def needed_rows(difference: Estimate, bounds: tuple[float, float] | None, limit: float) -> int | None:
    """Rows at which an interval of this shape, which shrinks by √n, would leave the limit."""
    if bounds is None:
        return None
    gap = difference.value - limit
    half = difference.value - bounds[0] if gap > 0 else bounds[1] - difference.value
    if gap == 0 or half <= 0:
        return None
    needed = difference.rows * (half / abs(gap)) ** (1 if difference.silent_rows is not None else 2)
    return math.ceil(needed) if needed <= _MOST_ROWS else None


def more_rows(needed: int | None, rows: int, low: float | None) -> str:
    """The end of an inconclusive sentence."""
    if low is None and needed is None:
        return "; the rows give no interval"
    if needed is None:
        return "; so close to the limit that no realistic number of rows would decide"
    more = max(needed - rows, 1)
    step = 10 ** max(len(str(more)) - 2, 0)
    return f"; about {math.ceil(more / step) * step:,} more holdout rows would decide"


def _conclusion(gate: Gate, verdict: Verdict, margin: float) -> str:
    if verdict == "rejected" and gate.not_worse_by is not None:
        return f"it is more than {number(margin)} worse" if margin else "it is worse"
    words = {"passed": "it is", "rejected": "it is not", "inconclusive": "cannot show it is"}[verdict]
    if gate.not_worse_by is not None:
        return f"{words} at most {number(margin)} worse"
    return f"{words} more than {number(margin)} better" if margin else f"{words} better"
