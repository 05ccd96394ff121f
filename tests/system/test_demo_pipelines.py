"""The demo as a user runs it, on the first three months, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from airflow_mlops.demo.airflow import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    home = tmp_path_factory.mktemp("demo") / "home"
    command = [sys.executable, "-u", "-m", "airflow_mlops.demo", "--no-ui", "--months", "3"]
    done = subprocess.run(
        [*command, "--home", str(home), "--port", str(free_port())],
        cwd=ROOT, capture_output=True, text=True, timeout=840, check=False,
        env={**os.environ, "AIRFLOW__CORE__EXECUTOR": "NoSuchExecutor"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return home, done.stdout


@pytest.mark.timeout(900)
def test_both_pipelines_run_to_the_end(demo: tuple[Path, str]) -> None:
    _, said = demo
    assert "every run ended as it should" in said
    assert re.search(r"breast_cancer__predict +success +100 rows with v1", said)
    assert "a fresh process without Airflow predicted" in said
    for number in (1, 2, 3):
        assert f"[{number}/3] 2013-0{number}" in said


def test_the_first_month_makes_a_champion_and_the_next_ones_are_watched(demo: tuple[Path, str]) -> None:
    home, _ = demo
    checks = home / "store" / "pipelines" / "flight_delays" / "checks"

    def check(month: int, name: str) -> dict[str, object]:
        (found,) = checks.glob(f"2013{month:02}01T000000Z-*.{name}.json")
        return dict(json.loads(found.read_text())["result"])

    assert check(1, "training")["start"] == "initial"
    assert check(1, "gates")["verdict"] == "no_baseline"
    assert check(2, "prediction")["rows"] == 24951
    assert check(2, "performance")["verdict"] in ("ok", "drop")
    # New data in February came within the cool-down of January's training.
    assert check(2, "suppressed")["start"] == "new_data"
    assert check(3, "gates")["version"] == 2


def test_nothing_is_left_running(demo: tuple[Path, str]) -> None:
    home, _ = demo
    left = []
    for process in psutil.process_iter(["pid", "environ"]):
        if (process.info["environ"] or {}).get("AIRFLOW_HOME") == str(home / "airflow"):
            left.append(process.pid)
    assert left == []
