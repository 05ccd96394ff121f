"""A new project: a git repository with one pipeline that works, its features, tests, environments and CI."""

from __future__ import annotations

import csv
import io
import math
import os
import random
import re
import shutil
import tempfile
from pathlib import Path

from airflow_mlops.config.starter import scalar
from airflow_mlops.delivery.repository import initialise
from airflow_mlops.delivery.tree import TreeFile, write_tree
from airflow_mlops.exceptions import ConfigError

TEMPLATE = Path(__file__).parent / "template"
# Where a file of the template goes, that must not be what it is while it lies in this package.
_ELSEWHERE = {
    "gitignore": ".gitignore",
    "airflowignore": ".airflowignore",
    "github.yml": ".github/workflows/pipelines.yml",
    "gitlab-ci.yml": ".gitlab-ci.yml",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ROWS = 2000


def new_project(folder: Path) -> bool:
    """Write a project to ``folder``, which must be empty or not there, and make it a git repository.

    :return: whether a repository was made; within another one none is.
    :raises ConfigError: the folder is in use, has a name that is none for a project, or cannot be written; or there
        is no git.
    """
    target = folder.absolute()
    if not _NAME.fullmatch(target.name):
        raise ConfigError(
            f"{target.name!r} cannot be a project's name", hint="letters, digits, ., - and _; at most 100"
        )
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder", hint="name one that is empty, or not there yet")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            write_tree(project_files(target.name), part / "project")
            made = initialise(part / "project")
            target.mkdir(exist_ok=True)
            for path in sorted((part / "project").iterdir()):
                path.rename(target / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as e:
        raise ConfigError(f"{folder} cannot be written: {e.strerror}", hint="name another folder") from e
    return made


def project_files(name: str) -> dict[str, TreeFile]:
    """Return the files of a new project."""
    files = {"data/customers.csv": TreeFile(example_customers())}
    for path in sorted(TEMPLATE.rglob("*")):
        relative = path.relative_to(TEMPLATE).as_posix()
        if path.is_file() and "__pycache__" not in relative:
            text = path.read_text(encoding="utf-8")
            text = text.replace("PROJECT", scalar(name) if relative.endswith((".yaml", ".yml")) else name)
            place = _ELSEWHERE.get(relative, relative.removesuffix(".txt") if ".py" in relative else relative)
            files[place] = TreeFile(text.encode())
    return files


def example_customers() -> bytes:
    """Return made-up customers as CSV, the same ones each time: 2,000 rows, a third of whom leave.

    Who calls for help often on few visits is likely to leave; who spends much on a visit is not.
    """
    draw = random.Random(7)  # noqa: S311 - made-up customers are no secret
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["customer_id", "plan", "visits", "spend", "support_calls", "churned"])
    for number in range(1, _ROWS + 1):
        plan = draw.choice(["basic", "basic", "plus", "pro"])
        visits = 1 + int(draw.expovariate(1 / 12))
        spend = round(visits * draw.lognormvariate({"basic": 2.0, "plus": 2.5, "pro": 3.0}[plan], 0.5), 2)
        calls = int(draw.expovariate(1 / 2.5))
        leaning = -1.6 + 3.0 * min(calls / visits, 1.5) - 0.04 * spend / visits + (0.4 if plan == "basic" else 0.0)
        churned = int(draw.random() < 1 / (1 + math.exp(-leaning)))
        rows.writerow([f"C{number:05d}", plan, visits, f"{spend:.2f}", calls, churned])
    return out.getvalue().encode()
