"""Waits for the verdict of a drift check."""

from __future__ import annotations

from typing import Any

from airflow_mlops.sensors.check import CheckSensor


class DriftVerdictSensor(CheckSensor):
    """A :class:`~airflow_mlops.sensors.check.CheckSensor` of the check ``drift``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(check="drift", **kwargs)
