"""What is known, window by window, about a version that rolls out: small records beside the captures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.registry.rollout import Rollout
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json
from airflow_mlops.window import Window


@dataclass(frozen=True)
class Evidence:
    """One window of one step.

    :param capture: digest of what the version said of the window's rows; ``champion_capture`` what the champion said
        of the same rows in the same order, with what is kept of them. Both ``None`` where it failed.
    :param served: rows whose written prediction is this version's.
    :param seconds: time to score the rows: the champion's, this version's.
    :param failed: why it could not score the rows.
    """

    window: Window
    rows: int
    capture: str | None
    champion_capture: str | None
    served: int
    seconds: tuple[float, float]
    failed: str | None


def write_evidence(store: Store, rollout: Rollout, window: Window, said: dict[str, Any]) -> None:
    """Keep what is known of a window; a repeated run of the window replaces it whole.

    :param said: plain JSON: ``version``, ``window`` and ``failed``; where it did not fail ``capture``,
        ``champion_capture``, ``rows``, ``served`` and ``seconds``.
    """
    body = said | {"rollout": rollout.id, "step": rollout.step, "champion": rollout.champion}
    store.put(layout.rollout(str(said["pipeline"]), window.key), canonical_json(body))


def read_evidence(store: Store, pipeline: str, rollout: Rollout) -> list[Evidence]:
    """Return what is known of the present step's windows, oldest first.

    :raises CorruptObject: a record is damaged.
    """
    found = []
    keys = [*store.list(layout.rollouts_prefix(pipeline))]
    for key, raw in zip(keys, parallel(store.get, keys, store), strict=True):
        try:
            body = json.loads(raw)
            if (body["rollout"], body["step"]) == (rollout.id, rollout.step):
                found.append(_evidence(body))
        except (ValueError, TypeError, KeyError, IndexError) as e:
            raise CorruptObject(
                f"{key!r} in {store.uri} does not say what a version that rolls out said of a window",
                hint="run the batch inference of this window again, or delete it",
            ) from e
    return sorted(found, key=lambda one: (one.window.end, one.window.start))


def _evidence(body: dict[str, Any]) -> Evidence:
    seconds = body.get("seconds") or (0.0, 0.0)
    return Evidence(
        Window.from_dict(body["window"]),
        body.get("rows", 0),
        body.get("capture"),
        body.get("champion_capture"),
        body.get("served", 0),
        (seconds[0], seconds[1]),
        body["failed"],
    )


def due(evidence: list[Evidence], window: Window, delay: timedelta | None) -> list[Evidence]:
    """Those windows whose outcomes are complete at the end of ``window``; without a delay, those that have ended."""
    limit = window.end - (delay or timedelta())
    return [one for one in evidence if one.window.end <= limit]
