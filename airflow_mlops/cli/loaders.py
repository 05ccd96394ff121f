"""``airflow mlops loaders``: loader files that share a large folder of pipelines."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path

from airflow_mlops.cli.errors import clear_errors


@clear_errors
def loaders(args: Namespace) -> None:
    """Write what is missing, remove what is too many, and say so; with ``--check`` only say it and end with 1."""
    from airflow_mlops.factory.shards import plan_loaders, write_loaders

    plan = plan_loaders(Path(args.folder), count=args.count, out=Path(args.out) if args.out else None)
    if not args.check:
        write_loaders(plan)
    files = f"{plan.files:,} pipeline file{'s' * (plan.files != 1)}"
    print(f"{files} in {plan.folder}\n{plan.count} loader{'s' * (plan.count != 1)} in {plan.out}")
    would = "would be " if args.check else ""
    if plan.write:
        print(f"  {would}written: {_names(plan.write)}")
    if plan.remove:
        print(f"  {would}removed: {_names(plan.remove)}")
    if not plan.changes:
        print("  nothing to change")
    for file, line in plan.doubled:
        print(
            f"warning: {file}:{line} loads these files too, so their DAGs are defined twice\n"
            f"  What to do: delete {file.name}, or the call of load_dags() in it",
            file=sys.stderr,
        )
    if args.check and plan.changes:
        raise SystemExit(1)


def _names(paths: Collection[Path]) -> str:
    """``a.py, b.py``, or the first and the last of many with their number."""
    names = [path.name for path in paths]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]} ({len(names)} files)"
