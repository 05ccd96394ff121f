"""A version's way to champion in steps: how the steps are written, and where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHADOW, FULL = "shadow", "full"

Step = str | dict[str, float]
"""``shadow``, ``{"canary": share}`` or ``full``, as in ``deploy.rollout``."""


@dataclass(frozen=True)
class Rollout:
    """A rollout that is under way.

    :param id: ``seq`` of the entry that began it.
    :param version: what is rolled out, the challenger; ``champion``: what it is judged against.
    :param steps: all of them, the last one ``full``.
    :param step: place of the present one in ``steps``.
    :param looks: how many windows have been looked at in this step.
    :param spent: share (0…1) of the error probability that these looks have spent.
    :param by: who agreed to the version, if a person did.
    """

    id: int
    version: int
    champion: int
    steps: tuple[Step, ...]
    step: int = 0
    looks: int = 0
    spent: float = 0.0
    by: str | None = None

    @property
    def present(self) -> Step:
        """The step it is in."""
        return self.steps[self.step]

    @property
    def share(self) -> float:
        """The part of the ids (0 to 1) that the version serves in this step."""
        return share_of(self.present)

    @property
    def name(self) -> str:
        """The step in words: ``shadow``, ``canary 10 %``."""
        return step_name(self.present)

    @property
    def judged(self) -> int:
        """How many steps wait for a verdict: all but the last."""
        return len(self.steps) - 1

    @property
    def next(self) -> Step:
        """The step that follows."""
        return self.steps[self.step + 1]


def share_of(step: Step) -> float:
    """The part of the ids (0 to 1) that the version serves in a step."""
    if isinstance(step, dict):
        return float(step["canary"])
    return 1.0 if step == FULL else 0.0


def step_name(step: Step) -> str:
    """A step in words."""
    return f"canary {100 * share_of(step):.4g} %" if isinstance(step, dict) else step


def path(steps: Sequence[Step]) -> str:
    """All steps in words: ``shadow → canary 10 % → full``."""
    return " → ".join(map(step_name, steps))


def begun(seq: int, payload: dict[str, Any]) -> dict[str, Any]:
    """What the state keeps of a rollout, as plain JSON, from the entry that begins it."""
    return {
        "id": seq,
        "version": payload["version"],
        "champion": payload["expected"],
        "steps": payload["steps"],
        "step": 0,
        "looks": 0,
        "spent": 0.0,
        "by": payload["by"],
    }


def moved(kept: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any] | None:
    """What the state keeps after an entry of kind ``wait``, ``next`` or ``end`` (``None``: it has ended)."""
    if payload["kind"] == "end":
        return None
    if payload["kind"] == "next":
        return kept | {"step": payload["step"] + 1, "looks": 0, "spent": 0.0}
    return kept | {"looks": payload["look"], "spent": payload["spent"]}


def rollout_of(kept: dict[str, Any]) -> Rollout:
    """The rollout that the state keeps."""
    return Rollout(**kept | {"steps": tuple(kept["steps"])})
