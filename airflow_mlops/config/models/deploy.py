"""``deploy``: how a champion is used."""

from __future__ import annotations

from pydantic import Field, StrictStr

from airflow_mlops.config.models.base import Model, Resources
from airflow_mlops.config.types import Cron, Template


class Batch(Model):
    """Batch inference with the champion."""

    source: Template | None = Field(None, description="Rows to score; default: data.source.")
    output: StrictStr | None = Field(
        None, description="Folder or URI for the predictions; default: predictions/ in the data root."
    )
    schedule: Cron | None = Field(None, description="When to score (level 1).")
    resources: Resources | None = Field(None, description="For the prediction task.")


class Deploy(Model):
    """How a promoted model is used."""

    batch: Batch = Field(default_factory=Batch, description="Batch inference.")
