"""Git's own commands: never a prompt, never another repository than the one that is named, never without an end."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from airflow_mlops.exceptions import ConfigError

SECONDS = 120.0
# Set inside of git's hooks: they would lead to another repository or index than that of the folder.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


class GitTimeout(ConfigError):
    """A command of git did not end in time."""


def run_git(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    given: bytes | None = None,
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``git -C folder ARGUMENTS``; an exit code other than 0 is no error here.

    :param environment: variables to set besides.
    :param given: what it reads on standard input; ``None``: nothing.
    :raises ConfigError: git is not installed.
    :raises GitTimeout: it did not end in time.
    """
    own = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE}
    settings = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(
            command,
            capture_output=True,
            env=own | settings | dict(environment or {}),
            timeout=seconds,
            check=False,
            input=b"" if given is None else given,
        )
    except FileNotFoundError as e:
        raise ConfigError("git is not installed here", hint="install git: a project is a git repository") from e
    except subprocess.TimeoutExpired as e:
        raise GitTimeout(
            f"git {arguments[0]} did not end within {seconds:g} seconds", hint="try it by hand in the project"
        ) from e


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """The first line of what git complained of, without a login that stands in an address."""
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines()]
    first = next((line for line in lines if line), f"exit code {done.returncode}")
    return _CREDENTIALS.sub("", first)[:300]
