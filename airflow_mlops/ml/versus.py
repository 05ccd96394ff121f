"""Compare a candidate with the champion; rows can be too few to tell, so there are three outcomes.

With the one-sided bounds ``low`` and ``high`` of the difference (positive = candidate better):

* ``not_worse_by: m`` passes when low ≥ −m, is rejected when high < −m, else inconclusive;
* ``better_by: m`` passes when low > m, is rejected when high ≤ m, else inconclusive.
"""

from __future__ import annotations

import math
from typing import Any

from airflow_mlops.config.models import Gate
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gate_result import GateResult, Verdict, decimals, gate_dict, gate_name, number, signed
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.paired import Estimate

MIN_CLASS = 30
"""Fewer rows of a class (regression: of the holdout), and no interval can be trusted."""
_MOST_ROWS = 10**9


def versus(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    """Judge a ``versus: champion`` gate.

    :raises EvaluationError: when the metric cannot be computed for one of the models.
    """
    margin = float(gate.not_worse_by if gate.not_worse_by is not None else gate.better_by or 0.0)
    limit = 0.0 - margin if gate.not_worse_by is not None else margin
    base: dict[str, Any] = {"gate": gate_dict(gate), "name": gate_name(gate), "threshold": limit}
    mine = metric.printed(evaluation.value(metric))
    if not evaluation.has_champion:
        sentence = f"{metric.name} {number(mine, decimals(mine))}: there is no champion to compare with"
        return GateResult(**base, verdict="no_baseline", sentence=sentence, value=None)
    theirs = metric.printed(evaluation.value(metric, "champion"))
    if evaluation.same_model:
        holds = gate.not_worse_by is not None
        return GateResult(
            **base,
            verdict="passed" if holds else "rejected",
            sentence=f"{metric.name} {number(mine, decimals(mine))}: the candidate is the champion, byte for byte, so "
            + ("it is not worse" if holds else "it is not better"),
            value=0.0,
            low=0.0,
            high=0.0,
        )
    difference = evaluation.estimate(metric, "difference")
    bounds = difference.bounds(gate.confidence)
    verdict = three_way(gate, difference.value, bounds)
    scarce = _scarce(metric, evaluation)
    if scarce is not None:
        verdict = "inconclusive"
    needed = None
    if verdict == "inconclusive":
        needed = _needed(difference, bounds, limit)
        if scarce is not None:
            needed = max(needed or 0, math.ceil(evaluation.rows * MIN_CLASS / max(scarce[1], 1)))
    value = difference.value
    low, high = bounds if bounds is not None else (None, None)
    d = decimals(mine, margin, (high - low) / 2 if low is not None and high is not None else 0.0)
    sentence = f"{metric.name} {number(mine, d)} vs champion {number(theirs, d)}"
    sentence += " (lower is better): advantage " if metric.lower_is_better else ": "
    sentence += signed(value, d)
    if low is not None and high is not None:
        sentence += f", {100 * (2 * gate.confidence - 1):.3g} % CI {signed(low, d)}…{signed(high, d)}"
    sentence += ": " + _conclusion(gate, verdict, margin)
    if scarce is not None:
        sentence += f"; {scarce[0]}, and {MIN_CLASS} are needed"
    if verdict == "inconclusive":
        sentence += _more(needed, evaluation.rows, low)
    return GateResult(**base, verdict=verdict, sentence=sentence, value=value, low=low, high=high, needed_rows=needed)


def three_way(gate: Gate, value: float, bounds: tuple[float, float] | None) -> Verdict:
    """Verdict on a difference with its one-sided bounds; see the module's text."""
    if bounds is None or not all(map(math.isfinite, (value, *bounds))):
        return "inconclusive"
    low, high = bounds
    if gate.not_worse_by is not None:
        return "passed" if low >= -gate.not_worse_by else "rejected" if high < -gate.not_worse_by else "inconclusive"
    margin = gate.better_by or 0.0
    return "passed" if low > margin else "rejected" if high <= margin else "inconclusive"


def _scarce(metric: Metric, evaluation: Evaluation) -> tuple[str, int] | None:
    """Why these rows cannot carry an interval, and how many there are of what is scarce."""
    if evaluation.rows < MIN_CLASS:
        return f"the holdout has {evaluation.rows} rows", evaluation.rows
    counts = evaluation.counts
    # A mean over rows needs no rows of every single class when there are many.
    if not counts or (len(counts) > 2 and metric.is_row_mean):
        return None
    rarest = min(counts, key=lambda c: counts[c])
    if counts[rarest] < MIN_CLASS:
        return f"class {rarest!r} has {counts[rarest]} holdout rows", counts[rarest]
    return None


def _needed(difference: Estimate, bounds: tuple[float, float] | None, limit: float) -> int | None:
    """Rows at which an interval of this shape, which shrinks by √n, would leave the limit."""
    if bounds is None:
        return None
    gap = difference.value - limit
    half = difference.value - bounds[0] if gap > 0 else bounds[1] - difference.value
    if gap == 0 or half <= 0:
        return None
    needed = difference.rows * (half / abs(gap)) ** (1 if difference.silent_rows is not None else 2)
    return math.ceil(needed) if needed <= _MOST_ROWS else None


def _more(needed: int | None, rows: int, low: float | None) -> str:
    if low is None and needed is None:
        return "; the rows give no interval"
    if needed is None:
        return "; so close to the limit that no realistic number of rows would decide"
    more = max(needed - rows, 1)
    step = 10 ** max(len(str(more)) - 2, 0)
    return f"; about {math.ceil(more / step) * step:,} more rows would decide"


def _conclusion(gate: Gate, verdict: Verdict, margin: float) -> str:
    if verdict == "rejected" and gate.not_worse_by is not None:
        return f"it is more than {number(margin)} worse" if margin else "it is worse"
    words = {"passed": "it is", "rejected": "it is not", "inconclusive": "cannot show it is"}[verdict]
    if gate.not_worse_by is not None:
        return f"{words} at most {number(margin)} worse"
    return f"{words} more than {number(margin)} better" if margin else f"{words} better"
