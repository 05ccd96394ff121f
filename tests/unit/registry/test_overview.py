from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_mlops.exceptions import StoreError
from airflow_mlops.registry import Registry
from airflow_mlops.registry.entry import sealed, unsealed
from airflow_mlops.registry.overview import ModelSummary, Summary, models, overview
from airflow_mlops.store import LocalStore


class Watched(LocalStore):
    """Remembers which objects were read and written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls: list[str] = []

    def get(self, key: str) -> bytes:
        self.calls.append(f"get {key}")
        return super().get(key)

    def put(self, key: str, data: bytes) -> None:
        self.calls.append(f"put {key}")
        super().put(key, data)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    """``churn`` with a champion, ``fleet`` with three models, and a pipeline that only has a ledger."""
    store = Watched(tmp_path)
    churn = Registry(store, "churn")
    for i in range(3):
        churn.register({}, op_id=f"r{i}")
    churn.promote(2, expected=None, op_id="p", reason="x")
    churn.set_challenger(3, op_id="c")
    fleet = Registry(store, "fleet")
    fleet.register_many({"b": {}, "a": {}, "c": {}}, op_id="many")
    fleet.promote_many({"a": (1, None), "c": (1, None)}, op_id="p", reason="x")
    store.put("pipelines/idle/ledger/0000000001.json", b"{}")
    store.calls.clear()
    return store


def plain(summary: Summary) -> tuple[object, ...]:
    return (
        summary.pipeline, summary.seq, summary.action, summary.versions, summary.models, summary.champions,
        summary.champion, summary.challenger,
    )  # fmt: skip


EXPECTED = [("churn", 5, "challenger", 3, 1, 1, 2, 3), ("fleet", 2, "promote", 3, 3, 2, None, None)]


def test_where_every_pipeline_stands(store: Watched) -> None:
    found = overview(store)
    assert [plain(s) for s in found] == EXPECTED
    champion = Registry(store, "churn").champion()
    assert found[0].promoted_at == champion.promoted_at
    assert found[0].at == Registry(store, "churn").history()[-1]["at"]
    assert found[1].promoted_at is None
    assert overview(LocalStore(store.path / "empty")) == []


def test_a_second_look_reads_the_index_alone(store: Watched) -> None:
    first = overview(store)
    store.calls.clear()
    assert overview(store) == first
    assert store.calls == ["get index.json"]


def test_only_what_has_moved_is_read(store: Watched) -> None:
    overview(store)
    Registry(store, "churn").register({}, op_id="new")
    Registry(store, "young").register({}, op_id="r")
    store.calls.clear()
    found = overview(store)
    assert [(s.pipeline, s.seq, s.versions) for s in found] == [("churn", 6, 4), ("fleet", 2, 3), ("young", 1, 1)]
    assert not any("fleet" in call for call in store.calls)
    assert store.calls[-1] == "put index.json"
    store.calls.clear()
    assert overview(store) == found
    assert store.calls == ["get index.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-9],
        lambda raw: raw.replace(b'"champion":2', b'"champion":3'),
        lambda raw: sealed(unsealed(raw) | {"format": 2}),
        lambda raw: sealed({"format": 1, "pipelines": {"churn": {"seq": 1}}}),
        lambda raw: sealed({"format": 1, "pipelines": []}),
        lambda raw: None,
    ],
)
def test_a_damaged_index_is_made_anew(store: Watched, damage: Callable[[bytes], bytes | None]) -> None:
    overview(store)
    sound = store.get("index.json")
    wrong = damage(sound)
    store.delete("index.json") if wrong is None else store.put("index.json", wrong)
    assert [plain(s) for s in overview(store)] == EXPECTED
    assert store.get("index.json") == sound


def test_an_old_index_is_caught_up(store: Watched) -> None:
    overview(store)
    old = store.get("index.json")
    Registry(store, "churn").promote(3, expected=2, op_id="p3", reason="x")
    overview(store)
    store.put("index.json", old)
    assert overview(store)[0].champion == 3


def test_without_marks_pipelines_are_found_when_the_index_is_made(store: Watched) -> None:
    for key in [*store.list("names/")]:
        store.delete(key)
    assert [plain(s) for s in overview(store)] == EXPECTED
    assert [plain(s) for s in overview(store)] == EXPECTED


def test_a_mark_without_commits_is_no_pipeline(store: Watched) -> None:
    """As a writer leaves it that was killed before its first commit."""
    store.put("names/ghost.json", b"{}")
    assert [plain(s) for s in overview(store)] == EXPECTED
    assert "ghost" not in json.loads(store.get("index.json"))["pipelines"]


def test_who_may_not_write_sees_the_same(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: str, data: bytes) -> None:
        raise StoreError(f"cannot write {key}")

    monkeypatch.setattr(store, "put", refuse)
    assert [plain(s) for s in overview(store)] == EXPECTED


def test_models_of_a_fleet(store: Watched) -> None:
    assert models(store, "fleet") == [
        ModelSummary("a", 1, 1, None),
        ModelSummary("b", 1, None, None),
        ModelSummary("c", 1, 1, None),
    ]
    assert models(store, "churn") == [ModelSummary(None, 3, 2, 3)]
    assert models(store, "nothing") == []
