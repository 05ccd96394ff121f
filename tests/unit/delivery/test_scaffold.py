"""``airflow mlops new-project``: what is written is whole, the same each time, and in nobody's way."""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from airflow_mlops.cli.new_project import new_project as command
from airflow_mlops.config.lint import lint
from airflow_mlops.config.project import read_project
from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery import repository, scaffold
from airflow_mlops.delivery.scaffold import example_customers, new_project, project_files
from airflow_mlops.exceptions import ConfigError


def test_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(Namespace(folder=str(tmp_path / "a" / "crm")))
    folder = tmp_path / "a" / "crm"
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and ".git/" not in f"{p}/"}
    assert {p for p in written if not p.startswith(".git/")} == {
        ".airflowignore", ".github/workflows/pipelines.yml", ".gitignore", ".gitlab-ci.yml", "README.md",
        "data/customers.csv", "delivery/dag.py",
        "features/__init__.py", "features/churn.py", "loader.py", "pipelines/base.yaml",
        "pipelines/churn.yaml", "project.yaml", "requirements.txt", "tests/test_churn.py",
    }  # fmt: skip
    assert (folder / ".git" / "HEAD").read_text() == "ref: refs/heads/main\n"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["crm"]
    assert "cd " in capsys.readouterr().out
    assert not any(b"PROJECT" in file.content for file in project_files("crm").values())


@pytest.mark.parametrize("name", ["crm", "no", "1.10", "a-b_c.d", "true"])
def test_its_files_have_no_mistakes(name: str, tmp_path: Path) -> None:
    new_project(tmp_path / name)
    assert lint([tmp_path / name], Settings(allowed_imports=("features",))) == []
    assert read_project(tmp_path / name).name == name
    assert yaml.safe_load((tmp_path / name / "pipelines" / "base.yaml").read_text())["owner"] == name


def test_ci_files_call_our_commands_alone() -> None:
    files = project_files("crm")
    github = yaml.safe_load(files[".github/workflows/pipelines.yml"].content)
    runs = [step["run"] for step in github["jobs"]["ci"]["steps"] if "run" in step]
    gitlab = yaml.safe_load(files[".gitlab-ci.yml"].content)["pipelines"]
    for line in (*runs, *gitlab["script"]):
        assert line.startswith("airflow mlops ci ") or line == "pip install -r requirements.txt"
    assert github["permissions"] == {"contents": "read"}
    # A branch's name is never put into a script's text.
    assert not any("${{" in run for run in runs)
    written = [word for run in runs for word in run.split() if word.endswith((".md", ".xml", ".zip"))]
    assert set(written) <= set(files[".gitignore"].content.decode().split())


def test_the_customers_are_the_same_each_time() -> None:
    rows = list(csv.DictReader(io.StringIO(example_customers().decode())))
    assert example_customers() == example_customers()
    assert len({row["customer_id"] for row in rows}) == 2000
    assert 0.2 < sum(row["churned"] == "1" for row in rows) / 2000 < 0.5


def test_an_empty_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crm").mkdir()
    monkeypatch.chdir(tmp_path / "crm")
    inode = os.stat(".").st_ino
    assert new_project(Path(".")) is True
    assert os.stat(tmp_path / "crm").st_ino == inode
    assert Path("README.md").read_text().startswith("# crm\n")


@pytest.mark.parametrize("there", ["a file in it", "a hidden file in it", "a file", "a link"])
def test_a_folder_in_use_is_refused(there: str, tmp_path: Path) -> None:
    folder = tmp_path / "crm"
    if there == "a file":
        folder.write_text("mine")
    elif there == "a link":
        folder.symlink_to(tmp_path / "none")
    else:
        folder.mkdir()
        (folder / (".x" if "hidden" in there else "x")).write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        new_project(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["crm"]


@pytest.mark.parametrize("name", ["a b", "-x", "ä", "a" * 101])
def test_a_name_that_is_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be a project's name"):
        new_project(tmp_path / name)


def test_within_a_repository_none_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "all").mkdir()
    repository.initialise(tmp_path / "all")
    command(Namespace(folder=str(tmp_path / "all" / "crm")))
    assert not (tmp_path / "all" / "crm" / ".git").exists()
    assert "lies in a git repository already" in capsys.readouterr().out


def test_nothing_is_left_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scaffold, "initialise", full)
    with pytest.raises(ConfigError, match="No space left"):
        new_project(tmp_path / "crm")
    assert list(tmp_path.iterdir()) == []
