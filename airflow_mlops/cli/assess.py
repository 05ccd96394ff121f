"""``airflow mlops assess``: the maturity that recent runs have really exercised."""

from __future__ import annotations

import difflib
import io
import json
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.config import PipelineConfig
from airflow_mlops.config.maturity import VOCABULARIES
from airflow_mlops.exceptions import ConfigError, MLOpsError

if TYPE_CHECKING:
    from airflow_mlops.registry.evidence import Assessment, State

NONE = "–"


@clear_errors
def assess(args: Namespace) -> None:
    """Print what the records show: all pipelines in one table, or each named one in full."""
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.evidence import assess as assess_one
    from airflow_mlops.registry.records import stored_pipelines

    if args.days < 1:
        raise ConfigError(f"--days {args.days} leaves no day to look at", hint="give 1 or more")
    hook = MLOpsHook()
    store, now = hook.store(), datetime.now(UTC)
    stored = stored_pipelines(store)
    files = PipelineFiles()
    found = []
    for name in dict.fromkeys(args.pipelines or stored):
        config = files.find(name)
        if name not in stored and config is None:
            raise _unknown(name, stored, hook.store_uri)
        found.append(assess_one(store, name, config, now, args.days))
    for note in files.notes:
        print(f"airflow mlops: {note}", file=sys.stderr)
    if args.output == "json":
        print(json.dumps([one.to_dict() for one in found], indent=2, ensure_ascii=False))
    elif not found:
        print(f"No pipeline has run records in {hook.store_uri}: no level is reached.")
    elif args.pipelines or len(found) == 1:
        print("\n\n".join(render(one, width=_width()) for one in found))
    else:
        print(summary(found, width=_width()))


def _width() -> int:
    return shutil.get_terminal_size((80, 24)).columns


def _unknown(name: str, stored: Sequence[str], uri: str) -> ConfigError:
    hint = "check [mlops] store, or run a pipeline first"
    if close := difflib.get_close_matches(name, stored, n=3):
        hint = f"did you mean {', '.join(close)}?"
    elif stored:
        hint = f"the store has {', '.join(stored[:5])}{', …' if len(stored) > 5 else ''}"
    return ConfigError(f"there is nothing about {name!r} in {uri}, and no file of it was found", hint=hint)


class PipelineFiles:
    """Finds the files of pipelines; what cannot be found or used becomes a note instead of an error."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._database = True

    def find(self, name: str) -> PipelineConfig | None:
        """The pipeline's configuration, or ``None`` with a note."""
        from airflow.configuration import conf

        from airflow_mlops.cli.commands import find_pipeline

        source = self._dag_file(f"{name}__train")
        folder = Path(source).parent if source else Path(conf.get("core", "dags_folder"))
        try:
            return find_pipeline(name, [folder])
        except MLOpsError as e:
            self.notes.append(f"{name} is judged without its file: {e.message.splitlines()[0]}")
            return None

    def _dag_file(self, dag_id: str) -> str | None:
        from sqlalchemy.exc import SQLAlchemyError

        from airflow_mlops.cli.live import LiveScheduler

        if not self._database:
            return None
        try:
            return LiveScheduler().dag_file(dag_id)
        except SQLAlchemyError as e:
            # A missing table, a server that is down: records and files can be read without it.
            self._database = False
            why = str(getattr(e, "orig", None) or e).splitlines()[0]
            self.notes.append(f"Airflow's database cannot be read ({why}): files are looked for in the DAGs folder")
            return None


def summary(found: Iterable[Assessment], *, width: int) -> str:
    """One line per pipeline."""
    found = list(found)
    rows = [
        (
            one.pipeline,
            NONE if one.level is None else str(one.level),
            one.terms.get("microsoft", NONE),
            one.terms.get("aws", NONE),
            f"{one.last:%Y-%m-%d}" if one.last else NONE,
            one.next[0] if one.next else NONE,
        )
        for one in found
    ]
    names = ("pipeline", "level", VOCABULARIES["microsoft"], VOCABULARIES["aws"], "last record")
    lines = [_table(names, [row[:-1] for row in rows], width), ""]
    lines += [f"Levels are Google Cloud's, as exercised in the last {found[0].days} days. Next:"]
    for row in rows:
        lines += _wrapped(f"  {row[0]}: ", row[-1], width)
    return "\n".join([*lines, "", "More about one: airflow mlops assess PIPELINE"])


def render(one: Assessment, *, width: int) -> str:
    """Level, capabilities and next steps of one pipeline, at most ``width`` (80 or more) characters wide."""
    if one.level is None:
        lines = [f"{one.pipeline}: no level reached by runs of the last {one.days} days"]
    else:
        lines = [f"{one.pipeline}: level {one.level} reached by runs of the last {one.days} days"]
        lines += [f"  {whose:<13} {one.terms[name]}" for name, whose in VOCABULARIES.items()]
    needed = [(s, "*" if s.capability.meets else "") for s in one.states]
    rows = [(f"{s.capability.level}{mark}", s.capability.name, _state(s)) for s, mark in needed]
    lines += ["", _table(("level", "capability", "state"), rows, width)]
    lines += _wrapped(
        "", "* counts for the level; of several that meet the same need, one is enough. Rehearsals do not count.", width
    )
    if one.next:
        lines += ["", "Next:"]
        for number, step in enumerate(one.next, 1):
            lines += _wrapped(f"  {number}. ", step, width)
    return "\n".join(lines)


def _state(state: State) -> str:
    old = state.used and state.last is not None and not state.recent
    return f"{state}; not recent" if old else str(state)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    Console(file=out, width=max(width, 80), markup=False, highlight=False, color_system=None).print(table)
    return "\n".join(text.rstrip() for text in out.getvalue().splitlines() if text.strip())


def _wrapped(start: str, text: str, width: int) -> list[str]:
    # Commands stay whole: a break inside a dash or a name could not be copied.
    return textwrap.wrap(
        start + text,
        max(width, 80),
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )
