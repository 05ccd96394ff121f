"""The trainings of a fleet, each told as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal

from airflow_mlops.plugins.api.live import Live, run_link
from airflow_mlops.plugins.api.models import Event, Fact, Tone
from airflow_mlops.plugins.api.rows import fleet_tone, report_link, window_mark
from airflow_mlops.registry.fleet_runs import FleetRun

Part = tuple[Literal["decision", "delivery"], str, str, Callable[[], Event]]
"""What an event is of, when it was, what it is called, and how it is written out."""

_ANSWERED: dict[str, Tone] = {"Approve": "ok"}


def happened(run: FleetRun, live: Live) -> Iterator[Part]:
    """What a training did, in its order: it judged its keys, a person answered, champions changed."""
    said = ", ".join(filter(None, (run.sentence, compared(run))))
    title = f"{run.keys:,} keys were trained and judged"
    make = partial(_event, run, live, "fleet", "decision", title, said, fleet_tone(run))
    yield "decision", run.at, "fleet", make
    if run.approval:
        answer = ", ".join(map(str, run.approval.get("answer") or ())) or "nothing"
        by, tone = run.approval.get("by"), _ANSWERED.get(answer, "bad")
        title = f"the new models were answered {answer} by {by or 'the time-out'}"
        at = run.promoted_at or run.at
        yield "decision", at, "approval", partial(_event, run, live, "approval", "decision", title, "", tone, at, by)
    if run.promoted:
        at = run.promoted_at or run.at
        title = f"{run.promoted:,} keys have a new champion"
        make = partial(_event, run, live, "promoted", "delivery", title, "", "ok", at, run.agreed_by)
        yield "delivery", at, "promoted", make
    if run.bundle:
        title = "the champions of all keys were handed over as one bundle"
        make = partial(_event, run, live, "handover", "delivery", title, "", "ok", run.promoted_at or run.at, None)
        yield "delivery", run.promoted_at or run.at, "handover", make


def compared(run: FleetRun) -> str:
    """How many keys were compared with a champion, and what it took to pass; empty where none was."""
    if not run.tests or run.limit is None:
        return ""
    return f"{run.tests:,} compared with their champion (p had to be at most {run.limit:.2g})"


def what_would_change(run: FleetRun) -> Iterator[str]:
    """What would change the verdicts on a run's keys, as sentences; each key's own reason is in the table."""
    if many := run.counts.get("failed"):
        yield f"{many:,} keys failed: the table of keys says why, each for itself"
    if many := run.counts.get("inconclusive"):
        yield f"{many:,} keys could not be decided: more holdout rows would; each key's reason says what it lacks"
    if many := run.counts.get("rejected"):
        yield f"{many:,} keys missed a gate: each key's reason has its value and the limit"


def facts(run: FleetRun) -> Iterator[Fact]:
    """A training in numbers."""
    yield Fact(name="keys", value=f"{run.keys:,}")
    yield Fact(name="new models", value=f"{run.models:,}")
    yield Fact(name="new champions", value=f"{run.promoted:,}")
    if run.tests:
        yield Fact(name="compared with a champion", value=f"{run.tests:,}")
    if run.tests and run.limit is not None:
        yield Fact(name="largest p-value that passed", value=f"{run.limit:.2g} (Benjamini and Hochberg, all keys)")


def _event(
    run: FleetRun,
    live: Live,
    what: str,
    kind: Literal["decision", "delivery"],
    title: str,
    sentence: str,
    tone: Tone,
    at: str | None = None,
    by: str | None = None,
) -> Event:
    known = live.may_read(run.dag_id)
    return Event(
        id=f"fleet-{run.started_at}-{what}",
        at=at or run.at,
        what=what,
        kind=kind,
        title=title,
        sentence=sentence,
        tone=tone,
        version=None,
        key=None,
        by=by,
        window=window_mark(run.window),
        replay=bool(run.replay),
        gates=[],
        link=run_link(run.dag_id, run.run_id) if known else None,
        report=report_link(run.dag_id, run.report) if known and what == "fleet" else None,
    )
