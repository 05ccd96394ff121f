"""What a version was made from, besides its data: configuration and code."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from airflow_mlops.store.content import canonical_json, file_digest

UNKNOWN = "unknown"


def config_hash(config: dict[str, Any]) -> str:
    """Return the sha256 of a configuration (plain JSON); the order of keys does not matter."""
    return hashlib.sha256(canonical_json(config)).hexdigest()


def code_version(paths: Iterable[str | Path] = (), folder: str | Path | None = None) -> dict[str, Any]:
    """Name the code of a run, as far as it can be known: what cannot is ``"unknown"``.

    :param paths: source files the run uses.
    :param folder: where to look for a git checkout; by default the folder of the first path.
    :return: ``{"airflow-mlops": version, "git": commit[-dirty], "files": {path: sha256}}``.
    """
    files = {str(p): file_digest(Path(p)) if Path(p).is_file() else UNKNOWN for p in paths}
    if folder is None and files:
        folder = Path(next(iter(files))).absolute().parent
    try:
        package = version("airflow-mlops")
    except PackageNotFoundError:
        package = UNKNOWN
    return {"airflow-mlops": package, "git": _git(Path(folder)) if folder else UNKNOWN, "files": files}


def _git(folder: Path) -> str:
    # "exclude" leaves no tag to describe by, so that the answer is always the commit itself.
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return done.stdout.strip() if done.returncode == 0 else UNKNOWN
