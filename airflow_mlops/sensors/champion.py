"""Waits for a new champion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.sensors.base import MLOpsSensor, given

if TYPE_CHECKING:
    from airflow_mlops.triggers.registry import ChampionTrigger


class NewChampionSensor(MLOpsSensor):
    """Waits until the pipeline's champion is another version than ``after_version``.

    XCom: ``{"pipeline", "version": number, "promoted_at"}``. A rollback to an older version is a new
    champion too.

    :param pipeline: the pipeline's name.
    :param after_version: the version already known (a number, also as templated text); ``None``: any champion.
    """

    template_fields: Sequence[str] = ("pipeline", "after_version")

    def __init__(self, *, pipeline: str, after_version: int | str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.after_version = after_version

    def trigger(self) -> ChampionTrigger:
        """Return the trigger that asks the registry."""
        from airflow_mlops.triggers.registry import ChampionTrigger

        known = given(self.after_version)
        try:
            number = int(known) if known is not None else None
        except ValueError as e:
            raise ConfigError(
                f"after_version is {known!r}, which is not a version number", hint="write a number, or leave it out"
            ) from e
        return ChampionTrigger(self.pipeline, number, **self.trigger_arguments)
