"""What is wrong with the ``pod_override`` of an ``executor_config``, by Kubernetes' own models of a pod.

The models are those of the package kubernetes. It is imported only where a file has a ``pod_override``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from airflow_mlops.config.yaml_source import Source

Path = tuple[Any, ...]
Problem = tuple[Path, str, str | None]
"""Where, what, and what to do about it."""

OVERRIDE = ("executor_config", "pod_override")
_MANY = re.compile(r"(list|dict)[\[(](?:str, ?)?(.+)[\])]")
_PLAIN: dict[str, tuple[str, tuple[type, ...]]] = {
    "str": ("text", (str,)),
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
}
_MAY_BE_UNSET = "must not be `None`"


def check(source: Source) -> None:
    """Note what is wrong with every ``pod_override`` in the file; a warning where Kubernetes' models are not here."""
    for path, pod in overrides(source.data):
        try:
            found = list(problems(pod))
        except ImportError:
            message = "`pod_override` is not checked: the package kubernetes is not installed here"
            advice = "pip install 'airflow-mlops[kubernetes]'"
            where = ".".join(map(str, path))
            source.add(source.place(path, key=True), "pod", message, advice, where, severity="warning")
            continue
        for inner, message, to_do in found:
            at = (*path, *inner)
            source.add(source.place(at, key=isinstance(at[-1], str)), "pod", message, to_do, ".".join(map(str, at)))


def overrides(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Path and value of every ``pod_override`` in the ``resources`` of a pipeline's sections."""
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        if key == "resources":
            inner = value
            for step in OVERRIDE:
                inner = inner.get(step) if isinstance(inner, dict) else None
            if inner is not None:
                yield (*path, key, *OVERRIDE), inner
        else:
            yield from overrides(value, (*path, key))


def problems(pod: Any) -> Iterator[Problem]:
    """Unknown and missing keys, and values of another type; keys are those of Kubernetes' YAML.

    :raises ImportError: the package kubernetes is not installed.
    """
    return _of_type(pod, "V1Pod", ())


def _of_type(value: Any, kind: str, path: Path) -> Iterator[Problem]:
    if value is None or kind in ("object", "datetime"):
        return
    many = _MANY.fullmatch(kind)
    if many is None and kind not in _PLAIN:
        yield from _of_model(value, kind, path)
    elif many is None:
        words, types = _PLAIN[kind]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            yield path, f"{_name(path)} must be {words}", None
    elif many[1] == "list":
        if not isinstance(value, list):
            yield path, f"{_name(path)} must be a list", "begin each item with a dash: - key: value"
            return
        for i, item in enumerate(value):
            yield from _of_type(item, many[2], (*path, i))
    elif not isinstance(value, dict):
        yield path, f"{_name(path)} must be a mapping", None
    else:
        for key, item in value.items():
            # Quantities, such as cpu: 2, become text.
            if many[2] != "str" or isinstance(item, bool) or not isinstance(item, (str, int, float)):
                yield from _of_type(item, many[2], (*path, key))


def _of_model(value: Any, kind: str, path: Path) -> Iterator[Problem]:
    from kubernetes.client import models

    model = getattr(models, kind)
    if not isinstance(value, dict):
        yield path, f"{_name(path)} must be a mapping", None
        return
    attributes = {key: name for name, key in model.attribute_map.items()}
    for key, inner in value.items():
        if key in attributes:
            yield from _of_type(inner, model.openapi_types[attributes[key]], (*path, key))
            continue
        near = model.attribute_map.get(key) or next(iter(difflib.get_close_matches(str(key), attributes, 1)), None)
        owner = kind.removeprefix("V1")
        yield (*path, key), f"{owner} has no field `{key}`", f"did you mean `{near}`?" if near else None
    yield from ((path, f"`{key}` is missing in {_name(path)}", f"add `{key}:`") for key in _required(model) - {*value})


def _required(model: Any) -> set[str]:
    """Keys without which Kubernetes' own class refuses to be made."""
    found = set()
    for name, key in model.attribute_map.items():
        setter = getattr(model, name).fset
        if any(isinstance(text, str) and _MAY_BE_UNSET in text for text in setter.__code__.co_consts):
            found.add(key)
    return found


def _name(path: Path) -> str:
    if not path:
        return "`pod_override`"
    return f"item {path[-1] + 1} of `{path[-2]}`" if isinstance(path[-1], int) else f"`{path[-1]}`"
