"""What a pipeline's run records say it has done, and when by the wall clock.

Rehearsals (runs that do not promote) are left out: they change nothing that is served.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from airflow_mlops.registry.checks import Check, all_checks
from airflow_mlops.registry.fleet_alarms import standing_alarms
from airflow_mlops.registry.fleet_runs import FleetRun, fleet_runs
from airflow_mlops.registry.items import BATCH, expanded
from airflow_mlops.registry.log import Entry, Log
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

_AUTOMATIC = ("schedule", "retrain", "new_data")


@dataclass(frozen=True)
class Use:
    """One time that something was done.

    :param at: when, aware; ``None`` where the record does not say.
    :param replay: in a replay of the past.
    """

    at: datetime | None
    replay: bool = False


_Model = tuple[str | None, int]


@dataclass(frozen=True)
class Records:
    """The registry's log, the retrain ledger's log, and the stored checks of one pipeline.

    Commits about many models of a fleet are not in ``log``: a year of nights has millions of items. What they came to
    is in ``runs``; :func:`airflow_mlops.registry.key_story.key_records` tells of one model.

    :param seq: the last commit of the registry.
    :param batches: how many commits are about many models; 0: it is no fleet that was trained.
    :param runs: the trainings of a fleet, oldest first.
    :param alarms: by check of a fleet, how many keys its newest result still alarms about, and how many it did.
    """

    log: tuple[Entry, ...]
    ledger: tuple[Entry, ...]
    checks: tuple[Check, ...]
    seq: int = 0
    batches: int = 0
    runs: tuple[FleetRun, ...] = ()
    alarms: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, pipeline: str) -> Records:
        """Read them all.

        :raises CorruptObject, StoreUnavailable: as the store and the logs do.
        """
        entries = Log(store, layout.log_prefix(pipeline)).entries()
        alone = [entry for entry in entries if entry.type != BATCH]
        batches = len(entries) - len(alone)
        checks = tuple(all_checks(store, pipeline))
        return cls(
            log=tuple(expanded(store, alone)),
            ledger=Log(store, layout.ledger_prefix(pipeline)).entries(),
            checks=checks,
            seq=entries[-1].seq if entries else 0,
            batches=batches,
            runs=fleet_runs(store, pipeline) if batches else (),
            alarms=standing_alarms(store, pipeline, checks) if batches else {},
        )

    def __bool__(self) -> bool:
        return bool(self.log or self.ledger or self.checks or self.batches)

    @cached_property
    def trainings(self) -> tuple[FleetRun, ...]:
        """The fleet's trainings that were no rehearsals."""
        return tuple(run for run in self.runs if not run.rehearsal)

    @cached_property
    def versions(self) -> dict[_Model, Entry]:
        """Registrations of versions by (model key, number)."""
        found = {(e.key, e.payload["version"]): e for e in self.log if e.type == "register"}
        return {model: e for model, e in found.items() if not _run(e).get("rehearsal")}

    def notes(self, kind: str) -> Iterator[tuple[Entry, dict[str, Any]]]:
        """What was noted about versions: (entry, note)."""
        for entry in self.log:
            if entry.type == "annotate" and entry.payload["kind"] == kind:
                yield entry, entry.payload["note"]

    def uses(self, entries: Iterable[Entry]) -> Iterator[Use]:
        """When each entry about a version was written, and whether a replay trained that version."""
        for entry in entries:
            if version := self.versions.get(_model(entry)):
                yield Use(_time(entry.at), bool(_run(version).get("replay")))
            elif self.batches and entry.type != "register":
                # Of a model whose registration is one of thousands in a commit.
                yield Use(_time(entry.at))

    def fleet_uses(self, did: Callable[[FleetRun], Any]) -> Iterator[Use]:
        """The trainings of a fleet that ``did`` it."""
        yield from (Use(_time(run.at), bool(run.replay)) for run in self.trainings if did(run))


def stored_pipelines(store: Store) -> list[str]:
    """Names of the pipelines that have anything in the store."""
    prefix = layout.pipelines_prefix()
    parts = (key.removeprefix(prefix).partition("/") for key in store.list(prefix))
    return sorted({name for name, slash, _ in parts if slash and layout.is_name(name)})


# --- what counts as having done it -------------------------------------------------------------------


def trained(records: Records) -> Iterator[Use]:
    """A version was registered with the snapshot it learned from."""
    yield from records.uses(e for e in records.versions.values() if _snapshot(e).get("fingerprint"))
    yield from records.fleet_uses(lambda run: run.models)


def experimented(records: Records) -> Iterator[Use]:
    """A version was registered that had won against other variants."""
    found = (e for e in records.versions.values() if e.payload["record"].get("experiment"))
    return records.uses(found)


def validated(records: Records) -> Iterator[Use]:
    """A version was trained on data that went through validation."""
    yield from records.uses(e for e in records.versions.values() if _snapshot(e).get("validation"))
    yield from records.fleet_uses(lambda run: run.models and run.validated)


def judged(records: Records) -> Iterator[Use]:
    """At least one gate judged a candidate."""
    yield from records.uses(e for e, note in records.notes("gates") if note.get("results"))
    yield from records.fleet_uses(lambda run: run.models and run.gated)


def refused(records: Records) -> Iterator[Use]:
    """The gates did not let a candidate pass."""
    verdicts = ("rejected", "inconclusive")
    yield from records.uses(e for e, note in records.notes("gates") if note.get("verdict") in verdicts)
    yield from records.fleet_uses(lambda run: any(run.counts.get(verdict) for verdict in verdicts))


def approved(records: Records) -> Iterator[Use]:
    """A person said yes; an approval by time-out names nobody."""
    yield from records.uses(e for e, note in records.notes("approval") if note.get("by") and _yes(note))
    yield from records.fleet_uses(lambda run: run.agreed_by)


def _yes(note: dict[str, Any]) -> bool:
    return note.get("answer") == ["Approve"]


def handed_over(records: Records) -> Iterator[Use]:
    """A bundle was made."""
    yield from records.uses(e for e, _ in records.notes("handover"))
    yield from records.fleet_uses(lambda run: run.bundle)


def promoted_by_gates(records: Records) -> Iterator[Use]:
    """A version became champion because gates passed, and nobody was asked before."""
    yield from records.uses(entry for entry, asked in _promoted(records) if not asked)
    yield from records.fleet_uses(lambda run: run.gated and run.promoted and not run.agreed_by)


def promoted_after_approval(records: Records) -> Iterator[Use]:
    """A version became champion because gates passed and a person said yes, without a handover."""
    handed = {_model(e) for e, _ in records.notes("handover")}
    yield from records.uses(entry for entry, asked in _promoted(records) if asked and _model(entry) not in handed)
    yield from records.fleet_uses(lambda run: run.gated and run.promoted and run.agreed_by and not run.bundle)


def _promoted(records: Records) -> Iterator[tuple[Entry, bool]]:
    """Promotions of versions that passed a gate, and whether a person said yes before."""
    passed: set[_Model] = set()
    asked: set[_Model] = set()
    for entry in records.log:
        note = entry.payload.get("note") or {}
        if entry.payload.get("kind") == "approval" and _yes(note):
            asked.add(_model(entry))
        elif entry.payload.get("kind") == "gates" and note.get("go"):
            # Where there is no champion yet, a comparison with it lets everything through: another gate must pass.
            if any(line.get("verdict") == "passed" for line in note.get("results") or ()):
                passed.add(_model(entry))
        elif entry.type == "promote" and _model(entry) in passed:
            yield entry, _model(entry) in asked or entry.payload.get("by") is not None


def rolled_back(records: Records) -> Iterator[Use]:
    """A version that had been champion became it again."""
    before: set[_Model] = set()
    for entry in (e for e in records.log if e.type in ("promote", "rollback")):
        again = entry.type == "rollback" or _model(entry) in before
        if again and entry.payload.get("expected") != entry.payload["version"]:
            yield from records.uses([entry])
        before.add(_model(entry))


def delivered(records: Records) -> Iterator[Use]:
    """A version was trained by code that was delivered."""
    code = ((e, e.payload["record"].get("code") or {}) for e in records.versions.values())
    yield from records.uses(e for e, found in code if found.get("delivered"))
    yield from records.fleet_uses(lambda run: run.models and run.delivered)


def rolled_out(records: Records) -> Iterator[Use]:
    """A rollout went to its next step, or to its end as champion, by a verdict."""
    for entry in records.log:
        if (entry.type == "rollout" and entry.payload["kind"] == "next") or "rollout" in entry.payload:
            yield from records.uses([entry])


def fell(records: Records) -> Iterator[Use]:
    """A version that rolled out was rolled back by itself."""
    ended = (e for e in records.log if e.type == "rollout" and (e.payload["kind"], e.payload["by"]) == ("end", None))
    yield from records.uses(ended)


def predicted(records: Records) -> Iterator[Use]:
    """Rows were scored, whoever started it."""
    yield from (_use(c) for c in records.checks if c.name == "prediction")
    yield from records.uses(e for e, _ in records.notes("prediction"))


def predicted_unasked(records: Records) -> Iterator[Use]:
    """Rows were scored in a run that no person started."""
    for check in records.checks:
        if check.name == "prediction" and (check.replay or check.start not in (None, "manual")):
            yield _use(check)


def checked(name: str, *verdicts: str) -> Callable[[Records], Iterator[Use]]:
    """The monitoring check ``name`` came to one of ``verdicts``."""

    def uses(records: Records) -> Iterator[Use]:
        return (_use(c) for c in records.checks if c.name == name and c.result.get("verdict") in verdicts)

    return uses


def started_by(reason: str) -> Callable[[Records], Iterator[Use]]:
    """A training that ``reason`` (``schedule``, ``new_data``, ``drift``, …) started came to a version."""

    def uses(records: Records) -> Iterator[Use]:
        runs = {
            body["run"]
            for body in (e.payload for e in _ledger(records, "claim"))
            # A person may write any reason into the form; the id of such a run is Airflow's own.
            if body["go"] and body["start"] in _AUTOMATIC and reason in body["reasons"]
            and not body["run"].startswith("manual__")
        }  # fmt: skip
        yield from records.uses(e for e in records.versions.values() if _run(e).get("run_id") in runs)
        yield from records.fleet_uses(lambda run: run.models and run.run_id in runs)

    return uses


def granted(records: Records) -> Iterator[Use]:
    """The retrain ledger granted a training."""
    return (Use(_time(e.at)) for e in _ledger(records, "request") if e.payload["granted"])


def held_back(records: Records) -> Iterator[Use]:
    """The retrain ledger did not grant a training that was asked for: unconfirmed, too soon, over budget, one waits."""
    return (Use(_time(e.at)) for e in _ledger(records, "request") if not e.payload["granted"])


# --- small readers -----------------------------------------------------------------------------------


def _ledger(records: Records, step: str) -> Iterator[Entry]:
    """Requests or claims that counted: no rehearsals, no question asked again."""
    return (e for e in records.ledger if e.type == step and not e.payload["dry"] and not e.payload["repeats"])


def _model(entry: Entry) -> _Model:
    return entry.key, entry.payload["version"]


def _run(registration: Entry) -> dict[str, Any]:
    return registration.payload["record"].get("run") or {}


def _snapshot(registration: Entry) -> dict[str, Any]:
    return registration.payload["record"].get("snapshot") or {}


def _use(check: Check) -> Use:
    return Use(_time(check.at), bool(check.replay))


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
