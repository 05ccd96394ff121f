"""Level 1: schedule, new data, drift or a performance drop retrain the model; gates promote it."""

from __future__ import annotations

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.factory.levels.spec import DagSpec, Step, keeps_for_a_time


def may_ask(config: PipelineConfig) -> bool:
    """Whether some verdict of this pipeline needs a person's yes."""
    return (
        config.approve.required
        or config.evaluate.no_champion == "require_approval"
        or config.evaluate.on_inconclusive == "require_approval"
    )


def tells_performance(config: PipelineConfig) -> bool:
    """Whether outcomes arrive, so that performance can be known, or it is to be estimated without them."""
    return config.monitor is not None and (config.monitor.labels is not None or config.monitor.performance.estimate)


def replays(config: PipelineConfig) -> bool:
    """Whether served rows are replayed through the training feature code."""
    return config.monitor is not None and config.monitor.skew is not None


def ages(config: PipelineConfig) -> bool:
    """Whether a champion can be too old."""
    return config.monitor is not None and config.monitor.max_age is not None


def watches_runs(config: PipelineConfig) -> bool:
    """Whether what runs take is compared with earlier ones."""
    return config.monitor is not None and config.monitor.system is not None


def monitored(config: PipelineConfig) -> bool:
    """Whether the pipeline is watched."""
    return config.monitor is not None


def asks_for_retrain(config: PipelineConfig) -> bool:
    """Whether a check can start a training."""
    return monitored(config) and bool(set(config.retrain.when if config.retrain else ()) - {"new_data"})


LEVEL: tuple[DagSpec, ...] = (
    DagSpec(
        "train",
        "Train when `retrain` says so; promote what passes the gates.",
        (
            Step("retrain.claim"),
            Step("data.snapshot", ("retrain.claim",)),
            Step("validate.expectations", ("data.snapshot",)),
            Step("train.fit", ("validate.expectations",)),
            Step("retention.expire", ("train.fit",), keeps_for_a_time),
            Step("evaluate.score", ("train.fit",)),
            Step("evaluate.gates", ("evaluate.score",)),
            Step("approve.ask", ("evaluate.gates",), may_ask),
            Step("promote.champion", ("evaluate.gates", "approve.ask")),
        ),
        form=("window_start", "window_end", "reason", "promote", "replay"),
    ),
    DagSpec(
        "predict",
        "Score each window's rows with the champion.",
        (Step("predict.batch"),),
        form=("window_start", "window_end", "source", "output", "promote", "replay"),
    ),
    DagSpec(
        "monitor",
        "Check what was scored: quality, drift, feature skew, performance, age; ask for a retrain.",
        (
            Step("monitor.quality", (), monitored),
            Step("monitor.drift", (), monitored),
            Step("monitor.skew", (), replays),
            # After these: they tell the cause of a drop in the same window.
            Step("monitor.performance", ("monitor.drift", "monitor.skew"), tells_performance),
            # After this one: it tells when outcomes were last known.
            Step("monitor.staleness", ("monitor.performance",), ages),
            Step("monitor.system", (), watches_runs),
            Step(
                "retrain.request",
                ("monitor.quality", "monitor.drift", "monitor.skew", "monitor.performance"),
                asks_for_retrain,
            ),
        ),
        form=("window_start", "window_end", "promote", "replay"),
    ),
    DagSpec(
        "registry",
        "Promote a version, roll back to the champion before, retire a version, end a rollout: by hand, on the record.",
        (Step("registry.change"),),
        form=("action", "key", "version", "expected", "reason"),
    ),
)
