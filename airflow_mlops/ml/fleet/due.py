"""Which keys of a fleet are to be trained again: those with an alarm that is confirmed, and whose cool-down is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_mlops.config.models import Retrain, length
from airflow_mlops.config.types import parse_confirm
from airflow_mlops.ml.fleet.alarms import read_alarms
from airflow_mlops.ml.retrain_state import Checked, State
from airflow_mlops.store import get_json, put_json
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class Due:
    """What became of the keys that ask.

    :param reasons: by key that is to be trained.
    :param unconfirmed: how many alarms wait for their confirmation; ``resting``: keys in their cool-down.
    :param confirmations: by reason, the largest number of checks that saw one key's alarm.
    """

    reasons: dict[str, list[str]]
    unconfirmed: int
    resting: int
    confirmations: dict[str, int]

    @property
    def listed(self) -> list[str]:
        """The reasons of all keys."""
        return sorted({reason for reasons in self.reasons.values() for reason in reasons})

    @property
    def held(self) -> dict[str, str]:
        """Why no key is to be trained, by kind; empty where some are."""
        if self.reasons:
            return {}
        found = {}
        if self.resting:
            found["cooldown"] = f"cool-down of {_keys(self.resting)}"
        if self.unconfirmed:
            found["confirm"] = f"{_keys(self.unconfirmed)} not confirmed yet"
        return found

    @property
    def told(self) -> str:
        """How many keys, and how many of those that ask have to wait."""
        left = [f"{_keys(self.resting)} in cool-down"] if self.resting else []
        left += [f"{_keys(self.unconfirmed)} not confirmed yet"] if self.unconfirmed else []
        return _keys(len(self.reasons)) + (f" ({', '.join(left)})" if left else "")

    def put(self, store: Store) -> str:
        """Store the keys with their reasons; return the digest."""
        return put_json(store, dict(sorted(self.reasons.items())))


def due(
    store: Store, state: State, asked: Mapping[str, str], checks: Mapping[str, Checked], at: datetime, config: Retrain,
    *, dry: bool,
) -> Due:  # fmt: skip
    """Choose among the keys that ask.

    :param asked: by reason, the digest of its alarms. :param checks: by reason, when its check judged.
    :param dry: of a replay that does not promote.
    """
    need = parse_confirm(config.confirm)[0] if config.confirm else 0
    reasons: dict[str, list[str]] = {}
    most: dict[str, int] = {}
    waiting: set[str] = set()
    for reason, digest in sorted(asked.items()):
        counts = _confirmations(store, state, digest, reason, checks[reason].at, config, dry=dry)
        most |= {reason: max(counts.values(), default=0)} if config.confirm else {}
        for key, count in counts.items():
            if count >= need:
                reasons.setdefault(key, []).append(reason)
            else:
                waiting.add(key)
    rest = resting(store, state, reasons, at, config)
    return Due(
        {key: why for key, why in reasons.items() if key not in rest}, len(waiting - set(reasons)), len(rest), most
    )


def _confirmations(
    store: Store, state: State, digest: str, reason: str, at: datetime, config: Retrain, *, dry: bool
) -> dict[str, int]:
    """In how many of the last checks each key alarmed, this one included: of the same version, in one same column."""
    mine = read_alarms(store, digest)
    _, last = parse_confirm(config.confirm) if config.confirm else (0, 1)
    known = state.checks.get((reason, dry), {})
    counts = {key: Counter(dict.fromkeys(_named(found), 1)) for key, (_, found) in mine.items()}
    for time in sorted((t for t in known if t < at), reverse=True)[: last - 1]:
        for _, earlier in known[time].alarms:
            before = read_alarms(store, earlier)
            for key, (version, found) in mine.items():
                if key in before and before[key][0] == version:
                    counts[key].update(set(_named(found)) & set(_named(before[key][1])))
    return {key: max(found.values()) for key, found in counts.items()}


def _named(found: Collection[str]) -> Collection[str]:
    return found or ("",)


def resting(store: Store, state: State, keys: Collection[str], at: datetime, config: Retrain) -> set[str]:
    """Those of ``keys`` that were trained less than the cool-down before ``at``."""
    cooldown = length(config.cooldown)
    if cooldown is None:
        return set()
    recent = [digest for t, _, digest in state.trainings if t <= at < t + cooldown]
    if None in recent:  # a training of all keys
        return set(keys)
    trained: set[Any] = set()
    for digest in dict.fromkeys(recent):
        trained |= set(get_json(store, str(digest)))
    return set(keys) & trained


def _keys(number: int) -> str:
    return f"{number:,} key" + ("" if number == 1 else "s")
