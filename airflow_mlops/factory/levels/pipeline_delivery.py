"""Level 2: what level 1 does, delivered by CI/CD, and experiments; a version becomes champion step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.factory.levels import continuous_training
from airflow_mlops.factory.levels.experiment import experiment_of
from airflow_mlops.factory.levels.spec import DagSpec, Step

_Condition = Callable[[PipelineConfig], bool]


def rolls_out(config: PipelineConfig) -> bool:
    """Whether a version has steps before it is champion."""
    return len(config.rollout) > 1


def _and(one: _Condition, other: _Condition) -> _Condition:
    return lambda config: one(config) and other(config)


def step_by_step(spec: DagSpec) -> DagSpec:
    """The DAG with a rollout in place of the promotion, where the pipeline has one."""

    def steps() -> Iterator[Step]:
        for step in spec.steps:
            if step.name == "promote.champion":
                yield replace(step, when=_and(step.when, lambda config: not rolls_out(config)))
                yield replace(step, name="promote.rollout", when=_and(step.when, rolls_out))
            else:
                yield step

    return replace(spec, steps=tuple(steps()))


_MORE: dict[str, tuple[Step, ...]] = {
    # After the check of the champion's performance, so that both read the same outcomes.
    "monitor": (
        Step("rollout.advance", ("monitor.performance",), rolls_out),
        Step("experiment.request", ("retrain.request", "rollout.advance"), continuous_training.asks_for_retrain),
    ),
}
"""DAG → steps beside those of level 1."""

_DAGS = [
    replace(step_by_step(spec), steps=(*step_by_step(spec).steps, *_MORE.get(spec.suffix, ())))
    for spec in continuous_training.LEVEL
]

LEVEL: tuple[DagSpec, ...] = (*_DAGS, *(experiment_of(spec) for spec in _DAGS if spec.suffix == "train"))
