"""Waits for the verdict of a monitoring check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.sensors.base import MLOpsSensor, given

if TYPE_CHECKING:
    from airflow_mlops.triggers.registry import CheckTrigger

VERDICTS: dict[str, tuple[str, ...]] = {
    "quality": ("passed", "failed"),
    "drift": ("drift", "no_drift", "not_enough_data"),
    "skew": ("skew", "no_skew", "not_enough_data"),
    "performance": ("ok", "drop", "pending_labels", "not_enough_data"),
    "staleness": ("fresh", "stale", "not_enough_data"),
    "system": ("normal", "alarm", "not_enough_data"),
}
"""Check → what it can say."""


class CheckSensor(MLOpsSensor):
    """Waits until a check of a window has one of ``verdicts``.

    XCom: ``{"pipeline", "check", "window": {"start", "end"}, "verdict", "sentence", "version"}``.
    While the check has another verdict the sensor goes on waiting: a check may be run again.

    :param pipeline: the pipeline's name.
    :param check: ``quality``, ``drift``, ``skew``, ``performance``, ``staleness`` or ``system``.
    :param window: ``{"start": …, "end": …}`` in ISO 8601; ``None``: the newest window that was checked.
    :param verdicts: some of those that the check can come to; default: any of them.
    """

    template_fields: Sequence[str] = ("pipeline", "window")

    def __init__(
        self,
        *,
        pipeline: str,
        check: str,
        window: dict[str, str] | None = None,
        verdicts: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if check not in VERDICTS:
            raise ConfigError(f"{self.task_id}: there is no check {check!r}", hint=f"use one of {', '.join(VERDICTS)}")
        known = VERDICTS[check]
        verdicts = known if verdicts is None else verdicts
        unknown = [verdict for verdict in verdicts if verdict not in known]
        if unknown or isinstance(verdicts, str) or not verdicts:
            raise ConfigError(
                f"{self.task_id}: verdicts={verdicts!r} is not a list of verdicts of the check {check}",
                hint=f"use some of {', '.join(known)}",
            )
        self.pipeline = pipeline
        self.check = check
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
        return CheckTrigger(self.pipeline, window, self.check, self.verdicts, **self.trigger_arguments)
