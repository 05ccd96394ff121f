"""What the commands share that run a pipeline here and now, without scheduler and database."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from airflow_mlops.local_result import Experimented, FleetResult, Result
    from airflow_mlops.pipeline import Pipeline


@contextmanager
def pipeline_here(args: Namespace) -> Iterator[tuple[Pipeline, dict[str, Any]]]:
    """The pipeline of ``args.file``, and what its run and its experiment are both given.

    While the block lasts, only what is told through ``say`` of these arguments reaches standard output.
    """
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
    with own_stdout() as out:
        yield (
            pipeline,
            {
                "sample": args.sample,
                "start": args.start,
                "end": args.end,
                "store": hook.store(),
                "register": args.register,
                "say": partial(print, file=out, flush=True),
                "sql": hook.sql,
                "database": hook.database,
                "trusted_types": hook.trusted_types,
                "signer": hook.signer(),
                "verifier": hook.verifier(),
                "reports": args.reports,
                "files": files,
            },
        )


def close(found: Result | Experimented | FleetResult, args: Namespace, given: dict[str, Any]) -> None:
    """Give up what the run held, and say where its reports are."""
    found.close()
    if args.reports:
        given["say"](f"reports in {args.reports}: {', '.join(sorted(found.reports))}")


@contextmanager
def own_stdout() -> Iterator[TextIO]:
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
