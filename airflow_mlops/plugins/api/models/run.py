"""The run page."""

from __future__ import annotations

from airflow_mlops.plugins.api.models.base import Approval, CheckMark, Event, GateLine, Model, ReportLink, Tone, Window


class Fact(Model):
    """A line of a table: ``{"name": "rows", "value": "77,911"}``."""

    name: str
    value: str


class Section(Model):
    """A titled table of the run page: ``{"title": "Data", "facts": [{…}]}``."""

    title: str
    facts: list[Fact]


class Run(Model):
    """What one run decided, on which data, against whom, and what would change it.

    ``{"dag_id": "churn__train", "run_id": "…", "pipeline": "churn", "kind": "train", "state": "success",
    "started_at": "…", "ended_at": "…", "window": {…}, "fleet": false, "replay": false, "rehearsal": false,
    "start": "schedule", "title": "v7 was not promoted", "tone": "bad", "sentence": "rejected: …", "version": 7,
    "against": 6,
    "gates": [{…}], "changes": ["roc_auc needs about 41,000 holdout rows to be decided"], "checks": [{…}],
    "events": [{…}], "sections": [{…}], "reports": [{…}], "approvals": [{…}], "link": "dags/…/runs/…"}``

    :param kind: ``train``, ``predict``, ``monitor``, ``registry`` or ``experiment``.
    :param fleet: whether it trained a fleet: ``pipelines/{pipeline}/keys?run_id=`` has what became of each key.
    :param changes: what would change the verdict.
    :param checks: of a monitoring run, in their order.
    :param events: what the run wrote into registry and ledger, oldest first.
    """

    dag_id: str
    run_id: str
    pipeline: str
    kind: str
    state: str
    started_at: str | None
    ended_at: str | None
    window: Window | None
    fleet: bool
    replay: bool
    rehearsal: bool
    start: str | None
    title: str
    tone: Tone
    sentence: str
    version: int | None
    against: int | None
    gates: list[GateLine]
    changes: list[str]
    checks: list[CheckMark]
    events: list[Event]
    sections: list[Section]
    reports: list[ReportLink]
    approvals: list[Approval]
    link: str
