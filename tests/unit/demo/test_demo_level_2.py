"""What the demo of level 2 delivers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.config.loader import PipelineReader
from airflow_mlops.config.project import check_text
from airflow_mlops.config.settings import Settings
from airflow_mlops.demo import level_2
from airflow_mlops.demo.story import StoryError
from airflow_mlops.demo.two_airflows import GitFailed, TwoAirflows, git

DAGS = Path(__file__).parents[3] / "dags"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in level_2.first_files(tmp_path / "flights.git", DAGS).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_pipeline_is_the_first_demos_at_another_level(project: Path) -> None:
    file = project / "pipelines" / "flight_delays.yaml"
    outputs = set()
    for environment in ("staging", "production"):
        config, source = PipelineReader(Settings(environment=environment), root=file.parent).read(file)
        assert config is not None
        assert [issue.severity for issue in source.issues] == ["warning"]  # months are replayed: no schedule
        assert config.level == 2
        assert config.deploy.rollout is None or config.deploy.rollout[0] == "shadow"
        outputs.add(config.deploy.batch.output)
    assert len(outputs) == 2
    assert check_text((project / "project.yaml").read_text(), "project.yaml")[1] == []


def test_the_bad_commit_can_be_read_only_where_its_variable_is_set(project: Path, monkeypatch) -> None:
    file = project / "pipelines" / "flight_delays.yaml"
    file.write_text(level_2.with_variable(file.read_text()))
    reader = PipelineReader(Settings(environment="production"), root=file.parent)
    monkeypatch.delenv("MLOPS_TEAM", raising=False)
    issues = reader.read(file)[1].issues
    assert [issue.code for issue in issues if issue.severity == "error"] == ["placeholder"]
    monkeypatch.setenv("MLOPS_TEAM", "ops")
    config, source = PipelineReader(Settings(environment="production"), root=file.parent).read(file)
    assert config is not None
    assert config.owner == "ops"
    assert not [issue for issue in source.issues if issue.severity == "error"]


@pytest.mark.parametrize("weather", [False, True])
def test_the_projects_tests_pass_with_both_versions_of_its_features(project: Path, weather: bool) -> None:
    (project / "features" / "flights.py").write_text(level_2.features(weather))
    command = [sys.executable, "-c", f"""
import sys; sys.path.insert(0, {str(project)!r})
from tests.test_flights import FLIGHT, test_a_flight_is_known_by_its_schedule_and_not_by_its_name as test
from features.flights import build
import pandas as pd
test(); print(len(build(pd.DataFrame([FLIGHT])).columns))
"""]  # fmt: skip
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("11" if weather else "7")


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "flight_delays.yaml").write_text("pipeline: flight_delays\nlevel: 0\n")
    with pytest.raises(StoryError, match="no line `level: 1`"):
        level_2.pipeline_file(tmp_path)


def test_commits_reach_the_remote_and_nothing_of_staging_reaches_production(tmp_path: Path) -> None:
    two = TwoAirflows(tmp_path / "two", "crm", tmp_path, env={"staging": {"MLOPS_TEAM": "ops"}})
    first = two.push("First", {"a/b.txt": "1"})
    second = two.push("Second", {"a/b.txt": "2"})
    assert git(two.remote, "log", "--format=%H %s", "main") == f"{second} Second\n{first} First"
    with pytest.raises(GitFailed, match="git commit failed"):
        two.push("Nothing has changed")
    staging, production = two.staging.env, two.production.env
    for own in ("AIRFLOW_CONN_AIRFLOW_PRODUCTION", "MLOPS_TEAM"):
        assert own in staging
        assert own not in production
    key = "AIRFLOW__MLOPS__SIGNING_KEY_FILE"
    assert staging[key] != production[key]
    assert (Path(production[key]).stat().st_mode & 0o777) == 0o600
    assert staging["AIRFLOW__MLOPS__TRUSTED_KEYS"] == production["AIRFLOW__MLOPS__TRUSTED_KEYS"]
