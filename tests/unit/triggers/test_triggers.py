from __future__ import annotations

import asyncio
import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import AssetWatcher
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.registry.checks import read_check, write_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from airflow_mlops.triggers.base import PollingTrigger
from airflow_mlops.triggers.data import NewDataTrigger
from airflow_mlops.triggers.registry import ChampionTrigger, CheckTrigger
from airflow_mlops.window import Window

JAN = Window.of("2013-01-01", "2013-02-01")
FEB = Window.of("2013-02-01", "2013-03-01")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", (tmp_path / "store").as_uri())
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return LocalStore(tmp_path / "store")


def rebuilt(trigger: PollingTrigger) -> PollingTrigger:
    path, arguments = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))


TRIGGERS = [
    NewDataTrigger("in/*.csv", "ab" * 32, poll_interval=3.5, once=True),
    ChampionTrigger("churn", 4, emit_first=True, mlops_conn_id="models"),
    CheckTrigger("churn", JAN.to_dict(), "performance", ("drop",), max_failures=2),
]


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda t: type(t).__name__)
def test_a_trigger_survives_its_serialization(trigger: PollingTrigger) -> None:
    assert rebuilt(trigger).serialize() == trigger.serialize()


@pytest.mark.parametrize("trigger", TRIGGERS, ids=lambda t: type(t).__name__)
def test_an_asset_watcher_takes_it(trigger: PollingTrigger) -> None:
    assert AssetWatcher(name="w", trigger=trigger).trigger is trigger


@settings(max_examples=25)
@given(
    source=st.text(min_size=1, max_size=20),
    since=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
    once=st.booleans(),
    poll=st.floats(0, 1e6),
)
def test_any_arguments_survive(source: str, since: str | None, once: bool, poll: float) -> None:
    trigger = NewDataTrigger(source, since, once=once, poll_interval=poll)
    assert rebuilt(trigger).serialize() == trigger.serialize()


def test_new_data_follows_what_is_in_the_folder(store: LocalStore, tmp_path: Path) -> None:
    trigger = NewDataTrigger("*.csv")
    assert trigger.look() is None
    data = tmp_path / "data"
    (data / "b.csv").write_text("1")
    os.utime(data / "b.csv", (1000, 1000))
    first = trigger.look()
    assert first is not None
    assert (first["files"], first["newest"]) == (1, str(data / "b.csv"))
    assert trigger.look() == first
    (data / "a.csv").write_text("1")
    os.utime(data / "a.csv", (2000, 2000))
    second = trigger.look()
    assert second is not None
    assert (second["files"], second["newest"]) == (2, str(data / "a.csv"))
    (data / "b.csv").write_text("changed")
    third = trigger.look()
    assert third is not None
    assert len({first["version"], second["version"], third["version"]}) == 3
    assert len(third["version"]) == 64
    waiting = NewDataTrigger("*.csv", third["version"])
    assert not waiting.is_news(third)
    assert waiting.is_news(first)


def test_champion_changes_count_rollbacks_too(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    assert ChampionTrigger("churn").look() is None
    for number in (1, 2):
        registry.register({"digest": f"{number}"}, op_id=f"r{number}")
    registry.promote(2, expected=None, op_id="p2", reason="first")
    found = ChampionTrigger("churn").look()
    assert found is not None
    assert (found["pipeline"], found["version"]) == ("churn", 2)
    json.dumps(found, allow_nan=False)
    assert ChampionTrigger("churn").is_news(found)
    assert not ChampionTrigger("churn", 2).is_news(found)
    registry.promote(1, expected=2, op_id="p1", reason="rollback")
    back = ChampionTrigger("churn", 2).look()
    assert back is not None
    assert back["version"] == 1
    assert ChampionTrigger("churn", 2).is_news(back)


def test_a_check_is_read_for_its_window_or_the_newest(store: LocalStore) -> None:
    assert CheckTrigger("churn").look() is None
    write_check(store, "churn", FEB, "drift", {"verdict": "drift", "sentence": "3 of 9 columns drifted", "rows": 9})
    write_check(store, "churn", JAN, "drift", {"verdict": "no_drift", "sentence": "none"})
    write_check(store, "churn", Window.of("2013-03-01", "2013-04-01"), "quality", {"verdict": "ok"})
    newest = CheckTrigger("churn").look()
    assert newest == {
        "pipeline": "churn",
        "check": "drift",
        "window": FEB.to_dict(),
        "verdict": "drift",
        "sentence": "3 of 9 columns drifted",
        "version": f"{FEB.key}:drift",
    }
    january = CheckTrigger("churn", JAN.to_dict(), verdicts=("drift",)).look()
    assert january is not None
    assert january["verdict"] == "no_drift"
    assert not CheckTrigger("churn", verdicts=("drift",)).is_news(january)
    assert CheckTrigger("churn").is_news(january)
    assert CheckTrigger("churn", Window.of("2014-01-01", "2014-02-01").to_dict()).look() is None
    assert read_check(store, "churn", "quality", JAN) is None


def test_a_live_trigger_sees_a_file_arrive(store: LocalStore, tmp_path: Path) -> None:
    trigger = NewDataTrigger("*.parquet", once=True, poll_interval=0.01)

    async def arrive() -> Any:
        events = trigger.run()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        (tmp_path / "data" / "x.parquet").write_bytes(b"PAR1")
        return (await asyncio.wait_for(waiting, 30)).payload

    event = asyncio.run(arrive())
    assert (event["status"], event["files"]) == ("ok", 1)
