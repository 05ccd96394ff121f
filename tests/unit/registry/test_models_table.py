from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.registry import Registry
from airflow_mlops.registry import models as table
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.models import Models
from airflow_mlops.registry.overview import models, overview
from airflow_mlops.registry.pages import UnusablePage
from airflow_mlops.store import LocalStore, get_json, layout, put_blob, put_json
from airflow_mlops.store.content import packed_json, unpacked
from tests.unit.registry.test_registry_machine import Stormy


class Counting(LocalStore):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.got: list[str] = []

    def get(self, key: str) -> bytes:
        self.got.append(key)
        return super().get(key)


@given(
    rounds=st.lists(st.lists(st.none() | st.text(max_size=3), max_size=12), min_size=1, max_size=5),
    asked=st.lists(st.none() | st.text(max_size=3), max_size=6),
    size=st.integers(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_it_is_a_dict_of_models(rounds: list[list[str | None]], asked: list[str | None], size: int) -> None:
    """Whatever is added, and however often it is stored and read again."""
    before, table.KEYS = table.KEYS, size
    try:
        store, plain = Stormy(), {}
        found = Models(store)
        for number, keys in enumerate(rounds):
            for key in keys:
                plain.setdefault(key, []).append(number)
                found.make(key).places.append(number)
            stored = found.save()
            assert found.save() == stored
            found = Models(store, json.loads(json.dumps(stored)))
            assert len(found) == len(plain)
            for key in asked:
                model = found.get(key)
                assert (model and model.places) == plain.get(key)
        assert {m.key: m.places for m in found.values()} == plain
        assert [*found] == sorted(plain, key=lambda key: (key is not None, key or ""))
        with pytest.raises(KeyError):
            found.change("\x00 never there")
    finally:
        table.KEYS = before


def test_the_champion_of_one_key_takes_a_few_reads(tmp_path: Path) -> None:
    keys = [f"K{i:04}" for i in range(1200)]
    registry = Registry(LocalStore(tmp_path), "fleet")
    for first in range(0, 1200, 300):
        part = keys[first : first + 300]
        registry.register_many({key: {"metrics": {"auc": 0.7}} for key in part}, op_id=f"r{first}")
        registry.promote_many(dict.fromkeys(part, (1, None)), op_id=f"p{first}", reason="gates")
    store = Counting(tmp_path)
    for key in random.Random(2).sample(keys, 5):
        store.got.clear()
        fresh = Registry(store, "fleet")
        assert fresh.champion(key).metrics == {"auc": 0.7}
        assert len(store.got) <= 5
    assert fresh.champion("K9") is None
    assert [m.key for m in models(store, "fleet")] == keys
    assert [(s.models, s.champions) for s in overview(store)] == [(1200, 1200)]
    root = get_json(store, json.loads(store.get("pipelines/fleet/log/HEAD"))["checkpoint"]["digest"])
    assert len(root["models"]["pages"]) > 1
    assert not check(store).findings
    # Any page that is lost is made again from the entries.
    for _, _, digest in root["models"]["pages"]:
        store.delete(layout.blob(digest))
    assert Registry(store, "fleet").champion(keys[700]).number == 1
    assert [f.severity for f in check(store).findings] == ["derived"] * len(root["models"]["pages"])


def test_a_page_that_says_something_else_is_unusable(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for rows in ([["a"]] * 2, [5, 6], [["a", [], None, None, [], None, 1], ["b"]], ["ab"]):
        with pytest.raises(UnusablePage):
            Models(store, [(None, 2, put_json(store, rows))]).get("a")


def test_long_json_is_packed_and_all_is_read(tmp_path: Path) -> None:
    store, long = LocalStore(tmp_path), {"key": ["value"] * 1000}
    digest = put_json(store, long, packed=True)
    raw = store.get(layout.blob(digest))
    assert json.loads(gzip.decompress(raw)) == get_json(store, digest) == long
    assert len(raw) < 200
    assert packed_json(long) == raw
    assert get_json(store, put_json(store, long)) == long
    assert packed_json({"a": 1}) == b'{"a":1}'
    for wrong in (raw[:-1], raw + b"x", raw[:30] + b"\xff" * 20 + raw[50:], b"\x1f\x8b"):
        with pytest.raises(ValueError, match=r"Error|end"):
            unpacked(wrong)
        with pytest.raises(CorruptObject, match="cannot be unpacked"):
            get_json(store, put_blob(store, wrong))


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.store.content._MOST", 5000)
    with pytest.raises(ValueError, match="more than 5,000 bytes"):
        unpacked(gzip.compress(b" " * 6000))
