"""What is known of every key, carried on from training to training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.ml.fleet.carried import carry_on, earlier, read_key, renew, table_of_all
from airflow_mlops.ml.fleet.result import put_table, read_table, save_result, spread
from airflow_mlops.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def row(key: str, status: str = "passed", **more: Any) -> dict[str, Any]:
    return {"key": key, "status": status, "reason": f"{key} {status}", **more}


class Runs:
    """Trainings one after the other, each as its gates leave it."""

    def __init__(self, store: LocalStore) -> None:
        self.store, self.number = store, 0

    def __call__(
        self, name: str, rows: list[dict[str, Any]], not_due: tuple[str, ...] = (), absent: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        self.number += 1
        table = put_table(self.store, rows)
        before = earlier(self.store, "routes", "t", name)
        result = {
            "dag_id": "t", "run_id": name, "table": table, "started_at": f"2026-01-{self.number:02}T00:00:00+00:00",
            "rehearsal": False, **carry_on(self.store, table, before, not_due=not_due, absent=absent),
        }  # fmt: skip
        save_result(self.store, "routes", f"{self.number:064x}", result)
        return result

    def known(self, result: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
        rows = read_table(self.store, table_of_all(result)).to_pylist()
        return {r["key"]: (r["status"], r.get("decided_in")) for r in rows}


def test_a_key_keeps_its_last_row_until_a_training_answers_it(store: LocalStore) -> None:
    runs = Runs(store)
    first = runs("one", [row("a", metrics={"r2": 0.5}), row("b", "failed"), row("c", metrics={"r2": 0.9})])
    assert first["all_keys"] == first["table"]
    second = runs("two", [row("a", "rejected", metrics={"r2": 0.1})], ("b", "c", "new"))
    assert runs.known(second) == {
        "a": ("rejected", None), "b": ("failed", "one"), "c": ("passed", "one"), "new": ("not_due", None)
    }  # fmt: skip
    assert second["states"] == {"rejected": 1, "failed": 1, "passed": 1, "not_due": 1}
    assert {r["key"] for r in read_table(store, second["table"]).to_pylist()} == {"a"}
    assert spread(store, second["all_keys"])["r2"] == pytest.approx((0.3, 0.5, 0.7))
    third = runs("three", [row("c")], ("a", "b", "new"))
    assert runs.known(third) == {
        "a": ("rejected", "two"), "b": ("failed", "one"), "c": ("passed", None), "new": ("not_due", None)
    }  # fmt: skip
    found = read_key(store, third["all_keys"], "b")
    assert found is not None
    assert (found["reason"], found["decided_in"]) == ("b failed", "one")


def test_a_second_try_carries_on_from_the_training_before(store: LocalStore) -> None:
    runs = Runs(store)
    runs("one", [row("a"), row("b", "failed")])
    first = runs("two", [row("a")], ("b",))
    again = runs("two", [row("a")], ("b",))
    assert {**again, "started_at": first["started_at"]} == first
    assert runs.known(again)["b"] == ("failed", "one")
    assert runs.known(runs("two", [row("b")], ("a",))) == {"a": ("passed", "one"), "b": ("passed", None)}


def test_a_training_of_all_keys_forgets_who_is_gone(store: LocalStore) -> None:
    runs = Runs(store)
    runs("one", [row("a"), row("b", "failed"), row("c")])
    # Neither had a row; `c` has a model that serves.
    second = runs("two", [row("a")], (), ("c",))
    assert runs.known(second) == {"a": ("passed", None), "c": ("passed", "one")}
    retired = renew(store, put_table(store, [row("a", promoted=True), row("c", "retired")]), second["all_keys"])
    assert retired["states"] == {"promoted": 1, "retired": 1}
    save_result(store, "routes", f"{9:064x}", {**second, **retired, "started_at": "2026-01-09T00:00:00+00:00"})
    assert set(runs.known(runs("three", [row("a")], ("d",)))) == {"a", "d"}


def test_a_parent_that_was_not_trained_stays(store: LocalStore) -> None:
    runs = Runs(store)
    runs("one", [row("a"), row("*"), row("G/*"), row("H/*", "retired")])
    # All keys by name, so that none is not due; then all, and the group has too few rows by now.
    assert runs.known(runs("two", [row("a")])) == {
        "a": ("passed", None),
        "*": ("passed", "one"),
        "G/*": ("passed", "one"),
    }
    assert runs.known(runs("three", [row("a"), row("*")]))["G/*"] == ("passed", "one")


def test_what_was_promoted_takes_the_place_of_what_had_passed(store: LocalStore) -> None:
    runs = Runs(store)
    runs("one", [row("a"), row("b", "failed")])
    second = runs("two", [row("a")], ("b",))
    found = renew(store, put_table(store, [row("a", promoted=True)]), second["all_keys"])
    assert found["states"] == {"promoted": 1, "failed": 1}
    # A result of before the table of all keys was written.
    assert renew(store, second["table"], None) == {"all_keys": second["table"], "states": {"passed": 1}}
