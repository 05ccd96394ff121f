"""A limit that must hold in every part of the holdout.

Many slices are looked at, and by chance alone one of them is low. So a slice fails only where that is shown with all
of them in mind (Bonferroni: each at confidence 1 − alpha / slices), and then the gate rejects. To pass needs no such
correction: every slice must, and a bad one is let through no more often than if it were the only one (intersection-
union, Berger 1982, *Technometrics* 24, 295-300).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from airflow_mlops.config.models import Gate
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.evidence import scarce
from airflow_mlops.ml.gate_result import GateResult, SliceResult, Verdict, decimals, gate_dict, gate_name, number
from airflow_mlops.ml.metrics import Metric, Predictions
from airflow_mlops.ml.paired import Estimate, estimate
from airflow_mlops.ml.thresholds import printed_bounds, reaches, relation, shown, threshold_of

_NAMED = 3


@dataclass(frozen=True)
class Part:
    """One value of a slice column.

    :param found: its score; ``None`` where it cannot be judged, ``why`` says why.
    """

    column: str
    value_of: str
    rows: int
    found: Estimate | None = None
    why: str | None = None

    @property
    def name(self) -> str:
        """``carrier = AA``."""
        return f"{self.column} = {self.value_of}"


@dataclass(frozen=True)
class Parts:
    """The holdout by the values of the columns of a gate.

    :param judged: those with rows enough, and those that were asked for by name.
    :param small: those with fewer than ``min_rows``.
    :param missing: known to a model from training, and not among the rows.
    """

    judged: tuple[Part, ...]
    small: tuple[Part, ...]
    missing: tuple[str, ...]


def parts(gate: Gate, metric: Metric, evaluation: Evaluation, columns: Sequence[str]) -> Parts:
    """Score each value of ``columns`` by itself.

    One sort by score serves all slices of a ranking metric.

    :raises EvaluationError: a column is not in the evaluation.
    """
    known = evaluation.slices
    if absent := [c for c in columns if c not in known]:
        raise EvaluationError(
            f"there is no column {absent[0]!r} to slice by; the evaluation has {sorted(known)}",
            hint="correct the gate's slices; the column must be in the snapshot",
        )
    predictions = evaluation.predictions("candidate")
    order = None
    if metric.is_ranking and predictions.ranking is not None:
        order = np.argsort(predictions.ranking, kind="stable")
    judged, small, missing = [], [], []
    for column in columns:
        wanted = [str(v) for v in gate.slice_values.get(column, ())]
        seen = set()
        for value_of, rows in _groups(known[column].to_numpy(), order):
            seen.add(value_of)
            if wanted and value_of not in wanted:
                continue
            part = Part(column, value_of, len(rows))
            if len(rows) >= gate.min_rows:
                judged.append(_scored(part, metric, evaluation, predictions, rows))
            elif wanted:
                judged.append(Part(column, value_of, len(rows), None, f"it has fewer than {gate.min_rows} rows"))
            else:
                small.append(part)
        judged += [Part(column, v, 0, None, "it is not in the holdout") for v in wanted if v not in seen]
        missing += [f"{column} = {v}" for v in evaluation.known.get(column, ()) if v not in seen and not wanted]
    return Parts(tuple(judged), tuple(small), tuple(missing))


def _scored(part: Part, metric: Metric, evaluation: Evaluation, predictions: Predictions, rows: np.ndarray) -> Part:
    short = scarce(metric, evaluation, rows)
    if short is not None:
        return Part(part.column, part.value_of, part.rows, None, short.why)
    blocks = evaluation.block_codes
    if blocks is not None:
        blocks = np.unique(blocks[rows], return_inverse=True)[1]
    try:
        found = estimate(
            metric,
            evaluation.y[rows],
            predictions.take(rows),
            n_classes=evaluation.n_classes,
            blocks=blocks,
        )
    except EvaluationError as e:
        return Part(part.column, part.value_of, part.rows, None, e.message)
    return Part(part.column, part.value_of, part.rows, found)


def _groups(values: np.ndarray, order: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
    """Rows of each value, in the order of ``order`` or as they come."""
    unique, codes = np.unique(values.astype(str), return_inverse=True)
    # Few codes are sorted by counting them, in one pass.
    codes = codes.astype(np.uint16 if len(unique) < 2**16 else np.int64)
    rows = np.argsort(codes, kind="stable") if order is None else order[np.argsort(codes[order], kind="stable")]
    ends = np.cumsum(np.bincount(codes, minlength=len(unique)))
    return zip(map(str, unique), np.split(rows, ends[:-1]), strict=True)


def sliced(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    """Judge an absolute gate with ``slices``.

    :raises EvaluationError: a column is not in the evaluation, or the limit is on the wrong side.
    """
    threshold = threshold_of(gate, metric)
    found = parts(gate, metric, evaluation, gate.slices)
    scored = [p for p in found.judged if p.found is not None]
    each = 1 - (1 - gate.level) / max(len(scored), 1)
    results = [_judged(gate, metric, threshold, part, each) for part in found.judged]
    failed = [r for r in results if r.verdict == "rejected"]
    unsure = [r for r in results if r.verdict == "inconclusive"]
    verdict: Verdict = "rejected" if failed else "inconclusive" if unsure or not results else "passed"
    # Of a rejection, the sentence tells a slice that fails: a smaller one may lie lower, and not be shown to.
    worst, lowest = _worst(metric, failed or results), _worst(metric, results)
    said = []
    if worst is not None:
        said.append(
            _of_the_worst(metric, threshold, *worst, of="worst slice" if worst == lowest else "worst slice that fails")
        )
        many = f"{len(results)} slice{'s' if len(results) > 1 else ''}"
        said.append(f"{len(failed)} of {many} fail" if failed else f"{many} judged")
    elif not results:
        said.append(f"{metric.name} by {', '.join(gate.slices)}: no slice has {gate.min_rows} rows")
    if unsure:
        said.append(f"{len(unsure)} not shown either way: {named(unsure)}")
    return GateResult(
        gate=gate_dict(gate),
        name=gate_name(gate),
        verdict=verdict,
        sentence="; ".join(said + remarks(gate, found)),
        value=worst[1] if worst is not None else None,
        threshold=threshold,
        slices=tuple(results),
        slices_too_small=len(found.small),
        slices_missing=found.missing,
    )


def _judged(gate: Gate, metric: Metric, threshold: float, part: Part, each: float) -> SliceResult:
    if part.found is None:
        return SliceResult(part.column, part.value_of, part.rows, None, "inconclusive", why=part.why)
    value, limit = metric.printed(part.found.value), metric.printed(threshold)
    together, alone = part.found.bounds(each), part.found.bounds(gate.level)
    verdict: Verdict = "inconclusive"
    if shown(together, limit) == "rejected":
        verdict = "rejected"
    elif shown(alone, limit) == "passed" or (gate.confidence is None and reaches(metric, value, threshold)):
        verdict = "passed"
    ends = printed_bounds(metric, together) or (None, None)
    return SliceResult(part.column, part.value_of, part.rows, value, verdict, *ends)


def _worst(metric: Metric, results: Sequence[SliceResult]) -> tuple[SliceResult, float] | None:
    """The slice with the worst value; ``None`` where none has a value."""
    valued = [(r, r.value) for r in results if r.value is not None]
    return min(valued, key=lambda v: -v[1] if metric.lower_is_better else v[1], default=None)


def _of_the_worst(metric: Metric, threshold: float, worst: SliceResult, value: float, *, of: str) -> str:
    d = decimals(value, value - threshold)
    interval = ""
    if worst.low is not None and worst.high is not None:
        interval = f", {number(worst.low, d)}…{number(worst.high, d)} with all slices in mind"
    return (
        f"{metric.name} {number(value, d)} of the {of}, {worst.column} = {worst.value_of} ({worst.rows:,} rows"
        f"{interval}), {relation(metric, reaches(metric, value, threshold))} {number(threshold)}"
    )


def named(results: Sequence[SliceResult]) -> str:
    """The first few slices, with what is in the way of a verdict; a reason that all of them share is told once."""
    more = f" and {len(results) - _NAMED} more" if len(results) > _NAMED else ""
    names, reasons = [f"{r.column} = {r.value_of}" for r in results[:_NAMED]], [r.why for r in results[:_NAMED]]
    if reasons[0] and len(results) > 1 and len({r.why for r in results}) == 1:
        return f"{', '.join(names)}{more} ({reasons[0]})"
    told = [name + (f" ({why})" if why else "") for name, why in zip(names, reasons, strict=True)]
    return ", ".join(told) + more


def remarks(gate: Gate, found: Parts) -> list[str]:
    """What was not judged: small slices, and those that a model knows and the holdout lacks."""
    said = []
    for names, words in (
        ([p.name for p in found.small], f"smaller than {gate.min_rows} rows not judged"),
        (list(found.missing), "known from training and not in the holdout"),
    ):
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            said.append(f"{len(names)} {words} ({', '.join(names[:_NAMED])}{more})")
    return said


def by_value(parts: Sequence[Part]) -> dict[str, list[Part]]:
    """Parts by their column."""
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.column, []).append(part)
    return found
