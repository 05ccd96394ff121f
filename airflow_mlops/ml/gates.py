"""Decide, from one evaluation, whether a candidate may be delivered.

A gate holds a score against a limit (:mod:`~airflow_mlops.ml.thresholds`), in every slice
(:mod:`~airflow_mlops.ml.slices`), compares with the champion (:mod:`~airflow_mlops.ml.versus`) or groups with each
other (:mod:`~airflow_mlops.ml.gaps`), or looks at a serving check. A value that is missing or not finite never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_mlops.config.models import Evaluate, Gate, Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.behaviours import judge_behaviours, read_all
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gaps import gap
from airflow_mlops.ml.gate_result import GateReport, GateResult, SliceResult, Verdict, gate_dict
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.serving_gate import judge_serving
from airflow_mlops.ml.slices import sliced
from airflow_mlops.ml.thresholds import absolute, threshold_of
from airflow_mlops.ml.value import metric_of
from airflow_mlops.ml.versus import versus
from airflow_mlops.ml.wear import Wear, stricter, with_wear, worn_out

__all__ = [
    "GateReport",
    "GateResult",
    "SliceResult",
    "Verdict",
    "check_gates",
    "decide",
    "follow_up",
    "gate_metrics",
    "next_reference",
]


def decide(
    gates: Sequence[Gate],
    evaluation: Evaluation,
    *,
    serving: Callable[[Serving], dict[str, Any]] | None = None,
    behaviours: Mapping[str, dict[str, Any]] | None = None,
    further: Sequence[Callable[[Evaluation], GateResult]] = (),
    wear: Wear | None = None,
) -> GateReport:
    """Judge every gate; nothing is skipped after a rejection, so that the report is whole.

    :param serving: runs a serving check and returns :func:`airflow_mlops.ml.serving.check_serving`'s result.
    :param behaviours: by file, what :func:`airflow_mlops.ml.behaviours.check_behaviours` returned.
    :param further: gates as code.
    :param wear: this decision's place among those of its holdout; ``None``: the first and only one.
    :raises EvaluationError: unknown or unfit metric, missing slice column, at_least where lower is better.
    """
    found = [_worn(gate, evaluation, serving, behaviours or {}, wear) for gate in gates] + [
        judge(evaluation) for judge in further
    ]
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
    elif evaluation.same_predictions:
        sentence += ". The candidate predicts exactly what the champion does"
    return GateReport(overall, sentence, results, wear.to_dict() if wear is not None else None)


def next_reference(report: GateReport, version: int, reference: int | None) -> int:
    """The version that later losses are counted from, should this one become champion without a person's yes.

    :param version: the version judged.
    :param reference: the one that its losses were counted from; ``None`` where there was no champion.
    """
    counted = [r.reference for r in report.results if r.reference is not None]
    if reference is None or all(found["better"] for found in counted):
        return version
    return reference


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


def check_gates(config: Evaluate, folder: Path | None = None) -> None:
    """Refuse, before anything is trained, metrics that nobody knows and thresholds on the wrong side.

    :param folder: where files of recorded behaviour lie.
    :raises EvaluationError: as :func:`decide` would, later.
    :raises InvalidPipeline: a file of recorded behaviour that is not there, or with errors.
    """
    read_all(config.gates, folder)
    for name in config.metrics:
        Metric(name)
    for gate in config.gates:
        if gate.metric:
            metric = Metric(gate.metric)
            if gate.versus is None and gate.max_gap is None:
                threshold_of(gate, metric)


def gate_metrics(gates: Sequence[Gate]) -> list[str]:
    """Names of the metrics that these gates ask for, each once."""
    return list(dict.fromkeys(g.metric for g in gates if g.metric))


def _worn(
    gate: Gate,
    evaluation: Evaluation,
    serving: Callable[[Serving], dict[str, Any]] | None,
    behaviours: Mapping[str, dict[str, Any]],
    wear: Wear | None,
) -> GateResult:
    """Judge a gate; one whose intervals decide, at the confidence that its holdout has left."""
    if gate.versus is None and gate.max_gap is None and gate.confidence is None:
        return _judge(gate, evaluation, serving, behaviours)
    return with_wear(_judge(stricter(gate, wear), evaluation, serving, behaviours), gate_dict(gate), wear)


def _judge(
    gate: Gate,
    evaluation: Evaluation,
    serving: Callable[[Serving], dict[str, Any]] | None,
    behaviours: Mapping[str, dict[str, Any]],
) -> GateResult:
    if gate.behaviours is not None:
        if gate.behaviours not in behaviours:
            raise EvaluationError(
                f"the evaluation did not try the behaviours of {gate.behaviours}",
                hint="name the gate in evaluate.gates before the evaluation runs, and run it again",
            )
        return judge_behaviours(gate, behaviours[gate.behaviours])
    if gate.serving is not None:
        if serving is None:
            raise EvaluationError("a serving gate needs a serving check, and none was given")
        return judge_serving(gate, gate.serving, serving(gate.serving))
    metric = metric_of(gate)
    metric.check_task(evaluation.task, evaluation.n_classes)
    if gate.versus is not None:
        return versus(gate, metric, evaluation)
    if gate.max_gap is not None:
        return gap(gate, metric, evaluation)
    return sliced(gate, metric, evaluation) if gate.slices else absolute(gate, metric, evaluation)
