"""One commit of a log, and the id of the operation that made it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from airflow_mlops.store.content import canonical_json


def op_id(*parts: Any) -> str:
    """Name an operation: sha256 of its parts (plain JSON values).

    The parts say what is done and with what input: DAG, run, task, map index, action, input fingerprint.
    Never the try number, else a retry is a second operation.
    """
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def checksum(body: dict[str, Any]) -> str:
    """Return the sha256 of ``body`` as canonical JSON."""
    return hashlib.sha256(canonical_json(body)).hexdigest()


def sealed(body: dict[str, Any]) -> bytes:
    """Return ``body`` as canonical JSON with its own checksum under ``check``."""
    return canonical_json(body | {"check": checksum(body)})


def unsealed(raw: bytes) -> dict[str, Any]:
    """Return what :func:`sealed` was given; its format is 1.

    :raises ValueError: when it is damaged, or of another format.
    """
    body = json.loads(raw)
    if not isinstance(body, dict) or body.pop("check", None) != checksum(body):
        raise ValueError("it does not match its checksum")
    if body.get("format") != 1:
        raise ValueError(f"its format is {body.get('format')!r}, not 1")
    return body


@dataclass(frozen=True)
class Entry:
    """One commit. ``at`` is UTC in ISO 8601; ``key`` names the model within a fleet, else None."""

    seq: int
    prev: str
    type: str
    op_id: str
    at: str
    key: str | None
    payload: dict[str, Any]
    checksum: str = ""

    def seal(self) -> Entry:
        """Return the entry with its checksum, which covers every other field and so the whole chain."""
        body = {k: v for k, v in vars(self).items() if k != "checksum"}
        return Entry(**body, checksum=checksum(body))

    @classmethod
    def parse(cls, seq: int, body: Any) -> Entry:
        """Return the entry ``seq`` whose JSON is ``body``, verified.

        :raises ValueError: saying what is wrong with it.
        """
        try:
            entry = cls(**body)
            sound = entry.seal() == entry and entry.seq == seq and isinstance(entry.payload, dict)
        except (ValueError, TypeError) as e:
            raise ValueError("is not a log entry") from e
        if not sound:
            raise ValueError("does not match its checksum")
        return entry
