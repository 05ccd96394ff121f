"""Older pipeline files in the words of today: the text is edited where it must change, and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.yaml_source import LINE_BREAK, Source, parse

CURRENT: int = PipelineConfig.model_fields["schema_"].default
"""The version of the vocabulary that this package reads."""

_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""")


@dataclass(frozen=True)
class Rename:
    """The key at ``path`` is called ``to``; ``"*"`` in the path is every item of a list."""

    path: tuple[str, ...]
    to: str


MIGRATIONS: dict[int, tuple[Rename, ...]] = {}
"""Version → what becomes of its files in the next one, for every version but the newest.

Overlays under ``environments`` change as the file does.
"""


def upgraded(text: str, filename: str, migrations: dict[int, tuple[Rename, ...]] = MIGRATIONS) -> str:
    """The text of a pipeline file, or of one that is extended, in the newest version of the vocabulary.

    A file without ``schema`` is one of version 1 and gets the key. Comments, order and layout stay.

    :raises InvalidPipeline: the text is not one of a pipeline file, was written for a newer version, or has to
        be changed by hand; with the place of each problem.
    """
    newest = 1 + len(migrations)
    source = _read(text, filename)
    if "schema" not in source.data:
        text = _with_schema(source, text)
        source = _read(text, filename)
    version = source.data["schema"]
    if type(version) is not int or version < 1:
        _stop(source, ("schema",), f"`schema` must be a version from 1 to {newest}", "write `schema: 1`")
    if version > newest:
        message = f"this file was written for a newer version of airflow-mlops: schema {version}"
        _stop(source, ("schema",), message, f"this one knows schema {newest}; install the newer version")
    for number in range(version, newest):
        text = _migrated(_read(text, filename), text, number, migrations[number])
    return text


def _read(text: str, filename: str) -> Source:
    source = parse(text, filename)
    if source.failed:
        raise InvalidPipeline(source.issues)
    return source


def _with_schema(source: Source, text: str) -> str:
    """``text`` with ``schema: 1`` before its first key: on a line of its own, or inside the braces."""
    wanted = {"schema": 1, **source.data}
    place = source.place(())
    line, start = place.text.lines[place.line], _offset(text, place.line, 0)
    indent = line[: len(line) - len(line.lstrip(" "))]
    end = LINE_BREAK.search(text)
    block = text[:start] + f"{indent}schema: 1{end[0] if end else chr(10)}" + text[start:]
    at = start + place.column
    for edited in (block, text[:at] + "schema: 1, " + text[at:]):
        made = parse(edited, place.text.filename)
        if not made.failed and made.data == wanted:
            return edited
    return _stop(source, (), "`schema: 1` cannot be put before the first key", "write it there by hand")


def _migrated(source: Source, text: str, number: int, changes: tuple[Rename, ...]) -> str:
    wanted = _copy(source.data)
    edits = {_version_at(source, text, number): str(number + 1)}
    wanted["schema"] = number + 1
    for change in changes:
        for path in _paths(source.data, change.path):
            parent = source.resolve(path[:-1])[1]
            if change.to in parent:
                _stop(source, path, f"`{path[-1]}` is now `{change.to}`, which is here too", "keep one of the two")
            edits[_key_at(source, text, path, change.to)] = change.to
    # From the end, so that the places before stay right.
    edited = text
    for (start, end), new in sorted(edits.items(), reverse=True):
        edited = edited[:start] + new + edited[end:]
    # The deepest first: a path has the names of the older version.
    for change in sorted(changes, key=lambda change: -len(change.path)):
        for path in _paths(wanted, change.path):
            parent = _at(wanted, path[:-1])
            parent[change.to] = parent.pop(path[-1])
    made = parse(edited, source.text.filename)
    if made.failed or made.data != wanted:
        message = f"the change to schema {number + 1} would change more than it should"
        _stop(source, (), message, "write anchors and aliases out, and try again")
    return edited


def _paths(data: Any, path: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Where ``path`` is in the file itself and in each of its overlays."""
    overlays = data.get("environments")
    found = _matches(data, path, ())
    for name, overlay in overlays.items() if isinstance(overlays, dict) else ():
        found += _matches(overlay, path, ("environments", name))
    return found


def _matches(value: Any, path: tuple[str, ...], before: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    step, *rest = path
    keys: list[Any] = [step] if isinstance(value, dict) and step in value else []
    if step == "*" and isinstance(value, list):
        keys = list(range(len(value)))
    if not rest:
        return [(*before, key) for key in keys]
    return [found for key in keys for found in _matches(value[key], tuple(rest), (*before, key))]


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def _copy(value: Any) -> Any:
    """A copy in which no two places share a value, as those of an anchor and its aliases do."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _key_at(source: Source, text: str, path: tuple[Any, ...], to: str) -> tuple[int, int]:
    """Start and end of a key as it is written, quotes included."""
    place = source.place(path, key=True)
    start = _offset(text, place.line, place.column)
    quoted = _QUOTED.match(text, start)
    if quoted is None and not text.startswith(path[-1], start):
        _stop(source, path, f"`{path[-1]}` is now `{to}`, and cannot be renamed here", "rename it by hand")
    return start, quoted.end() if quoted else start + len(path[-1])


def _version_at(source: Source, text: str, number: int) -> tuple[int, int]:
    place = source.where(source.data)["schema"][1]
    start = _offset(text, place.line, place.column)
    if not text.startswith(str(number), start):
        _stop(source, ("schema",), "`schema` cannot be changed here", f"write a plain {number}")
    return start, start + len(str(number))


def _offset(text: str, line: int, column: int) -> int:
    starts = [0, *(end.end() for end in LINE_BREAK.finditer(text))]
    return starts[line] + column


def _stop(source: Source, path: tuple[Any, ...], message: str, advice: str) -> NoReturn:
    dotted = ".".join(str(step) for step in path)
    source.add(source.place(path, key=path[-1:] != ("schema",)), "upgrade", message, advice, dotted)
    raise InvalidPipeline(source.issues)
