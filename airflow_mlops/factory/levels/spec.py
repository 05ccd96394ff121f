"""How a level is written down: which DAGs it has, and each one's steps in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_mlops.config.models import PipelineConfig


def always(config: PipelineConfig) -> bool:
    """The step belongs to every pipeline of its level."""
    return True


def keeps_for_a_time(config: PipelineConfig) -> bool:
    """Whether old rows are given up."""
    return config.retention is not None


@dataclass(frozen=True)
class Step:
    """One step of a DAG.

    :param name: ``group.task``; the group is the lifecycle step that the UI shows as a task group.
    :param after: names of the steps it follows; one that this pipeline leaves out is passed over.
    :param when: whether a pipeline has this step.
    """

    name: str
    after: tuple[str, ...] = ()
    when: Callable[[PipelineConfig], bool] = field(default=always, compare=False)


@dataclass(frozen=True)
class DagSpec:
    """One DAG of a level.

    :param suffix: the DAG id is ``<pipeline>__<suffix>``.
    :param summary: one sentence for people.
    :param steps: in an order in which each comes after what it follows.
    :param form: names of the fields of the trigger form.
    """

    suffix: str
    summary: str
    steps: tuple[Step, ...]
    form: tuple[str, ...] = ("window_start", "window_end")

    def steps_for(self, config: PipelineConfig) -> tuple[Step, ...]:
        """The steps that ``config`` has; ``after`` points only to steps that are there."""
        present = [step for step in self.steps if step.when(config)]
        names = {step.name for step in present}
        before = {step.name: step.after for step in self.steps}

        def bridge(after: tuple[str, ...]) -> tuple[str, ...]:
            found: list[str] = []
            for name in after:
                found.extend((name,) if name in names else bridge(before[name]))
            return tuple(dict.fromkeys(found))

        return tuple(Step(step.name, bridge(step.after), step.when) for step in present)
