"""``airflow mlops experiment``: a pipeline's experiment, here and now, without scheduler and database."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.run import _own_stdout


@clear_errors
def experiment(args: Namespace) -> None:
    """Run the trials one after the other and print each as it ends; then the gates judge the winner."""
    from airflow_mlops.config import load_pipeline
    from airflow_mlops.config.folder import root_of
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.hooks.options import settings
    from airflow_mlops.pipeline import Pipeline

    path = Path(args.file)
    config = load_pipeline(path, settings(args.environment), root_of(path))
    hook = MLOpsHook()
    files = hook.files(config.data.source if config.has_model else None, args.data_root)
    if args.data_root:
        files.root = args.data_root if "://" in args.data_root else str(Path(args.data_root).absolute())
    pipeline = Pipeline(config, folder=path.resolve().parent, allowed_imports=hook.allowed_imports)
    space = space_of(args.set or ())
    with _own_stdout() as out:
        say = partial(print, file=out, flush=True)
        found = pipeline.experiment(
            n_trials=args.n_trials,
            strategy=args.strategy,
            space=space,
            sample=args.sample,
            start=args.start,
            end=args.end,
            store=hook.store(),
            register=args.register,
            say=say,
            sql=hook.sql,
            trusted_types=hook.trusted_types,
            signer=hook.signer(),
            verifier=hook.verifier(),
            reports=args.reports,
            files=files,
        )
        found.close()
        if args.reports:
            say(f"reports in {args.reports}: {', '.join(sorted(found.reports))}")


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
