"""A fleet: the DAGs of a level with one model per key, the work on keys divided into mapped shards."""

from __future__ import annotations

from dataclasses import replace

from airflow_mlops.factory.levels.spec import DagSpec, Step

_TRAIN: dict[str, tuple[Step, ...]] = {
    "train.fit": (
        Step("fleet.partition", ("validate.expectations",)),
        Step("fleet.train", ("fleet.partition",)),
        Step("fleet.complete", ("fleet.partition", "fleet.train")),
    ),
    "evaluate.score": (),
    "evaluate.gates": (Step("evaluate.gates", ("fleet.partition", "fleet.train")),),
    "promote.rollout": (),
}
"""Step of one model → what a fleet has in its place."""


def fleet_of(specs: tuple[DagSpec, ...]) -> tuple[DagSpec, ...]:
    """The DAGs of a level, for one model per key."""
    return tuple(_DAGS[spec.suffix](spec) for spec in specs if spec.suffix in _DAGS)


def _train(spec: DagSpec) -> DagSpec:
    steps: list[Step] = []
    for step in spec.steps:
        if step.name in _TRAIN:
            steps += _TRAIN[step.name]
        else:
            steps.append(replace(step, after=tuple("fleet.train" if n == "train.fit" else n for n in step.after)))
    form = tuple(name for name in spec.form if name != "params")
    return replace(
        spec,
        summary=f"{spec.summary.partition(';')[0].rstrip('.')}; one model for each key, in shards.",
        steps=tuple(steps),
        form=(*form, "keys"),
    )


def _predict(spec: DagSpec) -> DagSpec:
    return replace(
        spec,
        summary="Score rows, each with the champion of its key, or that of a parent.",
        steps=(
            Step("predict.partition"),
            Step("predict.shards", ("predict.partition",)),
            Step("predict.publish", ("predict.shards",)),
        ),
    )


_ASKING = ("monitor.drift", "monitor.performance", "monitor.staleness")
_CHECKS = ("monitor.quality", *_ASKING, "monitor.system")


def _monitor(spec: DagSpec) -> DagSpec:
    steps = [
        replace(step, after=("monitor.drift",) if step.name == "monitor.performance" else ())
        for step in spec.steps
        if step.name in _CHECKS
    ]
    # After these: each says which keys need a new model.
    steps += [replace(step, after=_ASKING) for step in spec.steps if step.name == "retrain.request"]
    return replace(
        spec,
        summary="Check what was scored, key by key: quality, drift, performance, age; ask to train what needs it.",
        steps=tuple(steps),
    )


_DAGS = {"train": _train, "predict": _predict, "monitor": _monitor, "registry": lambda spec: spec}
