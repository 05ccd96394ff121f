"""From the configuration to the operators that watch a model and act on what they see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.sdk import BaseOperator, TriggerRule

from airflow_mlops.config.models import Retrain
from airflow_mlops.factory.fleet_steps import fleet_check
from airflow_mlops.factory.step_context import Step, StepContext


def _check(name: str) -> Callable[[StepContext, str], BaseOperator]:
    def make(c: StepContext, task_id: str) -> BaseOperator:
        from airflow_mlops.operators import monitoring

        config = c.config
        arguments: dict[str, Any] = {"task_id": task_id, "data": config.data, "monitor": config.monitor}
        arguments |= c.common(config.monitor.resources if config.monitor else None)
        if config.fleet is not None:
            return fleet_check(name, config, arguments)
        if name == "quality":
            return monitoring.QualityCheckOperator(validate=config.validate_, **arguments)
        if name == "drift":
            return monitoring.DriftCheckOperator(**arguments)
        if name == "staleness":
            return monitoring.StalenessCheckOperator(trigger_rule=TriggerRule.NONE_FAILED, **arguments)
        if name == "system":
            return monitoring.SystemCheckOperator(**arguments)
        if name == "skew":
            return monitoring.FeatureSkewCheckOperator(**arguments)
        # It follows other checks only to tell a drop's cause: where they were skipped it goes on without.
        rule = TriggerRule.NONE_FAILED
        return monitoring.PerformanceCheckOperator(evaluate=config.evaluate, trigger_rule=rule, **arguments)

    return make


def _request(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.retrain import RequestRetrainOperator

    config = c.config
    names = ["drift", "performance"]
    request = RequestRetrainOperator
    if config.fleet is not None:
        from airflow_mlops.operators.fleet_monitoring import FleetRequestRetrainOperator

        request = FleetRequestRetrainOperator
        names.append("staleness")  # which says of each key how old its model is
    checks = {name: c.output(f"monitor.{name}") for name in names if f"monitor.{name}" in c.tasks}
    return request(
        task_id=task_id,
        checks=checks,
        retrain=config.retrain or Retrain(),
        monitor=config.monitor,
        outlets=[c.assets.retrain],
        # A check that was skipped (labels still to come) does not silence the others.
        trigger_rule=TriggerRule.NONE_FAILED,
        **c.common(config.monitor.resources if config.monitor else None),
    )


def _ask_for_experiment(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.retrain import RequestExperimentOperator

    config = c.config
    checks = {name: c.output(f"monitor.{name}") for name in ("drift", "performance") if f"monitor.{name}" in c.tasks}
    return RequestExperimentOperator(
        task_id=task_id,
        checks=checks,
        retrain=config.retrain or Retrain(),
        monitor=config.monitor,
        after=config.experiment_after,
        outlets=[c.assets.experiment],
        trigger_rule=TriggerRule.NONE_FAILED,
        **c.common(config.monitor.resources if config.monitor else None),
    )


def _advance(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.rollout import AdvanceRolloutOperator

    config = c.config
    return AdvanceRolloutOperator(
        task_id=task_id,
        data=config.data,
        monitor=config.monitor,
        evaluate=config.evaluate,
        verdict=config.deploy.verdict,
        outlets=[c.assets.champion],
        # It follows a check only to come after it: where that was skipped it goes on without.
        trigger_rule=TriggerRule.NONE_FAILED,
        **c.common(config.monitor.resources if config.monitor else None),
    )


MONITOR_STEPS: dict[str, Step] = {
    "monitor.quality": (_check("quality"), "Checks the scored inputs against the expectations."),
    "monitor.drift": (_check("drift"), "Compares scored inputs and predictions with the training data."),
    "monitor.skew": (_check("skew"), "Replays scored rows through the training feature code, row by row."),
    "monitor.performance": (_check("performance"), "Scores the predictions against their outcomes."),
    "monitor.staleness": (_check("staleness"), "Tells how old model, rows and outcomes are at the window's end."),
    "monitor.system": (_check("system"), "Compares duration, memory and processor time with earlier runs."),
    "rollout.advance": (_advance, "Takes the version that rolls out a step further, or rolls it back; says why."),
    "retrain.request": (_request, "Asks the ledger for a retrain; skipped, with the reason, where not granted."),
    "experiment.request": (_ask_for_experiment, "Asks for an experiment where training again no longer helps."),
}
"""Step name → as :data:`.steps.STEPS`."""
