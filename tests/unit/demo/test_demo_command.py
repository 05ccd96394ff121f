from __future__ import annotations

import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from airflow_mlops.config import load_pipeline
from airflow_mlops.demo import story
from airflow_mlops.demo.__main__ import MARK, fresh_home, report
from airflow_mlops.demo.airflow import LiveAirflow, ended_on_exit, free_port, port_is_free
from airflow_mlops.exceptions import ConfigError

ROOT = Path(__file__).parents[3]


def test_a_busy_port_is_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        assert not port_is_free(port)
        done = subprocess.run(
            [sys.executable, "-m", "airflow_mlops.demo", "--port", str(port), "--home", str(tmp_path / "h")],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"port {port} is in use" in done.stderr
    assert f"PORT={port + 1}" in done.stderr
    assert not (tmp_path / "h").exists()


def test_only_what_a_demo_made_is_deleted(tmp_path: Path) -> None:
    home, said = tmp_path / "h", []
    fresh_home(home, said.append)
    (home / "store").mkdir()
    fresh_home(home, said.append)
    assert [p.name for p in home.iterdir()] == [MARK]
    assert "fresh store" in said[0]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not made by the demo"):
        fresh_home(other, said.append)
    assert (other / "thesis.txt").exists()


def test_nothing_of_the_callers_airflow_gets_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    monkeypatch.setenv("AIRFLOW_CONN_X", "secret")
    live = LiveAirflow(tmp_path, tmp_path, env={"AIRFLOW__MLOPS__DATA_ROOT": "/d"})
    assert "AIRFLOW_CONN_X" not in live.env
    assert live.env["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert live.env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert live.env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://127.0.0.1:{live.port}/execution/"
    assert live.env["AIRFLOW__MLOPS__DATA_ROOT"] == "/d"


def test_all_of_an_airflow_can_lie_below_a_path(tmp_path: Path) -> None:
    live = LiveAirflow(
        tmp_path, tmp_path, port=8999, env={"AIRFLOW__API__BASE_URL": "http://localhost:8999/team/airflow"}
    )
    assert live.url == "http://localhost:8999/team/airflow"
    # Tasks find the API server there too.
    assert live.env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8999/team/airflow/execution/"


def test_a_process_does_not_outlive_its_block() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.PIPE, text=True
    )
    with pytest.raises(KeyError), ended_on_exit(process):
        raise KeyError
    assert process.returncode is not None


def test_the_handover_command_runs_in_the_bundle_without_the_callers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as bundle:
        bundle.writestr("predict.py", "import os; print(os.environ.get('SECRET_OF_THE_CALLER'))")
    uri = (tmp_path / "b.zip").as_uri()
    step = story.use_handover(uri, "python predict.py", tmp_path / "out", print)
    assert step.detail.endswith("None")
    with pytest.raises(story.StoryError, match="exit code 3"):
        story.use_handover(uri, "exit 3", tmp_path / "out", print)


def test_months() -> None:
    assert story.months(2) == ("2013-01-01", "2013-03-01")
    assert story.months(12) == ("2013-01-01", "2014-01-01")


def test_the_closing_table() -> None:
    text = report([story.Step("a", "success", "fine"), story.Step("long", "success", "too")], ["window", "2013-01"])
    assert "  a     success  fine" in text
    assert text.index("level 1") < text.index("2013-01")


def test_a_free_port_is_free() -> None:
    assert port_is_free(free_port())


@pytest.mark.parametrize("name", ["breast_cancer", "flight_delays"])
def test_the_pipeline_files_are_valid(name: str) -> None:
    assert load_pipeline(ROOT / "dags" / "pipelines" / f"{name}.yaml").pipeline == name


class Commands:
    """Stands for an Airflow whose commands print what is told here."""

    def __init__(self, code: str) -> None:
        self.code = code

    def command(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", self.code, *args],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip


def test_the_year_is_explained_at_the_end() -> None:
    live = Commands("import sys; print('warning: old option\\n\\nflights: 2 windows\\n\\n 2013-01 ', sys.argv[1:])")
    assert story.explained(live, "flights") == [
        "", "airflow mlops monitor history flights", "flights: 2 windows",
        " 2013-01  ['mlops', 'monitor', 'history', 'flights']",
    ]  # fmt: skip
    for code, message in (
        ("import sys; print('flights: gone'); sys.exit(1)", "ended with exit code 1:\nflights: gone"),
        ("print('nothing')", "told no history:\nnothing"),
    ):
        with pytest.raises(story.StoryError, match=f"airflow mlops monitor history flights {message}"):
            story.explained(Commands(code), "flights")
