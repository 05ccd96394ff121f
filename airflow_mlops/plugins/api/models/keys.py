"""The models of a fleet, and what its trainings came to."""

from __future__ import annotations

from airflow_mlops.plugins.api.models.base import Model, Tone, Window


class KeyRow(Model):
    """One key.

    ``{"key": "r00007", "state": "promoted", "tone": "ok", "reason": "passed: all 2 gates", "version": 2, "champion": 1,
    "serving": 2, "versions": 2, "served_by": null, "train_rows": 160, "holdout_rows": 40, "p_value": 0.01,
    "metrics": {"r2": 0.81}, "champion_metrics": {"r2": 0.8}, "alarms": "drift: hour",
    "decided_in": null}``

    :param state: what the training came to for it: ``promoted``, ``passed``, ``no_baseline``, ``inconclusive``,
        ``rejected``, ``failed``, ``fallback``, ``retired`` or ``not_due``.
    :param version: what the training made; ``champion``: what that was compared with.
    :param serving: the champion now, and ``versions`` how many there are; ``None`` where the page is about one run.
    :param alarms: what the newest checks alarm about of the version that serves, in words.
    :param served_by: the key of the model that serves it, where it has none of its own.
    :param decided_in: the run that decided about it, where that is an earlier one than the training that is told of.
    """

    key: str
    state: str
    tone: Tone
    reason: str
    decided_in: str | None
    alarms: str | None
    version: int | None
    champion: int | None
    serving: int | None
    versions: int | None
    served_by: str | None
    train_rows: int | None
    holdout_rows: int | None
    p_value: float | None
    metrics: dict[str, float]
    champion_metrics: dict[str, float]


class SpreadMark(Model):
    """How a metric is spread over keys: ``{"metric": "r2", "keys": 15993, "low": 0.7, "middle": 0.8, "high": 0.85,
    "edges": [0.1, …], "tally": [3, …]}``; ``edges`` are one more than ``tally``, half of the keys lie between ``low``
    and ``high``.
    """

    metric: str
    keys: int
    low: float
    middle: float
    high: float
    edges: list[float]
    tally: list[int]


class StateMark(Model):
    """How many keys came to the same: ``{"state": "promoted", "words": "promoted", "tone": "ok", "keys": 15982}``."""

    state: str
    words: str
    tone: Tone
    keys: int


class TrainingMark(Model):
    """One training of a fleet.

    ``{"run_id": "scheduled__…", "at": "…", "sentence": "15,982 promoted, 11 rejected, 7 failed", "tests": 15000,
    "limit": 0.031, "window": {…}, "link": "dags/…/runs/…", "report": "mlops/reports/…"}``

    :param tests: how many keys were compared with their champion; ``limit``: the largest p-value that passed.
    """

    run_id: str
    at: str
    sentence: str
    tests: int
    limit: float | None
    window: Window | None
    link: str | None
    report: str | None


class Keys(Model):
    """One page of a fleet's keys.

    :param training: the one that is told: the newest, or the one asked for; ``None`` before the first has ended.
    :param states: of all keys, what they came to; ``alarmed``: how many have an alarm; ``total``: how many
        match search and filter.
    """

    training: TrainingMark | None
    states: list[StateMark]
    alarmed: int
    metrics: list[str]
    spreads: list[SpreadMark]
    total: int
    offset: int
    limit: int
    rows: list[KeyRow]
