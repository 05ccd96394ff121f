"""Rollouts in the registry: one commit a move, and every other change of the champion ends them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from airflow_mlops.exceptions import PromotionConflict, RegistryError
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry.fsck import check as fsck
from airflow_mlops.registry.provenance import lineage
from airflow_mlops.registry.rollout import Rollout, Step, path, share_of, step_name
from airflow_mlops.store import LocalStore

STEPS: list[Step] = ["shadow", {"canary": 0.1}, {"canary": 0.5}, "full"]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(LocalStore(tmp_path), "churn")
    for i in range(4):
        registry.register({"metrics": {"roc_auc": 0.6 + i / 10}}, op_id=op_id("r", i))
    registry.promote(1, expected=None, op_id="p1", reason="first")
    return registry


def begin(registry: Registry, version: int = 2, op: str = "begin", **more: Any) -> Rollout:
    registry.begin_rollout(version, expected=1, steps=STEPS, op_id=op, reason="passed", **more)
    found = registry.rollout()
    assert found is not None
    return found


def judge(registry: Registry, kind: str, look: int = 1, spent: float = 0.25, op: str = "") -> None:
    rollout = registry.rollout()
    assert rollout is not None
    operation = op or op_id(rollout.id, rollout.step, look)
    registry.judge_rollout(rollout, kind, look=look, spent=spent, op_id=operation, reason=f"{kind} {look}")


def shares(registry: Registry) -> list[tuple[int, float]]:
    return [(s.version.number, pytest.approx(s.share)) for s in registry.serving()]


def test_the_words_of_steps() -> None:
    assert [share_of(step) for step in STEPS] == [0.0, 0.1, 0.5, 1.0]
    assert path(STEPS) == "shadow → canary 10 % → canary 50 % → full"
    assert step_name({"canary": 0.125}) == "canary 12.5 %"


def test_from_shadow_to_full(registry: Registry) -> None:
    rollout = begin(registry, by="ann")
    assert (rollout.version, rollout.champion, rollout.present, rollout.looks) == (2, 1, "shadow", 0)
    assert registry.get(2).status == "challenger"
    assert shares(registry) == [(1, 1.0), (2, 0.0)]
    judge(registry, "wait")
    assert (registry.rollout().looks, registry.rollout().spent) == (1, 0.25)
    judge(registry, "next", look=2)
    assert (registry.rollout().present, registry.rollout().looks, registry.rollout().spent) == ({"canary": 0.1}, 0, 0.0)
    assert shares(registry) == [(1, 0.9), (2, 0.1)]
    judge(registry, "next")
    judge(registry, "next")
    assert registry.rollout() is None
    assert (registry.champion().number, registry.challenger()) == (2, None)
    assert shares(registry) == [(2, 1.0)]
    assert [(h["action"], h["kind"], h["by"]) for h in registry.history()[5:]] == [
        ("rollout", "begin", "ann"), ("rollout", "wait", None), ("rollout", "next", None), ("rollout", "next", None),
        ("promote", None, "ann"),
    ]  # fmt: skip
    assert [note["kind"] for note in registry.get(2).notes["rollout"]] == ["begin", "wait", "next", "next"]
    assert [d["what"] for d in lineage(registry.store, registry.get(2))["deployments"]] == [
        "rollout began", "rollout looked at", "rollout went on", "rollout went on", "promoted",
    ]  # fmt: skip
    assert not fsck(registry.store).findings
    registry.rollback(expected=2, op_id="back", reason="x")
    assert shares(registry) == [(1, 1.0)]


def test_a_version_falls_and_the_champion_serves_alone(registry: Registry) -> None:
    begin(registry)
    judge(registry, "next")
    judge(registry, "end")
    assert (registry.rollout(), registry.challenger(), registry.get(2).status) == (None, None, "candidate")
    assert shares(registry) == [(1, 1.0)]
    begin(registry, 2, "again")  # a person, or a later run, may try it once more


def test_a_look_is_committed_once_and_only_where_the_rollout_still_is(registry: Registry) -> None:
    rollout = begin(registry)
    said: dict[str, Any] = {"look": 1, "spent": 0.2, "reason": "x"}
    registry.judge_rollout(rollout, "next", op_id="look", **said)
    registry.judge_rollout(rollout, "next", op_id="look", **said)
    assert registry.rollout().step == 1
    with pytest.raises(PromotionConflict, match="is at canary 10 % of v2 by now"):
        registry.judge_rollout(rollout, "end", op_id="other", **said)
    registry.end_rollout(2, op_id="stop", reason="complaints", by="ann")
    with pytest.raises(PromotionConflict, match="has ended"):
        registry.judge_rollout(rollout, "end", op_id="third", **said)
    assert registry.history()[-1] | {"at": "", "seq": 0} == {
        "seq": 0, "at": "", "action": "rollout", "key": None, "version": 2, "replaced": 1, "kind": "end",
        "reason": "complaints", "by": "ann", "window": None, "op_id": "stop",
    }  # fmt: skip


def test_one_at_a_time(registry: Registry) -> None:
    begin(registry)
    with pytest.raises(PromotionConflict, match=r"v2 is rolling out \(shadow\)"):
        registry.begin_rollout(3, expected=1, steps=STEPS, op_id="x", reason="x")
    registry.set_challenger(3, op_id="gates of v3")
    assert registry.challenger().number == 2
    with pytest.raises(PromotionConflict, match="is v1, expected v3"):
        registry.begin_rollout(4, expected=3, steps=STEPS, op_id="y", reason="x")
    with pytest.raises(RegistryError, match="v3 is not rolling out: v2 is"):
        registry.end_rollout(3, op_id="z", reason="x")


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.promote(3, expected=1, op_id="c", reason="by hand"),
        lambda r: r.promote(2, expected=1, op_id="c", reason="skip to full"),
        lambda r: r.retire(2, op_id="c", reason="bad"),
    ],
)
def test_a_change_by_hand_ends_it(registry: Registry, change: Any) -> None:
    begin(registry)
    change(registry)
    assert (registry.rollout(), registry.challenger()) == (None, None)
    assert len(registry.serving()) == 1


def test_a_rollback_of_the_champion_ends_it(registry: Registry) -> None:
    registry.promote(4, expected=1, op_id="p4", reason="x")
    registry.begin_rollout(2, expected=4, steps=STEPS, op_id="b", reason="x")
    registry.rollback(expected=4, op_id="back", reason="x")
    assert registry.rollout() is None
    assert shares(registry) == [(1, 1.0)]


def test_retiring_another_version_does_not(registry: Registry) -> None:
    begin(registry)
    registry.retire(3, op_id="r", reason="x")
    assert registry.rollout().version == 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["begin", "wait", "next", "end", "promote", "back", "tag"]), max_size=60), st.data())
def test_a_checkpoint_and_the_entries_say_the_same(tmp_path_factory: Any, moves: list[str], data: Any) -> None:
    """More entries than a checkpoint needs, read again by somebody who starts from it, and from nothing."""
    folder = tmp_path_factory.mktemp("store")
    registry = Registry(LocalStore(folder), "churn")
    for i in range(3):
        registry.register({}, op_id=op_id("r", i))
    registry.promote(1, expected=None, op_id="p", reason="x")
    for number, move in enumerate(moves * 3):
        rollout, champion = registry.rollout(), registry.champion().number
        if move == "begin" and rollout is None:
            version = data.draw(st.sampled_from([v for v in (1, 2, 3) if v != champion]))
            registry.begin_rollout(version, expected=champion, steps=STEPS, op_id=f"o{number}", reason="x")
        elif move in ("wait", "next", "end") and rollout is not None:
            said = {"look": rollout.looks + 1, "spent": 0.1, "reason": "x"}
            registry.judge_rollout(rollout, move, op_id=f"o{number}", **said)
        elif move == "promote":
            registry.promote(champion % 3 + 1, expected=champion, op_id=f"o{number}", reason="x")
        elif move == "tag":
            registry.tag(1, "a", number, op_id=f"o{number}")
    again = Registry(LocalStore(folder), "churn")
    assert again.rollout() == registry.rollout()
    assert [(s.version, s.share) for s in again.serving()] == [(s.version, s.share) for s in registry.serving()]
    assert sum(s.share for s in again.serving()) == pytest.approx(1.0)
    assert not fsck(registry.store).findings
