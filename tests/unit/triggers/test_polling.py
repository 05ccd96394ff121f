"""The loop all triggers share, with looks that are scripted and sleeps that take no time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_mlops.exceptions import DataError, DataUnavailable, StoreUnavailable
from airflow_mlops.triggers import base
from airflow_mlops.triggers.base import PollingTrigger


class End(Exception):
    """The script is over."""


class Scripted(PollingTrigger):
    def __init__(self, script: list[Any], unwanted: tuple[Any, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.script = list(script)
        self.unwanted = unwanted
        self.threads: set[int] = set()

    def arguments(self) -> dict[str, Any]:
        return {"script": self.script, "unwanted": self.unwanted}

    def look(self) -> dict[str, Any] | None:
        self.threads.add(threading.get_ident())
        if not self.script:
            raise End
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return None if step is None else {"version": step}

    def is_news(self, found: dict[str, Any]) -> bool:
        return found["version"] not in self.unwanted


class StateStore:
    def __init__(self, **values: Any) -> None:
        self.values = values

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = value


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(base.asyncio, "sleep", sleep)
    return taken


@pytest.fixture
def events(waits: list[float]) -> Callable[[PollingTrigger], list[Any]]:
    def collect(trigger: PollingTrigger) -> list[Any]:
        async def gather() -> list[Any]:
            found = []
            try:
                async for event in trigger.run():
                    found.append(event.payload)
            except End:
                found.append("…")
            return found

        return asyncio.run(gather())

    return collect


def test_a_deferred_task_gets_one_event(events: Any, waits: list[float]) -> None:
    trigger = Scripted([None, "a", "b", "c"], unwanted=("a",), once=True, poll_interval=7)
    assert events(trigger) == [{"status": "ok", "version": "b"}]
    assert waits == [7, 7]
    assert threading.get_ident() not in trigger.threads


def test_a_watcher_fires_on_changes_after_its_start(events: Any) -> None:
    assert events(Scripted(["a", "a", "b", None, "b", "c"])) == [{"version": "b"}, {"version": "c"}, "…"]


def test_a_watcher_that_starts_on_nothing_fires_on_the_first_thing(events: Any) -> None:
    assert events(Scripted([None, "a", "a"])) == [{"version": "a"}, "…"]


def test_a_watcher_may_fire_for_what_is_there_at_its_start(events: Any) -> None:
    assert events(Scripted(["a", "b"], emit_first=True)) == [{"version": "a"}, {"version": "b"}, "…"]


def test_a_watcher_waits_for_what_is_news_only(events: Any) -> None:
    assert events(Scripted(["a", "no", "b"], unwanted=("no",))) == [{"version": "b"}, "…"]


def test_a_change_during_a_restart_is_not_missed(events: Any) -> None:
    state = StateStore()
    first = Scripted(["a", "b"])
    first.asset_state_store = state  # type: ignore[assignment]
    assert events(first) == [{"version": "b"}, "…"]
    second = Scripted(["c", "c"])
    second.asset_state_store = state  # type: ignore[assignment]
    assert events(second) == [{"version": "c"}, "…"]
    third = Scripted(["c"])
    third.asset_state_store = state  # type: ignore[assignment]
    assert events(third) == ["…"]


def test_what_a_retry_can_mend_is_waited_for_longer_and_longer(events: Any, waits: list[float]) -> None:
    script = [StoreUnavailable("down"), DataUnavailable("down"), "a"]
    assert events(Scripted(script, once=True, poll_interval=5)) == [{"status": "ok", "version": "a"}]
    assert waits == [10, 20]


def test_the_wait_has_a_limit(events: Any, waits: list[float]) -> None:
    events(Scripted([StoreUnavailable("down")] * 9, once=True, poll_interval=60, max_failures=9))
    assert max(waits) == base.LONGEST_WAIT


def test_after_max_failures_in_a_row_the_task_is_told(events: Any) -> None:
    script = [StoreUnavailable("down")] * 2 + [None] + [StoreUnavailable("s3://m is down", hint="look")] * 3 + ["a"]
    (event,) = events(Scripted(script, once=True, max_failures=3))
    assert event["status"] == "error"
    assert event["error"] == "StoreUnavailable"
    assert event["message"] == "s3://m is down\n  What to do: look"


def test_what_a_retry_cannot_mend_is_told_at_once(events: Any) -> None:
    (event,) = events(Scripted([DataError("no bucket"), "a"], once=True))
    assert (event["status"], event["error"]) == ("error", "DataError")


def test_a_watcher_never_fires_for_an_error(events: Any, waits: list[float]) -> None:
    script = ["a", *[StoreUnavailable("down")] * 30, DataError("bad"), "b"]
    assert events(Scripted(script, max_failures=2)) == [{"version": "b"}, "…"]
