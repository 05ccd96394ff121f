"""Old rows are given up on the record, never those of a version that may still serve."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from airflow_mlops.exceptions import DataNotFound, ObjectNotFound, RegistryError
from airflow_mlops.ml.prediction import find_capture, write_capture
from airflow_mlops.ml.snapshot import Snapshot, write_snapshots
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.retention import expire
from airflow_mlops.registry.salvage import fold
from airflow_mlops.store import LocalStore, get_json, layout, put_blob
from airflow_mlops.window import Window

NOW = datetime(2026, 6, 15, tzinfo=UTC)
DAYS = timedelta(days=1)


def rows(n: int) -> pa.RecordBatch:
    return pa.record_batch({"id": [1, 2, n]})


def window(month: int) -> Window:
    return Window.of(f"2026-{month:02}-01", f"2026-{month + 1:02}-01")


def snapshot(store: LocalStore, month: int, *contents: int) -> Snapshot:
    """The snapshot of a month; equal contents are one file."""
    batches = [(rows(n),) for n in contents or (month,)]
    (made,) = write_snapshots(store, "churn", batches, rows(1).schema, window=window(month), sources=[{}])
    return made


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def registry(store: LocalStore) -> Registry:
    """churn v1 to v5 of January to May: v3 is champion after v2, v4 challenger."""
    registry = Registry(store, "churn")
    for n in range(1, 6):
        record = {"model": {"digest": put_blob(store, b"model %d" % n)}, "snapshot": snapshot(store, n).to_ref()}
        registry.register(record, op_id=op_id(n))
        write_capture(store, "churn", window(n), [rows(n)], model_version=n)
        write_check(store, "churn", window(n), "drift", {"snapshot": record["snapshot"]})
    for new, old in ((1, None), (2, 1), (3, 2)):
        registry.promote(new, expected=old, op_id=op_id("p", new), reason="gates")
    registry.set_challenger(4, op_id=op_id("c"))
    return registry


def clear(store: LocalStore) -> None:
    """Let two collections pass, long enough apart."""
    for _ in range(2):
        for path in store.path.rglob("*"):
            if path.is_file():
                os.utime(path, (0, 0))
        collect(store)


def readable(store: LocalStore, version: int) -> bool:
    try:
        Snapshot.load(store, Registry(store, "churn").get(version).record["snapshot"]).to_arrow(store)
    except ObjectNotFound:
        return False
    return True


def captured(store: LocalStore) -> list[int]:
    found = []
    for month in range(1, 6):
        try:
            get_json(store, find_capture(store, "churn", window(month))["capture"])
        except DataNotFound:
            continue
        found.append(month)
    return found


def test_old_snapshots_go_and_those_that_may_serve_stay(store: LocalStore, registry: Registry) -> None:
    done = expire(store, "churn", snapshots=DAYS, now=NOW)
    assert len(done.snapshots) == 2
    assert (done.captures, done.kept) == ([], 3)
    assert "2 snapshots and 0 captures released; 3 as old are kept" in done.sentence
    clear(store)
    assert [n for n in range(1, 6) if readable(store, n)] == [2, 3, 4]
    assert captured(store) == [1, 2, 3, 4, 5]
    (note,) = Registry(store, "churn").get(1).notes["retention"]
    assert note["what"] == "snapshot"
    assert note["digest"] == registry.get(1).record["snapshot"]["snapshot"]
    assert (note["window"], note["older_than"]) == (window(1).to_dict(), "1 days")
    # The manifest tells what it was, and nothing is damaged.
    assert Snapshot.load(store, registry.get(1).record["snapshot"]).rows == 3
    report = check(store)
    assert [f for f in report.findings if f.severity != "derived"] == []


def test_the_age_counts_from_the_end_of_the_window(store: LocalStore, registry: Registry) -> None:
    age = NOW - datetime(2026, 2, 1, tzinfo=UTC)
    assert expire(store, "churn", snapshots=age, captures=age, now=NOW).snapshots == []
    done = expire(store, "churn", snapshots=age, captures=age, now=NOW + timedelta(seconds=1))
    assert len(done.snapshots) == 1
    assert done.captures == [layout.capture("churn", window(1).key)]


def test_without_a_window_it_counts_from_the_registration(store: LocalStore) -> None:
    (made,) = write_snapshots(store, "churn", [(rows(1),)], rows(1).schema, window=None, sources=[{}])
    Registry(store, "churn").register({"snapshot": made.to_ref()}, op_id=op_id(1))
    now = datetime.now(UTC)
    assert expire(store, "churn", snapshots=DAYS, now=now).snapshots == []
    assert len(expire(store, "churn", snapshots=DAYS, now=now + 2 * DAYS).snapshots) == 1


def test_old_captures_go(store: LocalStore, registry: Registry) -> None:
    before = find_capture(store, "churn", window(1))["capture"]
    file = get_json(store, before)["file"]
    done = expire(store, "churn", captures=DAYS, now=NOW)
    assert (len(done.captures), done.kept) == (2, 3)
    assert captured(store) == [2, 3, 4]
    assert Registry(store, "churn").get(1).notes["retention"][0]["what"] == "capture"
    clear(store)
    assert not store.exists(layout.blob(file))
    assert [n for n in range(1, 6) if readable(store, n)] == [1, 2, 3, 4, 5]
    assert [f for f in check(store).findings if f.severity != "derived"] == []


def test_a_window_scored_again_is_kept(store: LocalStore, registry: Registry) -> None:
    expire(store, "churn", captures=DAYS, now=NOW)
    write_capture(store, "churn", window(1), [rows(1)], model_version=1)
    clear(store)
    assert store.exists(layout.blob(get_json(store, find_capture(store, "churn", window(1))["capture"])["file"]))


def test_nothing_is_asked_for(store: LocalStore, registry: Registry) -> None:
    seq = len(registry.history())
    done = expire(store, "churn", now=NOW)
    assert (done.snapshots, done.captures, done.kept) == ([], [], 0)
    assert len(registry.history()) == seq


def test_it_is_idempotent(store: LocalStore, registry: Registry) -> None:
    expire(store, "churn", snapshots=DAYS, captures=DAYS, now=NOW)
    seq = len(Registry(store, "churn").history())
    again = expire(store, "churn", snapshots=DAYS, captures=DAYS, now=NOW + 100 * DAYS)
    assert (again.snapshots, again.captures) == ([], [])
    assert len(Registry(store, "churn").history()) == seq


def test_killed_between_note_and_deletion(
    store: LocalStore, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(self: LocalStore, key: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete", kill)
        with pytest.raises(Killed):
            expire(store, "churn", captures=DAYS, now=NOW)
    clear(store)
    assert captured(store) == [1, 2, 3, 4, 5]
    expire(store, "churn", captures=DAYS, now=NOW)
    assert captured(store) == [2, 3, 4]
    assert len(Registry(store, "churn").get(1).notes["retention"]) == 1


def test_a_file_that_a_live_snapshot_shares_stays(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    old, new = snapshot(store, 1), write_snapshots(
        store, "churn", [(rows(1),)], rows(1).schema, window=window(5), sources=[{}]
    )[0]  # fmt: skip
    assert old.files == new.files
    assert old.digest != new.digest
    for n, made in enumerate((old, new), 1):
        registry.register({"snapshot": made.to_ref()}, op_id=op_id(n))
    assert expire(store, "churn", snapshots=60 * DAYS, now=NOW).snapshots == [old.digest]
    clear(store)
    assert readable(store, 2)
    assert readable(store, 1)
    expire(store, "churn", snapshots=DAYS, now=NOW)
    clear(store)
    assert not readable(store, 2)
    assert not readable(store, 1)


def test_a_snapshot_that_the_champion_shares_is_not_said_to_be_gone(store: LocalStore) -> None:
    registry, made = Registry(store, "churn"), snapshot(store, 1)
    for n in (1, 2):
        registry.register({"snapshot": made.to_ref()}, op_id=op_id(n))
    registry.promote(2, expected=None, op_id=op_id("p"), reason="gates")
    done = expire(store, "churn", snapshots=DAYS, now=NOW)
    assert (done.snapshots, done.kept) == ([], 1)
    assert "retention" not in registry.get(1).notes
    clear(store)
    assert readable(store, 1)


def test_training_on_released_rows_again_keeps_them(store: LocalStore, registry: Registry) -> None:
    expire(store, "churn", snapshots=DAYS, now=NOW)
    registry.register({"snapshot": snapshot(store, 1).to_ref()}, op_id=op_id("again"))
    clear(store)
    assert readable(store, 1)
    assert readable(store, 6)
    assert not readable(store, 5)
    # In its time it is released once more, of the version that has no note yet.
    assert len(expire(store, "churn", snapshots=DAYS, now=NOW).snapshots) == 1
    clear(store)
    assert not readable(store, 6)


def test_after_a_rollback_the_next_target_is_kept(store: LocalStore, registry: Registry) -> None:
    registry.rollback(expected=3, op_id=op_id("b"), reason="bad")
    expire(store, "churn", snapshots=DAYS, now=NOW)
    clear(store)
    assert [n for n in range(1, 6) if readable(store, n)] == [1, 2, 4]


def test_models_of_a_fleet_release_a_shared_snapshot_together(store: LocalStore) -> None:
    registry, made = Registry(store, "churn"), snapshot(store, 1)
    newer = snapshot(store, 2)
    for n, taken in enumerate((made, newer, newer), 1):
        registry.register_many({k: {"snapshot": taken.to_ref()} for k in ("JFK", "LGA")}, op_id=op_id(n))
    for n, before in ((1, None), (2, 1), (3, 2)):
        promotions = dict.fromkeys(("JFK", "LGA") if n < 3 else ("JFK",), (n, before))
        registry.promote_many(promotions, op_id=op_id("p", n), reason="gates")
    # LGA would roll back to v1.
    assert expire(store, "churn", snapshots=DAYS, now=NOW).snapshots == []
    registry.promote_many({"LGA": (3, 2)}, op_id=op_id("p", 4), reason="gates")
    assert expire(store, "churn", snapshots=DAYS, now=NOW).snapshots == [made.digest]
    assert [Registry(store, "churn").get(1, k).notes["retention"][0]["digest"] for k in ("JFK", "LGA")] == [
        made.digest
    ] * 2


def test_a_capture_of_a_fleet_is_given_up_on_the_record(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    registry.register_many({key: {"snapshot": snapshot(store, 1).to_ref()} for key in ("JFK", "*")}, op_id=op_id(1))
    registry.promote_many({"JFK": (1, None), "*": (1, None)}, op_id=op_id("p"), reason="gates")
    made = {month: write_capture(store, "churn", window(month), [rows(month)], model_version=None) for month in (1, 5)}
    for month, capture in made.items():
        # A check names the capture, too, and must not keep its rows.
        write_check(store, "churn", window(month), "prediction", {"capture": capture["capture"]})
    done = expire(store, "churn", captures=30 * DAYS, now=NOW)
    assert (len(done.captures), done.kept) == (1, 0)
    (note,) = registry.get(1, "*").notes["retention"]
    assert (note["what"], note["digest"]) == ("capture", made[1]["capture"])
    assert "retention" not in registry.get(1, "JFK").notes
    assert expire(store, "churn", captures=30 * DAYS, now=NOW).captures == []
    clear(store)
    with pytest.raises(DataNotFound):
        find_capture(store, "churn", window(1))
    assert find_capture(store, "churn", window(5))["rows"] == 3
    left = [key for key in store.list("blobs/") if store.get(key)[:4] == b"PAR1"]
    assert len(left) == 2, "the snapshot's rows and the newer capture's"


def test_what_was_released_and_serves_again_is_kept(store: LocalStore, registry: Registry) -> None:
    expire(store, "churn", snapshots=30 * DAYS, now=NOW)
    assert registry.get(1).notes["retention"]
    registry.promote(1, expected=3, op_id=op_id("back"), reason="by hand")
    expire(store, "churn", snapshots=30 * DAYS, now=NOW)
    clear(store)
    assert readable(store, 1)
    assert readable(store, 3), "a rollback leads there"
    assert not check(store).findings
    registry.promote(5, expected=1, op_id=op_id("on"), reason="gates")
    registry.promote(3, expected=5, op_id=op_id("on", 3), reason="gates")
    clear(store)
    assert not readable(store, 1)


def test_a_former_challenger_is_not_kept_for_ever(store: LocalStore, registry: Registry) -> None:
    # Every candidate that passes its gates is the challenger first.
    registry.promote(4, expected=3, op_id=op_id("p", 4), reason="gates")
    registry.set_challenger(5, op_id=op_id("c", 5))
    registry.promote(5, expected=4, op_id=op_id("p", 5), reason="gates")
    registry.register({"snapshot": snapshot(store, 6).to_ref()}, op_id=op_id(6))
    for n in (6, 1, 6):
        registry.set_challenger(n, op_id=op_id("c", n, len(registry.history())))
    registry.register({"snapshot": snapshot(store, 7).to_ref()}, op_id=op_id(7))
    registry.promote(7, expected=5, op_id=op_id("p", 7), reason="gates")
    assert len(expire(store, "churn", snapshots=DAYS, now=NOW + 100 * DAYS).snapshots) == 4
    clear(store)
    assert [n for n in range(1, 8) if readable(store, n)] == [5, 6, 7]


def test_the_rows_a_rollback_needs_are_kept_after_one_between_was_retired(
    store: LocalStore, registry: Registry
) -> None:
    expire(store, "churn", snapshots=DAYS, now=NOW)
    assert registry.get(1).notes["retention"]
    registry.promote(1, expected=3, op_id=op_id("a"), reason="by hand")
    registry.promote(2, expected=1, op_id=op_id("b"), reason="by hand")
    registry.promote(3, expected=2, op_id=op_id("c1"), reason="by hand")
    registry.promote(2, expected=3, op_id=op_id("d"), reason="by hand")
    registry.retire(3, op_id=op_id("e"), reason="leaked")
    # The champion cannot stand before itself: a rollback of v2 leads to v1.
    clear(store)
    assert readable(store, 1)
    assert registry.rollback(expected=2, op_id=op_id("f"), reason="bad").number == 1


@pytest.mark.parametrize("seed", range(12))
def test_the_fold_of_a_check_is_that_of_the_registry(tmp_path: Path, seed: int) -> None:
    store, draw = LocalStore(tmp_path), random.Random(seed)
    registry = Registry(store, "churn")
    for n in range(1, 5):
        registry.register({}, op_id=op_id(n))
    for step in range(16):
        champion, version, operation = registry.champion(), draw.randint(1, 4), op_id("step", step)
        with suppress(RegistryError):  # refused: nothing is written
            match draw.choice(("promote", "promote", "rollback", "retire", "challenger")):
                case "promote":
                    now = champion.number if champion else None
                    registry.promote(version, expected=now, op_id=operation, reason="x")
                case "rollback" if champion:
                    registry.rollback(expected=champion.number, op_id=operation, reason="x")
                case "retire" if draw.random() < 0.3:
                    registry.retire(version, op_id=operation, reason="x")
                case "challenger":
                    registry.set_challenger(version, op_id=operation)
        found, wrong = fold(store, Log(store, layout.log_prefix("churn")).entries())
        model = registry.log.view(lambda state: state.model(None))
        assert (found.champions.get(None), found.before(None), wrong) == (model.champion, model.before, {})
        serving = {model.champion, model.challenger, *model.before[-1:]} - {None}
        assert found.needed() == {(None, number) for number in serving}
