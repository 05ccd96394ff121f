"""``${env:NAME}`` and ``${conn:ID}`` in a pipeline file.

A variable's value takes the placeholder's place when the file is read, once, as text: what it holds
is never read as YAML, as a template or as another placeholder, except that a value which is nothing
but an unquoted placeholder is typed like the scalar it stands for. A connection is only looked up by
the task that uses it (:meth:`airflow_mlops.ml.files.Files.resolve`); here its place is checked.
Nothing else begins with ``${``; a literal one is written ``$${``.
"""

from __future__ import annotations

import os
import re
from typing import Any

from airflow_mlops.config.secrets import looks_secret, masked_text
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Place, Source, plain_scalar

CONNECTION = re.compile(r"\$\{conn:([\w.\-]+)\}(?:/(.*))?", re.DOTALL)
LOCATIONS = (
    ("data", "source"),
    ("deploy", "batch", "source"),
    ("deploy", "batch", "output"),
    ("monitor", "labels", "source"),
    ("monitor", "skew", "source"),
)
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}\n]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Airflow's own settings hold secrets under any name.
_AIRFLOW = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
# After an anchor, as in `&rows ${env:MLOPS_ROWS}`.
_PLAIN = re.compile(r"(?:&\S+\s+)?\$")
_USAGE = "write ${env:NAME} or ${conn:ID}; for a literal `${` write `$${`"

Path = tuple[Any, ...]


def fill(source: Source, settings: Settings) -> None:
    """Put the variables into ``source.data``, in new containers; ``source.placeholders`` keeps what was written."""
    source.data = _Filling(source, settings).value(source.data, ())


class _Filling:
    def __init__(self, source: Source, settings: Settings) -> None:
        self.source = source
        self.settings = settings

    def value(self, value: Any, path: Path) -> Any:
        """``value`` with variables; itself where it has none."""
        if isinstance(value, dict):
            for key in value:
                if isinstance(key, str) and "${" in key:
                    at = self.source.place((*path, key), key=True)
                    self.say(at, (*path, key), f"the key `{key[:80]}` holds a placeholder", "write the key out")
            return self.container(value, {key: self.value(inner, (*path, key)) for key, inner in value.items()})
        if isinstance(value, list):
            return self.container(value, [self.value(inner, (*path, i)) for i, inner in enumerate(value)])
        if isinstance(value, str) and "${" in value:
            return self.text(value, path)
        return value

    def container(self, old: Any, new: Any) -> Any:
        """``new`` in the place of ``old``, with its places and with what was written; ``old`` if nothing changed."""
        keys = list(old) if isinstance(old, dict) else range(len(old))
        changed = [key for key in keys if new[key] is not old[key]]
        if not changed:
            return old
        self.source.put(new, self.source.where(old))
        for key in changed:
            if isinstance(old[key], str):
                self.source.placeholders[id(new), key] = old[key]
        return new

    def text(self, text: str, path: Path) -> Any:
        """A text with its variables put in, or as it was where something is wrong with it."""
        place = self.source.place(path)
        if CONNECTION.fullmatch(text) and path in LOCATIONS:
            return text
        if path == ("pipeline",):
            self.say(place, path, "a pipeline's name is written out", "Airflow finds the file by it")
            return text
        parts, end, failed = [], 0, False
        for match in _PLACEHOLDER.finditer(text):
            found = self.one(match, place, path)
            failed |= found is None
            parts += [text[end : match.start()], found or ""]
            end = match.end()
        if failed:
            return text
        filled = "".join([*parts, text[end:]])
        if path in LOCATIONS and filled.startswith("${conn:"):
            self.say(place, path, f"`{_dots(path)}` would be read as a connection", "name the file or folder otherwise")
            return text
        alone = _PLACEHOLDER.fullmatch(text)
        if alone and alone[1] is not None and not self.quoted(place):
            return plain_scalar(self.source, filled, place)
        return filled

    def one(self, match: re.Match[str], place: Place, path: Path) -> str | None:
        """What takes one placeholder's place; ``None``: nothing can, and it has been said why."""
        if match[0] == "$${":
            return "${"
        kind, colon, name = (match[1] or "").partition(":")
        if kind == "conn" and colon:
            where = ", ".join(".".join(p) for p in LOCATIONS)
            message = f"`{match[0][:80]}`: a connection stands at the beginning of a location, before a slash"
            self.say(place, path, message, f"it may begin {where}")
        elif kind != "env" or not _NAME.fullmatch(name):
            self.say(place, path, f"`{match[0][:80]}` is not a placeholder", _USAGE)
        elif looks_secret(name) or name.upper().startswith(_AIRFLOW):
            message = f"`{match[0][:80]}`: this name is one of a secret, and a file's values are shown to people"
            self.say(place, path, message, "keep secrets in an Airflow connection, and name the connection")
        elif not any(_allows(pattern, name) for pattern in self.settings.allowed_variables):
            allowed = ", ".join(self.settings.allowed_variables) or "none"
            message = f"`{match[0][:80]}`: this variable is not one that pipeline files may use (allowed: {allowed})"
            self.say(place, path, message, "add its name to [mlops] allowed_variables")
        elif name not in os.environ:
            message, advice = f"the environment variable {name} is not set", "set it where Airflow reads the file"
            if self.settings.need_variables:
                self.say(place, path, message, advice)
            else:
                self.source.unset.add(path)
                self.source.add(place, "variable_unset", message, advice, _dots(path), "warning")
        elif not os.environ[name]:
            self.say(place, path, f"the environment variable {name} is empty", "set it where Airflow reads the file")
        elif any(mark in os.environ[name] for mark in ("${", "{{", "{%", "{#")):
            self.say(place, path, f"{name} holds a placeholder or a template itself", "set it to plain text")
        elif masked_text(os.environ[name]) != os.environ[name]:
            message = f"{name} holds what looks like a password, and a file's values are shown to people"
            self.say(place, path, message, "keep secrets in an Airflow connection, and name the connection")
        else:
            return os.environ[name]
        return None

    def say(self, place: Place, path: Path, message: str, advice: str) -> None:
        self.source.add(place, "placeholder", message, advice, _dots(path))

    def quoted(self, place: Place) -> bool:
        """Whether the value at ``place`` is in quotes or a block, and so text whatever it looks like."""
        return not _PLAIN.match(place.text.lines[place.line], place.column)


def _allows(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _dots(path: Path) -> str:
    return ".".join(str(step) for step in path)
