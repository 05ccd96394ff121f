"""Every kind of object is damaged in turn: the finding says what it is, what is still good, and what to do."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import StoreUnavailable
from airflow_mlops.ml.prediction import write_capture
from airflow_mlops.ml.schema import lock_schema
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.ml.wear import claim_use
from airflow_mlops.registry import Registry, blobs, op_id
from airflow_mlops.registry import log as log_module
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.findings import Finding, Report
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.overview import overview
from airflow_mlops.store import LocalStore, get_json, layout, put_blob, put_json
from airflow_mlops.window import Window

WINDOW = Window.of("2013-01-01", "2013-02-01")


def rows(n: int) -> pa.RecordBatch:
    return pa.record_batch({"id": [1, 2, n], "y": [0.5, 1.5, n / 2]})


@pytest.fixture(autouse=True, scope="module")
def small_summaries() -> Iterator[None]:
    """Packs and checkpoints after a few entries, to have some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "_PACK", 8)
        patch.setattr(log_module, "_CHECKPOINT", 10)
        yield


@pytest.fixture
def store(template: LocalStore, tmp_path: Path) -> LocalStore:
    shutil.copytree(template.path, tmp_path / "store")
    return LocalStore(tmp_path / "store")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    """churn v1 to v4 with champion v3 after v2, and a fleet."""
    store = LocalStore(tmp_path_factory.mktemp("template"))
    registry = Registry(store, "churn")
    for n in (1, 2, 3, 4):
        (snapshot,) = write_snapshots(store, "churn", [(rows(n),)], rows(n).schema, window=WINDOW, sources=[{}])
        model = {"format": "skops", "digest": put_blob(store, b"PK\x03\x04 model %d" % n)}
        validation = {"validation": {"result": put_json(store, {"checks": n})}}
        record = {"model": model, "snapshot": snapshot.to_ref() | validation, "trials": put_json(store, [n])}
        registry.register(record, op_id=op_id("r", n))
        digests = {name: put_blob(store, f"PAR1 {name} {n}".encode()) for name in ("evaluation", "sample", "expected")}
        registry.annotate(n, "evaluation", digests, op_id=op_id("e", n))
    for old, new in itertools.pairwise((None, 1, 2, 3)):
        registry.promote(new, expected=old, op_id=op_id("p", new), reason="gates")
    lock_schema(snapshot, store, Data(source="x", target="y"))
    write_capture(store, "churn", WINDOW, [rows(9)], model_version=3)
    write_check(store, "churn", WINDOW, "drift", {"verdict": "passed"})
    write_check(store, "churn", WINDOW, "drift", {"verdict": "passed"}, rehearsal=True)
    fleet = Registry(store, "fleet")
    fleet.register_many({k: {"model": {"digest": put_blob(store, k.encode())}} for k in ("JFK", "LGA")}, op_id=op_id(1))
    fleet.promote_many({"JFK": (1, None), "LGA": (1, None)}, op_id=op_id(2), reason="gates")
    overview(store)
    return store


def record(store: LocalStore, n: int) -> dict:
    return Registry(store, "churn").get(n).record


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def damage(store: LocalStore, key: str) -> None:
    raw = store.get(key)
    store.put(key, raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])


def test_a_sound_store(store: LocalStore) -> None:
    report = check(store)
    assert report.findings == []
    assert report.status == 0
    assert report.pipelines == {
        "churn": "churn: 4 of 4 versions can be loaded, champion v3.",
        "fleet": "fleet: 2 of 2 versions can be loaded, 2 champions.",
    }
    assert report.text().endswith("all sound.")
    assert report.objects == len(list(store.list("blobs/"))) > 30
    shallow = check(store, deep=False)
    assert (shallow.findings, shallow.status) == ([], 0)
    assert "contents not verified" in shallow.sentence


def test_an_empty_store_is_not_called_sound(tmp_path: Path) -> None:
    report = check(LocalStore(tmp_path / "misspelt"))
    assert "there is nothing in it. If there should be, check [mlops] store" in report.text()
    assert "sound" not in report.text()
    assert report.status == 0


def test_the_champions_model(store: LocalStore) -> None:
    key = layout.blob(record(store, 3)["model"]["digest"])
    damage(store, key)
    report = check(store)
    finding = only(report)
    assert finding.key == key
    assert finding.what.startswith("The model of churn v3, which is the champion, is damaged")
    assert finding.sound == "v1 to v2, v4 can be loaded; v2 is a sound champion to roll back to"
    assert (
        "backup; or `airflow mlops registry rollback churn --expected 3 --reason damaged`; or run the training again"
        in finding.do
    )
    assert report.status == 2
    assert report.pipelines["churn"] == "churn: 3 of 4 versions can be loaded, champion v3."
    assert "fleet: 2 of 2 versions can be loaded" in report.pipelines["fleet"]
    assert max(len(line) for line in report.text().splitlines() if "file://" not in line and line != key) <= 80
    assert report.to_dict()["findings"][0]["severity"] == "damage"
    assert report.text().endswith("verified: 1 damaged.")


def test_the_champions_model_where_the_one_before_is_damaged_too(store: LocalStore) -> None:
    for n in (2, 3):
        store.delete(layout.blob(record(store, n)["model"]["digest"]))
    findings = check(store).findings
    assert [f.what for f in findings] == [
        "The model of churn v2 is missing.",
        "The model of churn v3, which is the champion, is missing.",
    ]
    assert "roll back" not in findings[1].sound
    assert "promote v4" in findings[1].do


BLOBS: list[tuple[Callable[[LocalStore], str], str, str]] = [
    (lambda s: record(s, 1)["snapshot"]["snapshot"], "The list of contents of the snapshot of churn v1 is", "v1 can"),
    (
        lambda s: get_json(s, record(s, 1)["snapshot"]["snapshot"])["files"][0]["digest"],
        "The snapshot (file 1 of 1) of churn v1 is",
        "v1 can be loaded",
    ),
    (lambda s: record(s, 1)["trials"], "The record of the search of churn v1 is", "v1 can be loaded"),
    (
        lambda s: Registry(s, "churn").get(1).notes["evaluation"][0]["sample"],
        "The evaluation (sample) of churn v1 is",
        "v1 can be loaded",
    ),
    (
        lambda s: record(s, 1)["snapshot"]["validation"]["result"],
        "The result of the validation of churn v1 is",
        "v1 can be loaded",
    ),
    (lambda s: Registry(s, "fleet").get(1, "LGA").record["model"]["digest"], "The model of fleet[LGA] v1, which", ""),
]


@pytest.mark.parametrize(("find", "what", "sound"), BLOBS, ids=[what for _, what, _ in BLOBS])
@pytest.mark.parametrize("how", [damage, LocalStore.delete], ids=["damaged", "missing"])
def test_blobs(store: LocalStore, find: Callable, what: str, sound: str, how: Callable) -> None:
    key = layout.blob(find(store))
    how(store, key)
    finding = only(check(store))
    assert (finding.key, finding.severity) == (key, "damage")
    assert finding.what.startswith(what)
    assert ("missing" in finding.what) == (how is LocalStore.delete)
    assert sound in finding.sound
    assert "backup" in finding.do


@pytest.mark.parametrize("kind", ["markdown", "html"])
def test_model_cards(store: LocalStore, kind: str) -> None:
    card = {name: put_blob(store, f"{name} card".encode()) for name in ("markdown", "html")}
    Registry(store, "churn").annotate(1, "card", card, op_id=op_id("card"))
    assert [f for f in check(store).findings if f.severity == "damage"] == []
    damage(store, layout.blob(card[kind]))
    (finding,) = [f for f in check(store).findings if f.severity == "damage"]
    assert finding.what.startswith(f"The model card ({kind}) of churn v1 is damaged")
    assert (finding.sound, "or run the gates again" in finding.do) == ("churn v1 can be loaded", True)


def test_rows_kept_with_a_capture(store: LocalStore) -> None:
    batch = pa.RecordBatch.from_pydict({"id": [1, 2], "x": [3, 4]})
    ref = write_capture(store, "churn", WINDOW, [batch], model_version=3, raw=[batch.slice(1)], id_column="id")
    assert [f for f in check(store).findings if f.severity == "damage"] == []
    damage(store, layout.blob(get_json(store, ref["capture"])["raw"]["file"]))
    (finding,) = [f for f in check(store).findings if f.severity == "damage"]
    assert "its data is damaged" in finding.what


def test_captures(store: LocalStore) -> None:
    (pointer,) = store.list(layout.captures_prefix("churn"))
    digest = json.loads(store.get(pointer))["capture"]
    file = layout.blob(get_json(store, digest)["file"])
    damage(store, file)
    finding = only(check(store))
    assert finding.what.startswith("The capture of churn for 2013-01-01")
    assert "its data is damaged" in finding.what
    store.put(pointer, b'{"capture": 7')
    first, second = check(store).findings
    assert first.what == "A pointer to a capture of churn is damaged: it is no JSON."
    assert "batch inference of this window again" in first.do
    assert (second.severity, second.key) == ("note", file)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (layout.schema("churn"), "The locked schema of churn is damaged"),
        (layout.check("churn", WINDOW.key, "drift"), "A result of a check of churn is damaged"),
        (layout.check("churn", WINDOW.key, "drift", rehearsal=True), "A result of a check of churn is damaged"),
    ],
)
@pytest.mark.parametrize("data", [b"", b"[]", b'{"window": {}}'])
def test_small_records(store: LocalStore, key: str, what: str, data: bytes) -> None:
    store.put(key, data)
    finding = only(check(store))
    assert finding.key == key
    assert finding.what.startswith(what)
    assert finding.do


def entry(n: int) -> str:
    return layout.log_entry(layout.log_prefix("churn"), n)


def without_packs(store: LocalStore) -> None:
    store.delete(layout.log_head(layout.log_prefix("churn")))


def test_a_damaged_entry_in_the_middle(store: LocalStore) -> None:
    without_packs(store)
    damage(store, entry(5))
    report = check(store, ["churn"])
    finding = only(report)
    assert finding.what.startswith("Entry 5 of 11 of the registry of churn is damaged")
    assert finding.sound == "entries 1 to 4 and 6 later entries; they tell of churn v1 to v2, v4 with champion v3"
    assert "nothing can be registered or promoted" in finding.do
    assert report.pipelines["churn"] == (
        "churn: 3 of 3 versions can be loaded, champion v3, 1 of 11 log entries damaged."
    )


def test_a_missing_entry(store: LocalStore) -> None:
    without_packs(store)
    store.delete(entry(2))
    finding = only(check(store, ["churn"]))
    assert finding.what == "Entry 2 of 11 of the registry of churn is missing."


def test_the_last_entry_is_missing_and_the_hint_knows(store: LocalStore) -> None:
    store.delete(entry(11))
    assert only(check(store, ["churn"])).what == "Entry 11 of 11 of the registry of churn is missing."


def test_an_entry_that_was_replaced_by_another(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    for n in range(6):
        Registry(other, "churn").register({"n": n}, op_id=op_id(n))
    without_packs(store)
    store.put(entry(5), other.get(entry(5)))
    report = check(store, ["churn"])
    assert only(report).what == "Entry 5 of 11 of the registry of churn is not the entry that was committed there."


def test_a_damaged_entry_that_a_pack_holds(store: LocalStore) -> None:
    damage(store, entry(2))
    report = check(store)
    finding = only(report)
    assert "a pack holds a sound copy" in finding.sound
    assert report.pipelines["churn"].startswith("churn: 4 of 4 versions can be loaded, champion v3")


def test_the_items_of_a_batch(store: LocalStore) -> None:
    first = Registry(store, "fleet").log.entries()[0]
    damage(store, layout.blob(first.payload["items"]))
    report = check(store, ["fleet"])
    assert [f.severity for f in report.findings] == ["damage"]
    assert "Entry 1 of 2 of the registry of fleet" in report.findings[0].what


def test_a_damaged_ledger(store: LocalStore) -> None:
    store.put(layout.log_entry(layout.ledger_prefix("churn"), 1), b"{}")
    assert only(check(store)).what.startswith("Entry 1 of 1 of the retrain ledger of churn is damaged")


def test_decisions_on_a_holdout(store: LocalStore) -> None:
    holdout = "ab" * 32
    for n in range(3):
        claim_use(store, "churn", holdout, candidate=f"c{n}", champion=None, limit=20)
    assert check(store).findings == []
    store.put(layout.log_entry(layout.holdout_prefix("churn", holdout), 2), b"{}")
    finding = only(check(store))
    assert (
        finding.what
        == "Entry 2 of 3 of the decisions on holdout abababababab of churn is damaged: it is no log entry, "
        "or does not match its checksum."
    )
    assert "no other candidate is judged on it" in finding.do
    store.put(layout.holdouts_prefix("churn") + "notes.txt", b"x")
    assert [f.severity for f in check(store).findings] == ["damage", "note"]


def test_one_model_of_a_fleet_can_be_rolled_back(store: LocalStore) -> None:
    fleet = Registry(store, "fleet")
    info = {"digest": put_blob(store, b"LGA 2")}
    fleet.register({"model": info}, op_id=op_id("two"), key="LGA")
    fleet.promote(2, expected=1, op_id=op_id("p2"), reason="gates", key="LGA")
    damage(store, layout.blob(info["digest"]))
    assert "`airflow mlops registry rollback 'fleet[LGA]' --expected 2 --reason damaged`" in only(check(store)).do


def test_a_champion_does_not_stand_before_itself(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    registry.promote(4, expected=3, op_id=op_id("p4"), reason="gates")
    registry.promote(3, expected=4, op_id=op_id("p3"), reason="by hand")
    registry.retire(4, op_id=op_id("x"), reason="leaked")
    store.delete(layout.blob(record(store, 3)["model"]["digest"]))
    assert "v2 is a sound champion to roll back to" in only(check(store)).sound


def derived(store: LocalStore) -> dict[str, Callable[[], None]]:
    head = layout.log_head(layout.log_prefix("churn"))
    named = json.loads(store.get(head))
    return {
        "head": lambda: store.put(head, b"{"),
        "pack": lambda: damage(store, layout.blob(named["packs"][0])),
        "checkpoint": lambda: store.delete(layout.blob(named["checkpoint"]["digest"])),
        "index": lambda: damage(store, layout.index()),
    }


@pytest.mark.parametrize("kind", ["head", "pack", "checkpoint", "index"])
def test_what_is_derived_is_harmless_and_repaired(store: LocalStore, kind: str) -> None:
    assert derived(store).keys() == {"head", "pack", "checkpoint", "index"}
    records = {key: store.get(key) for key in store.list("pipelines/") if not key.endswith("HEAD")}
    derived(store)[kind]()
    report = check(store)
    assert {f.severity for f in report.findings} == {"derived"}
    assert report.status == 1
    assert "nothing: " in only(report).do
    repaired = check(store, repair=True)
    assert only(repaired).repaired
    assert repaired.status == 0
    assert Registry(store, "churn").champion().number == 3
    Registry(store, "churn").tag(1, "a", 1, op_id=op_id("a"))
    overview(store)
    assert check(store).findings == []
    assert {key: store.get(key) for key in records} == records


def test_repair_leaves_records_and_blobs_alone(store: LocalStore) -> None:
    damage(store, layout.blob(record(store, 3)["model"]["digest"]))
    damage(store, entry(11))
    store.put(layout.schema("churn"), b"")
    before = {key: store.get(key) for key in store.list("")}
    assert check(store, repair=True).status == 2
    assert {key: store.get(key) for key in store.list("")} == before


def test_what_does_not_belong(store: LocalStore) -> None:
    store.put("notes.txt", b"hello")
    store.put("blobs/ab/readme", b"hello")
    digest = put_blob(store, b"garbage")
    damage(store, layout.blob(digest))
    (store.path / "pipelines" / ".tmp-1").write_bytes(b"half")
    report = check(store)
    assert report.status == 0
    assert {f.severity for f in report.findings} == {"note"}
    keys = {layout.blob(digest), "blobs/ab/readme", "notes.txt", "pipelines/.tmp-1"}
    assert {f.key for f in report.findings} == keys


def test_what_is_in_the_trash_is_not_lost(store: LocalStore) -> None:
    key = layout.blob(record(store, 3)["model"]["digest"])
    store.move(key, f"trash/{key}.20260101T000000Z-00000000")
    finding = only(check(store))
    assert (finding.severity, finding.what) == (
        "derived",
        "The model of churn v3, which is the champion, is in the trash.",
    )
    assert collect(store).restored["blobs"].objects == 1
    assert check(store).findings == []


def test_a_disk_that_cannot_read_one_object(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    key = layout.blob(record(store, 1)["model"]["digest"])
    read = LocalStore.peek

    def peek(self: LocalStore, name: str, length: int) -> bytes:
        if name == key:
            raise StoreUnavailable("Input/output error") from OSError(5, "Input/output error")
        return read(self, name, length)

    monkeypatch.setattr(LocalStore, "peek", peek)
    assert only(check(store)).what == "The model of churn v1 cannot be read (Input/output error)."


def test_a_store_that_does_not_answer_is_raised(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def peek(self: LocalStore, name: str, length: int) -> bytes:
        raise StoreUnavailable("503 SlowDown")

    monkeypatch.setattr(LocalStore, "peek", peek)
    with pytest.raises(StoreUnavailable):
        check(store)


def test_large_blobs_are_verified_on_disk(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_SMALL", 4)
    assert check(store).findings == []
    damage(store, layout.blob(record(store, 1)["model"]["digest"]))
    assert only(check(store)).what.startswith("The model of churn v1 is damaged")


def test_a_stray_file_among_the_pipelines_stops_nobody(store: LocalStore) -> None:
    for name in ("pipelines/.DS_Store", "pipelines/notes.txt", "pipelines/.hidden/x.json"):
        path = store.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    collect(store, dry_run=True)
    assert {summary.pipeline for summary in overview(store)} == {"churn", "fleet"}
    assert check(store).status < 2


def test_no_rollback_to_a_retired_version_is_advised(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    registry.retire(2, op_id=op_id("retire"), reason="test")
    damage(store, layout.blob(record(store, 3)["model"]["digest"]))
    (finding,) = [f for f in check(store).findings if f.what.startswith("The model of churn v3")]
    assert finding.sound.endswith("v1 is a sound champion to roll back to")
    assert Registry(store, "churn").rollback(expected=3, op_id=op_id("back"), reason="damaged").number == 1
