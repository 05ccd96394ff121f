"""``airflow mlops new-project``: a repository of pipelines to start from."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path

from airflow_mlops.cli.errors import clear_errors


@clear_errors
def new_project(args: Namespace) -> None:
    """Write the project and say what to do next."""
    from airflow_mlops.delivery import scaffold

    folder = Path(args.folder)
    made = scaffold.new_project(folder)
    print(f"{folder} written: a project with the pipeline churn, its features, tests, environments and CI")
    if not made:
        print("it lies in a git repository already; none was made")
    print(f"next:\n  cd {shlex.quote(str(folder))}\n  git add -A && git commit -m 'First version'\n  airflow mlops ci")
    print("README.md says the rest")
