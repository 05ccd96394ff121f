"""``monitor``, ``retrain``: what is watched after promotion, and what starts a training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import Column, Confirm, Cron, Duration, PositiveDuration, Template


class Labels(Model):
    """The outcomes that tell, later, how good the predictions were."""

    source: Template = Field(
        description="Path, URI or glob with the id and the target; window is that of the predictions that are judged."
    )
    join_on: Column = Field(description="Column that names the row in both.")
    delay: Duration | None = Field(None, description="How long after the window's end labels are complete.")


class Drift(Model):
    """When a change of the inputs or predictions is an alarm: it must be large and significant."""

    min_rows: Annotated[StrictInt, Field(ge=30)] = Field(30, description="Fewer rows on either side: not enough data.")
    effect: Annotated[StrictFloat, Field(gt=0)] = Field(
        0.1, description="Numeric columns: Wasserstein distance in standard deviations."
    )
    alpha: Annotated[StrictFloat, Field(gt=0, lt=0.5)] = Field(
        0.05, description="False alarms per check, all columns together."
    )
    correction: Literal["bonferroni", "bh"] = Field("bonferroni", description="Correction over columns.")
    independent_rows: StrictBool = Field(
        False,
        description="true: every row counts in full, also one that is like its neighbours; alarms sooner, and without "
        "drift too where rows hang together.",
    )
    multivariate: StrictBool = Field(
        False, description="Also ask whether a classifier tells current rows from training rows by all columns."
    )
    engine: Literal["calibrated", "evidently"] = Field(
        "calibrated",
        description="evidently: its scores of a sample (Wasserstein, Jensen–Shannon) against `effect`, without a test.",
    )

    @model_validator(mode="after")
    def _engine(self) -> Drift:
        own = [
            f"`{n}`" for n in ("alpha", "correction", "independent_rows", "multivariate") if n in self.model_fields_set
        ]
        if self.engine == "evidently" and own:
            theirs = f"{', '.join(own)} {'belongs' if len(own) == 1 else 'belong'} to `engine: calibrated`"
            raise ValueError(f"`engine: evidently` has no test: {theirs}")
        return self


class Performance(Model):
    """When a fall of the metric is an alarm."""

    metric: StrictStr | None = Field(None, description="A scikit-learn scorer; default: the first of evaluate.metrics.")
    max_drop: Annotated[StrictFloat, Field(gt=0)] = Field(
        0.03, description="Fall against the score at promotion that is an alarm."
    )
    min_coverage: Annotated[StrictFloat, Field(gt=0, le=1)] = Field(
        0.5, description="With outcomes for a smaller share of the predictions the check waits: labels are pending."
    )
    estimate: StrictBool = Field(
        False,
        description="Estimate the metric of the newest predictions without outcomes, from calibrated probabilities; "
        "needs no `labels`. It cannot see concept drift.",
    )


class Skew(Model):
    """Feature skew: what the model was given, against what its training code makes of the same rows."""

    replay_rows: Annotated[StrictInt, Field(ge=30)] = Field(
        500, description="How many served rows are replayed; chosen by a hash of data.id."
    )
    source: Template | None = Field(
        None,
        description="Path, URI or glob with the rows as training reads them, joined by data.id; default: the rows as "
        "they came when they were scored.",
    )
    max_share: Annotated[StrictFloat, Field(ge=0, lt=1)] = Field(
        0.01, description="A feature that is shown to differ in more than this share of rows is skewed."
    )
    tolerance: Annotated[StrictFloat, Field(gt=0, lt=1)] = Field(
        1e-5, description="Relative difference below which two numbers are the same."
    )


class System(Model):
    """When a run's duration, memory or processor time is out of the ordinary."""

    min_runs: Annotated[StrictInt, Field(ge=4)] = Field(
        8, description="With fewer earlier runs of its kind nothing is said of a run."
    )
    factor: Annotated[StrictFloat, Field(gt=1)] = Field(
        1.5, description="An alarm needs more than this many times the median of earlier runs, and 3 robust deviations."
    )


class Monitor(Model):
    """What is watched after promotion (level 1)."""

    schedule: Cron | None = Field(None, description="When to check; default: after each batch of predictions.")
    labels: Labels | None = Field(None, description="Where outcomes arrive.")
    drift: Drift = Field(default_factory=Drift, description="Data and prediction drift.")
    skew: Skew | None = Field(None, description="Feature skew; needs `data.id`. `{}` takes the defaults.")
    performance: Performance = Field(default_factory=Performance, description="Needs `labels`, or `estimate`.")
    max_age: PositiveDuration | None = Field(None, description="A champion older than this is stale.")
    system: System | None = Field(
        None, description="Duration, memory and processor time of the runs. `{}` takes the defaults."
    )
    resources: Resources | None = Field(None, description="For the monitoring tasks.")


class Retrain(Model):
    """What starts training by itself (level 1)."""

    schedule: Cron | None = Field(None, description="Train at these times.")
    when: list[Literal["new_data", "drift", "performance", "staleness"]] = Field(
        default_factory=list, description="Train on these events."
    )
    confirm: Confirm | None = Field(
        None,
        description=(
            "2 of 3: drift, performance or staleness asks for training when so many of its last checks saw it; "
            "default: at once."
        ),
    )
    cooldown: Duration | None = Field(None, description="No event starts training sooner after the last one.")
    max_per_month: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Event-started trainings per calendar month."
    )
    experiment_after: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None,
        description="After so many candidates in a row that did not become champion, or windows in a row with concept "
        "drift, an alarm asks for an experiment (level 2); default 3.",
    )
