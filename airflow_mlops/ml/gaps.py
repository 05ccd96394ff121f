"""How far apart a score may be between groups: a fairness gap, such as recall by sex.

Every two groups of a column are compared. The bounds of a difference are put together from those of the two scores
(Zou & Donner 2008, *Statistics in Medicine* 27, 1693-1702), which needs no normal shares; where groups share blocks the
two halves are added, which holds however they depend on each other. A gap fails where two groups are shown to be
further apart than ``max_gap`` with all pairs in mind (Bonferroni), and passes where each pair is shown to be closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from airflow_mlops.config.models import Gate
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gate_result import GateResult, SliceResult, Verdict, decimals, gate_dict, gate_name, number
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.paired import Estimate
from airflow_mlops.ml.slices import Part, by_value, named, parts, remarks
from airflow_mlops.ml.thresholds import printed_bounds

_ORDER: tuple[Verdict, ...] = ("rejected", "inconclusive", "passed")


@dataclass(frozen=True)
class _Gap:
    """Two groups: the one with the higher value, the lower one, and the bounds of their distance."""

    high_part: Part
    low_part: Part
    value: float
    low: float
    high: float
    verdict: Verdict


def gap(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    """Judge a ``max_gap`` gate.

    :raises EvaluationError: a column of ``by`` is not in the evaluation.
    """
    most = float(gate.max_gap or 0.0)
    found = parts(gate, metric, evaluation, gate.by)
    columns = by_value(found.judged)
    pairs = [p for c in columns.values() for p in combinations([x for x in c if x.found is not None], 2)]
    each = 1 - (1 - gate.level) / max(2 * len(pairs), 1)
    gaps = [g for a, b in pairs if (g := _compare(a, b, gate, each, evaluation.blocks is not None)) is not None]
    alone = [c for c in gate.by if sum(p.found is not None for p in columns.get(c, ())) < 2]
    unsure = [SliceResult(p.column, p.value_of, p.rows, None, "inconclusive", why=p.why)
              for p in found.judged if p.found is None]  # fmt: skip
    verdicts = {g.verdict for g in gaps}
    verdict: Verdict = "passed"
    if "rejected" in verdicts:
        verdict = "rejected"
    elif "inconclusive" in verdicts or alone or unsure or len(gaps) < len(pairs):
        verdict = "inconclusive"
    # Of the gaps that decide, the widest: a wider one between larger groups may be shown to be small enough.
    widest = min(gaps, key=lambda g: (_ORDER.index(g.verdict), -g.value), default=None)
    said = []
    if widest is not None:
        said.append(_of_the_widest(gate, metric, widest, most))
    said += [f"{metric.name} by {c}: there are no two groups to compare" for c in alone]
    if unsure:
        said.append(f"{len(unsure)} not to be judged: {named(unsure)}")
    return GateResult(
        gate=gate_dict(gate),
        name=gate_name(gate),
        verdict=verdict,
        sentence="; ".join(said + remarks(gate, found)),
        value=widest.value if widest else None,
        low=widest.low if widest else None,
        high=widest.high if widest else None,
        threshold=most,
        slices=tuple(_groups(metric, found.judged, gaps, each)),
        slices_too_small=len(found.small),
        slices_missing=found.missing,
    )


def _compare(a: Part, b: Part, gate: Gate, each: float, dependent: bool) -> _Gap | None:
    """The two groups' distance; ``None`` where one has no interval."""
    first, second = a.found, b.found
    if first is None or second is None:
        return None
    if first.value < second.value:
        a, b, first, second = b, a, second, first
    together = difference_bounds(first, second, each, dependent)
    single = difference_bounds(first, second, gate.level, dependent)
    if together is None or single is None:
        return None
    most = float(gate.max_gap or 0.0)
    # The group that is lower here may be the higher one in truth, and as far away.
    closer = max(single[1], -single[0]) <= most
    verdict: Verdict = "rejected" if together[0] > most else "passed" if closer else "inconclusive"
    return _Gap(a, b, first.value - second.value, max(together[0], 0.0), together[1], verdict)


def difference_bounds(
    first: Estimate, second: Estimate, confidence: float, dependent: bool = False
) -> tuple[float, float] | None:
    """One-sided bounds of the difference of two scores on different rows, each at ``confidence``.

    :param dependent: whether rows of one may depend on rows of the other.
    """
    mine, theirs = first.bounds(confidence), second.bounds(confidence)
    if mine is None or theirs is None:
        return None
    value = first.value - second.value
    down = (first.value - mine[0], theirs[1] - second.value)
    up = (mine[1] - first.value, second.value - theirs[0])
    if dependent:
        return value - sum(down), value + sum(up)
    return value - math.hypot(*down), value + math.hypot(*up)


def _of_the_widest(gate: Gate, metric: Metric, widest: _Gap, most: float) -> str:
    parts_of = (widest.high_part, widest.low_part)
    values = [metric.printed(p.found.value) for p in parts_of if p.found is not None]
    d = decimals(values[0], most, (widest.high - widest.low) / 2)
    words = {
        "passed": f"it is at most {number(most)}",
        "rejected": f"it is more than {number(most)}",
        "inconclusive": f"cannot show it is at most {number(most)}",
    }[widest.verdict]
    return (
        f"{metric.name} gap {number(widest.value, d)} between {parts_of[0].name} ({number(values[0], d)}, "
        f"{parts_of[0].rows:,} rows) and {parts_of[1].name} ({number(values[1], d)}, {parts_of[1].rows:,} rows), "
        f"{number(widest.low, d)}…{number(widest.high, d)} with all pairs in mind: {words}"
    )


def _groups(metric: Metric, judged: Sequence[Part], gaps: Sequence[_Gap], each: float) -> list[SliceResult]:
    """Each group with its interval, and the worst that one of its gaps came to."""
    results = []
    for part in judged:
        mine = [g.verdict for g in gaps if part in (g.high_part, g.low_part)]
        verdict: Verdict = min(mine, key=_ORDER.index, default="inconclusive")
        base = SliceResult(part.column, part.value_of, part.rows, None, verdict, why=part.why)
        if part.found is not None:
            low, high = printed_bounds(metric, part.found.bounds(each)) or (None, None)
            base = replace(base, value=metric.printed(part.found.value), low=low, high=high)
        results.append(base)
    return results
