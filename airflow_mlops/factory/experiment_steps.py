"""From the configuration to the operators of an experiment's steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.sdk import BaseOperator, TriggerRule

from airflow_mlops.config.models.experiment import MOST_RUNGS
from airflow_mlops.factory.levels.experiment import keep, trials
from airflow_mlops.factory.step_context import Step, StepContext, training_arguments


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
            doc_md=EXPERIMENT_STEPS[trials(rung)][1],
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
        **training_arguments(c),
    )


EXPERIMENT_STEPS: dict[str, Step] = {
    "experiment.plan": (_plan, "Settles which trials are run, by the seed of the file."),
    **{
        trials(n): (_trials(n), f"Runs the trials of rung {n}, a task each; one that fails stops nothing.")
        for n in range(1, MOST_RUNGS + 1)
    },
    **{keep(n): (_keep(n), f"Tells which trials go on to rung {n}.") for n in range(2, MOST_RUNGS + 1)},
    "experiment.choose": (_choose, "Chooses the best trial; the report shows all of them."),
    "train.winner": (_winner, "Trains the winner on the whole training part and registers it as a version."),
}
"""Step name → as :data:`.steps.STEPS`."""
