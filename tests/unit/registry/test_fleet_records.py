from __future__ import annotations

import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.exceptions import CorruptObject, PromotionConflict, RegistryError, VersionNotFound
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry.export import told
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.key_story import key_records
from airflow_mlops.registry.packs import write_pack
from airflow_mlops.registry.provenance import lineage, trained_by_code
from airflow_mlops.registry.records import Records
from airflow_mlops.registry.retention import expire
from airflow_mlops.registry.shared import merged
from airflow_mlops.store import LocalStore, get_blob, layout, put_blob, put_json

KEYS = ["a", "b", "c", "d", "e"]
OLD = datetime.now(UTC) - timedelta(days=100)


def shared_part(store: LocalStore, rows: bytes = b"rows") -> dict[str, Any]:
    """What all models of a training run share, with everything that it names in the store."""
    manifest = {"source": {"uri": "file:///d/flights.csv"}, "files": [{"digest": put_blob(store, rows)}]}
    window = {"start": "2013-01-01T00:00:00+00:00", "end": "2013-02-01T00:00:00+00:00"}
    return {
        "snapshot": {"snapshot": put_json(store, manifest), "fingerprint": "f" * 64, "rows": 5, "window": window},
        "config": {"data": {"target": "delay"}},
        "code": {"git": "c0ffee" * 6, "files": {}},
        "run": {"dag_id": "fleet__train", "run_id": "r1"},
        "estimator": "sklearn.linear_model.Ridge",
        "params": {"alpha": 1},
        "model": {
            "format": "pack",
            "prepare": {"format": "skops", "digest": put_blob(store, b"PK\x03\x04 prepare"), "bytes": 12},
            "environment": {"python": "3.12"},
        },
    }


def train(store: LocalStore, run: str, keys: list[str] = KEYS, rows: bytes = b"rows") -> dict[str, Any]:
    of = put_json(store, shared_part(store, rows))
    models = [(key, f"PK\x03\x04 {key} {run}".encode()) for key in keys]
    pack = write_pack(store, models)
    records = {
        key: {
            "of": of,
            "model": {"digest": sha256(data).hexdigest(), "bytes": len(data), "pack": pack, "entry": entry},
            "rows": {"train": 100, "holdout": 20},
            "metrics": {"rmse": 1.5},
        }
        for entry, (key, data) in enumerate(models)
    }
    return Registry(store, "fleet").register_many(records, op_id=op_id("train", run))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


class Counting(LocalStore):
    """Counts what is read."""

    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


def test_versions_of_many_keys_are_read_by_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.registry.items._KEPT", 1)  # so that of all batches one is kept
    store = LocalStore(tmp_path)
    numbers = {f"k{i:02d}": 1 for i in range(40)}
    for shard in range(4):
        train(store, f"r{shard}", [*numbers][shard::4])
    train(store, "again", ["k01"])
    counting = Counting(tmp_path)
    found = Registry(counting, "fleet").get_many(numbers)
    assert [*found] == [*numbers]
    assert {version.record["rows"]["holdout"] for version in found.values()} == {20}
    assert counting.reads <= 30  # one by one it is 172
    registry = Registry(store, "fleet")
    assert all(found[key] == registry.get(1, key) for key in ("k00", "k01", "k39"))
    with pytest.raises(VersionNotFound, match=r"k00\] has no version 2"):
        registry.get_many({"k00": 2, "k01": 2})
    assert registry.get_many({"k01": 2})["k01"].number == 2


# --- records in two parts ------------------------------------------------------------------------


def test_a_record_has_what_its_run_shares(store: LocalStore) -> None:
    version = train(store, "r1")["c"]
    record = version.record
    assert record["snapshot"]["rows"] == 5
    assert record["rows"] == {"train": 100, "holdout": 20}
    assert {*record["model"]} == {"format", "prepare", "environment", "digest", "bytes", "pack", "entry"}
    assert (version.model, version.metrics) == (record["model"]["digest"], {"rmse": 1.5})
    record["config"]["data"]["target"] = record["metrics"]["rmse"] = "changed"
    again = Registry(store, "fleet").get(1, "c").record
    assert (again["config"]["data"]["target"], again["metrics"]["rmse"]) == ("delay", 1.5)
    assert merged({"a": {"x": 1, "y": {"z": 1}}, "b": 1}, {"a": {"y": {}}, "c": 2}) == {
        "a": {"x": 1, "y": {}}, "b": 1, "c": 2,
    }  # fmt: skip


def test_a_single_version_may_share_too(store: LocalStore) -> None:
    of = put_json(store, {"params": {"alpha": 1}, "seed": 3})
    version = Registry(store, "one").register({"of": of, "params": {"tol": 2}}, op_id="r")
    assert version.record == {"of": of, "params": {"alpha": 1, "tol": 2}, "seed": 3}
    # A name is no digest.
    assert Registry(store, "one").register({"of": "churn"}, op_id="s").record == {"of": "churn"}


@pytest.mark.parametrize("damage", [None, b"{}", b"\xff"])
def test_a_damaged_shared_part_is_told(store: LocalStore, damage: bytes | None) -> None:
    version = train(store, "r1")["a"]
    train(store, "r2", rows=b"other rows")
    registry = Registry(store, "fleet")
    registry.promote_many(dict.fromkeys(KEYS, (1, None)), op_id="p", reason="gates")
    key = layout.blob(version.record["of"])
    store.delete(key) if damage is None else store.put(key, damage)
    fresh = Registry(store, "fleet")
    assert fresh.champion("a").number == 1
    assert fresh.get(2, "a").record["snapshot"]["rows"] == 5
    with pytest.raises(CorruptObject, match="shared part"):
        _ = fresh.get(1, "a").record
    with pytest.raises(CorruptObject):
        lineage(store, fresh.get(2, "a"))
    with pytest.raises(CorruptObject, match="nothing is collected"):
        collect(store)
    report = check(store)
    (finding,) = [f for f in report.findings if f.severity == "damage"]
    assert finding.key == key
    assert "fleet[a] v1, fleet[b] v1, fleet[c] v1 and 2 more" in finding.what
    assert finding.what.endswith("5 of them are champions.")
    assert finding.sound == "5 other versions can be loaded"
    assert report.pipelines["fleet"].startswith("fleet: 5 of 10 versions can be loaded")


def test_everything_that_reads_records_follows_it(store: LocalStore) -> None:
    version = train(store, "r1")["b"]
    seen = lineage(store, version)
    assert seen["data"]["source"] == {"uri": "file:///d/flights.csv"}
    assert (seen["data"]["train"], seen["config"]["estimator"]) == (100, "sklearn.linear_model.Ridge")
    assert (seen["model"]["format"], seen["environment"]) == ("pack", {"python": "3.12"})
    assert told(version)["record"]["run"]["run_id"] == "r1"
    assert [use.key for use in trained_by_code(store, "c0ffee")] == KEYS
    entries = [e for key in KEYS for e in key_records(store, "fleet", key).versions.values()]
    assert [e.payload["record"]["run"]["run_id"] for e in entries] == ["r1"] * 5


def test_the_records_of_a_fleet_hold_no_item_of_it(store: LocalStore) -> None:
    train(store, "r1")
    registry = Registry(store, "fleet")
    registry.annotate(1, "seen", {"by": "hand"}, op_id="hand", key="b")
    records = Records.read(store, "fleet")
    assert [(e.type, e.key) for e in records.log] == [("annotate", "b")]
    assert (records.batches, records.seq, records.runs) == (
        len(registry.log.entries()) - 1,
        registry.log.entries()[-1].seq,
        (),
    )


def test_one_model_is_told_as_if_it_were_alone(store: LocalStore) -> None:
    for run in ("r1", "r2", "r3"):
        train(store, run)
    registry = Registry(store, "fleet")
    for run in (1, 2, 3):
        registry.annotate_many({k: (run, "gates", {"verdict": "passed", "key": k}) for k in KEYS}, op_id=f"g{run}")
        before = run - 1 or None
        registry.promote_many(dict.fromkeys(KEYS, (run, before)), op_id=f"p{run}", reason="gates")
    registry.rollback(op_id="back", reason="worse", expected=3, key="b")
    told = [(e.type, e.payload["version"]) for e in key_records(store, "fleet", "b").log]
    kinds = [("register", n) for n in (1, 2, 3)]
    for n in (1, 2, 3):
        kinds += [("annotate", n), ("promote", n)]
    # Version 2 became champion twice: the last time counts.
    assert told == [*[k for k in kinds if k != ("promote", 2)], ("rollback", 2)]
    assert {e.payload["note"]["key"] for e in key_records(store, "fleet", "b").log if e.type == "annotate"} == {"b"}
    assert {e.payload["version"] for e in key_records(store, "fleet", "a", most=1).log} == {3}
    assert key_records(store, "fleet", "nobody").log == ()


def test_nothing_that_a_fleet_needs_is_collected(store: LocalStore) -> None:
    version = train(store, "r1")["e"]
    put_blob(store, b"garbage")
    for days in (5, 10):
        collect(store, now=datetime.now(UTC) + timedelta(days=days))
    record = Registry(store, "fleet").get(1, "e").record
    for digest in (record["of"], record["model"]["pack"], record["model"]["prepare"]["digest"]):
        assert get_blob(store, digest)
    assert get_blob(store, json.loads(get_blob(store, record["snapshot"]["snapshot"]))["files"][0]["digest"])
    assert not check(store).findings
    assert version.record == record


def test_retention_lets_go_of_a_fleets_rows_in_one_commit(store: LocalStore) -> None:
    for run in ("r1", "r2"):
        train(store, run)
    train(store, "r3", rows=b"newer rows")
    registry = Registry(store, "fleet")
    registry.promote_many(dict.fromkeys(KEYS, (3, None)), op_id="p", reason="gates")
    before = registry.log.entries()[-1].seq
    old = registry.get(1, "a").record["snapshot"]["snapshot"]
    done = expire(store, "fleet", snapshots=timedelta(days=30))
    assert (done.snapshots, done.kept) == ([old], 1)
    assert registry.log.entries()[-1].seq == before + 2  # two versions of each key
    assert registry.get(2, "d").notes["retention"][0]["digest"] == old
    assert expire(store, "fleet", snapshots=timedelta(days=30)).snapshots == []
    for days in (5, 10):
        collect(store, now=datetime.now(UTC) + timedelta(days=days))
    manifest = json.loads(get_blob(store, old))
    assert not store.exists(layout.blob(manifest["files"][0]["digest"]))
    assert store.exists(layout.blob(registry.get(1, "a").record["model"]["pack"]))
    assert not check(store).findings


@pytest.mark.parametrize("what", ["bytes", "entry", "key", "missing"])
def test_fsck_looks_into_packs(store: LocalStore, what: str) -> None:
    version = train(store, "r1", ["a", "b"])["a"]
    pack = version.record["model"]["pack"]
    if what == "bytes":
        store.put(layout.blob(pack), store.get(layout.blob(pack))[:-9] + b"x" * 9)
    elif what == "missing":
        store.delete(layout.blob(pack))
    else:
        own = version.record["model"] | ({"entry": 9} if what == "entry" else {"entry": 1})
        Registry(store, "fleet").register({"of": version.record["of"], "model": own}, op_id="odd", key="a")
    words = {
        "bytes": "is damaged", "missing": "is missing", "entry": "no entry 9", "key": "another model in its entry 1",
    }  # fmt: skip
    found = [f for f in check(store).findings if f.severity == "damage"]
    assert found
    assert all(words[what] in f.what and f.key == layout.blob(pack) for f in found)
    quick = [f for f in check(store, deep=False).findings if f.severity == "damage"]
    assert len(quick) == (2 if what == "missing" else 0)


# --- many notes, many goodbyes -------------------------------------------------------------------


def test_a_fleet_is_annotated_in_one_commit(store: LocalStore) -> None:
    train(store, "r1")
    registry = Registry(store, "fleet")
    before = registry.log.entries()[-1].seq
    notes = {key: (1, "evaluation", {"metrics": {"rmse": {"candidate": i}}}) for i, key in enumerate(KEYS)}
    for _ in range(2):
        done = registry.annotate_many(notes, op_id="eval")
        assert {k: v.metrics for k, v in done.items()} == {k: {"rmse": i} for i, k in enumerate(KEYS)}
    registry.annotate_many({"a": (1, "gates", {"verdict": "passed"})}, op_id="gates")
    assert registry.annotate_many({}, op_id="none") == {}
    assert registry.log.entries()[-1].seq == before + 2
    fresh = Registry(store, "fleet").get(1, "a")
    assert fresh.notes == {"evaluation": [notes["a"][2]], "gates": [{"verdict": "passed"}]}
    assert [*Registry(store, "fleet").get(1, "b").notes] == ["evaluation"]
    fresh.notes["evaluation"][0]["metrics"]["rmse"] = "changed"
    assert Registry(store, "fleet").get(1, "a").notes["evaluation"] == [notes["a"][2]]
    assert [v["verdict"] for v in lineage(store, registry.get(1, "a"))["verdicts"]] == ["passed"]
    assert [note for _, note in key_records(store, "fleet", "a").notes("gates")] == [{"verdict": "passed"}]
    rows = [row for row in registry.history() if row["op_id"] == "eval"]
    assert [(row["action"], row["kind"], row["key"]) for row in rows] == [("annotate", "evaluation", k) for k in KEYS]
    with pytest.raises(VersionNotFound, match=r"fleet\[a\] has no version 2"):
        registry.annotate_many({"b": (1, "x", {}), "a": (2, "x", {})}, op_id="wrong")
    with pytest.raises(RegistryError, match="batch of another kind"):
        registry.annotate_many(notes, op_id=op_id("train", "r1"))
    assert registry.log.entries()[-1].seq == before + 2


def test_keys_that_vanish_have_no_champion(store: LocalStore) -> None:
    for run in ("r1", "r2"):
        train(store, run)
    registry = Registry(store, "fleet")
    registry.promote_many(dict.fromkeys(KEYS, (1, None)), op_id="p1", reason="gates")
    registry.promote_many(dict.fromkeys(["a", "b"], (2, 1)), op_id="p2", reason="gates")
    registry.set_challenger(1, op_id="c", key="a")
    gone = {"a": 2, "b": 1, "c": 1}
    for _ in range(2):
        done = registry.retire_many(gone, op_id="gone", reason="vanished", by=None)
        assert {k: v.status for k, v in done.items() if k != "b"} == {"a": "retired", "c": "retired"}
        assert isinstance(done["b"], PromotionConflict)
        registry = Registry(store, "fleet")
    assert [registry.champion(k) and registry.champion(k).number for k in KEYS] == [None, 2, None, 1, 1]
    assert registry.challenger("a") is None
    assert registry.serving("a") == ()
    assert registry.reference("a") is None
    assert registry.get(2, "a").notes["retirement"][0]["reason"] == "vanished"
    again = registry.retire_many({"a": 2, "b": 1}, op_id="again", reason="vanished")
    assert all(isinstance(v, PromotionConflict) for v in again.values())
    with pytest.raises(PromotionConflict):
        registry.rollback(expected=2, op_id="back", reason="x", key="a")
    with pytest.raises(RegistryError, match="retired"):
        registry.promote(2, expected=None, op_id="no", reason="x", key="a")
    # It comes back.
    registry.promote(1, expected=None, op_id="yes", reason="x", key="a")
    with pytest.raises(RegistryError, match="no champion before v1"):
        registry.rollback(expected=1, op_id="back", reason="x", key="a")
    with pytest.raises(RegistryError, match="cannot be retired"):
        registry.retire(1, op_id="alone", reason="x", key="a")
    assert check(store).pipelines["fleet"] == "fleet: 10 of 10 versions can be loaded, 4 champions."
    deployments = lineage(store, registry.get(2, "a"))["deployments"]
    assert [d["what"] for d in deployments] == ["promoted", "retired"]


def _race(path: str, start: Any, name: str, came: Any) -> None:
    registry = Registry(LocalStore(path), "fleet")
    registry.champion("a")
    start.wait(30)
    gone = dict.fromkeys(KEYS, 1)
    if name.startswith("retire"):
        done = registry.retire_many(gone, op_id=op_id(name), reason="vanished")
    elif name.startswith("promote"):
        done = registry.promote_many(dict.fromkeys(KEYS, (2, 1)), op_id=op_id(name), reason="gates")
    else:
        notes = {key: (1, "gates", {"by": name}) for key in KEYS}
        done = registry.annotate_many(notes, op_id=op_id("same note"))
    came.put((name, sorted(key for key, value in done.items() if not isinstance(value, Exception))))


def test_racing_writers_of_a_fleet(store: LocalStore) -> None:
    for run in ("r1", "r2"):
        train(store, run)
    Registry(store, "fleet").promote_many(dict.fromkeys(KEYS, (1, None)), op_id="p1", reason="gates")
    fork = multiprocessing.get_context("fork")
    names = ["retire 1", "retire 2", "promote 1", "promote 2", "note 1", "note 2"]
    start, came = fork.Barrier(len(names)), fork.Queue()
    racing = [fork.Process(target=_race, args=(str(store.path), start, name, came)) for name in names]
    for process in racing:
        process.start()
    done = dict(came.get(timeout=60) for _ in names)
    for process in racing:
        process.join(30)
    assert done["note 1"] == done["note 2"] == KEYS
    won = [name for name in names[:4] if done[name]]
    assert len(won) == 1, "one retirement or promotion fits"
    assert done[won[0]] == KEYS
    registry = Registry(store, "fleet")
    champions = {registry.champion(key) and registry.champion(key).number for key in KEYS}
    assert champions == ({None} if won[0].startswith("retire") else {2})
    assert all(len(registry.get(1, key).notes["gates"]) == 1 for key in KEYS)
