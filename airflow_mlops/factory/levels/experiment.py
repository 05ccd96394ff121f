"""The DAG of experiments: trials as mapped tasks, in rungs, and the winner's way through the gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.models.experiment import MOST_RUNGS
from airflow_mlops.factory.levels.spec import DagSpec, Step


def experiments(config: PipelineConfig) -> bool:
    """Whether there are variants to try."""
    return config.experiment is not None


def tries_models(config: PipelineConfig) -> bool:
    """Whether the variants are models, and not settings of a callable."""
    return experiments(config) and config.has_model


def has_rung(rung: int) -> Callable[[PipelineConfig], bool]:
    """Whether the trials go on to this rung."""

    def has(config: PipelineConfig) -> bool:
        return config.experiment is not None and config.experiment.rung_count >= rung

    return has


def trials(rung: int) -> str:
    """Name of the step that runs the trials of a rung, from 1."""
    return "experiment.trials" if rung == 1 else f"experiment.trials_{rung}"


def keep(rung: int) -> str:
    """Name of the step that tells who goes on to a rung, from 2."""
    return f"experiment.keep_{rung}"


def _rungs() -> Iterator[Step]:
    yield Step(trials(1), ("experiment.plan",), experiments)
    for rung in range(2, MOST_RUNGS + 1):
        yield Step(keep(rung), ("experiment.plan", trials(rung - 1)), has_rung(rung))
        yield Step(trials(rung), (keep(rung),), has_rung(rung))


_TRIES: tuple[Step, ...] = (
    Step("experiment.plan", ("validate.expectations",), experiments),
    *_rungs(),
    Step("experiment.choose", ("experiment.plan", trials(MOST_RUNGS)), experiments),
)


def experiment_of(train: DagSpec) -> DagSpec:
    """The DAG whose winner is judged and delivered by the steps of ``train``, the level's own."""
    names = [step.name for step in train.steps]
    fit = names.index("train.fit")
    begin = ("data.snapshot", "validate.expectations")
    first = [s for s in train.steps[:fit] if s.name in begin]
    then = [s for s in train.steps[fit + 1 :] if s.name != "retention.expire"]
    return DagSpec(
        "experiment",
        "Try variants of the model, each in a task of its own; train the best one and judge it by the gates.",
        (
            *(replace(_of_model(s), after=tuple(n for n in s.after if n in begin)) for s in first),
            *_TRIES,
            Step("train.winner", ("experiment.choose",), tries_models),
            *(
                _of_model(replace(s, after=tuple("train.winner" if n == "train.fit" else n for n in s.after)))
                for s in then
            ),
        ),
        form=("window_start", "window_end", "n_trials", "space", "promote", "replay"),
    )


def _of_model(step: Step) -> Step:
    """The step, for pipelines that try models alone."""
    return replace(step, when=lambda config: tries_models(config) and step.when(config))


ALONE = DagSpec(
    "experiment",
    "Try settings of a function, each in a task of its own, and choose the best.",
    tuple(replace(step, after=tuple(n for n in step.after if n != "validate.expectations")) for step in _TRIES),
    form=("n_trials", "space"),
)
"""Without a model: nothing is read, trained or judged."""
