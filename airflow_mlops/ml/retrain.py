"""The retrain ledger: who may train when, however often the question is asked.

Two steps, both commits of one append-only log. A monitoring run *requests* training and is granted
or told why not; the training run *claims* the grant and goes, or is told why not. Events may be
lost, doubled or late: a grant trains once.

Time is the end of a run's window, never the wall clock, so that a replay of the past behaves like
the past. It may go backwards (a replay beside live runs): a cool-down looks only at trainings whose
time is not after the one asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.config.models import Retrain, length
from airflow_mlops.exceptions import RegistryError
from airflow_mlops.registry.log import Entry, Log
from airflow_mlops.registry.log import op_id as make_op_id
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.window import WindowTime

EVENT_STARTS = ("retrain", "new_data")
STARTS = (*EVENT_STARTS, "schedule", "manual", "initial")


@dataclass(frozen=True)
class Decision:
    """The answer to a request; ``grant`` names what the training run has to claim."""

    granted: bool
    grant: str | None
    sentence: str
    reasons: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Claim:
    """Whether this run trains, and why."""

    go: bool
    sentence: str
    reasons: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass
class _Grant:
    id: str
    at: datetime
    reasons: list[str]
    dry: bool
    taken_by: str | None = None
    closed: str | None = None

    @property
    def open(self) -> bool:
        return self.taken_by is None and self.closed is None


@dataclass
class _State:
    """What the entries add up to; rehearsals (``dry``) are kept apart and never counted."""

    trainings: list[tuple[datetime, bool]] = field(default_factory=list)  # (time, started by an event)
    grants: dict[str, _Grant] = field(default_factory=dict)
    requests: dict[tuple[str, bool], dict[str, Any]] = field(default_factory=dict)
    went: dict[tuple[str, bool], dict[str, Any]] = field(default_factory=dict)  # (run, dry) → its claim

    def open_grant(self) -> _Grant | None:
        return next((g for g in self.grants.values() if g.open and not g.dry), None)


def _fold(entries: tuple[Entry, ...]) -> _State:
    state = _State()
    for entry in entries:
        body = entry.payload
        if body["repeats"]:
            continue
        at, dry = datetime.fromisoformat(body["at"]), bool(body["dry"])
        for closed in body["closes"]:
            state.grants[closed].closed = body["closes_because"]
        if entry.type == "request":
            state.requests[body["evidence"], dry] = body
            if body["granted"]:
                state.grants[body["grant"]] = _Grant(body["grant"], at, body["reasons"], dry)
        elif body["go"]:
            state.went[body["run"], dry] = body
            if body["grant"]:
                state.grants[body["grant"]].taken_by = body["run"]
            if not dry:
                state.trainings.append((at, body["start"] in EVENT_STARTS))
    return state


class Ledger:
    """The retrain ledger of one pipeline.

    :raises CorruptObject, StoreUnavailable: from any method, as the log does.
    """

    def __init__(self, store: Store, pipeline: str) -> None:
        self.pipeline = pipeline
        self._log: Log[_State] = Log(store, layout.ledger_prefix(pipeline), _fold)

    def request(
        self,
        reasons: Sequence[str],
        *,
        evidence: str,
        at: datetime,
        config: Retrain,
        op_id: str,
        details: dict[str, Any] | None = None,
        dry: bool = False,
    ) -> Decision:
        """Ask for training because of ``reasons``; every answer is recorded.

        The same ``evidence`` (a digest of what was seen) always gets the answer it got first. At most
        one grant is open: while it is, others are suppressed, unless it would be past its cool-down had
        it been used; then its event was lost and the new grant takes its place.

        :param at: end of the window in which the reasons were seen; naive is UTC.
        :param details: plain JSON kept with the request.
        :param dry: decide as usual but spend nothing: a replay that does not promote.
        """
        when = _time(at)
        grant = f"grant-{make_op_id(self.pipeline, evidence, when.isoformat(), dry)[:12]}"

        def decide(state: _State) -> dict[str, Any]:
            body = {
                "evidence": evidence, "at": when.isoformat(), "dry": dry, "details": details or {},
                "reasons": [*reasons], "closes": [], "closes_because": "", "repeats": False,
            }  # fmt: skip
            if (before := state.requests.get((evidence, dry))) is not None:
                same = {k: before[k] for k in ("granted", "grant", "sentence", "reasons")}
                return body | same | {"repeats": True}
            refusal, lost = _refusal(state, when, config), None
            if not reasons:
                refusal = "suppressed: nothing asks for training"
            elif (waiting := state.open_grant()) is not None:
                if when <= waiting.at or when < waiting.at + (length(config.cooldown) or timedelta()):
                    refusal = f"suppressed: {waiting.id} of {_short(waiting.at)} still waits for its training"
                elif refusal is None and not dry:
                    lost = waiting.id
            if lost:
                body |= {"closes": [lost], "closes_because": f"{grant} of {_short(when)} took its place"}
            if refusal:
                return body | {"granted": False, "grant": None, "sentence": refusal}
            sentence = f"granted: training because of {_listed(reasons)}, window until {_short(when)}"
            return body | {"granted": True, "grant": grant, "sentence": sentence}

        body = self._log.append("request", decide, op_id=op_id).payload
        return Decision(body["granted"], body["grant"], body["sentence"], body["reasons"])

    def claim(
        self,
        grant: str | None,
        *,
        start: str,
        at: datetime,
        run: str,
        config: Retrain,
        op_id: str,
        evidence: str = "",
        dry: bool = False,
    ) -> Claim:
        """Decide whether ``run`` trains, and record it.

        :param grant: what :meth:`request` granted; needed for ``start="retrain"``.
        :param start: ``retrain``: claims the grant, once. ``new_data``: asks like a request, then claims.
            ``schedule``, ``manual``, ``initial``: always go; they count for the cool-down but not in the
            budget, and close a grant that waits for the same time or an earlier one.
        :param run: the run's id; a run that asks again gets its own answer again.
        :param evidence: for ``new_data``, names the data (its fingerprint or version).
        :raises RegistryError: for an unknown ``start``.
        """
        if start not in STARTS:
            raise RegistryError(f"{start!r} is no way to start a training", hint=f"use one of {', '.join(STARTS)}")
        when = _time(at)
        if start == "new_data":
            decision = self.request(
                ["new_data"],
                evidence=evidence or f"run {run}",
                at=when,
                config=config,
                op_id=make_op_id(op_id, "request"),
                details={"run": run},
                dry=dry,
            )
            if not decision.granted:
                return Claim(False, decision.sentence, decision.reasons)
            grant = decision.grant

        def decide(state: _State) -> dict[str, Any]:
            body = {
                "grant": grant, "start": start, "at": when.isoformat(), "run": run, "dry": dry, "evidence": evidence,
                "closes": [], "closes_because": "", "repeats": False, "reasons": [start],
            }  # fmt: skip
            if (before := state.went.get((run, dry))) is not None:
                return body | {k: before[k] for k in ("go", "sentence", "reasons")} | {"repeats": True}
            if start not in EVENT_STARTS:
                waiting = state.open_grant()
                if waiting is not None and waiting.at <= when and not dry:
                    body |= {"closes": [waiting.id], "closes_because": f"run {run} trained ({start})"}
                return body | {"go": True, "grant": None, "sentence": f"training: {_START_TEXT[start]}"}
            mine = state.grants.get(grant or "")
            if mine is not None:
                body["reasons"] = mine.reasons
            problem = _unclaimable(self.pipeline, grant, mine, dry)
            if problem is None and mine is not None:
                problem = _refusal(state, when, config)
                if problem:
                    body |= {"closes": [mine.id], "closes_because": problem}
            if problem or mine is None:
                return body | {"go": False, "sentence": problem}
            return body | {"go": True, "sentence": f"training because of {_listed(mine.reasons)} ({mine.id})"}

        body = self._log.append("claim", decide, op_id=op_id).payload
        return Claim(body["go"], body["sentence"], body["reasons"])

    def history(self) -> list[dict[str, Any]]:
        """All requests and claims, oldest first, as rows for a table.

        Each: ``step`` (request or claim), ``at``, ``yes``, ``sentence``, ``reasons``, ``grant``, ``run``,
        ``start``, ``dry``, ``repeats`` (asked before, not counted again), ``recorded`` (wall clock).
        """
        return [
            {
                "step": entry.type,
                "at": entry.payload["at"],
                "yes": bool(entry.payload.get("granted", entry.payload.get("go"))),
                **{k: entry.payload.get(k) for k in ("sentence", "reasons", "grant", "run", "start", "dry", "repeats")},
                "recorded": entry.at,
            }
            for entry in self._log.entries()
        ]


_START_TEXT = {"schedule": "by the schedule", "manual": "started by a person", "initial": "there is no champion yet"}


def _unclaimable(pipeline: str, grant: str | None, known: _Grant | None, dry: bool) -> str | None:
    if grant is None:
        return "no training: the run carries no grant"
    if known is None:
        return f"no training: {grant} is not in the retrain ledger of {pipeline}"
    if known.taken_by is not None:
        return f"no training: {grant} was already claimed by run {known.taken_by}"
    if known.closed is not None:
        return f"no training: {grant} is closed, {known.closed}"
    if known.dry != dry:
        return (
            f"no training: {grant} belongs to a {'rehearsal' if known.dry else 'run that promotes'}, this run does not"
        )
    return None


def _refusal(state: _State, at: datetime, config: Retrain) -> str | None:
    """Why an event may not start a training at ``at``; None if it may."""
    cooldown = length(config.cooldown)
    earlier = [t for t, _ in state.trainings if t <= at]
    if cooldown is not None and earlier and at < max(earlier) + cooldown:
        last = max(earlier)
        return f"suppressed: cool-down until {_short(last + cooldown)} (last training {_short(last)})"
    if config.max_per_month is not None:
        month = (at.year, at.month)
        local = (t.astimezone(at.tzinfo) for t, event in state.trainings if event)
        used = sum((t.year, t.month) == month for t in local)
        if used >= config.max_per_month:
            return f"suppressed: {used} of {config.max_per_month} trainings by events in {at:%Y-%m} are used"
    return None


def _time(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _short(at: datetime) -> str:
    return str(WindowTime.fromisoformat(at.isoformat()))


def _listed(reasons: Sequence[str]) -> str:
    return " and ".join(reasons)
