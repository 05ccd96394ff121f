"""Operators' metrics arrive at a StatsD listener and an OpenTelemetry collector, through Airflow's own clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

# What Airflow's task runner does first, and then four tasks of a pipeline.
TASKS = """
from types import SimpleNamespace
from unittest.mock import MagicMock
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSkipException
from airflow.sdk.observability import stats
from airflow.sdk.observability.metrics import stats_utils
from airflow_mlops.operators.retrain import ClaimRetrainOperator, RequestRetrainOperator

stats.initialize(
    factory=stats_utils.get_stats_factory(), export_legacy_names=conf.getboolean("metrics", "legacy_names_on")
)
RETRAIN = {"when": ["drift"], "confirm": "2 of 3", "cooldown": "7d"}
DRIFT = {"verdict": "drift", "sentence": "drift", "version": 1}


def run(operator, run_id, **params):
    ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull"])
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "churn__any", run_id, operator.task_id, -1
    dag_run = SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None)
    try:
        return operator.execute({"ti": ti, "params": params, "dag_run": dag_run, "outlet_events": MagicMock()})
    except AirflowSkipException as e:
        print(e)


def ask(day, **params):
    window = {"window_start": f"2013-06-0{day}", "window_end": f"2013-06-0{day + 1}"}
    operator = RequestRetrainOperator(task_id="r", pipeline="churn.eu", checks={"drift": DRIFT}, retrain=RETRAIN)
    run(operator, f"run {day} {params}", **window, **params)


ask(1)
ask(2, promote=False)
ask(2)
claim = ClaimRetrainOperator(task_id="c", pipeline="churn.eu", retrain=RETRAIN)
run(claim, "train", window_start="2013-06-02", window_end="2013-06-03", reason="schedule")
ask(4)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A UDP socket where a StatsD server would listen."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.settimeout(0.5)
        yield found


def received(listener: socket.socket) -> list[str]:
    lines: list[str] = []
    try:
        while True:
            lines += listener.recv(65536).decode().splitlines()
    except TimeoutError:
        return [line for line in lines if "mlops" in line]


SENT = [
    ("retrain.suppressed", "held", "confirm"),
    ("retrain.granted", "reason", "drift"),
    ("training.started", "start", "schedule"),
    ("retrain.suppressed", "held", "cooldown"),
]


def run_tasks(home: Path, **more: str) -> None:
    env = os.environ | {"AIRFLOW_HOME": str(home / "airflow"), "AIRFLOW__MLOPS__STORE": f"file://{home}/store"} | more
    done = subprocess.run([sys.executable, "-c", TASKS], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("tagged", [False, True])
def test_statsd_gets_them(listener: socket.socket, tmp_path: Path, tagged: bool) -> None:
    run_tasks(
        tmp_path,
        AIRFLOW__METRICS__STATSD_ON="True",
        AIRFLOW__METRICS__STATSD_HOST="127.0.0.1",
        AIRFLOW__METRICS__STATSD_PORT=str(listener.getsockname()[1]),
        AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED=str(tagged),
    )
    if tagged:
        expected = [f"airflow.mlops.{name},pipeline=churn.eu,{tag}={value}:1|c" for name, tag, value in SENT]
    else:
        expected = [f"airflow.mlops.{name}.churn__eu.{value}:1|c" for name, _, value in SENT]
    assert received(listener) == expected


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Where an OpenTelemetry collector would listen, and what was posted there."""
    bodies: list[bytes] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    server.server_close()


def test_opentelemetry_gets_them_with_their_tags(collector: tuple[str, list[bytes]], tmp_path: Path) -> None:
    url, bodies = collector
    run_tasks(
        tmp_path,
        AIRFLOW__METRICS__OTEL_ON="True",
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_COMPRESSION="none",
    )
    request = ExportMetricsServiceRequest()
    request.ParseFromString(bodies[-1])
    found = {
        (metric.name, tuple(sorted((a.key, a.value.string_value) for a in point.attributes)), point.as_int)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.sum.data_points
        if "mlops" in metric.name
    }
    assert found == {
        (f"airflow.mlops.{name}", tuple(sorted([("pipeline", "churn.eu"), (tag, value)])), 1)
        for name, tag, value in SENT
    }
