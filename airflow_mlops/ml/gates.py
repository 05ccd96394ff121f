"""Decide, from one evaluation, whether a candidate may be delivered.

A comparison with the champion has three outcomes, because rows can be too few to tell. With the
one-sided bounds ``low`` and ``high`` of the difference (positive = candidate better):

* ``not_worse_by: m`` passes when low ≥ −m, is rejected when high < −m, else inconclusive;
* ``better_by: m`` passes when low > m, is rejected when high ≤ m, else inconclusive.

A value that is missing or not finite never passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from airflow_mlops.config.models import Gate, Serving
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.paired import Estimate

Verdict = Literal["passed", "rejected", "inconclusive", "no_baseline"]
MIN_CLASS = 30
"""Fewer rows of a class (regression: of the holdout), and no interval can be trusted."""
_MOST_ROWS = 10**9


@dataclass(frozen=True)
class SliceResult:
    """One value of a slice column; ``value`` as printed, ``None`` when it could not be computed."""

    column: str
    value_of: str
    rows: int
    value: float | None
    verdict: Verdict


@dataclass(frozen=True)
class GateResult:
    """The outcome of one gate.

    :param value: what was judged: the printed metric (of the worst slice), or the difference to the champion.
    :param low: one-sided bounds of the difference at the gate's confidence; ``None`` for absolute gates.
    :param threshold: what ``value`` or a bound is held against.
    :param needed_rows: estimated holdout rows, in all, that would decide; ``None`` when not inconclusive or hopeless.
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
    serving: dict[str, Any] | None = None


@dataclass(frozen=True)
class GateReport:
    """All gates' outcomes and what follows from them."""

    verdict: Verdict
    sentence: str
    results: tuple[GateResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, fit for XCom."""
        return asdict(self) | {"results": [asdict(r) | {"slices": [asdict(s) for s in r.slices]} for r in self.results]}


def decide(
    gates: Sequence[Gate],
    evaluation: Evaluation,
    *,
    serving: Callable[[Serving], dict[str, Any]] | None = None,
    further: Sequence[Callable[[Evaluation], GateResult]] = (),
) -> GateReport:
    """Judge every gate; nothing is skipped after a rejection, so that the report is whole.

    :param serving: runs a serving check and returns :func:`airflow_mlops.ml.serving.check_serving`'s result.
    :param further: gates as code.
    :raises EvaluationError: unknown or unfit metric, missing slice column, at_least where lower is better.
    """
    results = (*(_judge(gate, evaluation, serving) for gate in gates), *(judge(evaluation) for judge in further))
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
        sentence = f"passed: all {len(results)} gates. " + ". ".join(r.sentence for r in results)
    else:
        sentence = f"{overall}: " + ". ".join(r.sentence for r in deciding)
    if evaluation.same_model:
        sentence += ". The candidate is the champion, byte for byte"
    return GateReport(overall, sentence, results)


def gate_metrics(gates: Sequence[Gate]) -> list[str]:
    """Names of the metrics that these gates ask for, each once."""
    return list(dict.fromkeys(g.metric for g in gates if g.metric))


def _judge(gate: Gate, evaluation: Evaluation, serving: Callable[[Serving], dict[str, Any]] | None) -> GateResult:
    if gate.serving is not None:
        if serving is None:
            raise EvaluationError("a serving gate needs a serving check, and none was given")
        return _serving(gate, gate.serving, serving(gate.serving))
    metric = Metric(gate.metric or "")
    metric.check_task(evaluation.task, evaluation.n_classes)
    if gate.versus is not None:
        return _versus(gate, metric, evaluation)
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
    d = _decimals(value, value - threshold)
    return GateResult(
        gate=_gate_dict(gate),
        name=_name(gate),
        verdict="passed" if holds else "rejected",
        sentence=f"{metric.name} {_number(value, d)} {_relation(metric, holds)} {_number(threshold)}",
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
        d = _decimals(value, value - threshold)
        parts.append(
            f"{metric.name} {_number(value, d)} of the worst slice, {s.column} = {s.value_of} ({s.rows:,} rows),"
            f" {_relation(metric, holds)} {_number(threshold)}"
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
        gate=_gate_dict(gate),
        name=_name(gate),
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


# --- against the champion --------------------------------------------------------------------------


def _versus(gate: Gate, metric: Metric, evaluation: Evaluation) -> GateResult:
    margin = float(gate.not_worse_by if gate.not_worse_by is not None else gate.better_by or 0.0)
    limit = -margin if gate.not_worse_by is not None else margin
    base: dict[str, Any] = {"gate": _gate_dict(gate), "name": _name(gate), "threshold": limit}
    mine = metric.printed(evaluation.value(metric))
    if not evaluation.has_champion:
        sentence = f"{metric.name} {_number(mine)}: there is no champion to compare with"
        return GateResult(**base, verdict="no_baseline", sentence=sentence, value=None)
    theirs = metric.printed(evaluation.value(metric, "champion"))
    if evaluation.same_model:
        holds = gate.not_worse_by is not None
        return GateResult(
            **base,
            verdict="passed" if holds else "rejected",
            sentence=f"{metric.name} {_number(mine)}: the candidate is the champion, byte for byte, so "
            + ("it is not worse" if holds else "it is not better"),
            value=0.0,
            low=0.0,
            high=0.0,
        )
    difference = evaluation.estimate(metric, "difference")
    bounds = difference.bounds(gate.confidence)
    verdict = _three_way(gate, difference.value, bounds)
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
    d = _decimals(mine, margin, *((high - low) / 2 for _ in (0,) if low is not None and high is not None))
    sentence = f"{metric.name} {_number(mine, d)} vs champion {_number(theirs, d)}"
    sentence += " (lower is better): advantage " if metric.lower_is_better else ": "
    sentence += _signed(value, d)
    if low is not None and high is not None:
        sentence += f", {100 * (2 * gate.confidence - 1):.3g} % CI {_signed(low, d)}…{_signed(high, d)}"
    sentence += ": " + _conclusion(gate, verdict, margin)
    if scarce is not None:
        sentence += f"; {scarce[0]}, and {MIN_CLASS} are needed"
    if verdict == "inconclusive":
        sentence += _more(needed, evaluation.rows, low)
    return GateResult(**base, verdict=verdict, sentence=sentence, value=value, low=low, high=high, needed_rows=needed)


def _three_way(gate: Gate, value: float, bounds: tuple[float, float] | None) -> Verdict:
    """Verdict of one comparison; see the module's text."""
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
        return f"it is more than {_number(margin)} worse" if margin else "it is worse"
    words = {"passed": "it is", "rejected": "it is not", "inconclusive": "cannot show it is"}[verdict]
    if gate.not_worse_by is not None:
        return f"{words} at most {_number(margin)} worse"
    return f"{words} more than {_number(margin)} better" if margin else f"{words} better"


# --- serving ---------------------------------------------------------------------------------------


def _serving(gate: Gate, limits: Serving, result: dict[str, Any]) -> GateResult:
    problems = []
    if result.get("error"):
        problems.append(str(result["error"]))
    else:
        if result["equal"] is not True:
            problems.append("a fresh process predicts something else than the training process")
        for key, limit, unit, what in (
            ("p95_ms", limits.p95_ms, "ms", "p95 of one row"),
            ("size_mb", limits.max_mb, "MB", "model file"),
        ):
            value = result[key]
            if limit is not None and not (math.isfinite(value) and value <= limit):
                problems.append(f"{what} {value:.3g} {unit} is above {limit:g} {unit}")
    if problems:
        sentence = "serving: " + "; ".join(problems)
    else:
        sentence = (
            f"serving: p95 {result['p95_ms']:.3g} ms over {result['rows']} rows, {result['size_mb']:.3g} MB,"
            " same predictions in a fresh process"
        )
    return GateResult(
        gate=_gate_dict(gate),
        name="serving",
        verdict="rejected" if problems else "passed",
        sentence=sentence,
        value=result.get("p95_ms"),
        threshold=limits.p95_ms,
        serving=result,
    )


# --- words -----------------------------------------------------------------------------------------


def _gate_dict(gate: Gate) -> dict[str, Any]:
    return gate.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _name(gate: Gate) -> str:
    for key in ("at_least", "at_most", "not_worse_by", "better_by"):
        value = getattr(gate, key)
        if value is not None:
            by = f" by {', '.join(gate.slices)}" if gate.slices else " vs champion" if gate.versus else ""
            return f"{gate.metric} {key} {value:g}{by}"
    return str(gate.metric)


def _decimals(value: float, *small: float) -> int:
    """Digits after the point that keep the smallest of these differences visible."""
    base = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    # The factor keeps 0.0099999999 from asking for one digit more than 0.01.
    sizes = [abs(s) * (1 + 1e-6) for s in small if s and math.isfinite(s)]
    return min(max([base, *(-math.floor(math.log10(s)) for s in sizes)]), 8)


def _number(value: float, decimals: int | None = None) -> str:
    if decimals is None:
        text = f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    else:
        text = f"{value:,.{decimals}f}"
    return text.replace("-", "−")


def _signed(value: float, decimals: int) -> str:
    return _number(value, decimals) if value < 0 else "+" + _number(value, decimals)
