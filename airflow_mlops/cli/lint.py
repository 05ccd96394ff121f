"""``airflow mlops lint``: every problem of pipeline files, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from airflow_mlops.cli.columns import LocalColumns
from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.issue_list import issue_list, shorten
from airflow_mlops.cli.sarif import sarif
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.lint import count_files
from airflow_mlops.config.lint import lint as find_issues
from airflow_mlops.config.models import PipelineConfig


@clear_errors
def lint(args: Namespace) -> None:
    """Print what is wrong; ends with 1 where that are errors, and with 2 for a path that is not there."""
    paths = [Path(path) for path in args.paths]
    absent = [path for path in args.paths if not os.path.lexists(path)]
    if absent:
        print(f"airflow mlops lint: there is no file or folder {', '.join(map(ascii, absent))}", file=sys.stderr)
        raise SystemExit(2)
    # Standard output is for the result alone: what Airflow logs on the way is not.
    with redirect_stdout(sys.stderr):
        from airflow_mlops.hooks.options import settings

        chosen = dataclasses.replace(settings(args.environment), need_variables=False)
        issues = find_issues(paths, chosen, columns=_columns())
    if args.output == "json":
        print(json.dumps([_record(issue) for issue in issues], indent=2))
    elif args.output == "sarif":
        print(json.dumps(sarif(issues), indent=2))
    else:
        _print_list(issues, count_files(paths))
    if any(args.strict or issue.severity == "error" for issue in issues):
        raise SystemExit(1)


def _columns() -> Callable[[PipelineConfig], Sequence[str] | None] | None:
    from airflow_mlops.hooks.mlops import MLOpsHook

    try:
        return LocalColumns(MLOpsHook().data_root)
    except Exception:  # noqa: BLE001 - without the connection, or a database to find it in, columns are not known
        return None


def _record(issue: Issue) -> dict[str, Any]:
    keys = ("line", "column", "path", "severity", "code", "message", "suggestion")
    return {"file": shorten(issue.file)} | {key: getattr(issue, key) for key in keys}


def _print_list(issues: Sequence[Issue], files: int) -> None:
    """Messages are wrapped on a terminal only: in a pipe or a file each stays on its line, to be searched."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = sys.stdout.encoding or "utf-8"
    for line in issue_list(issues, files, width=width, colour=colour):
        print(line.encode(encoding, "backslashreplace").decode(encoding))
