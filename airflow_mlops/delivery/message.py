"""What is written into the commit of a deployment: a line for people, and trailers, as git calls them, for reading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_mlops.config.harmless import harmless

_TRAILERS = {
    "Action": "action",
    "Project": "project",
    "Environment": "environment",
    "Bundle-Digest": "digest",
    "Bundle-Content": "content",
    "Signed-By": "signed_by",
    "Source-Commit": "source",
    "Source-Ref": "ref",
    "Restores": "restores",
    "By": "by",
    "Reason": "reason",
    "Break-Glass": "break_glass",
    "Operation": "operation",
}
_MUST = ("action", "project", "environment", "digest", "content", "source", "by", "operation")
_LONGEST = 500
_FORMS = {
    "action": "deploy|rollback",
    "digest": "[0-9a-f]{64}",
    "content": "[0-9a-f]{64}",
    "source": "[0-9a-f]{40,64}",
    "restores": "[0-9a-f]{40,64}",
    "break_glass": "yes",
}


def write_message(fields: Mapping[str, Any]) -> str:
    """Return the message; texts of people become one line of at most 500 characters, with nothing unprintable in it."""
    said = {name: _line("yes" if value is True else str(value)) for name, value in fields.items() if value}
    what = "Deploy" if said["action"] == "deploy" else "Roll back to"
    first = f"{what} {said['project']} {said['digest'][:12]} in {said['environment']}"
    return "\n".join([first, "", *(f"{key}: {said[name]}" for key, name in _TRAILERS.items() if said.get(name))])


def parse_message(message: str) -> dict[str, Any] | None:
    """Return the fields of a message that :func:`write_message` wrote; ``None``: it wrote no such message."""
    found: dict[str, Any] = dict.fromkeys(_TRAILERS.values())
    for line in message.split("\n")[2:]:
        key, _, value = line.partition(": ")
        if key not in _TRAILERS:
            return None
        found[_TRAILERS[key]] = value
    wrong = [name for name, form in _FORMS.items() if found[name] and not re.fullmatch(form, found[name])]
    if wrong or not all(found[name] for name in _MUST) or write_message(found) != message:
        return None
    if (found["action"] == "rollback") != bool(found["restores"]):
        return None
    return found | {"reason": found["reason"] or "", "break_glass": bool(found["break_glass"])}


def _line(text: str) -> str:
    return " ".join(harmless(text).split())[:_LONGEST].strip()
