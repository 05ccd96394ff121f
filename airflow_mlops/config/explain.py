"""Turns pydantic's errors into issues with a place in the file and plain words."""

from __future__ import annotations

import copy
import difflib
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from airflow_mlops.config.findings import is_number
from airflow_mlops.config.keys import all_keys, description_of, fields_of, model_at
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.yaml_source import Source

# Keys that exist in the design and are not built; they are not in the models.
PLANNED = frozenset({"endpoint", "edge", "isolation"})
# Read before the rest of the file (layers.py), and so not in the models.
TOP = ("extends", "environments")

# Stand-ins for required values that are missing or wrong, so that the checks across keys run all the same.
_STAND_INS: dict[str, Any] = {
    "pipeline": "x", "data": {"source": "x", "target": "x"}, "train": {"estimator": "a.b"},
    "target": "x", "conn_id": "x", "query": "x", "callable": "a:b", "space": {"x": [1]}, "source": "x",
    "join_on": "x", "class": "a.b", "api": "x", "image": "x", "role": "x",
    "environments": {"x": {"branch": "y", "api": "x"}},
}  # fmt: skip

_WANTED = {
    "string_type": "text", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "list_type": "a list", "dict_type": "a mapping", "model_type": "a mapping", "int_from_float": "a whole number",
}  # fmt: skip
_LIMITS = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}

_DURATIONS = {"window", "fresh_within", "timeout", "delay", "max_age", "cooldown", "block", "budget", "max_runtime"}

Path = tuple[Any, ...]
M = TypeVar("M", bound=BaseModel)


def explain(source: Source, error: ValidationError) -> PipelineConfig | None:
    """As :func:`explain_as`, for a pipeline."""
    return explain_as(PipelineConfig, source, error)


def explain_as(root: type[M], source: Source, error: ValidationError) -> M | None:
    """Note every problem behind ``error``, and those the checks across keys find beside them, in ``source``.

    Pydantic runs a section's own checks only when all of its keys are right. So wrong values are
    taken out of a copy, or replaced by a stand-in, and the copy is validated again; a check that
    names a key that was taken out says nothing about the file and is dropped.

    :param root: what the file should be.
    :returns: it as it would be without what is wrong, if that is one; for further checks only.
    """
    data = copy.deepcopy(source.data)
    failed = _Failed()
    told: set[str] = set()
    current = error
    # A section deeper in the file hides the checks of those around it: at most one round a level.
    for _ in range(10):
        fields: dict[Path, list[ErrorDetails]] = {}
        whole: dict[Path, list[ErrorDetails]] = {}
        for detail in current.errors(include_url=False):
            path, value = _locate(source, detail)
            emptied = detail["type"] == "too_short" and failed.concerns(path)
            if failed.covers(path) or emptied:
                fields.setdefault(path, [])  # said before, or the stand-in's turn
            elif detail["type"] == "value_error" and isinstance(value, dict):
                whole.setdefault(path, []).append(detail)
            else:
                fields.setdefault(path, []).append(detail)
        # A key that is misspelt is not also missing.
        meant = {path: near for path, details in fields.items() if (near := _meant(root, path, details))}
        for path, details in fields.items():
            if details and path not in meant.values():
                _field(root, source, path, details)
        for path, details in whole.items():
            _whole(source, path, details, failed, told)
        if not fields and not any(whole):
            return None  # only checks of the file as a whole are left, and they are told
        for path in [*fields, *meant.values()] or whole:
            if path:
                failed.add(path)
                take_out(data, path)
        try:
            return root.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as e:
            current = e
    return None


def _locate(source: Source, detail: ErrorDetails) -> tuple[Path, Any]:
    """Path in the file, without pydantic's own steps, or of the missing key; and the value there."""
    loc = tuple(detail["loc"])
    path, value = source.resolve(loc)
    if detail["type"] == "missing" and len(path) < len(loc):
        return (*path, loc[len(path)]), None
    return path, value


class _Failed:
    """Paths that were found wrong; both questions cost the depth of a path, however many there are."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()
        self.above: set[Path] = set()

    def add(self, path: Path) -> None:
        self.paths.add(path)
        self.above |= {path[:n] for n in range(len(path))}

    def covers(self, path: Path) -> bool:
        """``path``, or something around it, is wrong."""
        return any(path[:n] in self.paths for n in range(len(path) + 1))

    def concerns(self, path: Path) -> bool:
        """``path``, or something around or inside it, is wrong."""
        return path in self.above or self.covers(path)


def take_out(data: Any, path: Path) -> None:
    """Remove the key at ``path`` or, inside a list, the key that holds the list; a required key gets a stand-in."""
    holder: Any = None
    key: Any = None
    value = data
    for step in path:
        if isinstance(value, dict):
            holder, key = value, step
            if step not in value:
                break
        elif not isinstance(value, list) or not isinstance(step, int) or step >= len(value):
            break
        value = value[step]
    if holder is None:
        return
    if path == ("experiment", "callable"):
        holder[key] = _STAND_INS["callable"]  # without it the file would need a model
    elif key in holder:
        del holder[key]
    elif path == ("level",):
        holder[key] = int(bool({"monitor", "retrain"} & data.keys()))
    elif key in _STAND_INS:
        holder[key] = copy.deepcopy(_STAND_INS[key])


# --- one key -----------------------------------------------------------------------------------


def _field(root: type[BaseModel], source: Source, path: Path, details: list[ErrorDetails]) -> None:
    kind = details[0]["type"]
    where = ".".join(str(step) for step in path)
    if kind == "missing":
        section = _dots(path[:-1])
        about = description_of(path, root)
        message = f"`{path[-1]}` is missing" + (f" in `{section}`" if section else "") + (f": {about}" if about else "")
        source.add(source.place(path[:-1], key=True), kind, message, f"add `{path[-1]}:`", where)
    elif kind == "extra_forbidden":
        message, advice = _unknown_key(root, path)
        source.add(source.place(path, key=True), kind, message, advice, where)
    elif kind == "invalid_key" or details[0]["loc"][-1:] == ("[key]",):
        key = f"`{path[-1]}`" if path else "a key"
        advice = "put quotes around the key"
        if path and source.resolve(path) == (path, None):  # {at_least: 0,6}
            advice = "write a decimal number with a point; a comma ends the value"
        source.add(source.place(path, key=True), "key", f"{key} is not text", advice, where)
    else:
        message, advice = _value(source, path, details)
        source.add(source.place(path), kind, message, advice, where)


def _meant(root: type[BaseModel], path: Path, details: list[ErrorDetails]) -> Path | None:
    """The path of the key that an unknown one is close to."""
    if not details or details[0]["type"] != "extra_forbidden":
        return None
    near = _close(str(path[-1]), list(fields_of(model_at(path[:-1], root))))
    return (*path[:-1], near) if near else None


def _unknown_key(root: type[BaseModel], path: Path) -> tuple[str, str | None]:
    key, section = str(path[-1]), _dots(path[:-1])
    shown = key if len(key) <= 60 else key[:57] + "…"
    if key in PLANNED and root is PipelineConfig:
        return f"`{shown}` is not available in this version", "remove it"
    message = f"unknown key `{shown}`" + (f" in `{section}`" if section else "")
    known = list(fields_of(model_at(path[:-1], root)))
    top = TOP if root is PipelineConfig else ()
    elsewhere = [p for p in all_keys(root) if p.rsplit(".", 1)[-1] == key]
    close = _close(key, known)
    if ":" in key and key.partition(":")[0] in known:
        return message, "put a space after the colon"
    if key in top and len(path) > 1:
        return message, "it belongs to the top of the file"
    if elsewhere and len(key) > 2:
        return message, "it belongs to " + " or ".join(f"`{p}`" for p in elsewhere[:3])
    if not close and len(path) == 1:
        close = _close(key, list(top))
    if close:
        return message, f"did you mean `{close}`?"
    return message, f"known keys are {', '.join(known)}" if known else None


def _value(source: Source, path: Path, details: list[ErrorDetails]) -> tuple[str, str | None]:
    detail, value = details[0], source.resolve(path)[1]
    if is_number(value):  # of `auto` or a number, what the number lacks
        detail = next((d for d in details if d["type"] in _LIMITS), detail)
    kind, context = detail["type"], detail.get("ctx", {})
    name = _dots(path)
    if kind == "value_error":
        return f"`{name}`: {context['error']}", _quote(source, path, value) if "YYYY" in str(context["error"]) else None
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "")
        if isinstance(value, str) and value in re.findall(r"(?<!')\b\d+\b(?!')", context["expected"]):
            return f"`{name}` must be {allowed}, not {_kind(value)}", "remove the quotes"
        close = _close(value, re.split(r", | or ", allowed)) if isinstance(value, str) else None
        return f"`{name}` must be {allowed}, not {_kind(value)}", f"did you mean `{close}`?" if close else None
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        percent = limit in ("lt", "le") and context[limit] == 1 < value <= 100
        return f"`{name}` {words} {context[limit]}, and is {value}", f"write {value / 100:g}" if percent else None
    if kind in ("string_too_short", "too_short"):
        return f"`{name}` must not be empty", None
    if kind == "string_too_long":
        return f"`{name}` is longer than {context['max_length']} characters", None
    if kind == "string_pattern_mismatch":
        return (
            f"`{name}` is not a name: {_kind(value)}",
            "use letters, digits, `_` and `-`, a letter first, 100 at most",
        )
    wanted = list(dict.fromkeys(_WANTED.get(d["type"], "") for d in details))
    if "a number" in wanted and "a whole number" in wanted:
        wanted.remove("a whole number")
    if not all(wanted):
        return f"`{name}`: {detail['msg']}", None
    message = f"`{name}` must be {' or '.join(wanted)}, not {_kind(value)}"
    if value is None:
        advice = "indent its keys below it" if wanted == ["a mapping"] else "give it a value"
        return f"`{name}` is empty; it must be {' or '.join(wanted)}", f"{advice}, or remove the key"
    if isinstance(value, list) and wanted == ["a mapping"]:
        return message, "write its keys without dashes and brackets before them"
    if isinstance(value, dict) and wanted == ["a list"]:
        return message, "begin each item with a dash: - key: value"
    if name.rsplit(".", 1)[-1] in _DURATIONS and isinstance(value, (int, float)):
        return message, f"write it with its unit: {value}d, {value}h or {value}m"
    if "a list" in wanted and isinstance(value, (int, float)):
        return message, f"write [{source.written(path)}]"
    if "text" in wanted and isinstance(value, (int, float)):
        return message, _quote(source, path, value)
    if isinstance(value, str):
        if "true or false" in wanted and value.lower() in ("yes", "no", "on", "off", "y", "n"):
            word = "true" if value.lower() in ("yes", "on", "y") else "false"
            return message, f"write {word}; in YAML 1.2 only true and false are booleans"
        if wanted[0] in ("a number", "a whole number") and re.fullmatch(r"[-+]?\d+(\.\d+)?", value):
            return message, "remove the quotes"
        if wanted[0] == "a number" and re.fullmatch(r"\d+(\.\d+)?\s*%", value):
            return message, f"write {float(value.rstrip(' %')) / 100:g}"
        if "a list" in wanted:
            return message, f"write [{value}]" if len(value) <= 40 else "write a list: [item, item]"
    return message, None


def _quote(source: Source, path: Path, value: Any) -> str | None:
    return f'quote it: "{source.written(path)}"' if isinstance(value, (int, float)) else None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57] + '…'!r}"
    if value is None:
        return "empty"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


# --- several keys ------------------------------------------------------------------------------


def _whole(source: Source, path: Path, details: list[ErrorDetails], failed: _Failed, told: set[str]) -> None:
    for line in {line: None for d in details for line in str(d["ctx"]["error"]).split("\n")}:
        names = re.findall(r"`([a-z_]+(?:\.(?:[a-z_]+|\d+))*)", line)
        named = [path + tuple(int(step) if step.isdigit() else step for step in name.split(".")) for name in names]
        if any(failed.concerns(n) for n in named):
            continue
        present = [n for n in named if source.resolve(n)[0] == n]
        at = present[0] if present else path
        message = f"{_dots(path)}: {line}" if path else line
        if message in told:
            continue
        told.add(message)
        source.add(source.place(at, key=True), "cross", message, None, ".".join(str(step) for step in at))


# --- words ---------------------------------------------------------------------------------------


def _dots(path: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")[:120]


def _close(word: str, choices: list[str]) -> str | None:
    found = difflib.get_close_matches(word, choices, 1) if len(word) <= 60 else []
    return found[0] if found else None
