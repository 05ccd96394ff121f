"""``evaluate``, ``approve``: how a candidate is judged, and by whom."""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import BehavioursFile, Block, CallablePath, Column, Number, PositiveDuration, refuse


class Serving(Model):
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


class Value(Model):
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


class Gate(Model):
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


class Evaluate(Model):
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


class Approve(Model):
    """A person's yes, asked in Airflow's UI."""

    required: StrictBool = Field(False, description="Ask before delivery. Level 0 always asks.")
    by: list[StrictStr] = Field(
        default_factory=list, description="Airflow user ids who may answer; default: anyone who may edit the run."
    )
    timeout: PositiveDuration | None = Field(None, description="How long to wait for the answer; default: for ever.")
    on_timeout: Literal["reject", "approve"] = Field("reject", description="The answer when none comes.")
