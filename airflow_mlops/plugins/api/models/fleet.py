"""Answers of the fleet page and of the card on the dashboard."""

from __future__ import annotations

from airflow_mlops.plugins.api.models.base import Approval, Attention, CheckMark, Model, RunMark, Tone, Window


class Counts(Model):
    """How many visible pipelines stand on each level: ``{"action": 2, "warning": 3, "unknown": 0, "ok": 40}``."""

    action: int = 0
    warning: int = 0
    unknown: int = 0
    ok: int = 0


class Champion(Model):
    """The version that serves.

    ``{"version": 6, "promoted_at": "2026-11-02T07:00:00+00:00", "by": null,
    "trained_until": "2026-11-01T00:00:00+00:00"}``

    :param by: the person who promoted it or agreed; ``None``: its gates alone.
    :param trained_until: end of the window of the rows that it learned from.
    """

    version: int
    promoted_at: str | None
    by: str | None
    trained_until: str | None


class RolloutMark(Model):
    """A rollout that is under way: ``{"version": 7, "step": "canary 10 %", "path": "shadow → canary 10 % → full"}``."""

    version: int
    step: str
    path: str


class Training(Model):
    """The newest candidate and what its gates said.

    ``{"version": 7, "at": "…", "verdict": "rejected", "tone": "bad",
    "sentence": "rejected: roc_auc 0.61 is below 0.62", "window": {"start": "…", "end": "…"},
    "link": "dags/churn__train/runs/…", "promoted": false}``

    :param verdict: ``passed``, ``rejected``, ``inconclusive``, ``no_baseline``; ``None``: not judged (yet). Of a fleet
        how many keys were promoted, in words.
    :param version: ``None`` of a fleet, whose training makes one for each key.
    """

    version: int | None
    at: str
    verdict: str | None
    tone: Tone
    sentence: str
    window: Window | None
    link: str | None
    promoted: bool


class Point(Model):
    """One measured value: ``{"end": "2026-11-01T00:00:00+00:00", "value": 0.71, "version": 6, "verdict": "ok"}``.

    :param end: of the window whose outcomes were joined.
    """

    end: str
    value: float
    version: int | None
    verdict: str


class Trend(Model):
    """Performance for a sparkline: the last values, oldest first, at most 30.

    ``{"metric": "roc_auc", "lower_is_better": false, "value": 0.70, "baseline": 0.72, "verdict": "ok", "tone": "ok",
    "sentence": "…", "points": [{…}]}``
    """

    metric: str
    lower_is_better: bool
    value: float
    baseline: float | None
    verdict: str
    tone: Tone
    sentence: str
    points: list[Point]


class Suppressed(Model):
    """The newest request for a training, where it was not granted.

    ``{"sentence": "suppressed: cool-down until 2026-12-01", "held": ["cooldown"], "reasons": ["drift"],
    "at": "2026-11-24T00:00:00+00:00", "recorded": "…"}``

    :param at: end of the window that asked; ``recorded``: when, by the clock.
    """

    sentence: str
    held: list[str]
    reasons: list[str]
    at: str
    recorded: str


class Cost(Model):
    """What the steps of this month took (UTC).

    ``{"month": "2026-11", "wall_seconds": 420.0, "cpu_seconds": 610.0, "money": ["0.18 EUR"]}``
    """

    month: str
    wall_seconds: float
    cpu_seconds: float
    money: list[str]


class FleetRow(Model):
    """One pipeline. What the store says is ``None`` or empty while ``read`` is false.

    :param read: whether the store's part has been read; else it is being read, or the store does not answer.
    :param level: as configured, 0 to 2; ``exercised``: by runs of the last 30 days (``None``: not even 0).
    :param models: how many models it has (keys of a fleet); ``champions``: how many of them have a champion.
    :param fleet: whether one training makes a model for each key: the page tells of all of them together.
    :param dags: its DAGs that this user may read, by suffix: ``{"train": "churn__train", …}``.
    :param next_run: when the clock starts ``__train`` next; ``schedule``: that schedule in Airflow's words.
    :param events: which assets' events start it too, in words: ``new data or a granted retrain``.
    :param link: the pipeline's page.
    """

    pipeline: str
    owner: str | None
    level: int | None
    exercised: int | None
    paused: bool
    read: bool
    attention: Attention
    fleet: bool
    models: int
    champions: int
    versions: int
    champion: Champion | None
    challenger: int | None
    rollout: RolloutMark | None
    training: Training | None
    last_training_run: RunMark | None
    last_monitor_run: RunMark | None
    drift: CheckMark | None
    quality: CheckMark | None
    skew: CheckMark | None
    staleness: CheckMark | None
    system: CheckMark | None
    performance: Trend | None
    next_run: str | None
    schedule: str | None
    events: str | None
    approvals: list[Approval]
    suppressed: Suppressed | None
    cost: Cost | None
    dags: dict[str, str]
    link: str


class Fleet(Model):
    """One page of the fleet.

    ``{"total": 45, "offset": 0, "limit": 25, "counts": {"action": 2, "warning": 3, "unknown": 0, "ok": 40},
    "owners": ["ops-ml"], "levels": [0, 1], "pending": 0, "store_problem": null, "rows": [{…}]}``

    :param total: how many match search and filters; ``counts``: of all that this user may see.
    :param pending: how many pipelines are still being read; ask again in some seconds.
    :param store_problem: why the store's part may be missing or old; ``None``: it is up to date.
    """

    total: int
    offset: int
    limit: int
    counts: Counts
    owners: list[str]
    levels: list[int]
    pending: int
    store_problem: str | None
    rows: list[FleetRow]


class AttentionRow(Model):
    """``{"pipeline": "churn", "attention": {…}, "link": "dags/churn__train/plugin/mlops-pipeline"}``."""

    pipeline: str
    attention: Attention
    link: str


class AttentionCard(Model):
    """What needs attention now, the most urgent first; ``unknown`` and ``ok`` ones are only counted.

    ``{"counts": {…}, "rows": [{…}], "pending": 0, "store_problem": null, "link": "plugin/mlops"}``
    """

    counts: Counts
    rows: list[AttentionRow]
    pending: int
    store_problem: str | None
    link: str
