"""What a pipeline's checks saw, window by window, and what came of it: every alarm and every silence has its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.registry.checks import read_checks
from airflow_mlops.registry.fleet_runs import FleetRun, fleet_runs
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store.base import Store

OTHERS = ("prediction", "request", "training", "suppressed", "gates", "promotion", "fleet")
"""Stored results that are no check of what is served."""
ALARMS = ("drift", "skew", "drop", "failed", "stale", "alarm", "rejected")
CALM = ("no_drift", "no_skew", "ok", "passed", "fresh", "normal")
UNDECIDED = ("not_enough_data", "pending_labels", "inconclusive")
_NAMED = 3  # columns or expectations of an alarm that are named


@dataclass(frozen=True)
class Check:
    """What one check said of a window; ``alarm`` is None where it could not tell."""

    name: str
    verdict: str
    alarm: bool | None
    text: str
    sentence: str


@dataclass(frozen=True)
class Request:
    """A request for training, and the ledger's answer; ``asked`` counts the times that it was asked."""

    reasons: list[str]
    granted: bool
    held: list[str]
    sentence: str
    grant: str | None
    asked: int
    at: str


@dataclass(frozen=True)
class Training:
    """A training run that claimed, and what became of it; the last five are None where it did not train.

    :param rollout: how its rollout went, in words; None where it had none.
    """

    run: str
    start: str
    go: bool
    sentence: str
    at: str
    version: int | None = None
    verdict: str | None = None
    reason: str | None = None
    promoted: bool | None = None
    rollout: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A request for an experiment: training again no longer helped."""

    reasons: list[str]
    sentence: str
    at: str


@dataclass(frozen=True)
class Period:
    """One window: what was seen, and what followed, also in words.

    :param window: ``{"start", "end"}`` in ISO 8601; ``start`` is None where only the ledger knows the window.
    """

    window: dict[str, str | None]
    scored: int | None
    checks: list[Check]
    requests: list[Request]
    trainings: list[Training]
    experiments: list[Experiment]
    seen: str
    followed: str

    @property
    def alarms(self) -> list[Check]:
        """The checks that alarmed."""
        return [check for check in self.checks if check.alarm]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def history(store: Store, pipeline: str) -> list[Period]:
    """Every window that was checked, trained on, or asked about, oldest first; rehearsals are left out.

    :raises CorruptObject, StoreUnavailable: as the store and the logs do.
    """
    rows = [row for row in Ledger(store, pipeline).history() if not row["dry"]]
    by_end: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_end.setdefault(_utc(row["at"]), []).append(row)
    versions = _Versions(store, pipeline)
    windows = read_checks(store, pipeline)
    # Of several windows with one end, what was asked at that end stands at the last, which is the shortest.
    last = {_utc(found["window"]["end"]): number for number, found in enumerate(windows)}
    periods = []
    for number, found in enumerate(windows):
        end = _utc(found["window"]["end"])
        mine = by_end.pop(end, []) if last[end] == number else []
        periods.append((end, number, _period(found, mine, versions)))
    for end, theirs in by_end.items():
        periods.append((end, -1, _period({"window": {"start": None, "end": theirs[0]["at"]}}, theirs, versions)))
    return [period for _, _, period in sorted(periods, key=lambda one: one[:2])]


class _Versions:
    """Finds the version that a run trained, and its rollout; the records are read when the first is asked for."""

    def __init__(self, store: Store, pipeline: str) -> None:
        self._store, self._registry = store, Registry(store, pipeline)

    @cached_property
    def _by_run(self) -> dict[str, Version]:
        found = {}
        for version in self._registry.versions():
            run = version.record.get("run") or {}
            if run.get("run_id"):
                found[str(run["run_id"])] = version
        return found

    def of(self, run: str) -> Version | None:
        """The version, if the run came to one."""
        return self._by_run.get(run)

    @cached_property
    def fleet(self) -> dict[str, FleetRun]:
        """The trainings of a fleet, by the id of their run."""
        return {run.run_id: run for run in fleet_runs(self._store, self._registry.pipeline)}

    @cached_property
    def rollouts(self) -> dict[int, str]:
        """How the rollouts of versions went, the last one of each, in words."""
        found: dict[int, str] = {}
        for row in self._registry.history():
            number, kind = row["version"], row["kind"]
            if (row["action"], kind) == ("rollout", "begin"):
                found[number] = "is rolling out"
            elif found.get(number) != "is rolling out":
                continue
            elif (row["action"], kind) == ("rollout", "end"):
                found[number] = "rolled out, taken back"
            elif row["action"] == "promote":
                # Often months after its training; when the labels of the last step were there.
                day = f" with the window to {row['window']['end'][:10]}" if row["window"] else ""
                found[number] = f"rolled out, promoted{day}"
        return found


def _period(found: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], versions: _Versions) -> Period:
    checks = [told(name, result) for name, result in sorted(found.items()) if _is_check(name, result)]
    prediction = found.get("prediction") or {}
    scored: int | None = prediction.get("rows")
    requests, trainings = _requests(rows), [_training(row, versions) for row in rows if _is_claim(row)]
    wanted = [row for row in rows if row["step"] == "experiment"]
    experiments = [Experiment([*row["reasons"]], row["sentence"], row["at"]) for row in wanted]
    return Period(
        window=dict(found["window"]),
        scored=scored,
        checks=checks,
        requests=requests,
        trainings=trainings,
        experiments=experiments,
        seen=_seen(checks, scored),
        followed=_followed(checks, requests, trainings, experiments, scored),
    )


# --- checks ------------------------------------------------------------------------------------------


def _is_check(name: str, result: Any) -> bool:
    return name not in (*OTHERS, "window") and isinstance(result, Mapping) and "verdict" in result


def told(name: str, result: Mapping[str, Any]) -> Check:
    """What a stored result says, also in a few words (``text``)."""
    verdict = str(result["verdict"])
    alarm = None if verdict in UNDECIDED else verdict not in CALM
    return Check(name, verdict, alarm, _short(name, verdict, alarm, result), str(result.get("sentence", "")))


def _short(name: str, verdict: str, alarm: bool | None, result: Mapping[str, Any]) -> str:
    """A few words: ``drift: wind_speed``, ``drift: hour in 2 of 12 keys``, ``performance ok, roc_auc 0.641``."""
    words = verdict.replace("_", " ")
    head = words if name in verdict else f"{name} {words}"
    # Of a fleet the value is that of the middle key, which says nothing of those that alarm.
    worse = result.get("worse_keys", result.get("drifted_keys")) if alarm else None
    among = f" in {worse:,} of {result['keys']:,} keys" if worse else ""
    if among and result.get("metric"):
        return f"{head}, {result['metric']}{among}"
    if result.get("value") is not None:
        against = f" (at promotion {result['baseline']:.3f})" if alarm and "baseline" in result else ""
        return f"{head}, {result.get('metric', '')} {result['value']:.3f}{against}"
    names = [one["name"] for one in result.get("columns") or () if one.get("drifted") or one.get("skewed")]
    names = names or list(map(str, result.get("failed") or ()))
    if not names or not alarm:
        return head + among
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{head}: {', '.join(names[:_NAMED])}{more}{among}"


def _seen(checks: Sequence[Check], scored: int | None) -> str:
    if checks:
        return "; ".join(check.text for check in sorted(checks, key=lambda check: not check.alarm))
    return "nothing was checked" if scored is not None else "nothing was scored"


# --- the ledger --------------------------------------------------------------------------------------


def _is_claim(row: Mapping[str, Any]) -> bool:
    return row["step"] == "claim" and not row["repeats"]


def _requests(rows: Iterable[Mapping[str, Any]]) -> list[Request]:
    """The requests, each once; one that was asked again follows the first with the same answer."""
    found: list[Request] = []
    for row in rows:
        if row["step"] != "request":
            continue
        if row["repeats"]:
            same = [n for n, one in enumerate(found) if one.sentence == row["sentence"]]
            if same:
                one = found[same[-1]]
                found[same[-1]] = replace(one, asked=one.asked + 1)
            continue
        held = [str(kind) for kind in row["held"] or ()]
        found.append(Request([*row["reasons"]], row["yes"], held, row["sentence"], row["grant"], 1, row["at"]))
    return found


def _training(row: Mapping[str, Any], versions: _Versions) -> Training:
    training = Training(row["run"], row["start"], row["yes"], row["sentence"], row["at"])
    version = versions.of(training.run) if training.go else None
    if version is None:
        whole = versions.fleet.get(training.run) if training.go else None
        return replace(training, reason=whole.sentence, promoted=bool(whole.promoted)) if whole else training
    gates = (version.notes.get("gates") or [{}])[-1]
    return replace(
        training,
        version=version.number,
        verdict=gates.get("verdict"),
        reason=gates.get("sentence"),
        promoted=version.promoted_at is not None,
        rollout=versions.rollouts.get(version.number),
    )


def _followed(
    checks: Sequence[Check],
    requests: Sequence[Request],
    trainings: Sequence[Training],
    experiments: Sequence[Experiment],
    scored: int | None,
) -> str:
    said = [*map(_answer, requests), *map(_outcome, trainings)]
    said += [f"an experiment was asked for: {one.sentence}" for one in experiments]
    granted = [r.grant for r in requests if r.granted]
    if granted and not any(t.go for t in trainings):
        said.append(f"no training of this window has claimed {granted[-1]}")
    if said:
        return ". ".join(said)
    if any(check.alarm for check in checks):
        return "no training was asked for because of it"
    if any(check.alarm is False for check in checks):
        return "no alarm"
    if checks:
        return "no alarm: the checks could not tell"
    return "no alarm: no check ran" if scored is not None else "nothing to check"


def _answer(request: Request) -> str:
    again = f" (asked {request.asked} times)" if request.asked > 1 else ""
    if request.granted:
        return f"granted because of {' and '.join(request.reasons)}{again}"
    return f"{' and '.join(request.reasons) or 'nothing'} {request.sentence}{again}"


def _outcome(training: Training) -> str:
    if not training.go:
        return training.sentence
    if training.version is None and training.reason:  # of a fleet, which has many
        return f"{training.sentence}: {training.reason}"
    if training.version is None:
        return f"{training.sentence}: no version came of it, the run {training.run} failed or has not ended"
    what = f"{training.sentence}: v{training.version}"
    if training.verdict is None:
        return f"{what}, not judged"
    promoted = f", {training.rollout}" if training.rollout else ", promoted" if training.promoted else ""
    reason = str(training.reason or "").removeprefix(f"{training.verdict}: ").rstrip(".")
    why = f" ({reason})" if reason and training.verdict != "passed" else ""
    return f"{what} {training.verdict.replace('_', ' ')}{why}{promoted}"


def _utc(text: str) -> str:
    """A time that sorts and compares as text."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
