"""``airflow mlops run``: a pipeline's training, here and now, without scheduler and database."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TextIO

from airflow_mlops.cli.errors import clear_errors


@clear_errors
def run(args: Namespace) -> None:
    """Run the steps and print them; a rejected candidate is a result, so only what is broken ends with 1."""
    from airflow_mlops.config import load_pipeline
    from airflow_mlops.config.folder import root_of
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.hooks.options import settings
    from airflow_mlops.pipeline import Pipeline

    path = Path(args.file)
    config = load_pipeline(path, settings(args.environment), root_of(path))
    hook = MLOpsHook()
    files = hook.files(config.data.source, args.data_root)
    if args.data_root:
        files.root = args.data_root if "://" in args.data_root else str(Path(args.data_root).absolute())
    pipeline = Pipeline(config, folder=path.resolve().parent, allowed_imports=hook.allowed_imports)
    with _own_stdout() as out:
        say = partial(print, file=out, flush=True)
        result = pipeline.run(
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
            allow_commands=hook.allow_commands,
            reports=args.reports,
            files=files,
        )
        result.close()
        if args.reports:
            say(f"reports in {args.reports}: {', '.join(sorted(result.reports))}")


@contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Keep standard output for the run's own lines: Airflow's log and what user code prints go to standard error."""
    out = sys.stdout
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler) and h.stream is out]
    levels = [handler.level for handler in handlers]
    with redirect_stdout(sys.stderr):
        for handler in handlers:
            handler.setStream(sys.stderr)
            handler.setLevel(logging.WARNING)
        try:
            yield out
        finally:
            for handler, level in zip(handlers, levels, strict=True):
                handler.setStream(out)
                handler.setLevel(level)
