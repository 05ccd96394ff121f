"""The values that a pipeline file is made of: durations, templates, paths of code, days, schedules."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictFloat, StrictInt, StrictStr

from airflow_mlops.config.maturity import TERMS, VOCABULARIES, level_number
from airflow_mlops.window import parse_duration

Number = StrictInt | StrictFloat
Fraction = Annotated[StrictFloat, Field(gt=0, lt=1)]


def refuse(problems: dict[str, bool]) -> None:
    """Raise one ValueError with a line for every message that holds; the loader makes an issue of each.

    Keys in a message stand in backticks: the loader points at the first of them that the file has.
    """
    found = [message for message, holds in problems.items() if holds]
    if found:
        raise ValueError("\n".join(found))


def _duration(value: str) -> str:
    try:
        parse_duration(value)
    except OverflowError as e:
        raise ValueError(f"{value[:40]!r} is too long for a duration") from e
    return value


def _positive_duration(value: str) -> str:
    if parse_duration(_duration(value)) <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def _block(value: str) -> str:
    return value if value == "none" else _positive_duration(value)


MOST_CHECKS = 100
_MARKS = ("{{", "{%", "{#")
# The usual expressions need no parser.
_PLAIN_WINDOW = re.compile(r"\{\{ ?window\.(?:start|end) ?\}\}")


def _template(value: str) -> str:
    """Refuse any template expression but those on ``window``: a pipeline file is not code."""
    plain = value if "{{{" in value else _PLAIN_WINDOW.sub("", value)
    if any(mark in plain for mark in _MARKS):
        _template_on("window", "{{ window.start }} and {{ window.end }}", value)
    return value


def _template_on(name: str, usual: str, value: str) -> None:
    from jinja2 import Environment, TemplateSyntaxError, nodes
    from jinja2.parser import Parser

    # The syntax tree is only looked at: compiling, even for jinja2.meta, would compute {{ 9 ** 9 ** 9 }},
    # and Environment.parse() runs code to decorate its errors.
    try:
        found = list(Parser(Environment(autoescape=True), value).parse().find_all(nodes.Node))
    except TemplateSyntaxError as e:
        raise ValueError(f"not a valid template: {e.message}") from e
    except RecursionError as e:
        raise ValueError("the template is nested too deeply") from e
    allowed = (nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Call, nodes.Const, nodes.Keyword)
    names = sorted({n.name for n in found if isinstance(n, nodes.Name)} - {name})
    # A text's own methods, format and ljust among them, are none of the window's.
    private = any(
        isinstance(n, nodes.Getattr) and (n.attr.startswith("_") or isinstance(n.node, nodes.Const)) for n in found
    )
    if names or private or not all(isinstance(n, allowed) for n in found):
        raise ValueError(
            f"only {usual}, with their attributes and methods, can be used here"
            + (f", not {', '.join(names)}" if names else "")
        )


def message_templates(value: Any) -> Any:
    """Refuse templates in a notifier's arguments but those on ``mlops``: Airflow's own could send a password away."""
    if isinstance(value, str) and any(mark in value for mark in _MARKS):
        _template_on("mlops", "{{ mlops.message }}, {{ mlops.event }}, {{ mlops.dag_id }} and their like", value)
    elif isinstance(value, dict):
        for inner in value.values():
            message_templates(inner)
    elif isinstance(value, list):
        for inner in value:
            message_templates(inner)
    return value


def parse_confirm(text: str) -> tuple[int, int]:
    """Parse ``2 of 3`` into ``(2, 3)``: seen in so many of the last checks; raises ValueError."""
    found = re.fullmatch(r"\s*(\d{1,3})\s+of\s+(\d{1,3})\s*", text, re.ASCII)
    if not found:
        raise ValueError("write how many of the last checks, like 2 of 3")
    seen, last = int(found[1]), int(found[2])
    refuse(
        {
            f"0 of {last} would ask without any alarm: write 1 or more": seen == 0,
            f"{seen} of {last} can never be met: there are only {last}": seen > last,
            f"no more than the last {MOST_CHECKS} checks count": last > MOST_CHECKS,
        }
    )
    return seen, last


def _confirm(value: str) -> str:
    parse_confirm(value)
    return value


def _dotted(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        raise ValueError("write a dotted path to a class, like sklearn.linear_model.LogisticRegression")
    return value


def _callable(value: str) -> str:
    if ".py:" in value or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", value):
        if ".py:" in value:
            raise ValueError(f"write the module without .py: {value.replace('.py:', ':').replace('/', '.')[:80]}")
        raise ValueError("write module:function, like my_pkg.data:load")
    return value


BEHAVIOUR_SUFFIXES = (".behaviours.yaml", ".behaviours.yml", ".json", ".csv")


def _behaviours(value: str) -> str:
    if value.startswith(("/", "~")) or "\\" in value or {"", ".", ".."} & {*value.split("/")}:
        raise ValueError("name a file beside the pipeline file or in a folder there, such as late.behaviours.yaml")
    if not value.endswith(BEHAVIOUR_SUFFIXES):
        raise ValueError(
            f"the file's name must end with {', '.join(BEHAVIOUR_SUFFIXES[:-1])} or {BEHAVIOUR_SUFFIXES[-1]}"
        )
    return value


def _day(value: Any) -> Any:
    if isinstance(value, date):
        return value
    # Checked by hand: pydantic would take 20130101 for seconds since 1970.
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        try:
            return date.fromisoformat(value)
        except ValueError as e:
            raise ValueError(f"{value} is not a day of the calendar") from e
    raise ValueError("write a date as YYYY-MM-DD")


def whole(value: Any) -> Any:
    """Refuse what Python takes for the number 1 and YAML does not."""
    if isinstance(value, bool):  # a literal 1 would take True
        raise ValueError("expected a whole number, got true or false")
    if isinstance(value, float):
        raise ValueError(f"expected a whole number, got {value}")
    return value


def _expectation(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if len(value) != 1 or not next(iter(value)).startswith("expect_"):
        raise ValueError("write one `expect_…: {arguments}` per list item")
    return value


def _zone(value: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:  # OSError: the name of a folder, such as Europe
        raise ValueError(f"{value[:80]!r} is not an IANA time zone, such as Europe/Berlin") from e
    return value


@lru_cache(maxsize=1000)
def _cron(value: str) -> str:
    if value in ("@hourly", "@daily", "@weekly", "@monthly", "@yearly"):
        return value
    from croniter import CroniterBadDateError, croniter

    # R and H are croniter's own: another time at every parse.
    if not croniter.is_valid(value) or re.search(r"\b[RH]\b", value, re.IGNORECASE):
        raise ValueError(f"{value!r} is not a cron expression or one of @hourly, @daily, @weekly, @monthly, @yearly")
    try:
        croniter(value, datetime(2024, 1, 1)).get_next()
    except CroniterBadDateError as e:
        raise ValueError(f"{value!r} names a time that never comes") from e
    return value


def _level(value: Any) -> Any:
    """The number of a level that is written in another model's words; numbers are judged as they are."""
    if isinstance(value, dict) or (isinstance(value, str) and value.partition(":")[0] in VOCABULARIES):
        return level_number(value)
    return whole(value)


def _rollout(value: list[Any]) -> list[str | dict[str, float]]:
    """Check the steps of a rollout: ``shadow`` first, canaries with rising shares, ``full`` at the end."""
    steps: list[str | dict[str, float]] = []
    last = -1.0
    for number, step in enumerate(value, 1):
        if step in ("shadow", "full"):
            share = 0.0 if step == "shadow" else 1.0
        elif isinstance(step, dict) and [*step] == ["canary"]:
            given = step["canary"]
            if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < 1:
                raise ValueError(f"step {number}: `canary` is a share of the ids, above 0 and below 1, not {given!r}")
            share, step = float(given), {"canary": float(given)}
        else:
            raise ValueError(f"step {number} is not `shadow`, `{{canary: 0.1}}` or `full`")
        if share <= last:
            raise ValueError(f"step {number}: each step serves more than the one before; shadow is first, full last")
        last = share
        steps.append(step)
    if last != 1.0:
        raise ValueError("the last step must be `full`")
    return steps


def _level_schema(schema: dict[str, Any]) -> None:
    number = {key: schema.pop(key) for key in ("enum", "type") if key in schema}
    words = {name: [t.word for t in TERMS if t.vocabulary == name] for name in VOCABULARIES}
    named = {
        "type": "object",
        "properties": {
            name: {"enum": [int(word) if word.isdigit() else word for word in known], "description": f"{whose}'s words"}
            for (name, whose), known in zip(VOCABULARIES.items(), words.values(), strict=True)
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    texts = [f"{name}:{word}" for name, known in words.items() for word in known]
    schema["anyOf"] = [number, named, {"type": "string", "enum": texts}]


_DURATION_SCHEMA: dict[str, Any] = {"pattern": r"^\s*(\d+(\.\d+)?\s*[smhdw]\s*)+$", "examples": ["90d", "26h"]}
Duration = Annotated[StrictStr, AfterValidator(_duration), Field(max_length=100, json_schema_extra=_DURATION_SCHEMA)]
PositiveDuration = Annotated[
    StrictStr, AfterValidator(_positive_duration), Field(max_length=100, json_schema_extra=_DURATION_SCHEMA)
]
Confirm = Annotated[
    StrictStr,
    AfterValidator(_confirm),
    Field(max_length=20, json_schema_extra={"pattern": r"^\s*\d{1,3}\s+of\s+\d{1,3}\s*$", "examples": ["2 of 3"]}),
]
Block = Annotated[
    StrictStr,
    AfterValidator(_block),
    Field(max_length=100, json_schema_extra={**_DURATION_SCHEMA, "pattern": _DURATION_SCHEMA["pattern"] + "|^none$"}),
]
Template = Annotated[StrictStr, AfterValidator(_template), Field(min_length=1, max_length=20_000)]
DottedPath = Annotated[StrictStr, AfterValidator(_dotted)]
CallablePath = Annotated[StrictStr, AfterValidator(_callable)]
BehavioursFile = Annotated[StrictStr, AfterValidator(_behaviours), Field(max_length=200)]
Day = Annotated[date, BeforeValidator(_day)]
Cron = Annotated[StrictStr, AfterValidator(_cron), Field(max_length=100)]
TimeZone = Annotated[StrictStr, AfterValidator(_zone)]
Column = Annotated[StrictStr, Field(min_length=1)]
Rollout = Annotated[
    list[Any],
    AfterValidator(_rollout),
    Field(
        min_length=1,
        max_length=20,
        json_schema_extra={
            "items": {
                "anyOf": [
                    {"type": "string", "enum": ["shadow", "full"]},
                    {
                        "type": "object",
                        "properties": {"canary": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}},
                        "required": ["canary"],
                        "additionalProperties": False,
                    },
                ]
            },
            "examples": [["shadow", {"canary": 0.1}, "full"]],
        },
    ),
]
Expectation = Annotated[dict[StrictStr, dict[StrictStr, Any]], AfterValidator(_expectation)]
Level = Annotated[Literal[0, 1, 2], BeforeValidator(_level), Field(json_schema_extra=_level_schema)]
