"""``experiment``: a search over candidates, a trial each."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, StrictInt, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import CallablePath, DottedPath, Fraction, Number, PositiveDuration, refuse

MOST_TRIALS = 1000
"""A task each: Airflow maps a task over at most 1,024 values ([core] max_map_length)."""

MOST_RUNGS = 6

Space = Annotated[dict[StrictStr, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]


class Candidate(Model):
    """One variant of the model: what it does not say is as the pipeline has it."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9_ .\-]{0,39}$")] | None = Field(
        None, description="What tables call it; default: the estimator's class."
    )
    estimator: DottedPath | None = Field(None, description="Another estimator than train.estimator.")
    params: dict[StrictStr, Any] = Field(
        default_factory=dict, description="Its arguments; without an `estimator`, on top of train.params."
    )
    features: CallablePath | None = Field(None, description="Other feature code than features.callable.")
    window: PositiveDuration | None = Field(
        None, description="Train on the latest rows only, so much before the newest one; needs `data.timestamp`."
    )
    space: Space | None = Field(
        None, description="parameter: [values]; default without an `estimator`: experiment.space."
    )


class Halving(Model):
    """Successive halving: all trials with little of a resource, the best of them with more."""

    resource: StrictStr = Field(
        "rows", description="rows: of the training part; else a parameter of estimator or callable, a whole number."
    )
    factor: Annotated[StrictInt, Field(ge=2)] = Field(
        3, description="One in so many trials goes on to the next rung, with so many times the resource."
    )
    rungs: Annotated[StrictInt, Field(ge=1, le=MOST_RUNGS)] | None = Field(
        None, description="Default: as many as leave one trial at the end, up to 6."
    )
    max_resource: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="On the last rung; default for rows: all. A parameter needs it."
    )
    min_resource: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="No rung has less; default: 100 rows, or 1."
    )

    @model_validator(mode="after")
    def _limits(self) -> Halving:
        low, high = self.min_resource, self.max_resource
        refuse(
            {
                "`resource` is a parameter and needs `max_resource`": self.resource != "rows" and high is None,
                "`min_resource` is larger than `max_resource`": low is not None and high is not None and low > high,
            }
        )
        return self


class EarlyStop(Model):
    """When trials that still wait are not run."""

    patience: Annotated[StrictInt, Field(ge=1)] = Field(
        description="After so many finished trials in a row without a gain of the best score."
    )
    min_gain: Annotated[Number, Field(ge=0)] = Field(0, description="A smaller gain counts as none.")


class Experiment(Model):
    """A search over candidates, scored on validation rows; the winner is trained and goes through the gates."""

    strategy: Literal["random", "halving", "all"] = Field(
        "random",
        description="random: n_trials drawn from all combinations; halving: the same, in rungs; all: each one.",
    )
    n_trials: Annotated[StrictInt, Field(ge=1, le=MOST_TRIALS)] = Field(
        20, description="How many combinations are tried; for random and halving."
    )
    candidates: list[Candidate] = Field(default_factory=list, description="Variants; default: the own model.")
    space: Space | None = Field(
        None, description="parameter: [values], for the pipeline's own estimator or callable, or for `callable`."
    )
    callable: CallablePath | None = Field(
        None, description="module:function(**params) that returns a number; then no model is trained."
    )
    direction: Literal["minimize", "maximize"] | None = Field(
        None, description="Which numbers of `callable` are better; a metric knows its own."
    )
    metric: StrictStr | None = Field(None, description="A scikit-learn scorer; default: the first of evaluate.metrics.")
    validation: Fraction = Field(
        0.25, description="Share of the training part that trials are scored on; never rows of the holdout."
    )
    halving: Halving | None = Field(None, description="How `strategy: halving` goes on.")
    early_stop: EarlyStop | None = Field(None, description="For random and all.")
    budget: PositiveDuration | None = Field(
        None, description="No trial begins when those before took so long together: 30m, 2h."
    )
    max_parallel: Annotated[StrictInt, Field(ge=1)] = Field(4, description="Trials at a time.")
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = Field(
        7, description="Seeds which trials are drawn, and each call of `callable`; models keep train.seed."
    )
    resources: Resources | None = Field(None, description="For the trials' tasks.")

    @property
    def rung_count(self) -> int:
        """How many rungs there are, by the file alone: the DAG has so many tasks. One, but for halving."""
        if self.strategy != "halving":
            return 1
        halving = self.halving or Halving()
        return halving.rungs or min(MOST_RUNGS, 1 + int(math.log(self.n_trials, halving.factor) + 1e-9))

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        names = [c.name for c in self.candidates if c.name is not None]
        refuse(
            {
                "`callable` needs a `space`": self.callable is not None and self.space is None,
                "`callable` needs a `direction`": self.callable is not None and self.direction is None,
                "`direction` belongs to `callable`: a metric knows its own": self.callable is None
                and self.direction is not None,
                "`candidates` are models, and `callable` is none: give one of the two": self.callable is not None
                and bool(self.candidates),
                "`metric` is for models, and `callable` returns its number itself": self.callable is not None
                and self.metric is not None,
                "`halving` belongs to `strategy: halving`": self.halving is not None and self.strategy != "halving",
                "`early_stop` is not for `strategy: halving`, which stops trials by itself": self.early_stop is not None
                and self.strategy == "halving",
                "`halving` on rows is for models; name a parameter of `callable` as its `resource`": (
                    self.callable is not None
                    and self.strategy == "halving"
                    and (self.halving is None or self.halving.resource == "rows")
                ),
                "`n_trials` is for random and halving; `strategy: all` tries every combination": self.strategy == "all"
                and "n_trials" in self.model_fields_set,
                "the `resource` of `halving` is also in a `space`: it is set by the rung": (
                    self.halving is not None
                    and any(
                        self.halving.resource in (space or {})
                        for space in (self.space, *(c.space for c in self.candidates))
                    )
                ),
                "two `candidates` have the same `name`": len(set(names)) < len(names),
                "give a `space` or `candidates`: there is nothing to try": self.callable is None
                and self.space is None
                and not self.candidates,
            }
        )
        return self
