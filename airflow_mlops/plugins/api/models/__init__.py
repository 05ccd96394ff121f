"""What the routes below ``/mlops/api`` answer: the contract between the API and the pages.

Every time is ISO 8601 in UTC (``2026-11-27T05:30:00+00:00``). Every ``link`` is an address relative to Airflow's
base (``document.baseURI``), without a leading slash, so that it holds under a prefix too: ``dags/churn__train``,
``mlops/reports/churn__train/<sha256>``. Every text may come from data: pages show it as text, never as markup.

=================================================  =====================================================
route (GET)                                        answers
=================================================  =====================================================
``fleet?search=&attention=&level=&owner=&sort=     :class:`Fleet`
&order=&limit=&offset=``
``attention?limit=``                               :class:`AttentionCard`
``pipelines/{pipeline}``                           :class:`Pipeline`
``pipelines/{pipeline}/timeline?kind=&key=         :class:`Timeline`
&limit=&offset=``
``pipelines/{pipeline}/keys?run_id=&search=        :class:`Keys`, of a fleet
&state=&alarmed=&sort=&order=&limit=&offset=``
``pipelines/{pipeline}/versions?key=``             :class:`Versions`
``pipelines/{pipeline}/compare?a=&b=&key=``        :class:`Comparison`; ``a`` and ``b`` are numbers or ``champion``,
                                                   ``challenger``, ``latest``
``pipelines/{pipeline}/performance``               :class:`Performance`
``pipelines/{pipeline}/drift?windows=``            :class:`Drift`
``pipelines/{pipeline}/distribution?window=        :class:`Distribution`
&column=``
``pipelines/{pipeline}/lineage?version=&key=``     :class:`Lineage`
``pipelines/{pipeline}/reports?version=&key=``     :class:`Reports`
``runs/{dag_id}?run_id=``                          :class:`Run`
=================================================  =====================================================

Errors are ``{"detail": text}``: 401 no session, 403 no right to plugin pages, 404 no such pipeline, run or version
(or none that this user may read: the two look the same), 422 a wrong parameter, 503 the store does not answer.
Answers carry an ``ETag`` and ``Cache-Control: private, no-cache``.
"""

from airflow_mlops.plugins.api.models.base import (
    CARD_ROUTE,
    FLEET_ROUTE,
    PIPELINE_ROUTE,
    RUN_ROUTE,
    Approval,
    Attention,
    AttentionLevel,
    CheckMark,
    Event,
    GateLine,
    Json,
    Model,
    ReportLink,
    RunMark,
    Score,
    Tone,
    Window,
)
from airflow_mlops.plugins.api.models.compare import (
    Comparison,
    FactPair,
    MetricPair,
    Side,
    SlicePair,
    VersionRow,
    Versions,
)
from airflow_mlops.plugins.api.models.fleet import (
    AttentionCard,
    AttentionRow,
    Champion,
    Cost,
    Counts,
    Fleet,
    FleetRow,
    Point,
    RolloutMark,
    Suppressed,
    Training,
    Trend,
)
from airflow_mlops.plugins.api.models.keys import KeyRow, Keys, SpreadMark, StateMark, TrainingMark
from airflow_mlops.plugins.api.models.lineage import Edge, Lineage, Node, Reports
from airflow_mlops.plugins.api.models.monitoring import (
    Bin,
    ChampionMark,
    Distribution,
    Drift,
    DriftCell,
    DriftColumn,
    DriftWindow,
    Performance,
    PerformancePoint,
)
from airflow_mlops.plugins.api.models.pipeline import Action, Pipeline, Timeline
from airflow_mlops.plugins.api.models.run import Fact, Run, Section

__all__ = [
    "CARD_ROUTE",
    "FLEET_ROUTE",
    "PIPELINE_ROUTE",
    "RUN_ROUTE",
    "Action",
    "Approval",
    "Attention",
    "AttentionCard",
    "AttentionLevel",
    "AttentionRow",
    "Bin",
    "Champion",
    "ChampionMark",
    "CheckMark",
    "Comparison",
    "Cost",
    "Counts",
    "Distribution",
    "Drift",
    "DriftCell",
    "DriftColumn",
    "DriftWindow",
    "Edge",
    "Event",
    "Fact",
    "FactPair",
    "Fleet",
    "FleetRow",
    "GateLine",
    "Json",
    "KeyRow",
    "Keys",
    "Lineage",
    "MetricPair",
    "Model",
    "Node",
    "Performance",
    "PerformancePoint",
    "Pipeline",
    "Point",
    "ReportLink",
    "Reports",
    "RolloutMark",
    "Run",
    "RunMark",
    "Score",
    "Section",
    "Side",
    "SlicePair",
    "SpreadMark",
    "StateMark",
    "Suppressed",
    "Timeline",
    "Tone",
    "Training",
    "TrainingMark",
    "Trend",
    "VersionRow",
    "Versions",
    "Window",
]
