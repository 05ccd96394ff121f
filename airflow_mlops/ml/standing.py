"""Where a pipeline stands now: what serves, what the last training and the last checks came to, what it costs.

One reading of a pipeline's records answers it all, for tables of many pipelines and for pages about one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_mlops.ml.cost import total
from airflow_mlops.ml.history import ALARMS, CALM, OTHERS
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.evidence import Assessment, weigh
from airflow_mlops.registry.fleet_runs import FleetRun
from airflow_mlops.registry.records import Records
from airflow_mlops.registry.rollout import Rollout, rollout_of
from airflow_mlops.registry.state import Model
from airflow_mlops.store.base import Store

POINTS = 30
"""How many of the last values of performance are kept."""
DAYS = 30
"""What counts as recent for the level exercised."""


@dataclass(frozen=True)
class Champion:
    """The version that serves: promoted ``at`` (UTC) ``by`` a person, or by its gates alone (``None``).

    :param trained_until: end of the window of the rows it learned from; ``None``: they had none.
    """

    version: int
    at: str
    by: str | None
    trained_until: str | None


@dataclass(frozen=True)
class Candidate:
    """The newest version and what its gates said; ``verdict`` is ``None`` where they have not judged.

    :param run: ``{"dag_id", "run_id", …}`` of its training, or empty.
    """

    version: int
    key: str | None
    at: str
    verdict: str | None
    sentence: str
    window: dict[str, str] | None
    run: dict[str, Any]
    promoted: bool


@dataclass(frozen=True)
class Trend:
    """The last values of performance, oldest first, each as the check told it."""

    metric: str
    lower_is_better: bool
    points: tuple[Check, ...]


@dataclass(frozen=True)
class Standing:
    """Where one pipeline stands; what was never done is ``None`` or empty.

    :param assessed: the level that runs of the last 30 days have exercised, and what to do next.
    :param keys: of models that were registered one by one, their names; empty where there is one model, or a fleet.
    :param fleet: of a fleet, its newest training; ``is_fleet`` holds before the first one has ended, too.
    :param champion: of a pipeline with one model; ``returns_to``: what a rollback would make champion.
    :param checks: the newest result of each check, by name; ``alarms``: those that alarm about what serves now.
    :param keys_alarmed: of a fleet, by check, how many keys its newest result still alarms about, and how many it did.
    :param request: the newest request for a training, as the ledger has it, unless a training went on since.
    :param cost: what this month's steps took, as :func:`~airflow_mlops.ml.cost.total` tells it, and its ``month``.
    """

    pipeline: str
    assessed: Assessment
    models: int
    keys: tuple[str, ...]
    champion: Champion | None
    challenger: int | None
    returns_to: int | None
    rollout: Rollout | None
    candidate: Candidate | None
    checks: dict[str, Check]
    alarms: dict[str, Check]
    performance: Trend | None
    request: dict[str, Any] | None
    cost: dict[str, Any] | None
    owner: str | None
    description: str | None
    is_fleet: bool = False
    fleet: FleetRun | None = None
    keys_alarmed: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def standing(store: Store, pipeline: str, now: datetime) -> Standing:
    """Read a pipeline's records and say where it stands.

    :param now: an aware time.
    :raises CorruptObject, StoreUnavailable: as the store does.
    """
    return stands(Records.read(store, pipeline), pipeline, now)


def stands(records: Records, pipeline: str, now: datetime) -> Standing:
    """Like :func:`standing`, of records that were read before."""
    # What is known of single models of a fleet are changes by hand: they add up to nothing.
    models = {} if records.batches else fold(records.log)
    model = models.get(None) or Model(None)
    about = _about(records)
    fleet = records.trainings[-1] if records.trainings else None
    champion = _champion(records, model)
    checks = {c.name: c for c in records.checks if c.name not in OTHERS and "verdict" in c.result}
    return Standing(
        pipeline=pipeline,
        assessed=weigh(records, pipeline, None, now, DAYS),
        models=fleet.keys if fleet else len(models),
        keys=tuple(sorted(key for key in models if key is not None)),
        champion=champion,
        challenger=model.challenger,
        returns_to=model.before[-1] if model.before else None,
        rollout=rollout_of(model.rollout) if model.rollout else None,
        candidate=_candidate(records),
        checks=checks,
        alarms=_alarms(checks, champion, records.alarms),
        keys_alarmed=records.alarms,
        performance=_trend(records),
        request=_request(records),
        cost=_cost(records, now),
        owner=about.get("owner"),
        description=about.get("description"),
        is_fleet=bool(records.batches),
        fleet=fleet,
    )


def alarmed(verdict: str) -> bool | None:
    """Whether a check's verdict is an alarm; ``None``: it could not tell."""
    return True if verdict in ALARMS else False if verdict in CALM else None


def _alarms(
    checks: Mapping[str, Check], champion: Champion | None, keys: Mapping[str, tuple[int, int]]
) -> dict[str, Check]:
    """The checks that alarm about what serves now: an alarm about a champion that was replaced since is answered.

    :param keys: of a fleet, by check, how many keys it still alarms about, and how many it did.
    """
    now = champion.version if champion else None
    return {
        name: check
        for name, check in checks.items()
        if alarmed(str(check.result["verdict"]))
        and (now is None or check.result.get("version") in (None, now))
        # Rows that came too late are no key's, and no training answers them.
        and (keys.get(name, (1, 1))[0] or "data" in check.result.get("stale", ()))
    }


def answered(alarms: tuple[int, int] | None) -> str:
    """What to say of a fleet's alarm: ``10 of its 12 keys have a new champion since``; nothing where none has."""
    if alarms is None or alarms[0] == alarms[1]:
        return ""
    left, many = alarms
    if many == 1:
        return "its key has a new champion since"
    if not left:
        return "all of its keys have a new champion since"
    return f"{many - left:,} of its {many:,} keys {'has' if many - left == 1 else 'have'} a new champion since"


def fold(log: tuple[Entry, ...]) -> dict[str | None, Model]:
    """What the entries of a registry's log add up to: aliases by model key.

    ``places`` of a model counts its versions and points nowhere.
    """
    models: dict[str | None, Model] = {}
    for entry in log:
        body = entry.payload
        model = models.setdefault(entry.key, Model(entry.key))
        if entry.type == "register":
            model.places.append(-1)
        elif entry.type == "challenger":
            model.try_out(body["version"])
        elif entry.type == "promote":
            model.crown(body["version"])
        elif entry.type == "rollback":
            model.step_back(body["version"])
        elif entry.type == "rollout":
            model.roll(entry.seq, body)
        elif entry.type == "retire":
            model.retire(body["version"])
    return models


def metric_direction(records: Records, metric: str) -> bool:
    """Whether lower values of a metric are better, as the newest evaluation that has it says; else False."""
    for _, note in reversed([*records.notes("evaluation")]):
        if metric in (note.get("metrics") or {}):
            return bool(note["metrics"][metric].get("lower_is_better"))
    return False


def window_of(registration: Entry) -> dict[str, str] | None:
    """The window of the rows that a version learned from."""
    window: dict[str, str] | None = (registration.payload["record"].get("snapshot") or {}).get("window")
    return window


def _about(records: Records) -> dict[str, Any]:
    if records.trainings:
        return records.trainings[-1].about or {}
    newest = next(reversed(records.versions.values()), None)
    return (newest.payload["record"].get("about") or {}) if newest else {}


def _champion(records: Records, model: Model) -> Champion | None:
    if model.champion is None:
        return None
    crowned = [e for e in records.log if e.type in ("promote", "rollback") and e.key == model.key]
    last = crowned[-1]
    registered = next(
        e for e in records.log if (e.type, e.key, e.payload["version"]) == ("register", model.key, model.champion)
    )
    window = window_of(registered)
    return Champion(model.champion, last.at, last.payload.get("by"), window["end"] if window else None)


def _candidate(records: Records) -> Candidate | None:
    if not records.versions or records.batches:
        return None
    (key, number), entry = [*records.versions.items()][-1]
    judged = [n for e, n in records.notes("gates") if (e.key, e.payload["version"]) == (key, number)]
    note = judged[-1] if judged else {}
    return Candidate(
        version=number,
        key=key,
        at=entry.at,
        verdict=note.get("verdict"),
        sentence=note.get("sentence") or "not judged by gates yet",
        window=window_of(entry),
        run=entry.payload["record"].get("run") or {},
        promoted=any(e.type == "promote" and (e.key, e.payload["version"]) == (key, number) for e in records.log),
    )


def _trend(records: Records) -> Trend | None:
    measured = [c for c in records.checks if c.name == "performance" and c.result.get("value") is not None]
    if not measured:
        return None
    metric = str(measured[-1].result.get("metric"))
    same = [c for c in measured if c.result.get("metric") == metric][-POINTS:]
    return Trend(metric, metric_direction(records, metric), tuple(same))


def _request(records: Records) -> dict[str, Any] | None:
    found = None
    for entry in records.ledger:
        body = entry.payload
        if body["dry"] or body.get("repeats"):
            continue
        if entry.type == "request":
            found = {**body, "recorded": entry.at}
        elif entry.type == "claim" and body["go"]:
            found = None
    return found


def _cost(records: Records, now: datetime) -> dict[str, Any] | None:
    month = now.strftime("%Y-%m")
    costs = [*_costs(records, month)]
    return {**total(costs), "month": month} if costs else None


def _costs(records: Records, month: str) -> Iterator[dict[str, Any]]:
    yield from (note for entry, note in records.notes("cost") if entry.at.startswith(month))
    yield from (run.cost for run in records.runs if run.cost and run.at.startswith(month))
    for check in records.checks:
        if check.name == "prediction" and check.at and check.at.startswith(month) and check.result.get("cost"):
            yield check.result["cost"]
            if job := check.result.get("job"):
                yield job["cost"]
