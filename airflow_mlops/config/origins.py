"""Every effective value of a pipeline, and where it was set: for people, so secrets are not among them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from airflow_mlops.config.keys import models_in
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.models.pipeline import OF_A_MODEL
from airflow_mlops.config.secrets import HIDDEN, looks_secret, masked
from airflow_mlops.config.yaml_source import Place, Source, parse

Path = tuple[Any, ...]

# A description ends with what counts where the file says nothing.
_NOTE = re.compile(r"(?:^|; )default:? (.+?)\.?$", re.IGNORECASE)


@dataclass(frozen=True)
class Setting:
    """One effective value.

    :param path: dotted, with list positions from 0, as in error messages.
    :param value: plain data; ``${env:NAME}`` as it is written, ``***`` for a secret, ``None`` where nothing is set.
    :param origin: ``file:line``, or ``default``.
    :param layer: ``default``, ``file``, ``extends``, or ``environment NAME`` for an overlay.
    :param note: what counts while ``value`` is empty, in the words of the key's description.
    """

    path: str
    value: Any
    origin: str
    layer: str
    note: str | None = None


def effective(config: PipelineConfig, source: Source) -> list[Setting]:
    """Return every value of ``config``, first those of the file in its order, then the defaults.

    :param source: what ``config`` was read from, with its layers.
    """
    found = list(_Walk(source).model(config, (), every=True))
    if config.has_model:
        return found
    # An experiment on a callable: nothing counts for a model that is not there.
    absent = {name.rstrip("_") for name in OF_A_MODEL}
    return [setting for setting in found if setting.path.partition(".")[0] not in absent]


def origin_of(source: Source, path: Path) -> tuple[str, str]:
    """Return ``file:line`` and the layer of the key at ``path``; ``("default", "default")`` if no file has it."""
    return _Walk(source).origin(path)


class _Walk:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.overlays = {
            (text.filename, line, column): name
            for text in source.texts
            if any("environments" in line for line in text.lines)
            for name, line, column in _overlay_places("\n".join(text.lines), text.filename)
        }

    def model(self, model: BaseModel, path: Path, every: bool) -> Iterator[Setting]:
        """The values of a section; without ``every`` only those that say something, for the items of a list."""
        fields = {info.alias or name: (name, info) for name, info in type(model).model_fields.items()}
        found, raw = self.source.resolve(path)
        first = [key for key in raw if key in fields] if found == path and isinstance(raw, dict) else []
        for key in dict.fromkeys([*first, *fields]):
            name, info = fields[key]
            value, here = getattr(model, name), (*path, key)
            if isinstance(value, BaseModel):
                yield from self.model(value, here, every)
            elif isinstance(value, list) and value and any(models_in(info.annotation)):
                for i, item in enumerate(value):
                    yield from self.model(item, (*here, i), every=False)
            elif value or every or value is False or value == 0:
                yield from self.plain(value, here, _note(info.description) if value in (None, [], {}) else None)

    def plain(self, value: Any, path: Path, note: str | None = None, free: bool = False) -> Iterator[Setting]:
        """A value that is no section; a mapping and a list of mappings have a line for each of theirs."""
        if free and _is_secret(path) and value is not None:
            value = HIDDEN
        if isinstance(value, dict) and value:
            hidden = masked(value)
            for key, inner in value.items():
                yield from self.plain(HIDDEN if hidden[key] == HIDDEN else inner, (*path, key), free=True)
        elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
            for i in range(len(value)):
                yield Setting(_dots((*path, i)), self.shown(value[i], (*path, i)), *self.origin((*path, i)))
        else:
            yield Setting(_dots(path), self.shown(value, path), *self.origin(path), note)

    def shown(self, value: Any, path: Path) -> Any:
        """``value`` for people: as it is written where a variable stands in it, without secrets."""
        found, raw = self.source.resolve(path)
        if value == HIDDEN or found != path:
            return masked(value)
        if isinstance(value, (dict, list)) and type(raw) is type(value):
            return masked(self.written(raw))
        parent = self.source.resolve(path[:-1])[1]
        # A whole number is a float after it was checked.
        plain = raw if raw == value and not isinstance(raw, bool) else value
        return masked(self.source.placeholders.get((id(parent), path[-1]), plain))

    def written(self, raw: Any) -> Any:
        """A container of the file with its placeholders in the place of their variables."""
        kept = self.source.placeholders
        if isinstance(raw, dict):
            return {key: kept.get((id(raw), key)) or self.written(value) for key, value in raw.items()}
        if isinstance(raw, list):
            return [kept.get((id(raw), i)) or self.written(value) for i, value in enumerate(raw)]
        return raw

    def origin(self, path: Path) -> tuple[str, str]:
        """Where the key at ``path`` was set, and in which layer."""
        if self.source.resolve(path)[0] != path:
            return "default", "default"
        place = self.source.place(path, key=True)
        filename = place.text.filename
        layer = "file" if filename == self.source.text.filename else "extends"
        overlay = self.overlays.get((filename, place.line, place.column))
        return f"{filename}:{place.line + 1}", f"environment {overlay}" if overlay is not None else layer


def _overlay_places(text: str, filename: str) -> Iterator[tuple[str, int, int]]:
    """Name of the overlay, line and column of every key and item below ``environments``."""
    source = parse(text, filename)
    overlays = source.data.get("environments") if isinstance(source.data, dict) else None

    def places(value: Any) -> Iterator[Place]:
        if isinstance(value, (dict, list)):
            for key in value if isinstance(value, dict) else range(len(value)):
                found = source.where(value)[key]
                yield found[0] if isinstance(value, dict) else found
                yield from places(value[key])

    for name, overlay in overlays.items() if isinstance(overlays, dict) else ():
        for place in places(overlay):
            yield str(name), place.line, place.column


def _note(description: str | None) -> str | None:
    match = _NOTE.search(description or "")
    return match[1] if match else None


def _dots(path: Path) -> str:
    return ".".join(str(step) for step in path)


def _is_secret(path: Path) -> bool:
    # A notifier's arguments are anybody's: a webhook's URL is a secret as a whole. Ids of connections are not.
    name = str(path[-1])
    if path[:2] == ("notify", "notifiers"):
        return not name.endswith("conn_id")
    return looks_secret(name)
