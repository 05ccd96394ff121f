"""What is new in a repository: a branch's commit, or the highest release."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import RemoteUnavailable
from airflow_mlops.triggers.commits import NewCommitTrigger, newest_release
from tests.unit.delivery.deliveries import bare, git


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "A")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    remote = bare(tmp_path / "origin.git")
    git(tmp_path, "clone", "-q", str(remote), "work")
    commit(tmp_path)
    return remote


def commit(tmp_path: Path, *tags: str) -> str:
    work = tmp_path / "work"
    git(work, "commit", "-q", "--allow-empty", "-m", "x")
    for tag in tags:
        git(work, "tag", "-f", tag) if tag.startswith("l") else git(work, "tag", "-a", "-m", tag, tag)
    git(work, "push", "-q", "-f", "origin", "HEAD:main", "--tags")
    return git(work, "rev-parse", "HEAD")


def test_a_branch(origin: Path, tmp_path: Path) -> None:
    trigger = NewCommitTrigger(str(origin))
    first = trigger.look()
    head = git(tmp_path / "work", "rev-parse", "HEAD")
    assert first == {"version": head, "commit": head, "ref": "refs/heads/main"}
    second = commit(tmp_path)
    assert (trigger.look() or {})["version"] == second
    assert NewCommitTrigger(str(origin), branch="other").look() is None


def test_tags(origin: Path, tmp_path: Path) -> None:
    trigger = NewCommitTrigger(str(origin), tags="v*")
    assert trigger.look() is None
    wanted = commit(tmp_path, "v1.9", "v1.10", "v2-rc1", "w3")
    assert trigger.look() == {"version": "refs/tags/v1.10", "commit": wanted, "ref": "refs/tags/v1.10"}
    light = commit(tmp_path, "l1")
    assert (NewCommitTrigger(str(origin), tags="l*").look() or {})["commit"] == light
    # A tag that is moved names another commit, and is not new.
    moved = commit(tmp_path, "l1")
    assert moved != light
    assert NewCommitTrigger(str(origin), tags="l*").look() == {
        "version": "refs/tags/l1", "commit": moved, "ref": "refs/tags/l1"
    }  # fmt: skip


def test_a_remote_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(RemoteUnavailable):
        NewCommitTrigger(str(tmp_path / "none.git")).look()


def test_it_survives_being_stored() -> None:
    trigger = NewCommitTrigger("https://x/y.git", "git_default", "trunk", "v*", poll_interval=5, emit_first=True)
    path, arguments = trigger.serialize()
    assert path == "airflow_mlops.triggers.commits.NewCommitTrigger"
    assert NewCommitTrigger(**arguments).serialize() == (path, arguments)


def test_it_fires_for_what_is_there_and_for_what_comes(origin: Path, tmp_path: Path) -> None:
    trigger = NewCommitTrigger(str(origin), poll_interval=0.01, emit_first=True)

    async def events() -> list[Any]:
        found, second = [], None
        async for event in trigger.run():
            found.append(event.payload["commit"])
            if second is not None:
                return [*found, second]
            second = await asyncio.to_thread(commit, tmp_path)
        return found

    first, got, second = asyncio.run(events())
    assert (got, first != second) == (second, True)


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_highest_release_is_that_of_the_numbers(versions: list[list[int]]) -> None:
    refs = [f"refs/tags/v{'.'.join(map(str, version))}" for version in versions]
    assert newest_release([*refs, "refs/tags/latest", "refs/tags/v99.0-rc1"]) == refs[versions.index(max(versions))]
    assert newest_release(["refs/tags/latest"]) is None
