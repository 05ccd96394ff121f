"""``airflow mlops rerun``: train a version again from its record, and compare."""

from __future__ import annotations

import sys
import textwrap
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.model_ref import ModelRef
from airflow_mlops.config.harmless import harmless_lines
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.store.content import readable_json

if TYPE_CHECKING:
    from airflow_mlops.ml.rerun import Rerun
    from airflow_mlops.ml.rerun_findings import Finding

WIDTH = 80
MARKS = {"same": "✓", "different": "✗", "unknown": "?"}


@clear_errors
def rerun(args: Namespace) -> None:
    """Print what came of it; with ``--verify`` a difference ends with exit code 1."""
    from airflow_mlops.cli.here import own_stdout
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.ml.rerun import rerun as run_again

    ref = ModelRef.parse(args.model)
    hook = MLOpsHook()
    store = hook.store()
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


def render(result: Rerun) -> str:
    """The parts in one line (or two), what there is to say about them, and the conclusion; 80 characters wide."""
    # Equal predictions need no mark of their own beside equal metrics.
    parts = [_part(f) for f in result.findings if f.what != "predictions" or f.answer == "different"]
    lines = _filled(parts)
    for finding in result.findings:
        for detail in finding.details:
            lines += textwrap.wrap(
                f"{finding.what}: {detail}",
                WIDTH,
                initial_indent="  ",
                subsequent_indent="    ",
                break_on_hyphens=False,
            )
    if result.failed is not None:
        lines += textwrap.wrap(f"not trained again: {result.failed}", WIDTH, break_on_hyphens=False)
    if result.hint is not None:
        lines += textwrap.wrap(f"What to do: {result.hint}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*lines, *textwrap.wrap(conclusion(result), WIDTH, break_on_hyphens=False)])


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
