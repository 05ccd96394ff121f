"""The typed form of a pipeline file. The JSON Schema and the reference page are generated from here.

A key that is not built is not here: unknown keys are errors. Types are strict: YAML's ``3`` is not
a string and ``"3"`` is not a number. Only what follows from the file alone is checked here; column
names, data and code are checked where they are read.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from airflow_mlops.config.types import (
    BehavioursFile,
    Block,
    CallablePath,
    Column,
    Confirm,
    Cron,
    Day,
    DottedPath,
    Duration,
    Expectation,
    Fraction,
    Level,
    Number,
    PositiveDuration,
    Template,
    TimeZone,
    message_templates,
    refuse,
    whole,
)
from airflow_mlops.window import parse_duration


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Resources(_Model):
    """Where and with what Airflow runs the tasks of a step."""

    pool: StrictStr | None = Field(None, description="Airflow pool the tasks take a slot of.")
    queue: StrictStr | None = Field(None, description="Queue of the executor (Celery).")
    executor_config: dict[str, Any] | None = Field(None, description="Handed to the executor unchanged.")
    timeout: PositiveDuration | None = Field(None, description="A task that runs longer fails: 30m, 2h.")
    priority_weight: StrictInt | None = Field(None, description="Airflow's priority weight.")


class DefaultArgs(_Model):
    """Airflow's default_args, as far as they say how tasks run and not what they do."""

    retries: Annotated[StrictInt, Field(ge=0)] | None = Field(None, description="Tries after the first; default 2.")
    retry_delay: Duration | Number | None = Field(None, description="Wait before a retry: 30s, 5m, or seconds.")
    max_retry_delay: Duration | Number | None = Field(None, description="Longest wait before a retry.")
    retry_exponential_backoff: StrictBool | None = Field(None, description="Wait longer each time; default true.")
    execution_timeout: Duration | Number | None = Field(None, description="A task that runs longer fails.")
    depends_on_past: StrictBool | None = Field(None, description="Wait for the task's success in the run before.")
    wait_for_downstream: StrictBool | None = Field(None, description="Wait for what follows it in the run before.")
    email: StrictStr | list[StrictStr] | None = Field(None, description="Airflow's mails go here.")
    email_on_failure: StrictBool | None = Field(None, description="Mail when a task fails.")
    email_on_retry: StrictBool | None = Field(None, description="Mail when a task is tried again.")
    pool: StrictStr | None = Field(None, description="Airflow pool; `resources` go before.")
    queue: StrictStr | None = Field(None, description="Queue of the executor; `resources` go before.")
    priority_weight: StrictInt | None = Field(None, description="Airflow's priority weight; `resources` go before.")
    weight_rule: Literal["downstream", "upstream", "absolute"] | None = Field(
        None, description="How Airflow sums priority weights."
    )


class Dag(_Model):
    """Settings of the DAGs themselves."""

    start_date: Day = Field(date(2024, 1, 1), description="First day of the schedule.")
    end_date: Day | None = Field(None, description="No scheduled run begins after this day.")
    timezone: TimeZone = Field("UTC", description="IANA name; schedules and windows count in it.")
    catchup: StrictBool = Field(False, description="Run the intervals between start_date and now.")
    max_active_runs: Annotated[StrictInt, Field(ge=1)] = Field(1, description="Runs of one DAG at a time.")
    max_active_tasks: Annotated[StrictInt, Field(ge=1)] = Field(16, description="Tasks of one DAG at a time.")
    access_control: dict[StrictStr, Any] | None = Field(None, description="Airflow's DAG-level permissions.")
    tags: list[StrictStr] = Field(default_factory=list, description="Added to mlops, level-N and the owner.")
    default_args: DefaultArgs = Field(default_factory=DefaultArgs, description="Airflow default_args for every task.")


class Sql(_Model):
    """Rows from a database, through an Airflow connection."""

    conn_id: StrictStr = Field(description="Airflow connection.")
    query: Template = Field(description="One SELECT; {{ window.start }} and {{ window.end }} may be used.")


class Split(_Model):
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


class Data(_Model):
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


class LabelLimits(_Model):
    """How far labels may contradict each other, or change; without limits both are only reported."""

    max_conflicts: Annotated[StrictFloat, Field(ge=0, lt=1)] | None = Field(
        None, description="Share of rows that are equal in every column a model may read, and have different labels."
    )
    max_rate_change: Fraction | None = Field(
        None,
        description="Change of a class's share against the champion's training rows; it must be significant, too.",
    )


class Validate(_Model):
    """Checks of the data before training, in Great Expectations' vocabulary."""

    schema_: Literal["infer", "off"] = Field(
        "infer",
        alias="schema",
        description="infer: the first good run locks columns and types; later differences stop the run.",
    )
    expectations: list[Expectation] = Field(default_factory=list, description="Each: {expect_…: {its arguments}}.")
    labels: LabelLimits = Field(default_factory=LabelLimits, description="Limits of what is counted of the labels.")
    on_failure: Literal["block", "warn", "quarantine"] = Field(
        "block", description="block: stop; warn: go on; quarantine: set bad rows aside, keep and count them."
    )
    resources: Resources | None = Field(None, description="For the validation tasks.")


class Features(_Model):
    """Code that makes features; the same in training and prediction."""

    callable: CallablePath = Field(description="module:function from a DataFrame to a DataFrame with the same rows.")


class Search(_Model):
    """Search over hyperparameters by cross-validation on the training part."""

    strategy: Literal["random", "grid"] = Field("random", description="scikit-learn's randomised or grid search.")
    n_iter: Annotated[StrictInt, Field(ge=1)] = Field(10, description="Trials of the random search.")
    metric: StrictStr | None = Field(None, description="A scikit-learn scorer; default: the first of evaluate.metrics.")
    cv: Annotated[StrictInt, Field(ge=2)] = Field(3, description="Folds.")
    space: Annotated[dict[StrictStr, list[Any]], Field(min_length=1)] = Field(description="parameter: [values]")


class Train(_Model):
    """How the candidate is made: exactly one of estimator, callable, command."""

    estimator: DottedPath | None = Field(None, description="Any scikit-learn estimator by its dotted name.")
    params: dict[StrictStr, Any] = Field(default_factory=dict, description="Arguments of the estimator or callable.")
    search: Search | None = Field(None, description="Hyperparameter search.")
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32)] = Field(7, description="Seeds split, search and estimator.")
    callable: CallablePath | None = Field(
        None, description="module:function(X, y, *, seed, **params) that returns a fitted scikit-learn estimator."
    )
    command: Annotated[StrictStr, Field(min_length=1)] | None = Field(
        None,
        description=(
            "A script, unchanged; {train}, {model_dir} and {seed} are replaced. It writes model.skops to {model_dir}."
        ),
    )
    resources: Resources | None = Field(None, description="For the training task.")

    @model_validator(mode="after")
    def _one_way(self) -> Train:
        given = sum(x is not None for x in (self.estimator, self.callable, self.command))
        refuse(
            {
                "give exactly one of `estimator`, `callable` and `command`": given != 1,
                "`search` needs `estimator`": self.search is not None and self.estimator is None,
                "`params` are for `estimator` and `callable`; write a command's arguments into it": (
                    self.command is not None and bool(self.params)
                ),
            }
        )
        return self


class Serving(_Model):
    """The model, loaded in a fresh process and asked to predict."""

    p50_ms: Annotated[StrictFloat, Field(gt=0)] | None = Field(None, description="Median of one row's prediction, ms.")
    p95_ms: Annotated[StrictFloat, Field(gt=0)] | None = Field(
        None, description="95th percentile of one row's prediction, ms."
    )
    min_rows_per_second: Annotated[StrictFloat, Field(gt=0)] | None = Field(
        None, description="Rows a second in one batch of up to 1,000 holdout rows."
    )
    max_memory_mb: Annotated[StrictFloat, Field(gt=0)] | None = Field(
        None, description="Peak memory of that process, Python and libraries included, MB (10^6 bytes)."
    )
    max_mb: Annotated[StrictFloat, Field(gt=0)] | None = Field(
        None, description="Size of the model file, MB (10^6 bytes)."
    )
    rows: Annotated[StrictInt, Field(ge=1)] = Field(50, description="How many holdout rows are asked, one by one.")
    environment: Literal["warn", "reject"] = Field(
        "warn", description="When Python or packages are others than in training: say so, or reject."
    )


class Value(_Model):
    """What a prediction is worth, a number a row: exactly one of matrix, callable."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9_ \-]{0,39}$")] = Field(
        "value", description="What reports call it."
    )
    matrix: list[list[Number]] | None = Field(
        None,
        description="One row for each true class, one column for each predicted one. Two classes: the positive one "
        "last; more: in sorted order.",
    )
    classes: list[StrictStr | StrictBool | StrictInt] | None = Field(
        None, description="The classes in the order of the matrix, where it is another one."
    )
    callable: CallablePath | None = Field(
        None,
        description="module:function that returns a number a row; takes y, labels, proba and rows, as far as it asks.",
    )

    @model_validator(mode="after")
    def _shape(self) -> Value:
        rows = self.matrix or []
        size = len(rows)
        refuse(
            {
                "give exactly one of `matrix` and `callable`": (self.matrix is None) == (self.callable is None),
                "`matrix` needs as many columns as rows, and at least two": self.matrix is not None
                and (size < 2 or any(len(row) != size for row in rows)),
                "`matrix` holds a number that is not finite": any(not isfinite(v) for row in rows for v in row),
                "`matrix` gives each prediction the same value: no model could be better than another": bool(rows)
                and all(len(set(row)) == 1 for row in rows),
                "`classes` belongs to `matrix`": self.classes is not None and self.matrix is None,
                "`classes` needs each class of `matrix` once": self.classes is not None
                and self.matrix is not None
                and (len(self.classes) != size or len({*map(str, self.classes)}) != size),
            }
        )
        return self


class Gate(_Model):
    """One condition a candidate must meet."""

    metric: StrictStr | None = Field(None, description="A scikit-learn scorer.")
    value: Value | None = Field(None, description="The mean value of a row in place of a metric; higher is better.")
    at_least: Number | None = Field(None, description="The score must reach this; where higher is better.")
    at_most: Number | None = Field(
        None, description="The score must not pass this; where lower is better (log_loss, rmse)."
    )
    versus: Literal["champion"] | None = Field(None, description="Compare with the champion by a paired test.")
    not_worse_by: Annotated[StrictFloat, Field(ge=0)] | None = Field(
        None, description="Passes when shown to be at most this much worse."
    )
    better_by: Annotated[StrictFloat, Field(ge=0)] | None = Field(
        None, description="Passes when shown to be more than this much better."
    )
    confidence: Annotated[StrictFloat, Field(gt=0.5, lt=1)] | None = Field(
        None,
        description="One-sided confidence, default 0.95. `at_least` and `at_most` compare the value alone, unless this "
        "is given: then they pass only what the rows show.",
    )
    slices: list[Column] = Field(
        default_factory=list, description="The condition must hold for each value of these columns."
    )
    slice_values: dict[Column, Annotated[list[StrictStr | StrictInt | StrictBool], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="For columns of `slices`: only these values are judged, and each must be in the holdout.",
    )
    by: list[Column] = Field(default_factory=list, description="Columns whose values `max_gap` compares.")
    max_gap: Annotated[StrictFloat, Field(gt=0)] | None = Field(
        None, description="Passes when no two values of a column of `by` are shown to be further apart than this."
    )
    min_rows: Annotated[StrictInt, Field(ge=1)] = Field(100, description="Slices with fewer rows are not judged.")
    serving: Serving | None = Field(None, description="A serving check instead of a metric.")
    behaviours: BehavioursFile | None = Field(
        None,
        description="A file of recorded behaviour beside the pipeline file, instead of a metric; `at_least` is the "
        "share of it that must hold, default 1.",
    )

    @model_validator(mode="after")
    def _shape(self) -> Gate:
        relative = [n for n in ("not_worse_by", "better_by") if getattr(self, n) is not None]
        absolute = [n for n in ("at_least", "at_most") if getattr(self, n) is not None]
        for name in (*relative, *absolute, *(["max_gap"] if self.max_gap is not None else [])):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"`{name}` must be a finite number")
        gap = bool(self.by) or self.max_gap is not None
        sliced = bool(self.slices or self.slice_values)
        if not self.columns and self.min_rows != Gate.model_fields["min_rows"].default:
            raise ValueError(
                "`min_rows` is for the parts of the holdout that `slices` or `by` make, and there is neither"
            )
        if self.behaviours is not None:
            others = (self.metric, self.value, self.serving, self.versus, self.at_most, self.confidence)
            if relative or sliced or gap or any(other is not None for other in others):
                raise ValueError("a `behaviours` gate takes `at_least` and nothing else")
            if self.at_least is not None and not 0 < self.at_least <= 1:
                raise ValueError("`at_least` of `behaviours` is a share, above 0 and at most 1")
            return self
        if self.serving:
            score = (self.metric, self.value, self.versus, self.confidence)
            if absolute or relative or sliced or gap or any(other is not None for other in score):
                raise ValueError("a `serving` gate stands alone")
            return self
        if (self.metric is None) == (self.value is None):
            raise ValueError("a gate needs exactly one of `metric`, `value`, `serving` and `behaviours`")
        if self.value and self.at_most is not None:
            raise ValueError("`at_most` is the wrong side for a `value`, of which higher is better: write `at_least`")
        if unsliced := [c for c in self.slice_values if c not in self.slices]:
            raise ValueError(f"`slice_values` names {', '.join(unsliced)}, which `slices` does not")
        if gap:
            if not self.by or self.max_gap is None or relative or absolute or self.versus or self.slices:
                raise ValueError("`by` and `max_gap` go together, and with nothing but `metric` or `value`")
        elif self.versus:
            if len(relative) != 1 or absolute or self.slices:
                raise ValueError(
                    "`versus: champion` takes exactly one of `not_worse_by` and `better_by`,"
                    " and nothing of `at_least`, `at_most`, `slices`"
                )
        elif relative or len(absolute) != 1:
            raise ValueError(
                "give one of `at_least` and `at_most`, or `versus: champion` with `not_worse_by` or `better_by`"
            )
        return self

    @property
    def columns(self) -> list[str]:
        """Columns that the holdout is divided by."""
        return [*self.slices, *self.by]

    @property
    def level(self) -> float:
        """One-sided confidence of its intervals."""
        return self.confidence if self.confidence is not None else 0.95


class Evaluate(_Model):
    """How a candidate is judged on the holdout."""

    metrics: list[StrictStr] = Field(
        default_factory=list, description="scikit-learn scorers; default: roc_auc and log_loss, or r2 and rmse."
    )
    gates: list[Gate] = Field(default_factory=list, description="All must pass.")
    no_champion: Literal["promote", "require_approval"] = Field(
        "promote", description="When there is nothing to compare with."
    )
    on_inconclusive: Literal["keep", "require_approval"] = Field("keep", description="When the rows do not decide.")
    holdout_uses: Annotated[StrictInt, Field(ge=1, le=1000)] = Field(
        20,
        description="How often one holdout may decide; each time at the confidence that is left. 1: all of it at once.",
    )
    block: Block | None = Field(
        None,
        description="Holdout rows of one block may depend on each other. A duration: blocks of `data.timestamp`; none: "
        "every row is independent. Default: the groups of `split.by: group`, days (1d, UTC) with `split.by: time`.",
    )
    resources: Resources | None = Field(None, description="For evaluation and gates.")

    @model_validator(mode="after")
    def _one_value_a_name(self) -> Evaluate:
        known: dict[str, Value] = {}
        for value in (gate.value for gate in self.gates if gate.value is not None):
            if known.setdefault(value.name, value) != value:
                raise ValueError(f"two different values are called `{value.name}`: give one of them a `name`")
        return self


class Approve(_Model):
    """A person's yes, asked in Airflow's UI."""

    required: StrictBool = Field(False, description="Ask before delivery. Level 0 always asks.")
    by: list[StrictStr] = Field(
        default_factory=list, description="Airflow user ids who may answer; default: anyone who may edit the run."
    )
    timeout: PositiveDuration | None = Field(None, description="How long to wait for the answer; default: for ever.")
    on_timeout: Literal["reject", "approve"] = Field("reject", description="The answer when none comes.")


class Batch(_Model):
    """Batch inference with the champion."""

    source: Template | None = Field(None, description="Rows to score; default: data.source.")
    output: StrictStr | None = Field(
        None, description="Folder or URI for the predictions; default: predictions/ in the data root."
    )
    schedule: Cron | None = Field(None, description="When to score (level 1).")
    resources: Resources | None = Field(None, description="For the prediction task.")


class Deploy(_Model):
    """How a promoted model is used."""

    batch: Batch = Field(default_factory=Batch, description="Batch inference.")


class Labels(_Model):
    """The outcomes that tell, later, how good the predictions were."""

    source: Template = Field(
        description="Path, URI or glob with the id and the target; window is that of the predictions that are judged."
    )
    join_on: Column = Field(description="Column that names the row in both.")
    delay: Duration | None = Field(None, description="How long after the window's end labels are complete.")


class Drift(_Model):
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
            raise ValueError(f"`engine: evidently` has no test: {', '.join(own)} belong to `engine: calibrated`")
        return self


class Performance(_Model):
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


class Skew(_Model):
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


class System(_Model):
    """When a run's duration, memory or processor time is out of the ordinary."""

    min_runs: Annotated[StrictInt, Field(ge=4)] = Field(
        8, description="With fewer earlier runs of its kind nothing is said of a run."
    )
    factor: Annotated[StrictFloat, Field(gt=1)] = Field(
        1.5, description="An alarm needs more than this many times the median of earlier runs, and 3 robust deviations."
    )


class Monitor(_Model):
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


class Retrain(_Model):
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


class Retention(_Model):
    """How long rows are kept; counted from the end of their window."""

    snapshots: PositiveDuration | None = Field(None, description="The rows models were trained on; default: for ever.")
    captures: PositiveDuration | None = Field(None, description="Rows that were scored; default: for ever.")

    @model_validator(mode="after")
    def _something(self) -> Retention:
        refuse({"`retention` needs `snapshots` or `captures`": self.snapshots is None and self.captures is None})
        return self


class Notifier(_Model):
    """An Airflow notifier."""

    cls: DottedPath = Field(alias="class", description="Dotted path of an Airflow notifier.")
    args: Annotated[dict[StrictStr, Any], AfterValidator(message_templates)] = Field(
        default_factory=dict, description="Its arguments."
    )


Event = Literal[
    "failed",
    "rejected",
    "promoted",
    "rollback",
    "drift",
    "skew",
    "performance",
    "retrain",
    "suppressed",
    "budget",
    "stale_data",
    "staleness",
    "system",
]


def _default_events() -> list[Event]:
    return ["failed", "rejected"]


class Notify(_Model):
    """Who is told about what."""

    events: list[Event] = Field(default_factory=_default_events, description="What to tell.")
    notifiers: list[Notifier] = Field(default_factory=list, description="Whom to tell.")


class PipelineConfig(_Model):
    """One ML pipeline."""

    schema_: Annotated[Literal[1], BeforeValidator(whole)] = Field(
        1, alias="schema", description="Version of this vocabulary."
    )
    pipeline: Annotated[StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9_\-]{0,99}$")] = Field(
        description="Name; the DAG ids start with it."
    )
    level: Level = Field(
        description="0 manual, 1 continuous training; or in another model's words: {microsoft: 2}, {aws: repeatable}."
    )
    description: StrictStr | None = Field(
        None, description="What the model is for; shown on the DAGs and the model card."
    )
    owner: StrictStr = Field("airflow", description="Who answers for it.")
    task: Literal["classification", "regression"] | None = Field(
        None, description="Default: follows from the estimator."
    )
    dag: Dag = Field(default_factory=Dag, description="Settings of the DAGs.")
    resources: Resources | None = Field(None, description="For every task; a section's own resources go before.")
    data: Data = Field(description="What a run reads.")
    validate_: Validate = Field(default_factory=Validate, alias="validate", description="Checks of the data.")
    features: Features | None = Field(None, description="Feature code.")
    train: Train = Field(description="How a candidate is made.")
    evaluate: Evaluate = Field(default_factory=Evaluate, description="How it is judged.")
    approve: Approve = Field(default_factory=Approve, description="A person's yes.")
    deploy: Deploy = Field(default_factory=Deploy, description="How it is used.")
    monitor: Monitor | None = Field(None, description="What is watched; level 1.")
    retrain: Retrain | None = Field(None, description="What starts training; level 1.")
    retention: Retention | None = Field(
        None, description="When old rows are given up; never those of the champion and the one before."
    )
    notify: Notify = Field(default_factory=Notify, description="Who is told.")

    @property
    def _skew(self) -> Skew | None:
        return self.monitor.skew if self.monitor is not None else None

    @model_validator(mode="after")
    def _level_has_what_it_needs(self) -> PipelineConfig:
        watched = set(self.retrain.when if self.retrain else ()) & {"drift", "performance", "staleness"}
        no_start = self.retrain is not None and not self.retrain.schedule and not self.retrain.when
        by_person = "needs `level: 1`; level 0 is started by a person"
        sliced = {column for gate in self.evaluate.gates for column in gate.columns}
        private = sorted(sliced & set(self.data.private))
        blocked = self.evaluate.block not in (None, "none")
        refuse(
            {
                "`evaluate.block` is a duration and needs `data.timestamp`": blocked and self.data.timestamp is None,
                "`evaluate.block` cannot be a duration with `split.by: group`: its groups are the blocks": blocked
                and self.data.split.by == "group",
                f"`evaluate.gates` slice by {', '.join(private)}, which `data.private` lists: a report would show "
                "its values": bool(private),
                f"`monitor` {by_person}": self.level == 0 and self.monitor is not None,
                f"`retrain` {by_person}": self.level == 0 and self.retrain is not None,
                f"`deploy.batch.schedule` {by_person}": self.level == 0 and self.deploy.batch.schedule is not None,
                f"`data.watch` {by_person}": self.level == 0 and self.data.watch is not None,
            }
        )
        if self.level == 0:
            return self
        refuse(
            {
                "`level: 1` needs `retrain`: at least a `schedule` or `when` in it": self.retrain is None,
                "`retrain` needs a `schedule` or `when` in it": no_start,
                "`level: 1` needs `evaluate.gates`: they decide about promotion": not self.evaluate.gates,
                f"`retrain.when: [{', '.join(sorted(watched))}]` needs `monitor`": (
                    bool(watched) and self.monitor is None
                ),
                "`retrain.when: [performance]` needs `monitor.labels`": (
                    "performance" in watched and self.monitor is not None and self.monitor.labels is None
                ),
                "`monitor.labels` needs `data.id`: outcomes are joined to predictions by it": self.monitor is not None
                and self.monitor.labels is not None
                and self.data.id is None,
                "`monitor.skew` needs `data.id`: served rows are joined to replayed ones by it": self._skew is not None
                and self.data.id is None,
                "`monitor.skew` needs `source`: private columns are not kept with what was scored, and the feature "
                "code may need them": self._skew is not None
                and self._skew.source is None
                and bool(self.data.private)
                and self.features is not None,
                "`data.watch` needs `retrain.when: [new_data]`": self.data.watch is not None
                and self.retrain is not None
                and "new_data" not in self.retrain.when,
                "`retrain.confirm` needs drift, performance or staleness in `retrain.when`": (
                    self.retrain is not None and self.retrain.confirm is not None and not watched
                ),
                "`retrain.when: [staleness]` needs `monitor.max_age`": (
                    "staleness" in watched and self.monitor is not None and self.monitor.max_age is None
                ),
            }
        )
        return self


def length(value: str | None) -> timedelta | None:
    """A checked duration as timedelta; ``None`` stays ``None``."""
    return parse_duration(value) if value is not None else None


def midnight(day: date, zone: str) -> datetime:
    """The first moment of ``day`` in the time zone ``zone``."""
    from zoneinfo import ZoneInfo

    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
