"""``airflow mlops rerun``: train a version, or all models of a fleet's training, again from the record, and compare."""

from __future__ import annotations

import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.model_ref import ModelRef
from airflow_mlops.config.harmless import harmless_lines
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.store.content import readable_json

if TYPE_CHECKING:
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.fleet.run_again import FleetRerun
    from airflow_mlops.ml.rerun import Rerun
    from airflow_mlops.ml.rerun_findings import Finding
    from airflow_mlops.store.base import Store

WIDTH = 80
MOST_KEYS = 20
"""Models of a fleet that are not the same, in the table."""
MARKS = {"same": "✓", "different": "✗", "unknown": "?"}


@clear_errors
def rerun(args: Namespace) -> None:
    """Print what came of it; with ``--verify`` a difference ends with exit code 1."""
    from airflow_mlops.hooks.mlops import MLOpsHook

    ref = ModelRef.parse(args.model)
    hook = MLOpsHook()
    store = hook.store()
    if _of_a_fleet(args, ref, store):
        _fleet(args, ref.pipeline, hook, store)
    else:
        _one(args, ref, hook, store)


def _one(args: Namespace, ref: ModelRef, hook: MLOpsHook, store: Store) -> None:
    """Train one version again."""
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.ml.rerun import rerun as run_again

    version = ref.find(store)
    with own_stdout() as out:
        tell = partial(print, file=sys.stderr, flush=True)
        command = version.record.get("config", {}).get("train", {}).get("command")
        if command and hook.allow_commands and not args.allow_command:
            # A record is not signed: whoever may write to the store can name a command.
            raise ConfigError(
                f"{version.name} was trained by a command: {command}",
                hint="if you know it, give --allow-command; it runs as you",
            )
        tell(f"{version.name}: trained again, here; nothing is registered")
        result = run_again(
            store,
            version,
            allowed_imports=hook.allowed_imports,
            allow_commands=hook.allow_commands and args.allow_command,
            trusted_types=hook.trusted_types,
            log=lambda text, *values: tell("  " + (text % values if values else text)),
            folder=Path(args.folder) if args.folder else None,
            verifier=hook.verifier(),
        )
        shown = readable_json(result.to_dict()) if args.output == "json" else render(result)
        print(shown if args.output == "json" else harmless_lines(shown), file=out)
    if result.failed is not None or (args.verify and not result.verified):
        raise SystemExit(1)


def _of_a_fleet(args: Namespace, ref: ModelRef, store: Store) -> bool:
    """Whether all models of a training are asked for: a pipeline is named, without version or alias, that is a fleet.

    :raises ConfigError: a run is named, and one model.
    """
    from airflow_mlops.registry.registry import Registry

    if args.model != ref.pipeline:
        if args.run:
            raise ConfigError(f"{args.model} is one model", hint=f"a run has many: {ref.pipeline} --run {args.run}")
        return False
    keys = Registry(store, ref.pipeline).keys()
    if args.run and (not keys or None in keys):
        raise ConfigError(f"{ref.pipeline} is no fleet in {store.uri}", hint="leave --run out, and name a version")
    return bool(keys) and None not in keys


def _fleet(args: Namespace, pipeline: str, hook: MLOpsHook, store: Store) -> None:
    """Train all models of a fleet's training again."""
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.ml.fleet.run_again import find_training, rerun_fleet

    training = find_training(store, pipeline, args.run)
    with own_stdout() as out:
        tell = partial(print, file=sys.stderr, flush=True)
        tell(f"{pipeline}, run {training.run_id}: all its models trained again, here; nothing is registered")
        result = rerun_fleet(
            store,
            pipeline,
            training,
            allowed_imports=hook.allowed_imports,
            trusted_types=hook.trusted_types,
            verifier=hook.verifier(),
            log=lambda text, *values: tell("  " + (text % values if values else text)),
        )
        shown = readable_json(result.to_dict()) if args.output == "json" else render_fleet(result)
        print(shown if args.output == "json" else harmless_lines(shown), file=out)
    if result.failed is not None or (args.verify and not result.verified):
        raise SystemExit(1)


def render_fleet(result: FleetRerun, most: int = MOST_KEYS) -> str:
    """What all models have in common, a table of those that are not the same, and the conclusion."""
    from airflow_mlops.cli.tables import grid
    from airflow_mlops.ml.fleet.run_again import DIFFERENT, LOST, OTHER_BYTES

    lines = [*_filled([_part(f) for f in result.findings]), *_details(result.findings)]
    if result.failed is not None:
        lines += _not_again(result.failed, result.hint)
        lines += textwrap.wrap(f"The models of the run {result.run} cannot be made again here.", WIDTH)
        return "\n".join(lines)
    order = (LOST, DIFFERENT, OTHER_BYTES)
    others = sorted(result.others, key=lambda model: (order.index(model.what), model.key))
    if others:
        cells = [(model.key, f"v{model.version}", model.what, model.why) for model in others[:most]]
        width = max(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
        lines += grid(("key", "version", "what", "why"), cells, width=width, whole=("version", "what")).splitlines()
    if len(others) > most:
        lines.append(f"… and {len(others) - most:,} more; --output json has all of them")
    made = "were made again" if result.verified else "were not all made again"
    lines += textwrap.wrap(f"{result.sentence}.", WIDTH, break_on_hyphens=False)
    lines += textwrap.wrap(f"The models of the run {result.run} {made}.", WIDTH, break_on_hyphens=False)
    return "\n".join(lines)


def render(result: Rerun) -> str:
    """The parts in one line (or two), what there is to say about them, and the conclusion; 80 characters wide."""
    # Equal predictions need no mark of their own beside equal metrics.
    parts = [_part(f) for f in result.findings if f.what != "predictions" or f.answer == "different"]
    lines = [*_filled(parts), *_details(result.findings)]
    if result.failed is not None:
        lines += _not_again(result.failed, result.hint)
    return "\n".join([*lines, *textwrap.wrap(conclusion(result), WIDTH, break_on_hyphens=False)])


def _details(findings: Sequence[Finding]) -> list[str]:
    return [
        line
        for finding in findings
        for detail in finding.details
        for line in textwrap.wrap(
            f"{finding.what}: {detail}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
    ]


def _not_again(failed: str, hint: str | None) -> list[str]:
    lines = textwrap.wrap(f"not trained again: {failed}", WIDTH, break_on_hyphens=False)
    if hint is not None:
        lines += textwrap.wrap(f"What to do: {hint}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def conclusion(result: Rerun) -> str:
    """One sentence."""
    if result.failed is not None:
        return f"{result.version} cannot be made again here."
    if not result.verified:
        parts = [f.what for f in result.findings if f.answer == "different" and f.what not in ("env", "model")]
        return f"{result.version} was not made again: {', '.join(parts) or 'there is nothing to compare with'}."
    elsewhere = ", in another environment" if result.answer("env") == "different" else ""
    return f"{result.version} was made again{elsewhere}."


def _part(finding: Finding) -> str:
    mark = MARKS[finding.answer]
    if finding.what == "metrics":
        return f"metrics {finding.summary}" if finding.answer != "unknown" else f"metrics {mark} {finding.summary}"
    if finding.what == "env" and finding.answer == "different":
        return f"env {mark} ({finding.summary})"
    return f"{finding.what} {mark}{f' {finding.summary}' if finding.summary else ''}"


def _filled(parts: list[str]) -> list[str]:
    """The parts side by side, two spaces between them, as many as fit in a line."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + 2 + len(part) > WIDTH:
            lines.append("")
        lines[-1] += f"  {part}" if lines[-1] else part
    return [folded for line in lines for folded in textwrap.wrap(line, WIDTH, subsequent_indent="  ") or [line]]
