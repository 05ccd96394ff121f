"""Performance and drift over time, and how a column was spread."""

from __future__ import annotations

from airflow_mlops.plugins.api.models.base import Model, Score, Tone, Window


class PerformancePoint(Model):
    """``{"window": {…}, "value": 0.70, "low": 0.68, "high": 0.72, "baseline": 0.72, "rows": 27075, "version": 6,
    "verdict": "ok", "tone": "ok", "sentence": "…"}``; ``value`` is ``None`` while outcomes are pending.

    :param estimate: without outcomes, from the model's own probabilities: blind to concept drift.
    """

    window: Window
    value: float | None
    low: float | None
    high: float | None
    baseline: float | None
    rows: int | None
    version: int | None
    verdict: str
    tone: Tone
    sentence: str
    estimate: Score | None


class ChampionMark(Model):
    """A line in the chart: ``{"at": "2026-11-01T00:00:00+00:00", "recorded": "…", "version": 6, "what": "promoted",
    "by": null, "reason": "…"}``.

    :param at: on the axis of data: end of the window that the decision was about, else when it was made.
    :param what: ``promoted`` or ``rolled back``.
    """

    at: str
    recorded: str
    version: int
    what: str
    by: str | None
    reason: str


class Performance(Model):
    """Performance over time: points by window, oldest first, at most 400, and when the champion changed.

    :param metric: ``None`` where nothing was measured yet.
    """

    metric: str | None
    lower_is_better: bool
    points: list[PerformancePoint]
    marks: list[ChampionMark]


class DriftWindow(Model):
    """A column of the heat map: ``{"key": "20260601T000000Z-20260701T000000Z", "window": {…}, "verdict": "drift",
    "tone": "warning", "sentence": "…", "version": 6, "rows": 28243, "report": "mlops/reports/…"}``.

    :param key: names the window for ``distribution``.
    """

    key: str
    window: Window
    verdict: str
    tone: Tone
    sentence: str
    version: int | None
    rows: int | None
    report: str | None


class DriftCell(Model):
    """``{"effect": 0.35, "threshold": 0.1, "p_value": 1e-16, "drifted": true, "statistic": "W1", "sentence": "…"}``.

    :param threshold: from which effect on a change is large enough to be an alarm, in the effect's unit; ``None`` where
        nothing was compared, and of checks that were made before it was kept.
    """

    effect: float
    threshold: float | None
    p_value: float | None
    drifted: bool
    statistic: str
    sentence: str


class DriftColumn(Model):
    """A line of the heat map: one column of the data; ``cells`` stand in the order of the windows, some are ``None``.

    :param prediction: it is an output of the model, not an input.
    """

    name: str
    kind: str
    prediction: bool
    cells: list[DriftCell | None]


class Drift(Model):
    """Drift per column and window, windows oldest first; columns that drifted most often come first.

    :param fleet: an effect is the share of the keys in which the column drifted; there is no distribution to show.
    """

    fleet: bool
    windows: list[DriftWindow]
    columns: list[DriftColumn]


class Bin(Model):
    """A bar of each side: ``{"label": "0 to 10", "low": 0.0, "high": 10.0, "reference": 0.2, "current": 0.3}``.

    :param low: lower end of a bin of numbers; ``None`` for a category.
    :param reference: share of the rows that have a value, 0 to 1.
    """

    label: str
    low: float | None
    high: float | None
    reference: float
    current: float


class Distribution(Model):
    """How one column was spread in training and in one window.

    ``{"column": "humidity", "kind": "number", "window": {…}, "version": 6, "reference_rows": 77911,
    "current_rows": 28243, "reference_missing": 0.001, "current_missing": 0.0, "bins": [{…}], "note": "…"}``
    """

    column: str
    kind: str
    window: Window
    version: int
    reference_rows: int
    current_rows: int
    reference_missing: float
    current_missing: float
    bins: list[Bin]
    note: str
