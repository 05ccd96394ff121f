"""The pipeline after a change against the one before it: the same rows, two models, paired verdicts."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.gate_result import GateResult
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.value import metric_of
from airflow_mlops.ml.versus import versus
from airflow_mlops.store import get_blob_file
from airflow_mlops.store.base import Store

Direction = Literal["better", "worse", "the same", "no difference shown"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class MetricChange:
    """One metric before and after, and what a paired test of the rows says.

    :param difference: positive: better now, whichever way the metric counts; with one-sided bounds at 95 %.
    """

    name: str
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    verdict: Direction


@dataclass(frozen=True)
class Comparison:
    """Two models on one holdout; ``gates`` are those that compare, with the model before as the champion."""

    rows: int
    metrics: tuple[MetricChange, ...]
    gates: tuple[dict[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def compare(
    store: Store, before: dict[str, Any], after: dict[str, Any], *, metrics: Sequence[str], gates: Sequence[Gate]
) -> Comparison:
    """Compare two trials on the rows that both were judged on.

    :param before: what :func:`airflow_mlops.delivery.trial.train_before` returned; ``after``: what ``train`` did.
    :param metrics: names of the metrics that are told.
    :param gates: of the pipeline after; those with ``versus`` are judged.
    :raises EvaluationError: the two were not judged on the same rows and labels.
    """
    both = paired(read_evaluation(store, before["evaluation"]), read_evaluation(store, after["evaluation"]))
    judged = [versus(gate, metric_of(gate), both) for gate in gates if gate.versus]
    return Comparison(
        both.rows,
        tuple(change_of(Metric(name), both) for name in metrics),
        tuple(gate_of(result) for result in judged),
    )


def paired(before: Evaluation, after: Evaluation) -> Evaluation:
    """Return ``after`` with what ``before`` predicted as the champion.

    :raises EvaluationError: they are not of the same rows and labels.
    """
    if before.task != after.task or before.classes != after.classes:
        raise EvaluationError(
            f"the two cannot be compared: {_kind(before)} before, {_kind(after)} now",
            hint="look at the metrics of each by itself",
        )
    mine, theirs = after.frame, before.frame
    if len(mine) != len(theirs) or not (mine["row"].equals(theirs["row"]) and mine["y"].equals(theirs["y"])):
        raise EvaluationError(
            f"the two cannot be compared: they were judged on other rows ({len(theirs):,} before, {len(mine):,} now)",
            hint="look at the metrics of each by itself",
        )
    said = theirs[[c for c in theirs.columns if c.startswith("candidate_")]]
    said = said.rename(columns=lambda c: c.replace("candidate_", "champion_", 1))
    # Labels or probabilities of one side alone cannot be held against anything.
    frame = mine.assign(**{column: said[column] for column in said.columns})
    return replace(after, metrics=(), frame=frame, has_champion=True, reference=None, _estimates={})


def _kind(evaluation: Evaluation) -> str:
    return evaluation.task if evaluation.classes is None else f"{evaluation.task} of {len(evaluation.classes)} classes"


def change_of(metric: Metric, both: Evaluation) -> MetricChange:
    """Return one metric of both models, and what their rows say of the difference."""
    before, after = (metric.printed(both.value(metric, of)) for of in ("champion", "candidate"))
    if both.same_predictions:
        return MetricChange(metric.name, before, after, 0.0, 0.0, 0.0, "the same")
    better = versus(Gate(metric=metric.name, versus="champion", better_by=0.0, confidence=CONFIDENCE), metric, both)
    worse = versus(Gate(metric=metric.name, versus="champion", not_worse_by=0.0, confidence=CONFIDENCE), metric, both)
    verdict: Direction = "no difference shown"
    if better.verdict == "passed":
        verdict = "better"
    elif worse.verdict == "rejected":
        verdict = "worse"
    return MetricChange(metric.name, before, after, better.value or 0.0, better.low, better.high, verdict)


def gate_of(result: GateResult) -> dict[str, Any]:
    """Return the outcome of a gate that compares, as plain JSON."""
    return {"name": result.name, "verdict": result.verdict, "sentence": result.sentence, "versus": True}


def read_evaluation(store: Store, digest: str) -> Evaluation:
    """Return an evaluation that a trial has left in the store."""
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "evaluation.parquet")
        get_blob_file(store, digest, path)
        return Evaluation.from_parquet(path)
