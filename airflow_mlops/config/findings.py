"""How what was found in a pipeline file becomes an issue, and how a file that may hold anything is read."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from airflow_mlops.config.catalogue import (
    Catalogue,
    Kinds,
    Library,
    advice_for,
    catalogue,
    nearest,
    short,
    shown,
    words,
)
from airflow_mlops.config.issues import Severity
from airflow_mlops.config.yaml_source import Source

OWN_CALL = "make the model with `train.callable`"
"""What to do about a model that YAML cannot write."""

# All expressions of a file together; longer ones are left to the run. Ten of these characters can cost 5 ms.
_REGEX_CHARACTERS = 2_000
_MOST_SUGGESTIONS = 100
_SHOWN = 12

Path = tuple[Any, ...]


class Findings:
    """Adds issues to a source.

    Those that rest on a library's names alone are warnings where another minor version of it is installed.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known: Catalogue = catalogue()
        self._other: dict[Library, str] = {}
        self._regex_characters = 0

    def may_compile(self, pattern: str) -> bool:
        """Whether a regular expression is still within what a file may cost at each parse."""
        self._regex_characters += len(pattern)
        return self._regex_characters <= _REGEX_CHARACTERS

    def nearest(self, word: str, known: Sequence[str]) -> str | None:
        """The one of ``known`` that is meant; nobody reads the hundredth suggestion."""
        return nearest(word, known) if len(self.source.issues) < _MOST_SUGGESTIONS else None

    def add(
        self,
        path: Path,
        code: str,
        message: str,
        suggestion: str | None,
        library: Library | None = None,
        *,
        key: bool = False,
        severity: Severity = "error",
    ) -> None:
        """Note an issue at ``path``, on the key itself with ``key``; ``library`` is whose names it rests on."""
        if library and (other := self._other_version(library)):
            message, severity = f"{message} ({other})", "warning"
        where = ".".join(str(step) for step in path)
        self.source.add(self.source.place(path, key=key), code, message, suggestion, where, severity=severity)

    def _other_version(self, library: Library) -> str:
        """Of which versions are the catalogue and what is installed; empty when their minor versions are the same."""
        if library not in self._other:
            own = self.known["versions"][library]
            try:
                installed = importlib.metadata.version(library) or own
            except importlib.metadata.PackageNotFoundError:
                installed = own
            ours, theirs = (".".join(version.split(".")[:2]) for version in (own, installed))
            self._other[library] = "" if ours == theirs else f"as of {library} {ours}; {theirs} is installed"
        return self._other[library]

    def value(self, path: Path, owner: str, kinds: Kinds, value: Any, code: str, library: Library) -> None:
        """Note a value that none of ``kinds`` takes."""
        name, wanted = next(step for step in reversed(path) if isinstance(step, str)), words(kinds)
        message, advice = f"`{name}` of `{owner}` must be {wanted}, not {shown(value)}", advice_for(kinds, value)
        if not wanted:
            message, advice = f"`{name}` of `{owner}` takes what YAML cannot write", f"leave it out, or {OWN_CALL}"
        self.add(path, code, message, advice, library)

    def unknown(self, path: Path, owner: str, what: str, known: list[str], library: Library) -> str | None:
        """Note a name that ``owner`` does not have; returns the known one that may be meant."""
        close = self.nearest(path[-1], known) if isinstance(path[-1], str) else None
        first, more = ", ".join(known[:_SHOWN]), len(known) - _SHOWN
        listed = f"it takes {first}" + (f" and {more} more" if more > 0 else "")
        message = f"`{owner}` has no {what} `{short(path[-1])}`"
        self.add(path, what, message, f"did you mean `{close}`?" if close else listed, library, key=True)
        return close


def inner(mapping: dict[Any, Any], key: str) -> dict[Any, Any]:
    """The mapping at ``key``; an empty one where something else is there."""
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def items(mapping: dict[Any, Any], key: str) -> Iterator[tuple[int, Any]]:
    """Index and value of the list at ``key``; nothing where something else is there."""
    value = mapping.get(key)
    return enumerate(value if isinstance(value, list) else ())


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether ``value`` is a number; ``true`` is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
