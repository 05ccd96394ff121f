"""``airflow mlops registry export|import|gc|fsck``: models in and out, and care for the store."""

from __future__ import annotations

import shlex
import sys
import textwrap
from argparse import Namespace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.errors import clear_errors, utf8
from airflow_mlops.cli.model_ref import ModelRef, _near
from airflow_mlops.cli.registry_changes import os_user
from airflow_mlops.config.harmless import harmless, harmless_lines
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.store.content import readable_json

if TYPE_CHECKING:
    import pandas as pd

    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.gc import Counts, Report
    from airflow_mlops.registry.mlflow_client import Target
    from airflow_mlops.registry.version import Version

WIDTH = 80
_OF_MLFLOW = "models:/NAME/3, models:/NAME@alias or models:/NAME/latest"
SHORTEST_GRACE = timedelta(hours=1)


@clear_errors
def export(args: Namespace) -> None:
    """Write versions as files, or show them in MLflow."""
    model, to = args.model, args.to
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.registry import Registry

    hook = MLOpsHook()
    store = hook.store()
    if to == "mlflow":
        _to_mlflow(hook, model)
        return
    if not args.out:
        raise ConfigError("there is no place to export to", hint="name a folder: -o DIR")
    from airflow_mlops.registry.export import export_version

    verifier = hook.verifier()
    found = [_one(hook, model)] if model and _is_version(model) else []
    for name in [] if found else _pipelines(hook, model):
        registry = Registry(store, name)
        found += [version for key in registry.keys() for version in registry.versions(key)]  # noqa: SIM118
    for version in found:
        place = export_version(store, version, Path(args.out), verifier=verifier)
        print(harmless(f"{version.name}: {place}"), flush=True)
    if not found:
        raise ConfigError("there is nothing to export", hint="train first, or check [mlops] store")


def _to_mlflow(hook: MLOpsHook, model: str | None) -> None:
    from airflow_mlops.registry.mlflow_mirror import export_all, mirror

    target = _mlflow(hook)
    if model and _is_version(model):
        version = _one(hook, model)
        shown = mirror(hook.registry(version.pipeline), version.number, target, key=version.key)
        print(f"{version.name}: version {shown.model_version} of MLflow's model {shown.model}")
        return
    count = export_all(hook.store(), _pipelines(hook, model), target, lambda text: print(text, flush=True))
    print(f"{count} version{'' if count == 1 else 's'} in MLflow")


def _mlflow(hook: MLOpsHook) -> Target:
    target = hook.mlflow()
    if target is None:
        raise ConfigError(
            "no MLflow is configured", hint="set [mlops] mlflow_conn_id to a connection of MLflow's server"
        )
    return target


def _is_version(model: str) -> bool:
    """Whether it names one version; ``churn`` alone is the whole pipeline."""
    ref = ModelRef.parse(model)
    return ref.number is not None or ref.key is not None or "@" in model


def _one(hook: MLOpsHook, model: str) -> Version:
    return ModelRef.parse(model).find(hook.store())


def _pipelines(hook: MLOpsHook, model: str | None) -> list[str]:
    from airflow_mlops.registry.overview import overview

    there = [summary.pipeline for summary in overview(hook.store())]
    return there if model is None else [_known(model, there, hook)]


def _known(name: str, there: list[str], hook: MLOpsHook) -> str:
    if name not in there:
        raise ConfigError(f"there is no pipeline {name!r} in {hook.store_uri}", hint=_near(name, there, "pipeline"))
    return name


@clear_errors
def import_(args: Namespace) -> None:
    """Take in a model file, or a model of MLflow, as a version."""
    source, of_mlflow = args.source, args.source.startswith("models:/")
    if not of_mlflow and (given := [name for name in ("task", "classes") if getattr(args, name)]):
        raise ConfigError(
            f"--{given[0]} is for a model of MLflow, and {source} is a file, which says that itself",
            hint=f"leave it out, or name a model of MLflow: {_OF_MLFLOW}",
        )
    for name in ("key", "target", "positive"):
        utf8(getattr(args, name) or "", f"--{name}")
    for column in args.private:
        utf8(column, "--private")
    classes = _listed(args.classes)
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.foreign import take_in, take_in_from_mlflow

    hook = MLOpsHook()
    registry = hook.registry(args.pipeline)
    with own_stdout() as out:
        said: dict[str, Any] = {
            "sample": _sample(args.data) if args.data else None,
            "target": args.target,
            "positive": args.positive,
            "private": args.private,
            "key": args.key,
            "by": os_user(),
            "signer": hook.signer(),
            "verifier": hook.verifier(),
            "trusted_types": hook.trusted_types,
        }
        if of_mlflow:
            version = take_in_from_mlflow(_mlflow(hook), source, registry, task=args.task, classes=classes, **said)
            imported = version.record["imported"]
            place = f"version {imported['version']} of {imported['name']} in MLflow"
        else:
            version = take_in(registry, Path(source), **said)
            place = Path(source).name
        schema = version.record["schema"]
        lines = [
            f"{version.name}: taken in from {place}, {version.status}",
            f"{version.record['task']} of {schema['target']} from {len(schema['features'])} columns",
        ]
        if version.status == "candidate":
            champion = registry.champion(args.key)
            model = ModelRef(args.pipeline, args.key, number=version.number)
            lines.append(
                f"to promote it: airflow mlops registry promote {shlex.quote(str(model))} "
                f"--expected {champion.number if champion else 'none'} --reason …"
            )
        print("\n  ".join(map(harmless, lines)), file=out)


def _listed(text: str | None) -> list[str] | None:
    """What stands between commas."""
    if text is None:
        return None
    found = [part.strip() for part in text.split(",")]
    if not all(found) or len(set(found)) < len(found):
        raise ConfigError(
            f"--classes {text!r} does not name each class once", hint="write them as no,yes in the model's order"
        )
    return found


def _sample(place: str) -> pd.DataFrame:
    from airflow_mlops.ml.files import Files
    from airflow_mlops.ml.peek import peek

    path = Path(place).expanduser().absolute()
    return peek(path.name, Files(root=str(path.parent)))[0]


@clear_errors
def gc(args: Namespace) -> None:
    """Collect what nothing names."""
    grace, dry_run = _grace(args.grace), args.dry_run
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.gc import collect

    with own_stdout() as out:
        report = collect(MLOpsHook().store(), grace=grace, dry_run=dry_run)
        print(readable_json(report.to_dict()) if args.output == "json" else _collected(report, args.grace), file=out)
    if dry_run and (report.trashed or report.deleted or report.restored):
        raise SystemExit(1)


def _grace(text: str) -> Any:
    from airflow_mlops.window import parse_duration

    try:
        grace = parse_duration(text)
    except ValueError as e:
        raise ConfigError(f"--grace: {e}", hint="write it as 48h or 7d") from e
    if grace < SHORTEST_GRACE:
        raise ConfigError(
            f"--grace {text} is shorter than {SHORTEST_GRACE}: what a running task has just written would be deleted",
            hint="write a time that is longer than any task takes",
        )
    return grace


def _collected(report: Report, grace: str) -> str:
    would = "would be " if report.dry_run else ""
    lines: list[str] = []
    stages: tuple[tuple[Counts, str], ...] = (
        (report.restored, "restored from the trash"),
        (report.trashed, "put in the trash"),
        (report.deleted, "deleted for good"),
    )
    for counts, what in stages:
        for kind, count in counts.items():
            lines.append(f"{count.objects:,} {kind}, {count.bytes:,} bytes, {would}{what}")
            lines += [f"    {key}" for key in count.examples]
            if count.objects > len(count.examples):
                lines.append(f"    and {count.objects - len(count.examples):,} more")
    lines += textwrap.wrap(report.sentence, WIDTH)
    if report.trashed and not report.dry_run:
        again = f"What is in the trash comes back when it is read; a collection after {grace} deletes it."
        lines += textwrap.wrap(again, WIDTH)
    return harmless_lines("\n".join(lines))


@clear_errors
def fsck(args: Namespace) -> None:
    """Verify the store, and say what to do."""
    names, repair = list(args.pipelines), args.repair
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.fsck import check
    from airflow_mlops.registry.records import stored_pipelines

    hook = MLOpsHook()
    store = hook.store()
    there = stored_pipelines(store) if names else []
    with own_stdout() as out:
        print(f"reading {store.uri}", file=sys.stderr, flush=True)
        report = check(store, [_known(name, there, hook) for name in names] or None, repair=repair)
        print(readable_json(report.to_dict()) if args.output == "json" else harmless_lines(report.text()), file=out)
    if report.status:
        raise SystemExit(1)
