"""What happened to a pipeline: its registry's log, its retrain ledger and its checks, as one story."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from airflow_mlops.ml.history import OTHERS, told
from airflow_mlops.ml.standing import window_of
from airflow_mlops.plugins.api.live import Live, run_link
from airflow_mlops.plugins.api.models import Event, Timeline, Tone
from airflow_mlops.plugins.api.one import One
from airflow_mlops.plugins.api.rows import check_tone, gate_lines, report_link, verdict_tone, window_mark
from airflow_mlops.plugins.api.trainings import happened
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.fleet_runs import FleetRun
from airflow_mlops.registry.records import Records
from airflow_mlops.registry.rollout import path, step_name
from airflow_mlops.registry.version import model_name

Kind = Literal["version", "decision", "delivery", "check", "retrain"]
KINDS: tuple[Kind, ...] = ("version", "decision", "delivery", "check", "retrain")

_GATES = {
    "passed": "passed its gates",
    "rejected": "was rejected by its gates",
    "inconclusive": "could not be decided by its gates",
    "no_baseline": "had no champion to be compared with",
}


@dataclass(frozen=True)
class Happening:
    """An event that is written out when it is shown: a long story has many."""

    at: str
    id: str
    kind: Kind
    source: Entry | Check | FleetRun
    make: Callable[[], Event]


def timeline(one: One, *, kinds: Iterable[str] = (), limit: int = 50, offset: int = 0) -> Timeline:
    """The newest events first.

    :param kinds: only these; empty: all.
    """
    wanted = {*kinds} or {*KINDS}
    found = sorted(
        (h for h in happenings(one.records, one.live) if h.kind in wanted), key=lambda h: (h.at, h.id), reverse=True
    )
    events = [h.make() for h in found[offset : offset + limit]]
    return Timeline(total=len(found), offset=offset, limit=limit, events=events)


def happenings(records: Records, live: Live) -> Iterator[Happening]:
    """Everything worth telling, in no order; rehearsals are left out."""
    teller = _Teller(records, live)
    for number, entry in enumerate(records.log):
        if (way := teller.of_log(entry)) is not None:
            # A commit for a fleet is one entry for each model: the place in the list keeps them apart.
            yield Happening(entry.at, f"log-{entry.seq:010d}-{number}", way[0], entry, partial(way[1], entry))
    for run in records.trainings:
        for number, (kind, at, _, make) in enumerate(happened(run, live)):
            yield Happening(at, f"fleet-{run.started_at}-{number}", kind, run, make)
    for entry in records.ledger:
        if not entry.payload["dry"] and not entry.payload.get("repeats") and entry.type != "check":
            make = partial(teller.of_ledger, entry)
            yield Happening(entry.at, f"ledger-{entry.seq:010d}", "retrain", entry, make)
    for check in records.checks:
        if check.name not in OTHERS and "verdict" in check.result:
            at = check.at or check.window["end"]
            id_ = f"check-{check.window['end']}-{check.window['start']}-{check.name}"
            yield Happening(at, id_, "check", check, partial(teller.of_check, check))


_Told = tuple[Kind, Callable[[Entry], Event]]


class _Teller:
    """Puts entries into words."""

    def __init__(self, records: Records, live: Live) -> None:
        self._live = live
        self._versions = {(e.key, e.payload["version"]): e for e in records.log if e.type == "register"}
        self._rollouts: dict[tuple[str | None, int], list[Any]] = {}
        for entry in records.log:
            if entry.type == "rollout" and entry.payload["kind"] == "begin":
                self._rollouts[entry.key, entry.payload["version"]] = entry.payload["steps"]

    # --- the registry ------------------------------------------------------------------------------

    def of_log(self, entry: Entry) -> _Told | None:
        """How an entry of the registry is told; ``None``: it is not."""
        if self._run(entry).get("rehearsal"):
            return None
        if entry.type == "annotate":
            kind = entry.payload["kind"]
            if kind in ("gates", "approval"):
                return "decision", self._gates if kind == "gates" else self._approval
            return ("delivery", self._handover) if kind in ("handover", "deployment") else None
        ways: dict[str, _Told] = {
            "register": ("version", self._registered),
            "promote": ("delivery", self._promoted),
            "rollback": ("delivery", self._rolled_back),
            "retire": ("delivery", self._retired),
            "rollout": ("delivery", self._rollout),
        }
        return ways.get(entry.type)

    def _registered(self, entry: Entry) -> Event:
        record = entry.payload["record"]
        snapshot = record.get("snapshot") or {}
        # A model of a fleet has learned from the rows of its key alone.
        many = snapshot.get("rows") if entry.key is None else (record.get("rows") or {}).get("train")
        rows = f"learned from {many:,} rows" if many is not None else ""
        made = f"made by {record['estimator']}" if record.get("estimator") else ""
        where = "taken in from elsewhere" if record.get("imported") else ""
        sentence = ", ".join(filter(None, (where, rows, made)))
        return self._event(entry, "registered", "version", "was trained", sentence, "info", window=window_of(entry))

    def _gates(self, entry: Entry) -> Event:
        note = entry.payload["note"]
        verdict = note.get("verdict")
        return self._event(
            entry,
            "gates",
            "decision",
            _GATES.get(verdict, str(verdict)),
            str(note.get("sentence", "")),
            verdict_tone(verdict),
            window=self._window(entry),
            gates=gate_lines(note),
            report=self._report(entry, note.get("report")),
        )

    def _approval(self, entry: Entry) -> Event:
        note = entry.payload["note"]
        answer = ", ".join(map(str, note.get("answer") or ()))
        yes = answer == "Approve"
        by = note.get("by")
        words = f"was answered {answer or 'nothing'} by {by or 'the time-out'}"
        return self._event(entry, "approval", "decision", words, "", "ok" if yes else "bad", by=by)

    def _handover(self, entry: Entry) -> Event:
        kind, note = entry.payload["kind"], entry.payload["note"]
        words = "was handed over" if kind == "handover" else "was deployed"
        return self._event(entry, kind, "delivery", words, str(note.get("command") or ""), "ok")

    def _promoted(self, entry: Entry) -> Event:
        body = entry.payload
        before = f" in place of v{body['expected']}" if body.get("expected") else ""
        return self._event(entry, "promoted", "delivery", f"became champion{before}", body["reason"], "ok",
                           by=body.get("by"), window=body.get("window"))  # fmt: skip

    def _rolled_back(self, entry: Entry) -> Event:
        body = entry.payload
        words = f"became champion again: v{body['expected']} was rolled back"
        return self._event(entry, "rolled back", "delivery", words, body["reason"], "warning", by=body.get("by"))

    def _retired(self, entry: Entry) -> Event:
        body = entry.payload
        return self._event(entry, "retired", "delivery", "was retired", body["reason"], "info", by=body.get("by"))

    def _rollout(self, entry: Entry) -> Event:
        body = entry.payload
        kind = body["kind"]
        steps = self._rollouts.get((entry.key, body["version"]), [])
        present = step_name(steps[body["step"]]) if kind != "begin" and body["step"] < len(steps) else ""
        words, tone = _ROLLOUT[kind]
        return self._event(
            entry,
            f"rollout {kind}",
            "delivery",
            words.format(path=path(body.get("steps") or steps), step=present),
            body["reason"],
            tone,
            by=body.get("by"),
            window=body.get("window"),
            report=self._watched((body.get("evidence") or {}).get("report")),
        )

    def _event(
        self,
        entry: Entry,
        what: str,
        kind: Kind,
        words: str,
        sentence: str,
        tone: Tone,
        *,
        by: str | None = None,
        window: dict[str, Any] | None = None,
        gates: list[Any] | None = None,
        report: str | None = None,
    ) -> Event:
        number = entry.payload["version"]
        name = f"v{number}" if entry.key is None else f"{model_name(self._live.pipeline, entry.key)} v{number}"
        run = self._run(entry)
        return Event(
            id=f"log-{entry.seq}-{entry.key or ''}-{what}",
            at=entry.at,
            what=what,
            kind=kind,
            title=f"{name} {words}",
            sentence=sentence,
            tone=tone,
            version=number,
            key=entry.key,
            by=by,
            window=window_mark(window),
            replay=bool(run.get("replay")),
            gates=gates or [],
            link=self._link(run.get("dag_id"), run.get("run_id")) if kind != "delivery" else None,
            report=report,
        )

    def _window(self, entry: Entry) -> dict[str, str] | None:
        """The window of the rows that the version learned from; of a fleet's model, its registration may be unknown."""
        registered = self._versions.get((entry.key, entry.payload["version"]))
        return window_of(registered) if registered else None

    def _run(self, entry: Entry) -> dict[str, Any]:
        """The run that trained the version that the entry is about."""
        registered = self._versions.get((entry.key, entry.payload["version"]))
        return (registered.payload["record"].get("run") or {}) if registered else {}

    def _report(self, entry: Entry, digest: str | None) -> str | None:
        dag_id = self._run(entry).get("dag_id") or f"{self._live.pipeline}__train"
        return report_link(dag_id, digest) if self._live.may_read(dag_id) else None

    def _watched(self, digest: Any) -> str | None:
        """A report that monitoring made."""
        dag_id = f"{self._live.pipeline}__monitor"
        return report_link(dag_id, digest) if self._live.may_read(dag_id) else None

    def _link(self, dag_id: str | None, run_id: str | None) -> str | None:
        return run_link(dag_id, run_id) if dag_id and run_id and self._live.may_read(dag_id) else None

    # --- the ledger and the checks -------------------------------------------------------------------

    def of_ledger(self, entry: Entry) -> Event:
        """A request, a claim, or that an experiment was asked for."""
        body = entry.payload
        because = " and ".join(body["reasons"])
        tone: Tone
        if entry.type == "experiment":
            title, tone = f"an experiment was asked for, because of {because}", "info"
        elif entry.type == "request":
            title = f"a training because of {because} was {'granted' if body['granted'] else 'held back'}"
            tone = "ok" if body["granted"] else "warning"
        else:
            title, tone = ("a training began", "info") if body["go"] else ("a run did not train", "unknown")
        run = body.get("run")
        return Event(
            id=f"ledger-{entry.seq}",
            at=entry.at,
            what=entry.type,
            kind="retrain",
            title=title,
            sentence=body["sentence"],
            tone=tone,
            version=None,
            key=None,
            by=None,
            window=None,
            replay=str(run or "").startswith("replay__"),
            gates=[],
            link=self._link(f"{self._live.pipeline}__train", run),
            report=None,
        )

    def of_check(self, check: Check) -> Event:
        """A result of a monitoring check."""
        verdict = str(check.result["verdict"])
        return Event(
            id=f"check-{check.window['start']}-{check.window['end']}-{check.name}",
            at=check.at or check.window["end"],
            what=check.name,
            kind="check",
            title=told(check.name, check.result).text,
            sentence=str(check.result.get("sentence", "")),
            tone=check_tone(verdict),
            version=check.result.get("version"),
            key=None,
            by=None,
            window=window_mark(check.window),
            replay=bool(check.replay),
            gates=[],
            link=self._link(check.run["dag_id"], check.run["run_id"]) if check.run else None,
            report=self._watched(check.result.get("report")),
        )


_ROLLOUT: dict[str, tuple[str, Tone]] = {
    "begin": ("began to roll out: {path}", "info"),
    "wait": ("stays in its step: {step}", "info"),
    "next": ("passed its step: {step}", "ok"),
    "end": ("rolls out no more; it was in its step: {step}", "warning"),
}
