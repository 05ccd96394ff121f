"""Buttons on a task that open its reports.

``get_link`` runs on the worker when the task ends, without a database: Airflow stores what it
returns in XCom and the API server reads only that. So an operator calls :func:`persist_report`
while it works, and the link finds the entry of its own name in the task's XCom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context
    from airflow.sdk.types import TaskInstanceKey

XCOM_KEY = "mlops_reports"
"""XCom key under which a task lists its reports: ``[{"name", "url", "digest"}, …]``."""

URL_PREFIX = "/mlops"
"""Where the reports are served, below the path of ``[api] base_url``."""


def _url(kind: str, dag_id: str, digest: str) -> str:
    from airflow.sdk import conf

    # Only the path: the browser then stays on the host name under which the user opened Airflow,
    # and a worker whose base_url names another host still makes working links.
    path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{path}{URL_PREFIX}/{kind}/{quote(dag_id, safe='')}/{digest}"


def report_url(dag_id: str, digest: str) -> str:
    """URL path of the report at ``layout.report(dag_id, digest)``; ``digest`` is its sha256."""
    return _url("reports", dag_id, digest)


def file_url(dag_id: str, digest: str) -> str:
    """URL path for downloading the bundle at ``layout.handover(dag_id, digest)``."""
    return _url("files", dag_id, digest)


def persist_report(context: Context, name: str, url: str) -> None:
    """Add a report to the task's list, for the link called ``name``; a second one of a name replaces the first.

    :param name: one of the names of the links below.
    :param url: from :func:`report_url` or :func:`file_url`, or an absolute ``https`` URL.
    """
    # Collected in the context, which lives as long as the try: a push replaces the whole XCom value,
    # and pulling the task's own XCom first would cost a round trip each time.
    values = cast("dict[str, Any]", context)
    reports: list[dict[str, Any]] = values.setdefault(XCOM_KEY, [])
    reports[:] = [entry for entry in reports if entry["name"] != name]
    reports.append({"name": name, "url": url, "digest": url.rpartition("/")[2]})
    context["ti"].xcom_push(key=XCOM_KEY, value=reports)


class ReportLink(BaseOperatorLink):
    """Base of the report links: opens the task's report whose name is the link's own.

    Airflow shows no button where ``get_link`` returned the empty string.
    """

    name: ClassVar[str]

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the report's URL, or ``""`` if the task wrote none."""
        from airflow.sdk.execution_time.xcom import XCom

        reports = XCom.get_value(key=XCOM_KEY, ti_key=ti_key)
        for entry in reports or ():
            if entry.get("name") == self.name:
                return entry.get("url") or report_url(ti_key.dag_id, entry["digest"])
        return ""


class ValidationReportLink(ReportLink):
    """What the expectations found."""

    name = "Validation report"


class DataProfileLink(ReportLink):
    """Columns, ranges and missing values of the snapshot."""

    name = "Data profile"


class GateReportLink(ReportLink):
    """Each gate's verdict with its numbers."""

    name = "Gate report"


class ExperimentReportLink(ReportLink):
    """Every trial of an experiment, as a table and a drawing."""

    name = "Experiment report"


class DriftReportLink(ReportLink):
    """Reference against current, per column."""

    name = "Drift report"


class SkewReportLink(ReportLink):
    """Served features against those that the training code makes, row by row."""

    name = "Feature skew report"


class RolloutReportLink(ReportLink):
    """What a look at a rollout came to, and the windows behind it."""

    name = "Rollout report"


class ModelCardLink(ReportLink):
    """What the model is, what it was trained on and how good it is."""

    name = "Model card"


class HandoverBundleLink(ReportLink):
    """Downloads the handover bundle."""

    name = "Handover bundle"


class DeliveryReportLink(ReportLink):
    """What each step of a delivery found, and where the environments stand."""

    name = "Delivery report"
