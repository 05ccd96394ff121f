"""What the models say about the keys of a pipeline file."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import BaseModel

from airflow_mlops.config.models import PipelineConfig


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field's annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from models_in(inner)


@cache
def fields_of(model: type[BaseModel] | None) -> dict[str, tuple[str, type[BaseModel] | None]]:
    """Key in the file → description and the model of its value."""
    if model is None:
        return {}
    return {
        info.alias or name: (info.description or "", next(models_in(info.annotation), None))
        for name, info in model.model_fields.items()
    }


def model_at(path: tuple[Any, ...], root: type[BaseModel] = PipelineConfig) -> type[BaseModel] | None:
    """The model of the section at ``path`` (keys, names and list positions) in a file of ``root``, if it has one."""
    model: type[BaseModel] | None = root
    named = False
    for step in path:
        if isinstance(step, int) or named:
            named = False
            continue
        named = step in _named(model)
        model = fields_of(model).get(step, ("", None))[1]
    return None if named else model


@cache
def _named(model: type[BaseModel] | None) -> frozenset[str]:
    """The keys of ``model`` that hold a section for each of several names."""
    fields = model.model_fields.items() if model is not None else ()
    return frozenset(info.alias or name for name, info in fields if typing.get_origin(info.annotation) is dict)


def description_of(path: tuple[Any, ...], root: type[BaseModel] = PipelineConfig) -> str:
    """What the key at ``path`` means, without the full stop; empty for an unknown key."""
    return fields_of(model_at(path[:-1], root)).get(path[-1], ("", None))[0].rstrip(".")


@cache
def all_keys(root: type[BaseModel] = PipelineConfig) -> tuple[str, ...]:
    """Every key of the vocabulary, dotted; those of ``resources`` once."""

    def walk(model: type[BaseModel], before: str) -> Iterator[str]:
        for key, (_, inner) in fields_of(model).items():
            yield before + key
            if inner is not None and key != "resources":
                yield from walk(inner, f"{before}{key}.")

    return tuple(walk(root, ""))
