"""What asked for an experiment, in words: monitoring's event, or one that somebody else has sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

_UNSAID = ("window_start", "window_end", "start", "promote", "replay", "reasons", "details")
"""Of monitoring's event: what the run itself tells, and what is told in other words."""
_ORDER = ("sentence", "alarms", "versions", "windows", "request")


def told_of(asked: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the evidence of a request as (what, lines), for the log and the report.

    :param asked: extra of the asset event. Monitoring sends it as
        :class:`~airflow_mlops.operators.retrain.RequestExperimentOperator` says; what another sender adds, in
        whichever shape, is told under its own name.
    """
    details = asked.get("details")
    alarms = details if isinstance(details, Mapping) else {}
    told = {"alarms": [f"{name}: {said}" for name, said in alarms.items()]}
    told |= {name: [*_lines(value)] for name, value in asked.items() if name not in _UNSAID}
    return [(name, told[name]) for name in sorted(told, key=_place) if told[name]]


def _place(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _lines(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        match one:
            case {"version": number, "verdict": verdict, "sentence": sentence}:
                yield f"v{number} {verdict}: {sentence}"
            case {"window": window, "sentence": sentence}:
                yield f"{window}: {sentence}"
            case str():
                yield one
            case _:
                yield json.dumps(one, ensure_ascii=False, default=str)
