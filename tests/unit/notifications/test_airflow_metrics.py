"""Names, tags and values of the metrics, as Airflow's backend gets them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
from airflow.sdk.observability import stats

from airflow_mlops.notifications import metrics
from airflow_mlops.notifications.metrics import METRICS, emit, of_check

ROOT = Path(__file__).parents[3]
DASHBOARD = json.loads((ROOT / "docs/grafana/airflow-mlops.json").read_text())


@pytest.fixture
def backend() -> Iterator[MagicMock]:
    """What Airflow would send to."""
    fake = MagicMock(spec=NoStatsLogger)
    stats.initialize(factory=lambda: fake, export_legacy_names=True)
    yield fake
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


def test_tags_where_the_backend_knows_them(backend: MagicMock) -> None:
    emit("mlops.gate.verdict", 1, {"pipeline": "churn", "verdict": "passed"})
    tags = {"pipeline": "churn", "column": "Gr__e__cm_", "statistic": "Linf"}
    emit("mlops.drift.effect", 0.25, {"pipeline": "churn", "column": "Größe (cm)", "statistic": "L∞"})
    backend.incr.assert_called_once_with("mlops.gate.verdict", count=1, tags={"pipeline": "churn", "verdict": "passed"})
    backend.gauge.assert_called_once_with("mlops.drift.effect", 0.25, tags=tags)


def test_names_carry_the_tags_of_plain_statsd(backend: MagicMock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_ON", "True")
    emit("mlops.gate.verdict", 1, {"verdict": "passed", "pipeline": "churn.eu"})
    assert backend.incr.call_args.args == ("mlops.gate.verdict.churn__eu.passed",)
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
    emit("mlops.gate.verdict", 1, {"verdict": "passed", "pipeline": "churn.eu"})
    assert backend.incr.call_args.args == ("mlops.gate.verdict",)


def test_what_goes_wrong_is_logged_and_fails_no_task(backend: MagicMock, caplog: pytest.LogCaptureFixture) -> None:
    emit("mlops.performance.value", float("nan"), {"pipeline": "churn", "metric": "roc_auc"})
    assert backend.gauge.call_count == 0
    backend.incr.side_effect = OSError("no route to host")
    emit("mlops.training.started", 1, {"pipeline": "churn", "start": "schedule"})
    assert "mlops.performance.value of {'pipeline': 'churn', 'metric': 'roc_auc'} is nan" in caplog.text
    assert "mlops.training.started was not sent: OSError: no route to host" in caplog.text
    with pytest.raises(KeyError):
        emit("mlops.unknown", 1, {"pipeline": "churn"})


def test_a_check_gives_its_verdict_its_effects_and_its_score() -> None:
    columns = [{"name": f"c{n}", "effect": n / 100, "statistic": "W1"} for n in range(80)]
    columns.append({"name": "empty", "effect": 0.0, "statistic": "none"})
    found = list(of_check("drift", {"verdict": "drift", "columns": columns}))
    assert found[0] == ("mlops.check.verdict", 1, {"check": "drift", "verdict": "drift"})
    assert found[1] == ("mlops.drift.effect", 0.79, {"column": "c79", "statistic": "W1"})
    assert len(found) == 1 + metrics.MOST_COLUMNS
    score: dict[str, Any] = {"verdict": "ok", "value": 0.7, "metric": "roc_auc"}
    assert list(of_check("performance", score))[1] == ("mlops.performance.value", 0.7, {"metric": "roc_auc"})
    assert len(list(of_check("drift", {"verdict": "no_drift", "columns": columns[-1:]}))) == 1
    assert len(list(of_check("performance", score | {"value": None}))) == 1
    for name, _, tags in found:
        assert set(METRICS[name].tags) == {"pipeline", *tags}


def test_the_reference_lists_them_all() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `mlops.")]
    assert rows == [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{tag}`' for tag in m.tags)} | {m.meaning} |" for m in METRICS.values()
    ]


def test_every_metric_that_operators_send_is_known() -> None:
    sent = {
        name
        for file in (ROOT / "airflow_mlops").rglob("*.py")
        for name in re.findall(r"emit\(\s*scope,\s*\"([^\"]+)\"", file.read_text())
    }
    assert len(sent) == 5
    assert sent <= METRICS.keys()


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_dashboard_draws_every_metric_by_tags_that_it_has() -> None:
    drawn = set()
    for panel in DASHBOARD["panels"]:
        ((expr, legend),) = [(target["expr"], target["legendFormat"]) for target in panel["targets"]]
        ((name,), (by,)) = (
            re.findall(r"\$\{prefix\}_([a-z_]+)(?:\(_total\)\?)?\"", expr), re.findall(r"by \(([a-z, ]+)\)", expr),
        )  # fmt: skip
        (metric,) = (m for m in METRICS.values() if m.name.replace(".", "_") == name)
        drawn.add(metric.name)
        assert set(by.split(", ")) == set(metric.tags)
        assert set(re.findall(r"\{\{(\w+)\}\}", legend)) == set(metric.tags)
        assert ("increase(" in expr) == ("(_total)?" in expr) == (metric.kind == "counter")
        assert expr.count("(") == expr.count(")")
    assert drawn == set(METRICS)


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    assert DASHBOARD.keys() >= {"title", "uid", "schemaVersion", "panels", "templating", "time"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)\}?", " ".join([*expressions(), json.dumps(DASHBOARD["templating"])])))
    assert used - {"__interval"} == variables
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))  # no panel lies on another
    assert max(x for x, _ in cells) < 24
