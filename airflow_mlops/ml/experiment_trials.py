"""One trial of an experiment: run it, time it, and record what came of it, its error too.

A trial that succeeded is not run again with the same inputs, however often it is asked for; one that failed is: who
starts it again has changed something.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from airflow_mlops.config.models import length
from airflow_mlops.exceptions import ConfigError, CorruptObject, MLOpsError, StoreError, TrainingError
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.cost import Meter
from airflow_mlops.ml.experiment_plan import amount
from airflow_mlops.ml.experiment_records import ExperimentRecords
from airflow_mlops.ml.privacy import told
from airflow_mlops.registry.log import op_id
from airflow_mlops.store.content import file_digest

_MOST_ERROR = 500

Log = Callable[..., None]


@dataclass(frozen=True)
class Scored:
    """What a trial came to.

    :param score: as people read it.
    :param facts: what else is recorded: rows, task.
    """

    score: float
    facts: dict[str, Any]


class Runner(Protocol):
    """Scores trials of one plan."""

    private: Collection[str]

    def inputs(self, candidate: Mapping[str, Any]) -> Any:
        """What the score depends on beside plan and parameters, plain JSON: data and code."""

    def available(self, candidate: Mapping[str, Any], rung: Mapping[str, Any]) -> int:
        """The most that a trial of ``candidate`` can get of the rung's resource."""

    def score(self, candidate: Mapping[str, Any], params: Mapping[str, Any], rows: int | None) -> Scored:
        """Score one combination, with at most so many rows; ``None``: all."""


class CallableRunner:
    """Scores by calling the experiment's function: a simulation, a heuristic, anything that returns a number."""

    private: Collection[str] = ()

    def __init__(self, plan: Mapping[str, Any], allowed_imports: Sequence[str]) -> None:
        self._path = str(plan["callable"])
        self._allowed = allowed_imports
        self._seed = int(plan["seed"])

    @cached_property
    def _function(self) -> Callable[..., Any]:
        found: Any = resolve(self._path, self._allowed)
        return found

    @cached_property
    def _parameters(self) -> tuple[set[str], bool]:
        """Names that the function takes, and whether it takes any other."""
        found = inspect.signature(self._function).parameters.values()
        return {p.name for p in found}, any(p.kind is p.VAR_KEYWORD for p in found)

    def check(self, names: Collection[str]) -> None:
        """Refuse parameters that the function does not have.

        :raises ConfigError: naming them.
        """
        known, any_other = self._parameters
        strange = sorted(set(names) - known)
        if strange and not any_other:
            raise ConfigError(
                f"experiment.space: {self._path} has no parameter {', '.join(strange)}",
                hint=f"it takes: {', '.join(sorted(known))}",
            )

    def inputs(self, candidate: Mapping[str, Any]) -> Any:
        """The code's digest."""
        return digests_of(self._function)

    def available(self, candidate: Mapping[str, Any], rung: Mapping[str, Any]) -> int:
        """What the plan says: a parameter has no natural end."""
        return int(rung["most"])

    def score(self, candidate: Mapping[str, Any], params: Mapping[str, Any], rows: int | None) -> Scored:
        """Call the function, with the seed where it takes one."""
        known, any_other = self._parameters
        seeded = {"seed": self._seed} if any_other or "seed" in known else {}
        value = self._function(**seeded | dict(params))
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise TrainingError(f"{self._path} returned {value!r:.80}", hint="return a finite number")
        return Scored(number, {})


def digests_of(*functions: Any) -> dict[str, str]:
    """The files that functions were defined in, and their sha256."""
    files = [f for function in functions if (f := inspect.getsourcefile(inspect.unwrap(function)))]
    return {file: file_digest(Path(file)) for file in files}


def run_trial(
    records: ExperimentRecords,
    plan: Mapping[str, Any],
    number: int,
    rung: int,
    runner: Runner,
    *,
    run: Mapping[str, Any] | None = None,
    limits: tuple[type[BaseException], ...] = (),
    log: Log = lambda *_: None,
) -> dict[str, Any]:
    """Run trial ``number`` on ``rung`` (both from 1), unless it has succeeded before; returns its record.

    :param run: which run of which DAG this belongs to.
    :param limits: what whoever runs this raises in it where it takes too long: the trial has failed then.
    :raises StoreError, CorruptObject: the store's; whatever the trial itself raises is recorded.
    """
    trial = plan["trials"][number - 1]
    step = plan["rungs"][rung - 1]
    candidate = next(c for c in plan["candidates"] if c["name"] == trial["candidate"])
    resource, code, inputs = None, None, None
    params, rows = dict(trial["params"]), None
    before = records.trial(rung, number)
    meter, scored, error = Meter(), None, None
    try:
        if step["resource"] is not None:
            resource = {"name": step["resource"], "value": amount(step, runner.available(candidate, step))}
            if step["resource"] == "rows":
                rows = resource["value"]
            else:
                params[step["resource"]] = resource["value"]
        code = runner.inputs(candidate)
        inputs = op_id(candidate, params, rows, plan["seed"], plan.get("metric"), code)
        if before is not None and before["inputs"] == inputs and before["error"] is None:
            log("Trial %d has run before: %s", number, before["score"])
            return before
        scored = runner.score(candidate, params, rows)
    except (StoreError, CorruptObject):
        raise
    except MLOpsError as e:
        if e.retryable:
            raise
        error = str(e)
    except limits:
        error = f"it took longer than it may (experiment.resources.timeout), {meter.read()['wall_seconds']:,.0f} s"
    except Exception as e:  # noqa: BLE001 - recorded: one trial that fails does not end the experiment
        error = told(e, runner.private)
    cost = meter.read()
    record = {
        "format": 1,
        "number": number,
        "rung": rung,
        "candidate": trial["candidate"],
        "params": params,
        "resource": resource,
        "score": scored.score if scored else None,
        "error": " ".join(error.split())[:_MOST_ERROR] if error is not None else None,
        "seconds": cost["wall_seconds"],
        "cpu_seconds": cost["cpu_seconds"],
        "peak_mb": cost["peak_mb"],
        "snapshot": plan.get("snapshot"),
        "code": code,
        "seed": plan["train_seed"] if candidate["train"] else plan["seed"],
        "inputs": inputs,
        "run": dict(run or {}),
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        **(scored.facts if scored else {}),
    }
    records.write_trial(record)
    return record


def why_not(plan: Mapping[str, Any], ended: Sequence[Mapping[str, Any]]) -> str | None:
    """Why no further trial begins: the budget is spent, or the best score gains no more; ``None``: one may.

    :param ended: records of trials that have ended.
    """
    limit = length(plan["budget"])
    if limit is not None:
        spent = sum(r["seconds"] for r in ended)
        if spent >= limit.total_seconds():
            return f"{spent:,.0f} s are spent, and experiment.budget is {plan['budget']}"
    stop = plan["early_stop"]
    if stop is None:
        return None
    sign = -1 if plan["direction"] == "minimize" else 1
    scores = [sign * r["score"] for r in sorted(ended, key=lambda r: (r["at"], r["number"])) if r["error"] is None]
    best, since = -math.inf, 0
    for score in scores:
        best, since = (score, 0) if score > best + stop["min_gain"] else (best, since + 1)
    if since >= stop["patience"]:
        return f"the best score has gained no more than {stop['min_gain']:g} in {since} trials (experiment.early_stop)"
    return None
