"""Versions, and two of them side by side."""

from __future__ import annotations

from airflow_mlops.plugins.api.models.base import GateLine, Json, Model, Score, Tone, Window


class VersionRow(Model):
    """One version.

    ``{"version": 7, "status": "candidate", "registered_at": "…", "promoted_at": null, "metrics": {"roc_auc": 0.73},
    "verdict": "passed", "tone": "ok", "sentence": "…", "window": {…}, "rows": 77911, "tags": {"stage": "b"},
    "link": "dags/…/runs/…"}``

    :param status: ``candidate``, ``challenger``, ``champion`` or ``retired``.
    """

    version: int
    status: str
    registered_at: str
    promoted_at: str | None
    metrics: dict[str, float]
    verdict: str | None
    tone: Tone
    sentence: str
    window: Window | None
    rows: int | None
    tags: dict[str, Json]
    link: str | None


class Versions(Model):
    """Every version of one model, the newest first: ``{"key": null, "versions": [{…}]}``."""

    key: str | None
    versions: list[VersionRow]


class MetricPair(Model):
    """One metric of both sides.

    ``{"name": "roc_auc", "lower_is_better": false, "a": {…}, "b": {…}, "same_rows": true}``

    :param same_rows: both were measured on the same holdout rows; else the numbers are only roughly comparable.
    """

    name: str
    lower_is_better: bool
    a: Score | None
    b: Score | None
    same_rows: bool


class SlicePair(Model):
    """One part of the holdout: ``{"gate": "roc_auc at_least 0.55 by carrier", "column": "carrier", "value_of": "AA",
    "a": {…}, "a_rows": 812, "a_verdict": "passed", "b": null, "b_rows": null, "b_verdict": null}``.
    """

    gate: str
    column: str
    value_of: str
    a: Score | None
    a_rows: int | None
    a_verdict: str | None
    b: Score | None
    b_rows: int | None
    b_verdict: str | None


class FactPair(Model):
    """A line of the table of sizes and differences, both as text: ``{"group": "size", "name": "model file",
    "a": "0.50 MB", "b": "0.48 MB", "differs": true}``.

    :param group: ``size``, ``data``, ``config``, ``params``, ``features``, ``code``, ``environment``.
    """

    group: str
    name: str
    a: str | None
    b: str | None
    differs: bool


class Side(Model):
    """One version of a comparison: ``{"version": 7, "status": "candidate", "registered_at": "…", "verdict": "passed",
    "sentence": "…", "gates": [{…}], "against": 6}``; ``against``: the champion that its gates compared it with.
    """

    version: int
    status: str
    registered_at: str
    verdict: str | None
    sentence: str
    gates: list[GateLine]
    against: int | None


class Comparison(Model):
    """Two versions side by side; ``note`` says how far the numbers can be compared."""

    a: Side
    b: Side
    note: str
    metrics: list[MetricPair]
    slices: list[SlicePair]
    facts: list[FactPair]
