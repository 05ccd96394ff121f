"""What Airflow itself knows of the pipelines that a user may read: a handful of queries, however many there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import func, select

from airflow_mlops.plugins.api.models import Approval, RunMark
from airflow_mlops.store import layout

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from sqlalchemy.orm import Session

TAG, INVALID_TAG = "mlops", "invalid"
"""Tags that the factory gives to every DAG of a pipeline, and beside it to one that shows a file's errors."""
SUFFIXES = ("train", "predict", "monitor", "registry", "experiment")
INVALID = "invalid"
_WAITING = (TaskInstanceState.DEFERRED, TaskInstanceState.AWAITING_INPUT)


@dataclass(frozen=True, slots=True)
class LiveDag:
    """One DAG.

    :param level: that of its tag.
    :param next_run: when its schedule starts it next; ``schedule``: that schedule in words; ``None``: it has none.
    :param events: the assets whose events start it, in words; ``None``: none do.
    """

    dag_id: str
    suffix: str
    name: str
    owner: str | None
    level: int | None
    paused: bool
    next_run: datetime | None
    schedule: str | None
    events: str | None


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run of a DAG; ``number`` grows with each run that Airflow makes."""

    number: int
    dag_id: str
    run_id: str
    state: str
    started: datetime | None
    ended: datetime | None

    def mark(self) -> RunMark:
        """As pages show it."""
        return RunMark(
            dag_id=self.dag_id,
            run_id=self.run_id,
            state=self.state,
            started_at=instant(self.started),
            ended_at=instant(self.ended),
            link=run_link(self.dag_id, self.run_id),
        )


@dataclass
class Live:
    """One pipeline, as far as the user may see it.

    :param dags: its DAGs that the user may read, by suffix; ``invalid`` is the one that shows the file's errors.
    :param runs: the newest run of each of them, if the user may see runs.
    :param mark: changes whenever a run of any of its DAGs begins or ends: what was read from the store may be old.
    """

    pipeline: str
    dags: dict[str, LiveDag] = field(default_factory=dict)
    runs: dict[str, LiveRun] = field(default_factory=dict)
    approvals: list[Approval] = field(default_factory=list)
    mark: tuple[Any, ...] = ()

    def may_read(self, dag_id: str) -> bool:
        """Whether this is one of its DAGs that the user may read."""
        return any(dag.dag_id == dag_id for dag in self.dags.values())

    @property
    def readable(self) -> bool:
        """Whether the user may see what the store says about it."""
        return "train" in self.dags

    @property
    def main(self) -> LiveDag:
        """The DAG that stands for the pipeline."""
        return self.dags["train"] if self.readable else self.dags[INVALID]


def live_pipelines(user: BaseUser, only: str | None = None) -> dict[str, Live]:
    """Every pipeline whose ``__train`` (or ``__invalid``) DAG the user may read, by name, in its order.

    :param only: look at this pipeline alone.
    """
    with create_session(scoped=False) as session:
        rows = _dags(session, only)
        allowed = _readable(user, {row.dag_id for row in rows}, session)
        found: dict[str, Live] = {}
        for row in rows:
            if row.dag_id in allowed:
                pipeline = row.dag_id.removesuffix(f"__{row.suffix}")
                found.setdefault(pipeline, Live(pipeline)).dags[row.suffix] = row
        found = {name: live for name, live in sorted(found.items()) if live.readable or INVALID in live.dags}
        if found:
            dags = {dag.dag_id: (live, suffix) for live in found.values() for suffix, dag in live.dags.items()}
            # Also of the DAGs that this user may not read: what is remembered of the store is the same for all users.
            homes = {row.dag_id: found.get(row.dag_id.removesuffix(f"__{row.suffix}")) for row in rows}
            _add_runs(session, dags, homes, user, only)
            _add_approvals(session, dags, user)
    return found


def run_of(dag_id: str, run_id: str) -> dict[str, Any] | None:
    """One run's row: ``state``, ``run_type``, ``started``, ``ended``, ``start``, ``end`` (interval), ``conf``, …"""
    with create_session(scoped=False) as session:
        row = session.execute(
            select(
                DagRun._state.label("state"),
                DagRun.run_type,
                DagRun.start_date,
                DagRun.end_date,
                DagRun.data_interval_start,
                DagRun.data_interval_end,
                DagRun.triggering_user_name,
                DagRun.conf,
                DagRun.bundle_version,
            ).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        ).one_or_none()
    return dict(row._mapping) if row is not None else None


def may_read(user: BaseUser, entity: DagAccessEntity) -> bool:
    """Whether the user may read this of DAGs at all; which DAGs is asked apart."""
    return get_auth_manager().is_authorized_dag(method="GET", access_entity=entity, user=user)


def may_start(user: BaseUser, dag_id: str) -> bool:
    """Whether the user may start runs of a DAG."""
    return get_auth_manager().is_authorized_dag(
        method="POST",
        access_entity=DagAccessEntity.RUN,
        details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
        user=user,
    )


def instant(time: datetime | None) -> str | None:
    """ISO 8601 in UTC."""
    return time.astimezone(UTC).isoformat(timespec="seconds") if time is not None else None


@lru_cache(maxsize=1 << 14)
def dag_link(dag_id: str) -> str:
    """Address of a DAG's page, below Airflow's base."""
    # Of every pipeline, in every answer about the fleet: quoting was an eighth of it.
    return f"dags/{quote(dag_id, safe='')}"


def run_link(dag_id: str, run_id: str) -> str:
    """Address of a run's page, below Airflow's base."""
    return f"{dag_link(dag_id)}/runs/{quote(run_id, safe='')}"


_Dags = dict[str, tuple[Live, str]]
"""The DAGs that the user may read, by id: the pipeline and the suffix."""


# --- queries -----------------------------------------------------------------------------------------


def _dags(session: Session, only: str | None) -> list[LiveDag]:
    """The DAGs of pipelines that Airflow has now, with their tags."""
    ours = select(DagTag.dag_id).where(DagTag.name == TAG)
    if only is not None:
        ours = ours.where(DagTag.dag_id.in_([f"{only}__{suffix}" for suffix in (*SUFFIXES, INVALID)]))
    # Of a pipeline's DAGs one tells the level for all; there may be thousands of tags.
    telling = (DagTag.name.like("level-%") & DagTag.dag_id.endswith("__train")) | (DagTag.name == INVALID_TAG)
    tags: dict[str, list[str]] = {}
    for dag_id, name in session.execute(select(DagTag.dag_id, DagTag.name).where(DagTag.dag_id.in_(ours), telling)):
        tags.setdefault(dag_id, []).append(name)
    columns = (
        DagModel.dag_id,
        DagModel._dag_display_property_value,
        DagModel.owners,
        DagModel.is_paused,
        DagModel.next_dagrun_create_after,
        DagModel.timetable_summary,
        DagModel.timetable_description,
        DagModel.asset_expression,
    )
    query = select(*columns).where(DagModel.dag_id.in_(ours), DagModel.is_stale.is_(False)).order_by(DagModel.dag_id)
    found = []
    for dag_id, shown_as, owners, paused, next_run, summary, description, expression in session.execute(query):
        name, _, suffix = dag_id.rpartition("__")
        if not layout.is_name(name):
            # Somebody else's DAG with our tag: the store could not hold a pipeline of this name.
            continue
        said = tags.get(dag_id, [])
        if suffix in SUFFIXES or (suffix == INVALID and INVALID_TAG in said):
            owner = (owners or "").partition(",")[0].strip() or None
            found.append(
                LiveDag(
                    dag_id=dag_id,
                    suffix=suffix,
                    name=shown_as or dag_id,
                    owner=owner,
                    level=_level(said),
                    paused=bool(paused),
                    next_run=next_run,
                    schedule=_clock(summary, description),
                    events=_events(expression, name),
                )
            )
    return found


_ASSETS = {"data": "new data", "retrain": "a granted retrain", "predictions": "new predictions"}
"""The assets of a pipeline in words, by the ends of their names."""


def _clock(summary: str | None, description: str | None) -> str | None:
    """The part of a schedule that goes by the clock, in Airflow's words; ``Asset or …`` has one, ``Asset`` none."""
    if summary in (None, "", "None", "Asset"):
        return None
    # The description is a sentence for cron expressions, and may be empty.
    return (description or "").removeprefix("Triggered by assets or ") or summary.removeprefix("Asset or ")


def _events(expression: Any, pipeline: str) -> str | None:
    """The condition on assets in words: ``new data or a granted retrain``."""
    for kind, found in (expression or {}).items():
        if kind in ("any", "all"):
            said = [words for part in found if (words := _events(part, pipeline))]
            return f" {'or' if kind == 'any' else 'and'} ".join(dict.fromkeys(said)) or None
        name = str(found.get("name") or found.get("uri") or "")
        return _ASSETS.get(name.removeprefix(f"{pipeline}."), name) or None
    return None


def _level(tags: Iterable[str]) -> int | None:
    numbers = [t.removeprefix("level-") for t in tags if t.startswith("level-")]
    return int(numbers[0]) if len(numbers) == 1 and numbers[0].isdigit() else None


def _readable(user: BaseUser, dag_ids: set[str], session: Session) -> set[str]:
    return dag_ids & get_auth_manager().get_authorized_dag_ids(user=user, method="GET", session=session)


def _add_runs(session: Session, dags: _Dags, homes: dict[str, Live | None], user: BaseUser, only: str | None) -> None:
    ours = select(DagTag.dag_id).where(DagTag.name == TAG)
    if only is not None:
        ours = ours.where(DagTag.dag_id.in_([*homes]))
    newest = select(func.max(DagRun.id)).where(DagRun.dag_id.in_(ours)).group_by(DagRun.dag_id)
    columns = (DagRun.id, DagRun.dag_id, DagRun.run_id, DagRun._state, DagRun.start_date, DagRun.end_date)
    shown = may_read(user, DagAccessEntity.RUN)
    query = select(*columns).where(DagRun.id.in_(newest)).order_by(DagRun.dag_id)
    for number, dag_id, run_id, state, started, ended in session.execute(query):
        home = homes.get(dag_id)
        if home is None:
            continue
        home.mark = (*home.mark, number, state, ended)
        if shown and dag_id in dags:
            live, suffix = dags[dag_id]
            live.runs[suffix] = LiveRun(number, dag_id, run_id, str(state), started, ended)


def _add_approvals(session: Session, dags: _Dags, user: BaseUser) -> None:
    if not may_read(user, DagAccessEntity.HITL_DETAIL):
        return
    query = (
        select(
            TaskInstance.dag_id,
            TaskInstance.run_id,
            TaskInstance.task_id,
            TaskInstance.map_index,
            HITLDetail.subject,
            HITLDetail.options,
            HITLDetail.created_at,
            HITLDetail.assignees,
        )
        .join(TaskInstance, HITLDetail.ti_id == TaskInstance.id)
        .where(HITLDetail.responded_at.is_(None), TaskInstance.state.in_(_WAITING))
        .order_by(HITLDetail.created_at)
    )
    for row in session.execute(query):
        if row.dag_id not in dags:
            continue
        task = f"{run_link(row.dag_id, row.run_id)}/tasks/{quote(row.task_id, safe='')}"
        mapped = f"/mapped/{row.map_index}" if row.map_index >= 0 else ""
        dags[row.dag_id][0].approvals.append(
            Approval(
                dag_id=row.dag_id,
                run_id=row.run_id,
                task_id=row.task_id,
                map_index=row.map_index,
                subject=row.subject,
                options=[str(option) for option in row.options or ()],
                since=instant(row.created_at),
                assignees=[str(one.get("name") or one.get("id")) for one in row.assignees or ()],
                link=f"{task}{mapped}/required_actions",
            )
        )
