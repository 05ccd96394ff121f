"""What a version was made from, and the reports about it."""

from __future__ import annotations

from airflow_mlops.plugins.api.models.base import Model, ReportLink


class Node(Model):
    """``{"id": "data", "kind": "data", "title": "Snapshot 463cef1e4106", "lines": ["77,911 rows × 14 columns"],
    "link": null}``.

    :param kind: ``source``, ``data``, ``code``, ``config``, ``environment``, ``run``, ``model``, ``decision``,
        ``delivery`` or ``predictions``.
    """

    id: str
    kind: str
    title: str
    lines: list[str]
    link: str | None


class Edge(Model):
    """``{"source": "data", "target": "model", "label": "trained on"}``."""

    source: str
    target: str
    label: str


class Lineage(Model):
    """What a version was made from and what became of it, as a graph from left to right."""

    version: int
    key: str | None
    nodes: list[Node]
    edges: list[Edge]


class Reports(Model):
    """The model card of a version and the newest reports about it; ``card`` is ``None`` where none was made."""

    version: int | None
    card: str | None
    reports: list[ReportLink]
