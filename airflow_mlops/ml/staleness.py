"""How old are the model, its reference, the data and the last known outcomes?

Every age is counted from the end of the run's window, never by the wall clock, so that a replay of the past behaves
like the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from airflow_mlops.registry.checks import read_check, read_checks
from airflow_mlops.registry.registry import Version
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window, WindowTime

Verdict = Literal["fresh", "stale", "not_enough_data"]

_WORDS = {
    "model": "the rows that v{version} learned from, the reference of drift, end {age} before the window's end",
    "data": "the newest scored row is {age} older than the window's end",
    "outcomes": "the newest window whose outcomes are known ended {age} before",
}


@dataclass(frozen=True)
class StalenessReport:
    """Ages in days, ``None`` where not known, and the verdict against their limits.

    :param ages: ``model`` (the end of the rows it learned from; they are the reference of drift, too), ``data`` (the
        newest scored row), ``outcomes`` (the newest window whose performance is known; told, never judged).
    :param limits: in days, for those that have one.
    """

    verdict: Verdict
    sentence: str
    ages: dict[str, float | None]
    limits: dict[str, float]
    stale: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self) | {"stale": [*self.stale]}


def model_age(version: Version, end: datetime) -> timedelta | None:
    """From the end of the rows that a version learned from to ``end``; ``None`` where they had no window."""
    window = (version.record.get("snapshot") or {}).get("window")
    return end - Window.from_dict(window).end if window else None


def check_staleness(
    version: int, ages: Mapping[str, timedelta | None], limits: Mapping[str, timedelta | None]
) -> StalenessReport:
    """Judge ``ages`` by ``limits``; an age without a limit is only told.

    Verdict ``stale`` where one is over its limit, else ``not_enough_data`` where one with a limit is not known, else
    ``fresh``.
    """
    bounds = {name: limit for name, limit in limits.items() if limit is not None}
    known = {name: age for name, age in ages.items() if age is not None}
    stale = tuple(name for name, limit in bounds.items() if name in known and known[name] > limit)
    unknown = [name for name in bounds if name not in known]
    parts = [
        _WORDS[name].format(version=version, age=told(age)) + _judged(name in stale, bounds.get(name))
        for name, age in known.items()
    ]
    parts += [f"how old the {name} is, is not known" for name in unknown]
    verdict: Verdict = "stale" if stale else "not_enough_data" if unknown else "fresh"
    return StalenessReport(
        verdict,
        "; ".join(parts) or "nothing is known of any age",
        {name: None if age is None else _days(age) for name, age in ages.items()},
        {name: _days(limit) for name, limit in bounds.items()},
        stale,
    )


def staleness(
    store: Store,
    version: Version,
    window: Window,
    *,
    max_age: timedelta | None,
    fresh_within: timedelta | None,
    rehearsal: bool = False,
) -> dict[str, Any]:
    """The ages at the end of ``window``, from the version's record and the results stored for this and earlier windows.

    :param max_age: limit of the model's age; ``fresh_within``: of the scored rows'.
    :returns: ``{"verdict", "sentence", "ages", "limits", "stale", "version"}``.
    """
    scored = read_check(store, version.pipeline, "prediction", window, rehearsal=rehearsal)
    newest = scored["prediction"].get("newest") if scored else None
    known = [
        Window.from_dict(found["performance"]["window"]).end
        for found in read_checks(store, version.pipeline, rehearsal=rehearsal)
        if found.get("performance", {}).get("value") is not None and Window.from_dict(found["window"]).end <= window.end
    ]
    ages = {
        "model": model_age(version, window.end),
        "data": window.end - WindowTime.fromisoformat(newest) if newest else None,
        "outcomes": window.end - max(known) if known else None,
    }
    report = check_staleness(version.number, ages, {"model": max_age, "data": fresh_within})
    return {**report.to_dict(), "version": version.number}


def told(age: timedelta) -> str:
    """``12 days``, hours below two days, minutes below two hours."""
    hours = age.total_seconds() / 3600
    if abs(hours) < 2:
        minutes = round(hours * 60)
        return "less than a minute" if not minutes else f"{minutes} minute{'s' * (minutes != 1)}"
    return f"{hours / 24:.0f} days" if hours >= 48 else f"{hours:.0f} hours"


def _judged(stale: bool, limit: timedelta | None) -> str:
    if limit is None:
        return ""
    return f", longer than {told(limit)}: stale" if stale else f", limit {told(limit)}"


def _days(age: timedelta) -> float:
    return round(age.total_seconds() / 86400, 3)
