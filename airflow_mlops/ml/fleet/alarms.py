"""Keys that a check alarmed about, in a blob of their own: a night has thousands of them, a ledger's entry has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_mlops.store import get_json, put_json
from airflow_mlops.store.base import Store

Alarms = Mapping[str, tuple[int, Sequence[str]]]
"""By key: the version that was checked, and what the check names: columns, or nothing."""


def put_alarms(store: Store, alarms: Alarms) -> str | None:
    """Store alarms and return their digest; ``None``: there are none."""
    if not alarms:
        return None
    return put_json(store, {key: [version, sorted(found)] for key, (version, found) in alarms.items()})


def read_alarms(store: Store, digest: str) -> dict[str, tuple[int, tuple[str, ...]]]:
    """Read what :func:`put_alarms` stored."""
    return {key: (version, tuple(found)) for key, (version, found) in get_json(store, digest).items()}
