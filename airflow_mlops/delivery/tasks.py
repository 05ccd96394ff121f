"""Running a project's code for CI: each task in a process of its own, on a copy of the project."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from airflow_mlops.delivery.process import Ended, child_environment, run
from airflow_mlops.delivery.project import own_packages
from airflow_mlops.delivery.record import Check
from airflow_mlops.delivery.tree import TreeFile

LARGEST_ANSWER = 64 << 20
"""Bytes of an answer that are read: it holds results, never rows."""
SHOWN = 40
"""Lines of what a process printed, or of what is wrong, that are told."""


def environment_of(found: Check) -> dict[str, str]:
    """Return the environment of the project's processes, with the options of ``[mlops]`` that it may know."""
    asked, home = found.asked, found.work / "airflow"
    home.mkdir(exist_ok=True)
    allowed = found.settings(found.files).allowed_imports or ()
    options = {
        "allowed_imports": ",".join(allowed),
        "allowed_variables": ",".join(asked.settings.allowed_variables),
        "allow_commands": str(bool(asked.settings.allow_commands)),
        "trusted_types": ",".join(asked.trusted_types),
        "environment": asked.settings.environment or "",
        "data_root": asked.data_root,
        "store": f"file://{found.work / 'stores' / '_'}",
    }
    return child_environment(home, options, project=asked.folder, withheld_conn_ids=asked.withheld_conn_ids)


def run_task(
    found: Check, task: str, folder: Path, files: Mapping[str, TreeFile], request: Mapping[str, Any], *, seconds: float
) -> dict[str, Any]:
    """Run a task of :mod:`airflow_mlops.cli.ci_task`; a process that ends without an answer is an error, too."""
    asked = found.asked
    everything = {
        "task": task,
        "folder": str(folder),
        "packages": own_packages(files),
        "environment": asked.settings.environment,
        "allowed_imports": found.settings(files).allowed_imports,
        "allowed_variables": asked.settings.allowed_variables,
        "allow_commands": bool(asked.settings.allow_commands),
        "trusted_types": asked.trusted_types,
        "data_root": asked.data_root,
        **request,
    }
    with tempfile.TemporaryDirectory(dir=found.work, prefix="task-") as scratch:
        question, answer = Path(scratch, "request.json"), Path(scratch, "answer.json")
        question.write_text(json.dumps(everything))
        ended = run(
            ["-P", "-m", "airflow_mlops.cli.ci_task", str(question), str(answer)],
            folder=folder,
            environment=environment_of(found),
            seconds=seconds,
            log=Path(scratch, "log"),
        )
        size = answer.stat().st_size if answer.exists() else None
        if size is not None and size <= LARGEST_ANSWER:
            result: dict[str, Any] = json.loads(answer.read_text())
            return result
    why = f"it was killed after {seconds:g} seconds" if ended.code is None else f"its process ended with {ended.code}"
    if size is not None:
        why = f"its answer has {size:,} bytes, and may have {LARGEST_ANSWER:,}"
    return {"error": {"message": why, "hint": None, "traceback": "\n".join(tail(found, ended)), "notes": []}}


def error_lines(found: Check, error: Mapping[str, Any]) -> list[str]:
    """An error of a task, as lines."""
    lines: Sequence[str | None] = (
        error["message"],
        *error["notes"],
        f"What to do: {error['hint']}" if error["hint"] else None,
        error["traceback"],
    )
    return clean(found, "\n".join(line for line in lines if line)).splitlines()[:SHOWN]


def tail(found: Check, ended: Ended) -> list[str]:
    """The last lines of what a process printed."""
    return [line for line in clean(found, ended.output).splitlines() if line.strip()][-SHOWN:]


def clean(found: Check, text: str) -> str:
    """``text`` with the project's own paths in the place of those of its copies."""
    for copy in ("tested", "after", "before"):
        text = text.replace(f"{found.work / copy}/", "").replace(str(found.work / copy), ".")
    return text
