"""``data``, ``validate``, ``features``, ``retention``: what a run reads and checks, and how long it is kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import CallablePath, Column, Expectation, Fraction, PositiveDuration, Template, refuse


class Sql(Model):
    """Rows from a database, through an Airflow connection."""

    conn_id: StrictStr = Field(description="Airflow connection.")
    query: Template = Field(description="One SELECT; {{ window.start }} and {{ window.end }} may be used.")


class Split(Model):
    """How rows are divided into training part and holdout."""

    by: Literal["random", "time", "group"] = Field(
        "random", description="random: seeded hash of data.id; time: the latest rows; group: whole groups."
    )
    test: Fraction = Field(0.2, description="Share of rows (groups) held out.")
    column: Column | None = Field(None, description="The group column; for `by: group`.")

    @model_validator(mode="after")
    def _column(self) -> Split:
        if (self.by == "group") != (self.column is not None):
            raise ValueError("`column` belongs to `by: group`, and `by: group` needs it")
        return self


class Data(Model):
    """What a run reads: exactly one of source, sql, callable."""

    source: Template | None = Field(None, description="Path, URI or glob of CSV or Parquet files.")
    sql: Sql | None = Field(None, description="A query instead of files.")
    callable: CallablePath | None = Field(None, description="module:function that returns a DataFrame or Arrow table.")
    window: PositiveDuration | None = Field(
        None, description="How much history training reads; default: the run's window."
    )
    watch: PositiveDuration | None = Field(
        None,
        description="Look for new or changed files this often; with `retrain.when: [new_data]` they start training.",
    )
    target: Column = Field(description="The column to predict.")
    positive: StrictStr | StrictInt | StrictBool | None = Field(None, description="The positive class.")
    id: Column | None = Field(None, description="Column that names a row; never a feature.")
    timestamp: Column | None = Field(
        None, description="Column with the row's time; never a feature. Rows outside the window are dropped."
    )
    exclude: list[Column] = Field(default_factory=list, description="Columns that are known only afterwards.")
    private: list[Column] = Field(
        default_factory=list,
        description="Columns of the source whose values stay out of reports, captures, cards and logs. Numbers may be "
        "features, text may not.",
    )
    fresh_within: PositiveDuration | None = Field(
        None, description="Stop when the newest row is older than this at the window's end."
    )
    min_rows: Annotated[StrictInt, Field(ge=1)] = Field(50, description="Stop when a snapshot has fewer rows.")
    max_row_drop: Fraction | None = Field(
        None, description="Stop when a snapshot has lost more than this share of rows against the last one."
    )
    split: Split = Field(default_factory=Split, description="Training part and holdout.")
    resources: Resources | None = Field(None, description="For the data tasks.")

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        given = sum(x is not None for x in (self.source, self.sql, self.callable))
        refuse(
            {
                "give exactly one of `source`, `sql` and `callable`": given != 1,
                "`split.by: time` needs `timestamp`": self.split.by == "time" and self.timestamp is None,
                "`fresh_within` needs `timestamp`": self.fresh_within is not None and self.timestamp is None,
                "`watch` needs a `source` without a template": self.watch is not None
                and (self.source is None or "{{" in self.source),
                "`target` is also in `exclude`": self.target in self.exclude,
                "`target` is also in `private`: a report tells what was predicted": self.target in self.private,
                "`id` is also in `private`: predictions and captures carry it": self.id in self.private,
                "`timestamp` is also in `private`: windows and freshness are told in it": (
                    self.timestamp in self.private
                ),
                "`target` and `id` are the same column": self.target == self.id,
                "`target` and `timestamp` are the same column": self.target == self.timestamp,
            }
        )
        return self


class LabelLimits(Model):
    """How far labels may contradict each other, or change; without limits both are only reported."""

    max_conflicts: Annotated[StrictFloat, Field(ge=0, lt=1)] | None = Field(
        None, description="Share of rows that are equal in every column a model may read, and have different labels."
    )
    max_rate_change: Fraction | None = Field(
        None,
        description="Change of a class's share against the champion's training rows; it must be significant, too.",
    )


class Validate(Model):
    """Checks of the data before training, in Great Expectations' vocabulary."""

    schema_: Literal["infer", "off"] = Field(
        "infer",
        alias="schema",
        description="infer: the first good run locks columns and types; later differences stop the run.",
    )
    expectations: list[Expectation] = Field(default_factory=list, description="Each: {expect_…: {its arguments}}.")
    engine: Literal["pandas", "sql"] = Field(
        "pandas",
        description="What computes the expectations. pandas: the task, on the snapshot; sql: the database of "
        "`data.sql`, on the same query.",
    )
    labels: LabelLimits = Field(default_factory=LabelLimits, description="Limits of what is counted of the labels.")
    on_failure: Literal["block", "warn", "quarantine"] = Field(
        "block",
        description="block: stop, in a fleet the keys whose rows are bad; warn: go on; quarantine: set bad rows aside, "
        "keep and count them.",
    )
    resources: Resources | None = Field(None, description="For the validation tasks.")


class Features(Model):
    """Code that makes features; the same in training and prediction."""

    callable: CallablePath = Field(description="module:function from a DataFrame to a DataFrame with the same rows.")


class Retention(Model):
    """How long rows are kept; counted from the end of their window."""

    snapshots: PositiveDuration | None = Field(None, description="The rows models were trained on; default: for ever.")
    captures: PositiveDuration | None = Field(None, description="Rows that were scored; default: for ever.")

    @model_validator(mode="after")
    def _something(self) -> Retention:
        refuse({"`retention` needs `snapshots` or `captures`": self.snapshots is None and self.captures is None})
        return self
