"""What several pages show."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

FLEET_ROUTE = "mlops"
"""``url_route`` of the fleet page: ``plugin/mlops``."""
PIPELINE_ROUTE = "mlops-pipeline"
"""``url_route`` of the pipeline page, a tab of each DAG: ``dags/<dag id>/plugin/mlops-pipeline``."""
RUN_ROUTE = "mlops-run"
"""``url_route`` of the run page, a tab of each run: ``dags/<dag id>/runs/<run id>/plugin/mlops-run``."""
CARD_ROUTE = "mlops-attention"
"""``url_route`` of the card on the dashboard."""

AttentionLevel = Literal["action", "warning", "unknown", "ok"]
"""The most urgent first; ``unknown``: the store's part was never read, so nobody can tell."""
Tone = Literal["ok", "warning", "bad", "info", "unknown"]
"""How a verdict is coloured; the text beside it always says the same in words."""
Json = str | int | float | bool | None


class Model(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Window(Model):
    """The half-open window of data: ``{"start": "2026-11-01T00:00:00+00:00", "end": "2026-12-01T00:00:00+00:00"}``."""

    start: str
    end: str


class Attention(Model):
    """What a pipeline needs now.

    ``{"level": "action", "code": "approval", "reason": "v7 waits for a yes since 2026-11-27 04:10",
    "link": "dags/churn__train/runs/manual__1/tasks/approve.ask/required_actions"}``

    :param code: which rule decided (:data:`airflow_mlops.plugins.api.attention.RULES`), for filters and icons.
    """

    level: AttentionLevel
    code: str
    reason: str
    link: str


class RunMark(Model):
    """One run of Airflow.

    ``{"dag_id": "churn__train", "run_id": "manual__1", "state": "success", "started_at": "…", "ended_at": "…",
    "link": "dags/churn__train/runs/manual__1"}``
    """

    dag_id: str
    run_id: str
    state: str
    started_at: str | None
    ended_at: str | None
    link: str


class Approval(Model):
    """A question that waits for a person; answered by ``PATCH api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/
    {task_id}/{map_index}/hitlDetails`` with ``{"chosen_options": ["Approve"], "params_input": {}}``.

    ``{"dag_id": "churn__train", "run_id": "manual__1", "task_id": "approve.ask", "map_index": -1,
    "subject": "Make churn v7 the champion?", "options": ["Approve", "Reject"], "since": "…",
    "assignees": ["anna"], "link": "dags/…/required_actions"}``
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    subject: str
    options: list[str]
    since: str | None
    assignees: list[str]
    link: str


class CheckMark(Model):
    """The newest result of one monitoring check.

    ``{"name": "drift", "verdict": "drift", "tone": "warning", "sentence": "drift in 2 of 13 columns: …",
    "window": {…}, "at": "…", "version": 6, "report": "mlops/reports/churn__monitor/…"}``

    :param name: ``quality``, ``drift``, ``skew``, ``performance``, ``staleness`` or ``system``.
    """

    name: str
    verdict: str
    tone: Tone
    sentence: str
    window: Window
    at: str | None
    version: int | None
    report: str | None


class GateLine(Model):
    """One gate's outcome.

    ``{"name": "roc_auc not_worse_by 0.02 vs champion", "verdict": "inconclusive", "tone": "warning", "sentence": "…",
    "value": -0.004, "low": -0.03, "high": 0.02, "threshold": -0.02, "needed_rows": 41000}``
    """

    name: str
    verdict: str
    tone: Tone
    sentence: str
    value: float | None
    low: float | None
    high: float | None
    threshold: float | None
    needed_rows: int | None


class Event(Model):
    """One thing that happened, for the timeline.

    ``{"id": "log-17-0", "at": "…", "what": "gates", "kind": "decision", "title": "v2 passed its gates",
    "sentence": "passed: all 3 gates. …", "tone": "ok", "version": 2, "key": null, "by": null, "window": {…},
    "replay": false, "gates": [{…}], "link": "dags/…/runs/…", "report": "mlops/reports/…"}``

    :param kind: what filters show: ``version``, ``decision``, ``delivery``, ``check`` or ``retrain``.
    :param replay: whether it belongs to a replay of the past.
    """

    id: str
    at: str
    what: str
    kind: Literal["version", "decision", "delivery", "check", "retrain"]
    title: str
    sentence: str
    tone: Tone
    version: int | None
    key: str | None
    by: str | None
    window: Window | None
    replay: bool
    gates: list[GateLine]
    link: str | None
    report: str | None


class Score(Model):
    """A metric of one side with its 95 % interval: ``{"value": 0.71, "low": 0.69, "high": 0.73}``."""

    value: float
    low: float | None
    high: float | None


class ReportLink(Model):
    """``{"name": "Gate report", "about": "v7", "at": "…", "link": "mlops/reports/churn__train/…"}``.

    The pages behind it are untrusted: show them in a sandboxed frame, or open them in a tab.
    """

    name: str
    about: str
    at: str | None
    link: str
