from __future__ import annotations

import pytest

from airflow_mlops.registry import Registry
from airflow_mlops.store.local import LocalStore


@pytest.fixture
def registry(tmp_path):
    return Registry(LocalStore(tmp_path), "flights")


def crown(registry, number, next_reference=None, by=None):
    registry.register({"model": {"digest": f"{number:064x}"}}, op_id=f"register {number}")
    if next_reference is not None:
        registry.annotate(number, "gates", {"next_reference": next_reference}, op_id=f"gates {number}")
    before = registry.champion()
    registry.promote(
        number, expected=before.number if before else None, op_id=f"promote {number}", reason="test", by=by
    )


def now(registry):
    """The reference, as this registry and one that begins with a checkpoint see it."""
    found = registry.reference().number
    assert Registry(registry.store, "flights").reference().number == found
    return found


def test_losses_are_counted_from_what_the_gates_noted(registry):
    assert registry.reference() is None
    crown(registry, 1, next_reference=1)
    assert now(registry) == 1
    crown(registry, 2, next_reference=1)
    crown(registry, 3, next_reference=1)
    assert now(registry) == 1
    crown(registry, 4, next_reference=4)  # shown to be better
    assert now(registry) == 4


def test_a_persons_yes_begins_anew(registry):
    crown(registry, 1, next_reference=1)
    crown(registry, 2, next_reference=1)
    crown(registry, 3, next_reference=1, by="ann")
    assert now(registry) == 3
    crown(registry, 4, next_reference=3)
    assert now(registry) == 3
    crown(registry, 5)  # a version without gates, such as an imported one
    assert now(registry) == 5


def test_a_rollback_by_a_person_begins_anew_and_another_does_not(registry):
    crown(registry, 1, next_reference=1)
    crown(registry, 2, next_reference=1)
    crown(registry, 3, next_reference=1)
    registry.rollback(expected=3, op_id="back 1", reason="automatic")
    assert (registry.champion().number, now(registry)) == (2, 1)
    crown(registry, 4, next_reference=1)
    registry.rollback(expected=4, op_id="back 2", reason="bad", by="ann")
    assert (registry.champion().number, now(registry)) == (2, 2)


def test_a_retired_reference_is_none(registry):
    crown(registry, 1, next_reference=1)
    crown(registry, 2, next_reference=1)
    assert now(registry) == 1
    registry.retire(1, op_id="retire", reason="it read the outcome", by="ann")
    assert now(registry) == 2
