from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from airflow_mlops.exceptions import CorruptObject, PromotionConflict, RegistryError, VersionNotFound
from airflow_mlops.registry import Log, Registry, op_id
from airflow_mlops.registry.overview import overview
from airflow_mlops.store import LocalStore, get_blob, get_json
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
    assert (v2.status, registry.get(1).status, registry.get(3).status) == ("champion", "candidate", "candidate")
    assert registry.get(1).promoted_at
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
    with pytest.raises(PromotionConflict, match=r"^churn@champion is v1, expected v2: re-evaluate\n") as e:
        registry.promote(3, expected=2, op_id="p3", reason="x")
    assert "evaluate again" in e.value.hint
    assert e.value.hint.endswith("gives it as --expected 1")
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
    Log(registry.store, "pipelines/churn/log/").append("canary", {"version": 1}, op_id="new")
    for _ in range(2):
        with pytest.raises(RegistryError, match=r"entry 4 .*unknown type 'canary'(.|\n)*upgrade"):
            registry.champion()
    assert registry.history()[-1]["action"] == "canary"


def promoted(registry: Registry, *numbers: int) -> None:
    for i, number in enumerate(numbers):
        expected = registry.champion()
        registry.promote(number, expected=expected and expected.number, op_id=op_id("promote", i), reason="x")


def test_rollback_goes_back_step_by_step(registry: Registry) -> None:
    promoted(registry, 1, 2, 3)
    assert registry.rollback(expected=3, op_id="r1", reason="bad", by="ann").number == 2
    assert registry.rollback(expected=3, op_id="r1", reason="bad", by="ann").number == 2
    assert registry.champion().number == 2
    with pytest.raises(PromotionConflict, match="churn@champion is v2, expected v3: nothing is rolled back"):
        registry.rollback(expected=3, op_id="r2", reason="again")
    assert registry.rollback(expected=2, op_id="r3", reason="worse").number == 1
    with pytest.raises(RegistryError, match="no champion before v1"):
        registry.rollback(expected=1, op_id="r4", reason="x")
    (note,) = registry.get(3).notes["rollback"]
    assert (note["to"], note["reason"], note["by"]) == (2, "bad", "ann")
    assert registry.get(1).notes == {}
    last = registry.history()[-1]
    assert (last["action"], last["version"], last["replaced"], last["reason"]) == ("rollback", 1, 2, "worse")
    registry.promote(3, expected=1, op_id="p", reason="fixed")
    assert registry.rollback(expected=3, op_id="r5", reason="x").number == 1


def test_a_retired_version_never_serves_again(registry: Registry) -> None:
    promoted(registry, 1, 2, 1, 3)
    with pytest.raises(RegistryError, match="churn v3 is the champion: it cannot be retired"):
        registry.retire(3, op_id="t", reason="x")
    registry.set_challenger(2, op_id="c")
    retired = registry.retire(2, op_id="t2", reason="unfair", by="ann")
    assert (retired.status, registry.challenger()) == ("retired", None)
    assert retired.notes["retirement"][0]["reason"] == "unfair"
    with pytest.raises(RegistryError, match="churn v2 is retired"):
        registry.promote(2, expected=3, op_id="p", reason="x")
    with pytest.raises(RegistryError, match="churn v2 is retired"):
        registry.set_challenger(2, op_id="c2")
    assert registry.rollback(expected=3, op_id="r1", reason="x").number == 1
    with pytest.raises(RegistryError, match="no champion before v1"):
        registry.rollback(expected=1, op_id="r2", reason="x")


def test_a_champion_never_stands_before_itself(registry: Registry) -> None:
    promoted(registry, 1, 2, 1)
    registry.retire(2, op_id="t", reason="x")
    with pytest.raises(RegistryError, match="no champion before v1"):
        registry.rollback(expected=1, op_id="r", reason="x")


def test_tags(registry: Registry) -> None:
    registry.tag(1, "stage", "shadow", op_id="a")
    registry.tag(1, "cost", 3, op_id="b")
    assert registry.tag(1, "stage", "live", op_id="c").tags == {"stage": "live", "cost": 3}
    assert registry.tag(1, "stage", None, op_id="d").tags == {"cost": 3}
    assert registry.tag(1, "none", None, op_id="e").tags == {"cost": 3}
    registry.get(1).tags["cost"] = 4
    assert Registry(registry.store, "churn").get(1).tags == {"cost": 3}


def test_headline_metrics_are_those_of_the_evaluation(registry: Registry) -> None:
    assert registry.get(1).metrics == {"roc_auc": 0.6}
    metrics = {"roc_auc": {"name": "roc_auc", "candidate": 0.81, "champion": 0.8}, "broken": {"candidate": None}}
    assert registry.annotate(1, "evaluation", {"metrics": metrics}, op_id="e").metrics == {"roc_auc": 0.81}
    assert registry.register({"model": {"digest": "d" * 64}}, op_id="m").model == "d" * 64


def test_a_fleet_commits_once(registry: Registry) -> None:
    before = len(registry.log.entries())
    records = {f"K{i}": {"x": i, "model": {"digest": f"{i:064}"}} for i in range(50)}
    versions = registry.register_many(records, op_id="many")
    assert {k: (v.number, v.record) for k, v in versions.items()} == {k: (1, r) for k, r in records.items()}
    assert registry.register_many({"other": {}}, op_id="many").keys() == records.keys()
    assert len(registry.log.entries()) == before + 1
    assert registry.register_many({}, op_id="none") == {}
    with pytest.raises(RegistryError, match="batch of another kind"):
        registry.promote_many({"K1": (1, None)}, op_id="many", reason="x")
    with pytest.raises(RegistryError, match="1 is not a model key"):
        registry.register_many({1: {}}, op_id="wrong")
    fresh = Registry(registry.store, "churn")
    assert fresh.get(1, "K7").record == records["K7"]
    fresh.get(1, "K7").record["x"] = "changed"
    assert fresh.get(1, "K7").record == records["K7"]
    assert len(fresh.keys()) == 51
    rows = [h for h in fresh.history() if h["op_id"] == "many"]
    assert [(h["action"], h["version"]) for h in rows] == [("register", 1)] * 50


def test_a_fleet_is_promoted_but_for_its_conflicts(registry: Registry) -> None:
    keys = ["a", "b", "c", "d"]
    for i in range(2):
        registry.register_many({k: {} for k in keys}, op_id=f"r{i}")
    registry.promote(1, expected=None, op_id="p", reason="x", key="b")
    registry.retire(2, op_id="t", reason="x", key="c")
    before = len(registry.log.entries())
    many = dict.fromkeys(keys, (2, None))
    for _ in range(2):  # also when the conflict is gone by then
        done = registry.promote_many(many, op_id="many", reason="gates", by="ann")
        assert {k: v.number for k, v in done.items() if not isinstance(v, Exception)} == {"a": 2, "d": 2}
        assert done["b"].message == "churn[b]@champion is v1, expected none: re-evaluate"
        assert "churn[c] v2 is retired" in done["c"].message
        assert len(registry.log.entries()) == before + 1
        assert registry.champion("b").number == 1
        assert registry.champion("c") is None
        registry = Registry(registry.store, "churn")
    left = registry.promote_many({"a": (1, None), "b": (2, 2)}, op_id="none", reason="x")
    assert all(isinstance(v, PromotionConflict) for v in left.values())
    with pytest.raises(VersionNotFound, match=r"churn\[zz\] has no version 1"):
        registry.promote_many({"a": (1, 2), "zz": (1, None)}, op_id="bad", reason="x")
    assert len(registry.log.entries()) == before + 1
    assert registry.history()[-1] | {"at": 0, "op_id": 0, "seq": 0} == {
        "seq": 0, "at": 0, "action": "promote", "key": "d", "version": 2, "replaced": None, "kind": None,
        "reason": "gates", "by": "ann", "window": None, "op_id": 0,
    }  # fmt: skip
    # Each model goes on alone.
    registry.promote(1, expected=2, op_id="alone", reason="x", key="a")
    assert registry.rollback(expected=1, op_id="back", reason="x", key="a").number == 2


def test_missing_items_of_a_fleet_are_found(registry: Registry) -> None:
    registry.register_many({"a": {}, "b": {}}, op_id="r")
    digest = registry.log.entries()[-1].payload["items"]
    registry.store.delete(f"blobs/{digest[:2]}/{digest}")
    with pytest.raises(CorruptObject, match=r"items .* entry 4 are missing"):
        Registry(registry.store, "churn").champion()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and packs of a few entries."""
    monkeypatch.setattr("airflow_mlops.registry.log._CHECKPOINT", 4)
    monkeypatch.setattr("airflow_mlops.registry.log._PACK", 4)
    monkeypatch.setattr("airflow_mlops.registry.pages.ROWS", 4)


class Counting(LocalStore):
    """Remembers what was read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.got: list[str] = []

    def get(self, key: str) -> bytes:
        self.got.append(key)
        return super().get(key)


def test_a_checkpoint_stands_for_the_entries(small: None, tmp_path: Path) -> None:
    registry = Registry(LocalStore(tmp_path), "churn")
    for i in range(20):
        registry.register({"x": i}, op_id=op_id("r", i))
    registry.promote(7, expected=None, op_id="p", reason="x")
    store = Counting(tmp_path)
    fresh = Registry(store, "churn")
    assert fresh.champion().number == 7
    entries = [k for k in store.got if "/log/" in k and not k.endswith("HEAD")]
    assert entries == ["pipelines/churn/log/0000000021.json", "pipelines/churn/log/0000000022.json"]
    assert len(store.got) == 6  # and the hint, the root, the page of models, the page of the champion
    store.got.clear()
    assert fresh.get(3).record == {"x": 2}
    assert "pipelines/churn/log/0000000003.json" in store.got
    assert [v.number for v in fresh.versions()] == list(range(1, 21))
    assert fresh.register({}, op_id=op_id("r", 2)).number == 3


@pytest.mark.parametrize("part", ["root", "models", "versions", "entries"])
@pytest.mark.parametrize("damage", [None, b"[]", b"\xff"])
def test_a_damaged_checkpoint_is_done_without_and_mended(
    small: None, tmp_path: Path, part: str, damage: bytes | None
) -> None:
    store = LocalStore(tmp_path)
    registry = Registry(store, "churn")
    for i in range(13):
        registry.register({"x": i}, op_id=op_id("r", i))
    checkpoint = json.loads(store.get("pipelines/churn/log/HEAD"))["checkpoint"]
    root = get_json(store, checkpoint["digest"])
    digest = checkpoint["digest"] if part == "root" else root[part]["pages"][0]
    if part == "models":
        digest = digest[2]
    key = f"blobs/{digest[:2]}/{digest}"
    store.delete(key) if damage is None else store.put(key, damage)
    fresh = Registry(store, "churn")
    assert [v.record["x"] for v in fresh.versions()] == list(range(13))
    assert fresh.register({}, op_id=op_id("r", 0)).number == 1
    fresh.register({"x": 13}, op_id="new")
    head = json.loads(store.get("pipelines/churn/log/HEAD"))
    assert head["checkpoint"]["seq"] == head["seq"] == 14
    root = get_json(store, head["checkpoint"]["digest"])
    assert all(get_blob(store, page) for table in ("versions", "entries") for page in root[table]["pages"])
    assert all(get_blob(store, page) for _, _, page in root["models"]["pages"])
    assert [v.number for v in Registry(store, "churn").versions()] == list(range(1, 15))


def test_a_checkpoint_of_another_log_is_refused(small: None, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for name in ("churn", "fraud"):
        for i in range(6):
            Registry(store, name).register({"of": name}, op_id=op_id(name, i))
    store.put("pipelines/churn/log/HEAD", store.get("pipelines/fraud/log/HEAD"))
    assert Registry(store, "churn").versions()[5].record == {"of": "churn"}


def corruptible() -> tuple[LocalStore, list[str]]:
    """A store with every kind of object in it, and their keys."""
    store = LocalStore(tempfile.mkdtemp())
    for name in ("churn", "fraud"):
        for i in range(5):
            registry = Registry(store, name)
            registry.register({"of": name, "x": i}, op_id=op_id(name, i))
            registry.annotate(i + 1, "gates", {"x": i}, op_id=op_id(name, "note", i))
        registry.register_many({"a": {"of": name}, "b": {}}, op_id="many")
        registry.promote_many({"a": (1, None), "b": (1, None)}, op_id="promote", reason="x")
        registry.promote(2, expected=None, op_id="p", reason="x")
    overview(store)
    return store, [*store.list("")]


def everything(store: LocalStore) -> list[object]:
    found: list[object] = []
    for name in ("churn", "fraud"):
        registry = Registry(store, name)
        keys = registry.keys()
        for key in keys:
            for v in registry.versions(key):
                found.append([name, key, v.number, v.status, v.registered_at, v.promoted_at, v.record, v.notes])
        found.append(registry.history())
    return [*found, overview(store)]


def test_damage_is_detected_or_harmless(small: None) -> None:
    store, keys = corruptible()
    rng = random.Random(11)
    sound, detected, harmless = everything(store), 0, 0
    try:
        for turn in range(int(os.environ.get("CORRUPTIONS", "300"))):
            key, other = rng.sample(keys, 2)
            before = {k: store.get(k) for k in (key, other)}
            raw = bytearray(before[key])
            match rng.choice(["flip", "truncate", "delete", "swap"]):
                case "flip":
                    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
                    (store.path / key).write_bytes(raw)
                case "truncate":
                    (store.path / key).write_bytes(raw[: rng.randrange(len(raw))])
                case "delete":
                    (store.path / key).unlink()
                case "swap":
                    (store.path / key).write_bytes(before[other])
                    (store.path / other).write_bytes(raw)
            try:
                assert everything(store) == sound, f"turn {turn}: {key}"
                harmless += 1
            except CorruptObject:
                detected += 1
            for k, data in before.items():
                (store.path / k).write_bytes(data)
            (store.path / "index.json").write_bytes(before.get("index.json") or store.get("index.json"))
    finally:
        shutil.rmtree(store.path)
    assert detected
    assert harmless


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
