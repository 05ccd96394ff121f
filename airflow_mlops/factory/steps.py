"""One function per lifecycle step: from the configuration to the step's operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, TriggerRule

from airflow_mlops.config.models import PipelineConfig, Resources, Retrain, length
from airflow_mlops.config.models.experiment import MOST_RUNGS
from airflow_mlops.factory.assets import PipelineAssets
from airflow_mlops.factory.levels.experiment import keep, trials

APPROVAL = "approve.ask"

APPROVAL_BODY = """\
{% set gates = ti.xcom_pull(task_ids='evaluate.gates') %}\
{% set scores = ti.xcom_pull(task_ids='evaluate.score') %}\
{% macro cell(text) %}{{ text | replace('|', '¦') | replace('\n', ' ') }}{% endmacro %}\
{% macro number(m, of) %}\
{% if m[of] is none %}–{% else %}{{ '%.4g' | format(m[of]) }}\
{% if m[of ~ '_low'] is not none and m[of ~ '_high'] is not none %}\
 ({{ '%.4g' | format(m[of ~ '_low']) }} … {{ '%.4g' | format(m[of ~ '_high']) }}){% endif %}{% endif %}\
{% endmacro %}\
**PIPELINE, version {{ gates.version }}**: {{ cell(gates.sentence) }}

{% if gates.results %}\
| gate | verdict | what was found |
|---|---|---|
{% for line in gates.results %}| {{ line.name }} | {{ line.verdict }} | {{ cell(line.sentence) }} |
{% endfor %}
{% endif %}\
{% if scores.metrics is defined %}\
| on {{ '{:,}'.format(scores.rows) }} holdout rows | this version | champion | better is |
|---|---|---|---|
{% for m in scores.metrics.values() %}| {{ m.name }} | {{ number(m, 'candidate') }} | {{ number(m, 'champion') }} | \
{{ 'lower' if m.lower_is_better else 'higher' }} |
{% endfor %}
{% endif %}\
The champion now is {{ 'version ' ~ gates.champion if gates.champion else 'none' }}. \
The gate report is linked from the task `evaluate.gates`, the data profile from `data.profile`.

**Approve** makes this version the champion. **Reject** leaves everything as it is.
"""


@dataclass
class StepContext:
    """What a step function works with: configuration, assets, the pipeline's file, and the tasks made so far."""

    config: PipelineConfig
    assets: PipelineAssets
    source: Path | None = None
    tasks: dict[str, BaseOperator] = field(default_factory=dict)

    def common(self, resources: Resources | None) -> dict[str, Any]:
        """Arguments that every operator of this package takes, with the section's resources."""
        notify = self.config.notify
        wanted = {"events": list(notify.events), "notifiers": [n.model_dump(by_alias=True) for n in notify.notifiers]}
        return {
            "pipeline": self.config.pipeline,
            "history": self.config.data.window,
            "notify": wanted if notify.notifiers else None,
            **airflow_resources(self.config.resources, resources),
        }

    def output(self, *names: str) -> Any:
        """XCom of the first of ``names`` that this DAG has, or ``None``."""
        return next((self.tasks[name].output for name in names if name in self.tasks), None)


def airflow_resources(*layers: Resources | None) -> dict[str, Any]:
    """Operator arguments of resources; a later layer's values go before an earlier one's."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if layer is not None:
            merged |= layer.model_dump(exclude_none=True)
    timeout = merged.pop("timeout", None)
    return merged | ({"execution_timeout": length(timeout)} if timeout else {})


def _snapshot(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.data import SnapshotOperator

    data = c.config.data
    inlets = [c.assets.data] if c.config.level else []
    return SnapshotOperator(task_id=task_id, data=data, inlets=inlets, **c.common(data.resources))


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
        **c.common(c.config.validate_.resources),
    )


def _fit(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.training import TrainOperator

    return TrainOperator(task_id=task_id, snapshot=c.output("validate.expectations"), **_of_training(c))


def _of_training(c: StepContext) -> dict[str, Any]:
    """Arguments of whatever trains a candidate."""
    config = c.config
    return {
        "data": config.data,
        "train": config.train,
        "features": config.features,
        "evaluate": config.evaluate,
        "task": config.task,
        "folder": str(c.source.parent) if c.source else None,
        "about": {"owner": config.owner, "description": config.description, "level": config.level},
        **c.common(config.train.resources),
    }


def _plan(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.experiment import PlanExperimentOperator

    config = c.config
    of_model: dict[str, Any] = {}
    if config.has_model:
        of_model = {
            "snapshot": c.output("validate.expectations"),
            "data": config.data,
            "train": config.train,
            "features": config.features,
            "evaluate": config.evaluate,
            "task": config.task,
        }
    experiment = config.experiment
    return PlanExperimentOperator(task_id=task_id, experiment=experiment, **of_model, **c.common(config.resources))


def _trials(rung: int) -> Callable[[StepContext, str], Any]:
    def make(c: StepContext, task_id: str) -> Any:
        from airflow_mlops.operators.experiment import TrialOperator

        experiment = c.config.experiment
        before = "experiment.plan" if rung == 1 else keep(rung)
        partial = TrialOperator.partial(
            task_id=task_id,
            # Plain: Airflow keeps the arguments of mapped tasks with the DAG.
            data=c.config.data.model_dump(mode="json", exclude_none=True) if c.config.has_model else None,
            max_active_tis_per_dag=experiment.max_parallel if experiment else None,
            map_index_template="{{ task.trial['label'] }}",
            doc_md=STEPS[trials(rung)][1],
            **c.common(experiment.resources if experiment else None),
        )
        return partial.expand(trial=c.output(before))

    return make


def _keep(rung: int) -> Callable[[StepContext, str], BaseOperator]:
    def make(c: StepContext, task_id: str) -> BaseOperator:
        from airflow_mlops.operators.experiment import NextRungOperator

        return NextRungOperator(
            task_id=task_id,
            plan=c.output("experiment.plan"),
            rung=rung,
            # A trial that fails does not end the experiment; without a plan there is none.
            trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
            **c.common(c.config.resources),
        )

    return make


def _choose(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.experiment import ChooseWinnerOperator

    return ChooseWinnerOperator(
        task_id=task_id,
        plan=c.output("experiment.plan"),
        trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS,
        **c.common(c.config.resources),
    )


def _winner(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.experiment import TrainWinnerOperator

    return TrainWinnerOperator(
        task_id=task_id,
        winner=c.output("experiment.choose"),
        snapshot=c.output("validate.expectations"),
        **_of_training(c),
    )


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
    from airflow_mlops.operators.evaluation import GateOperator

    return GateOperator(
        task_id=task_id,
        evaluation=c.output("evaluate.score"),
        evaluate=c.config.evaluate,
        approval="always" if c.config.level == 0 or c.config.approve.required else "asked",
        approval_task_id=APPROVAL,
        **c.common(c.config.evaluate.resources),
    )


def _approval_body(config: PipelineConfig) -> str:
    body = APPROVAL_BODY.replace("PIPELINE", config.pipeline)
    if len(config.rollout) == 1:
        return body
    from airflow_mlops.registry.rollout import path

    begins = f"lets this version roll out ({path(config.rollout)}); the first one is champion at once."
    return body.replace("makes this version the champion.", begins)


def _ask(c: StepContext, task_id: str) -> BaseOperator:
    from airflow.providers.standard.operators.hitl import HITLOperator

    from airflow_mlops.operators.promotion import NO, YES

    approve = c.config.approve
    # Not ApprovalOperator, which skips the promotion itself after a no: then nothing would record who said it.
    return HITLOperator(
        task_id=task_id,
        subject=f"Promote {c.config.pipeline} version {{{{ ti.xcom_pull(task_ids='evaluate.gates')['version'] }}}}?",
        options=[YES, NO],
        body=_approval_body(c.config),
        assigned_users=[{"id": user, "name": user} for user in approve.by] or None,
        response_timeout=length(approve.timeout),
        defaults=approve.on_timeout.capitalize() if approve.timeout else None,
        # Airflow would take it for the time a person has.
        execution_timeout=None,
    )


def _promote(c: StepContext, task_id: str) -> BaseOperator:
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


def _handover(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.promotion import HandoverOperator

    return HandoverOperator(
        task_id=task_id,
        decision=c.output("evaluate.gates"),
        approval=c.output(APPROVAL),
        outlets=[c.assets.champion],
        **c.common(c.config.resources),
    )


def _predict(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.prediction import BatchPredictOperator

    batch = c.config.deploy.batch
    return BatchPredictOperator(
        task_id=task_id,
        data=c.config.data,
        batch=batch,
        skip_without_champion=c.config.level > 0,
        replay_rows=_kept_rows(c.config),
        inlets=[c.assets.champion],
        outlets=[c.assets.predictions],
        **c.common(batch.resources),
    )


def _kept_rows(config: PipelineConfig) -> int:
    """How many rows are kept as they come; none where the replay reads them from a source of its own."""
    skew = config.monitor.skew if config.monitor else None
    return skew.replay_rows if skew is not None and skew.source is None else 0


def _check(name: str) -> Callable[[StepContext, str], BaseOperator]:
    def make(c: StepContext, task_id: str) -> BaseOperator:
        from airflow_mlops.operators import monitoring

        config = c.config
        arguments: dict[str, Any] = {"task_id": task_id, "data": config.data, "monitor": config.monitor}
        arguments |= c.common(config.monitor.resources if config.monitor else None)
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
    checks = {name: c.output(f"monitor.{name}") for name in ("drift", "performance") if f"monitor.{name}" in c.tasks}
    return RequestRetrainOperator(
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


def _claim(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.retrain import ClaimRetrainOperator

    return ClaimRetrainOperator(task_id=task_id, retrain=c.config.retrain or Retrain(), **c.common(c.config.resources))


def _expire(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.retention import RetentionOperator

    return RetentionOperator(task_id=task_id, retention=c.config.retention or {}, **c.common(c.config.resources))


def _change(c: StepContext, task_id: str) -> BaseOperator:
    from airflow_mlops.operators.registry import RegistryChangeOperator

    return RegistryChangeOperator(task_id=task_id, outlets=[c.assets.champion], **c.common(c.config.resources))


STEPS: dict[str, tuple[Callable[[StepContext, str], BaseOperator], str]] = {
    "retrain.claim": (_claim, "Claims the retrain that started this run, or skips the run and says why."),
    "data.snapshot": (_snapshot, "Freezes the rows of this run: immutable, fingerprinted, checked for size and age."),
    "data.profile": (_profile, "Describes the data, column by column, in a report to look at."),
    "validate.expectations": (_validate, "Checks the schema and the expectations of the pipeline."),
    "train.fit": (_fit, "Trains a candidate on the training part and registers it as a version."),
    "experiment.plan": (_plan, "Settles which trials are run, by the seed of the file."),
    **{
        trials(n): (_trials(n), f"Runs the trials of rung {n}, a task each; one that fails stops nothing.")
        for n in range(1, MOST_RUNGS + 1)
    },
    **{keep(n): (_keep(n), f"Tells which trials go on to rung {n}.") for n in range(2, MOST_RUNGS + 1)},
    "experiment.choose": (_choose, "Chooses the best trial; the report shows all of them."),
    "train.winner": (_winner, "Trains the winner on the whole training part and registers it as a version."),
    "retention.expire": (_expire, "Gives up old rows: snapshots and captures, on the record."),
    "evaluate.score": (_score, "Scores candidate and champion on the same holdout."),
    "evaluate.gates": (_gates, "Decides by the gates. A rejection is green: delivery is skipped, the reason is here."),
    APPROVAL: (_ask, "Asks a person (Required Actions)."),
    "promote.champion": (_promote, "Makes the candidate the champion."),
    "promote.handover": (_handover, "Makes the candidate the champion and hands it over as one bundle."),
    "promote.rollout": (_roll_out, "Lets the candidate begin its rollout; the first model is champion at once."),
    "predict.batch": (_predict, "Scores the rows with the champion and writes the predictions in one step."),
    "monitor.quality": (_check("quality"), "Checks the scored inputs against the expectations."),
    "monitor.drift": (_check("drift"), "Compares scored inputs and predictions with the training data."),
    "monitor.skew": (_check("skew"), "Replays scored rows through the training feature code, row by row."),
    "monitor.performance": (_check("performance"), "Scores the predictions against their outcomes."),
    "monitor.staleness": (_check("staleness"), "Tells how old model, rows and outcomes are at the window's end."),
    "monitor.system": (_check("system"), "Compares duration, memory and processor time with earlier runs."),
    "rollout.advance": (_advance, "Takes the version that rolls out a step further, or rolls it back; says why."),
    "retrain.request": (_request, "Asks the ledger for a retrain; skipped, with the reason, where not granted."),
    "experiment.request": (_ask_for_experiment, "Asks for an experiment where training again no longer helps."),
    "registry.change": (_change, "Promotes, rolls back or retires, as the form says; who and why are recorded."),
}
"""Step name → (function that makes its operator, one sentence for people)."""
