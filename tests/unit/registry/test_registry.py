from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_mlops.exceptions import PromotionConflict, RegistryError, VersionNotFound
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(LocalStore(tmp_path), "churn")
    for i in range(3):
        registry.register({"metrics": {"roc_auc": 0.6 + i / 10}}, op_id=op_id("r", i))
    return registry


def test_versions_count_from_one(registry: Registry) -> None:
    assert [v.number for v in registry.versions()] == [1, 2, 3]
    v = registry.get(2)
    assert (v.pipeline, v.key, v.status, v.promoted_at, v.name) == ("churn", None, "candidate", None, "churn v2")
    assert v.record == {"metrics": {"roc_auc": 0.7}}
    assert datetime.fromisoformat(v.registered_at).utcoffset().total_seconds() == 0
    assert registry.champion() is None
    assert registry.serving() == ()


def test_registering_twice_is_once(registry: Registry) -> None:
    assert registry.register({"other": 1}, op_id=op_id("r", 1)).number == 2
    assert len(registry.versions()) == 3


@pytest.mark.parametrize("version", [0, 4, -1, True, "1", None])
def test_a_version_that_is_not_there(registry: Registry, version: int) -> None:
    for call in (
        lambda: registry.get(version),
        lambda: registry.annotate(version, "gates", {}, op_id="x"),
        lambda: registry.promote(version, expected=None, op_id="x", reason="x"),
        lambda: registry.set_challenger(version, op_id="x"),
    ):
        with pytest.raises(VersionNotFound, match=r"churn has no version .*; its newest is v3"):
            call()
    assert len(registry.history()) == 3


def test_promotion(registry: Registry) -> None:
    window = Window.from_dict({"start": "2013-01-01", "end": "2013-02-01"})
    registry.promote(1, expected=None, op_id="p1", reason="no champion", window=window)
    v2 = registry.promote(2, expected=1, op_id="p2", reason="better", by="ann", window={"start": "a", "end": "b"})
    assert (v2.status, registry.get(1).status, registry.get(3).status) == ("champion", "retired", "candidate")
    assert v2.promoted_at
    assert [(s.version.number, s.share) for s in registry.serving()] == [(2, 1.0)]
    first, second = registry.history()[-2:]
    assert first["window"] == window.to_dict()
    assert (second["action"], second["version"], second["replaced"], second["by"]) == ("promote", 2, 1, "ann")
    assert {frozenset(h) for h in registry.history()} == {frozenset(first)}


def test_a_stale_promotion_is_refused(registry: Registry) -> None:
    with pytest.raises(PromotionConflict, match="churn@champion is not set, expected v1"):
        registry.promote(2, expected=1, op_id="p", reason="x")
    registry.promote(1, expected=None, op_id="p1", reason="x")
    with pytest.raises(PromotionConflict, match="churn@champion is v1, expected v2") as e:
        registry.promote(3, expected=2, op_id="p3", reason="x")
    assert "evaluate again" in e.value.hint
    with pytest.raises(PromotionConflict, match="churn@champion is v1, expected none"):
        registry.promote(3, expected=None, op_id="p3", reason="x")
    assert registry.champion().number == 1


def test_a_repeated_promotion_is_the_first_one(registry: Registry) -> None:
    """A retry after the commit, even when another champion came since."""
    registry.promote(1, expected=None, op_id="p1", reason="x")
    registry.promote(2, expected=1, op_id="p2", reason="x")
    assert registry.promote(1, expected=None, op_id="p1", reason="x").number == 1
    assert registry.champion().number == 2


def test_challenger(registry: Registry) -> None:
    registry.promote(1, expected=None, op_id="p1", reason="x")
    assert registry.set_challenger(2, op_id="c").status == "challenger"
    assert registry.challenger().number == 2
    registry.promote(2, expected=1, op_id="p2", reason="x")
    assert registry.challenger() is None


def test_notes(registry: Registry) -> None:
    registry.annotate(2, "gates", {"verdict": "inconclusive"}, op_id="g1")
    registry.annotate(2, "gates", {"verdict": "passed"}, op_id="g2")
    registry.annotate(2, "handover", {"bundle": "x"}, op_id="h")
    registry.annotate(2, "handover", {"bundle": "x"}, op_id="h")
    assert registry.get(2).notes == {
        "gates": [{"verdict": "inconclusive"}, {"verdict": "passed"}],
        "handover": [{"bundle": "x"}],
    }
    assert registry.get(1).notes == {}
    assert [h["kind"] for h in registry.history()[3:]] == ["gates", "gates", "handover"]


def test_what_is_returned_can_be_changed(registry: Registry) -> None:
    registry.get(1).record["metrics"]["roc_auc"] = 99
    registry.versions()[0].notes["x"] = []
    assert registry.get(1).record == {"metrics": {"roc_auc": 0.6}}
    assert registry.get(1).notes == {}


def test_each_model_key_counts_for_itself(registry: Registry) -> None:
    lga = registry.register({}, op_id="lga", key="LGA")
    assert (lga.number, lga.name) == (1, "churn[LGA] v1")
    registry.promote(1, expected=None, op_id="p", reason="x", key="LGA")
    registry.annotate(1, "gates", {}, op_id="g", key="LGA")
    assert registry.champion() is None
    assert registry.champion("LGA").number == 1
    assert registry.get(1).notes == {}
    assert registry.keys() == [None, "LGA"]
    with pytest.raises(PromotionConflict, match=r"churn\[LGA\]@champion is v1"):
        registry.promote(1, expected=None, op_id="p2", reason="x", key="LGA")
    with pytest.raises(VersionNotFound, match=r"churn\[JFK\] has no version 1; nothing is registered"):
        registry.get(1, "JFK")


def test_an_entry_of_a_newer_release_is_refused(registry: Registry) -> None:
    registry.log.append("canary", {"version": 1}, op_id="new")
    with pytest.raises(RegistryError, match="upgrade"):
        registry.champion()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a..b"])
def test_names_of_pipelines(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot be the name"):
        Registry(LocalStore(tmp_path), name)


PROMOTE = """
import sys
from airflow_mlops.exceptions import PromotionConflict
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.store import LocalStore
registry, me = Registry(LocalStore(sys.argv[1]), "churn"), int(sys.argv[2])
registry.champion()
print("ready", flush=True)
sys.stdin.readline()
expected = None
for turn in range(5):
    try:
        if me != expected:  # promoting the champion again would leave it as the others expect it
            registry.promote(me, expected=expected, op_id=op_id(turn, me), reason="race")
            print(turn, me, flush=True)
    except PromotionConflict:
        pass
    print("done", flush=True)
    expected = int(sys.stdin.readline())
"""


def test_of_several_processes_one_promotes(tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path), "churn")
    for i in range(4):
        registry.register({}, op_id=op_id(i))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTE, str(tmp_path), str(n)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for n in range(1, 5)
    ]  # fmt: skip
    try:
        for w in workers:
            assert w.stdout.readline() == "ready\n"
        champion: int | None = None
        for turn in range(5):
            for w in workers:
                w.stdin.write("go\n" if champion is None else f"{champion}\n")
            won = []
            for w in workers:
                while (line := w.stdout.readline()) != "done\n":
                    assert line, "a worker died"
                    won.append(int(line.split()[1]))
            assert len(won) == 1, f"turn {turn}: {won}"
            champion = registry.champion().number
            assert champion == won[0]
    finally:
        for w in workers:
            w.kill()
            w.communicate()
    assert sum(h["action"] == "promote" for h in registry.history()) == 5


REGISTER = """
import sys
from airflow_mlops.registry import Registry
from airflow_mlops.store import LocalStore
registry = Registry(LocalStore(sys.argv[1]), "churn")
print("ready", flush=True)
sys.stdin.readline()
print(*[registry.register({"by": sys.argv[2]}, op_id=f"run-{i}").number for i in range(10)])
"""


def test_one_operation_of_four_processes_is_one_version(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", REGISTER, str(tmp_path), str(n)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for n in range(4)
    ]  # fmt: skip
    for w in workers:
        assert w.stdout.readline() == "ready\n"
    for w in workers:
        w.stdin.write("go\n")
        w.stdin.flush()
    outputs = {w.communicate(timeout=60)[0] for w in workers}
    assert outputs == {"1 2 3 4 5 6 7 8 9 10\n"}
    assert len(Registry(LocalStore(tmp_path), "churn").versions()) == 10


class Machine(RuleBasedStateMachine):
    """The registry against a dict; ``reopen`` is what another process sees."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ops = 0
        self.done: list[tuple[str, int]] = []
        self.versions: list[dict] = []
        self.champion: int | None = None
        self.challenger: int | None = None
        self.reopen()

    def teardown(self) -> None:
        self.folder.cleanup()

    def op(self) -> str:
        self.ops += 1
        return op_id(self.ops)

    @rule()
    def reopen(self) -> None:
        self.registry = Registry(LocalStore(self.folder.name), "p")

    @rule(x=st.integers())
    def register(self, x: int) -> None:
        op = self.op()
        version = self.registry.register({"x": x}, op_id=op)
        self.versions.append({"x": x, "notes": []})
        self.done.append((op, version.number))
        assert version.number == len(self.versions)

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def register_again(self, data: st.DataObject) -> None:
        op, number = data.draw(st.sampled_from(self.done))
        assert self.registry.register({"x": "again"}, op_id=op).number == number

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, len(self.versions)))
        expected = data.draw(st.sampled_from([None, self.champion, *range(1, len(self.versions) + 1)]))
        if expected != self.champion:
            with pytest.raises(PromotionConflict):
                self.registry.promote(number, expected=expected, op_id=self.op(), reason="")
            return
        self.registry.promote(number, expected=expected, op_id=self.op(), reason="")
        self.champion = number
        if self.challenger == number:
            self.challenger = None

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def challenge(self, data: st.DataObject) -> None:
        self.challenger = data.draw(st.integers(1, len(self.versions)))
        self.registry.set_challenger(self.challenger, op_id=self.op())

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), note=st.integers())
    def annotate(self, data: st.DataObject, note: int) -> None:
        number = data.draw(st.integers(1, len(self.versions)))
        self.registry.annotate(number, "n", {"note": note}, op_id=self.op())
        self.versions[number - 1]["notes"].append({"note": note})

    @invariant()
    def agrees(self) -> None:
        champion, challenger = self.registry.champion(), self.registry.challenger()
        assert (champion and champion.number) == self.champion
        assert (challenger and challenger.number) == self.challenger
        found = [{"x": v.record["x"], "notes": v.notes.get("n", [])} for v in self.registry.versions()]
        assert found == self.versions


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
