"""What a maturity level asks for, as data: capabilities, what proves each one, and how to get it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_mlops.registry import records as r

if TYPE_CHECKING:
    from airflow_mlops.config.models import PipelineConfig


@dataclass(frozen=True)
class Capability:
    """Something a pipeline can do.

    :param uses: every time the records say it was done.
    :param configured: whether the file asks for it; ``None``: it is not a matter of the file.
    :param meets: names in ``NEEDED`` that it fulfils; empty: shown, but no level asks for it.
    :param do: how to have it done once it is configured; ``{p}`` is the pipeline. Empty: nothing to do but wait.
    :param add: what to change in the file to have it. Empty: nothing to recommend.
    :param waits: it happens by itself; where the need is met in another way there is nothing to do.
    """

    name: str
    level: int
    uses: Callable[[r.Records], Iterable[r.Use]]
    configured: Callable[[PipelineConfig], bool] | None
    meets: tuple[str, ...] = ()
    do: str = ""
    add: str = ""
    waits: bool = False


NEEDED: dict[int, tuple[str, ...]] = {
    0: (
        "training on a snapshot",
        "validated data",
        "gates that judge",
        "approval",
        "handover",
        "batch inference",
    ),
    1: (
        "automatic start of training",
        "promotion by gates",
        "automatic batch inference",
        "monitoring",
    ),
    2: (
        "progressive delivery",
        "pipeline delivery",
    ),
}
"""Level → what it needs beside all that the level below needs."""

OF_THE_LEVEL = ("automatic start of training", "promotion by gates", "progressive delivery", "pipeline delivery")
"""Needs that come with a change of the level itself; the others are keys of the file."""

_TRAIN = "start {p}__train"
_ANSWER = "start {p}__train and approve its candidate under Required Actions in Airflow's UI"
_REPLAY = "`airflow mlops backfill {p} --from DATE --to DATE --promote`"
_AUTOMATIC_START = "keep {p}__train switched on until something other than a person starts it, or replay the past: "
_MONITOR = "keep {p}__monitor switched on"
_ADD_MONITOR = "add `monitor` to the file"


def _asks_a_person(config: PipelineConfig) -> bool:
    return (
        config.level == 0
        or config.approve.required
        or "require_approval" in (config.evaluate.no_champion, config.evaluate.on_inconclusive)
    )


def _limits_retrains(config: PipelineConfig) -> bool:
    retrain = config.retrain
    return (
        retrain is not None
        and bool(retrain.when)
        and bool(retrain.cooldown or retrain.max_per_month or retrain.confirm)
    )


def _on(event: Literal["new_data", "drift", "performance", "staleness"], add: str = "") -> Capability:
    return Capability(
        f"training started by {event.replace('_', ' ')}", 1, r.started_by(event),
        lambda c: c.retrain is not None and event in c.retrain.when,
        ("automatic start of training",), _AUTOMATIC_START + _REPLAY, add, waits=True,
    )  # fmt: skip


CAPABILITIES: tuple[Capability, ...] = (
    Capability(
        "training recorded with its data", 0, r.trained, lambda _: True, ("training on a snapshot",), _TRAIN,
    ),
    Capability(
        "data validated before training", 0, r.validated,
        lambda c: bool(c.validate_.expectations) or c.validate_.schema_ != "off",
        ("validated data",), _TRAIN, "add `validate.expectations` to the file",
    ),
    Capability(
        "gates judge a candidate", 0, r.judged, lambda c: bool(c.evaluate.gates),
        ("gates that judge",), _TRAIN, "add `evaluate.gates` to the file",
    ),
    Capability("a person approves", 0, r.approved, _asks_a_person, ("approval",), _ANSWER),
    Capability("handover bundle made", 0, r.handed_over, lambda c: c.level == 0, ("handover",), _ANSWER),
    Capability("batch inference", 0, r.predicted, lambda _: True, ("batch inference",), "start {p}__predict"),
    Capability(
        "training started by its schedule", 1, r.started_by("schedule"),
        lambda c: c.retrain is not None and bool(c.retrain.schedule),
        ("automatic start of training",), _AUTOMATIC_START + _REPLAY, waits=True,
    ),
    _on("new_data"),
    _on("drift", "add `drift` to `retrain.when`"),
    _on("performance", "add `performance` to `retrain.when` (it needs `monitor.labels`)"),
    _on("staleness"),
    Capability(
        "promotion by gates alone", 1, r.promoted_by_gates,
        lambda c: c.level > 0 and bool(c.evaluate.gates) and not c.approve.required,
        # Who lets gates decide needs no person's yes, and what serves by itself no bundle for a person.
        ("promotion by gates", "approval"),
        "train {p} until a candidate passes its gates",
    ),
    Capability(
        "promotion by gates and a person", 1, r.promoted_after_approval,
        lambda c: c.level > 0 and bool(c.evaluate.gates) and c.approve.required,
        ("promotion by gates",), _ANSWER,
    ),
    Capability(
        "gates refuse a candidate", 1, r.refused, lambda c: bool(c.evaluate.gates),
        do="look at the thresholds in `evaluate.gates`: nobody has seen them say no",
    ),
    Capability(
        "batch inference without a person", 1, r.predicted_unasked,
        lambda c: c.level > 0 and bool(c.deploy.batch.schedule),
        ("automatic batch inference", "handover"), "keep {p}__predict switched on",
        "add `deploy.batch.schedule` to the file",
    ),
    Capability(
        "quality of scored data checked", 1, r.checked("quality", "passed", "failed"),
        lambda c: c.monitor is not None, (), _MONITOR, _ADD_MONITOR,
    ),
    Capability(
        "drift checked", 1, r.checked("drift", "drift", "no_drift"),
        lambda c: c.monitor is not None, ("monitoring",), _MONITOR, _ADD_MONITOR,
    ),
    Capability(
        "feature skew checked", 1, r.checked("skew", "skew", "no_skew"),
        lambda c: c.monitor is not None and c.monitor.skew is not None, (), _MONITOR,
    ),
    Capability(
        "age checked", 1, r.checked("staleness", "fresh", "stale"),
        lambda c: c.monitor is not None and c.monitor.max_age is not None, (), _MONITOR,
    ),
    Capability(
        "performance checked on outcomes", 1, r.checked("performance", "ok", "drop"),
        lambda c: c.monitor is not None and c.monitor.labels is not None,
        ("monitoring",), "bring outcomes to where `monitor.labels` looks for them", "add `monitor.labels` to the file",
    ),
    Capability(
        "retrain granted", 1, r.granted, lambda c: c.retrain is not None and bool(c.retrain.when),
    ),
    Capability("retrain held back", 1, r.held_back, _limits_retrains),
    Capability("rollback to an earlier champion", 1, r.rolled_back, None),
    Capability(
        "variants tried in an experiment", 2, r.experimented, lambda c: c.experiment is not None,
        do="start {p}__experiment",
    ),
    Capability(
        "pipeline delivery (CI/CD)", 2, r.delivered, None, ("pipeline delivery",),
        "deliver the project with {p} by `airflow mlops deploy`, and let {p}__train run there",
    ),
    Capability(
        "shadow and canary", 2, r.rolled_out, lambda c: len(c.rollout) > 1,
        ("progressive delivery",), "train {p} until a candidate passes its gates, and let its rollout be judged",
        "take `rollout: [full]` out of `deploy`",
    ),
    Capability("automatic rollback", 2, r.fell, lambda c: len(c.rollout) > 1),
)  # fmt: skip
"""Lowest level first; of those that meet the same need, the one to recommend first."""
