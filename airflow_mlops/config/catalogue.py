"""Names that a pipeline file may use, and what goes with them, without importing what they are names of.

``catalogue.json`` is written by :mod:`airflow_mlops.ml.make_catalogue` from scikit-learn, Great
Expectations and this package's own metrics. The *kinds* of a value are alternatives:

* ``any``, ``none``, ``bool``, ``str``, ``list``, ``dict``; ``{"options": [...]}``, ``{"items": kinds}`` for a list;
* ``{"int": [low, high, closed]}``, ``float`` for no whole numbers, ``number`` for both; an end that is null is open,
  and ``closed`` is left, right, both or neither;
* where the library converts: ``flag`` (to true or false), ``count`` (to a whole number), ``real`` (to a number;
  with an interval too), ``scalar`` (to text), ``time``; ``suite_parameter`` is any mapping and not advertised.

No kinds at all: nothing that YAML can write.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

Kinds = Sequence[Any]
Library = Literal["great-expectations", "scikit-learn"]


class Estimator(TypedDict):
    """A class of scikit-learn; ``probabilities``, of classifiers, is whether it can have ``predict_proba``."""

    kind: Literal["classifier", "regressor", "other"]
    parameters: dict[str, Kinds]
    required: list[str]
    probabilities: bool


class Metric(TypedDict):
    """A metric by one of its names; ``best`` is the best value that is printed, ``None`` where there is no such end."""

    best: int | None
    lower_is_better: bool
    probabilities: bool
    tasks: list[Literal["binary", "multiclass", "regression"]]


class Expectation(TypedDict, total=False):
    """An expectation; of ``one_of``, where it is there, at least one must have a value."""

    arguments: dict[str, Kinds]
    columns: list[str]
    required: list[str]
    one_of: list[str]


class Catalogue(TypedDict):
    """All names; ``aliases`` has other public paths of estimators, ``versions`` the libraries' full versions."""

    aliases: dict[str, str]
    estimators: dict[str, Estimator]
    expectations: dict[str, Expectation]
    metrics: dict[str, Metric]
    versions: dict[Library, str]


@cache
def catalogue() -> Catalogue:
    """The catalogue; read once a process. Nobody changes it."""
    return cast(Catalogue, json.loads(Path(__file__).with_name("catalogue.json").read_bytes()))


def estimator(path: str) -> Estimator | None:
    """The estimator at a dotted path, or ``None``."""
    known = catalogue()
    return known["estimators"].get(known["aliases"].get(path, path))


def estimator_paths() -> dict[str, str]:
    """Name of each estimator's class → its dotted path."""
    return {path.rpartition(".")[2]: path for path in catalogue()["estimators"]}


# --- kinds of values -----------------------------------------------------------------------------


def accepts(kinds: Kinds, value: Any) -> bool:
    """Whether one of ``kinds`` takes ``value``, which is plain YAML data."""
    for kind in kinds:
        if isinstance(kind, str):
            if _PLAIN[kind](value):
                return True
            continue
        ((name, detail),) = kind.items()
        if name == "options":
            # True is no 1 here.
            found = any(value.__class__ is option.__class__ and value == option for option in detail)
        elif name == "items":
            found = isinstance(value, list) and all(accepts(detail, item) for item in value)
        else:
            number = _real(value) if name == "real" else value
            found = isinstance(number, _NUMBERS[name]) and _within(number, *detail)
        if found:
            return True
    return False


def _within(number: float, low: float | None, high: float | None, closed: str) -> bool:
    if low is not None and (number < low or (number == low and closed not in ("left", "both"))):
        return False
    return high is None or number < high or (number == high and closed in ("right", "both"))


def _real(value: Any) -> float | None:
    if isinstance(value, (int, float)):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is_flag(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes")
    return isinstance(value, (bool, int, float)) and value in (0, 1)


def _is_time(value: Any) -> bool:
    if not isinstance(value, str):
        return isinstance(value, (int, float))
    if _real(value) is not None or value[:4].isdigit():
        return True  # Great Expectations reads more forms of a date than Python
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


_NUMBERS: dict[str, Any] = {"int": int, "float": float, "number": (int, float), "real": (int, float)}
_PLAIN: dict[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "none": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "list": lambda value: isinstance(value, list),
    "dict": lambda value: isinstance(value, dict),
    "flag": _is_flag,
    "count": lambda value: _real(value) is not None,
    "real": lambda value: _real(value) is not None,
    "scalar": lambda value: isinstance(value, (str, int, float)),
    "time": _is_time,
    "suite_parameter": lambda value: isinstance(value, dict),
}


# --- in words ------------------------------------------------------------------------------------

_WORDS = {
    "bool": "true or false", "flag": "true or false", "str": "text", "scalar": "text", "count": "a whole number",
    "real": "a number", "time": "a date or time", "list": "a list", "dict": "a mapping", "none": "null",
}  # fmt: skip
_SHOWN = 12


def words(kinds: Kinds) -> str:
    """What ``kinds`` take, as a sentence goes on after "must be"; empty for none at all."""
    named = [repr(o) if isinstance(o, str) else str(o).lower() for o in options(kinds)]
    more = len(named) - _SHOWN
    found = named if more <= 0 else [*named[:_SHOWN], f"one of {more} more"]
    for kind in kinds:
        word = _WORDS.get(kind) if isinstance(kind, str) else _phrase(kind)
        if word and word not in found:
            found.append(word)
    # null is last: it is rarely what is meant.
    found.sort(key=lambda word: word == "null")
    return " or ".join([", ".join(found[:-1]), found[-1]] if len(found) > 2 else found)


def _phrase(kind: Mapping[str, Any]) -> str:
    ((name, detail),) = kind.items()
    if name == "options":
        return ""
    if name == "items":
        return f"a list of {words(detail)}"
    noun = {"int": "a whole number", "float": "a number with a decimal point"}.get(name, "a number")
    low, high, closed = detail
    limits = []
    if low is not None:
        limits.append(f"{'of at least' if closed in ('left', 'both') else 'above'} {low:.10g}")
    if high is not None:
        limits.append(f"{'at most' if closed in ('right', 'both') else 'below'} {high:.10g}")
    return f"{noun} {' and '.join(limits)}".strip()


def options(kinds: Kinds) -> list[Any]:
    """The words and values that ``kinds`` name one by one; without those for the library's own use."""
    named = [o for kind in kinds if isinstance(kind, dict) for o in kind.get("options", ())]
    return [o for o in named if o not in ("deprecated", "warn")]


def advice_for(kinds: Kinds, value: Any) -> str | None:
    """How to write what is probably meant."""
    if isinstance(value, str):
        if value in ("None", "none") and "none" in kinds:
            return "write null, without quotes"
        if value.lower() in ("yes", "on", "no", "off") and "bool" in kinds:
            return f"write {'true' if value.lower() in ('yes', 'on') else 'false'}"
        if len(value) <= 30 and re.fullmatch(r"[-+]?\d+(\.\d+)?", value):
            return "remove the quotes" if accepts(kinds, float(value) if "." in value else int(value)) else None
        close = nearest(value, [o for o in options(kinds) if isinstance(o, str)])
        return f"did you mean `{close}`?" if close else None
    if isinstance(value, float) and value.is_integer() and accepts(kinds, int(value)):
        return f"write {int(value)}"
    if isinstance(value, (int, float)) and 1 < value <= 100 and accepts(kinds, value / 100):
        return f"write {value / 100:g}, if {value:g} % is meant"
    return None


def shown(value: Any) -> str:
    """A value in a sentence; never long."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {short(value)!r}"
    if isinstance(value, (int, float)):
        return repr(value) if abs(value) < 10**60 else "so large a number"
    return "a list" if isinstance(value, list) else "a mapping"


def short(value: Any) -> str:
    """A name, at most 60 characters of it."""
    text = shown(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else text[:57] + "…"


def nearest(word: str, choices: Sequence[str]) -> str | None:
    """The one of ``choices`` that ``word`` may be a misspelling of."""
    return _nearest(word, tuple(choices)) if len(word) <= 60 else None


@lru_cache(2_000)
def _nearest(word: str, choices: tuple[str, ...]) -> str | None:
    found = difflib.get_close_matches(word, choices, 5)
    # The same words in another order are nearer than the opposite: to_be_not_null and to_not_be_null.
    found.sort(key=lambda name: sorted(name.split("_")) != sorted(word.split("_")))
    return found[0] if found else None
