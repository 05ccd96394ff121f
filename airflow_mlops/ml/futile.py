"""Whether training again still helps: candidates that come to nothing, and concept drift that stays.

What monitoring asks for first is the same pipeline trained on newer rows. Where that has failed so many times in a row,
or the champion is wrong in window after window though its inputs did not move, another model, other features or another
window of history is wanted: an experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.registry.checks import read_check
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window

CONCEPT = "concept drift"


@dataclass(frozen=True)
class Futile:
    """Why training again no longer helps.

    :param versions: the candidates that did not become champion, by number: ``version``, ``verdict``, ``sentence``.
    :param windows: those with concept drift: ``window`` (``Window.key``), ``sentence``.
    """

    sentence: str
    versions: list[dict[str, Any]]
    windows: list[dict[str, Any]]


def futile(
    store: Store, registry: Registry, window: Window, after: int, asked: Sequence[dict[str, Any]]
) -> Futile | str:
    """Return what shows that training again no longer helps, or in words how far it is from that.

    What an earlier request stood on does not count again.

    :param after: so many candidates, or windows, in a row.
    :param asked: earlier requests, see :meth:`~airflow_mlops.ml.retrain.Ledger.experiments`.
    """
    rollout = registry.rollout()
    if rollout is not None:
        return f"v{rollout.version} is rolling out: what comes of it is not known yet"
    versions = [v for v in in_vain(registry) if v.number > _last_version(asked)]
    windows = _drifting(store, registry.pipeline, window, after, _last_window(asked))
    told = [_judged(version) for version in versions]
    if len(versions) >= after:
        many = f"{len(versions)} candidates in a row" if len(versions) > 1 else "a candidate"
        sentence = f"{many} did not become champion: {_numbers(versions)}"
        return Futile(sentence, told, windows)
    if len(windows) >= after:
        many = f"in {len(windows)} windows in a row, the last one {window}" if len(windows) > 1 else f"in {window}"
        sentence = f"concept drift {many}"
        return Futile(sentence, told, windows)
    return f"{len(versions)} of {after} candidates in a row in vain, {len(windows)} of {after} windows of concept drift"


def in_vain(registry: Registry) -> list[Version]:
    """The newest candidates that fell by their gates or in their rollout, oldest first, back to one that served.

    One that passed and was not tried, as another one was rolling out or a person said no, tells nothing.
    """
    found: list[Version] = []
    for version in reversed(registry.versions()):
        if version.promoted_at is not None:
            break
        gates, moves = version.notes.get("gates"), version.notes.get("rollout") or []
        if (version.record.get("run") or {}).get("rehearsal") or not gates:
            continue
        if gates[-1].get("go") and not any(move["kind"] == "end" for move in moves):
            continue
        found.append(version)
    return found[::-1]


def asked_already(asked: Sequence[dict[str, Any]], found: Futile) -> bool:
    """Whether an earlier request stands on the newest version and the newest window of this one."""
    old_version = not found.versions or found.versions[-1]["version"] <= _last_version(asked)
    old_window = not found.windows or found.windows[-1]["window"] <= _last_window(asked)
    return bool(asked) and old_version and old_window


def _last_version(asked: Sequence[dict[str, Any]]) -> int:
    return max((v["version"] for one in asked for v in one["versions"]), default=0)


def _last_window(asked: Sequence[dict[str, Any]]) -> str:
    return max((w["window"] for one in asked for w in one["windows"]), default="")


def _drifting(store: Store, pipeline: str, window: Window, most: int, since: str) -> list[dict[str, Any]]:
    """The windows up to this one with concept drift, oldest first, back to one without."""
    prefix, end = layout.checks_prefix(pipeline), ".performance.json"
    keys = sorted(k.removeprefix(prefix).removesuffix(end) for k in store.list(prefix) if k.endswith(end))
    found: list[dict[str, Any]] = []
    for key in reversed([k for k in keys if since < k <= window.key]):
        first, _, last = key.partition("-")
        checked = read_check(store, pipeline, "performance", Window.of(first, last))
        result = checked["performance"] if checked is not None else {}
        if result.get("verdict") in ("pending_labels", "not_enough_data"):
            continue
        if result.get("verdict") != "drop" or result.get("cause") != CONCEPT:
            break
        found.append({"window": key, "sentence": result["sentence"]})
        if len(found) == most:
            break
    return found[::-1]


def _judged(version: Version) -> dict[str, Any]:
    """What became of a candidate: its gates' verdict, or that it fell in its rollout."""
    gates = version.notes["gates"][-1]
    said = {"version": version.number, "verdict": gates["verdict"], "sentence": gates["sentence"]}
    for move in version.notes.get("rollout", ()):
        if move["kind"] == "end":
            said |= {"verdict": "rolled back", "sentence": move["reason"]}
    return said


def _numbers(versions: Sequence[Version]) -> str:
    numbers = [f"v{v.number}" for v in versions]
    return numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}"
