"""The DAG of experiments: trials as mapped tasks, in rungs, and the winner's way through the gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.models.experiment import MOST_RUNGS
from airflow_mlops.factory.levels.continuous_training import may_ask
from airflow_mlops.factory.levels.spec import DagSpec, Step


def experiments(config: PipelineConfig) -> bool:
    """Whether there are variants to try."""
    return config.experiment is not None


def tries_models(config: PipelineConfig) -> bool:
    """Whether the variants are models, and not settings of a callable."""
    return experiments(config) and config.has_model


def asks_about_winner(config: PipelineConfig) -> bool:
    """Whether some verdict on the winner needs a person's yes."""
    return tries_models(config) and may_ask(config)


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


EXPERIMENT = DagSpec(
    "experiment",
    "Try variants of the model, each in a task of its own; train the best one and judge it by the gates.",
    (
        Step("data.snapshot", (), tries_models),
        Step("validate.expectations", ("data.snapshot",), tries_models),
        Step("experiment.plan", ("validate.expectations",), experiments),
        *_rungs(),
        Step("experiment.choose", ("experiment.plan", trials(MOST_RUNGS)), experiments),
        Step("train.winner", ("experiment.choose",), tries_models),
        Step("evaluate.score", ("train.winner",), tries_models),
        Step("evaluate.gates", ("evaluate.score",), tries_models),
        Step("approve.ask", ("evaluate.gates",), asks_about_winner),
        Step("promote.champion", ("evaluate.gates", "approve.ask"), tries_models),
    ),
    form=("window_start", "window_end", "n_trials", "space", "promote", "replay"),
)

ALONE = DagSpec(
    "experiment",
    "Try settings of a function, each in a task of its own, and choose the best.",
    EXPERIMENT.steps,
    form=("n_trials", "space"),
)
"""Without a model: nothing is read, trained or judged."""
