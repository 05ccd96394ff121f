"""One pipeline as a row of the fleet: what Airflow says of it, and what the store says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_mlops.ml.standing import Candidate, Standing, alarmed, answered
from airflow_mlops.ml.standing import Trend as StandingTrend
from airflow_mlops.plugins.api.attention import Known, attention
from airflow_mlops.plugins.api.live import Live, instant, run_link
from airflow_mlops.plugins.api.models import (
    Attention,
    Champion,
    CheckMark,
    Cost,
    FleetRow,
    GateLine,
    Point,
    RolloutMark,
    Suppressed,
    Tone,
    Training,
    Trend,
    Window,
)
from airflow_mlops.plugins.api.reader import Answer
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.fleet_runs import FleetRun
from airflow_mlops.registry.overview import Summary
from airflow_mlops.registry.rollout import path
from airflow_mlops.store import layout

_VERDICTS: dict[str | None, Tone] = {
    "passed": "ok",
    "no_baseline": "ok",
    "rejected": "bad",
    "inconclusive": "warning",
}


@dataclass(frozen=True)
class Line:
    """What is known of a pipeline, before it is written out: a fleet is sorted by lines, and a page has few rows."""

    known: Known
    summary: Summary | None
    attention: Attention

    @property
    def pipeline(self) -> str:
        """Its name."""
        return self.known.live.pipeline

    @property
    def owner(self) -> str | None:
        """Its owner as Airflow knows it, else as its last version was registered with."""
        one, train = self.known.standing, self.known.live.dags.get("train")
        return (train.owner if train else None) or (one.owner if one else None)

    @property
    def level(self) -> int | None:
        """Its level as configured."""
        train = self.known.live.dags.get("train")
        return train.level if train else None


def line_of(live: Live, answer: Answer) -> Line:
    """The line of a pipeline; of one whose ``__train`` the user may not read, nothing of the store."""
    if not live.readable:
        known = Known(live, None)
        return Line(known, None, attention(known))
    name = live.pipeline
    known = Known(live, answer.standings.get(name), answer.problems.get(name), lost=answer.problem is not None)
    return Line(known, answer.summaries.get(name), attention(known))


def row_of(line: Line) -> FleetRow:
    """The row of a pipeline."""
    known, summary = line.known, line.summary
    live, one = known.live, known.standing
    train = live.dags.get("train")
    return FleetRow(
        pipeline=live.pipeline,
        owner=line.owner,
        level=line.level,
        exercised=one.assessed.level if one else None,
        paused=live.main.paused,
        read=one is not None,
        attention=line.attention,
        fleet=bool(one and one.is_fleet),
        models=summary.models if summary else 0,
        champions=summary.champions if summary else 0,
        versions=summary.versions if summary else 0,
        champion=_champion(one, summary),
        challenger=one.challenger if one else summary.challenger if summary else None,
        rollout=_rollout(one),
        training=_newest_training(one, live) if one else None,
        last_training_run=live.runs["train"].mark() if "train" in live.runs else None,
        last_monitor_run=live.runs["monitor"].mark() if "monitor" in live.runs else None,
        drift=_check(one, "drift", live),
        quality=_check(one, "quality", live),
        skew=_check(one, "skew", live),
        staleness=_check(one, "staleness", live),
        system=_check(one, "system", live),
        performance=_trend(one, one.performance) if one and one.performance else None,
        next_run=instant(train.next_run) if train and not train.paused else None,
        schedule=train.schedule if train else None,
        events=train.events if train else None,
        approvals=live.approvals,
        suppressed=_suppressed(one.request) if one and one.request else None,
        cost=_cost(one.cost) if one and one.cost else None,
        dags={suffix: dag.dag_id for suffix, dag in live.dags.items()},
        link=known.page,
    )


def check_tone(verdict: str) -> Tone:
    """How the verdict of a monitoring check is coloured."""
    return {True: "warning", False: "ok", None: "unknown"}[alarmed(verdict)]  # type: ignore[return-value]


def verdict_tone(verdict: str | None) -> Tone:
    """How the verdict of gates is coloured."""
    return _VERDICTS.get(verdict, "unknown")


def window_mark(window: dict[str, Any] | None) -> Window | None:
    """A stored window; one without a beginning or an end is none."""
    if not window or not window.get("start") or not window.get("end"):
        return None
    return Window(start=window["start"], end=window["end"])


def days(window: Mapping[str, Any]) -> str:
    """A window in words: ``2026-05-01 to 2026-06-01``; of one that does not begin and end at midnight, the minutes."""
    ends = [str(window[name]) for name in ("start", "end")]
    exact = any(end[11:16] not in ("", "00:00") for end in ends)
    return " to ".join(end[:16].replace("T", " ") if exact else end[:10] for end in ends)


def check_mark(check: Check, live: Live) -> CheckMark:
    """A stored result of a monitoring check; its report is linked for whoever may read the DAG that shows it."""
    result = check.result
    verdict = str(result["verdict"])
    report, dag_id = result.get("report"), f"{live.pipeline}__monitor"
    return CheckMark(
        name=check.name,
        verdict=verdict,
        tone=check_tone(verdict),
        sentence=str(result.get("sentence", "")),
        window=Window(start=check.window["start"], end=check.window["end"]),
        at=check.at,
        version=result.get("version"),
        report=report_link(dag_id, report) if live.may_read(dag_id) else None,
    )


def gate_lines(note: dict[str, Any]) -> list[GateLine]:
    """The gates' outcomes of a note ``gates``."""
    return [
        GateLine(
            name=str(line.get("name", "")),
            verdict=str(line.get("verdict")),
            tone=verdict_tone(line.get("verdict")),
            sentence=str(line.get("sentence", "")),
            value=line.get("value"),
            low=line.get("low"),
            high=line.get("high"),
            threshold=line.get("threshold"),
            needed_rows=line.get("needed_rows"),
        )
        for line in note.get("results") or ()
    ]


def report_link(dag_id: str, digest: Any) -> str | None:
    """Address of a stored report, below Airflow's base; ``None`` for what is no sha256 and so names none."""
    if not isinstance(digest, str) or not layout.is_digest(digest):
        return None
    return f"mlops/reports/{dag_id}/{digest}"


def _champion(one: Standing | None, summary: Summary | None) -> Champion | None:
    if one is not None and one.champion is not None:
        found = one.champion
        return Champion(version=found.version, promoted_at=found.at, by=found.by, trained_until=found.trained_until)
    if summary is None or summary.champion is None:
        return None
    return Champion(version=summary.champion, promoted_at=summary.promoted_at, by=None, trained_until=None)


def _rollout(one: Standing | None) -> RolloutMark | None:
    rollout = one.rollout if one else None
    return RolloutMark(version=rollout.version, step=rollout.name, path=path(rollout.steps)) if rollout else None


def _newest_training(one: Standing, live: Live) -> Training | None:
    if one.fleet is not None:
        return _fleet_training(one.fleet, live)
    return _training(one.candidate, live) if one.candidate else None


def _fleet_training(run: FleetRun, live: Live) -> Training:
    return Training(
        version=None,
        at=run.at,
        verdict=f"{run.promoted:,} promoted" if run.promoted else "none promoted",
        tone=fleet_tone(run),
        sentence=run.sentence,
        window=window_mark(run.window),
        link=run_link(run.dag_id, run.run_id) if live.may_read(run.dag_id) else None,
        promoted=run.promoted > 0,
    )


def fleet_tone(run: FleetRun) -> Tone:
    """How a fleet's training is coloured: a key that failed is a fault, one that was rejected is not."""
    if run.counts.get("failed"):
        return "warning"
    return "ok" if run.promoted else "info"


def _training(found: Candidate, live: Live) -> Training:
    run = found.run
    known = run.get("run_id") and live.may_read(str(run.get("dag_id")))
    return Training(
        version=found.version,
        at=found.at,
        verdict=found.verdict,
        tone=verdict_tone(found.verdict),
        sentence=found.sentence,
        window=window_mark(found.window),
        link=run_link(run["dag_id"], run["run_id"]) if known else None,
        promoted=found.promoted,
    )


def _check(one: Standing | None, name: str, live: Live) -> CheckMark | None:
    check = one.checks.get(name) if one else None
    if one is None or check is None:
        return None
    mark = check_mark(check, live)
    return mark.model_copy(update=_since(one, name, mark.sentence, mark.tone))


def _since(one: Standing, name: str, sentence: str, tone: Tone) -> dict[str, Any]:
    """Sentence and tone of a check; what trainings have answered since is told, and calm where that is all of it."""
    since = answered(one.keys_alarmed.get(name))
    if not since:
        return {"sentence": sentence, "tone": tone}
    return {"sentence": f"{sentence}; {since}", "tone": tone if name in one.alarms else "ok"}


def _trend(one: Standing, found: StandingTrend) -> Trend:
    newest = found.points[-1].result
    verdict = str(newest["verdict"])
    return Trend(
        metric=found.metric,
        lower_is_better=found.lower_is_better,
        value=newest["value"],
        baseline=newest.get("baseline"),
        verdict=verdict,
        points=[
            Point(
                end=(c.result.get("window") or c.window)["end"],
                value=c.result["value"],
                version=c.result.get("version"),
                verdict=str(c.result["verdict"]),
            )
            for c in found.points
        ],
        **_since(one, "performance", str(newest.get("sentence", "")), check_tone(verdict)),
    )


def _suppressed(request: dict[str, Any]) -> Suppressed | None:
    if request["granted"]:
        return None
    return Suppressed(
        sentence=request["sentence"],
        held=[*request.get("held", ())],
        reasons=[*request["reasons"]],
        at=request["at"],
        recorded=request["recorded"],
    )


def _cost(found: dict[str, Any]) -> Cost:
    return Cost(
        month=found["month"],
        wall_seconds=round(found["wall_seconds"], 3),
        cpu_seconds=round(found["cpu_seconds"], 3),
        money=found["money"],
    )
