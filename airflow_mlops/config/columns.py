"""Checks the columns that a pipeline file names against those of its data."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.yaml_source import Source

# Arguments of Great Expectations' expectations that are columns, as ml/expectations.py takes them.
_ARGUMENTS = ("column", "column_A", "column_B", "column_list", "column_set")
_SHOWN = 12

Path = tuple[Any, ...]


def check(source: Source, config: PipelineConfig, known: Sequence[str]) -> None:
    """Note every column in ``source`` that the data, with the columns ``known``, is certain to lack.

    :param config: the pipeline that ``source`` holds.
    """
    for path, name in _named(config):
        if name not in known and source.resolve(path)[0] == path:
            where = ".".join(str(step) for step in path)
            close = difflib.get_close_matches(name, known, 1)
            more = len(known) - _SHOWN
            listed = "the columns are " + ", ".join(known[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            advice = f"did you mean `{close[0]}`?" if close else listed
            source.add(source.place(path), "column", f"the data has no column `{name}`", advice, where)


def _named(config: PipelineConfig) -> Iterator[tuple[Path, str]]:
    """Place and name of each column that is looked for in the data as it comes, before any feature code."""
    data = config.data
    for key in ("target", "id", "timestamp"):
        name = getattr(data, key)
        if name is not None:
            yield ("data", key), name
    if data.split.column is not None:
        yield ("data", "split", "column"), data.split.column
    for i, name in enumerate(data.private):
        yield ("data", "private", i), name
    if config.features is None:  # feature code may make a column that is then left out
        for i, name in enumerate(data.exclude):
            yield ("data", "exclude", i), name
    if (fleet := config.fleet) is not None:
        if isinstance(fleet.key, str):
            yield ("fleet", "key"), fleet.key
        else:
            yield from ((("fleet", "key", i), name) for i, name in enumerate(fleet.key))
        if fleet.parent is not None:
            yield ("fleet", "parent"), fleet.parent
    for i, gate in enumerate(config.evaluate.gates):
        for key in ("slices", "by"):
            for j, name in enumerate(getattr(gate, key)):
                yield ("evaluate", "gates", i, key, j), name
    for i, entry in enumerate(config.validate_.expectations):
        yield from _of_expectation(("validate", "expectations", i), entry)


def _of_expectation(path: Path, entry: dict[str, dict[str, Any]]) -> Iterator[tuple[Path, str]]:
    ((name, arguments),) = entry.items()
    # These ask whether columns are there.
    if name == "expect_column_to_exist" or name.startswith("expect_table_column"):
        return
    for key in _ARGUMENTS:
        value = arguments.get(key)
        if isinstance(value, str):
            yield (*path, name, key), value
        elif isinstance(value, list):
            yield from (((*path, name, key, j), item) for j, item in enumerate(value) if isinstance(item, str))
