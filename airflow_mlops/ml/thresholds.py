"""One score against a fixed limit: which side counts, and what the rows show.

``at_least`` and ``at_most`` compare the value alone: a floor under a model, which is to be the same tomorrow. With
``confidence`` the interval decides, and there are three outcomes.
"""

from __future__ import annotations

import math

from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.evidence import scarce, wanted_rows
from airflow_mlops.ml.gate_result import GateResult, Verdict, decimals, gate_dict, gate_name, number
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.versus import more_rows, needed_rows


def threshold_of(gate: Gate, metric: Metric) -> float:
    """The limit of an absolute gate, as people read it.

    :raises EvaluationError: ``at_least`` where lower is better, or the other way round.
    """
    wanted, given = ("at_most", gate.at_most) if metric.lower_is_better else ("at_least", gate.at_least)
    if given is None:
        better = "lower" if metric.lower_is_better else "higher"
        raise EvaluationError(f"{better} is better for {metric.name!r}", hint=f"write {wanted} in its gate")
    return float(given)


def reaches(metric: Metric, value: float, threshold: float) -> bool:
    """Whether a printed value keeps the limit; written so that NaN on either side is a "no"."""
    return math.isfinite(value) and (value <= threshold if metric.lower_is_better else value >= threshold)


def relation(metric: Metric, holds: bool) -> str:
    """The verb between value and limit."""
    if metric.lower_is_better:
        return "is at most" if holds else "is above"
    return "reaches" if holds else "is below"


def printed_bounds(metric: Metric, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    """Bounds of a score as people read them, lower one first, within the metric's range."""
    if bounds is None:
        return None
    low, high = sorted(metric.limited(metric.printed(b)) for b in bounds)
    return low, high


def absolute(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    """Judge the whole holdout's score.

    :raises EvaluationError: the metric cannot be computed.
    """
    threshold = threshold_of(gate, metric)
    found = evaluation.estimate(metric) if gate.confidence is not None else None
    value = metric.printed(found.value if found is not None else evaluation.value(metric))
    holds = reaches(metric, value, threshold)
    short = scarce(metric, evaluation, intervals=gate.confidence is not None)
    bounds = None
    verdict: Verdict = "passed" if holds else "rejected"
    if short is not None:
        verdict = "inconclusive"
    elif found is not None and gate.confidence is not None:
        bounds = found.bounds(gate.confidence)
        verdict = shown(bounds, metric.printed(threshold))
    ends = printed_bounds(metric, bounds)
    needed = None
    if verdict == "inconclusive":
        decided = needed_rows(found, bounds, metric.printed(threshold)) if found is not None else None
        needed = wanted_rows(evaluation.rows, short, decided)
    d = decimals(value, value - threshold, (ends[1] - ends[0]) / 2 if ends else 0.0)
    sentence = f"{metric.name} {number(value, d)}"
    if ends is not None and gate.confidence is not None:
        sentence += f" ({100 * (2 * gate.confidence - 1):.3g} % CI {number(ends[0], d)}…{number(ends[1], d)})"
    if gate.confidence is None or short is not None:
        sentence += f" {relation(metric, holds)} {number(threshold)}"
    elif verdict == "inconclusive":
        sentence += f": cannot show that it {relation(metric, True)} {number(threshold)}"
    else:
        sentence += f": shown that it {relation(metric, verdict == 'passed')} {number(threshold)}"
    if short is not None:
        sentence += f", but {short.why}"
    if verdict == "inconclusive":
        sentence += more_rows(needed, evaluation.rows, None)
    return GateResult(
        gate=gate_dict(gate),
        name=gate_name(gate),
        verdict=verdict,
        sentence=sentence,
        value=value,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        threshold=threshold,
        needed_rows=needed,
    )


def shown(bounds: tuple[float, float] | None, limit: float) -> Verdict:
    """What one-sided bounds of a score (higher is better) show about a limit."""
    if bounds is None or not all(map(math.isfinite, bounds)):
        return "inconclusive"
    return "passed" if bounds[0] >= limit else "rejected" if bounds[1] < limit else "inconclusive"
