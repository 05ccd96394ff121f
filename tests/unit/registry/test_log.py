from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.exceptions import (
    CorruptObject,
    ObjectExists,
    PromotionConflict,
    RegistryError,
    StoreError,
    StoreUnavailable,
)
from airflow_mlops.registry import Entry, Log, Registry, op_id
from airflow_mlops.registry.entry import sealed, unsealed
from airflow_mlops.store import LocalStore


class Faulty(LocalStore):
    """Does what ``plan`` says at each put-if-absent: fine, lost request, lost reply, or a repeat that meets itself."""

    def __init__(self, path: Path, plan: list[str]) -> None:
        super().__init__(path)
        self.plan = plan
        self.calls: list[str] = []

    def get(self, key: str) -> bytes:
        self.calls.append(f"get {key}")
        return super().get(key)

    def list(self, prefix: str):
        self.calls.append(f"list {prefix}")
        return super().list(prefix)

    def put_if_absent(self, key: str, data: bytes) -> None:
        fault = self.plan.pop(0) if self.plan else "fine"
        if fault != "request lost":
            super().put_if_absent(key, data)
        if fault in ("request lost", "reply lost"):
            raise StoreUnavailable(fault)
        if fault == "met itself":
            raise ObjectExists(key)


def filled(path: Path, n: int = 10) -> LocalStore:
    store = LocalStore(path)
    log = Log(store, "log/")
    for i in range(n):
        log.append("t", {"i": i}, op_id=op_id(i))
    return store


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    store = filled(tmp_path)
    entries = Log(store, "log/").entries()
    assert [e.seq for e in entries] == list(range(1, 11))
    assert [e.payload["i"] for e in entries] == list(range(10))
    assert [e.prev for e in entries] == ["", *(e.checksum for e in entries[:-1])]
    assert all(e.at.endswith("+00:00") and e.key is None and e.type == "t" for e in entries)


def test_an_operation_is_committed_once(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    again = Log(store, "log/").append("t", {"i": "other"}, op_id=op_id(1))
    assert (again.seq, again.payload) == (2, {"i": 1})
    assert len(Log(store, "log/").entries()) == 3
    assert Log(store, "log/").find(op_id(1)) == again
    assert Log(store, "log/").find(op_id(99)) is None


def test_an_operation_id_serves_one_action(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    with pytest.raises(RegistryError, match="operation id of its own"):
        Log(store, "log/").append("u", {}, op_id=op_id(1))
    with pytest.raises(RegistryError, match="entry 2"):
        Log(store, "log/").append("t", {}, op_id=op_id(1), key="LGA")


def test_op_id_depends_on_every_part() -> None:
    ids = [
        op_id("d", "r", "t", -1, "a"),
        op_id("d", "r", "t", 0, "a"),
        op_id("d", "r", "ta"),
        op_id(["d", "r", "t"], -1, "a"),
    ]
    assert len(set(ids)) == 4
    assert ids[0] == op_id("d", "r", "t", -1, "a")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["fine", "request lost", "reply lost", "met itself"]), max_size=12))
def test_lost_requests_and_replies_commit_once(tmp_path_factory: pytest.TempPathFactory, plan: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda _: None)
        store = Faulty(tmp_path_factory.mktemp("log"), plan)
        for i in range(5):
            while True:  # as a task retry would
                try:
                    entry = Log(store, "log/").append("t", {"i": i}, op_id=op_id(i))
                    break
                except StoreUnavailable:
                    continue
            assert (entry.seq, entry.payload) == (i + 1, {"i": i})
    assert [e.payload["i"] for e in Log(store, "log/").entries()] == list(range(5))


def test_check_and_payload_see_the_state_at_each_attempt(tmp_path: Path) -> None:
    store = filled(tmp_path, 2)
    seen: list[int] = []

    def check(state: int) -> None:
        seen.append(state)
        if len(seen) == 1:  # another writer is faster, once
            Log(store, "log/").append("t", {"i": "fast"}, op_id=op_id("fast"))
        if state > 5:
            raise PromotionConflict("too many")

    log = Log(store, "log/", len)
    entry = log.append("t", lambda state: {"before": state}, op_id=op_id("slow"), check=check)
    assert seen == [2, 3]
    assert (entry.seq, entry.payload) == (4, {"before": 3})
    for i in range(10, 12):
        log.append("t", {}, op_id=op_id(i))
    with pytest.raises(PromotionConflict):
        log.append("t", {}, op_id=op_id("late"), check=check)
    assert len(log.entries()) == 6


def test_what_is_not_json_writes_nothing(tmp_path: Path) -> None:
    log = Log(LocalStore(tmp_path), "log/")
    with pytest.raises(ValueError, match="JSON"):
        log.append("t", {"auc": float("nan")}, op_id="a")
    with pytest.raises(TypeError):
        log.append("t", {"auc": object()}, op_id="a")
    assert log.entries() == ()


def test_the_callers_dict_is_not_kept(tmp_path: Path) -> None:
    log = Log(LocalStore(tmp_path), "log/")
    payload = {"a": [1]}
    log.append("t", payload, op_id="a")
    payload["a"].append(2)
    assert log.entries()[0].payload == {"a": [1]}


def test_reading_lists_nothing_and_reads_nothing_twice(tmp_path: Path) -> None:
    filled(tmp_path, 40)
    store = Faulty(tmp_path, [])
    log = Log(store, "log/")
    assert len(log.entries()) == 40
    assert len(store.calls) == 42  # the hint, 40 entries, and one look behind the last
    store.calls.clear()
    assert len(log.entries()) == 40
    assert store.calls == ["get log/0000000041.json"]


def test_packs_save_requests_and_are_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.registry.log._PACK", 8)
    whole = Log(filled(tmp_path, 35), "log/").entries()
    store = Faulty(tmp_path, [])
    log = Log(store, "log/")
    assert log.entries() == whole
    assert len(store.calls) == 1 + 4 + 3 + 1  # the hint, 4 packs, 3 entries, one look behind the last
    packs = json.loads(store.get("log/HEAD"))["packs"]
    log.append("t", {"i": 35}, op_id=op_id(35))
    assert json.loads(store.get("log/HEAD"))["packs"] == packs
    blobs = [f"blobs/{p[:2]}/{p}" for p in packs]
    store.delete(blobs[1])
    assert len(Log(store, "log/").entries()) == 36
    store.put(blobs[1], b"[]")
    assert len(Log(store, "log/").entries()) == 36
    head = unsealed(store.get("log/HEAD"))
    for wrong in ([packs[1]], ["x"], [packs[0], packs[0]], [None], {"a": 1}):
        store.put("log/HEAD", sealed({**head, "packs": wrong}))
        assert len(Log(store, "log/").entries()) == 36
    Log(store, "log/").append("t", {"i": 36}, op_id=op_id(36))
    assert json.loads(store.get("log/HEAD"))["packs"] == packs
    assert store.get(blobs[1]) == b"[]"  # put-if-absent; the reader verifies and goes on without it


@pytest.mark.parametrize(
    "head",
    [None, b"", b"{}", b"[]", b"\xff", b'{"seq": null, "checksum": "", "packs": []}', sealed({"format": 2}),
     sealed({"format": 1}), sealed({"format": 1, "log": "other/", "seq": 99}), "old"],
)  # fmt: skip
def test_the_hint_may_be_lost_broken_or_old(tmp_path: Path, head: bytes | str | None) -> None:
    store = filled(tmp_path, 6)
    old = store.get("log/HEAD")
    Log(store, "log/").append("t", {"i": 6}, op_id=op_id(6))
    if head is None:
        store.delete("log/HEAD")
    else:
        store.put("log/HEAD", old if isinstance(head, str) else head)
    assert len(Log(store, "log/").entries()) == 7


def test_one_changed_character_of_the_hint_is_noticed(tmp_path: Path) -> None:
    store = filled(tmp_path, 6)
    head = store.get("log/HEAD")
    wrong = head.replace(b'"seq":6', b'"seq":7')
    assert wrong != head
    store.put("log/HEAD", wrong)
    assert len(Log(store, "log/").entries()) == 6


@pytest.mark.parametrize("seq", [2, 40, 99])
def test_a_gap_is_found_without_the_hint(tmp_path: Path, seq: int) -> None:
    """Where many entries follow; the first few are looked for one by one."""
    store = filled(tmp_path, 100)
    store.delete("log/HEAD")
    assert len(Log(store, "log/").entries()) == 100
    store.delete(f"log/{seq:010}.json")
    if seq > 4:
        with pytest.raises(CorruptObject, match=f"entry {seq} .*is missing"):
            Log(store, "log/").entries()


def test_a_reader_that_was_cut_off_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take the part it has read for the whole log, and a missing entry for its end."""
    store = filled(tmp_path)
    log = Log(store, "log/")
    get = store.get

    def cut(key: str) -> bytes:
        if key.endswith("06.json"):
            raise StoreUnavailable(key)
        return get(key)

    with monkeypatch.context() as patch:
        patch.setattr(store, "get", cut)
        with pytest.raises(StoreUnavailable):
            log.entries()
    store.delete("log/0000000006.json")
    with pytest.raises(CorruptObject, match=r"entry 6 .*is missing"):
        log.entries()


def test_a_failed_hint_does_not_undo_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)

    def fail(key: str, data: bytes) -> None:
        raise StoreError("no")

    monkeypatch.setattr(store, "put", fail)
    assert Log(store, "log/").append("t", {}, op_id="a").seq == 1
    assert len(Log(store, "log/").entries()) == 1


@pytest.mark.parametrize("seq", [1, 5, 10])
def test_a_missing_entry_is_found(tmp_path: Path, seq: int) -> None:
    store = filled(tmp_path)
    store.delete(f"log/{seq:010}.json")
    log = Log(store, "log/")
    for _ in range(2):  # the second look must not take the sound beginning for the whole
        with pytest.raises(CorruptObject, match=f"entry {seq} .*is missing"):
            log.entries()
    with pytest.raises(CorruptObject):
        log.append("t", {}, op_id="new")
    assert not store.exists("log/0000000011.json")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    store = filled(tmp_path_factory.mktemp("log"), 3)
    key = f"log/{data.draw(st.integers(1, 3)):010}.json"
    raw = bytearray(store.get(key))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    store.put(key, bytes(raw))
    with pytest.raises(CorruptObject, match=r"entry \d of the log log/ in file://"):
        Log(store, "log/").entries()


def test_a_rewritten_entry_is_found(tmp_path: Path) -> None:
    """An entry with a right checksum of its own, but another past."""
    store, other = filled(tmp_path / "a", 5), LocalStore(tmp_path / "b")
    log = Log(other, "log/")
    for i in range(5):
        log.append("t", {"i": i * 10}, op_id=op_id(i))
    for seq in (3, 5):
        store.put(f"log/{seq:010}.json", other.get(f"log/{seq:010}.json"))
        with pytest.raises(CorruptObject, match=r"does not follow|is not the entry"):
            Log(store, "log/").entries()
    store.delete("log/HEAD")
    with pytest.raises(CorruptObject, match="does not follow"):
        Log(store, "log/").entries()


def test_an_entry_in_anothers_place_is_found(tmp_path: Path) -> None:
    store = filled(tmp_path, 3)
    store.put("log/0000000002.json", store.get("log/0000000001.json"))
    with pytest.raises(CorruptObject, match="entry 2"):
        Log(store, "log/").entries()


WRITER = """
import sys
from airflow_mlops.registry import Log, op_id
from airflow_mlops.store import LocalStore
log = Log(LocalStore(sys.argv[1]), "log/")
print("ready", flush=True)
for i in range(int(sys.argv[2])):
    log.append("t", {"i": i}, op_id=op_id(i))
"""


def test_a_killed_writer_leaves_a_whole_log(tmp_path: Path) -> None:
    """SIGKILL at random points; the retry starts from the first operation and repeats none."""
    rng, total = random.Random(7), 60
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(total)], stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        entries = Log(LocalStore(tmp_path), "log/").entries()
        assert [e.payload["i"] for e in entries] == list(range(len(entries)))
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), str(total)], check=True, stdout=subprocess.DEVNULL)
    store = LocalStore(tmp_path)
    assert [e.payload["i"] for e in Log(store, "log/").entries()] == list(range(total))
    keys = list(store.list("log/"))
    assert keys == [f"log/{i:010}.json" for i in range(1, total + 1)] + ["log/HEAD"]
    assert json.loads(store.get("log/HEAD"))["seq"] == total


PAGE = Path(__file__).parents[3] / "docs" / "reference" / "store-format.md"


def test_the_worked_example_of_the_format() -> None:
    """Recomputed from the page alone, then read by the package."""
    text = PAGE.read_text()
    body, said = re.search(r"```json\n(\{\"at\".*?)\n```\n\nis `([0-9a-f]{64})`", text).groups()
    assert hashlib.sha256(body.encode()).hexdigest() == said
    assert Entry.parse(1, json.loads(body) | {"checksum": said}).payload["version"] == 1


def test_a_store_is_read_by_the_program_on_the_page(tmp_path: Path) -> None:
    program, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    store = LocalStore(tmp_path)
    registry = Registry(store, "churn")
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(4)]
    for i in range(3):
        registry.register({"model": {"digest": digests[i]}, "café": i}, op_id=f"r{i}")
        registry.promote(i + 1, expected=i or None, op_id=f"p{i}", reason="x")
    registry.rollback(expected=3, op_id="back", reason="x")
    registry.register_many({"a": {"model": {"digest": digests[3]}}, "b": {}}, op_id="many")
    registry.promote_many({"a": (1, None)}, op_id="promote", reason="x")
    names: dict[str, Any] = {}
    exec(program, names)
    assert names["champion_model"](tmp_path, "churn") == {None: digests[1], "a": digests[3]}
    key = "pipelines/churn/log/0000000003.json"
    store.put(key, store.get(key).replace(b'"version":2', b'"version":1'))
    with pytest.raises(ValueError, match="entry 3 is damaged"):
        names["champion_model"](tmp_path, "churn")


def test_a_disk_that_is_full_after_the_entry_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.exceptions import StoreError

    store = LocalStore(tmp_path)
    log = Log(store, "pipelines/p/log/")
    log.append("a", {}, op_id="1")
    put, full = store.put_if_absent, [True]

    def late(key: str, data: bytes) -> None:
        put(key, data)
        if full.pop():
            raise StoreError("no space left on device")

    monkeypatch.setattr(store, "put_if_absent", late)
    assert log.append("b", {}, op_id="2").seq == 2
    full.append(True)
    monkeypatch.setattr(store, "put_if_absent", lambda key, data: (_ for _ in ()).throw(StoreError("no space")))
    with pytest.raises(StoreError, match="no space"):
        log.append("c", {}, op_id="3")
    assert [e.op_id for e in Log(store, "pipelines/p/log/").entries()] == ["1", "2"]
