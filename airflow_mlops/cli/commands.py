"""The work behind ``airflow mlops …``."""

from __future__ import annotations

import re
import shutil
import sys
from argparse import Namespace
from pathlib import Path

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.config import PipelineConfig, load_pipeline
from airflow_mlops.config.folder import naming, pipeline_files, root_of
from airflow_mlops.config.settings import Settings
from airflow_mlops.exceptions import ConfigError


def _width() -> int:
    return shutil.get_terminal_size((150, 24)).columns


def find_pipeline(name: str, folders: list[Path]) -> PipelineConfig:
    """Find the pipeline ``name`` in the YAML files under ``folders``.

    :raises ConfigError: no file names it, two do, or its file has mistakes.
    """
    found = {path.resolve(): folder for folder in folders for path in naming(name, pipeline_files(folder))}
    if len(found) != 1:
        where = ", ".join(str(path) for path in found or folders)
        raise ConfigError(
            f"{len(found)} pipeline files name {name!r}: {where}"
            if found
            else f"no pipeline file under {where} names {name!r}",
            hint="name the file: --file PATH",
        )
    ((path, folder),) = found.items()
    return load_pipeline(path, _settings(), root=folder.resolve())


def _settings() -> Settings:
    from airflow_mlops.hooks.options import settings

    return settings()


def _pipeline(args: Namespace) -> PipelineConfig:
    if args.file:
        config = load_pipeline(Path(args.file), _settings(), root_of(Path(args.file)))
        if config.pipeline != args.pipeline:
            raise ConfigError(f"{args.file} is the pipeline {config.pipeline!r}, not {args.pipeline!r}")
        return config
    from airflow.configuration import conf

    from airflow_mlops.cli.live import LiveScheduler, database_errors

    # A bundle may keep its DAGs anywhere: the file that Airflow read the DAG from says where.
    with database_errors():
        source = LiveScheduler().dag_file(f"{args.pipeline}__train")
    return find_pipeline(args.pipeline, [Path(source).parent if source else Path(conf.get("core", "dags_folder"))])


@clear_errors
def backfill(args: Namespace) -> None:
    """``airflow mlops backfill``."""
    from airflow_mlops.cli import tables
    from airflow_mlops.cli.backfill import Replay, windows
    from airflow_mlops.cli.live import LiveScheduler
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.checks import read_checks

    config = _pipeline(args)
    todo = windows(args.start, args.end, args.step, config.dag.timezone)
    hook = MLOpsHook()
    registry = hook.registry(config.pipeline)
    name = args.replay or f"{todo[0].start}_{todo[-1].end}_{args.step}{'' if args.promote else '_dry'}"
    replay = Replay(
        scheduler=LiveScheduler(lambda text: print(f"  {text}", flush=True)),
        config=config,
        name=re.sub(r"[^A-Za-z0-9_.\-]", "-", name),
        promote=args.promote,
        has_champion=lambda: bool(registry.champions()),
        say=lambda text: print(f"  {text}", flush=True),
    )
    many = "1 window" if len(todo) == 1 else f"{len(todo)} windows"
    print(f"{config.pipeline}: {many}, {todo[0].start} … {todo[-1].end}, replay {replay.name}", flush=True)
    if not args.promote:
        print("  without --promote: candidates are trained and judged, none is promoted", flush=True)
    store, keys = hook.store(), {window.key for window in todo}

    def rows() -> dict[str, tables.Row]:
        checks = read_checks(store, config.pipeline, rehearsal=not args.promote)
        return {key: tables.row(c) for c in checks if (key := tables.key(c)) in keys}

    try:
        for number, window in enumerate(replay.run(todo), 1):
            row = rows().get(window.key)
            print(f"[{number}/{len(todo)}] {tables.line(row) if row else window}", flush=True)
    except KeyboardInterrupt:
        print(
            "\nStopped. The run in flight goes on in Airflow; the same command continues with this window.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    print(tables.render(rows().values(), width=_width()))


def pipeline_status(args: Namespace) -> None:
    """``airflow mlops status PIPELINE``."""
    from airflow_mlops.cli import tables
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.fleet.result import read_newest
    from airflow_mlops.registry.checks import read_checks
    from airflow_mlops.registry.overview import models

    hook = MLOpsHook()
    registry, found = hook.registry(args.pipeline), models(hook.store(), args.pipeline)
    checks, newest = read_checks(hook.store(), args.pipeline), read_newest(hook.store(), args.pipeline)
    if not found and not checks:
        raise ConfigError(
            f"there is nothing about {args.pipeline!r} in {hook.store_uri}",
            hint="check the name and [mlops] store, or run its __train DAG first",
        )
    if newest is not None or any(model.key is not None for model in found):
        many, serve = sum(model.versions for model in found), sum(model.champion is not None for model in found)
        print(f"{args.pipeline}: {many:,} versions of {len(found):,} models, {serve:,} of them with a champion")
        if newest is not None:
            print(f"newest training: {newest['sentence']}; airflow mlops fleet status tells more")
    else:
        versions, champion = registry.versions(), registry.champion()
        served = f"champion v{champion.number}, promoted {champion.promoted_at}" if champion else "no champion"
        print(f"{args.pipeline}: {len(versions)} versions, {served}")
    if checks:
        print(tables.render([tables.row(c) for c in checks], width=_width()))


@clear_errors
def schema(args: Namespace) -> None:
    """``airflow mlops schema``."""
    from airflow_mlops.config.json_schema import project_schema, text
    from airflow_mlops.config.writing import write_whole

    made = text(project_schema() if args.project else None)
    if not args.out:
        print(made, end="")
        return
    path = Path(args.out)
    write_whole(path, made.encode())
    print(f"{path} written. For an editor with the YAML language server, put on top of")
    which = "project.yaml" if args.project else "a pipeline file"
    print(f"{which} beside it:\n\n# yaml-language-server: $schema=./{path.name}\n")
    print(f"In another folder, write the path from there: ../{path.name}")
