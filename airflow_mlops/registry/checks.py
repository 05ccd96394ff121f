"""The newest result of each monitoring check and training, per window: small JSON, read by tables and pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


@dataclass(frozen=True)
class Check:
    """One stored result for ``window``; what follows ``result`` may not have been written.

    :param at: when it was written, UTC in ISO 8601.
    :param run: ``{"dag_id", "run_id"}`` of the run that wrote it.
    """

    name: str
    window: dict[str, str]
    result: dict[str, Any]
    at: str | None
    start: str | None
    replay: str | None
    run: dict[str, str] | None = None


def write_check(
    store: Store,
    pipeline: str,
    window: Window,
    name: str,
    result: dict[str, Any],
    *,
    rehearsal: bool = False,
    start: str | None = None,
    replay: str | None = None,
    run: dict[str, str] | None = None,
) -> None:
    """Write ``result`` as the newest of check ``name`` for ``window``, with the time of writing; atomic, repeatable.

    :param rehearsal: the run does not promote: its results stand beside the real ones.
    :param start: what started the run: ``schedule``, ``event``, ``manual``, …
    :param replay: id of the replay of the past that the run belongs to.
    :param run: ``{"dag_id", "run_id"}`` of the run: several may be at work at the same time.
    :raises ValueError: for NaN or infinity in ``result``.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    body = {"window": window.to_dict(), "result": result, "at": at, "start": start, "replay": replay, "run": run}
    key = layout.check(pipeline, window.key, name, rehearsal=rehearsal)
    store.put(key, json.dumps(body, allow_nan=False, sort_keys=True).encode())


def read_checks(store: Store, pipeline: str, *, rehearsal: bool = False) -> list[dict[str, Any]]:
    """Return one dict per window, oldest first: ``{"window": {…}, "<check>": result, …}``."""
    prefix = layout.checks_prefix(pipeline, rehearsal=rehearsal)
    windows: dict[str, dict[str, Any]] = {}
    for key in store.list(prefix):
        window_key, name = _named(store, key, prefix)
        body = _body(store, key)
        windows.setdefault(window_key, {"window": body["window"]})[name] = body["result"]
    return [windows[k] for k in sorted(windows)]


def _named(store: Store, key: str, prefix: str) -> tuple[str, str]:
    """The window's key and the check's name in a stored check's key."""
    window, dot, name = key.removeprefix(prefix).removesuffix(".json").partition(".")
    if not dot:
        raise _corrupt(store, key)
    return window, name


def _body(store: Store, key: str) -> dict[str, Any]:
    try:
        body = json.loads(store.get(key))
        sound = isinstance(body["window"], dict) and isinstance(body["result"], dict)
    except (ValueError, TypeError, KeyError) as e:
        raise _corrupt(store, key) from e
    if not sound:
        raise _corrupt(store, key)
    return dict(body)


def _corrupt(store: Store, key: str) -> CorruptObject:
    return CorruptObject(
        f"{key!r} in {store.uri} is not a check's result",
        hint="delete it, or run the check's task again for that window",
    )


def all_checks(store: Store, pipeline: str) -> Iterator[Check]:
    """Yield every stored result of runs that were no rehearsal, oldest window first."""
    prefix = layout.checks_prefix(pipeline)
    for key in store.list(prefix):
        name, body = _named(store, key, prefix)[1], _body(store, key)
        facts = [body.get(fact) for fact in ("at", "start", "replay", "run")]
        yield Check(name, body["window"], body["result"], *facts)


def read_check(
    store: Store, pipeline: str, name: str, window: Window | None = None, *, rehearsal: bool = False
) -> dict[str, Any] | None:
    """Return ``{"window": {…}, "<name>": result}`` of one check, or ``None`` if there is no result yet.

    :param window: ``None``: the newest window with a result of this check.
    """
    if window is not None:
        key = layout.check(pipeline, window.key, name, rehearsal=rehearsal)
    else:
        prefix = layout.checks_prefix(pipeline, rehearsal=rehearsal)
        ours = [key for key in store.list(prefix) if key.endswith(f".{name}.json")]
        if not ours:
            return None
        key = ours[-1]
    try:
        body = _body(store, key)
    except ObjectNotFound:
        return None
    return {"window": body["window"], name: body["result"]}
