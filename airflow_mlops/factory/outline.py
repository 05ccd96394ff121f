"""What the factory makes of a pipeline, told without Airflow: its DAGs, their tasks, and what starts them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.factory.levels import DagSpec, Step, dag_specs
from airflow_mlops.factory.triggers_of import triggers_of

READS = {"data.snapshot": "data", "predict.batch": "champion", "predict.partition": "champion"}
WRITES = {
    "promote.champion": "champion",
    "promote.handover": "champion",
    "promote.rollout": "champion",
    "predict.batch": "predictions",
    "predict.publish": "predictions",
    "retrain.request": "retrain",
    "rollout.advance": "champion",
    "experiment.request": "experiment",
    "registry.change": "champion",
}
"""Step → ending of the name of the asset that its task names as an inlet, or as an outlet."""

BY_HAND = "a person, with the trigger form"


@dataclass(frozen=True)
class TaskOutline:
    """One task: ``id`` is ``group.task``, ``after`` the ids it follows; assets by their full names."""

    id: str
    group: str
    after: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class DagOutline:
    """One DAG.

    :param starts: what starts it, in words, at least one.
    :param cron: its schedule in ``timezone``, or ``None``.
    :param assets: full names of the assets that start it; an event of one is enough.
    :param form: names of the fields of the trigger form.
    """

    id: str
    suffix: str
    summary: str
    starts: tuple[str, ...]
    cron: str | None
    timezone: str
    assets: tuple[str, ...]
    form: tuple[str, ...]
    tasks: tuple[TaskOutline, ...]


@dataclass(frozen=True)
class Outline:
    """The DAGs of one pipeline, in the order of its level.

    :param watch: how often files are looked at for new data, or ``None``.
    """

    pipeline: str
    level: int
    watch: str | None
    dags: tuple[DagOutline, ...]


def outline(config: PipelineConfig) -> Outline:
    """Outline of the DAGs that the factory builds for ``config``."""
    dags = tuple(_dag(config, spec) for spec in dag_specs(config))
    return Outline(config.pipeline, config.level, config.data.watch, dags)


def _dag(config: PipelineConfig, spec: DagSpec) -> DagOutline:
    triggers = triggers_of(config, spec.suffix)
    return DagOutline(
        id=f"{config.pipeline}__{spec.suffix}",
        suffix=spec.suffix,
        summary=spec.summary,
        starts=tuple(_starts(config, triggers.cron, triggers.assets)),
        cron=triggers.cron,
        timezone=config.dag.timezone,
        assets=tuple(f"{config.pipeline}.{name}" for name in triggers.assets),
        form=spec.form,
        tasks=tuple(_task(config, step) for step in spec.steps_for(config)),
    )


def _starts(config: PipelineConfig, cron: str | None, assets: tuple[str, ...]) -> Iterator[str]:
    if cron:
        yield f"cron {cron} ({config.dag.timezone})"
    for name in assets:
        watched = name == "data" and config.data.watch
        yield f"asset {config.pipeline}.{name}" + (f": {_files(config.data.watch)}" if watched else "")
    if not cron and not assets:
        yield BY_HAND


def _files(watch: str | None) -> str:
    return f"new files, looked for every {watch}"


def _task(config: PipelineConfig, step: Step) -> TaskOutline:
    reads = READS.get(step.name)
    if reads == "data" and config.level == 0:
        reads = None  # nothing tells of new data where nothing waits for it
    writes = WRITES.get(step.name)
    return TaskOutline(
        id=step.name,
        group=step.name.partition(".")[0],
        after=step.after,
        reads=(f"{config.pipeline}.{reads}",) if reads else (),
        writes=(f"{config.pipeline}.{writes}",) if writes else (),
    )


def mermaid(shown: Outline) -> str:
    """Return a Mermaid flowchart: a subgraph per DAG, and the assets and schedules between them.

    Whole arrows are the order of tasks, and what starts a DAG; dotted ones go from an asset to the
    task that reads it.
    """
    lines = ["flowchart LR"]
    for dag in shown.dags:
        lines.append(f"  subgraph {dag.suffix}_dag[{_label(dag.id)}]")
        lines += [f"    {_node(dag, task.id)}[{_label(task.id)}]" for task in dag.tasks]
        lines += [f"    {_node(dag, name)} --> {_node(dag, task.id)}" for task in dag.tasks for name in task.after]
        lines.append("  end")
    named = dict.fromkeys(
        name for dag in shown.dags for name in (*dag.assets, *(a for t in dag.tasks for a in (*t.reads, *t.writes)))
    )
    lines += [f"  {_asset(name)}[({_label(name)})]" for name in named]
    if shown.watch:
        lines.append(f"  files([{_label(_files(shown.watch))}]) --> asset_data")
    for dag in shown.dags:
        other = [start for start in dag.starts if not start.startswith("asset ")]
        for number, start in enumerate(other):
            lines.append(f"  {dag.suffix}_start{number}([{_label(start)}]) --> {dag.suffix}_dag")
        lines += [f"  {_asset(name)} --> {dag.suffix}_dag" for name in dag.assets]
        for task in dag.tasks:
            lines += [f"  {_asset(name)} -.-> {_node(dag, task.id)}" for name in task.reads if name not in dag.assets]
            lines += [f"  {_node(dag, task.id)} --> {_asset(name)}" for name in task.writes]
    return "\n".join(lines) + "\n"


def _node(dag: DagOutline, task: str) -> str:
    return re.sub(r"\W", "_", f"{dag.suffix}_{task}")


def _asset(name: str) -> str:
    # The pipeline's name stands in the label alone: it may hold what Mermaid reads as an arrow.
    return f"asset_{name.rpartition('.')[2]}"


def _label(text: str) -> str:
    return '"' + text.replace('"', "#quot;") + '"'
