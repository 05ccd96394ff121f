"""Which deployment a task's code came with, as the files beside it say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from airflow_mlops.delivery.bundle import DEPLOYED_MANIFEST, DEPLOYED_SIGNATURE, put_together
from airflow_mlops.delivery.tree import TreeFile, read_tree
from airflow_mlops.exceptions import ConfigError


def deployed_code(folder: Path) -> dict[str, Any] | None:
    """Tell which bundle the files around ``folder`` are of; ``None``: they were not deployed as one.

    The files are put together to a bundle again, so that its digest says what lies there and not what should.

    :param folder: of a pipeline's file; the deployment's manifest lies in it or above it.
    :return: ``project``, the ``commit`` it was built from, and the sha256 ``bundle``; this is ``None`` where a file
        is missing or cannot be read.
    """
    top = next((place for place in (folder, *folder.parents) if (place / DEPLOYED_MANIFEST).is_file()), None)
    if top is None:
        return None
    try:
        manifest = json.loads((top / DEPLOYED_MANIFEST).read_bytes())
        listed, project, commit = list(manifest["files"]), str(manifest["project"]), manifest["commit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {"project": project, "commit": commit, "bundle": _digest(top, listed)}


def _digest(top: Path, listed: list[str]) -> str | None:
    beside = [path for path in (DEPLOYED_MANIFEST, DEPLOYED_SIGNATURE) if (top / path).is_file()]
    try:
        files: dict[str, TreeFile] = read_tree(top, [*listed, *beside])
    except ConfigError:
        return None
    if len(files) < len(listed) + len(beside):
        return None
    return hashlib.sha256(put_together(files)).hexdigest()
