"""From one pipeline's configuration to its DAGs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, Param, TaskGroup
from airflow.sdk.definitions.mappedoperator import MappedOperator

from airflow_mlops.config.models import PipelineConfig, midnight
from airflow_mlops.config.secrets import masked_text
from airflow_mlops.factory.assets import PipelineAssets, schedule
from airflow_mlops.factory.levels import DagSpec, Step, dag_specs
from airflow_mlops.factory.step_context import StepContext
from airflow_mlops.factory.steps import STEPS
from airflow_mlops.window import parse_duration

_DURATIONS = ("retry_delay", "max_retry_delay", "execution_timeout")

_FORM: dict[str, dict[str, Any]] = {
    "window_start": {
        "default": None, "type": ["null", "string"], "format": "date-time", "title": "Window start",
        "description": "First moment of the data window; empty: the run's own interval, or all the data.",
    },
    "window_end": {
        "default": None, "type": ["null", "string"], "format": "date-time", "title": "Window end",
        "description": "End of the data window, not part of it.",
    },
    "source": {
        "default": None, "type": ["null", "string"], "title": "Source",
        "description": "Read this path (below the data root) or s3:// URI instead of the pipeline's.",
    },
    "output": {
        "default": None, "type": ["null", "string"], "title": "Output",
        "description": "Write the predictions to this folder (below the data root) or s3:// URI instead.",
    },
    "params": {
        "default": None, "type": ["null", "object"], "title": "Estimator parameters",
        "description": "Set for this run, over those of the file.",
    },
    "seed": {
        "default": None, "type": ["null", "integer"], "minimum": 0, "title": "Seed",
        "description": "Another seed for split, search and estimator.",
    },
    "promote": {
        "default": True, "type": "boolean", "title": "Promote",
        "description": "Off: nothing is promoted, nobody is notified, no retrain budget is spent.",
    },
    "n_trials": {
        "default": None, "type": ["null", "integer"], "minimum": 1, "maximum": 1000, "title": "Trials",
        "description": "How many combinations are tried, instead of experiment.n_trials.",
    },
    "space": {
        "default": None, "type": ["null", "object"], "title": "Space",
        "description": "Parameter: [values], instead of those of the experiment's spaces.",
    },
    "reason": {
        "default": None, "type": ["null", "string"], "title": "Reason",
        "description": "Why this training is started; kept in the ledger.",
    },
    "replay": {
        "default": None, "type": ["null", "string"], "title": "Replay",
        "description": "Set by `airflow mlops backfill`.",
    },
    "keys": {
        "default": None, "type": ["null", "array"], "items": {"type": "string"}, "title": "Keys",
        "description": "Train the models of these keys only. Empty: of all, or of those that the request names.",
    },
    # Without a default: a change of the registry has to be said.
    "action": {
        "type": "string", "enum": ["promote", "rollback", "retire", "abort"], "title": "Action",
        "description": "rollback returns to the champion before; a retired version never serves again; abort ends the "
        "rollout of a version.",
    },
    "key": {
        "default": None, "type": ["null", "string"], "title": "Key",
        "description": "In a fleet: which of its models. Empty: the pipeline's own model.",
    },
    "version": {
        "default": None, "type": ["null", "integer"], "minimum": 1, "title": "Version",
        "description": "The version to promote, to retire, or that is rolling out; a rollback finds its own.",
    },
    "expected": {
        "default": None, "type": ["null", "integer"], "minimum": 1, "title": "Champion now",
        "description": "To promote or roll back: refused when it is another one. Empty: there is none.",
    },
}  # fmt: skip

_OWN_FORM: dict[str, dict[str, dict[str, Any]]] = {
    "registry": {
        "reason": {
            "type": "string", "minLength": 1, "title": "Reason",
            "description": "Why; kept in the registry, with your name.",
        },
    },
}  # fmt: skip
"""DAG → fields that mean something else there."""


def build_pipeline(config: PipelineConfig, *, source: Path | None = None) -> dict[str, DAG]:
    """Build the DAGs of one pipeline: ``{dag_id: DAG}``."""
    assets, default_args, made_from = PipelineAssets(config), _default_args(config), _made_from(source)
    return {
        f"{config.pipeline}__{spec.suffix}": _dag(spec, StepContext(config, assets, source), default_args, made_from)
        for spec in dag_specs(config)
    }


def _default_args(config: PipelineConfig) -> dict[str, Any]:
    args: dict[str, Any] = {
        "owner": config.owner,
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        # On the tasks, not on the DAG: only a task's callback is told the exception.
        "on_failure_callback": _on_failure(config),
        **config.dag.default_args.model_dump(exclude_none=True),
    }
    for key in _DURATIONS:
        value = args.get(key)
        if isinstance(value, str):
            args[key] = parse_duration(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            args[key] = timedelta(seconds=value)
    return args


def _dag(spec: DagSpec, context: StepContext, default_args: dict[str, Any], made_from: str) -> DAG:
    config, settings = context.config, context.config.dag
    steps = spec.steps_for(config)
    with DAG(
        dag_id=f"{config.pipeline}__{spec.suffix}",
        description=spec.summary,
        doc_md=_dag_doc(config, spec.summary, steps) + made_from,
        schedule=schedule(config, spec.suffix, context.assets),
        start_date=midnight(settings.start_date, settings.timezone),
        end_date=midnight(settings.end_date, settings.timezone) if settings.end_date else None,
        catchup=settings.catchup,
        max_active_runs=settings.max_active_runs,
        max_active_tasks=settings.max_active_tasks,
        access_control=settings.access_control,
        default_args=dict(default_args),
        tags={"mlops", f"level-{config.level}", config.owner, *settings.tags},
        # XComs are dicts: `{{ }}` around one argument must stay one.
        render_template_as_native_obj=False,
    ) as dag:
        _tasks(steps, context)
    # Not given to DAG(), which would judge them anew at each parse and copy them into every task, three times
    # each; a task sees its DAG's params in any case.
    fields = _FORM | _OWN_FORM.get(spec.suffix, {})
    dag.params.update({name: Param(**fields[name]) for name in spec.form})
    return dag


def _tasks(steps: tuple[Step, ...], context: StepContext) -> None:
    groups: dict[str, TaskGroup] = {}
    for step in steps:
        group, task_id = step.name.split(".")
        if group not in groups:
            groups[group] = TaskGroup(group_id=group)
        make, summary = STEPS[step.name]
        with groups[group]:
            task = make(context, task_id)
        if not isinstance(task, MappedOperator):  # it got its words with its arguments
            task.doc_md = summary
        context.tasks[step.name] = task
        for name in step.after:
            earlier = context.tasks[name]
            if earlier.task_id not in task.upstream_task_ids:  # it is where its output is an argument
                earlier >> task


def _on_failure(config: PipelineConfig) -> Any:
    if not config.notify.notifiers:
        return None
    from airflow_mlops.notifications.dispatch import failure_callback

    return failure_callback(list(config.notify.events), [n.model_dump(by_alias=True) for n in config.notify.notifiers])


def _dag_doc(config: PipelineConfig, summary: str, steps: tuple[Step, ...]) -> str:
    lines = [f"**{summary}**", ""]
    if config.description:
        lines += [config.description, ""]
    lines += [f"Pipeline `{config.pipeline}`, level {config.level}, owner {config.owner}.", ""]
    lines += [f"- `{step.name}`: {STEPS[step.name][1]}" for step in steps]
    return "\n".join(lines)


def _made_from(source: Path | None) -> str:
    """The file itself, for the pages of its DAGs."""
    if source is None:
        return ""
    text = "\n".join(map(masked_text, source.read_text("utf-8").rstrip().splitlines()))
    return f"\n\nMade from `{source.name}`:\n\n~~~yaml\n{text}\n~~~"
