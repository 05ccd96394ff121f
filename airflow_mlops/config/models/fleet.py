"""``fleet``: one model for each value of a column."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, model_validator

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import Column

MOST_SHARDS = 500
"""Airflow refuses to map over more than 1,024, and each task costs it about a fifth of a second of CPU."""


class Fleet(Model):
    """One model for each value of a column, in one set of DAGs."""

    key: Column | Annotated[list[Column], Field(min_length=1)] = Field(
        description="Column whose values name the models, or several: a model for each combination."
    )
    shard_size: Literal["auto"] | Annotated[StrictInt, Field(ge=1)] = Field(
        "auto", description="Keys that one task trains; auto: about four tasks for each slot of the executor."
    )
    processes: Literal["auto"] | Annotated[StrictInt, Field(ge=1)] = Field(
        "auto", description="Processes in one task; auto: the cores it has, shared with the other slots of its machine."
    )
    min_rows: Annotated[StrictInt, Field(ge=2)] = Field(
        50, description="A key with fewer rows gets no model of its own: its parent serves."
    )
    parent: Column | None = Field(
        None,
        description="Column whose values name groups of keys: the group's model serves keys with too few rows. "
        "Default: one model of all rows does.",
    )
    retire_after: Annotated[StrictInt, Field(ge=1)] = Field(
        3, description="After so many trainings in a row without a single row of a key, its model is retired."
    )
    resources: Resources | None = Field(None, description="For the tasks that train and score shards.")

    @property
    def columns(self) -> list[str]:
        """The columns that make a key."""
        return [self.key] if isinstance(self.key, str) else list(self.key)

    @model_validator(mode="after")
    def _each_once(self) -> Fleet:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("`key` names a column twice")
        if self.columns == [self.parent]:
            raise ValueError(
                "`parent` is the key itself: each key would be trained twice; name groups of keys, or none"
            )
        return self
