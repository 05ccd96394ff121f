"""One registered model, as callers see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Notes = dict[str, list[dict[str, Any]]]


class Version:
    """One registered model.

    ``tags``, ``metrics`` (the first few, by name) and ``model`` (the digest, or None) are what listings
    show; times are UTC in ISO 8601; ``status`` is ``candidate``, ``challenger``, ``champion`` or
    ``retired``. A former champion is a candidate with ``promoted_at`` set, until it is retired.

    :param record: what was registered (model, snapshot, lineage, metrics), or how to read it.
    :param notes: what was said about it later, by kind and oldest first, or how to read it.
    """

    def __init__(
        self,
        pipeline: str,
        number: int,
        key: str | None,
        record: dict[str, Any] | Callable[[], dict[str, Any]],
        notes: Notes | Callable[[], Notes] | None = None,
        registered_at: str = "",
        promoted_at: str | None = None,
        status: str = "candidate",
        tags: dict[str, Any] | None = None,
        metrics: dict[str, float] | None = None,
        model: str | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.number = number
        self.key = key
        self.registered_at = registered_at
        self.promoted_at = promoted_at
        self.status = status
        self.tags = tags or {}
        self.metrics = metrics or {}
        self.model = model
        self._record = record
        self._notes = notes

    @cached_property
    def record(self) -> dict[str, Any]:
        """What was registered; read from the store on first access, and verified.

        :raises CorruptObject, StoreUnavailable: as the store does.
        """
        return self._record() if callable(self._record) else self._record

    @cached_property
    def notes(self) -> Notes:
        """What was said about it later, by kind and oldest first; read on first access, and verified."""
        return (self._notes() if callable(self._notes) else self._notes) or {}

    @property
    def name(self) -> str:
        """``churn v7``, or ``churn[LGA] v7`` within a fleet."""
        return f"{model_name(self.pipeline, self.key)} v{self.number}"

    def __repr__(self) -> str:
        return f"<Version {self.name}, {self.status}>"

    def __eq__(self, other: object) -> bool:
        """Equal in everything, record and notes too."""
        if not isinstance(other, Version):
            return NotImplemented
        return self._said() == other._said() and (self.record, self.notes) == (other.record, other.notes)

    def __hash__(self) -> int:
        return hash((self.pipeline, self.key, self.number))

    def _said(self) -> tuple[Any, ...]:
        return (
            self.pipeline, self.number, self.key, self.registered_at, self.promoted_at, self.status,
            self.tags, self.metrics, self.model,
        )  # fmt: skip


@dataclass(frozen=True)
class Share:
    """The part of the ids (0 to 1) that ``version`` serves."""

    version: Version
    share: float


def model_name(pipeline: str, key: str | None) -> str:
    """``churn``, or ``churn[LGA]`` within a fleet."""
    return pipeline if key is None else f"{pipeline}[{key}]"
