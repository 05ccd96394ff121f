"""The retrain ledger: who may train when, however often the question is asked.

Two steps, both commits of one append-only log. A monitoring run *requests* training and is granted
or told why not; the training run *claims* the grant and goes, or is told why not. Events may be
lost, doubled or late: a grant trains once. Where alarms must be confirmed, checks that found nothing
are noted too: k of the last n checks must have alarmed.

Time is the end of a run's window, never the wall clock, so that a replay of the past behaves like
the past. It may go backwards (a replay beside live runs): a cool-down looks only at trainings whose
time is not after the one asked about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Retrain, length
from airflow_mlops.config.types import parse_confirm
from airflow_mlops.exceptions import RegistryError
from airflow_mlops.ml.futile import Futile, asked_already
from airflow_mlops.ml.retrain_state import (
    EVENT_STARTS,
    UNCONFIRMED,
    Checked,
    Grant,
    State,
    confirmations,
    fold,
    refusals,
    short,
)
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.log import op_id as make_op_id
from airflow_mlops.store import get_json, layout
from airflow_mlops.store.base import Store

if TYPE_CHECKING:
    from airflow_mlops.ml.fleet.due import Due

STARTS = (*EVENT_STARTS, "schedule", "manual", "initial")


@dataclass(frozen=True)
class Decision:
    """The answer to a request; ``grant`` names what the training run has to claim.

    :param reasons: what training is granted for; where it is not, all that asked.
    :param held: why it is not granted, some of ``cooldown``, ``budget``, ``waiting``, ``confirm``.
    :param keys: of a fleet, digest of the keys that are to be trained.
    """

    granted: bool
    grant: str | None
    sentence: str
    reasons: list[str]
    held: list[str] = field(default_factory=list)
    keys: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Claim:
    """Whether this run trains, and why.

    :param held: why it does not: as in :class:`Decision`; empty where the run brings no grant that could be used.
    """

    go: bool
    sentence: str
    reasons: list[str]
    held: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


class _Asked(Exception):
    """An experiment was asked for by the same evidence."""


class Ledger:
    """The retrain ledger of one pipeline.

    :raises CorruptObject, StoreUnavailable: from any method, as the log does.
    """

    def __init__(self, store: Store, pipeline: str) -> None:
        self.pipeline, self._store = pipeline, store
        self._log: Log[State] = Log(store, layout.ledger_prefix(pipeline), fold)

    def note(self, checks: Mapping[str, Checked], *, at: datetime, op_id: str, dry: bool = False) -> None:
        """Record checks that came to a result and did not alarm, for the confirmation of later alarms.

        :param checks: by name.
        :param at: end of the window that was checked; naive is UTC.
        :param dry: of a replay that does not promote; kept apart.
        """
        body = {"at": _time(at).isoformat(), "dry": dry, "checks": _found(checks, ())}
        self._log.append("check", body, op_id=op_id)

    def request(
        self,
        reasons: Sequence[str],
        *,
        evidence: str,
        at: datetime,
        config: Retrain,
        op_id: str,
        checks: Mapping[str, Checked] | None = None,
        details: dict[str, Any] | None = None,
        dry: bool = False,
        keys: Mapping[str, str] | None = None,
    ) -> Decision:
        """Ask for training because of ``reasons``; every answer is recorded.

        The same ``evidence`` (a digest of what was seen) always gets the answer it got first. At most
        one grant is open: while it is, others are suppressed, unless it would be past its cool-down had
        it been used; then its event was lost and the new grant takes its place. With ``config.confirm``
        only reasons that k of the last n checks saw count; results of one time count once.

        :param at: end of the window in which the reasons were seen; naive is UTC.
        :param checks: the checks that came to a result, alarm or not, by name. Only alarms about one version
            and one finding confirm each other. A reason that is not among them was seen at ``at``.
        :param details: plain JSON kept with the request.
        :param dry: decide as usual but spend nothing: a replay that does not promote.
        :param keys: of a fleet, by reason the digest of the keys that alarmed. Cool-down and confirmation are then
            those of each key, and training is granted for the keys that pass both; the budget is the pipeline's.
        """
        when = _time(at)
        grant = f"grant-{make_op_id(self.pipeline, evidence, when.isoformat(), dry)[:12]}"
        checked = {name: Checked("", when) for name in reasons if name not in UNCONFIRMED} | dict(checks or {})

        def decide(state: State) -> dict[str, Any]:
            body = {
                "evidence": evidence, "at": when.isoformat(), "dry": dry, "details": details or {},
                "checks": _found(checked, reasons), "reasons": [*reasons], "confirmations": {},
                "closes": [], "closes_because": "", "repeats": False,
            }  # fmt: skip
            if (before := state.requests.get((evidence, dry))) is not None:
                return body | {key: before[key] for key in _ANSWER if key in before} | {"repeats": True}
            held, lost = refusals(state, when, config, some_keys=keys is not None), None
            due: Due | None = None
            if keys is not None:
                from airflow_mlops.ml.fleet.due import due as choose

                due = choose(self._store, state, keys, checked, when, config, dry=dry)
                counts, confirmed = due.confirmations, due.listed
                held |= due.held
            else:
                counts = confirmations(state, {n: c for n, c in checked.items() if n in reasons}, config, dry=dry)
                need = parse_confirm(config.confirm)[0] if config.confirm else 0
                confirmed = [r for r in reasons if counts.get(r, need) >= need]
            if (waiting := state.open_grant()) is not None:
                if when <= waiting.at or when < waiting.at + (length(config.cooldown) or timedelta()):
                    held["waiting"] = f"{waiting.id} of {short(waiting.at)} still waits for its training"
                else:
                    lost = waiting.id
            if not reasons:
                held = {"nothing": "nothing asks for training"}
            elif not confirmed and due is None:
                held["confirm"] = "; ".join(f"{name} {counts[name]} of {need} confirmations" for name in reasons)
            body |= {"confirmations": counts, "held": [*held]}
            if held:
                return body | {"granted": False, "grant": None, "sentence": f"suppressed: {'; '.join(held.values())}"}
            if lost and not dry:
                body |= {"closes": [lost], "closes_because": f"{grant} of {short(when)} took its place"}
            of = f" of {due.told}" if due is not None else ""
            sentence = f"granted: training{of} because of {_listed(confirmed)}, window until {short(when)}"
            if due is not None:
                body |= {"keys": due.put(self._store)}
            return body | {"granted": True, "grant": grant, "sentence": sentence, "reasons": confirmed}

        body = self._log.append("request", decide, op_id=op_id).payload
        return Decision(
            body["granted"], body["grant"], body["sentence"], body["reasons"], body["held"], body.get("keys")
        )

    def ask_for_experiment(
        self, futile: Futile, *, reasons: Sequence[str], at: datetime, op_id: str, details: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Record that training again no longer helps, and an experiment is asked for; ``None``: it was asked for.

        The same versions or windows ask once.

        :param futile: what :func:`~airflow_mlops.ml.futile.futile` found.
        :param reasons: the alarms of the window that ends ``at``; naive is UTC.
        :param details: plain JSON kept with the request.
        :returns: the request: ``request`` (its id), ``reasons``, ``sentence``, ``versions``, ``windows``.
        """

        def check(state: State) -> None:
            if asked_already(state.experiments, futile):
                raise _Asked

        when = _time(at)
        body = {
            "at": when.isoformat(),
            "dry": False,
            "request": f"experiment-{make_op_id(self.pipeline, futile.versions, futile.windows)[:12]}",
            "reasons": [*reasons],
            "sentence": futile.sentence,
            "versions": futile.versions,
            "windows": futile.windows,
            "details": details or {},
        }
        try:
            return self._log.append("experiment", body, op_id=op_id, check=check).payload
        except _Asked:
            return None

    def asked(self, op_id: str) -> dict[str, Any] | None:
        """The request that an earlier try of this operation has recorded."""
        entry = self._log.find(op_id)
        return entry.payload if entry is not None else None

    def experiments(self) -> list[dict[str, Any]]:
        """Every request for an experiment, oldest first."""
        return list(self._log.state().experiments)

    def waiting(self, at: datetime) -> Grant | None:
        """The grant given before ``at`` that no training has claimed: its event may have been lost.

        Sending it again is safe, as a grant trains once.
        """
        grant = self._log.state().open_grant()
        return grant if grant is not None and grant.at < _time(at) else None

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
        keys: str | None = None,
    ) -> Claim:
        """Decide whether ``run`` trains, and record it.

        :param grant: what :meth:`request` granted; needed for ``start="retrain"``.
        :param start: ``retrain``: claims the grant, once. ``new_data``: asks like a request, then claims.
            ``schedule``, ``manual``, ``initial``: always go; they count for the cool-down but not in the
            budget, and close a grant that waits for the same time or an earlier one.
        :param run: the run's id; a run that asks again gets its own answer again.
        :param evidence: for ``new_data``, names the data (its fingerprint or version).
        :param keys: of a fleet, where no event started it: digest of the only keys that it trains. Their cool-down
            begins, and a grant that waits goes on waiting.
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
                return Claim(False, decision.sentence, decision.reasons, decision.held)
            grant = decision.grant

        def decide(state: State) -> dict[str, Any]:
            body = {
                "grant": grant, "start": start, "at": when.isoformat(), "run": run, "dry": dry, "evidence": evidence,
                "closes": [], "closes_because": "", "repeats": False, "reasons": [start], "held": [],
            }  # fmt: skip
            if (before := state.went.get((run, dry))) is not None:
                return body | {k: before[k] for k in ("go", "sentence", "reasons")} | {"repeats": True}
            if start not in EVENT_STARTS:
                body |= {"keys": keys} if keys else {}
                waiting = state.open_grant()
                if waiting is not None and waiting.at <= when and not dry and keys is None:
                    body |= {"closes": [waiting.id], "closes_because": f"run {run} trained ({start})"}
                return body | {"go": True, "grant": None, "sentence": f"training: {_START_TEXT[start]}"}
            mine = state.grants.get(grant or "")
            if mine is not None:
                body |= {"reasons": mine.reasons} | ({"keys": mine.keys} if mine.keys else {})
            problem = _unclaimable(self.pipeline, grant, mine, dry)
            if problem is None and mine is not None and (held := self._refused(state, mine, when, config)):
                problem = f"suppressed: {'; '.join(held.values())}"
                body |= {"closes": [mine.id], "closes_because": problem, "held": [*held]}
            if problem or mine is None:
                return body | {"go": False, "sentence": problem}
            return body | {"go": True, "sentence": f"training because of {_listed(mine.reasons)} ({mine.id})"}

        body = self._log.append("claim", decide, op_id=op_id).payload
        return Claim(body["go"], body["sentence"], body["reasons"], body["held"])

    def _refused(self, state: State, grant: Grant, when: datetime, config: Retrain) -> dict[str, str]:
        """Why a grant may not start its training now, by kind; of a fleet, the cool-down is that of its keys."""
        if grant.keys is None:
            return refusals(state, when, config)
        from airflow_mlops.ml.fleet.due import resting

        held = refusals(state, when, config, some_keys=True)
        keys = get_json(self._store, grant.keys)
        if len(resting(self._store, state, keys, when, config)) == len(keys):
            held["cooldown"] = f"cool-down of all its {len(keys):,} keys"
        return held

    def history(self) -> list[dict[str, Any]]:
        """All requests and claims, oldest first, as rows for a table.

        Each: ``step`` (request, claim, or experiment where one was asked for), ``at``, ``yes``, ``sentence``,
        ``reasons``, ``held``, ``confirmations``, ``grant``, ``run``, ``start``, ``dry``, ``repeats`` (asked before, not
        counted again), ``recorded`` (wall clock).
        """
        return [
            {
                "step": entry.type,
                "at": entry.payload["at"],
                "yes": entry.type == "experiment" or bool(entry.payload.get("granted", entry.payload.get("go"))),
                **{key: entry.payload.get(key) for key in _SHOWN},
                "recorded": entry.at,
            }
            for entry in self._log.entries()
            if entry.type != "check"
        ]


_ANSWER = ("granted", "grant", "sentence", "reasons", "held", "confirmations", "keys")
_SHOWN = ("sentence", "reasons", "held", "confirmations", "grant", "run", "start", "dry", "repeats")
_START_TEXT = {"schedule": "by the schedule", "manual": "started by a person", "initial": "there is no champion yet"}


def _unclaimable(pipeline: str, grant: str | None, known: Grant | None, dry: bool) -> str | None:
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


def _found(checks: Mapping[str, Checked], alarms: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"alarm": name in alarms, "about": one.about, "at": _time(one.at).isoformat(), "found": [*one.found]}
        for name, one in checks.items()
    }


def _time(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _listed(reasons: Sequence[str]) -> str:
    return " and ".join(reasons)
