"""What the file says of any job on Amazon SageMaker."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictStr, field_validator

from airflow_mlops.config.models.base import Model
from airflow_mlops.config.types import Number, PositiveDuration
from airflow_mlops.window import parse_duration

Image = Annotated[StrictStr, Field(min_length=1, max_length=255)]

_LONGEST = timedelta(days=28)
"""SageMaker's own limit for a training job; what a job reads is kept in the store for longer."""


class SageMakerJob(Model):
    """A job on Amazon SageMaker, in a container of one's own."""

    SET_HERE: ClassVar[tuple[str, ...]] = ()
    """Fields of the request that follow from the rest of the file."""

    image: Image = Field(description="Address of the container's image.")
    role: Annotated[StrictStr, Field(min_length=1)] = Field(
        description="IAM role of the job, its name or ARN: reads and writes below the store."
    )
    instance_type: Annotated[StrictStr, Field(pattern=r"^ml\.[a-z0-9-]+\.[a-z0-9]+$")] = Field(
        "ml.m5.large", description="What it runs on."
    )
    max_runtime: PositiveDuration = Field("1d", description="A job that takes longer is stopped; at most 28d.")
    conn_id: StrictStr | None = Field(None, description="AWS connection; default: the store's.")
    price_per_hour: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="What an hour of an instance costs, in [mlops] currency: for the cost of a version."
    )
    request: dict[StrictStr, Any] = Field(default_factory=dict, description="Further fields of the request.")

    @field_validator("max_runtime")
    @classmethod
    def _within_limits(cls, value: str) -> str:
        if parse_duration(value) > _LONGEST:
            raise ValueError("a job on SageMaker may take 28d at most")
        return value

    @field_validator("request")
    @classmethod
    def _not_set_here(cls, value: dict[str, Any]) -> dict[str, Any]:
        return not_set_here(value, cls.SET_HERE)


def not_set_here(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Refuse fields of a request that follow from the rest of the file.

    :raises ValueError: one of ``names`` is there.
    """
    if taken := [name for name in value if name in names]:
        raise ValueError(f"{taken[0]} follows from the other keys and is not set here")
    return value
