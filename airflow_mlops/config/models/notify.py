"""``notify``: who is told about what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictStr

from airflow_mlops.config.models.base import Model
from airflow_mlops.config.types import DottedPath, message_templates


class Notifier(Model):
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
    "experiment",
    "suppressed",
    "budget",
    "stale_data",
    "staleness",
    "system",
]


def _default_events() -> list[Event]:
    return ["failed", "rejected"]


class Notify(Model):
    """Who is told about what."""

    events: list[Event] = Field(default_factory=_default_events, description="What to tell.")
    notifiers: list[Notifier] = Field(default_factory=list, description="Whom to tell.")
