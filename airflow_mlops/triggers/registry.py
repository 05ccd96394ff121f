"""Fire on what the registry and the monitoring checks say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_mlops.triggers.base import PollingTrigger
from airflow_mlops.window import Window


def look_for_champion(pipeline: str, mlops_conn_id: str | None) -> dict[str, Any] | None:
    """Return ``{"pipeline", "version": number, "promoted_at": ISO 8601 or None}`` of the champion, if there is one.

    :raises StoreUnavailable: the store cannot be reached.
    """
    from airflow_mlops.hooks.mlops import MLOpsHook

    champion = MLOpsHook(mlops_conn_id).registry(pipeline).champion()
    if champion is None:
        return None
    promoted = champion.promoted_at
    return {
        "pipeline": pipeline,
        "version": champion.number,
        "promoted_at": str(promoted) if promoted is not None else None,
    }


def look_for_check(
    pipeline: str, window: dict[str, str] | None, check: str, mlops_conn_id: str | None
) -> dict[str, Any] | None:
    """Return the result of one check: ``{"pipeline", "check", "window", "verdict", "sentence", "version"}``.

    ``version`` (``<window key>:<verdict>``) names the result.

    :param window: ``{"start", "end"}`` in ISO 8601; ``None``: the newest window that has a result.
    :raises StoreUnavailable: the store cannot be reached.
    """
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.checks import read_check

    wanted = Window.from_dict(window) if window else None
    entry = read_check(MLOpsHook(mlops_conn_id).store(), pipeline, check, wanted)
    if entry is None:
        return None
    result = entry[check]
    return {
        "pipeline": pipeline,
        "check": check,
        "window": entry["window"],
        "verdict": result["verdict"],
        "sentence": result.get("sentence", ""),
        "version": f"{Window.from_dict(entry['window']).key}:{result['verdict']}",
    }


class ChampionTrigger(PollingTrigger):
    """Fires when the pipeline's champion is another version than ``after_version``.

    That may be an older one: a rollback changes the champion too.

    :param pipeline: the pipeline's name.
    :param after_version: the champion already known; ``None``: any champion is news.
    """

    def __init__(self, pipeline: str, after_version: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.after_version = after_version

    def arguments(self) -> dict[str, Any]:
        """Return ``pipeline`` and ``after_version``."""
        return {"pipeline": self.pipeline, "after_version": self.after_version}

    def look(self) -> dict[str, Any] | None:
        """Ask the registry for the champion."""
        return look_for_champion(self.pipeline, self.mlops_conn_id)

    def is_news(self, found: dict[str, Any]) -> bool:
        """Whether it is another version."""
        return found["version"] != self.after_version


class CheckTrigger(PollingTrigger):
    """Fires when a monitoring check has one of the verdicts.

    :param pipeline: the pipeline's name.
    :param window: ``{"start", "end"}`` in ISO 8601; ``None``: the newest window that has a result.
    :param check: ``drift``, ``quality``, ``performance``, ….
    :param verdicts: verdicts to wait for; empty: any.
    """

    def __init__(
        self,
        pipeline: str,
        window: dict[str, str] | None = None,
        check: str = "drift",
        verdicts: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.window = window
        self.check = check
        self.verdicts = list(verdicts)

    def arguments(self) -> dict[str, Any]:
        """Return ``pipeline``, ``window``, ``check`` and ``verdicts``."""
        return {"pipeline": self.pipeline, "window": self.window, "check": self.check, "verdicts": self.verdicts}

    def look(self) -> dict[str, Any] | None:
        """Read the check's result."""
        return look_for_check(self.pipeline, self.window, self.check, self.mlops_conn_id)

    def is_news(self, found: dict[str, Any]) -> bool:
        """Whether the verdict is one of those waited for."""
        return not self.verdicts or found["verdict"] in self.verdicts
