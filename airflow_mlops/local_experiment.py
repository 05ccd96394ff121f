"""What each step of an experiment does where there is no Airflow; as :mod:`.local_steps` for training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models.experiment import MOST_RUNGS
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.levels.experiment import keep, trials

if TYPE_CHECKING:
    from airflow_mlops.local_run import LocalRun

log = logging.getLogger(__name__)


def _plan(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.experiment import begin, promoted

    config = run.config
    experiment = config.experiment
    if experiment is None:
        raise ConfigError(f"{config.pipeline} has no `experiment` section", hint="add one, with a space")
    of_model: dict[str, Any] = {}
    if config.has_model:
        of_model = {
            "data": run.data,
            "snapshot": run.snapshot,
            "train": config.train,
            "features": config.features,
            "evaluate": config.evaluate,
            "task": config.task,
        }
    run.records, run.plan = begin(
        run.store,
        config.pipeline,
        experiment,
        rungs=experiment.rung_count,
        allowed_imports=run.allowed_imports,
        run={"dag_id": f"{config.pipeline}__experiment", "run_id": run.run_id},
        log=log.debug,
        **of_model,
    )
    run.going = promoted(run.records, run.plan, 1)
    rungs = run.plan["rungs"]
    lines = [f"{len(run.going)} trials of {_counted(len(run.plan['candidates']), 'candidate')}"]
    if len(rungs) > 1:
        lines.append(f"{len(rungs)} rungs with {', '.join(str(r['trials']) for r in rungs)} trials")
    if before := len(run.records.trials()):
        lines.append(f"{_counted(before, 'trial')} ran before; what succeeded is not run again")
    return lines


def _trials(rung: int) -> Callable[[LocalRun], list[str]]:
    def run_them(run: LocalRun) -> list[str]:
        from airflow_mlops.ml.experiment import Stopped, runner_of
        from airflow_mlops.ml.experiment import run as run_trial

        if run.records is None:
            raise ConfigError("the experiment's steps are in no order that can be run: there is no plan yet")
        if run.runner is None:
            run.runner = runner_of(
                run.store,
                run.plan,
                data=run.data if run.config.has_model else None,
                allowed_imports=run.allowed_imports,
                trusted_types=run.trusted_types,
                log=log.debug,
            )
        finished = failed = 0
        for place, number in enumerate(run.going, 1):
            found = run_trial(run.records, run.plan, number, rung, run.runner, run={"run_id": run.run_id})
            if isinstance(found, Stopped):
                run.progress(f"no further trial: {found.why}")
                break
            run.progress(f"{place}/{len(run.going)} {_told(run.plan, found)}")
            finished, failed = finished + (found["error"] is None), failed + (found["error"] is not None)
        return [f"{_counted(finished, 'trial')} finished" + (f", {failed} failed" if failed else "")]

    return run_them


def _told(plan: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    several = len(plan["candidates"]) > 1
    words = [record["candidate"]] * several + [f"{k}={v}" for k, v in record["params"].items()]
    if record["resource"] and record["resource"]["name"] == "rows":
        words.append(f"{record['resource']['value']:,} rows")
    what = f"{record['score']:.6g}" if record["error"] is None else f"failed: {record['error']}"
    return f"trial {record['number']}: {', '.join(words)}: {what} ({record['seconds']:.1f} s)"


def _keep(rung: int) -> Callable[[LocalRun], list[str]]:
    def rank(run: LocalRun) -> list[str]:
        from airflow_mlops.ml.experiment import promoted

        if run.records is None:
            raise ConfigError("the experiment's steps are in no order that can be run: there is no plan yet")
        run.going = promoted(run.records, run.plan, rung)
        return [f"trials {', '.join(map(str, run.going)) or 'none'} go on"]

    return rank


def _choose(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.experiment import finish
    from airflow_mlops.ml.experiment_report import experiment_report_html
    from airflow_mlops.store import layout

    if run.records is None:
        raise ConfigError("the experiment's steps are in no order that can be run: there is no plan yet")
    result, run.table = finish(run.records, run.plan)
    page = experiment_report_html(run.plan, result, run.table, title=f"Experiment of {run.config.pipeline}")
    run.keep("Experiment report", page)
    if run.register:
        digest = hashlib.sha256(page.encode()).hexdigest()
        run.store.put(layout.report(f"{run.config.pipeline}__experiment", digest), page.encode())
        result["report"] = digest
    run.records.write_result(result)
    run.result = result
    return [result["sentence"]]


def _winner(run: LocalRun) -> list[str]:
    from airflow_mlops.local_steps import fit
    from airflow_mlops.ml.experiment import settled_winner

    train, features, run.facts = settled_winner(run.result)
    train = train.model_copy(update={"resources": run.config.train.resources})
    run.config = run.config.model_copy(update={"train": train, "features": features})
    return fit(run)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


STEPS: dict[str, Callable[[LocalRun], list[str]]] = {
    "experiment.plan": _plan,
    **{trials(rung): _trials(rung) for rung in range(1, MOST_RUNGS + 1)},
    **{keep(rung): _keep(rung) for rung in range(2, MOST_RUNGS + 1)},
    "experiment.choose": _choose,
    "train.winner": _winner,
}
"""Step name → what it does in a local run."""
