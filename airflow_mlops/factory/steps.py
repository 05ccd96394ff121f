"""One function per lifecycle step: from the configuration to the step's operator."""

from __future__ import annotations

from airflow.sdk import BaseOperator, TriggerRule

from airflow_mlops.config.models import PipelineConfig, Retrain
from airflow_mlops.factory.approval import APPROVAL, ask
from airflow_mlops.factory.experiment_steps import EXPERIMENT_STEPS
from airflow_mlops.factory.fleet_steps import FLEET_STEPS, fleet_gates, fleet_promotion
from airflow_mlops.factory.monitor_steps import MONITOR_STEPS
from airflow_mlops.factory.step_context import Step, StepContext, training_arguments


def _snapshot(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.data import SnapshotOperator

    data = c.config.data
    inlets = [c.assets.data] if c.config.level else []
    gaps = c.config.fleet is not None
    return SnapshotOperator(task_id=task_id, data=data, gaps=gaps, inlets=inlets, **c.common(data.resources))


def _profile(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.data import ProfileOperator

    data = c.config.data
    return ProfileOperator(task_id=task_id, snapshot=c.output("data.snapshot"), data=data, **c.common(data.resources))


def _validate(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.validation import ValidateOperator

    return ValidateOperator(
        task_id=task_id,
        snapshot=c.output("data.snapshot"),
        data=c.config.data,
        validate=c.config.validate_,
        fleet=c.config.fleet,
        **c.common(c.config.validate_.resources),
    )


def _fit(c: StepContext, task_id: str) -> BaseOperator:
    arguments = {"task_id": task_id, "snapshot": c.output("validate.expectations"), **training_arguments(c)}
    if c.config.train.sagemaker is not None:
        from airflow_mlops.operators.sagemaker import SageMakerTrainOperator

        return SageMakerTrainOperator(**arguments)
    from airflow_mlops.operators.training import TrainOperator

    return TrainOperator(**arguments)


def _score(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.evaluation import EvaluateOperator

    return EvaluateOperator(
        task_id=task_id,
        candidate=c.output("train.fit", "train.winner"),
        data=c.config.data,
        evaluate=c.config.evaluate,
        folder=str(c.source.parent) if c.source else None,
        **c.common(c.config.evaluate.resources),
    )


def _gates(c: StepContext, task_id: str) -> BaseOperator:
    if c.config.fleet is not None:
        return fleet_gates(c, task_id)
    from airflow_mlops.operators.evaluation import GateOperator

    return GateOperator(
        task_id=task_id,
        evaluation=c.output("evaluate.score"),
        evaluate=c.config.evaluate,
        approval="always" if c.config.level == 0 or c.config.approve.required else "asked",
        approval_task_id=APPROVAL,
        **c.common(c.config.evaluate.resources),
    )


def _promote(c: StepContext, task_id: str) -> BaseOperator:
    if c.config.fleet is not None:
        return fleet_promotion(c, task_id)
    from airflow_mlops.operators.promotion import PromoteOperator

    return PromoteOperator(
        task_id=task_id,
        decision=c.output("evaluate.gates"),
        approval=c.output(APPROVAL),
        outlets=[c.assets.champion],
        # Runs where the question was skipped because nobody needed to be asked, not where the whole run was.
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        **c.common(c.config.resources),
    )


def _roll_out(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.promotion import RolloutOperator

    return RolloutOperator(
        task_id=task_id,
        steps=c.config.rollout,
        decision=c.output("evaluate.gates"),
        approval=c.output(APPROVAL),
        # The first model of all is champion at once.
        outlets=[c.assets.champion],
        trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        **c.common(c.config.resources),
    )


def _handover(c: StepContext, task_id: str) -> BaseOperator:
    if c.config.fleet is not None:
        return fleet_promotion(c, task_id, handover=True)
    from airflow_mlops.operators.promotion import HandoverOperator

    return HandoverOperator(
        task_id=task_id,
        decision=c.output("evaluate.gates"),
        approval=c.output(APPROVAL),
        outlets=[c.assets.champion],
        **c.common(c.config.resources),
    )


def _predict(c: StepContext, task_id: str) -> BaseOperator:
    batch = c.config.deploy.batch
    arguments = {
        "task_id": task_id,
        "data": c.config.data,
        "batch": batch,
        "skip_without_champion": c.config.level > 0,
        "replay_rows": _kept_rows(c.config),
        "inlets": [c.assets.champion],
        "outlets": [c.assets.predictions],
        **c.common(batch.resources),
    }
    if batch.sagemaker is not None:
        from airflow_mlops.operators.sagemaker_prediction import SageMakerPredictOperator

        return SageMakerPredictOperator(**arguments)
    from airflow_mlops.operators.prediction import BatchPredictOperator

    return BatchPredictOperator(**arguments)


def _kept_rows(config: PipelineConfig) -> int:
    """How many rows are kept as they come; none where the replay reads them from a source of its own."""
    skew = config.monitor.skew if config.monitor else None
    return skew.replay_rows if skew is not None and skew.source is None else 0


def _claim(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.retrain import ClaimRetrainOperator

    return ClaimRetrainOperator(task_id=task_id, retrain=c.config.retrain or Retrain(), **c.common(c.config.resources))


def _expire(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.retention import RetentionOperator

    return RetentionOperator(task_id=task_id, retention=c.config.retention or {}, **c.common(c.config.resources))


def _change(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.registry import RegistryChangeOperator

    return RegistryChangeOperator(task_id=task_id, outlets=[c.assets.champion], **c.common(c.config.resources))


STEPS: dict[str, Step] = {
    "retrain.claim": (_claim, "Claims the retrain that started this run, or skips the run and says why."),
    "data.snapshot": (_snapshot, "Freezes the rows of this run: immutable, fingerprinted, checked for size and age."),
    "data.profile": (_profile, "Describes the data, column by column, in a report to look at."),
    "validate.expectations": (_validate, "Checks the schema and the expectations of the pipeline."),
    "train.fit": (_fit, "Trains a candidate on the training part and registers it as a version."),
    **EXPERIMENT_STEPS,
    **FLEET_STEPS,
    "retention.expire": (_expire, "Gives up old rows: snapshots and captures, on the record."),
    "evaluate.score": (_score, "Scores candidate and champion on the same holdout."),
    "evaluate.gates": (_gates, "Decides by the gates. A rejection is green: delivery is skipped, the reason is here."),
    APPROVAL: (ask, "Asks a person (Required Actions)."),
    "promote.champion": (_promote, "Makes the candidate the champion."),
    "promote.handover": (_handover, "Makes the candidate the champion and hands it over as one bundle."),
    "promote.rollout": (_roll_out, "Lets the candidate begin its rollout; the first model is champion at once."),
    "predict.batch": (_predict, "Scores the rows with the champion and writes the predictions in one step."),
    **MONITOR_STEPS,
    "registry.change": (_change, "Promotes, rolls back or retires, as the form says; who and why are recorded."),
}
"""Step name → (function that makes its operator, one sentence for people)."""
