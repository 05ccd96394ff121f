"""Runs and asset events of the live Airflow, for a command that may use its database."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_mlops.exceptions import MLOpsError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

FINAL = ("success", "failed")
POLL = 0.4
SCHEDULER_GONE = 60.0


class BackfillError(MLOpsError):
    """A replay cannot start or go on."""


@dataclass(frozen=True)
class Failure:
    """A task that failed, with the end of its log."""

    task_id: str
    log: str


class LiveScheduler:
    """Starts, finds and waits for runs; every question is a short database session of its own.

    :param say: where a wait says what it waits for.
    :param again: what to do when a run has failed.
    """

    def __init__(
        self,
        say: Callable[[str], None] = print,
        *,
        again: str = "mend the cause; then the same command goes on with this window",
    ) -> None:
        self.say = say
        self.again = again

    def require(self, *dag_ids: str) -> None:
        """Check that the scheduler lives and the DAGs are there, readable and switched on.

        :raises BackfillError: saying what to do.
        """
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session

        if not self._scheduler_alive():
            raise BackfillError(
                "no scheduler is running: runs would be queued and never start",
                hint="start Airflow's scheduler, then repeat",
            )
        with create_session() as session:
            for dag_id in dag_ids:
                dag = session.get(DagModel, dag_id)
                if dag is None or dag.is_stale:
                    raise BackfillError(
                        f"Airflow has no DAG {dag_id}",
                        hint="check the name, the level of the pipeline, and `airflow dags list-import-errors`",
                    )
                if dag.is_paused:
                    raise BackfillError(f"the DAG {dag_id} is paused", hint=f"airflow dags unpause {dag_id}")

    def _scheduler_alive(self) -> bool:
        from airflow.jobs.job import most_recent_job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner

        with database_errors():
            job = most_recent_job(SchedulerJobRunner.job_type)
        return job is not None and job.is_alive()

    def dag_file(self, dag_id: str) -> str | None:
        """The file that a DAG comes from, if Airflow knows the DAG."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session

        with create_session() as session:
            dag = session.get(DagModel, dag_id)
            return dag.fileloc if dag else None

    def state(self, dag_id: str, run_id: str) -> str | None:
        """The run's state, or ``None`` if there is no such run."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
            return str(found) if found is not None else None

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], *, by: str | None = None) -> str:
        """Start a run, or find the one that an earlier call started; returns its id.

        A run of this id that failed is not touched: the new one gets ``__2``, ``__3`` … at its end.

        :param by: who Airflow is told has started it.
        """
        from airflow.api.common.trigger_dag import trigger_dag
        from airflow.utils.types import DagRunTriggeredByType

        name, attempt = run_id, 1
        while (state := self.state(dag_id, name)) is not None:
            if state != "failed":
                return name
            attempt += 1
            name = f"{run_id}__{attempt}"
        with log_to_stderr():
            trigger_dag(
                dag_id,
                triggered_by=DagRunTriggeredByType.CLI,
                triggering_user_name=by,
                run_id=name,
                conf=dict(conf),
            )
        return name

    def wait(self, dag_id: str, run_id: str) -> None:
        """Return when the run has succeeded.

        :raises BackfillError: it failed, disappeared, or the scheduler has stopped.
        """
        alive = time.monotonic()
        told = False
        while True:
            state = self.state(dag_id, run_id)
            if state == "success":
                return
            if state is None:
                raise BackfillError(f"the run {run_id} of {dag_id} was deleted", hint="repeat the command")
            if state == "failed":
                raise BackfillError(self._told(dag_id, run_id), hint=self.again)
            if time.monotonic() - alive > SCHEDULER_GONE:
                # Also checks that nobody has paused the DAG, which would leave the run queued for ever.
                self.require(dag_id)
                alive = time.monotonic()
                if not told and (asking := self.waiting_for_a_person(dag_id, run_id)):
                    told = True
                    self.say(f"{dag_id}: {asking} waits for a person: answer it under Required Actions in Airflow's UI")
            time.sleep(POLL)

    def waiting_for_a_person(self, dag_id: str, run_id: str) -> str | None:
        """The task of a run that has asked a person and has no answer yet."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            return session.scalar(
                select(TaskInstance.task_id).where(
                    TaskInstance.dag_id == dag_id,
                    TaskInstance.run_id == run_id,
                    TaskInstance.state == "awaiting_input",
                )
            )

    def _told(self, dag_id: str, run_id: str) -> str:
        text = f"the run {run_id} of {dag_id} failed"
        for failure in self.failures(dag_id, run_id):
            text += f"\n  task {failure.task_id}; the end of its log:\n" + "\n".join(
                f"    {part}" for part in failure.log.splitlines()
            )
        return text

    def failures(self, dag_id: str, run_id: str) -> Iterator[Failure]:
        """The failed tasks of a run."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = select(TaskInstance).where(
                TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.state == "failed"
            )
            for ti in session.scalars(query).all():
                yield Failure(ti.task_id, _log_tail(ti))

    def task_state(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        """State of an unmapped task, or ``None`` if the run has no such task."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.scalar(
                select(TaskInstance.state).where(
                    TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == task_id
                )
            )
            return str(found) if found is not None else None

    # --- asset events ----------------------------------------------------------------------------

    def events_of(self, asset: str, dag_id: str, run_id: str) -> list[tuple[int, dict[str, Any]]]:
        """(id, extra) of the events that a run has sent for an asset, oldest first."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = (
                select(AssetEvent.id, AssetEvent.extra)
                .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
                .where(AssetModel.name == asset, AssetEvent.source_dag_id == dag_id, AssetEvent.source_run_id == run_id)
                .order_by(AssetEvent.id)
            )
            return [(number, dict(extra or {})) for number, extra in session.execute(query).all()]

    def find_event(self, asset: str, extra: Mapping[str, Any]) -> int | None:
        """Id of the newest event of an asset that carries all of ``extra``."""
        from airflow.models.asset import AssetEvent, AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = (
                select(AssetEvent.id, AssetEvent.extra)
                .join(AssetModel, AssetModel.id == AssetEvent.asset_id)
                .where(AssetModel.name == asset)
                .order_by(AssetEvent.id.desc())
                .limit(1000)
            )
            for number, found in session.execute(query):
                if extra.items() <= dict(found or {}).items():
                    return int(number)
        return None

    def send_event(self, asset: str, extra: Mapping[str, Any]) -> int:
        """Record an event of an asset, as POST /assets/events does; returns its id.

        :raises BackfillError: no DAG names the asset.
        """
        from airflow.assets.manager import asset_manager
        from airflow.models.asset import AssetModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            model = session.scalar(select(AssetModel).where(AssetModel.name == asset))
            event = model and asset_manager.register_asset_change(
                asset=model, extra=dict(extra), source_is_api=True, session=session
            )
            if event is None:
                raise BackfillError(
                    f"Airflow knows no asset {asset}", hint="is the pipeline's file read without errors?"
                )
            session.flush()
            return int(event.id)

    def run_started_by(self, event: int, dag_id: str) -> str | None:
        """Id of the run of ``dag_id`` that an asset event has started, if it has."""
        from airflow.models.asset import AssetEvent
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            query = (
                select(DagRun.run_id)
                .join(AssetEvent.created_dagruns.of_type(DagRun))
                .where(AssetEvent.id == event, DagRun.dag_id == dag_id)
                .order_by(DagRun.id.desc())
                .limit(1)
            )
            return _first(session, query)

    def wait_for_run(self, event: int, dag_id: str, patience: float) -> str | None:
        """Wait up to ``patience`` seconds for the run that an event starts; ``None`` if it does not come."""
        deadline = time.monotonic() + patience
        while (run := self.run_started_by(event, dag_id)) is None and time.monotonic() < deadline:
            time.sleep(POLL)
        return run


@contextmanager
def log_to_stderr() -> Iterator[None]:
    """Keep what Airflow logs out of standard output, which is for the command's own lines.

    Its logger writes to the file itself, whatever ``sys.stdout`` is, and goes by no level that can be set.
    """
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(out, 1)
        os.close(out)


@contextmanager
def database_errors() -> Iterator[None]:
    """Say what to do where Airflow's database is not there, was never set up, or does not answer.

    :raises BackfillError: instead of what SQLAlchemy raises.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as e:
        cause = str(getattr(e, "orig", None) or e).splitlines()
        raise BackfillError(
            f"Airflow's database cannot be used: {cause[0] if cause else type(e).__name__}",
            hint="is AIRFLOW_HOME, or [database] sql_alchemy_conn, the deployment's? `airflow db check` tells more",
        ) from e


def _first(session: Session, query: Any) -> str | None:
    found = session.scalar(query)
    return str(found) if found is not None else None


def readable(message: Mapping[str, Any]) -> str:
    """The text of one structured log message, with the errors it carries."""
    errors = [f"{e.get('exc_type')}: {e.get('exc_value')}" for e in message.get("error_detail") or ()]
    return "\n".join([str(message.get("event", "")), *errors])


def _log_tail(ti: Any, lines: int = 25) -> str:
    from airflow.utils.log.log_reader import TaskLogReader

    try:
        stream, _ = TaskLogReader().read_log_chunks(ti, ti.try_number, {"end_of_log": False, "log_pos": 0})
        texts = [readable(m.model_dump()) if hasattr(m, "model_dump") else str(m) for m in stream]
    except Exception as e:  # noqa: BLE001 - whatever a log backend raises, the failed run is the news
        return f"(its log cannot be read: {type(e).__name__}: {e})"
    # What Airflow itself says around a task tells nothing here.
    texts = [text for text in texts if not text.startswith(("::group::", "::endgroup::"))]
    return "\n".join("\n".join(texts).splitlines()[-lines:])
