"""Whether an environment's Airflow really runs what was deployed to it, and whether that works there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_mlops.config.folder import pipeline_files
from airflow_mlops.config.loader import PipelineReader
from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery.airflow_api import FINAL, AirflowApi
from airflow_mlops.delivery.bundle import Bundle
from airflow_mlops.delivery.project import PIPELINES
from airflow_mlops.delivery.tree import write_tree
from airflow_mlops.exceptions import AirflowUnavailable, ConfigError, MLOpsError, VerificationFailed
from airflow_mlops.factory.outline import outline

Say = Callable[[str], None]

POLL = 2.0
# While files are read anew, an import error may still be that of the version before.
SETTLE = 10.0
_NOTE = "Started after a deployment, to see whether it works here."
# Kept at the run: a process that is killed before it switches the DAG off again can tell the next one nowhere else.
_WAS_PAUSED = " The DAG was paused, and is to be paused again."
_SHOWN = 5


@dataclass(frozen=True)
class Expected:
    """What an Airflow should show.

    :param bundle: name of the DAG bundle there.
    :param commit: the deployment, which is the version of that bundle.
    :param dags: ids of the DAGs of the project's pipelines.
    :param since: when it was deployed.
    """

    bundle: str
    commit: str
    dags: tuple[str, ...]
    since: datetime


@dataclass(frozen=True)
class SmokeRun:
    """A run that was green; ``url`` is its page."""

    dag_id: str
    run_id: str
    url: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def expected_dags(bundle: Bundle, environment: str, settings: Settings) -> tuple[str, ...]:
    """Return the ids of the DAGs that the pipelines of a bundle have in an environment.

    :param settings: which variables pipelines may use. Which code they may name, that Airflow decides.
    :raises ConfigError: a file has errors, so that nobody can say what it should become; or there is no pipeline.
    """
    there = Settings(environment, settings.allowed_variables, need_variables=False)
    found: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="mlops-deliver-") as scratch:
        folder = Path(scratch, "project")
        write_tree(bundle.files, folder)
        place = folder / PIPELINES
        reader = PipelineReader(there, root=place)
        for file in pipeline_files(place) if place.is_dir() else ():
            config, source = reader.read(file)
            if config is not None:
                found |= {dag.id for dag in outline(config).dags}
            elif not isinstance(source.data, dict) or "pipeline" in source.data:  # else it is there to be extended
                said = source.issues[0].message if source.issues else "it cannot be read"
                raise ConfigError(
                    f"{file.relative_to(folder)} has errors in {environment}: {said}",
                    hint=f"`airflow mlops lint -e {environment} {PIPELINES}` shows all of them",
                )
    if not found:
        raise ConfigError(f"the bundle has no pipeline in {PIPELINES}/", hint="there is nothing to deliver")
    return tuple(sorted(found))


def verify(
    api: AirflowApi, expected: Expected, *, timeout: float, say: Say = lambda text: None, poll: float = POLL
) -> float:
    """Wait until an Airflow has read every DAG from the deployment, without an import error; returns the seconds.

    :param timeout: seconds.
    :raises VerificationFailed: it has an error in it, its bundle has no versions, or the time is up.
    :raises AirflowUnavailable: Airflow does not answer; it is asked until the time is up.
    """
    began, told = time.monotonic(), ""
    broken_since: float | None = None
    before: frozenset[str] | None = None
    while True:
        try:
            seen = _look(api, expected, before)
            before = seen.files if before is None else before & seen.files
        except AirflowUnavailable as e:
            if time.monotonic() - began > timeout:
                raise
            seen = _Seen([e.message], [], [], frozenset())
        missing, broken = seen.missing, seen.broken
        if not missing and not broken:
            return round(time.monotonic() - began, 3)
        now = time.monotonic()
        broken_since = (broken_since if broken_since is not None else now) if broken else None
        settled = broken_since is not None and now - broken_since >= SETTLE
        if settled or now - began > timeout:
            if broken or seen.behind:
                raise _broken(api, broken or seen.behind)
            raise VerificationFailed(
                f"the Airflow at {api.server.url} does not run the deployment after {timeout:g} seconds: "
                + "; ".join(missing[:_SHOWN]),
                hint=f"is there a git DAG bundle {expected.bundle!r} that tracks the branch, does its dag processor "
                "run, is its refresh_interval shorter than verify_timeout, and may the login read the DAGs? A git "
                "bundle that was opened before the branch was there never finds it: remove its folder in "
                "dag_bundle_storage_path",
            )
        if (broken or missing)[0] != told:
            told = (broken or missing)[0]
            more = len(broken or missing) - 1
            say(f"waiting: {told}" + (f", and {more} more" if more else ""))
        time.sleep(poll)


def _broken(api: AirflowApi, broken: list[str]) -> VerificationFailed:
    """The error for files that cannot be imported; what their code says stays out of the message, which is kept."""
    return VerificationFailed(
        f"the Airflow at {api.server.url} cannot import {', '.join(map(_kind, broken[:_SHOWN]))}",
        hint=f"mend the project and deliver that: {broken[0]}",
    )


def _kind(text: str) -> str:
    """The file of an error that was told, and its class."""
    file, _, said = text.partition(": ")
    return f"{file} ({said.partition(':')[0][:80]})"


@dataclass(frozen=True)
class _Seen:
    """One look at an Airflow.

    :param missing: what is not as it should be.
    :param broken: which files of the deployment cannot be imported.
    :param behind: which cannot be imported, in the deployment or before it, where no DAG is left that could tell.
    :param files: all that cannot be imported now.
    """

    missing: list[str]
    broken: list[str]
    behind: list[str]
    files: frozenset[str]


def _look(api: AirflowApi, expected: Expected, before: frozenset[str] | None) -> _Seen:
    """What is missing, and which files cannot be imported since the deployment.

    Airflow does not say which version an import error is of, and writes that of the version before again, with a new
    time, as often as it reads the old file. One since the deployment is of the deployment where another DAG is at it
    already, or where the file could be imported until now.

    :param before: the files that could not be imported at any look until now; ``None``: this is the first look.
    """
    there = api.dags(expected.bundle)
    unversioned = [dag_id for dag_id in expected.dags if dag_id in there and there[dag_id]["bundle_version"] is None]
    if unversioned:
        raise VerificationFailed(
            f"the bundle {expected.bundle!r} of the Airflow at {api.server.url} does not version its code: "
            f"{unversioned[0]} has no version",
            hint="use a git DAG bundle: with others, such as LocalDagBundle and S3DagBundle, nobody can say which code "
            "a run ran, and an edit reaches runs that are under way",
        )
    invalid = sorted(i for i, d in there.items() if i.endswith("__invalid") and d["bundle_version"] == expected.commit)
    if invalid:
        # The DAG's description is its first error; like that of a file which cannot be imported it stays out of the
        # message, which is kept.
        first = str(there[invalid[0]].get("description") or "its page there says what is wrong")
        raise VerificationFailed(
            f"the Airflow at {api.server.url} cannot use {', '.join(invalid[:_SHOWN])}: there are errors in it",
            hint=f"mend the project and deliver that: {first}. `airflow mlops lint -e` finds what is wrong with an "
            "overlay; a variable, or an option of [mlops] such as allowed_imports, may be missing there",
        )
    missing = list(_missing(api, expected, there))
    errors = api.import_errors(expected.bundle)
    files = frozenset(str(error["filename"]) for error in errors)
    arrived = any(dag["bundle_version"] == expected.commit for dag in there.values())
    old = files if before is None else files & before
    since = [error for error in errors if _time(error["timestamp"]) >= expected.since]
    broken = [_told(error) for error in since if arrived or error["filename"] not in old]
    doubtful = [] if broken else [_told(error) for error in since]
    if not broken:
        for error in errors:
            what = "an import error that may be from before" if error in since else "an import error from before"
            missing.append(f"{what}: {_kind(_told(error))}")
    behind = doubtful if not any(dag_id in there for dag_id in expected.dags) else []
    return _Seen(missing, broken, behind, files)


def _missing(api: AirflowApi, expected: Expected, there: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for dag_id in expected.dags:
        if dag_id not in there:
            other = api.dag(dag_id)
            elsewhere = other is not None and not other["is_stale"] and other["bundle_name"] != expected.bundle
            yield f"{dag_id} is in the bundle {(other or {})['bundle_name']!r}" if elsewhere else f"no DAG {dag_id}"
        elif (version := there[dag_id]["bundle_version"]) != expected.commit:
            yield f"{dag_id} is at {version[:12]}"


def smoke(
    api: AirflowApi,
    expected: Expected,
    dags: Sequence[str],
    *,
    conf: Mapping[str, Any],
    operation: str,
    timeout: float,
    say: Say = lambda text: None,
    poll: float = POLL,
) -> list[SmokeRun]:
    """Run DAGs of a deployment, at the same time, and wait until all are green.

    A DAG that is paused is switched on for its run. The same operation finds the runs that it has started, and switches
    off what it has switched on, whichever try of it has come to which point.

    :param dags: their ids; none: those of ``expected`` that end with ``__train``.
    :param conf: for their trigger forms; fields that a form lacks are left out, and ``promote`` is off unless given. A
        DAG that nobody starts by hand has a window each time: unless given, that of the day before the deployment, UTC.
    :raises VerificationFailed: a run is not green, or was of another version; or the time is up.
    """
    chosen = tuple(dags) or tuple(dag_id for dag_id in expected.dags if dag_id.endswith("__train"))
    began, runs = time.monotonic(), {}
    paused: dict[str, list[str]] = {}
    try:
        for dag_id in chosen:
            dag = api.dag(dag_id)
            if dag is None or dag["is_stale"]:
                raise VerificationFailed(
                    f"the Airflow at {api.server.url} has no DAG {dag_id} to run", hint="correct `smoke.dags`"
                )
            asked = {"promote": False, **(_day_before(expected.since) if dag["timetable_summary"] else {}), **conf}
            given = {name: value for name, value in asked.items() if name in (dag.get("params") or {})}
            run_id, noted = _start(api, dag_id, f"smoke__{expected.commit[:12]}__{operation[:12]}", given)
            runs[dag_id] = run_id
            if dag["is_paused"] and run_id not in noted:
                noted.append(run_id)
            if noted:
                paused[dag_id] = noted
            if dag["is_paused"]:
                api.note(dag_id, run_id, _NOTE + _WAS_PAUSED)
                api.pause(dag_id, False)
            say(f"smoke run {runs[dag_id]} of {dag_id}")
        return [_green(api, expected, dag_id, run_id, began, timeout, say, poll) for dag_id, run_id in runs.items()]
    finally:
        for dag_id, noted in paused.items():
            with suppress(MLOpsError):  # what has failed before is the news
                api.pause(dag_id, True)
                for run_id in noted:  # who switches it on from now on has it stay on
                    api.note(dag_id, run_id, _NOTE)


def _day_before(moment: datetime) -> dict[str, str]:
    """The window of the last whole day; the same one, however often a deployment is tried."""
    end = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {"window_start": (end - timedelta(days=1)).isoformat(), "window_end": end.isoformat()}


def _start(api: AirflowApi, dag_id: str, name: str, conf: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Start a run, or find the one that an earlier call started; one that failed is left as it is.

    :return: the run, and those whose notes say that the DAG is to be paused again.
    """
    run_id, attempt, noted = name, 1, []
    while (run := api.run(dag_id, run_id)) is not None:
        if (run["note"] or "").endswith(_WAS_PAUSED):
            noted.append(run_id)
        if run["state"] != "failed":
            return run_id, noted
        attempt += 1
        run_id = f"{name}__{attempt}"
    api.trigger(dag_id, run_id, conf, _NOTE)
    return run_id, noted


def _green(
    api: AirflowApi,
    expected: Expected,
    dag_id: str,
    run_id: str,
    began: float,
    timeout: float,
    say: Say,
    poll: float,
) -> SmokeRun:
    url, behind = f"{api.server.url}/dags/{dag_id}/runs/{run_id}", ""
    while True:
        run = api.run(dag_id, run_id)
        state = run["state"] if run else "gone"
        if run is None or state in FINAL:
            break
        first = ", ".join(api.running(dag_id)) if state == "queued" else ""
        if first and first != behind:
            say(f"{run_id} waits behind {first}")
        behind = first
        if time.monotonic() - began > timeout:
            raise VerificationFailed(
                f"the smoke run of {dag_id} is still {state} after {timeout:g} seconds"
                f"{f' behind {behind}' if behind else ''}: {url}",
                hint="does it, or a run before it, wait for data, a slot, or a person? `smoke.timeout` and "
                "`smoke.conf` can be set",
            )
        time.sleep(poll)
    if state != "success":
        tasks = api.failed_tasks(dag_id, run_id) if run else []
        raise VerificationFailed(
            f"the smoke run of {dag_id} {'is gone' if run is None else 'failed'}: {', '.join(tasks) or run_id}: {url}",
            hint="read the log of the task that failed there, and deliver a commit that mends it",
        )
    # What its tasks ran. The DAG's versions do not tell: a deployment that leaves the DAG as it was takes over the
    # version that is there, with the runs that have it.
    version = run["bundle_version"] if run else None
    if version is None:
        raise VerificationFailed(
            f"the smoke run of {dag_id} is bound to no version of its code: {url}",
            hint="Airflow's versioning of bundles is switched off, for that DAG or by [dag_processor] "
            "disable_bundle_versioning; switch it on, or an edit reaches runs that are under way",
        )
    if version != expected.commit:
        raise VerificationFailed(
            f"the smoke run of {dag_id} ran another version than {expected.commit[:12]}: {url}",
            hint="somebody deployed meanwhile; `airflow mlops status` shows what",
        )
    return SmokeRun(dag_id, run_id, url, round(time.monotonic() - began, 3))


def _told(error: Mapping[str, Any]) -> str:
    lines = [line.strip() for line in str(error["stack_trace"]).splitlines() if line.strip()]
    return f"{error['filename']}: {lines[-1][:200] if lines else 'no text'}"


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
