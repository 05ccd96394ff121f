"""What the entries of a retrain ledger add up to, and why an event may not start a training now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from airflow_mlops.config.models import Retrain, length
from airflow_mlops.config.types import parse_confirm
from airflow_mlops.registry.log import Entry
from airflow_mlops.window import WindowTime

EVENT_STARTS = ("retrain", "new_data")
UNCONFIRMED = ("new_data",)
"""Reasons that are no finding of a check: there is nothing to see a second time."""


@dataclass
class Grant:
    """A yes that waits for its training, was taken by a run, or was closed.

    :param keys: of a fleet, digest of the keys that it is about; ``None``: of all that there is.
    """

    id: str
    at: datetime
    reasons: list[str]
    dry: bool
    keys: str | None = None
    taken_by: str | None = None
    closed: str | None = None

    @property
    def open(self) -> bool:
        """Whether it still waits."""
        return self.taken_by is None and self.closed is None


@dataclass(frozen=True)
class Checked:
    """A check that came to a result.

    :param about: what it judged: the version.
    :param at: end of the window it judged, which need not be that of the run: labels come late. Naive is UTC.
    :param found: what it alarmed about, where that has names: the columns that drifted. Of a fleet both
        are the digest of its :mod:`~airflow_mlops.ml.fleet.alarms`, which have the version of each key.
    """

    about: str
    at: datetime
    found: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What a check alarmed about: pairs of version and finding; empty: it did not alarm."""

    alarms: frozenset[tuple[str, str]]

    @classmethod
    def of(cls, about: str, found: Iterable[str]) -> Seen:
        """An alarm; where nothing has a name it is about one thing, the whole."""
        return cls(frozenset((about, name) for name in (*found,) or ("",)))


@dataclass
class State:
    """What the entries add up to; rehearsals (``dry``) are kept apart and never counted."""

    # (time, started by an event, digest of the keys or None: all)
    trainings: list[tuple[datetime, bool, str | None]] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)
    requests: dict[tuple[str, bool], dict[str, Any]] = field(default_factory=dict)
    went: dict[tuple[str, bool], dict[str, Any]] = field(default_factory=dict)  # (run, dry) → its claim
    checks: dict[tuple[str, bool], dict[datetime, Seen]] = field(default_factory=dict)  # (name, dry) → time → found
    experiments: list[dict[str, Any]] = field(default_factory=list)  # requests for one, without rehearsals

    def open_grant(self) -> Grant | None:
        """The grant that waits; rehearsals have none that others have to mind."""
        return next((g for g in self.grants.values() if g.open and not g.dry), None)


def fold(entries: Iterable[Entry]) -> State:
    """Add up the entries, oldest first."""
    state = State()
    for entry in entries:
        body = entry.payload
        at, dry = datetime.fromisoformat(body["at"]), bool(body["dry"])
        # Of two results for one window the newer counts, as it does among the stored checks.
        for name, found in body.get("checks", {}).items():
            judged = datetime.fromisoformat(found["at"])
            seen = Seen.of(found["about"], found["found"]) if found["alarm"] else Seen(frozenset())
            state.checks.setdefault((name, dry), {})[judged] = seen
        if entry.type == "experiment" and not dry:
            state.experiments.append(body)
        if entry.type in ("check", "experiment") or body["repeats"]:
            continue
        for closed in body["closes"]:
            state.grants[closed].closed = body["closes_because"]
        if entry.type == "request":
            state.requests[body["evidence"], dry] = body
            if body["granted"]:
                state.grants[body["grant"]] = Grant(body["grant"], at, body["reasons"], dry, keys=body.get("keys"))
        elif body["go"]:
            state.went[body["run"], dry] = body
            if body["grant"]:
                state.grants[body["grant"]].taken_by = body["run"]
            if not dry:
                state.trainings.append((at, body["start"] in EVENT_STARTS, body.get("keys")))
    return state


def confirmations(state: State, alarms: Mapping[str, Checked], config: Retrain, *, dry: bool) -> dict[str, int]:
    """How many of the last checks raised each of the ``alarms``, this one included; empty without ``confirm``.

    Of the last n windows up to the one of the alarm, those count in which the check alarmed about the same thing:
    the same version, as what was seen of an earlier champion does not speak against the one in its place, and one
    same column. Of twenty columns another one alarms by chance each time; a shift stays where it is.
    """
    if config.confirm is None:
        return {}
    _, last = parse_confirm(config.confirm)
    counts = {}
    for name, checked in alarms.items():
        known = state.checks.get((name, dry), {})
        before = sorted((t for t in known if t < checked.at), reverse=True)[: last - 1]
        mine = Seen.of(checked.about, checked.found).alarms
        counts[name] = 1 + max(sum(one in known[t].alarms for t in before) for one in mine)
    return counts


def refusals(state: State, at: datetime, config: Retrain, *, some_keys: bool = False) -> dict[str, str]:
    """Why an event may not start a training at ``at``, by kind (``cooldown``, ``budget``); empty if it may.

    :param some_keys: it is about some keys of a fleet, of which each has a cool-down of its own.
    """
    found = {}
    cooldown = length(config.cooldown) if not some_keys else None
    earlier = [t for t, _, keys in state.trainings if t <= at and keys is None]
    if cooldown is not None and earlier and at < max(earlier) + cooldown:
        last = max(earlier)
        found["cooldown"] = f"cool-down until {short(last + cooldown)} (last training {short(last)})"
    if config.max_per_month is not None:
        local = (t.astimezone(at.tzinfo) for t, event, _ in state.trainings if event)
        used = sum((t.year, t.month) == (at.year, at.month) for t in local)
        if used >= config.max_per_month:
            following = (at.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(
                day=1
            )
            found["budget"] = (
                f"budget used up until {short(following)} "
                f"({used} of {config.max_per_month} trainings by events in {at:%Y-%m})"
            )
    return found


def short(at: datetime) -> str:
    """``2013-01-01`` at midnight, else ISO 8601 without offset."""
    return str(WindowTime.fromisoformat(at.isoformat()))
