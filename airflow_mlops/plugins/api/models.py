"""What the routes below ``/mlops/api`` answer: the contract between the API and the pages.

Every time is ISO 8601 in UTC (``2026-11-27T05:30:00+00:00``). Every ``link`` is an address relative to Airflow's
base (``document.baseURI``), without a leading slash, so that it holds under a prefix too: ``dags/churn__train``,
``mlops/reports/churn__train/<sha256>``. Every text may come from data: pages show it as text, never as markup.

=================================================  =====================================================
route (GET)                                        answers
=================================================  =====================================================
``fleet?search=&attention=&level=&owner=&sort=     :class:`Fleet`
&order=&limit=&offset=``
``attention?limit=``                               :class:`AttentionCard`
``pipelines/{pipeline}``                           :class:`Pipeline`
``pipelines/{pipeline}/timeline?kind=&limit=       :class:`Timeline`
&offset=``
``pipelines/{pipeline}/versions?key=``             :class:`Versions`
``pipelines/{pipeline}/compare?a=&b=&key=``        :class:`Comparison`; ``a`` and ``b`` are numbers or ``champion``,
                                                   ``challenger``, ``latest``
``pipelines/{pipeline}/performance``               :class:`Performance`
``pipelines/{pipeline}/drift?windows=``            :class:`Drift`
``pipelines/{pipeline}/distribution?window=        :class:`Distribution`
&column=``
``pipelines/{pipeline}/lineage?version=&key=``     :class:`Lineage`
``pipelines/{pipeline}/reports?version=&key=``     :class:`Reports`
``runs/{dag_id}?run_id=``                          :class:`Run`
=================================================  =====================================================

Errors are ``{"detail": text}``: 401 no session, 403 no right to plugin pages, 404 no such pipeline, run or version
(or none that this user may read: the two look the same), 422 a wrong parameter, 503 the store does not answer.
Answers carry an ``ETag`` and ``Cache-Control: private, no-cache``.
"""

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

AttentionLevel = Literal["action", "warning", "ok"]
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


class Counts(Model):
    """How many visible pipelines stand on each level: ``{"action": 2, "warning": 3, "ok": 40}``."""

    action: int = 0
    warning: int = 0
    ok: int = 0


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

    :param verdict: ``passed``, ``rejected``, ``inconclusive``, ``no_baseline``; ``None``: not judged (yet).
    """

    version: int
    at: str
    verdict: str | None
    tone: Tone
    sentence: str
    window: Window | None
    link: str | None
    promoted: bool


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
    :param dags: its DAGs that this user may read, by suffix: ``{"train": "churn__train", …}``.
    :param next_run: when the schedule starts ``__train`` next; ``schedule``: in Airflow's words.
    :param link: the pipeline's page.
    """

    pipeline: str
    owner: str | None
    level: int | None
    exercised: int | None
    paused: bool
    read: bool
    attention: Attention
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
    approvals: list[Approval]
    suppressed: Suppressed | None
    cost: Cost | None
    dags: dict[str, str]
    link: str


class Fleet(Model):
    """One page of the fleet.

    ``{"total": 45, "offset": 0, "limit": 25, "counts": {"action": 2, "warning": 3, "ok": 40}, "owners": ["ops-ml"],
    "levels": [0, 1], "pending": 0, "store_problem": null, "rows": [{…}]}``

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
    """What needs attention now, the most urgent first; ``ok`` ones are only counted.

    ``{"counts": {…}, "rows": [{…}], "pending": 0, "store_problem": null, "link": "plugin/mlops"}``
    """

    counts: Counts
    rows: list[AttentionRow]
    pending: int
    store_problem: str | None
    link: str


class Action(Model):
    """A button: it starts a DAG run, ``POST api/v2/dags/{dag_id}/dagRuns`` with ``{"logical_date": null, "conf": …}``.

    ``{"name": "rollback", "dag_id": "churn__registry", "allowed": true, "why_not": null,
    "conf": {"action": "rollback", "expected": 6}, "asks": ["reason"]}``

    :param allowed: whether this user may start runs of that DAG and it makes sense now; ``why_not`` says why not.
    :param conf: what the page sends; ``asks``: fields that the page asks the person for and adds to it (``reason``
        is text and needed; ``window_start`` and ``window_end`` are times and belong together).
    """

    name: Literal["retrain", "rollback", "promote", "abort"]
    dag_id: str
    allowed: bool
    why_not: str | None
    conf: dict[str, Json]
    asks: list[str]


class Pipeline(Model):
    """The head of the pipeline page: its row of the fleet, and more.

    :param keys: model keys of a fleet, at most 500; empty where there is one model.
    :param terms: the level exercised in the words of ``google``, ``microsoft`` and ``aws``.
    :param advice: the next things to do, most important first.
    :param returns_to: the version that a rollback would make champion.
    """

    row: FleetRow
    description: str | None
    keys: list[str]
    returns_to: int | None
    terms: dict[str, str]
    advice: list[str]
    actions: list[Action]
    store_problem: str | None


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


class Timeline(Model):
    """Events, the newest first: ``{"total": 312, "offset": 0, "limit": 50, "events": [{…}]}``."""

    total: int
    offset: int
    limit: int
    events: list[Event]


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


class Score(Model):
    """A metric of one side with its 95 % interval: ``{"value": 0.71, "low": 0.69, "high": 0.73}``."""

    value: float
    low: float | None
    high: float | None


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
    """Drift per column and window, windows oldest first; columns that drifted most often come first."""

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


class Node(Model):
    """``{"id": "data", "kind": "data", "title": "Snapshot 463cef1e4106", "lines": ["77,911 rows × 14 columns"],
    "link": null}``.

    :param kind: ``source``, ``data``, ``code``, ``config``, ``environment``, ``run``, ``model``, ``decision``,
        ``delivery`` or ``predictions``.
    """

    id: str
    kind: str
    title: str
    lines: list[str]
    link: str | None


class Edge(Model):
    """``{"source": "data", "target": "model", "label": "trained on"}``."""

    source: str
    target: str
    label: str


class Lineage(Model):
    """What a version was made from and what became of it, as a graph from left to right."""

    version: int
    key: str | None
    nodes: list[Node]
    edges: list[Edge]


class ReportLink(Model):
    """``{"name": "Gate report", "about": "v7", "at": "…", "link": "mlops/reports/churn__train/…"}``.

    The pages behind it are untrusted: show them in a sandboxed frame, or open them in a tab.
    """

    name: str
    about: str
    at: str | None
    link: str


class Reports(Model):
    """The model card of a version and the newest reports about it; ``card`` is ``None`` where none was made."""

    version: int | None
    card: str | None
    reports: list[ReportLink]


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
    "started_at": "…", "ended_at": "…", "window": {…}, "replay": false, "rehearsal": false, "start": "schedule",
    "title": "v7 was not promoted", "tone": "bad", "sentence": "rejected: …", "version": 7, "against": 6,
    "gates": [{…}], "changes": ["roc_auc needs about 41,000 holdout rows to be decided"], "checks": [{…}],
    "events": [{…}], "sections": [{…}], "reports": [{…}], "approvals": [{…}], "link": "dags/…/runs/…"}``

    :param kind: ``train``, ``predict``, ``monitor``, ``registry`` or ``experiment``.
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
