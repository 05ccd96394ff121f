"""The trainings of a fleet as a whole: one small record for each run, however many models it made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

MADE = ("promoted", "passed", "no_baseline", "inconclusive", "rejected")
"""What became of keys that have a new version."""
MOST = 400
"""So many of the newest are read: a year of nights."""


@dataclass(frozen=True)
class FleetRun:
    """What one training came to.

    :param counts: keys by what became of them, as :mod:`airflow_mlops.ml.fleet.result` counts.
    :param table: digest of the result, a row for each key.
    :param keys: how many there were; ``tests``: how many were compared with a champion; ``limit``: the largest
        p-value that passed.
    :param of: digest of what all versions of the run have in common.
    :param decided_at: when the gates had judged, ``promoted_at``: when the champions changed (UTC, ISO 8601).
    :param approval: ``{"by", "answer"}`` of the person who was asked.
    :param about: ``{"owner", "description"}`` of the pipeline then.
    :param bundle: digest of the bundle that the champions were handed over as.
    :param cost: of the tasks up to the last decision.
    :param partial: whether it was asked for some keys only.
    :param partial: whether it was asked for some keys only.
    :param all_keys: digest of the table with a row for each key that is known, those that were not due as their last
        training left them; ``states``: how many of these came to what. ``None`` of a rehearsal, and in older stores.
    """

    dag_id: str
    run_id: str
    started_at: str
    sentence: str
    counts: dict[str, int]
    table: str
    report: str | None
    keys: int
    tests: int
    limit: float | None
    window: dict[str, Any] | None
    rows: int | None
    rehearsal: bool
    replay: str | None = None
    of: str | None = None
    gated: bool = False
    validated: bool = False
    delivered: bool = False
    decided_at: str | None = None
    promoted_at: str | None = None
    approval: dict[str, Any] | None = None
    about: dict[str, Any] | None = None
    bundle: str | None = None
    cost: dict[str, Any] | None = None
    all_keys: str | None = None
    states: dict[str, int] | None = None

    @property
    def carries(self) -> bool:
        """Whether it says of keys what earlier trainings came to."""
        return self.all_keys is not None and self.all_keys != self.table

    partial: bool | None = None

    @property
    def whole(self) -> bool:
        """Whether all keys were to be trained."""
        return not (self.counts.get("not_due") if self.partial is None else self.partial)

    @property
    def promoted(self) -> int:
        """How many keys got a new champion."""
        return self.counts.get("promoted", 0)

    @property
    def models(self) -> int:
        """How many keys came to a new version."""
        return sum(self.counts.get(status, 0) for status in MADE)

    @property
    def at(self) -> str:
        """When its gates had judged; of a record that does not say, when it began."""
        return self.decided_at or self.started_at

    @property
    def agreed_by(self) -> str | None:
        """The person who said yes."""
        answer = self.approval or {}
        return answer.get("by") if answer.get("answer") == ["Approve"] else None


_FIELDS = tuple(FleetRun.__dataclass_fields__)


def fleet_runs(store: Store, pipeline: str, most: int = MOST) -> tuple[FleetRun, ...]:
    """The newest trainings of a fleet, oldest first; rehearsals too. Of a run that was done again, the last time.

    :raises CorruptObject: one of the records is no such record.
    """
    keys = [*store.list(layout.fleet_runs_prefix(pipeline))][-most:]
    # Trained before each run was recorded apart.
    keys = keys or [layout.fleet_newest(pipeline)]
    found: dict[tuple[str, str], FleetRun] = {}
    for run in parallel(lambda key: _read(store, key), keys, store):
        if run is not None:
            found.pop((run.dag_id, run.run_id), None)
            found[run.dag_id, run.run_id] = run
    return tuple(found.values())


def _read(store: Store, key: str) -> FleetRun | None:
    try:
        body = json.loads(store.get(key))
        return FleetRun(**{name: body[name] for name in _FIELDS if name in body})
    except ObjectNotFound:
        return None
    except (ValueError, TypeError, KeyError) as e:
        raise CorruptObject(
            f"{key!r} in {store.uri} is no record of a fleet's training", hint="delete it; the models do not need it"
        ) from e
