"""Checks Great Expectations' names in a pipeline file, and the arguments that are given with them."""

from __future__ import annotations

import re
import warnings
from typing import Any

from airflow_mlops.config.catalogue import Expectation, accepts, short, shown, words
from airflow_mlops.config.findings import Findings, Path, is_number
from airflow_mlops.config.sql_expectations import ONLY_IN_SQL, why_not

_ANY_EXPECTATION = frozenset({"description", "meta", "notes", "severity"})


def check_expectations(found: Findings, validate: dict[Any, Any]) -> None:
    """Note unknown expectations and arguments of ``validate.expectations``, and values they cannot take."""
    known, entries = found.known["expectations"], validate.get("expectations")
    in_sql = validate.get("engine") == "sql"
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict) or len(entry) != 1:
            continue
        ((name, arguments),) = entry.items()
        path = ("validate", "expectations", i, name)
        if not isinstance(name, str):
            continue
        if in_sql and (why := why_not(name, arguments if isinstance(arguments, dict) else {})):
            found.add(path, "engine", f"`{name}` with `engine: sql`: {why[0]}", why[1], "great-expectations", key=True)
        elif not in_sql and name in ONLY_IN_SQL:
            message = f"pandas cannot compute `{name}`"
            found.add(path, "engine", message, "take it away, or set `engine: sql`", "great-expectations", key=True)
        if name in known:
            if isinstance(arguments, dict):
                _arguments(found, path, known[name], arguments)
            continue
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        close = snake if snake in known else found.nearest(snake, list(known))
        if not close and not name.startswith("expect_"):
            continue  # the form of the entry is wrong, and not its name
        advice = f"did you mean `{close}`?" if close else "see greatexpectations.io/expectations for the names"
        message = f"Great Expectations has no `{short(name)}`"
        found.add(path, "expectation", message, advice, "great-expectations", key=True)


def _arguments(found: Findings, path: Path, entry: Expectation, given: dict[Any, Any]) -> None:
    known, owner, meant = entry["arguments"], path[-1], set[str | None]()
    for name, value in given.items():
        if name not in known:
            names = [n for n in known if n not in _ANY_EXPECTATION]
            meant.add(found.unknown((*path, name), owner, "argument", names, "great-expectations"))
        elif not accepts(known[name], value):
            found.value((*path, name), owner, known[name], value, "argument", "great-expectations")
        elif name == "regex":
            _regex(found, (*path, name), value)
        elif name == "regex_list" and isinstance(value, list):
            for i, pattern in enumerate(value):
                _regex(found, (*path, name, i), pattern)
    for name in entry["required"]:
        if name not in given and name not in meant:
            message, advice = f"`{owner}` needs `{name}`", f"add `{name}`: {words(known[name])}"
            found.add(path, "argument", message, advice, "great-expectations", key=True)
    low, high = given.get("min_value"), given.get("max_value")
    if low is None and high is None:
        if "one_of" in entry and not meant & {"min_value", "max_value"}:
            message = f"`{owner}` needs `min_value`, `max_value` or both"
            found.add(path, "argument", message, "add one of them", "great-expectations", key=True)
    elif is_number(low) and is_number(high) and low > high and {"min_value", "max_value"} <= known.keys():
        message = f"`min_value` is {shown(low)} and larger than `max_value`, {shown(high)}: no value fits"
        found.add((*path, "min_value"), "argument", message, "exchange the two")


def _regex(found: Findings, path: Path, pattern: Any) -> None:
    if not isinstance(pattern, str) or not found.may_compile(pattern):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as e:
        message = f"`{path[-1] if isinstance(path[-1], str) else path[-2]}` is not a valid regular expression: {e}"
        found.add(path, "regex", message, "mend it; in single quotes YAML leaves backslashes alone")
