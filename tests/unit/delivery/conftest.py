"""Projects in git repositories for the tests of delivery."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.delivery.small_project import FILES, Project


@pytest.fixture(autouse=True)
def _git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    # Without syncing to the disk, which takes most of the time of a push.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsync")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "none")


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    """Call it with further files for a project with one commit."""

    def make(name: str = "crm", **files: str | None) -> Project:
        made = Project(tmp_path / name)
        made.folder.mkdir(parents=True)
        made.git("init", "-q", "-b", "main")
        made.commit(**{path: text for path, text in (FILES | files).items() if text is not None})
        return made

    return make
