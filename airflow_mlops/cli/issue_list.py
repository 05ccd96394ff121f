"""Issues for people: each with its place, its line, and what to do."""

from __future__ import annotations

import os
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence

from airflow_mlops.config.harmless import harmless, shown_char
from airflow_mlops.config.issues import Issue

# What is wrong begins at the column: a text in quotes, or all to the next separator.
_MARKED = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s,\[\]{}#]+")
_NARROWEST = 40
_WIDEST_LINE = 100
_RED, _YELLOW, _BOLD, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


def issue_list(issues: Sequence[Issue], files: int, *, width: int | None, colour: bool) -> Iterator[str]:
    """The lines to print, with a summary at the end.

    :param files: how many were checked.
    :param width: columns to wrap at; ``None``: messages stay on one line.
    """
    for issue in issues:
        yield from _one(issue, max(width, _NARROWEST) if width else None, colour)
        yield ""
    yield summary(issues, files)


def summary(issues: Sequence[Issue], files: int) -> str:
    """``3 errors and 1 warning in 2 of 14 files``, or ``14 files, no errors``."""
    errors = sum(issue.severity == "error" for issue in issues)
    counts = [_count(errors, "error"), _count(len(issues) - errors, "warning")]
    found = " and ".join(count for count in counts if not count.startswith("0 "))
    if not found:
        return f"{_count(files, 'file')}, no errors"
    hit = len({issue.file for issue in issues if not os.path.isdir(issue.file)})
    return f"{found} in {hit} of {_count(max(files, hit), 'file')}" if hit else f"{found}; {_count(files, 'file')}"


def shorten(file: str) -> str:
    """A path from the current folder on, if it lies below."""
    relative = os.path.relpath(file)
    return file if relative == os.pardir or relative.startswith(os.pardir + os.sep) else relative


def _one(issue: Issue, width: int | None, colour: bool) -> Iterator[str]:
    place = f"{harmless(shorten(issue.file))}:{issue.line}:{issue.column}:"
    kind = "" if issue.severity == "error" else f"{issue.severity}: "
    accent = _RED if issue.severity == "error" else _YELLOW
    head, *more = _wrapped(f"{place} {kind}{harmless(issue.message)}", "  ", width)
    if colour and head.startswith(place):
        head = f"{_BOLD}{place}{_PLAIN}{head[len(place) :]}"
        if kind:
            head = head.replace(f" {kind}", f" {accent}{kind}{_PLAIN}", 1)
    yield head
    yield from more
    if issue.text.strip():
        margin = f"{issue.line:>5} | "
        line, mark = _shown(issue, (width or _WIDEST_LINE) - len(margin))
        yield (margin + line).rstrip()
        spaces, carets = mark[: -len(mark.lstrip())], mark.lstrip()
        yield " " * (len(margin) - 2) + "| " + spaces + (f"{accent}{carets}{_PLAIN}" if colour else carets)
    if issue.suggestion:
        yield from _wrapped(f"  What to do: {harmless(issue.suggestion)}", "    ", width)


def _wrapped(text: str, indent: str, width: int | None) -> list[str]:
    if width is None:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _shown(issue: Issue, width: int) -> tuple[str, str]:
    """The part of the line around its column that fits, and carets below what is wrong in it."""
    start = issue.column - 1
    match = _MARKED.match(issue.text, start)
    end = start + max(1, len(match[0].rstrip(":"))) if match else start + 1
    first = 0
    if sum(map(_width, issue.text)) > width:
        first = start
        room = width // 2
        while first > 0 and (room := room - _width(issue.text[first - 1])) >= 0:
            first -= 1
    line, marks = "", ""
    used = 0
    for at in range(first, len(issue.text)):
        used += _width(issue.text[at])
        if used > width:
            break
        line += shown_char(issue.text[at])
        marks += ("^" if start <= at < end else " ") * _width(issue.text[at])
    return line, marks.rstrip() or " " * (used if start >= len(issue.text) else 0) + "^"


def _width(char: str) -> int:
    """Columns that a character takes as it is shown."""
    if len(cell := shown_char(char)) > 1:
        return len(cell)
    if unicodedata.combining(cell):
        return 0
    return 2 if unicodedata.east_asian_width(cell) in ("W", "F") else 1


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
