"""The run page: what one run decided, on which data, against whom, and what would change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from starlette.exceptions import HTTPException

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.ml.history import OTHERS
from airflow_mlops.ml.standing import window_of
from airflow_mlops.plugins.api import run_changes, run_facts, trainings
from airflow_mlops.plugins.api.keys import of_run
from airflow_mlops.plugins.api.live import SUFFIXES, instant, may_read, run_link, run_of
from airflow_mlops.plugins.api.models import CheckMark, Event, ReportLink, Run, Section, Tone
from airflow_mlops.plugins.api.one import One, read_records, visible
from airflow_mlops.plugins.api.rows import (
    check_mark,
    days,
    fleet_tone,
    gate_lines,
    report_link,
    verdict_tone,
    window_mark,
)
from airflow_mlops.plugins.api.timeline import happenings
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.fleet_runs import FleetRun
from airflow_mlops.store import get_json

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

    from airflow_mlops.plugins.api.reader import StoreReader

_BY_HAND = ("promote", "rollback", "retire")


def run_page(user: BaseUser, reader: StoreReader, dag_id: str, run_id: str) -> Run:
    """The page of one run of a pipeline's DAG.

    :raises HTTPException: 404: it is no run of a pipeline, or the user may not know.
    """
    pipeline, _, suffix = dag_id.rpartition("__")
    if not pipeline or suffix not in SUFFIXES:
        raise HTTPException(404, f"{dag_id} is no DAG of a pipeline, or you may not read it.")
    live = visible(user, pipeline)
    shown = suffix in live.dags and may_read(user, DagAccessEntity.RUN)
    row = run_of(dag_id, run_id) if shown else None
    if row is None:
        raise HTTPException(404, f"There is no run {run_id} of {dag_id} here, or you may not read it.")
    return read_records(live, reader, lambda one: _Page(one, dag_id, run_id, suffix, row).make())


@dataclass(frozen=True)
class _Said:
    """What a run came to, in words."""

    title: str
    tone: Tone
    sentence: str


class _Page:
    """Collects what the records say about one run.

    Registrations, claims and checks name their run. Changes by hand do not, nor do checks that were written before
    checks did: those are the ones that were written while the run was at work.
    """

    def __init__(self, one: One, dag_id: str, run_id: str, suffix: str, row: dict[str, Any]) -> None:
        self.one, self.dag_id, self.run_id, self.suffix, self.row = one, dag_id, run_id, suffix, row
        self.records = one.records
        self.began, self.ended = instant(row["start_date"]), instant(row["end_date"])
        mine = [e for e in self.records.log if e.type == "register" and self._trained(e)]
        self.registered = mine[-1] if mine else None
        self.fleet = of_run(one, dag_id, run_id) if suffix == "train" else None
        self.note = self._note("gates")
        self.checks = [c for c in self.records.checks if self._is_mine(c)]
        self.claims = [
            e for e in self.records.ledger if e.type == "claim" and e.payload["run"] == run_id and suffix == "train"
        ]

    # --- whose is it -------------------------------------------------------------------------------

    def _trained(self, entry: Entry) -> bool:
        run = entry.payload["record"].get("run") or {}
        return run.get("dag_id") == self.dag_id and run.get("run_id") == self.run_id

    def _while(self, at: str | None) -> bool:
        """Whether it was written while the run was at work; a run that is started again goes on."""
        if at is None or self.row["start_date"] is None:
            return False
        when, ended = datetime.fromisoformat(at), self.row["end_date"] or datetime.now(UTC)
        return bool(self.row["start_date"] <= when.replace(tzinfo=when.tzinfo or UTC) <= ended)

    def _is_mine(self, check: Check) -> bool:
        if check.run is not None:
            return check.run == {"dag_id": self.dag_id, "run_id": self.run_id}
        if "run_id" in check.result:
            return self.suffix in ("train", "experiment") and bool(check.result["run_id"] == self.run_id)
        if self.suffix == "predict":
            return check.name == "prediction" and self._while(check.at)
        if self.suffix == "monitor":
            return (check.name == "request" or check.name not in OTHERS) and self._while(check.at)
        return False

    def _note(self, kind: str) -> dict[str, Any]:
        notes = self._notes(kind)
        return notes[-1] if notes else {}

    def _notes(self, kind: str) -> list[dict[str, Any]]:
        if self.registered is None:
            return []
        model = (self.registered.key, self.registered.payload["version"])
        return [note for e, note in self.records.notes(kind) if (e.key, e.payload["version"]) == model]

    @cached_property
    def _record(self) -> dict[str, Any]:
        if self.fleet is not None and self.fleet.of is not None:
            with suppress(ObjectNotFound):  # all its versions are retired, and collected
                shared: dict[str, Any] = get_json(self.one.store, self.fleet.of)
                return shared
        record: dict[str, Any] = self.registered.payload["record"] if self.registered else {}
        return record

    # --- the page ----------------------------------------------------------------------------------

    def make(self) -> Run:
        """The page."""
        said, run = self._said(), self._record.get("run") or {}
        checks = [*self._check_marks()]
        return Run(
            dag_id=self.dag_id,
            run_id=self.run_id,
            pipeline=self.one.name,
            kind=self.suffix,
            state=str(self.row["state"]),
            started_at=self.began,
            ended_at=self.ended,
            window=window_mark(self._window()),
            fleet=self.fleet is not None,
            replay=bool(run.get("replay")) or self.run_id.startswith("replay__") or any(c.replay for c in self.checks),
            rehearsal=bool(run.get("rehearsal")),
            start=self._start(),
            title=said.title,
            tone=said.tone,
            sentence=said.sentence,
            version=self.registered.payload["version"] if self.registered else None,
            against=self._note("evaluation").get("champion"),
            gates=gate_lines(self.note),
            changes=[*self._changes()],
            checks=checks,
            events=self._events(),
            sections=[s for s in self._sections() if s.facts],
            reports=[*self._reports(checks)],
            approvals=[a for a in self.one.live.approvals if (a.dag_id, a.run_id) == (self.dag_id, self.run_id)],
            link=run_link(self.dag_id, self.run_id),
        )

    def _window(self) -> dict[str, Any] | None:
        """The run's own window; of a training whose claim is not known, that of the rows it learned from."""
        if self.checks:
            return max((c.window for c in self.checks), key=lambda w: w["end"])
        conf = self.row["conf"] or {}
        if conf.get("window_start") and conf.get("window_end"):
            return {"start": str(conf["window_start"]), "end": str(conf["window_end"])}
        if self.fleet is not None and self.fleet.window:
            return self.fleet.window
        if self.registered is not None and (window := window_of(self.registered)):
            return window
        start, end = self.row["data_interval_start"], self.row["data_interval_end"]
        return {"start": instant(start), "end": instant(end)} if start and end and start < end else None

    def _start(self) -> str | None:
        if self.claims:
            return str(self.claims[-1].payload["start"])
        known = [c.start for c in self.checks if c.start]
        return known[-1] if known else str(self.row["run_type"]).rpartition(".")[2].lower() or None

    def _said(self) -> _Said:
        if self.suffix in ("train", "experiment"):
            return self._training()
        return {"monitor": self._monitoring, "predict": self._prediction, "registry": self._change}[self.suffix]()

    def _unfinished(self) -> _Said:
        state = str(self.row["state"])
        if state == "failed":
            return _Said("The run failed", "bad", "The log of the failed task says why.")
        if state == "success":
            return _Said("The run decided nothing", "info", "It wrote nothing that is still there.")
        return _Said(f"The run is {state}", "info", "Nothing is decided yet.")

    def _training(self) -> _Said:
        if self.claims and not self.claims[-1].payload["go"]:
            return _Said("This run did not train", "info", self.claims[-1].payload["sentence"])
        if self.fleet is not None:
            return self._fleet(self.fleet)
        if self.registered is None:
            return self._unfinished()
        number, verdict = self.registered.payload["version"], self.note.get("verdict")
        name, sentence = f"v{number}", str(self.note.get("sentence") or "")
        model = (self.registered.key, number)
        moves = [e for e in self.records.log if (e.key, e.payload["version"]) == model]
        rejected = self._note("approval").get("answer") not in (None, ["Approve"])
        promoted = [e for e in moves if e.type == "promote"]
        if any(self._while(e.at) for e in promoted):
            return _Said(f"{name} became champion", "ok", sentence)
        # Somebody who promotes it afterwards does not change what this run has decided.
        later = f"; it was promoted later by {promoted[-1].payload.get('by') or 'a later run'}" if promoted else ""
        if any(e.type == "rollout" for e in moves):
            return _Said(f"{name} passed and began to roll out", "ok", sentence)
        if rejected:
            by = self._note("approval").get("by") or "the time-out"
            return _Said(f"{name} was not promoted: {by} said no{later}", "bad", sentence)
        if verdict is None:
            return _Said(f"{name} was trained, and not judged", "info", self._unfinished().title)
        if not self.note.get("go"):
            return _Said(f"{name} was not promoted{later}", verdict_tone(verdict), sentence)
        waiting = any((a.dag_id, a.run_id) == (self.dag_id, self.run_id) for a in self.one.live.approvals)
        if waiting:
            return _Said(f"{name} waits for a person's answer", "warning", sentence)
        return _Said(f"{name} passed, and did not become champion here{later}", "info", sentence)

    def _fleet(self, run: FleetRun) -> _Said:
        tests = trainings.compared(run)
        if (run.approval or {}).get("answer") not in (None, ["Approve"]):
            by = (run.approval or {}).get("by") or "the time-out"
            return _Said(f"Nothing was promoted: {by} said no", "bad", ", ".join(filter(None, (run.sentence, tests))))
        if any((a.dag_id, a.run_id) == (self.dag_id, self.run_id) for a in self.one.live.approvals):
            return _Said("The new models wait for a person's answer", "warning", run.sentence)
        return _Said(run.sentence, fleet_tone(run), tests)

    def _monitoring(self) -> _Said:
        marks = [*self._check_marks()]
        if not marks:
            return self._unfinished()
        alarms = [m for m in marks if m.tone == "warning"]
        asked = [c for c in self.checks if c.name == "request"]
        sentence = str(asked[-1].result.get("sentence", "")) if asked else ""
        if alarms:
            names = ", ".join(m.name for m in alarms)
            return _Said(f"Alarm: {names}", "warning", sentence or "no training was asked for because of it")
        unsure = [m.name for m in marks if m.tone == "unknown"]
        return _Said("No alarm", "ok", f"could not tell: {', '.join(unsure)}" if unsure else sentence)

    def _prediction(self) -> _Said:
        if not self._predictions():
            return self._unfinished()
        result = self._predictions()[-1]
        many, version = result.get("rows", 0), result.get("version")
        by = f"by v{version}" if version is not None else "each by the model of its key"
        return _Said(f"{many:,} rows were scored {by}", "ok", "")

    def _predictions(self) -> list[dict[str, Any]]:
        """What a run scored; one without a window is noted on the version alone."""
        if self.suffix != "predict":
            return []
        noted = [
            note | {"version": e.payload["version"]}
            for e, note in self.records.notes("prediction")
            if self._while(e.at)
        ]
        return [c.result for c in self.checks] or noted

    def _change(self) -> _Said:
        events = self._events()
        if not events:
            return self._unfinished()
        return _Said(events[-1].title, events[-1].tone, events[-1].sentence)

    def _check_marks(self) -> Iterator[CheckMark]:
        for check in self.checks:
            if check.name not in OTHERS and "verdict" in check.result:
                yield check_mark(check, self.one.live)

    def _changes(self) -> Iterator[str]:
        """What would change the verdict, as sentences."""
        yield from run_changes.what_would_change(self.note, self._note("evaluation"))
        if self.fleet is not None:
            yield from trainings.what_would_change(self.fleet)
        if self.claims and not self.claims[-1].payload["go"]:
            yield self.claims[-1].payload["sentence"]

    def _events(self) -> list[Event]:
        """What the run wrote into registry and ledger, oldest first."""
        mine = []
        model = (self.registered.key, self.registered.payload["version"]) if self.registered else None
        for happening in happenings(self.records, self.one.live):
            entry = happening.source
            mine_too = isinstance(entry, FleetRun) and (entry.dag_id, entry.run_id) == (self.dag_id, self.run_id)
            if mine_too or (isinstance(entry, Entry) and self._wrote(entry, model)):
                mine.append(happening)
        return [h.make() for h in sorted(mine, key=lambda h: (h.at, h.id))]

    def _wrote(self, entry: Entry, model: tuple[str | None, int] | None) -> bool:
        body = entry.payload
        if entry.type == "claim":
            return bool(self.suffix == "train" and body["run"] == self.run_id)
        if entry.type == "request":
            run = (body.get("details") or {}).get("run")
            return run == self.run_id if run else self.suffix == "monitor" and self._while(entry.at)
        if entry.type == "experiment":
            return self.suffix == "monitor" and self._while(entry.at)
        if entry.type == "register":
            return self._trained(entry)
        if self.suffix in ("train", "experiment"):
            return model == (entry.key, body["version"]) and self._while(entry.at)
        if self.suffix == "monitor":
            judged = entry.type == "rollout" or (entry.type == "promote" and "rollout" in body)
            return judged and self._while(entry.at)
        if self.suffix == "registry":
            changed = entry.type in _BY_HAND or (entry.type == "rollout" and body["kind"] == "end")
            return changed and self._while(entry.at)
        return False

    # --- tables ------------------------------------------------------------------------------------

    def _sections(self) -> Iterator[Section]:
        record = self._record
        if self.fleet is not None:
            yield Section(title="Fleet", facts=[*trainings.facts(self.fleet)])
        data = run_facts.data(record, self._note("evaluation"), self._window())
        yield Section(title="Data", facts=[*data])
        yield Section(title="Code", facts=[*run_facts.code(record, self.row["bundle_version"])])
        yield Section(title="Model", facts=[*run_facts.model(record)])
        yield Section(title="Prediction", facts=[*run_facts.scored(self._predictions())])
        yield Section(title="Cost", facts=[*run_facts.cost(self._costs())])

    def _costs(self) -> list[dict[str, Any]]:
        costs = [n for n in self._notes("cost") if n.get("run_id") == self.run_id]
        costs += [c.result["cost"] | {"task": c.name} for c in self.checks if c.result.get("cost")]
        costs += [r["job"]["cost"] for r in self._predictions() if r.get("job")]
        return costs + ([self.fleet.cost | {"task": "all tasks"}] if self.fleet and self.fleet.cost else [])

    def _reports(self, checks: list[CheckMark]) -> Iterator[ReportLink]:
        about = f"v{self.registered.payload['version']}" if self.registered is not None else ""
        if self.fleet is not None and (link := report_link(self.dag_id, self.fleet.report)):
            yield ReportLink(name="Gate report", about="all keys", at=self.fleet.at, link=link)
        if link := report_link(self.dag_id, self.note.get("report")):
            yield ReportLink(name="Gate report", about=about, at=None, link=link)
        if link := report_link(self.dag_id, self._note("card").get("html")):
            yield ReportLink(name="Model card", about=about, at=None, link=link)
        for check in checks:
            if check.report:
                name, about = f"{check.name} report".capitalize(), days(check.window.model_dump())
                yield ReportLink(name=name, about=about, at=check.at, link=check.report)
