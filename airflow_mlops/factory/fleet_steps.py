"""From the configuration to the operators of a fleet's steps."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, TriggerRule

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.factory.approval import APPROVAL
from airflow_mlops.factory.step_context import Step, StepContext

PARTITION, TRAIN = "fleet.partition", "fleet.train"
ROWS, PREDICT, PUBLISH = "predict.partition", "predict.shards", "predict.publish"


def _partition(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.fleet import PartitionOperator

    config = c.config
    return PartitionOperator(
        task_id=task_id,
        snapshot=c.output("validate.expectations"),
        fleet=config.fleet or {},
        data=config.data,
        train=config.train,
        evaluate=config.evaluate,
        features=config.features,
        task=config.task,
        about={"owner": config.owner, "description": config.description, "level": config.level},
        folder=str(c.source.parent) if c.source else None,
        **c.common(config.train.resources),
    )


def _train(c: StepContext, task_id: str) -> Any:
    from airflow_mlops.operators.fleet import TrainShardOperator

    config = c.config
    fleet = config.fleet
    partial = TrainShardOperator.partial(
        task_id=task_id,
        # Plain: Airflow keeps the arguments of mapped tasks with the DAG.
        data=config.data.model_dump(mode="json", exclude_none=True),
        evaluate=config.evaluate.model_dump(mode="json", exclude_none=True),
        processes=fleet.processes if fleet else "auto",
        watched=config.monitor is not None,
        map_index_template="{{ task.shard['label'] }}",
        doc_md=FLEET_STEPS[TRAIN][1],
        **c.common(fleet.resources if fleet else None),
    )
    return partial.expand(shard=c.output(PARTITION))


def _complete(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.fleet import FleetCompleteOperator

    return FleetCompleteOperator(
        task_id=task_id,
        shards=c.output(PARTITION),
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        **c.common(c.config.resources),
    )


def fleet_gates(c: StepContext, task_id: str) -> BaseOperator:
    """The operator that decides over all keys."""
    from airflow_mlops.operators.fleet import FleetGateOperator

    return FleetGateOperator(
        task_id=task_id,
        shards=c.output(PARTITION),
        evaluate=c.config.evaluate,
        approval="always" if c.config.level == 0 or c.config.approve.required else "asked",
        approval_task_id=APPROVAL,
        # A shard that died takes its own keys along, and no others.
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        **c.common(c.config.evaluate.resources),
    )


def fleet_promotion(c: StepContext, task_id: str, *, handover: bool = False) -> BaseOperator:
    """The operator that promotes what passed, key by key; ``handover``: and hands all champions over."""
    from airflow_mlops.operators.fleet_promotion import FleetHandoverOperator, FleetPromoteOperator

    fleet = c.config.fleet
    return (FleetHandoverOperator if handover else FleetPromoteOperator)(
        task_id=task_id,
        decision=c.output("evaluate.gates"),
        approval=c.output(APPROVAL),
        evaluate=c.config.evaluate,
        retire_after=fleet.retire_after if fleet else 3,
        outlets=[c.assets.champion],
        # Runs where the question was skipped because nobody needed to be asked, not where the whole run was.
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        **c.common(c.config.resources),
    )


def _predict_partition(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.fleet_prediction import PredictPartitionOperator

    config = c.config
    return PredictPartitionOperator(
        task_id=task_id,
        fleet=config.fleet or {},
        data=config.data,
        batch=config.deploy.batch,
        skip_without_champion=config.level > 0,
        inlets=[c.assets.champion],
        **c.common(config.deploy.batch.resources),
    )


def _predict_shards(c: StepContext, task_id: str) -> Any:
    from airflow_mlops.operators.fleet_prediction import PredictShardOperator

    partial = PredictShardOperator.partial(
        task_id=task_id,
        data=c.config.data.model_dump(mode="json", exclude_none=True),
        map_index_template="{{ task.shard['label'] }}",
        doc_md=FLEET_STEPS[PREDICT][1],
        **c.common(c.config.deploy.batch.resources),
    )
    return partial.expand(shard=c.output(ROWS))


def _publish(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.fleet_prediction import PublishPredictionsOperator

    return PublishPredictionsOperator(
        task_id=task_id,
        shards=c.output(PREDICT),
        data=c.config.data,
        batch=c.config.deploy.batch,
        outlets=[c.assets.predictions],
        **c.common(c.config.deploy.batch.resources),
    )


def fleet_check(name: str, config: PipelineConfig, arguments: dict[str, Any]) -> BaseOperator:
    """The operator of a monitoring check of all keys.

    :param name: ``quality``, ``drift``, ``performance``, ``staleness`` or ``system``; a fleet has no others.
    """
    from airflow_mlops.operators import fleet_monitoring, monitoring

    if name == "performance":
        # It follows the check of drift only to tell whose inputs drifted, too.
        return fleet_monitoring.FleetPerformanceCheckOperator(
            evaluate=config.evaluate, trigger_rule=TriggerRule.NONE_FAILED, **arguments
        )
    if name == "quality":
        return fleet_monitoring.FleetQualityCheckOperator(validate=config.validate_, **arguments)
    if name == "drift":
        return fleet_monitoring.FleetDriftCheckOperator(**arguments)
    if name == "system":
        return monitoring.SystemCheckOperator(**arguments)
    return fleet_monitoring.FleetStalenessCheckOperator(**arguments)


FLEET_STEPS: dict[str, Step] = {
    PARTITION: (_partition, "Divides the rows by key, once, and plans which task trains which keys."),
    TRAIN: (_train, "Trains, judges and registers the models of some keys; a second try does what is missing."),
    "fleet.complete": (_complete, "Fails where a shard did not end, so that the run is red; all other keys went on."),
    ROWS: (_predict_partition, "Reads the rows, divides them by key, and decides which model serves each key."),
    PREDICT: (_predict_shards, "Predicts the rows of some keys, each by the model that serves it."),
    PUBLISH: (_publish, "Writes all predictions in one step, in the order of the rows, and says who was not served."),
}
"""Step name → as :data:`.steps.STEPS`."""
