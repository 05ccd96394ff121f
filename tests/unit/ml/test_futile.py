"""When training again no longer helps, and an experiment is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.ml.futile import Futile, futile, in_vain
from airflow_mlops.ml.history import history
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry.checks import write_check
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def registry(store: LocalStore) -> Registry:
    found = Registry(store, "churn")
    candidate(found, "passed")
    found.promote(1, expected=None, op_id="p1", reason="first")
    return found


def candidate(registry: Registry, verdict: str, **record: Any) -> int:
    number = registry.register(record, op_id=op_id("r", len(registry.versions()))).number
    note = {"verdict": verdict, "sentence": f"{verdict}: v{number}", "go": verdict == "passed"}
    registry.annotate(number, "gates", note, op_id=op_id("g", number))
    return number


def month(number: int) -> Window:
    return Window.of(f"2013-{number:02}-01", f"2013-{number + 1:02}-01")


def checked(store: LocalStore, number: int, verdict: str = "drop", cause: str | None = "concept drift") -> None:
    result = {"verdict": verdict, "cause": cause, "sentence": f"month {number}"}
    write_check(store, "churn", month(number), "performance", result)


def ask(store: LocalStore, registry: Registry, number: int, after: int = 3) -> Futile | str:
    return futile(store, registry, month(number), after, Ledger(store, "churn").experiments())


def record(store: LocalStore, found: Futile | str, number: int, op: str = "") -> dict[str, Any] | None:
    assert isinstance(found, Futile)
    ledger = Ledger(store, "churn")
    return ledger.ask_for_experiment(found, reasons=["drift"], at=month(number).end, op_id=op or f"o{number}")


def test_so_many_candidates_in_vain(store: LocalStore, registry: Registry) -> None:
    candidate(registry, "rejected")
    assert ask(store, registry, 1) == "1 of 3 candidates in a row in vain, 0 of 3 windows of concept drift"
    candidate(registry, "inconclusive")
    candidate(registry, "rejected", run={"rehearsal": True})
    candidate(registry, "passed")  # not tried: another one was rolling out
    assert isinstance(ask(store, registry, 1), str)
    candidate(registry, "rejected")
    found = ask(store, registry, 1)
    assert isinstance(found, Futile)
    assert found.sentence == "3 candidates in a row did not become champion: v2, v3 and v6"
    assert [(v["version"], v["verdict"]) for v in found.versions] == [
        (2, "rejected"), (3, "inconclusive"), (6, "rejected"),
    ]  # fmt: skip


def test_a_champion_begins_the_count_anew_and_a_fall_in_the_rollout_counts(
    store: LocalStore, registry: Registry
) -> None:
    for _ in range(2):
        candidate(registry, "rejected")
    number = candidate(registry, "passed")
    registry.begin_rollout(number, expected=1, steps=["shadow", "full"], op_id="b", reason="passed")
    assert ask(store, registry, 1) == f"v{number} is rolling out: what comes of it is not known yet"
    rollout = registry.rollout()
    assert rollout is not None
    registry.judge_rollout(rollout, "end", look=1, spent=0.2, op_id="e", reason="worse on live rows")
    found = ask(store, registry, 1)
    assert isinstance(found, Futile)
    assert found.versions[-1] == {"version": number, "verdict": "rolled back", "sentence": "worse on live rows"}
    registry.promote(number, expected=1, op_id="p", reason="by hand")
    assert in_vain(registry) == []


def test_concept_drift_that_stays(store: LocalStore, registry: Registry) -> None:
    checked(store, 1, cause="data drift")
    for number in (2, 3):
        checked(store, number)
    checked(store, 4, "pending_labels", None)
    assert isinstance(ask(store, registry, 4), str)
    checked(store, 5)
    checked(store, 6, "ok", None)  # later than the window that is asked about
    found = ask(store, registry, 5)
    assert isinstance(found, Futile)
    assert found.sentence == "concept drift in 3 windows in a row, the last one 2013-05-01 … 2013-06-01"
    assert [w["sentence"] for w in found.windows] == ["month 2", "month 3", "month 5"]
    assert isinstance(ask(store, registry, 6), str)


def test_the_same_evidence_asks_once_and_is_told_in_the_history(store: LocalStore, registry: Registry) -> None:
    for _ in range(3):
        candidate(registry, "rejected")
    checked(store, 1, "ok", None)
    found = ask(store, registry, 1)
    first = record(store, found, 1)
    assert first is not None
    assert record(store, found, 1) == first  # another try of the same task
    assert record(store, found, 2) is None  # another window, the same candidates
    assert ask(store, registry, 2) == "0 of 3 candidates in a row in vain, 0 of 3 windows of concept drift"
    for _ in range(3):
        candidate(registry, "rejected")
    again = record(store, ask(store, registry, 3), 3)
    assert again is not None
    assert again["request"] != first["request"]
    (period,) = [p for p in history(store, "churn") if p.checks]
    assert [e.reasons for e in period.experiments] == [["drift"]]
    assert period.followed.endswith("3 candidates in a row did not become champion: v2, v3 and v4")
