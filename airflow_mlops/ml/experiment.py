"""An experiment from its plan to its winner; every function works on the records, so that any process can go on.

Three acts, each of which may run anywhere and again: :func:`begin` writes the plan, :func:`run` runs one trial, and
:func:`finish` chooses. Between the rungs of successive halving, :func:`promoted` tells who goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.config.models import Data, Evaluate, Experiment, Features, Train
from airflow_mlops.exceptions import TrainingError
from airflow_mlops.ml.code import resolve
from airflow_mlops.ml.experiment_plan import Candidate, candidates_of, plan_document
from airflow_mlops.ml.experiment_records import ExperimentRecords, experiment_id
from airflow_mlops.ml.experiment_trials import CallableRunner, Runner, digests_of, run_trial, why_not
from airflow_mlops.registry.lineage import code_version
from airflow_mlops.store.base import Store

Log = Callable[..., None]

STATES = ("finished", "failed", "not run")


@dataclass(frozen=True)
class Stopped:
    """A trial that was not begun, and why."""

    why: str


def begin(
    store: Store,
    pipeline: str,
    experiment: Experiment,
    *,
    rungs: int,
    parts: Sequence[Any] = (),
    data: Data | None = None,
    snapshot: dict[str, Any] | None = None,
    train: Train | None = None,
    features: Features | None = None,
    evaluate: Evaluate | None = None,
    task: str | None = None,
    allowed_imports: Sequence[str] = (),
    run: Mapping[str, Any] | None = None,
    asked: Mapping[str, Any] | None = None,
    log: Log = lambda *_: None,
) -> tuple[ExperimentRecords, dict[str, Any]]:
    """Settle what is tried and write the plan down; returns the records and the plan.

    :param rungs: how many rungs whoever runs the trials has.
    :param parts: what makes the experiment this one beside plan and rows, such as its run. Without them the same
        experiment on the same rows is gone on with.
    :param snapshot: the rows; without it the experiment is one of a callable.
    :param asked: the evidence of the request that started it.
    :raises ConfigError, TrainingError, EvaluationError, CodeNotAllowed: what no trial could do.
    """
    candidates = candidates_of(experiment, train, features)
    more: dict[str, Any] = {"pipeline": pipeline, "run": dict(run or {}), "asked": dict(asked) if asked else None}
    if experiment.callable:
        plan = plan_document(
            experiment, candidates, rungs, metric=None, direction=experiment.direction, snapshot=None, task=None,
            train_seed=None, at=_now(), **more,
        )  # fmt: skip
        runner = CallableRunner(plan, allowed_imports)
        halved = [r["resource"] for r in plan["rungs"] if r["resource"]]
        runner.check([*(experiment.space or {}), *halved])
    else:
        from airflow_mlops.ml.experiment_models import settle_metric
        from airflow_mlops.ml.snapshot import Snapshot

        if data is None or snapshot is None or train is None:
            raise TrainingError("an experiment with models needs data, train and a snapshot of the rows")
        target = Snapshot.load(store, snapshot).to_pandas(store, [data.target])[data.target]
        metric, kind = settle_metric(
            candidates, target, asked=experiment.metric, evaluate=evaluate or Evaluate(), task=task,
            allowed_imports=allowed_imports, seed=train.seed,
        )  # fmt: skip
        plan = plan_document(
            experiment, candidates, rungs, metric=metric.name,
            direction="minimize" if metric.lower_is_better else "maximize",
            snapshot=snapshot, task=kind, train_seed=train.seed, at=_now(), **more,
        )  # fmt: skip
    told = {k: v for k, v in plan.items() if k not in ("at", "run", "asked", "snapshot")}
    plan["code"] = _code(candidates, experiment, allowed_imports)
    rows = snapshot["fingerprint"] if snapshot else None
    records = ExperimentRecords(store, pipeline, experiment_id(pipeline, *parts, told, rows))
    plan = records.write_plan({**plan, "experiment": records.experiment})
    tried, rung = len(plan["trials"]), plan["rungs"]
    steps = f" on {len(rung)} rungs ({', '.join(str(r['trials']) for r in rung)})" if len(rung) > 1 else ""
    several = f" of {len(candidates)} candidates" if len(candidates) > 1 else ""
    log("Experiment %s: %d trials%s%s", records.experiment[:12], tried, several, steps)
    return records, plan


def _code(candidates: Sequence[Candidate], experiment: Experiment, allowed: Sequence[str]) -> dict[str, Any]:
    """Version and commit of the code that all trials together use."""
    paths = [experiment.callable, *(p for c in candidates for p in (c.features, c.train.callable if c.train else None))]
    return code_version(digests_of(*(resolve(path, allowed) for path in dict.fromkeys(paths) if path)))


def runner_of(
    store: Store,
    plan: Mapping[str, Any],
    *,
    data: Data | None = None,
    allowed_imports: Sequence[str] = (),
    trusted_types: Sequence[str] = (),
    log: Log = lambda *_: None,
) -> Runner:
    """What scores the trials of a plan."""
    if plan["callable"]:
        return CallableRunner(plan, allowed_imports)
    from airflow_mlops.ml.experiment_models import ModelRunner

    if data is None:
        raise TrainingError("trials of models need the `data` section")
    return ModelRunner(
        store,
        plan["snapshot"],
        data=data,
        seed=plan["train_seed"],
        metric=plan["metric"],
        task=plan["task"],
        validation=plan["validation"],
        allowed_imports=allowed_imports,
        trusted_types=trusted_types,
        log=log,
    )


def run(
    records: ExperimentRecords,
    plan: Mapping[str, Any],
    number: int,
    rung: int,
    runner: Runner,
    *,
    run: Mapping[str, Any] | None = None,
    limits: tuple[type[BaseException], ...] = (),
    log: Log = lambda *_: None,
) -> dict[str, Any] | Stopped:
    """Run a trial as :func:`run_trial` does, or say why it is not begun any more."""
    before = records.trial(rung, number)
    limited = plan["budget"] or plan["early_stop"]
    if limited and (before is None or before["error"] is not None):
        why = why_not(plan, records.trials())
        if why is not None:
            return Stopped(why)
    return run_trial(records, plan, number, rung, runner, run=run, limits=limits, log=log)


def promoted(records: ExperimentRecords, plan: Mapping[str, Any], rung: int) -> list[int]:
    """Numbers of the trials that run on ``rung``: all on the first one, then the best of the rung before.

    Of equal scores the earlier trial goes on. A trial without a score does not.
    """
    return _going_on(plan, _counting(plan, records.trials()), rung)


def _going_on(plan: Mapping[str, Any], counting: Sequence[dict[str, Any]], rung: int) -> list[int]:
    if rung == 1:
        return [t["number"] for t in plan["trials"]]
    ranked = _ranked(plan, [r for r in counting if r["rung"] == rung - 1])
    return [r["number"] for r in ranked[: plan["rungs"][rung - 1]["trials"]]]


def _counting(plan: Mapping[str, Any], ended: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the records whose trials go on to their rung as the records are now.

    Where the code has changed and the experiment is gone on with, trials that went on by its earlier scores may have
    left records on higher rungs, which are not run again.
    """
    counting: list[dict[str, Any]] = []
    for step in plan["rungs"]:
        numbers = set(_going_on(plan, counting, step["number"]))
        counting += [r for r in ended if r["rung"] == step["number"] and r["number"] in numbers]
    return counting


def _ranked(plan: Mapping[str, Any], ended: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    sign = 1 if plan["direction"] == "minimize" else -1
    scored = [r for r in ended if r["error"] is None]
    return sorted(scored, key=lambda r: (sign * r["score"], r["number"]))


def table(plan: Mapping[str, Any], ended: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All trials, the best first: each with what its highest rung came to.

    :return: ``{"number", "candidate", "params", "rung", "score", "state", "seconds", "error", "resource"}``;
        ``state`` is one of :data:`STATES`, ``seconds`` those of all its rungs.
    """
    rows = []
    for trial in plan["trials"]:
        mine = [r for r in ended if r["number"] == trial["number"]]
        last = max(mine, key=lambda r: r["rung"], default=None)
        rows.append(
            {
                "number": trial["number"],
                "candidate": trial["candidate"],
                "params": trial["params"],
                "rung": last["rung"] if last else 0,
                "score": last["score"] if last else None,
                "state": "not run" if last is None else "finished" if last["error"] is None else "failed",
                "seconds": round(sum(r["seconds"] for r in mine), 3),
                "error": last["error"] if last else None,
                "resource": last["resource"] if last else None,
            }
        )
    sign = 1 if plan["direction"] == "minimize" else -1

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        scored = row["score"] is not None
        return (STATES.index(row["state"]), -row["rung"], sign * row["score"] if scored else 0, row["number"])

    return sorted(rows, key=order)


def finish(records: ExperimentRecords, plan: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Choose the winner: the best trial of the highest rung that has one; returns the result and the table.

    :return: ``{"experiment", "winner": {"number", "candidate", "params", "score", "rung", "train", "features"},
        "sentence", "finished", "failed", "not_run", …}``.
    :raises TrainingError: no trial has a score.
    """
    every = records.trials()
    ended = _counting(plan, every)
    rows = table(plan, ended)
    counts = {state: sum(r["state"] == state for r in rows) for state in STATES}
    scored = [r for r in ended if r["error"] is None]
    if not scored:
        first = next((r["error"] for r in ended if r["error"]), None)
        raise TrainingError(
            f"none of the {len(rows)} trials has a score" + (f"; the first: {first}" if first else ""),
            hint="look at the log of a trial; what failed is tried again when it is started again",
        )
    stopped = why_not(plan, every) if counts["not run"] else None
    highest = max(r["rung"] for r in scored)
    best = _ranked(plan, [r for r in scored if r["rung"] == highest])[0]
    candidate = next(c for c in plan["candidates"] if c["name"] == best["candidate"])
    train = candidate["train"]
    if train is not None:
        train = {**train, "params": {**train["params"], **best["params"]}}
    result = {
        "format": 1,
        "experiment": records.experiment,
        "winner": {
            "number": best["number"],
            "candidate": best["candidate"],
            "params": best["params"],
            "score": best["score"],
            "rung": highest,
            "train": train,
            "features": candidate["features"],
        },
        "metric": plan["metric"],
        "direction": plan["direction"],
        "sentence": sentence(plan, best, counts, highest, stopped),
        "finished": counts["finished"],
        "failed": counts["failed"],
        "not_run": counts["not run"],
        "seconds": round(sum(r["seconds"] for r in ended), 3),
        "cpu_seconds": round(sum(r["cpu_seconds"] for r in ended), 3),
        "stopped": stopped,
        "at": _now(),
    }
    return result, rows


def sentence(
    plan: Mapping[str, Any], best: Mapping[str, Any], counts: Mapping[str, int], highest: int, stopped: str | None
) -> str:
    """What came of it, in words."""
    what = plan["metric"] or str(plan["callable"])
    params = ", ".join(f"{k}={v}" for k, v in best["params"].items()) or "as it is"
    where = f" on {best['rows']['validation']:,} validation rows" if best.get("rows") else ""
    said = f"trial {best['number']} ({best['candidate']}: {params}) has the best {what}, {best['score']:.6g}{where}"
    said += f"; {counts['finished']} trials finished"
    said += f", {counts['failed']} failed" if counts["failed"] else ""
    said += f", {counts['not run']} not run" if counts["not run"] else ""
    if highest < len(plan["rungs"]):
        said += f"; no trial finished on the last rung, so rung {highest} of {len(plan['rungs'])} decided"
    return said + (f" ({stopped})" if stopped else "")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def settled_winner(result: Mapping[str, Any]) -> tuple[Train, Features | None, dict[str, Any]]:
    """How to train the winner, by which feature code, and what the version's record says of the experiment."""
    winner = result["winner"]
    kept = ("number", "candidate", "params", "score", "rung")
    about = {k: result[k] for k in ("experiment", "metric", "finished", "failed", "not_run", "report") if k in result}
    return (
        Train.model_validate(winner["train"]),
        Features(callable=winner["features"]) if winner["features"] else None,
        {"experiment": about | {"winner": {k: winner[k] for k in kept}}},
    )
