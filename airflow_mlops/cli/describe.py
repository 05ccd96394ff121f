"""``airflow mlops describe``: every effective value of a pipeline file, and what the factory makes of it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.issue_list import shorten
from airflow_mlops.config.folder import root_of
from airflow_mlops.config.harmless import harmless
from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.loader import read_pipeline
from airflow_mlops.config.maturity import VOCABULARIES, vocabularies
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.origins import Setting, effective
from airflow_mlops.config.yaml_source import Source
from airflow_mlops.factory.outline import DagOutline, Outline, TaskOutline, mermaid, outline

NARROW, WIDE = 60, 120
KEY_WIDTH = 26
MAX_LINES = 4
"""Of one value; the rest is in the JSON."""


@clear_errors
def describe(args: Namespace) -> None:
    """``airflow mlops describe``."""
    config, source, environment = read(args)
    if args.output == "mermaid":
        print(mermaid(outline(config)), end="")
    elif args.output == "json":
        print(json.dumps(as_json(config, source, environment), indent=2, ensure_ascii=False))
    else:
        print("\n".join(map(harmless, as_text(config, source, environment, width()))))


def read(args: Namespace) -> tuple[PipelineConfig, Source, str | None]:
    """Return the pipeline of ``args.file``, its source, and the environment that counts; warnings go to stderr.

    A variable without a value is no error here: what is shown is the placeholder.

    :raises InvalidPipeline: the file has errors.
    """
    from airflow_mlops.hooks.options import settings

    chosen = dataclasses.replace(settings(args.environment), need_variables=False)
    file = Path(args.file)
    config, source = read_pipeline(file, chosen, root_of(file))
    if config is None:
        raise InvalidPipeline(source.issues)
    for issue in source.issues:  # without the line of the file, which may hold a secret
        print(harmless(f"{issue.file}:{issue.line}:{issue.column}: {issue.severity}: {issue.message}"), file=sys.stderr)
    return config, source, chosen.environment


def width() -> int:
    """Columns of the terminal, within reason."""
    return max(NARROW, min(WIDE, shutil.get_terminal_size((80, 24)).columns))


def as_json(config: PipelineConfig, source: Source, environment: str | None) -> dict[str, Any]:
    """All there is to know, as plain data."""
    shown = outline(config)
    return {
        "pipeline": config.pipeline,
        "level": level_names(config.level),
        "file": source.text.filename,
        "extends": _extended(source),
        "environment": environment,
        "settings": [dataclasses.asdict(setting) for setting in effective(config, source)],
        "dags": [dataclasses.asdict(dag) for dag in shown.dags],
    }


def level_names(level: int) -> dict[str, Any]:
    """A level as plain data: its number, and its names in each vocabulary."""
    return {"number": level} | {name: [str(term) for term in terms] for name, terms in vocabularies(level).items()}


def as_text(config: PipelineConfig, source: Source, environment: str | None, columns: int) -> Iterator[str]:
    """The lines of the page, none longer than ``columns`` unless a single name is."""
    yield f"{config.pipeline}, level {config.level}"
    for name, terms in vocabularies(config.level).items():
        yield from entry(f"  {VOCABULARIES[name]:<13}", "; ".join(map(str, terms)), columns)
    yield from entry(f"  {'file':<13}", shorten(source.text.filename), columns)
    if extended := _extended(source):
        yield from entry(f"  {'extends':<13}", ", ".join(map(shorten, extended)), columns)
    yield from entry(f"  {'environment':<13}", environment or "none", columns)
    settings = effective(config, source)
    yield ""
    yield "VALUES (in brackets: what counts where nothing is set)"
    yield from _values(settings, source, columns)
    yield ""
    yield "DAGS"
    yield from _tree(outline(config), columns)


def entry(label: str, text: str, columns: int) -> list[str]:
    """``text`` after ``label``, wrapped below itself; a name or an address stays whole."""
    room = max(20, columns - len(label) - 1)
    lines = textwrap.wrap(text, room, break_on_hyphens=False, break_long_words=False) or [""]
    return [f"{label} {lines[0]}", *(" " * (len(label) + 1) + line for line in lines[1:])]


def _extended(source: Source) -> list[str]:
    return list(dict.fromkeys(t.filename for t in source.texts if t.filename != source.text.filename))


def _values(settings: list[Setting], source: Source, columns: int) -> Iterator[str]:
    origins = {s.path: _origin(s, source) for s in settings if _says(s)}
    last = max((len(text) for text in origins.values()), default=0)
    middle = columns - KEY_WIDTH - 2 - last
    if middle < 16:  # long names of files: they go to a line of their own
        middle = columns - KEY_WIDTH - 1
    for section in dict.fromkeys(s.path.partition(".")[0] for s in settings):
        inside = [s for s in settings if s.path.partition(".")[0] == section]
        if "." in inside[0].path:
            yield section
        for setting in inside:
            if _says(setting):
                key = "  " + setting.path.partition(".")[2] if "." in setting.path else setting.path
                yield from _row(key, _value(setting), origins[setting.path], middle, columns)
        yield from _not_set([s.path for s in inside if not _says(s)], columns)


def _says(setting: Setting) -> bool:
    return setting.value not in (None, []) or setting.note is not None or setting.layer != "default"


def _row(key: str, value: str, origin: str, middle: int, columns: int) -> Iterator[str]:
    wrapped = textwrap.wrap(value, middle, break_on_hyphens=False, max_lines=MAX_LINES, placeholder=" …") or [""]
    if len(key) >= KEY_WIDTH:
        yield key
        key = ""
    beside = KEY_WIDTH + 1 + middle + 1 + len(origin) <= columns
    yield f"{key:<{KEY_WIDTH}} {wrapped[0]:<{middle}} {origin if beside else ''}".rstrip()
    for line in wrapped[1:]:
        yield " " * (KEY_WIDTH + 1) + line
    if not beside:
        yield from entry(" " * KEY_WIDTH, f"← {origin}", columns)


def _not_set(paths: list[str], columns: int) -> Iterator[str]:
    """Keys without a value, those of one section together."""
    sections: dict[str, list[str]] = {}
    for path in paths:
        section, _, key = path.rpartition(".")
        sections.setdefault(section, []).append(key)
    for section, keys in sections.items():
        if not section:
            yield f"{keys[0]:<{KEY_WIDTH}} not set"
            continue
        inner = section.partition(".")[2]
        yield from entry(f"{'  not set':<{KEY_WIDTH}}", f"{inner}: " * bool(inner) + ", ".join(keys), columns)


def _value(setting: Setting) -> str:
    if setting.value in (None, []):
        return f"({setting.note})" if setting.note else "not set" if setting.value is None else "[]"
    return flow(setting.value)


# Text that YAML would take for something else, or not for the whole text.
_NOT_PLAIN = re.compile(
    r"^(?:true|false|null|~|yes|no|on|off|[-+]?(?:\.\d+|\d+\.?\d*)(?:e[-+]?\d+)?)$|^[&*!|>'\"%`]|: |\s#", re.IGNORECASE
)
_OF_FLOW = re.compile(r"[,\[\]{}]")


def flow(value: Any, inside: bool = False) -> str:
    """Plain data in one line, as YAML's flow style; text that a terminal would obey is escaped."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{flow(key, True)}: {flow(inner, True)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item, True) for item in value) + "]"
    if isinstance(value, str):
        plain = value.isprintable() and value.strip() == value != "" and not _NOT_PLAIN.search(value)
        if plain and not (inside and _OF_FLOW.search(value)):
            return value
        return json.dumps(value, ensure_ascii=not value.isprintable())
    return json.dumps(value)


def _origin(setting: Setting, source: Source) -> str:
    if setting.layer == "default":
        return "default"
    filename, _, line = setting.origin.rpartition(":")
    place = f"line {line}" if filename == source.text.filename else f"{Path(filename).name}:{line}"
    overlay = setting.layer.removeprefix("environment ")
    return f"{place}, {overlay}" if overlay != setting.layer else place


def _tree(shown: Outline, columns: int) -> Iterator[str]:
    for number, dag in enumerate(shown.dags):
        if number:
            yield ""
        yield dag.id
        yield from (f"  {line}" for line in textwrap.wrap(dag.summary, columns - 2))
        yield from starts("  started by", dag.starts, columns)
        yield from entry("  form      ", ", ".join(dag.form), columns)
        yield from _tasks(dag, columns)


def starts(label: str, every: Iterable[str], columns: int) -> Iterator[str]:
    """What starts a DAG, one a line below each other."""
    for number, start in enumerate(every):
        yield from entry(label if number == 0 else " " * (len(label) - 2) + "or", start, columns)


def _tasks(dag: DagOutline, columns: int) -> Iterator[str]:
    group = None
    for task in dag.tasks:
        if task.group != group:
            group = task.group
            yield f"    {group}"
        yield from entry(f"      {task.id.partition('.')[2]:<13}", _about(task), columns)


def _about(task: TaskOutline) -> str:
    parts = [("after", task.after), ("reads asset", task.reads), ("writes asset", task.writes)]
    return "; ".join(f"{word} {', '.join(names)}" for word, names in parts if names) or "first"
