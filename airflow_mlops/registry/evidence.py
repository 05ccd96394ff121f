"""The maturity that recent runs have really exercised. Nothing counts because it is written in a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.maturity import vocabularies
from airflow_mlops.registry.capabilities import CAPABILITIES, NEEDED, OF_THE_LEVEL, Capability
from airflow_mlops.registry.records import Records
from airflow_mlops.store.base import Store

if TYPE_CHECKING:
    from airflow_mlops.config.models import PipelineConfig

STEPS = 3
"""How many next things to do are named."""


@dataclass(frozen=True)
class State:
    """What is known about one capability.

    :param used: whether any record shows it; ``last`` is then its newest date (UTC), or ``None`` if no record says.
    :param recent: whether ``last`` lies within the days asked about.
    :param replay: whether that last time was in a replay of the past.
    :param configured: what the file says; ``None``: no file, or not a matter of the file.
    """

    capability: Capability
    used: bool
    last: datetime | None
    recent: bool
    replay: bool
    configured: bool | None

    def __str__(self) -> str:
        if self.used:
            when = f"{self.last:%Y-%m-%d}" if self.last else "an unknown date"
            return f"exercised on {when}{' in a replay' if self.replay else ''}"
        if self.configured is None:
            return "never exercised"
        return "configured, never exercised" if self.configured else "absent"


@dataclass(frozen=True)
class Assessment:
    """What the records of one pipeline show.

    :param level: the highest level all of whose needs were met within ``days``; ``None``: not even level 0.
    :param next: what to do next, most important first; at most three sentences.
    """

    pipeline: str
    now: datetime
    days: int
    level: int | None
    states: tuple[State, ...]
    next: tuple[str, ...]

    @property
    def last(self) -> datetime | None:
        """When anything was last exercised."""
        return max((s.last for s in self.states if s.last), default=None)

    @property
    def terms(self) -> dict[str, str]:
        """The level in the words of ``google``, ``microsoft`` and ``aws``; empty where there is none."""
        if self.level is None:
            return {}
        return {name: " / ".join(map(str, terms)) for name, terms in vocabularies(self.level).items()}

    def missing(self, level: int) -> list[str]:
        """Names of the needs of ``level`` itself that were not met recently."""
        return [need for need in NEEDED[level] if not any(s.recent for s in _meeting(need, self.states))]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "pipeline": self.pipeline,
            "at": self.now.isoformat(timespec="seconds"),
            "days": self.days,
            "level": self.level,
            "terms": self.terms,
            "missing": {str(level): self.missing(level) for level in NEEDED},
            "capabilities": [
                {
                    "name": s.capability.name,
                    "level": s.capability.level,
                    "meets": list(s.capability.meets),
                    "state": str(s),
                    "last": s.last.isoformat(timespec="seconds") if s.last else None,
                    "recent": s.recent,
                    "replay": s.replay,
                    "configured": s.configured,
                }
                for s in self.states
            ],
            "next": list(self.next),
        }


def assess(store: Store, pipeline: str, config: PipelineConfig | None, now: datetime, days: int) -> Assessment:
    """Read the records of ``pipeline`` and say what they show.

    :param config: the pipeline's file, which tells what is configured and was never exercised.
    :param now: an aware time; ``days`` before it is what counts as recent.
    :raises CorruptObject, StoreUnavailable: as the store does.
    """
    return weigh(Records.read(store, pipeline), pipeline, config, now, days)


def weigh(records: Records, pipeline: str, config: PipelineConfig | None, now: datetime, days: int) -> Assessment:
    """Like :func:`assess`, of records that were read before."""
    since = now - timedelta(days=days)
    states = tuple(_state(capability, records, config, since) for capability in CAPABILITIES)
    found = Assessment(pipeline, now, days, None, states, ())
    level = None
    for number in sorted(NEEDED):
        if found.missing(number):
            break
        level = number
    steps = _next(found, config)
    return Assessment(pipeline, now, days, level, states, tuple(steps[:STEPS]))


def _state(capability: Capability, records: Records, config: PipelineConfig | None, since: datetime) -> State:
    uses = list(capability.uses(records))
    dated = [(use.at, use.replay) for use in uses if use.at]
    last, replay = max(dated, default=(None, False))
    return State(
        capability=capability,
        used=bool(uses),
        last=last.astimezone(UTC) if last else None,
        recent=last is not None and last >= since,
        replay=replay,
        configured=capability.configured(config) if config and capability.configured else None,
    )


def _meeting(need: str, states: Sequence[State]) -> list[State]:
    return [s for s in states if need in s.capability.meets]


# --- the next things to do ---------------------------------------------------------------------------


def _next(found: Assessment, config: PipelineConfig | None) -> list[str]:
    """Everything worth doing, as sentences: what the levels need first; what one action does stands once."""
    actions: dict[str, dict[str, list[str]]] = {}
    for action, what, lapse in (*_needs(found, config), *_extras(found, config)):
        if action:
            actions.setdefault(action.format(p=found.pipeline), {}).setdefault(lapse, []).append(what)
    return [f"{action} ({'; '.join(map(_because, whys.items()))})" for action, whys in actions.items()]


def _because(why: tuple[str, list[str]]) -> str:
    lapse, names = why
    return f"{lapse}: {', '.join(names)}"


def _needs(found: Assessment, config: PipelineConfig | None) -> Iterator[tuple[str, str, str]]:
    for level in sorted(NEEDED):
        for need in found.missing(level):
            meeting = _meeting(need, found.states)
            # What the file asks for already is nearest; then what it may ask for (there is no file to look at).
            best = min(meeting, key=lambda s: {True: 0, None: 1, False: 2}[s.configured])
            if config and config.level < level and need in OF_THE_LEVEL:
                action = f"make {{p}} level {level}: `airflow mlops plan FILE --level {level}` says what is missing"
            else:
                action = _action(best)
            yield action, need, _lapse(meeting, found.days)


def _extras(found: Assessment, config: PipelineConfig | None) -> Iterator[tuple[str, str, str]]:
    """What no level needs, or what is needed and met in another way."""
    if config is None:
        return
    missing = {need for level in NEEDED for need in found.missing(level)}
    for state in found.states:
        capability = state.capability
        # What only a replay has done and the file does not ask for will not happen by itself.
        done = state.recent and not (state.replay and state.configured is False)
        if done or missing & set(capability.meets):
            continue
        if capability.level == config.level and not (capability.waits and state.configured):
            yield _action(state), capability.name, _lapse([state], found.days)


def _action(state: State) -> str:
    return state.capability.add if state.configured is False else state.capability.do


def _lapse(states: Sequence[State], days: int) -> str:
    if any(s.recent for s in states):
        return "only in a replay"
    return f"not in the last {days} days" if any(s.used for s in states) else "never exercised"
