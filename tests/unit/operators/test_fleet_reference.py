"""Small losses of a key do not pile up: they are counted from an older version."""

from __future__ import annotations

from pathlib import Path

from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, layout
from tests.unit.operators.test_fleet_runs import Fleet, by_key, fleet, registry, rows, store  # noqa: F401


def test_losses_are_counted_from_the_version_that_was_best(
    fleet: Fleet,  # noqa: F811
    store: LocalStore,  # noqa: F811
    registry: Registry,  # noqa: F811
    lake: Path,
) -> None:
    fleet.run("one")
    assert {v.number for v in registry.references().values()} == {1}
    rows(1).to_parquet(lake / "routes.parquet")
    _, second = fleet.run("two")
    promoted = [key for key, row in by_key(store, second["table"]).items() if row.get("promoted")]
    assert len(promoted) > 5
    # Not worse than the champion, and not shown to be better: the first one remains what losses are counted from.
    kept = [key for key in promoted if registry.references([key])[key].number == 1]
    assert len(kept) > 5
    rows(2).to_parquet(lake / "routes.parquet")
    decision, _ = fleet.run("three")
    found = by_key(store, decision["table"])
    key = next(key for key in kept if found[key]["status"] != "failed")
    assert "v1, the reference since 20" in found[key]["reason"]
    assert found[key]["champion"] == 2
    assert found[key].get("reference") in (1, None)
    # A person who puts one into service takes the losses up to there.
    champion = registry.champion(key)
    assert champion is not None
    back = registry.rollback(key=key, expected=champion.number, op_id="x", reason="it was fine", by="ann")
    reference = registry.references([key])[key]
    assert reference.number == back.number
    assert registry.reference(key) == reference


def test_a_reference_that_is_gone_makes_the_key_inconclusive(
    fleet: Fleet,  # noqa: F811
    store: LocalStore,  # noqa: F811
    registry: Registry,  # noqa: F811
    lake: Path,
) -> None:
    fleet.run("one")
    rows(1).to_parquet(lake / "routes.parquet")
    fleet.run("two")
    key = next(str(k) for k, v in registry.references().items() if v.number == 1 and registry.champion(k) != v)
    (store.path / layout.blob(registry.get(1, key).record["model"]["pack"])).unlink()
    rows(2).to_parquet(lake / "routes.parquet")
    decision, _ = fleet.run("three")
    row = by_key(store, decision["table"])[key]
    assert row["status"] in ("inconclusive", "rejected")
    assert "cannot be scored on these rows" in row["reason"]
