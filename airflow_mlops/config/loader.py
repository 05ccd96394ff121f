"""From a YAML file to a checked pipeline: the one way in."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from airflow_mlops.config import permissions, semantics
from airflow_mlops.config.explain import explain, take_out
from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.layers import Layers
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Source, parse


class PipelineReader:
    """Reads pipeline files under the same settings; what several of them extend is read once.

    :param root: the folder that nothing of ``extends`` may lie outside of; ``None``: the file's own.
    """

    def __init__(self, settings: Settings | None = None, root: Path | None = None) -> None:
        self.settings = settings or Settings()
        self._layers = Layers(self.settings, root)

    def read(self, path: Path) -> tuple[PipelineConfig | None, Source]:
        """Return the pipeline, ``None`` if it has errors, and its source with all issues."""
        source = self._layers.read(path)
        return self._checked(source), source

    def read_text(self, text: str, filename: str) -> tuple[PipelineConfig | None, Source]:
        """As :meth:`read`, for a text that is in no file, and so extends none."""
        source = self._layers.layered(parse(text, filename), None)
        return self._checked(source), source

    def load(self, path: Path) -> PipelineConfig:
        """Return the pipeline of a file.

        :raises InvalidPipeline: a :class:`ConfigError` with every problem of the file and its place.
        """
        return _or_raise(*self.read(path))

    def _checked(self, source: Source) -> PipelineConfig | None:
        if not isinstance(source.data, dict):
            return None
        config: PipelineConfig | None = None
        try:
            config = _validated(source.data)
        except ValidationError as e:
            source.repaired = explain(source, e)
            config = _without_unset(source, e) if source.unset else None
        _check_names(source)
        permissions.check(source, self.settings)
        _leave_out_consequences(source)
        return None if source.failed else config


def _validated(data: Any) -> PipelineConfig:
    return PipelineConfig.model_validate(data, by_alias=True, by_name=False)


def _without_unset(source: Source, error: ValidationError) -> PipelineConfig | None:
    """The pipeline as if it did not name the variables that have no value and are no text."""
    wrong = {source.resolve(tuple(detail["loc"]))[0] for detail in error.errors(include_url=False)}
    data = copy.deepcopy(source.data)
    for path in source.unset & wrong:
        take_out(data, path)
    with suppress(ValidationError):
        return _validated(data)
    return None


def _check_names(source: Source) -> None:
    """Check names and arguments; what they explain is not said twice, in general words, by the models.

    A warning explains no error: without it the file would be taken.
    """
    general = list(source.issues)
    source.issues.clear()
    semantics.check(source)
    told = {issue.path for issue in source.issues if issue.severity == "error"}
    told |= {path.rpartition(".")[0] for path in told}
    source.issues[:0] = [i for i in general if i.code not in ("value_error", "cross") or i.path not in told]


def _leave_out_consequences(source: Source) -> None:
    """Take out what only follows from a base that could not be read, a variable without a value, or a tag."""
    unset = {".".join(str(step) for step in path) for path in source.unset}
    base = any(issue.code == "extends" for issue in source.issues)
    _hide_variables(source)
    tags = {(i.file, i.line, i.column) for i in source.issues if i.code == "tag"}
    if unset or base or tags:
        source.issues[:] = [
            i
            for i in source.issues
            if (i.path not in unset or i.code == "variable_unset")
            and not (base and i.code in ("missing", "cross"))
            and ((i.file, i.line, i.column) not in tags or i.code == "tag")
        ]


def _hide_variables(source: Source) -> None:
    """Show variables in messages as they are written: what they hold is nobody's to read."""
    for number, issue in enumerate(source.issues):
        path = tuple(int(step) if step.isdecimal() and step.isascii() else step for step in issue.path.split("."))
        found, value = source.resolve(path)
        parent = source.resolve(found[:-1])[1] if found else None
        written = source.placeholders.get((id(parent), found[-1])) if found == path and found else None
        if written is not None:
            message = issue.message.replace(repr(value), written).replace(str(value), written)
            source.issues[number] = replace(issue, message=message, suggestion=None)


def _or_raise(config: PipelineConfig | None, source: Source) -> PipelineConfig:
    if config is None:
        raise InvalidPipeline(source.issues)
    return config


def read_pipeline(
    path: Path, settings: Settings | None = None, root: Path | None = None
) -> tuple[PipelineConfig | None, Source]:
    """Read one file; returns the pipeline, ``None`` if it has errors, and its source with all issues."""
    return PipelineReader(settings, root).read(path)


def load_pipeline(path: Path, settings: Settings | None = None, root: Path | None = None) -> PipelineConfig:
    """Read and check one pipeline file.

    :raises InvalidPipeline: a :class:`ConfigError` with every problem of the file and its place.
    """
    return PipelineReader(settings, root).load(path)


def load_text(text: str, filename: str = "<text>", settings: Settings | None = None) -> PipelineConfig:
    """Check the text of a pipeline file; ``filename`` is for messages only.

    :raises InvalidPipeline: a :class:`ConfigError` with every problem of the text and its place.
    """
    return _or_raise(*PipelineReader(settings).read_text(text, filename))
