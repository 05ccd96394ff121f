"""Safe, fast YAML 1.2 for files written by people: plain data, and where every piece of it stands.

The parser's event stream is read without recursion, so nothing a file holds can exhaust the C stack,
and every limit is checked before the data grows. Scalars follow the core schema of YAML 1.2
(https://yaml.org/spec/1.2.2/#103-core-schema): only ``true`` and ``false`` are booleans, dates and
``12:30:45`` are text. Tags and merge keys are refused.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from airflow_mlops.config.issues import Issue, Severity
from airflow_mlops.config.yaml_advice import advice

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_NODES = 10_000
MAX_DIGITS = 60

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what YAML 1.1 parsers count as line ends
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER = re.compile(
    r"(?P<int>[-+]?[0-9]+)|0o(?P<oct>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<infinite>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)


class Text(NamedTuple):
    """A file's name and its lines."""

    filename: str
    lines: list[str]


class Place(NamedTuple):
    """Line and column, both from 0, in a file."""

    line: int
    column: int
    text: Text


class _Stop(Exception):
    """Reading cannot go on; the issue is already noted."""


_NO_KEY = object()
_BAD_KEY = object()


class _Open:
    """A collection whose end has not been read; ``places`` has what ``Source.places`` needs."""

    __slots__ = ("anchor", "before", "key", "key_place", "place", "places", "value")

    def __init__(self, value: Any, place: Place, anchor: str | None, before: int) -> None:
        self.value = value
        self.place = place
        self.anchor = anchor
        self.before = before
        self.key: Any = _NO_KEY
        self.key_place = place
        self.places: Any = {} if isinstance(value, dict) else []


class Source:
    """A file's text, its data and the place of each piece.

    ``where(mapping)[key]`` is (place of the key, place of the value); ``where(list)[i]`` is the place of
    the item. ``data`` is what the file holds: a mapping, unless ``issues`` says why not.
    Data may come from several files that lie on top of each other: each place names its file.
    ``placeholders[id(parent), key]`` is the text of a value in which a variable has been put;
    ``unset`` has the paths of those whose variable has no value. ``environments`` has the overlays
    by their names, of which at most one is joined into the data. ``repaired`` is the pipeline of an
    invalid file without what is wrong with it, for checks that need one.
    """

    def __init__(self, text: Text) -> None:
        self.text = text
        self.texts: tuple[Text, ...] = (text,)
        self.data: Any = None
        self.issues: list[Issue] = []
        # With the container itself: an id belongs to it only as long as it lives.
        self.places: dict[int, tuple[Any, Any]] = {}
        self.placeholders: dict[tuple[int, Any], str] = {}
        self.unset: set[tuple[Any, ...]] = set()
        self.environments: dict[str, Any] = {}
        self.repaired: Any = None

    def where(self, container: Any) -> Any:
        """The places in a mapping or list of this source's data."""
        return self.places[id(container)][1]

    def put(self, container: Any, where: Any) -> None:
        """Note the places in a mapping or list."""
        self.places[id(container)] = (container, where)

    def at(self, line: int, column: int = 0) -> Place:
        """A place in this source's own file."""
        return Place(line, column, self.text)

    def add(
        self,
        place: Place,
        code: str,
        message: str,
        suggestion: str | None = None,
        path: str = "",
        severity: Severity = "error",
    ) -> None:
        """Note a problem; a place after the last line moves to the end of the file."""
        line, column, (filename, lines) = place
        if line >= len(lines):
            line = len(lines) - 1
            column = len(lines[line])
        text = lines[line]
        column = min(column, len(text)) + 1
        self.issues.append(Issue(filename, line + 1, column, path, code, message, suggestion, text, severity))

    @property
    def failed(self) -> bool:
        """Whether a problem is an error."""
        return any(issue.severity == "error" for issue in self.issues)

    def resolve(self, path: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
        """The longest beginning of ``path`` that the data has, and the value there."""
        value = self.data
        for depth, step in enumerate(path):
            if isinstance(value, dict):
                known = not isinstance(step, (dict, list)) and step in value
            else:
                known = isinstance(value, list) and isinstance(step, int) and 0 <= step < len(value)
            if not known:
                return path[:depth], value
            value = value[step]
        return path, value

    def place(self, path: tuple[Any, ...], *, key: bool = False) -> Place:
        """Where ``path``, which exists, stands: its value, or with ``key`` the key that introduces it."""
        if not path:
            keys = (place for place, _ in (self.where(self.data) if isinstance(self.data, dict) else {}).values())
            return next((place for place in keys if place.text is self.text), self.at(0))
        parent = self.resolve(path[:-1])[1]
        found = self.where(parent)[path[-1]]
        if isinstance(parent, list):
            return found
        # An empty value and a block under its key are best shown at the key.
        empty = parent[path[-1]] is None
        return found[0] if key or empty or found[1][::2] != found[0][::2] else found[1]

    def written(self, path: tuple[Any, ...]) -> str:
        """A plain scalar as it is written in the file, such as ``1.10`` for 1.1."""
        place = self.place(path)
        return re.split(r"[,\]}#]", place.text.lines[place.line][place.column :])[0].strip()


def parse(text: str, filename: str) -> Source:
    """Read ``text``; what is wrong with it is in the result's ``issues``, nothing is raised."""
    text = text.removeprefix("\ufeff")
    if len(text) > MAX_BYTES:
        source = Source(Text(filename, [""]))
        source.add(source.at(0), "too_large", f"the text has {len(text)} characters; a pipeline may have {MAX_BYTES}")
        return source
    source = Source(Text(filename, LINE_BREAK.split(text)))
    try:
        _Builder(source).read(text)
    except _Stop:
        return source
    except UnicodeEncodeError as e:
        source.add(
            _offset(source, text[: e.start]),
            "encoding",
            "a character here is not valid Unicode",
            "save the file as UTF-8",
        )
    except yaml.reader.ReaderError as e:
        # libyaml counts bytes here.
        before = text.encode()[: e.position].decode(errors="ignore")
        what = f"character {e.character:#x}" if isinstance(e.character, int) else "a character"
        source.add(_offset(source, before), "character", f"{what} is not allowed in YAML", "remove it")
    except yaml.MarkedYAMLError as e:
        mark, opened = e.problem_mark or e.context_mark, e.context_mark
        message = ", ".join(str(m) for m in (e.context, e.problem) if m) or "not valid YAML"
        if opened and "quoted scalar, found unexpected" in message:  # noticed at the end of the file only
            mark, message = opened, f"{message}: the quote that opens here is not closed"
        place = source.at(mark.line, mark.column) if mark else source.at(0)
        hint = advice(message, source.text.lines, place.line, place.column, opened.line if opened else None)
        source.add(place, "yaml", f"not valid YAML: {message}", hint)
    return source


def _offset(source: Source, before: str) -> Place:
    lines = LINE_BREAK.split(before)
    return source.at(len(lines) - 1, len(lines[-1]))


class _Builder:
    """Builds data and places from events, with an explicit stack."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.stack: list[_Open] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.nodes = 0
        self.documents = 0

    def read(self, text: str) -> None:
        loader = _LOADER(text)
        try:
            while loader.check_event():
                self._event(loader.get_event())
        finally:
            loader.dispose()
        source = self.source
        if self.documents == 0 or source.data is None:
            source.add(source.at(0), "empty", "the file is empty", "start with `pipeline: name`")
        elif not isinstance(source.data, dict):
            message = "the file is not a mapping of keys to values"
            source.add(source.at(0), "not_a_mapping", message, "start with `pipeline: name`")

    def _event(self, event: Any) -> None:
        kind = type(event)
        if kind is ScalarEvent:
            place = Place(event.start_mark.line, event.start_mark.column, self.text)
            self._count(1, place)
            if event.tag:
                self._tag(event, place)
            value = event.value if event.style or event.tag else plain_scalar(self.source, event.value, place)
            if event.anchor:
                self.anchors[event.anchor] = (value, 1)
            self._put(value, place)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            place = Place(event.start_mark.line, event.start_mark.column, self.text)
            self._count(1, place)
            if event.tag:
                self._tag(event, place)
            if len(self.stack) >= MAX_DEPTH:
                self._stop(place, "too_deep", f"nested more than {MAX_DEPTH} levels deep")
            value = {} if kind is MappingStartEvent else []
            self.stack.append(_Open(value, place, event.anchor, self.nodes - 1))
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            done = self.stack.pop()
            self.source.put(done.value, done.places)
            if done.anchor:
                self.anchors[done.anchor] = (done.value, self.nodes - done.before)
            self._put(done.value, done.place)
        elif kind is AliasEvent:
            self._alias(event.anchor, Place(event.start_mark.line, event.start_mark.column, self.text))
        elif kind is DocumentStartEvent:
            self.documents += 1
            if self.documents > 1:
                place = Place(event.start_mark.line, event.start_mark.column, self.text)
                self._stop(place, "documents", "a second document starts here", "one pipeline per file")

    def _put(self, value: Any, place: Place) -> None:
        if not self.stack:
            self.source.data = value
            return
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
            top.places.append(place)
        elif top.key is not _NO_KEY:
            if top.key is not _BAD_KEY:
                top.value[top.key] = value
                top.places[top.key] = (top.key_place, place)
            top.key = _NO_KEY
        else:
            top.key_place = place
            top.key = value if self._usable(value, top, place) else _BAD_KEY

    def _usable(self, key: Any, top: _Open, place: Place) -> bool:
        if not isinstance(key, (str, int, float)):
            self.source.add(place, "key", "a key must be text or a number", "put quotes around it, or around the value")
        elif key == "<<":
            self.source.add(place, "merge", "merge keys (`<<`) are not part of YAML 1.2", "write the keys out")
        elif key in top.value:
            first = top.places[key][0].line + 1
            message = f"duplicate key `{_short(key)}`; it is already on line {first}"
            self.source.add(place, "duplicate", message, "keep one of the two")
        else:
            return True
        return False

    def _alias(self, name: str, place: Place) -> None:
        if name not in self.anchors:
            inside = any(o.anchor == name for o in self.stack)
            problem = "contains itself" if inside else "is not defined before this line"
            self._stop(place, "alias", f"anchor `{_short(name)}` {problem}", "write the values out")
        value, size = self.anchors[name]
        self._count(size, place)
        if isinstance(value, (dict, list)) and len(self.stack) + _height(value) > MAX_DEPTH:
            self._stop(place, "too_deep", f"nested more than {MAX_DEPTH} levels deep, aliases included")
        self._put(value, place)

    def _tag(self, event: Any, place: Place) -> None:
        message = f"the tag `{_short(event.tag)}` is not allowed: a pipeline file is data, not code"
        self.source.add(place, "tag", message, "remove the tag; put quotes around what is text")

    def _count(self, nodes: int, place: Place) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            self._stop(place, "too_many", f"more than {MAX_NODES} values, aliases included", "write a smaller file")

    def _stop(self, place: Place, code: str, message: str, suggestion: str | None = None) -> None:
        self.source.add(place, code, message, suggestion)
        raise _Stop


def plain_scalar(source: Source, text: str, place: Place) -> Any:
    """The value of an unquoted scalar; a number that cannot be used is noted as an issue."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    match = _NUMBER.fullmatch(text)
    if not match:
        return text
    if len(text) > MAX_DIGITS:
        source.add(place, "number", f"a number of {len(text)} digits", "quote it, if it is text")
        return 0
    kind = match.lastgroup
    number = float(text) if kind == "float" else 0.0
    if kind == "infinite" or abs(number) == float("inf"):
        message = f"`{text}` is not a finite number, and could not be recorded"
        source.add(place, "number", message, "leave the key out, or quote it, if it is text")
        return 0.0
    if kind == "float":
        return number
    return int(match[kind or 0], {"oct": 8, "hex": 16}.get(kind or "", 10))


def _height(value: Any) -> int:
    """Levels of a value that is at most MAX_DEPTH deep and MAX_NODES large."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max((_height(c) for c in children), default=0)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
