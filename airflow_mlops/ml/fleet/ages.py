"""How old are the models of a fleet that serve? Counted from the window's end, as for one model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow_mlops.ml.fleet.alarms import put_alarms
from airflow_mlops.ml.fleet.served import Served
from airflow_mlops.ml.staleness import model_age, told
from airflow_mlops.registry.checks import read_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window, WindowTime

_NAMED = 5


def fleet_staleness(
    store: Store,
    registry: Registry,
    capture: Mapping[str, Any],
    window: Window,
    *,
    max_age: timedelta | None,
    fresh_within: timedelta | None,
    rehearsal: bool = False,
) -> dict[str, Any]:
    """Ages of the models that served the window, parents too, and of its newest row.

    A key without a row in the window is not looked at: a new model of it would have nothing to do, nor learn from.

    :param max_age: limit of a model's age; ``fresh_within``: of the scored rows'.
    :return: ``{"verdict", "sentence", "ages", "limits", "stale", "keys", "stale_keys", "alarms"}``; ``ages`` in days,
        ``model`` is the oldest one's, ``alarms`` the digest of the keys whose model is too old.
    """
    served = Served(store, capture)
    ages: dict[str, timedelta] = {}
    for key, version in registry.get_many(served.models).items():
        age = model_age(version, window.end)
        if age is not None:
            ages[key] = age
    scored = read_check(store, registry.pipeline, "prediction", window, rehearsal=rehearsal)
    newest = scored["prediction"].get("newest") if scored else None
    row_age = window.end - WindowTime.fromisoformat(newest) if newest else None
    old = {key: age for key, age in ages.items() if max_age is not None and age > max_age}
    late = fresh_within is not None and row_age is not None and row_age > fresh_within
    parts, unknown = [_models(ages, old, served, max_age)], len(served.models) - len(ages)
    if unknown:
        parts.append(f"how old {unknown:,} models are is not known")
    if row_age is not None:
        parts.append(
            f"the newest scored row is {told(row_age)} older than the window's end"
            + (f", longer than {told(fresh_within)}: stale" if late and fresh_within else "")
        )
    return {
        "verdict": "stale" if old or late else "fresh" if ages else "not_enough_data",
        "sentence": "; ".join(parts),
        "ages": {"model": _days(max(ages.values(), default=None)), "data": _days(row_age), "outcomes": None},
        "limits": {
            name: _days(limit) for name, limit in (("model", max_age), ("data", fresh_within)) if limit is not None
        },
        "stale": [name for name, is_stale in (("model", bool(old)), ("data", late)) if is_stale],
        "keys": len(ages),
        "stale_keys": len(old),
        "alarms": put_alarms(store, {key: (served.models[key], ()) for key in sorted(old)}),
    }


def _models(
    ages: Mapping[str, timedelta], old: Mapping[str, timedelta], served: Served, max_age: timedelta | None
) -> str:
    if not ages:
        return "how old the models are is not known: their rows had no window"
    if max_age is None or not old:
        limit = f", limit {told(max_age)}" if max_age is not None else ""
        most = told(max(ages.values()))
        return f"the rows that {len(ages):,} models learned from end at most {most} before the window's end{limit}"
    worst = sorted(old, key=lambda key: (-old[key], key))
    named = ", ".join(f"{key} v{served.models[key]} ({told(old[key])})" for key in worst[:_NAMED])
    more = f" and {len(worst) - _NAMED:,} more" if len(worst) > _NAMED else ""
    return (
        f"the rows that {len(old):,} of {len(ages):,} models learned from end more than {told(max_age)} before the "
        f"window's end: {named}{more}"
    )


def _days(age: timedelta | None) -> float | None:
    return None if age is None else round(age.total_seconds() / 86400, 3)
