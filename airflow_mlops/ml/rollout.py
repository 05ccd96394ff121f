"""Whether the version that rolls out goes to its next step, falls, or waits for more windows.

The evidence of a step is the windows that were scored in it, by both versions on all rows, whoever served them. Where
outcomes are known (``monitor.labels``) the pipeline's relative gates decide, on the rows of these windows together: the
version goes on when it is shown to be at most so much worse than the champion, and falls when it is shown to be worse
than that. Without outcomes its predictions must stay near the champion's; how good they are is then not known. In any
case it must score every row, and not take many times the champion's time.

Several looks share the error probability of each gate (:mod:`~airflow_mlops.ml.spending`): the chance that a version
that is worse than the gate allows goes on from a step is at most the gate's own (5 % at 95 % confidence), and so is its
chance to become champion, as it must pass every step. The chance that a version which is not worse falls by any
comparison of any step is at most that, too: steps and gates share it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Data, Evaluate, Gate, Performance, StepVerdict
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.evidence import scarce
from airflow_mlops.ml.gate_result import GateResult, Verdict, gate_dict, gate_name, number
from airflow_mlops.ml.outcomes import watched_metric
from airflow_mlops.ml.prediction_shift import Shift, few_blocks, shifts
from airflow_mlops.ml.rollout_evidence import Evidence
from airflow_mlops.ml.rollout_rows import Compared, blocks_of, evaluation_of
from airflow_mlops.ml.spending import share_of_look, spent_by
from airflow_mlops.ml.value import metric_of
from airflow_mlops.ml.versus import versus
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.rollout import FULL, Rollout, step_name

ALPHA = 0.05
"""Error probability of the comparison of predictions, which no gate names."""
LEAST_SECONDS = 1.0
"""A version that takes less than this for all rows of its windows is not slow, whatever the champion takes."""
_LEAST_SHARE = 1e-9
_ROWS, _TIME = _GUARDS = ("scores every row", "time")


@dataclass(frozen=True)
class Look:
    """What a look at a rollout came to.

    :param kind: ``next``, ``end`` or ``wait``, as :meth:`~airflow_mlops.registry.Registry.judge_rollout` takes it.
    :param look: its number in the step; ``spent``: share of the error probability spent with it.
    :param rows: that the comparison stands on; ``scored`` all of the step's windows, of which the version ``served``.
    """

    kind: str
    verdict: Verdict
    sentence: str
    look: int
    spent: float
    windows: int
    rows: int
    scored: int
    served: int
    results: tuple[GateResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def relative_gates(evaluate: Evaluate, version: Version, performance: Performance) -> tuple[Gate, ...]:
    """The gates that a step asks again: those against the champion, as "not worse by".

    A gate that asked for better was passed; of a step it asks that the version be not worse. Gates whose value is the
    user's own function are left out: it may need columns that are not kept. Where no gate compares, the metric that
    performance is watched in does, by ``monitor.performance.max_drop``.
    """
    found = [
        gate if gate.not_worse_by is not None else gate.model_copy(update={"better_by": None, "not_worse_by": 0.0})
        for gate in evaluate.gates
        if gate.versus is not None and (gate.value is None or gate.value.callable is None)
    ]
    if found:
        return tuple(found)
    metric = watched_metric(version, performance, evaluate.metrics)
    return (Gate(metric=metric, versus="champion", not_worse_by=performance.max_drop),)


def look_at(
    rollout: Rollout,
    seen: Sequence[Evidence],
    due: Sequence[Evidence],
    *,
    rules: StepVerdict,
    compared: Callable[[], Compared],
    champion: Version,
    tried: Version,
    data: Data,
    evaluate: Evaluate,
    performance: Performance,
    labelled: bool,
) -> Look | None:
    """Judge a rollout by the windows of its present step; ``None`` where there is nothing new to judge it by.

    :param seen: windows that were scored; ``due`` those of them whose outcomes should be complete.
    :param compared: reads the windows of ``due``; called only where they are needed.
    :param labelled: whether outcomes arrive at all.
    """
    served, scored = sum(one.served for one in seen), sum(one.rows for one in seen)
    guards = (_failures(seen, tried), _time(seen, rules))
    whole = [result for result in guards if result is not None]
    if any(result.verdict == "rejected" for result in whole):
        look = Look("end", "rejected", "", rollout.looks, rollout.spent, len(seen), 0, scored, served, tuple(whole))
        return replace(look, sentence=_sentence(look, rollout, tried, rules, labelled))
    number_of_look = len(due)
    if number_of_look <= rollout.looks:
        return None
    both = compared()
    share = share_of_look(number_of_look, rules.max_windows, rollout.spent)
    spends = share > _LEAST_SHARE
    if labelled:
        results, rows, tested = _by_outcomes(
            both, rollout, rules, share if spends else 0.0, champion, tried, data, evaluate, performance
        )
    else:
        results, rows, tested = _by_predictions(both, rollout, rules, share if spends else 0.0, data, evaluate)
    spent = max(rollout.spent, spent_by(number_of_look, rules.max_windows)) if tested and spends else rollout.spent
    every = (*whole, *results)
    found = {result.verdict for result in every}
    verdict: Verdict = "rejected" if "rejected" in found else "inconclusive" if "inconclusive" in found else "passed"
    kind = {"passed": "next", "rejected": "end"}.get(verdict, "wait")
    if kind == "wait" and number_of_look >= rules.max_windows and rules.on_timeout == "rollback":
        kind = "end"
    scored, served = sum(one.rows for one in due), sum(one.served for one in due)
    look = Look(kind, verdict, "", number_of_look, spent, len(due), rows, scored, served, every)
    return replace(look, sentence=_sentence(look, rollout, tried, rules, labelled))


# --- what is judged --------------------------------------------------------------------------------


def _failures(seen: Sequence[Evidence], tried: Version) -> GateResult | None:
    """Whether the version scored every window."""
    failed = [one for one in seen if one.failed is not None]
    if failed:
        sentence = f"it could not score the rows of {failed[-1].window}: {failed[-1].failed}"
        return GateResult({}, _ROWS, "rejected", sentence, float(len(failed)), threshold=0.0)
    windows = "1 window" if len(seen) == 1 else f"{len(seen)} windows"
    rows = sum(one.rows for one in seen)
    return GateResult({}, _ROWS, "passed", f"it scored all {rows:,} rows of {windows}", 0.0, threshold=0.0)


def _time(seen: Sequence[Evidence], rules: StepVerdict) -> GateResult | None:
    """Whether the version takes many times as long as the champion; ``None`` where nothing was measured."""
    theirs, mine = (sum(one.seconds[i] for one in seen) for i in (0, 1))
    if theirs <= 0:
        return None
    ratio = mine / theirs
    verdict: Verdict = "rejected" if ratio > rules.max_slowdown and mine >= LEAST_SECONDS else "passed"
    sentence = f"it took {mine:.3g} s for these rows, the champion {theirs:.3g} s"
    return GateResult({}, _TIME, verdict, sentence, ratio, threshold=rules.max_slowdown)


def _by_outcomes(
    both: Compared,
    rollout: Rollout,
    rules: StepVerdict,
    share: float,
    champion: Version,
    tried: Version,
    data: Data,
    evaluate: Evaluate,
    performance: Performance,
) -> tuple[list[GateResult], int, bool]:
    """The relative gates on the rows with an outcome; how many these are, and whether anything was tested."""
    gates = relative_gates(evaluate, tried, performance)
    outcomes = both.outcomes if both.outcomes is not None else pd.Series(dtype=object)
    has = outcomes.notna().to_numpy()
    rows, coverage = int(has.sum()), float(has.mean()) if len(has) else 0.0
    if coverage < performance.min_coverage or rows < rules.min_rows:
        why = f"{rows:,} of {len(has):,} rows have an outcome"
        why += (
            f", and {performance.min_coverage:.0%} are needed"
            if coverage < performance.min_coverage
            else f", and {rules.min_rows:,} rows are needed"
        )
        return [_waits(gate_name(gate), why, gate) for gate in gates], rows, False
    evaluation = evaluation_of(both, has, outcomes[has], champion, tried, gates, data, evaluate)
    results, tested = [], False
    for gate in gates:
        metric = metric_of(gate)
        metric.check_task(evaluation.task, evaluation.n_classes)
        short = scarce(metric, evaluation, np.arange(evaluation.rows))
        if short is not None:
            results.append(_waits(gate_name(gate), f"{metric.name}: {short.why}", gate))
        elif not share:
            results.append(_waits(gate_name(gate), "its looks are used up", gate))
        else:
            tested = True
            results.append(_tested(gate, evaluation, share, rollout.judged * len(gates)))
    return results, rows, tested


def _tested(gate: Gate, evaluation: Evaluation, share: float, ways: int) -> GateResult:
    """A gate at the part of its error probability that this look has; to fall by it has ``ways`` chances in all."""
    metric = metric_of(gate)
    alpha = (1 - gate.level) * share
    found = versus(gate.model_copy(update={"confidence": 1 - alpha}), metric, evaluation)
    if found.verdict != "passed":
        found = versus(gate.model_copy(update={"confidence": 1 - alpha / ways}), metric, evaluation)
    return replace(found, gate=gate_dict(gate))


def _by_predictions(
    both: Compared, rollout: Rollout, rules: StepVerdict, share: float, data: Data, evaluate: Evaluate
) -> tuple[list[GateResult], int, bool]:
    """How far the predictions are from the champion's; how many rows were compared, and whether it was tested."""
    rows = len(both.tried)
    name, limit = "predictions near the champion's", rules.max_shift
    if rows < rules.min_rows:
        return [_waits(name, f"{rows:,} rows were scored, and {rules.min_rows:,} are needed")], rows, False
    if not share:
        return [_waits(name, "its looks are used up")], rows, False
    blocks = blocks_of(both.champion, data, evaluate)
    results = []
    found = shifts(both.tried, both.champion, id_column=data.id, blocks=blocks)
    for one in found:
        results.append(_shifted(one, limit, ALPHA * share, rollout.judged * len(found)))
    return results, rows, True


def _shifted(one: Shift, limit: float, alpha: float, ways: int) -> GateResult:
    name = f"{one.column} near the champion's"
    value = one.estimate.value
    passing, falling = (None if few_blocks(one.estimate) else one.estimate.bounds(1 - a) for a in (alpha, alpha / ways))
    verdict: Verdict = "inconclusive"
    if passing is not None and passing[1] <= limit:
        verdict = "passed"
    elif falling is not None and falling[0] > limit:
        verdict = "rejected"
    low, high = (passing if verdict == "passed" else falling) or (None, None)
    sure = f" ({number(max(low, 0.0), 3)} … {number(high, 3)})" if low is not None and high is not None else ""
    end = {"passed": "near enough", "rejected": "too far"}.get(verdict, "cannot tell whether that is too far")
    sentence = f"{one.column}: {number(value, 3)} σ from the champion's{sure}, limit {number(limit, 3)}: {end}"
    return GateResult({}, name, verdict, sentence, value, low, high, limit)


def _waits(name: str, why: str, gate: Gate | None = None) -> GateResult:
    return GateResult(gate_dict(gate) if gate is not None else {}, name, "inconclusive", why)


def _sentence(look: Look, rollout: Rollout, tried: Version, rules: StepVerdict, labelled: bool) -> str:
    """One sentence a person can decide by."""
    windows = "1 window" if look.windows == 1 else f"{look.windows} windows"
    share = f" of ids ({look.served:,} of {look.scored:,} rows served)" if 0 < rollout.share < 1 else ""
    counted = f"{look.rows:,} rows with labels" if labelled and look.rows else f"{look.scored:,} rows"
    # That it scored every row in time is news only where it did not.
    told = [r for r in look.results if r.verdict == look.verdict and (r.verdict != "passed" or r.name not in _GUARDS)]
    why = ". ".join(r.sentence for r in told)
    if look.kind == "next":
        then = step_name(rollout.next) + (f": v{tried.number} is champion" if rollout.next == FULL else "")
    elif look.kind == "end":
        undecided = look.verdict == "inconclusive"
        then = f"undecided after {rules.max_windows} windows: rolled back" if undecided else "rolled back"
    elif look.look >= rules.max_windows:
        then = f"undecided after {rules.max_windows} windows: it stays until a person decides"
    else:
        then = "waits"
    return f"{rollout.name}{share}, {windows}, {counted}: {why} → {then}"
