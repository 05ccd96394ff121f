"""Metrics of machine learning through Airflow's own metrics: StatsD, DogStatsD or OpenTelemetry, as ``[metrics]`` says.

Airflow tags its metrics where the backend knows tags, and else puts what would be a tag into the name. So
does this: plain StatsD gets ``mlops.gate.verdict.churn.passed``, the others ``mlops.gate.verdict`` with the
tags ``pipeline=churn`` and ``verdict=passed``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from airflow.sdk import conf

log = logging.getLogger(__name__)

MOST_COLUMNS = 50


@dataclass(frozen=True)
class Metric:
    """One metric; ``tags`` in their order, which is that of a plain StatsD name."""

    name: str
    kind: Literal["counter", "gauge"]
    tags: tuple[str, ...]
    meaning: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("mlops.gate.verdict", "counter", ("pipeline", "verdict"), "candidates judged, by the gates' verdict"),
        Metric("mlops.check.verdict", "counter", ("pipeline", "check", "verdict"), "monitoring checks, by verdict"),
        Metric(
            "mlops.drift.effect",
            "gauge",
            ("pipeline", "column", "statistic"),
            f"size of the change in a column, in the statistic's unit; of the {MOST_COLUMNS} columns that moved most",
        ),
        Metric(
            "mlops.performance.value", "gauge", ("pipeline", "metric"), "the champion's score on outcomes that arrived"
        ),
        Metric(
            "mlops.champion.age_days",
            "gauge",
            ("pipeline",),
            "days from the end of the champion's training data to the end of the window that it scored",
        ),
        Metric(
            "mlops.retrain.granted", "counter", ("pipeline", "reason"), "requests granted, by each of their reasons"
        ),
        Metric(
            "mlops.retrain.suppressed",
            "counter",
            ("pipeline", "held"),
            "requests and claims held back, by each thing that held: `confirm`, `cooldown`, `budget`, `waiting`",
        ),
        Metric(
            "mlops.training.started", "counter", ("pipeline", "start"), "trainings that began, by what started them"
        ),
    )
}


def emit(name: str, value: float, tags: Mapping[str, str]) -> None:
    """Count ``value`` or set a gauge to it; what goes wrong is logged, as what it reports has happened anyway.

    :param name: one of ``METRICS``.
    :param tags: a value for each of the metric's tags.
    """
    from airflow.sdk.observability import stats

    metric = METRICS[name]
    values = {tag: stats.normalize_name_for_stats(_ascii(tags[tag]), log_warning=False) for tag in metric.tags}
    if not math.isfinite(value):
        log.warning("metric %s of %s is %s and is not sent", name, values, value)
        return
    try:
        if _names_carry_tags():
            name = ".".join((name, *(text.replace(".", "__") for text in values.values())))
        if metric.kind == "counter":
            stats.incr(name, int(value), tags=values)
        else:
            stats.gauge(name, value, tags=values)
    except Exception as error:  # noqa: BLE001  a backend and a handler of names are foreign code
        log.warning("metric %s was not sent: %s: %s", name, type(error).__name__, error)


def _ascii(text: str) -> str:
    return text.replace("∞", "inf")


def _names_carry_tags() -> bool:
    """Whether metrics go to a StatsD that knows no tags."""
    on = {
        key: conf.getboolean("metrics", key, fallback=False)
        for key in ("statsd_on", "statsd_datadog_enabled", "statsd_influxdb_enabled")
    }
    return on["statsd_on"] and not on["statsd_datadog_enabled"] and not on["statsd_influxdb_enabled"]


def of_check(name: str, result: Mapping[str, Any]) -> Iterator[tuple[str, float, dict[str, str]]]:
    """The metrics that the result of a monitoring check gives: name, value, tags without the pipeline."""
    yield "mlops.check.verdict", 1, {"check": name, "verdict": str(result["verdict"])}
    if name == "drift":
        moved = sorted(
            (one for one in result.get("columns") or () if one.get("statistic", "none") != "none"),
            key=lambda one: -abs(one["effect"]),
        )
        for one in moved[:MOST_COLUMNS]:
            yield "mlops.drift.effect", one["effect"], {"column": one["name"], "statistic": one["statistic"]}
    if name == "performance" and result.get("value") is not None:
        yield "mlops.performance.value", result["value"], {"metric": str(result["metric"])}
