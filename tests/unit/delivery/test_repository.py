"""What git knows of a project: its files as they lie there, as they were, and what is in no commit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mlops.delivery.repository import Repository, initialise
from airflow_mlops.exceptions import ConfigError
from tests.unit.delivery.small_project import FILES, Project

Make = Callable[..., Project]


def texts(files: dict) -> dict[str, str]:
    return {path: file.content.decode() for path, file in files.items()}


def test_the_files_are_those_that_git_does_not_ignore(project: Make) -> None:
    made = project()
    made.write(**{"new.txt": "new", "ignored.txt": "x", "data/x.csv": "x", "signals/unused.py": None})
    (made.folder / "loader.py").chmod(0o755)
    found = Repository.around(made.folder)
    expected = {**FILES, "new.txt": "new"}
    del expected["signals/unused.py"]
    assert texts(found.files()) == expected
    assert [p for p, f in found.files().items() if f.executable] == ["loader.py"]
    assert sorted(found.uncommitted()) == [" D signals/unused.py", " M loader.py", "?? new.txt"]


def test_the_files_at_a_commit(project: Make) -> None:
    made = project()
    first = made.git("rev-parse", "HEAD")
    made.commit(**{"signals/churn.py": "x = 2\n", "more.txt": "x"})
    made.write(**{"signals/churn.py": "x = 3\n"})
    index = (made.folder / ".git" / "index").read_bytes()
    found = Repository.around(made.folder)
    assert texts(found.files_at(first)) == FILES
    assert texts(found.files_at(found.head))["signals/churn.py"] == "x = 2\n"
    assert (made.folder / ".git" / "index").read_bytes() == index
    assert (made.folder / "signals/churn.py").read_text() == "x = 3\n"


def test_a_project_below_the_top_of_its_repository(project: Make) -> None:
    made = project(**{"teams/b/pipelines/x.yaml": "a: 1\n"})
    folder = made.folder / "teams" / "b"
    found = Repository.around(folder)
    made.write(**{"teams/b/y.txt": "y", "elsewhere.txt": "x"})
    assert texts(found.files()) == {"pipelines/x.yaml": "a: 1\n", "y.txt": "y"}
    assert texts(found.files_at(found.head)) == {"pipelines/x.yaml": "a: 1\n"}
    assert found.uncommitted() == ["?? teams/b/y.txt"]
    later = made.commit(**{"teams/c/z.txt": "z"})
    assert Repository.around(made.folder / "teams" / "c").files_at(f"{later}^") == {}


def test_the_base_is_where_the_branch_began(project: Make) -> None:
    made = project()
    first = made.git("rev-parse", "HEAD")
    made.git("switch", "-q", "-c", "branch")
    own = made.commit(**{"a.txt": "a"})
    made.git("switch", "-q", "main")
    made.git("tag", "v1", made.commit(**{"b.txt": "b"}))
    made.git("switch", "-q", "branch")
    found = Repository.around(made.folder)
    assert [found.base(ref) for ref in ("main", "v1", first, first[:8], "HEAD^")] == [first] * 5
    assert found.base(own) == found.base("HEAD") == own


@pytest.mark.parametrize("ref", ["none", "", "--all", "-h", "HEAD~9", "main:loader.py", "a b", "$(touch x)"])
def test_a_commit_that_is_not_there(ref: str, project: Make) -> None:
    found = Repository.around(project().folder)
    with pytest.raises(ConfigError, match="there is no commit") as raised:
        found.base(ref)
    assert "fetch-depth: 0" in str(raised.value)


def test_no_repository_no_commit_no_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(ConfigError, match="is not in a git repository"):
        Repository.around(tmp_path / "plain")
    assert initialise(tmp_path / "plain") is True
    with pytest.raises(ConfigError, match="has no commit yet"):
        Repository.around(tmp_path / "plain")
    with pytest.raises(ConfigError, match="there is no folder"):
        Repository.around(tmp_path / "none")


def test_without_git(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = project().folder
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="git is not installed"):
        Repository.around(folder)


def test_in_a_hook_of_another_repository(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = project(), project("other", **{"only.txt": "x"})
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.folder / ".git" / "index"))
    assert "only.txt" not in Repository.around(made.folder).files()


def test_a_link_is_refused(project: Make) -> None:
    made = project()
    (made.folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="link is a symbolic link"):
        Repository.around(made.folder).files()
