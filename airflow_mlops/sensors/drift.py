"""Waits for the verdict of a drift check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.sensors.base import MLOpsSensor, given

if TYPE_CHECKING:
    from airflow_mlops.triggers.registry import CheckTrigger

DRIFT_VERDICTS = ("drift", "no_drift", "not_enough_data")


class DriftVerdictSensor(MLOpsSensor):
    """Waits until the drift check of a window has one of ``verdicts``.

    XCom: ``{"pipeline", "check", "window": {"start", "end"}, "verdict", "sentence", "version"}``.
    While the check has another verdict the sensor goes on waiting: a check may be run again.

    :param pipeline: the pipeline's name.
    :param window: ``{"start": …, "end": …}`` in ISO 8601; ``None``: the newest window that was checked.
    :param verdicts: some of ``drift``, ``no_drift``, ``not_enough_data``; default: any of them.
    """

    template_fields: Sequence[str] = ("pipeline", "window")

    def __init__(
        self,
        *,
        pipeline: str,
        window: dict[str, str] | None = None,
        verdicts: Sequence[str] = DRIFT_VERDICTS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        unknown = [verdict for verdict in verdicts if verdict not in DRIFT_VERDICTS]
        if unknown or isinstance(verdicts, str) or not verdicts:
            raise ConfigError(
                f"{self.task_id}: verdicts={verdicts!r} is not a list of drift verdicts",
                hint=f"use some of {', '.join(DRIFT_VERDICTS)}",
            )
        self.pipeline = pipeline
        self.window = window
        self.verdicts = list(verdicts)

    def trigger(self) -> CheckTrigger:
        """Return the trigger that reads the check's result."""
        from airflow_mlops.triggers.registry import CheckTrigger

        window = given(self.window)
        if window is not None and not (isinstance(window, dict) and {"start", "end"} <= set(window)):
            raise ConfigError(
                f"window is {window!r}", hint="give {'start': …, 'end': …} in ISO 8601, or leave it out for the newest"
            )
        return CheckTrigger(self.pipeline, window, "drift", self.verdicts, **self.trigger_arguments)
