"""A store over another: reads see both, nothing is written below."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.exceptions import ObjectExists, ObjectNotFound
from airflow_mlops.store import LocalStore, Store
from airflow_mlops.store.overlay import OverlayStore


@pytest.fixture
def lower(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "lower")
    for key in ("a/1", "b/2", "b/3"):
        store.put(key, key.encode())
    return store


@pytest.fixture
def overlay(tmp_path: Path, lower: LocalStore) -> OverlayStore:
    return OverlayStore(LocalStore(tmp_path / "upper"), lower)


def content(store: Store) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


def test_it_is_a_store(overlay: OverlayStore) -> None:
    assert isinstance(overlay, Store)


def test_every_write_stays_above(overlay: OverlayStore, lower: LocalStore, tmp_path: Path) -> None:
    before = content(lower)
    (tmp_path / "file").write_bytes(b"from file")
    overlay.put("b/2", b"new")
    overlay.put_if_absent("c/4", b"c")
    overlay.put_file("c/5", tmp_path / "file")
    overlay.delete("a/1")
    assert content(lower) == before
    assert content(overlay) == {"a/1": b"a/1", "b/2": b"new", "b/3": b"b/3", "c/4": b"c", "c/5": b"from file"}
    overlay.get_file("b/2", tmp_path / "above")
    overlay.get_file("b/3", tmp_path / "below")
    assert ((tmp_path / "above").read_bytes(), (tmp_path / "below").read_bytes()) == (b"new", b"b/3")


def test_what_is_hidden_comes_to_light_when_deleted(overlay: OverlayStore) -> None:
    overlay.put("b/2", b"new")
    assert list(overlay.list("b/")) == ["b/2", "b/3"]
    overlay.delete("b/2")
    assert overlay.get("b/2") == b"b/2"


def test_a_key_is_taken_in_either(overlay: OverlayStore) -> None:
    overlay.put("c/4", b"c")
    for key in ("a/1", "c/4"):
        assert overlay.exists(key)
        with pytest.raises(ObjectExists):
            overlay.put_if_absent(key, b"again")


def test_what_is_in_neither_is_not_there(overlay: OverlayStore, tmp_path: Path) -> None:
    assert not overlay.exists("d")
    with pytest.raises(ObjectNotFound):
        overlay.get("d")
    with pytest.raises(ObjectNotFound):
        overlay.get_file("d", tmp_path / "d")
