"""Level 0: a person starts, approves, and takes the artefact over."""

from __future__ import annotations

from airflow_mlops.factory.levels.spec import DagSpec, Step, keeps_for_a_time

LEVEL: tuple[DagSpec, ...] = (
    DagSpec(
        "train",
        "Train a model from a form, judge it by its gates, ask a person, and hand it over as one bundle.",
        (
            Step("data.snapshot"),
            Step("data.profile", ("data.snapshot",)),
            Step("validate.expectations", ("data.snapshot",)),
            Step("train.fit", ("validate.expectations",)),
            Step("retention.expire", ("train.fit",), keeps_for_a_time),
            Step("evaluate.score", ("train.fit",)),
            Step("evaluate.gates", ("evaluate.score",)),
            Step("approve.ask", ("evaluate.gates",)),
            Step("promote.handover", ("evaluate.gates", "approve.ask")),
        ),
        form=("window_start", "window_end", "source", "params", "seed"),
    ),
    DagSpec(
        "predict",
        "Score a file with the model that was handed over.",
        (Step("predict.batch"),),
        form=("window_start", "window_end", "source", "output"),
    ),
    DagSpec(
        "registry",
        "Promote a version, roll back to the champion before, retire a version, end a rollout: by hand, on the record.",
        (Step("registry.change"),),
        form=("action", "key", "version", "expected", "reason"),
    ),
)
