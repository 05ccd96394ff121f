"""``airflow mlops run``: a pipeline's training, here and now, without scheduler and database."""

from __future__ import annotations

from argparse import Namespace

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.here import close, pipeline_here


@clear_errors
def run(args: Namespace) -> None:
    """Run the steps and print them; a rejected candidate is a result, so only what is broken ends with 1."""
    from airflow_mlops.hooks.mlops import MLOpsHook

    with pipeline_here(args) as (pipeline, given):
        close(pipeline.run(allow_commands=MLOpsHook().allow_commands, **given), args, given)
