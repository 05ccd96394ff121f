"""Operators' metrics arrive at a real StatsD listener, through Airflow's own client, from a process of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("tagged", [False, True])
def test_metrics_arrive(listener: socket.socket, tmp_path: Path, tagged: bool) -> None:
    env = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__MLOPS__STORE": f"file://{tmp_path}/store",
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(listener.getsockname()[1]),
        "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": str(tagged),
    }
    done = subprocess.run([sys.executable, "-c", TASKS], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    sent = [
        ("retrain.suppressed", "held=confirm"),
        ("retrain.granted", "reason=drift"),
        ("training.started", "start=schedule"),
        ("retrain.suppressed", "held=cooldown"),
    ]
    if tagged:
        assert received(listener) == [f"airflow.mlops.{name},pipeline=churn.eu,{tag}:1|c" for name, tag in sent]
    else:
        assert received(listener) == [
            f"airflow.mlops.{name}.churn__eu.{tag.partition('=')[2]}:1|c" for name, tag in sent
        ]
