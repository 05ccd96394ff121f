"""What every section of a pipeline file has in common."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, field_validator

from airflow_mlops.config.types import PositiveDuration
from airflow_mlops.window import parse_duration


class Model(BaseModel):
    """A section: no unknown keys, not changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Resources(Model):
    """Where and with what Airflow runs the tasks of a step."""

    pool: StrictStr | None = Field(None, description="Airflow pool the tasks take a slot of.")
    queue: StrictStr | None = Field(None, description="Queue of the executor (Celery).")
    executor: StrictStr | None = Field(
        None, description="Which of the executors in [core] executor runs the tasks; default: the first."
    )
    executor_config: dict[str, Any] | None = Field(
        None,
        description="Handed to the executor; `pod_override`, a pod as in Kubernetes' YAML, is laid over the "
        "KubernetesExecutor's own.",
    )
    timeout: PositiveDuration | None = Field(None, description="A task that runs longer fails: 30m, 2h.")
    priority_weight: StrictInt | None = Field(None, description="Airflow's priority weight.")

    @field_validator("executor_config")
    @classmethod
    def _no_legacy(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value and "KubernetesExecutor" in value:
            raise ValueError("the KubernetesExecutor takes no settings of its own any more: write them as pod_override")
        return value


def length(value: str | None) -> timedelta | None:
    """A checked duration as timedelta; ``None`` stays ``None``."""
    return parse_duration(value) if value is not None else None


def midnight(day: date, zone: str) -> datetime:
    """The first moment of ``day`` in the time zone ``zone``."""
    from zoneinfo import ZoneInfo

    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
