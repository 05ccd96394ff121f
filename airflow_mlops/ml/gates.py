"""Decide, from one evaluation, whether a candidate may be delivered.

A gate holds one value against a threshold, on the whole holdout or per slice, or compares with the
champion (:mod:`airflow_mlops.ml.versus`), or looks at a serving check. A value that is missing or
not finite never passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from airflow_mlops.config.models import Evaluate, Gate, Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gate_result import (
    GateReport,
    GateResult,
    SliceResult,
    Verdict,
    decimals,
    gate_dict,
    gate_name,
    number,
)
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.serving_gate import judge_serving
from airflow_mlops.ml.value import metric_of
from airflow_mlops.ml.versus import versus
from airflow_mlops.ml.wear import Wear, stricter, with_wear, worn_out

__all__ = ["GateReport", "GateResult", "SliceResult", "Verdict", "check_gates", "decide", "follow_up", "gate_metrics"]


def decide(
    gates: Sequence[Gate],
    evaluation: Evaluation,
    *,
    serving: Callable[[Serving], dict[str, Any]] | None = None,
    further: Sequence[Callable[[Evaluation], GateResult]] = (),
    wear: Wear | None = None,
) -> GateReport:
    """Judge every gate; nothing is skipped after a rejection, so that the report is whole.

    :param serving: runs a serving check and returns :func:`airflow_mlops.ml.serving.check_serving`'s result.
    :param further: gates as code.
    :param wear: this decision's place among those of its holdout; ``None``: the first and only one.
    :raises EvaluationError: unknown or unfit metric, missing slice column, at_least where lower is better.
    """
    found = [_worn(gate, evaluation, serving, wear) for gate in gates] + [judge(evaluation) for judge in further]
    if wear is not None and wear.use is None:
        found.append(worn_out(wear))
    results = tuple(found)
    verdicts = {r.verdict for r in results}
    overall: Verdict = "passed"
    for verdict in ("rejected", "inconclusive", "no_baseline"):
        if verdict in verdicts:
            overall = verdict
            break
    deciding = [r for r in results if r.verdict == overall]
    if not results:
        sentence = "passed: no gates are configured"
    elif overall == "passed":
        many = f"all {len(results)} gates. " if len(results) > 1 else ""
        sentence = f"passed: {many}" + ". ".join(r.sentence for r in results)
    else:
        sentence = f"{overall}: " + ". ".join(r.sentence for r in deciding)
    if evaluation.same_model:
        sentence += ". The candidate is the champion, byte for byte"
    return GateReport(overall, sentence, results, wear.to_dict() if wear is not None else None)


def follow_up(verdict: str, evaluate: Evaluate, approval: str) -> tuple[bool, bool]:
    """Return (goes on to delivery, a person must be asked first) for a verdict.

    :param approval: ``always``, or ``asked`` where only ``require_approval`` verdicts need a person.
    """
    if verdict == "passed":
        return True, approval == "always"
    if verdict == "no_baseline":
        return True, approval == "always" or evaluate.no_champion == "require_approval"
    if verdict == "inconclusive" and evaluate.on_inconclusive == "require_approval":
        return True, True
    return False, False


def check_gates(config: Evaluate) -> None:
    """Refuse, before anything is trained, metrics that nobody knows and thresholds on the wrong side.

    :raises EvaluationError: as :func:`decide` would, later.
    """
    for name in config.metrics:
        Metric(name)
    for gate in config.gates:
        if gate.metric:
            metric = Metric(gate.metric)
            if gate.versus is None:
                _threshold(gate, metric)


def gate_metrics(gates: Sequence[Gate]) -> list[str]:
    """Names of the metrics that these gates ask for, each once."""
    return list(dict.fromkeys(g.metric for g in gates if g.metric))


def _worn(
    gate: Gate, evaluation: Evaluation, serving: Callable[[Serving], dict[str, Any]] | None, wear: Wear | None
) -> GateResult:
    """Judge a gate; one that compares, at the confidence that its holdout has left."""
    if gate.versus is None:
        return _judge(gate, evaluation, serving)
    return with_wear(_judge(stricter(gate, wear), evaluation, serving), gate_dict(gate), wear)


def _judge(gate: Gate, evaluation: Evaluation, serving: Callable[[Serving], dict[str, Any]] | None) -> GateResult:
    if gate.serving is not None:
        if serving is None:
            raise EvaluationError("a serving gate needs a serving check, and none was given")
        return judge_serving(gate, gate.serving, serving(gate.serving))
    metric = metric_of(gate)
    metric.check_task(evaluation.task, evaluation.n_classes)
    if gate.versus is not None:
        return versus(gate, metric, evaluation)
    return _sliced(gate, metric, evaluation) if gate.slices else _absolute(gate, metric, evaluation)


# --- one value against a threshold ---------------------------------------------------------------


def _threshold(gate: Gate, metric: Metric) -> float:
    wanted, given = ("at_most", gate.at_most) if metric.lower_is_better else ("at_least", gate.at_least)
    if given is None:
        better = "lower" if metric.lower_is_better else "higher"
        raise EvaluationError(f"{better} is better for {metric.name!r}", hint=f"write {wanted} in its gate")
    return float(given)


def _reaches(metric: Metric, value: float, threshold: float) -> bool:
    # Written so that NaN on either side is a "no".
    return math.isfinite(value) and (value <= threshold if metric.lower_is_better else value >= threshold)


def _relation(metric: Metric, holds: bool) -> str:
    if metric.lower_is_better:
        return "is at most" if holds else "is above"
    return "reaches" if holds else "is below"


def _absolute(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    threshold = _threshold(gate, metric)
    value = metric.printed(evaluation.value(metric))
    holds = _reaches(metric, value, threshold)
    d = decimals(value, value - threshold)
    return GateResult(
        gate=gate_dict(gate),
        name=gate_name(gate),
        verdict="passed" if holds else "rejected",
        sentence=f"{metric.name} {number(value, d)} {_relation(metric, holds)} {number(threshold)}",
        value=value,
        threshold=threshold,
    )


def _sliced(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    threshold = _threshold(gate, metric)
    columns = evaluation.slices
    missing = [c for c in gate.slices if c not in columns]
    if missing:
        raise EvaluationError(
            f"there is no column {missing[0]!r} to slice by; the evaluation has {sorted(columns)}",
            hint="correct the gate's slices; the column must be in the snapshot",
        )
    y, predictions = evaluation.y, evaluation.predictions("candidate")
    found: list[SliceResult] = []
    small = 0
    for column in gate.slices:
        values = columns[column].to_numpy()
        for value_of, rows in _groups(values):
            if len(rows) < gate.min_rows:
                small += 1
                continue
            try:
                score = metric.score(y[rows], predictions.take(rows), n_classes=evaluation.n_classes)
            except EvaluationError:
                # Typically one class only: this slice shows nothing, and the gate says so.
                found.append(SliceResult(column, value_of, len(rows), None, "inconclusive"))
                continue
            value = metric.printed(score)
            verdict: Verdict = "passed" if _reaches(metric, value, threshold) else "rejected"
            found.append(SliceResult(column, value_of, len(rows), value, verdict))
    scored = [(s, s.value) for s in found if s.value is not None]
    worst = min(scored, key=lambda s: -s[1] if metric.lower_is_better else s[1], default=None)
    unscored = [s for s in found if s.value is None]
    failed = sum(s.verdict == "rejected" for s in found)
    verdict = "rejected" if failed else "inconclusive" if unscored or not found else "passed"
    parts = []
    if worst is not None:
        s, value = worst
        holds = s.verdict == "passed"
        d = decimals(value, value - threshold)
        parts.append(
            f"{metric.name} {number(value, d)} of the worst slice, {s.column} = {s.value_of} ({s.rows:,} rows),"
            f" {_relation(metric, holds)} {number(threshold)}"
        )
        parts.append(f"{failed} of {len(found)} slices fail" if failed else f"{len(found)} slices judged")
    elif not found:
        parts.append(f"{metric.name} by {', '.join(gate.slices)}: no slice has {gate.min_rows} rows")
    if unscored:
        names = ", ".join(f"{s.column} = {s.value_of}" for s in unscored[:3])
        parts.append(f"{metric.name} cannot be computed for {len(unscored)} ({names})")
    if small and found:
        parts.append(f"{small} smaller than {gate.min_rows} rows not judged")
    return GateResult(
        gate=gate_dict(gate),
        name=gate_name(gate),
        verdict=verdict,
        sentence="; ".join(parts),
        value=worst[1] if worst is not None else None,
        threshold=threshold,
        slices=tuple(found),
        slices_too_small=small,
    )


def _groups(values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    unique, inverse = np.unique(values.astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.cumsum(np.bincount(inverse, minlength=len(unique)))
    return list(zip(map(str, unique), np.split(order, ends[:-1]), strict=True))
