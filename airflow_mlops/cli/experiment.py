"""``airflow mlops experiment``: a pipeline's experiment, here and now, without scheduler and database."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.here import close, pipeline_here


@clear_errors
def experiment(args: Namespace) -> None:
    """Run the trials one after the other and print each as it ends; then the gates judge the winner."""
    space = space_of(args.set or ())
    with pipeline_here(args) as (pipeline, given):
        found = pipeline.experiment(n_trials=args.n_trials, strategy=args.strategy, space=space, **given)
        close(found, args, given)


def space_of(assignments: Sequence[str]) -> dict[str, list[Any]]:
    """Values of a space from ``name=value`` or ``name=[value, value]``, read as YAML.

    :raises ConfigError: one has another form.
    """
    from airflow_mlops.config.yaml_source import parse
    from airflow_mlops.exceptions import ConfigError

    found: dict[str, list[Any]] = {}
    for text in assignments:
        name, equals, written = text.partition("=")
        source = parse(f"value: {written}", "--set")
        value = source.data.get("value") if isinstance(source.data, dict) else None
        if not equals or not name.strip() or source.issues or (value is None and written.strip() != "null"):
            raise ConfigError(f"--set {text!r} is no setting", hint="write it as max_depth=4 or max_depth='[2, 4, 8]'")
        found[name.strip()] = value if isinstance(value, list) else [value]
    return found
