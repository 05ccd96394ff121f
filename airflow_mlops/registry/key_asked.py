"""What the checks and the retrain ledger of a fleet say of one of its keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.parallel import parallel
from airflow_mlops.store import get_json
from airflow_mlops.store.base import Store

T = TypeVar("T")

MOST = 60
"""So many of the newest are looked through: the keys of each lie in a blob of their own."""


def checks_of_key(store: Store, checks: Sequence[Check], key: str) -> tuple[Check, ...]:
    """The checks that alarmed about a key, among the newest with an alarm; each says what it saw in this key.

    :param checks: of all keys.
    """
    alarmed = [check for check in checks if isinstance(check.result.get("alarms"), str)]
    alarmed = sorted(alarmed, key=lambda check: check.at or check.window["end"])[-MOST:]
    found = []
    for check, alarms in _read(store, [(check, check.result["alarms"]) for check in alarmed]):
        if key in alarms:
            version, columns = alarms[key]
            result = {
                "verdict": check.result["verdict"],
                "version": version,
                "columns": [{"name": name, "drifted": True} for name in columns],
                "sentence": f"of all keys: {check.result['sentence']}" if check.result.get("sentence") else "",
                "report": check.result.get("report"),
            }
            found.append(replace(check, result=result))
    return tuple(found)


def ledger_of_key(store: Store, ledger: Sequence[Entry], key: str) -> tuple[Entry, ...]:
    """The requests that a key is trained and the claims of it, among the newest; with its own reasons.

    :param ledger: of all keys. What is about all of them names none, and is left out.
    """
    some = [entry for entry in ledger if isinstance(entry.payload.get("keys"), str)][-MOST:]
    found = []
    for entry, keys in _read(store, [(entry, entry.payload["keys"]) for entry in some]):
        if key in keys:
            # Who names keys in a form gives no reason for each.
            why = keys[key] if isinstance(keys, dict) else entry.payload["reasons"]
            found.append(replace(entry, payload={**entry.payload, "reasons": why}))
    return tuple(found)


def _read(store: Store, named: Sequence[tuple[T, str]]) -> Iterator[tuple[T, Any]]:
    """Each with what its digest names; one whose blob is gone is left out."""

    def read(one: tuple[T, str]) -> Any:
        try:
            return get_json(store, one[1])
        except ObjectNotFound:
            return None

    for (what, _), body in zip(named, parallel(read, named, store), strict=True):
        if body is not None:
            yield what, body
