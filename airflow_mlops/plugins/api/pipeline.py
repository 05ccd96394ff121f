"""The head of the pipeline page: its row of the fleet, and what can be done about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_mlops.plugins.api.live import Live, may_start
from airflow_mlops.plugins.api.models import Action, Pipeline
from airflow_mlops.plugins.api.one import visible
from airflow_mlops.plugins.api.rows import Line, line_of, row_of

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

    from airflow_mlops.ml.standing import Standing
    from airflow_mlops.plugins.api.reader import StoreReader

KEYS = 500


def pipeline_head(user: BaseUser, reader: StoreReader, pipeline: str) -> Pipeline:
    """The head of a pipeline's page; what the store says is left out where it does not answer in time.

    :raises HTTPException: 404: there is no such pipeline, or the user may not know.
    """
    live = visible(user, pipeline)
    deadline = reader.begin()
    summaries, problem = reader.index(deadline)
    marks = {pipeline: live.mark}
    reader.read([pipeline], marks, summaries, deadline)
    answer = reader.known(marks, summaries, problem)
    line = line_of(live, answer)
    one = line.known.standing
    return Pipeline(
        row=row_of(line),
        description=one.description if one else None,
        keys=[*one.keys[:KEYS]] if one else [],
        returns_to=one.returns_to if one else None,
        terms=one.assessed.terms if one else {},
        advice=[*one.assessed.next] if one else [],
        actions=[*_actions(user, live, line, one)],
        store_problem=answer.problem or line.known.problem,
    )


def _actions(user: BaseUser, live: Live, line: Line, one: Standing | None) -> Iterator[Action]:
    """The buttons; each starts a run of a DAG that the user can see."""
    train, registry = live.dags.get("train"), live.dags.get("registry")
    if train is not None:
        why = None if may_start(user, train.dag_id) else f"you may not start runs of {train.dag_id}"
        if why is None and train.paused:
            why = f"{train.dag_id} is paused: a run would wait until it is switched on"
        asks = ["window_start", "window_end", *(["reason"] if (line.level or 0) >= 1 else [])]
        yield Action(name="retrain", dag_id=train.dag_id, allowed=why is None, why_not=why, conf={}, asks=asks)
    if registry is None or one is None or one.keys or one.is_fleet:
        # Of a fleet, the form of the DAG itself asks for the model.
        return
    refused = None if may_start(user, registry.dag_id) else f"you may not start runs of {registry.dag_id}"
    if refused is None and registry.paused:
        refused = f"{registry.dag_id} is paused: a run would wait until it is switched on"
    champion = one.champion.version if one.champion else None
    if champion is not None:
        why = refused or (None if one.returns_to else "there is no champion before this one")
        conf = {"action": "rollback", "expected": champion}
        yield _registry_action("rollback", registry.dag_id, why, conf)
    candidate = one.candidate.version if one.candidate else None
    if candidate is not None and candidate != champion:
        conf = {"action": "promote", "version": candidate, **({"expected": champion} if champion else {})}
        yield _registry_action("promote", registry.dag_id, refused, conf)
    if one.rollout is not None:
        yield _registry_action("abort", registry.dag_id, refused, {"action": "abort", "version": one.rollout.version})


def _registry_action(name: str, dag_id: str, why: str | None, conf: dict[str, Any]) -> Action:
    return Action.model_validate(
        {"name": name, "dag_id": dag_id, "allowed": why is None, "why_not": why, "conf": conf, "asks": ["reason"]}
    )
