"""The head of the pipeline page, and its timeline."""

from __future__ import annotations

from typing import Literal

from airflow_mlops.plugins.api.models.base import Event, Json, Model
from airflow_mlops.plugins.api.models.fleet import FleetRow


class Action(Model):
    """A button: it starts a DAG run, ``POST api/v2/dags/{dag_id}/dagRuns`` with ``{"logical_date": null, "conf": …}``.

    ``{"name": "rollback", "dag_id": "churn__registry", "allowed": true, "why_not": null,
    "conf": {"action": "rollback", "expected": 6}, "asks": ["reason"]}``

    :param allowed: whether this user may start runs of that DAG and it makes sense now; ``why_not`` says why not.
    :param conf: what the page sends; ``asks``: fields that the page asks the person for and adds to it (``reason``
        is text and needed; ``window_start`` and ``window_end`` are times and belong together).
    """

    name: Literal["retrain", "rollback", "promote", "abort"]
    dag_id: str
    allowed: bool
    why_not: str | None
    conf: dict[str, Json]
    asks: list[str]


class Pipeline(Model):
    """The head of the pipeline page: its row of the fleet, and more.

    :param keys: model keys of a fleet, at most 500; empty where there is one model.
    :param terms: the level exercised in the words of ``google``, ``microsoft`` and ``aws``.
    :param advice: the next things to do, most important first.
    :param returns_to: the version that a rollback would make champion.
    """

    row: FleetRow
    description: str | None
    keys: list[str]
    returns_to: int | None
    terms: dict[str, str]
    advice: list[str]
    actions: list[Action]
    store_problem: str | None


class Timeline(Model):
    """Events, the newest first: ``{"total": 312, "offset": 0, "limit": 50, "events": [{…}]}``."""

    total: int
    offset: int
    limit: int
    events: list[Event]
