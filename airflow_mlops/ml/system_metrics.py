"""Did a run take longer, more memory or more processor time than such runs do?

Each figure is compared with the same figure of earlier runs. An alarm needs both: more than three robust standard
deviations (median absolute deviation × 1.4826) above the median of the earlier runs, and more than ``factor`` times
that median. The first alone alarms at every second on a machine that is never disturbed, the second alone at every
run on one that always is. It takes ``min_runs`` earlier runs to say anything.

Reference: Rousseeuw & Croux (1993), "Alternatives to the median absolute deviation", *JASA* 88, 1273-1283.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from airflow_mlops.config.models import System
from airflow_mlops.ml.cost import amount, price, total
from airflow_mlops.registry.checks import read_checks
from airflow_mlops.registry.fleet_runs import FleetRun, fleet_runs
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window

DEVIATIONS = 3.0
MOST_RUNS = 50
"""Earlier runs that are looked at: the newest ones."""

_ROBUST = 1.4826  # of a normal distribution's standard deviation
_WORDS = {
    "wall_seconds": ("took {} s", "{:.3g}"),
    "cpu_seconds": ("used {} s of processor time", "{:.3g}"),
    "peak_mb": ("needed {} MB of memory", "{:.0f}"),
    "seconds_per_1000_rows": ("took {} s for 1,000 rows", "{:.3g}"),
}

Verdict = Literal["normal", "alarm", "not_enough_data"]


@dataclass(frozen=True)
class Figure:
    """One figure of a run (``run`` is ``prediction`` or ``training``) beside those of earlier runs.

    :param usual: their median; ``spread``: their robust standard deviation; ``runs``: how many there are.
    """

    run: str
    name: str
    value: float
    usual: float
    spread: float
    runs: int
    alarm: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, all numbers finite."""
        return asdict(self)


def check_figures(
    run: str, now: Mapping[str, float], before: Sequence[Mapping[str, float]], config: System
) -> list[Figure]:
    """Compare each figure of ``now`` that at least ``config.min_runs`` of the runs ``before`` have, too.

    :param now: figure → value, where higher is worse; unknown names are passed over.
    :param before: earlier runs, oldest first; the newest 50 count.
    """
    found = []
    for name, (words, digits) in _WORDS.items():
        history = np.array([run_[name] for run_ in before[-MOST_RUNS:] if name in run_], dtype=float)
        if name not in now or len(history) < config.min_runs:
            continue
        value, usual = float(now[name]), float(np.median(history))
        spread = float(_ROBUST * np.median(np.abs(history - usual)))
        alarm = value > usual + DEVIATIONS * spread and value > config.factor * usual
        times = f", {value / usual:.1f} times the usual {digits.format(usual)}" if usual > 0 else ""
        sentence = f"{run} {words.format(digits.format(value))}{times}"
        found.append(Figure(run, name, value, usual, spread, len(history), alarm, sentence))
    return found


def system(
    store: Store, registry: Registry, window: Window, config: System, *, rehearsal: bool = False
) -> dict[str, Any]:
    """Compare the window's prediction with those of earlier windows, and the newest training with earlier ones.

    Verdict ``alarm`` where a figure is out of the ordinary, ``normal``, or ``not_enough_data`` where no kind of run
    has ``config.min_runs`` earlier ones.

    :returns: ``{"verdict", "sentence", "figures": […], "cost": what the window's prediction cost, or None}``.
    """
    scored = [
        (Window.from_dict(one["window"]), one["prediction"])
        for one in read_checks(store, registry.pipeline, rehearsal=rehearsal)
        if one.get("prediction", {}).get("cost")
    ]
    now = next((of_prediction(found) for at, found in scored if at == window), {})
    before = [of_prediction(found) for at, found in scored if at.end < window.end]
    figures = check_figures("prediction", now, before, config)
    trainings = [of_training(version.notes["cost"]) for version in registry.versions() if version.notes.get("cost")]
    trainings += of_fleet(fleet_runs(store, registry.pipeline))
    if trainings:
        figures += check_figures("training", trainings[-1], trainings[:-1], config)
    alarms = [figure for figure in figures if figure.alarm]
    cost = next((found["cost"] for at, found in scored if at == window), None)
    money = f"; it cost {amount(price(cost), str(cost.get('currency') or ''))}" if cost and price(cost) else ""
    if not figures:
        runs = f"{len(before)} earlier predictions and {max(len(trainings) - 1, 0)} earlier trainings"
        verdict, sentence = "not_enough_data", f"not enough data: {runs} are on record, {config.min_runs} are needed"
    elif alarms:
        verdict, sentence = "alarm", "out of the ordinary: " + "; ".join(figure.sentence for figure in alarms)
    else:
        verdict, sentence = "normal", "nothing out of the ordinary: " + "; ".join(f.sentence for f in figures[:2])
    return {
        "verdict": verdict,
        "sentence": sentence + money,
        "figures": [figure.to_dict() for figure in figures],
        "cost": cost,
    }


def of_prediction(result: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a stored ``prediction`` result."""
    cost = {name: float(result["cost"][name]) for name in ("wall_seconds", "cpu_seconds", "peak_mb")}
    rows = result.get("rows") or 0
    return cost | ({"seconds_per_1000_rows": 1000 * cost["wall_seconds"] / rows} if rows else {})


def of_fleet(runs: Sequence[FleetRun]) -> list[dict[str, float]]:
    """The figures of a fleet's trainings of all keys, oldest first; one of a few keys is no measure of them."""
    return [
        {name: float(run.cost[name]) for name in ("wall_seconds", "cpu_seconds", "peak_mb")}
        for run in runs
        if run.cost and not run.rehearsal and run.whole
    ]


def of_training(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of a training from the ``cost`` notes of its version: all its tasks together."""
    summed = total(costs)
    return {name: float(summed[name]) for name in ("wall_seconds", "cpu_seconds", "peak_mb")}
