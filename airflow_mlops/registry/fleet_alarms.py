"""Which alarms about keys of a fleet still stand: the version that was checked serves its key."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.registry.checks import Check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import get_json
from airflow_mlops.store.base import Store


def standing_alarms(store: Store, pipeline: str, checks: Iterable[Check]) -> dict[str, tuple[int, int]]:
    """Of the newest check of each name, how many keys it still alarms about, and how many it did.

    A check that names no keys, or whose keys are gone, is left out.

    :param checks: oldest first.
    """
    digests = {check.name: check.result.get("alarms") for check in checks if "verdict" in check.result}
    found: dict[str, tuple[int, int]] = {}
    champions: dict[str | None, int | None] | None = None
    for name, digest in digests.items():
        if not isinstance(digest, str):
            continue
        try:
            alarms = get_json(store, digest)
        except ObjectNotFound:
            continue
        if champions is None:
            champions = Registry(store, pipeline).log.view(lambda s: {m.key: m.champion for m in s.models.values()})
        serving = sum(champions.get(key) == version for key, (version, _) in alarms.items())
        found[name] = serving, len(alarms)
    return found
