"""Pipelines in Airflow's own tables and in a store on disk, for tests of the pages' API."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from sqlalchemy import insert

from airflow_mlops.registry import Registry
from airflow_mlops.registry.checks import write_check
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

Get = Callable[..., Any]
NOW = datetime(2026, 11, 27, 6, tzinfo=UTC)


@dataclass
class Site:
    """An Airflow with pipelines, as its database and its store know them."""

    store: LocalStore
    readable: set[str] | None = None
    """Ids of the DAGs that the user may read; ``None``: all."""
    refused: set[str] = field(default_factory=set)
    """What of DAGs nobody may read: ``RUN``, ``HITL_DETAIL``."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def dag(
        self, dag_id: str, *, level: int | None = 1, owner: str = "ops", tags: tuple[str, ...] = (), **more: Any
    ) -> None:
        """Add a DAG, as the factory tags it."""
        with create_session() as session:
            row = {
                "dag_id": dag_id, "bundle_name": "dags", "is_stale": False, "is_paused": False, "owners": owner,
                "max_active_tasks": 16, "max_active_runs": 1, "max_consecutive_failed_dag_runs": 0,
                "has_task_concurrency_limits": False, "timetable_summary": "@daily",
            }  # fmt: skip
            session.add(DagModel(**row | more))
            session.flush()
            for name in {"mlops", *([f"level-{level}"] if level is not None else []), *tags}:
                session.add(DagTag(dag_id=dag_id, name=name))

    def pipeline(self, name: str, *, level: int = 1, owner: str = "ops") -> Registry:
        """Add the DAGs of a pipeline; returns its registry."""
        for suffix in ("train", "predict", "monitor", "registry"):
            self.dag(f"{name}__{suffix}", level=level, owner=owner)
        return Registry(self.store, name)

    def run(self, dag_id: str, run_id: str, state: str = "success", at: datetime = NOW, **more: Any) -> None:
        """Add a run that has ended, or is running."""
        ended = at + timedelta(minutes=1) if state in ("success", "failed") else None
        with create_session() as session:
            session.execute(
                insert(DagRun.__table__).values(
                    dag_id=dag_id,
                    run_id=run_id,
                    state=state,
                    run_type="manual",
                    run_after=at,
                    start_date=at,
                    end_date=ended,
                    queued_at=at,
                    clear_number=0,
                    span_status="not_started",
                    **more,
                )
            )

    def ask(self, dag_id: str, run_id: str, subject: str, task_id: str = "approve.ask") -> None:
        """Let a task wait for a person."""
        self.run(dag_id, run_id, "running")
        with create_session() as session:
            ti = uuid.UUID(int=next(self._numbers))
            session.execute(
                insert(TaskInstance.__table__).values(
                    id=ti,
                    dag_id=dag_id,
                    run_id=run_id,
                    task_id=task_id,
                    map_index=-1,
                    try_number=1,
                    max_tries=0,
                    state=TaskInstanceState.AWAITING_INPUT,
                    pool="default_pool",
                    pool_slots=1,
                    queue="default",
                    priority_weight=1,
                    operator="HITLOperator",
                    custom_operator_name="HITLOperator",
                    executor_config={},
                    task_display_name=task_id,
                    unixname="x",
                    hostname="",
                    span_status="not_started",
                )
            )
            session.add(HITLDetail(ti_id=ti, options=["Approve", "Reject"], subject=subject, params={}, created_at=NOW))


def check(
    store: LocalStore, pipeline: str, name: str, month: int, verdict: str, run_id: str | None = None, **more: Any
) -> None:
    """Store a monitoring result for one month of 2026; ``run_id`` is that of a run of ``__monitor``."""
    window = Window.of(datetime(2026, month, 1, tzinfo=UTC), datetime(2026, month + 1, 1, tzinfo=UTC))
    result = {"verdict": verdict, "sentence": f"{name} is {verdict}", **more}
    run = {"dag_id": f"{pipeline}__monitor", "run_id": run_id} if run_id else None
    write_check(store, pipeline, window, name, result, run=run)


def record(run_id: str = "r1", dag_id: str = "churn__train", **more: Any) -> dict[str, Any]:
    """A version's record, without a model."""
    window = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-04-01T00:00:00+00:00"}
    snapshot = {"snapshot": "a" * 64, "fingerprint": "f" * 64, "rows": 1000, "columns": 9, "window": window}
    return {
        "model": {"digest": "d" * 64, "bytes": 2_000_000, "format": "skops", "environment": {"python": "3.11"}},
        "snapshot": snapshot,
        "rows": {"train": 800, "holdout": 200},
        "run": {"dag_id": dag_id, "run_id": run_id},
        "about": {"owner": "ops", "description": "Who leaves."},
        "schema": {"features": [{"name": "age", "kind": "number"}], "target": "left", "classes": [0, 1], "positive": 1},
        "config_hash": "c" * 64,
        "code": {"git": "0" * 40},
        "seed": 7,
        "estimator": "sklearn.linear_model.LogisticRegression",
        "params": {"C": 1.0},
        **more,
    }


def gates(verdict: str, sentence: str, **more: Any) -> dict[str, Any]:
    """A note ``gates`` with one gate."""
    line = {
        "name": "roc_auc at_least 0.6",
        "verdict": verdict,
        "sentence": sentence,
        "value": 0.61,
        "slices": [],
        **more,
    }
    return {"verdict": verdict, "sentence": f"{verdict}: {sentence}", "results": [line], "go": verdict == "passed",
            "champion": None, "report": "e" * 64}  # fmt: skip


def champion(registry: Registry, number: int = 1, expected: int | None = None) -> None:
    """Register a version, judge it, and make it champion."""
    registry.register(record(f"r{number}"), op_id=f"r{number}")
    registry.annotate(number, "gates", gates("passed", "roc_auc 0.61 reaches 0.6"), op_id=f"g{number}")
    registry.promote(number, expected=expected, op_id=f"p{number}", reason="passed")


def as_role(role: str | None) -> dict[str, str]:
    """Headers that sign a user in."""
    token = SimpleAuthManager().generate_jwt(SimpleAuthManagerUser(username="someone", role=role))
    return {"Authorization": f"Bearer {token}"}
