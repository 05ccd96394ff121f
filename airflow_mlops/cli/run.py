"""``airflow mlops run``: a pipeline's training, here and now, without scheduler and database."""

from __future__ import annotations

import shutil
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.here import close, pipeline_here
from airflow_mlops.exceptions import ConfigError

MOST_KEYS = 20


@clear_errors
def run(args: Namespace) -> None:
    """Run the steps and print them; a rejected candidate is a result, so only what is broken ends with 1."""
    from airflow_mlops.hooks.mlops import MLOpsHook

    with pipeline_here(args) as (pipeline, given):
        if pipeline.config.fleet is not None:
            found = pipeline.run_fleet(keys=args.key, **given)
            for line in key_table(found.rows):
                given["say"](line)
            close(found, args, given)
            return
        if args.key:
            raise ConfigError(
                f"{pipeline.config.pipeline} is no fleet: it has one model, without a key", hint="leave --key out"
            )
        close(pipeline.run(allow_commands=MLOpsHook().allow_commands, **given), args, given)


def key_table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys that would not go on, each with its reason: what needs somebody first, at most :data:`MOST_KEYS`."""
    from airflow_mlops.cli.tables import grid
    from airflow_mlops.ml.fleet.result import WORDS

    order = ("failed", "rejected", "inconclusive")
    wanted = sorted((row for row in rows if row["status"] in order), key=lambda r: (order.index(r["status"]), r["key"]))
    if not wanted:
        return []
    # A reason may begin with the verdict, which has a column of its own.
    cells = [
        (row["key"], WORDS[row["status"]], row["reason"].removeprefix(f"{row['status']}: "))
        for row in wanted[:MOST_KEYS]
    ]
    width = shutil.get_terminal_size((80, 24)).columns
    lines = grid(("key", "status", "why"), cells, width=max(width, 80), whole=("status",)).splitlines()
    if len(wanted) > MOST_KEYS:
        lines.append(f"… and {len(wanted) - MOST_KEYS:,} more; --reports DIR keeps a page with them")
    return lines
