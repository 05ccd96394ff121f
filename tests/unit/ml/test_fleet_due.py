"""Which keys of a fleet are trained again: confirmation and cool-down of each, one budget for all."""

from __future__ import annotations

import itertools
import tempfile
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Retrain
from airflow_mlops.ml.fleet.alarms import put_alarms
from airflow_mlops.ml.retrain import Decision, Ledger
from airflow_mlops.ml.retrain_state import Checked
from airflow_mlops.store import LocalStore, get_json

_op = itertools.count()
ALL = dict.fromkeys("abc", (1, ("x",)))


def day(n: float) -> datetime:
    return datetime(2013, 6, 1, tzinfo=UTC) + timedelta(days=n)


class Nights:
    """One ledger, asked night after night."""

    def __init__(self, store: Any, **retrain: Any) -> None:
        self.store, self.config = store, Retrain.model_validate({"when": ["drift"], **retrain})
        self.ledger = Ledger(store, "routes")

    def ask(self, n: float, alarms: Any, **more: Any) -> Decision | None:
        digest = put_alarms(self.store, alarms)
        checks = {"drift": Checked(digest or "", day(n), (digest,) if digest else ())}
        op = f"op{next(_op)}"
        if digest is None:
            self.ledger.note(checks, at=day(n), op_id=op)
            return None
        return self.ledger.request(
            ["drift"], evidence=f"{n} {digest}", at=day(n), checks=checks, config=self.config, op_id=op,
            keys={"drift": digest}, **more,
        )  # fmt: skip

    def keys(self, decision: Decision | None) -> set[str]:
        return set(get_json(self.store, decision.keys)) if decision and decision.keys else set()

    def train(self, n: float, decision: Decision | None) -> bool:
        assert decision is not None
        return self.claim(n, decision.grant, "retrain")

    def claim(self, n: float, grant: str | None, start: str, keys: str | None = None) -> bool:
        name = f"op{next(_op)}"
        claimed = self.ledger.claim(
            grant, start=start, at=day(n), run=name, config=self.config, op_id=name, keys=keys
        )  # fmt: skip
        return claimed.go


@pytest.fixture
def store(tmp_path: Any) -> LocalStore:
    return LocalStore(tmp_path)


def test_each_key_rests_by_itself(store: LocalStore) -> None:
    nights = Nights(store, cooldown="7d")
    first = nights.ask(0, {"a": (1, ("x",)), "b": (1, ("x",))})
    assert first is not None
    assert first.sentence == "granted: training of 2 keys because of drift, window until 2013-06-01"
    assert nights.train(0, first)
    second = nights.ask(1, ALL)
    assert second is not None
    assert nights.keys(second) == {"c"}
    assert "training of 1 key (2 keys in cool-down)" in second.sentence
    assert nights.train(1, second)
    third = nights.ask(2, ALL)
    assert third is not None
    assert (third.granted, third.held, third.sentence) == (False, ["cooldown"], "suppressed: cool-down of 3 keys")
    assert nights.keys(nights.ask(7, ALL)) == {"a", "b"}


def test_the_budget_is_that_of_the_pipeline(store: LocalStore) -> None:
    nights = Nights(store, max_per_month=1)
    assert nights.train(0, nights.ask(0, {"a": (1, ())}))
    held = nights.ask(1, {"b": (1, ())})
    assert held is not None
    assert held.held == ["budget"]


def test_a_training_of_all_keys_lets_all_of_them_rest(store: LocalStore) -> None:
    nights = Nights(store, cooldown="7d")
    assert nights.claim(0, None, "schedule")
    held = nights.ask(1, ALL)
    assert held is not None
    assert held.held == ["cooldown"]
    assert nights.keys(nights.ask(7, ALL)) == set("abc")


def test_a_training_of_some_keys_holds_back_no_other(store: LocalStore) -> None:
    """One that a person started for some keys neither answers a request for others nor delays new data."""
    nights = Nights(store, cooldown="7d", when=["drift", "new_data"])
    waiting = nights.ask(0, {"a": (1, ())})
    some = put_alarms(store, {"c": (1, ())})
    assert nights.claim(1, None, "manual", some)
    assert nights.train(1, waiting)
    assert nights.keys(nights.ask(2, ALL)) == {"b"}
    assert nights.claim(2.5, None, "new_data") is False, "the grant for b still waits"
    assert nights.claim(2.5, None, "schedule")
    assert nights.claim(3, None, "new_data") is False, "all keys rest"


def test_a_grant_whose_keys_were_all_trained_since_trains_nothing(store: LocalStore) -> None:
    nights = Nights(store, cooldown="7d")
    waiting = nights.ask(0, {"a": (1, ())})
    assert nights.claim(0, None, "manual", put_alarms(store, {"a": (1, ())}))
    assert not nights.train(0, waiting)


def test_the_grant_that_waits_knows_its_keys(store: LocalStore) -> None:
    nights = Nights(store)
    nights.ask(0, {"a": (1, ())})
    waiting = nights.ledger.waiting(day(1))
    assert waiting is not None
    assert waiting.keys is not None
    assert get_json(store, waiting.keys) == {"a": ["drift"]}
    again = nights.ask(0, {"a": (1, ())})
    assert again is not None
    assert (again.grant, again.keys) == (waiting.id, waiting.keys), "the same evidence, the same answer"


def test_another_version_or_another_column_confirms_nothing(store: LocalStore) -> None:
    nights = Nights(store, confirm="2 of 2")
    nights.ask(0, {"a": (1, ("x",)), "b": (1, ("x",)), "c": (1, ("x", "y"))})
    found = nights.ask(1, {"a": (2, ("x",)), "b": (1, ("y",)), "c": (1, ("y",))})
    assert found is not None
    assert nights.keys(found) == {"c"}
    assert "training of 1 key (2 keys not confirmed yet)" in found.sentence


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.just((1, ("x",)))), min_size=1, max_size=8),
    st.sampled_from([None, "1 of 1", "2 of 3", "2 of 2"]),
    st.sampled_from([None, 1, 2, 5]),
)
def test_keys_are_decided_about_as_if_each_were_alone(
    seen: list[dict[str, Any]], confirm: str | None, cooldown: int | None
) -> None:
    more = {"confirm": confirm} if confirm else {}
    folder = tempfile.TemporaryDirectory()
    nights = Nights(LocalStore(folder.name), **more, **({"cooldown": f"{cooldown}d"} if cooldown else {}))
    need, last = (int(part) for part in confirm.split(" of ")) if confirm else (1, 1)
    trained: dict[str, int] = {}
    for n, alarms in enumerate(seen):
        expected = {
            key
            for key in alarms
            if sum(key in earlier for earlier in seen[max(0, n - last + 1) : n + 1]) >= need
            and not (cooldown and key in trained and n < trained[key] + cooldown)
        }
        decision = nights.ask(n, alarms)
        assert nights.keys(decision) == expected
        if expected:
            assert nights.train(n, decision)
            trained |= dict.fromkeys(expected, n)
    folder.cleanup()
