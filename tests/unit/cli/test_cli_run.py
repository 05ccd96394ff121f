"""``airflow mlops run``: what it takes from Airflow's configuration, and how it ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from airflow_mlops.cli.definition import get_mlops_cli_commands
from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.run import run
from airflow_mlops.exceptions import TrainingError
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.store import LocalStore

SMALL = """
pipeline: parts
level: 0
data: {source: parts.csv, target: bad, id: part}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.7}]}
"""


def arguments(*words: str) -> Namespace:
    """The words of the command line after ``airflow mlops run``, parsed as Airflow parses them."""
    (command,) = (c for group in get_mlops_cli_commands() for c in group.subcommands if c.name == "run")
    parser = ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)
    return parser.parse_args(words)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline file; data root and store are set as in an Airflow."""
    random = np.random.default_rng(5)
    size, heat = random.normal(size=900), random.normal(size=900)
    bad = (size + heat + random.normal(size=900) > 0).astype(int)
    (tmp_path / "lake").mkdir()
    pd.DataFrame({"part": range(900), "size": size, "heat": heat, "bad": bad}).to_csv(tmp_path / "lake" / "parts.csv")
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path / "lake"))
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", (tmp_path / "store").as_uri())
    path = tmp_path / "parts.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with exit code 1; returns what it wrote to standard error."""

    def check(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            run(arguments(*words))
        assert ended.value.code == 1
        return capsys.readouterr().err

    return check


def test_nothing_is_kept_unless_told(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(arguments(str(file)))
    assert capsys.readouterr().out.splitlines()[-1] == "verdict: passed; nothing was registered"
    assert not (tmp_path / "store").exists()


def test_a_candidate_is_registered_in_the_store_of_airflow(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(arguments(str(file), "--register", "--reports", str(tmp_path / "reports")))
    assert MLOpsHook().registry("parts").get(1).status == "candidate"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "verdict: passed; registered as v1, not promoted",
        f"reports in {tmp_path / 'reports'}: Data profile, Gate report, Model card, Validation report",
    ]
    assert len(list((tmp_path / "reports").glob("*.html"))) == 4


def test_a_rejection_is_a_result(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SMALL.replace("0.7", "1.0"))
    run(arguments(str(file), "--sample", "600"))
    out = capsys.readouterr().out
    assert "a sample of 600 of 900 rows" in out
    assert "verdict: rejected" in out


def test_relative_paths_start_at_the_data_root_that_is_given(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    (tmp_path / "lake").rename(tmp_path / "elsewhere")
    assert "no file matches parts.csv" in fails(str(file))
    monkeypatch.chdir(tmp_path)
    run(arguments(str(file), "--data-root", "elsewhere"))
    run(arguments(str(file), "--data-root", (tmp_path / "elsewhere").as_uri()))


def test_every_problem_of_the_file_is_told(file: Path, fails: Callable[..., str]) -> None:
    file.write_text(SMALL.replace("estimator", "estimatr").replace("level: 0", "level: nought"))
    error = fails(str(file))
    assert "did you mean `estimator`?" in error
    assert "`level`" in error
    assert "there is no such file" in fails(str(file.with_name("none.yaml")))


def test_what_the_deployment_allows_counts(file: Path, fails: Callable[..., str]) -> None:
    file.write_text(SMALL.replace("source: parts.csv", "callable: 'own_parts:load'"))
    assert "allowed_imports" in fails(str(file))
    file.write_text(SMALL.replace("estimator: sklearn.linear_model.LogisticRegression", "command: python fit.py"))
    assert "allow_commands" in fails(str(file))


def test_the_environment_of_airflow_is_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    overlay = "environments: {a: {data: {source: a.csv}}, b: {data: {source: b.csv}}}\n"
    file.write_text(SMALL + overlay)
    monkeypatch.setenv("AIRFLOW__MLOPS__ENVIRONMENT", "a")
    assert "a.csv" in fails(str(file))
    assert "b.csv" in fails(str(file), "--environment", "b")


def test_queries_run_through_airflows_connections(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pd.read_csv(file.parent / "lake" / "parts.csv")

    def sql(self: MLOpsHook, conn_id: str, query: str) -> Iterator[pa.Table]:
        assert (conn_id, query) == ("plant", "SELECT '2013-01-01'")
        yield pa.Table.from_pandas(frame)

    monkeypatch.setattr(MLOpsHook, "sql", sql)
    query = "sql: {conn_id: plant, query: \"SELECT '{{ window.start }}'\"}"
    file.write_text(SMALL.replace("source: parts.csv", query))
    run(arguments(str(file), "--from", "2013-01-01", "--to", "2013-02-01"))
    assert "window 2013-01-01 … 2013-02-01" in capsys.readouterr().out


def test_standard_output_is_the_runs_own(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noisy_parts.py").write_text(
        "import logging, pandas as pd\n"
        "def load():\n"
        "    print('printed by user code')\n"
        "    logging.getLogger('noise').info('too much'), logging.getLogger('noise').warning('worth a look')\n"
        f"    return pd.read_csv({str(tmp_path / 'lake' / 'parts.csv')!r})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "noisy_parts")
    file.write_text(SMALL.replace("source: parts.csv", "callable: 'noisy_parts:load'"))
    # As Airflow has it: what is logged goes to standard output.
    handler, root = logging.StreamHandler(sys.stdout), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    run(arguments(str(file)))
    out, err = capsys.readouterr()
    assert out.startswith("parts (level 0)")
    assert err.splitlines() == ["printed by user code", "worth a look"]
    assert (handler.stream, handler.level) == (sys.stdout, logging.NOTSET)


def test_own_code_that_fails_is_shown_where_it_failed(capsys: pytest.CaptureFixture[str]) -> None:
    def own() -> None:
        raise KeyError("radius")

    @clear_errors
    def command(args: Namespace) -> None:
        try:
            own()
        except KeyError as e:
            raise TrainingError("own code failed", hint="its own traceback is in the log, after this one") from e

    with pytest.raises(SystemExit):
        command(Namespace())
    error = capsys.readouterr().err
    assert error.startswith("airflow mlops: own code failed\n")
    assert "in own" in error
    assert error.endswith("KeyError: 'radius'\n")
    assert "TrainingError" not in error


def test_it_runs_without_a_database(file: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__MLOPS__DATA_ROOT": str(tmp_path / "lake"),
    }
    command = [sys.executable, "-m", "airflow", "mlops", "run", str(file), "--register"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("parts (level 0)")
    assert done.stdout.splitlines()[-1] == "verdict: passed; registered as v1, not promoted"
    assert max(map(len, done.stdout.replace((home / "mlops").as_uri(), "").splitlines())) <= 80
    assert list(home.glob("*.db")) == []
    assert any(LocalStore(home / "mlops").list("pipelines/parts/log/"))
