"""The versions that losses are counted from, of many models at once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

KEYS = [f"k{i:03d}" for i in range(60)]


class Counting(LocalStore):
    """Counts what is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: Counter[str] = Counter()

    def get(self, key: str, *args: Any, **more: Any) -> bytes:
        self.read[key] += 1
        return super().get(key, *args, **more)


def test_each_commit_is_read_once_for_all_keys(tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path), "p")
    for number in (1, 2, 3):
        registry.register_many({k: {"model": {"digest": f"{number:064x}"}} for k in KEYS}, op_id=f"r{number}")
        note = {"verdict": "passed", "sentence": "s"} | ({"next_reference": 1} if number > 1 else {})
        registry.annotate_many(dict.fromkeys(KEYS, (number, "gates", note)), op_id=f"a{number}")
        before = number - 1 or None
        registry.promote_many(dict.fromkeys(KEYS, (number, before)), op_id=f"p{number}", reason="passed")
    registry.retire(1, key="k001", op_id="gone", reason="damaged")
    registry.rollback(key="k002", expected=3, op_id="back", reason="worse", by="ann")
    store = Counting(tmp_path)
    found = {str(key): version.number for key, version in Registry(store, "p").references(KEYS).items()}
    assert (found.pop("k001"), found.pop("k002")) == (3, 2)
    assert set(found.values()) == {1}
    assert sum(store.read.values()) < 20  # of them most to open the registry
    assert found == {k: registry.reference(k).number for k in found}  # type: ignore[union-attr]
