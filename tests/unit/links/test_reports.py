from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk import DAG, BaseOperator
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.links import reports
from airflow_mlops.links.reports import ReportLink, file_url, persist_report, report_url

DIGEST = "ab" * 32
LINKS = [link for link in vars(reports).values() if isinstance(link, type) and issubclass(link, ReportLink)]
LINKS.remove(ReportLink)
TI = SimpleNamespace(dag_id="churn__train", task_id="evaluate.gates", run_id="r", map_index=-1)


class WithLinks(BaseOperator):
    operator_extra_links = tuple(link() for link in LINKS)

    def execute(self, context: Any) -> None: ...


@pytest.fixture
def xcom(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    values: dict[str, Any] = {}
    monkeypatch.setattr(
        "airflow.sdk.execution_time.xcom.XCom.get_value", lambda *, key, ti_key: values.get(key), raising=True
    )
    return values


def test_each_link_has_its_own_name_and_xcom_key() -> None:
    assert {link().name for link in LINKS} == {
        "Validation report",
        "Data profile",
        "Gate report",
        "Drift report",
        "Feature skew report",
        "Model card",
        "Handover bundle",
        "Experiment report",
        "Rollout report",
        "Delivery report",
    }
    assert len({link().xcom_key for link in LINKS}) == len(LINKS)


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://localhost:8080", "/mlops"),
        ("https://ops.example/airflow/", "/airflow/mlops"),
        ("", "/mlops"),
        ("/", "/mlops"),
    ],
)
def test_urls_follow_the_path_of_base_url(monkeypatch: pytest.MonkeyPatch, base_url: str, path: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert report_url("churn__train", DIGEST) == f"{path}/reports/churn__train/{DIGEST}"
    assert file_url("a b", DIGEST) == f"{path}/files/a%20b/{DIGEST}"


def test_a_task_lists_its_reports_in_one_xcom() -> None:
    context: Any = {"ti": MagicMock()}
    persist_report(context, "Gate report", "/mlops/reports/d/old")
    persist_report(context, "Model card", f"/mlops/reports/d/{DIGEST}")
    persist_report(context, "Gate report", f"/mlops/reports/d/{DIGEST}")
    context["ti"].xcom_push.assert_called_with(
        key="mlops_reports",
        value=[
            {"name": "Model card", "url": f"/mlops/reports/d/{DIGEST}", "digest": DIGEST},
            {"name": "Gate report", "url": f"/mlops/reports/d/{DIGEST}", "digest": DIGEST},
        ],
    )


def test_a_link_finds_the_report_of_its_name(xcom: dict[str, Any]) -> None:
    xcom["mlops_reports"] = [{"name": "Gate report", "url": "/x/gate"}, {"name": "Model card", "digest": DIGEST}]
    task = WithLinks(task_id="t")
    found = {link().name: link().get_link(task, ti_key=TI) for link in LINKS}
    assert found.pop("Gate report") == "/x/gate"
    assert found.pop("Model card").endswith(f"/mlops/reports/churn__train/{DIGEST}")
    assert set(found.values()) == {""}


def test_without_reports_there_is_no_button(xcom: dict[str, Any]) -> None:
    assert {link().get_link(WithLinks(task_id="t"), ti_key=TI) for link in LINKS} == {""}


def test_links_survive_serialization_under_the_keys_the_worker_writes() -> None:
    with DAG("d", schedule=None) as dag:
        WithLinks(task_id="t")
        WithLinks.partial(task_id="m").expand(doc=["a", "b"])
    back = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    wanted = {link().name: link().xcom_key for link in LINKS}
    for task_id in ("t", "m"):
        links = back.get_task(task_id).operator_extra_links
        assert {link.name: link.xcom_key for link in links} == wanted
