"""A fleet after a change against the one before it: the rows of all keys together, and each key by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_mlops.config.models import Fleet, Gate
from airflow_mlops.delivery.compare import Comparison, change_of, gate_of, paired, read_evaluation
from airflow_mlops.delivery.fleet_trial import GOES_ON, listed, reason_of
from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.fleet.keys import is_parent
from airflow_mlops.ml.gate_result import GateResult
from airflow_mlops.ml.metrics import Metric
from airflow_mlops.ml.value import metric_of
from airflow_mlops.ml.versus import versus
from airflow_mlops.store.base import Store

KEY = "slice:key"
ALPHA = 0.05


@dataclass(frozen=True)
class FleetComparison(Comparison):
    """As of one model; ``keys`` has the metrics of each key ``before`` and ``after``, by name."""

    keys: tuple[dict[str, Any], ...] = ()


def check_comparable(before: Fleet | None, after: Fleet | None) -> None:
    """Refuse to compare models of other keys.

    :raises EvaluationError: one of both has models of other keys, or one model alone.
    """
    if (before and before.columns) != (after and after.columns):
        raise EvaluationError(f"it had {_models(before)}, and has {_models(after)}")


def _models(fleet: Fleet | None) -> str:
    return "one model" if fleet is None else f"a model for each {', '.join(fleet.columns)}"


def compare_fleets(
    store: Store, before: dict[str, Any], after: dict[str, Any], *, metrics: Sequence[str], gates: Sequence[Gate]
) -> FleetComparison:
    """Compare two trials of a fleet on the rows that both were judged on: of the keys that have a model in both.

    A gate that compares is judged over the rows of all keys together, and for each key at a confidence that holds over
    all of them (Bonferroni). It rejects where either does; its sentence names the keys. Of limits, some are missed by
    chance: that more keys miss one than before the change is shown by a sign test.

    :param before: what :func:`airflow_mlops.delivery.fleet_trial.train_before` returned; ``after``: what ``train`` did.
    :param metrics: names of those that are told. :param gates: of the pipeline after.
    :raises EvaluationError: the two were not judged on the same rows and labels.
    """
    sides = {name: read_evaluation(store, side["evaluation"]) for name, side in (("b", before), ("a", after))}
    keys = sorted(set(sides["b"].frame[KEY]) & set(sides["a"].frame[KEY]))
    if not keys:
        raise EvaluationError("the two cannot be compared: no key has a model in both")
    both = paired(_of(sides["b"], keys), _of(sides["a"], keys))
    told = [name for name in metrics if name in before["metrics"] and name in after["metrics"]]
    judged = [_judged(gate, both, keys) for gate in gates if gate.versus]
    of_key = {name: {row["key"]: row for row in side["fleet"]["keys"]} for name, side in (("b", before), ("a", after))}
    return FleetComparison(
        both.rows,
        tuple(change_of(Metric(name), both) for name in told),
        (*map(gate_of, judged), *(_fewer(of_key["b"], of_key["a"]) if len(judged) < len(gates) else ())),
        tuple(
            {"key": key, "before": of_key["b"][key]["metrics"], "after": of_key["a"][key]["metrics"]} for key in keys
        ),
    )


def _of(evaluation: Evaluation, keys: Sequence[str]) -> Evaluation:
    """The evaluation's rows of these keys, in an order that both sides have, each named by its key and its place."""
    frame = evaluation.frame[evaluation.frame[KEY].isin(keys)].sort_values([KEY, "row"], ignore_index=True)
    return _rows(evaluation, frame.assign(row=frame[KEY] + " " + frame["row"].astype(str)))


def _rows(evaluation: Evaluation, frame: Any) -> Evaluation:
    if "block" in frame:
        frame = frame.assign(block=frame["block"].factorize()[0])
    return replace(evaluation, frame=frame, metrics=(), _estimates={})


def _judged(gate: Gate, both: Evaluation, keys: Sequence[str]) -> GateResult:
    """One gate over all rows, and each key at the confidence that is left for it."""
    metric, whole = metric_of(gate), versus(gate, metric_of(gate), both)
    strict = gate.model_copy(update={"confidence": 1 - (1 - gate.level) / len(keys)})
    worse = []
    for key in keys if len(keys) > 1 else ():
        one = _rows(both, both.frame[both.frame[KEY] == key].reset_index(drop=True))
        try:
            found = versus(strict, metric, one)
        except EvaluationError:
            continue  # on the rows of this key alone the metric has no value: of one class, say
        if found.verdict == "rejected" and gate.not_worse_by is not None:
            worse.append(f"{key}: {found.sentence}")
    if not worse:
        return replace(whole, sentence=f"{whole.sentence}, over {len(keys)} keys")
    sentence = f"{len(worse)} of {len(keys)} keys are worse than they may be: {listed(worse, '; ')}"
    return replace(whole, verdict="rejected", sentence=sentence)


def _fewer(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether more keys miss their limits than before, beyond chance: a sign test of those that changed sides."""
    both = [key for key in after if not is_parent(key) and "metrics" in after[key] and "metrics" in before.get(key, {})]
    went = {key: (before[key]["status"] in GOES_ON, after[key]["status"] in GOES_ON) for key in both}
    lost = [key for key, (then, now) in went.items() if then and not now and after[key]["status"] == "rejected"]
    # Neither counts those that no limit decided about.
    won = sum(now and before[key]["status"] == "rejected" for key, (_, now) in went.items())
    if not lost:
        return []
    changed = len(lost) + won
    chance = sum(math.comb(changed, k) for k in range(len(lost), changed + 1)) / 2**changed
    verdict = "rejected" if chance <= ALPHA else "passed"
    sentence = (
        f"{len(lost)} of {len(both)} keys missed no limit before the change and miss one now, {won} the other way "
        f"around (p = {chance:.2g}): " + listed([f"{key}: {reason_of(after[key])}" for key in lost], "; ")
    )
    return [{"name": "limits, against before", "verdict": verdict, "sentence": sentence, "versus": True}]
