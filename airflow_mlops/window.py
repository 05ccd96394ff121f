"""The half-open time window ``[start, end)`` that a run works on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from airflow_mlops.exceptions import WindowError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_duration(text: str) -> timedelta:
    """Parse ``90d``, ``26h``, ``5m``, ``1w`` or a sum like ``1d 12h``; raises ValueError."""
    pieces = _DURATION.findall(text)
    if not pieces or _DURATION.sub("", text).strip():
        raise ValueError(f"{text!r} is not a duration; write a number and s, m, h, d or w, like 90d or 26h")
    return timedelta(seconds=sum(float(n) * _UNITS[u] for n, u in pieces))


class WindowTime(datetime):
    """A point in time that prints short: ``2013-01-01`` at midnight, else ISO 8601 without offset."""

    def __str__(self) -> str:
        if (self.hour, self.minute, self.second, self.microsecond) == (0, 0, 0, 0):
            return self.strftime("%Y-%m-%d")
        return self.strftime("%Y-%m-%dT%H:%M:%S")


def _window_time(value: datetime | str) -> WindowTime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as e:
            raise WindowError(
                f"{value!r} is not a date or time", hint="write it as 2013-01-31 or 2013-01-31T06:00:00+00:00"
            ) from e
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return WindowTime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.tzinfo
    )


@dataclass(frozen=True)
class Window:
    """Half-open window; ``start`` and ``end`` are aware datetimes.

    :raises WindowError: unless ``start < end``.
    """

    start: WindowTime
    end: WindowTime

    def __post_init__(self) -> None:
        if not self.start < self.end:
            raise WindowError(
                f"the window {self.start.isoformat()} … {self.end.isoformat()} is empty",
                hint="the start must lie before the end; the end itself is not part of the window",
            )

    @classmethod
    def of(cls, start: datetime | str, end: datetime | str) -> Window:
        """Build from datetimes or ISO 8601 strings; naive times are taken as UTC."""
        return cls(_window_time(start), _window_time(end))

    @classmethod
    def from_dict(cls, value: dict[str, str]) -> Window:
        """Inverse of :meth:`to_dict`."""
        return cls.of(value["start"], value["end"])

    def to_dict(self) -> dict[str, str]:
        """``{"start": ISO 8601, "end": ISO 8601}``, fit for JSON and XCom."""
        return {"start": self.start.isoformat(), "end": self.end.isoformat()}

    @property
    def key(self) -> str:
        """Sorts by time and is usable in a store key: ``20130101T000000Z-20130201T000000Z``."""
        first, last = (t.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ") for t in (self.start, self.end))
        return f"{first}-{last}"

    def reaching_back(self, length: timedelta) -> Window:
        """The window of ``length`` that ends where this one ends."""
        return Window.of(self.end - length, self.end)

    def __str__(self) -> str:
        return f"{self.start} … {self.end}"
