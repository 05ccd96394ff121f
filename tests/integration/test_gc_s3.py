"""What garbage collection needs of S3: times, touching, moving, and uploads that nobody finished."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.gc import collect
from airflow_mlops.store import S3Store, content, get_blob, layout, put_blob, put_json

LATER = datetime.now(UTC) + timedelta(days=5)


def test_stat_scan_and_peek(s3_store: S3Store) -> None:
    s3_store.put("a/1", b"one")
    s3_store.put("a/2", b"")
    found = s3_store.stat("a/1")
    assert (found.key, found.size) == ("a/1", 3)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=5)
    assert [(f.key, f.size) for f in s3_store.scan("a/")] == [("a/1", 3), ("a/2", 0)]
    assert [s3_store.peek("a/1", 2), s3_store.peek("a/1", 9), s3_store.peek("a/2", 2)] == [b"on", b"one", b""]
    for call in (s3_store.stat, s3_store.touch, lambda k: s3_store.move(k, "y"), lambda k: s3_store.peek(k, 1)):
        with pytest.raises(ObjectNotFound):
            call("x")


def test_touch_and_move_renew_the_time(s3_store: S3Store) -> None:
    s3_store.put("k", b"x")
    first = s3_store.stat("k").modified
    time.sleep(1.1)  # S3's times are whole seconds
    s3_store.touch("k")
    second = s3_store.stat("k").modified
    assert second > first
    assert s3_store.get("k") == b"x"
    time.sleep(1.1)
    s3_store.move("k", "trash/k")
    assert s3_store.stat("trash/k").modified > second
    assert s3_store.get("trash/k") == b"x"
    assert not s3_store.exists("k")


def test_uploads_that_nobody_finished_are_aborted(s3_store: S3Store, s3_client) -> None:
    for key in ("mlops/blobs/ab/x", "mlops/y", "other/z"):
        s3_client.create_multipart_upload(Bucket=s3_store.bucket, Key=key)
    # This server has begun every upload in 2010.
    assert s3_store.sweep(datetime(2010, 1, 1, tzinfo=UTC)) == ()
    assert [f.key for f in s3_store.sweep(LATER, dry_run=True)] == ["blobs/ab/x", "y"]
    assert [f.key for f in s3_store.sweep(LATER)] == ["blobs/ab/x", "y"]
    left = s3_client.list_multipart_uploads(Bucket=s3_store.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["other/z"]


def test_two_collections_and_a_reader(s3_store: S3Store, tmp_path) -> None:
    (tmp_path / "model").write_bytes(b"PK\x03\x04" + b"m" * 10_000)
    model = content.put_blob_file(s3_store, tmp_path / "model")
    assert content.put_blob_file(s3_store, tmp_path / "model") == model
    part = put_blob(s3_store, b"PAR1 rows")
    manifest = put_json(s3_store, {"files": [{"digest": part}]})
    Registry(s3_store, "churn").register(
        {"model": {"digest": model}, "snapshot": {"snapshot": manifest}}, op_id=op_id(1)
    )
    garbage = [put_blob(s3_store, b"garbage %d" % n) for n in range(3)]
    assert collect(s3_store).trashed == {}
    assert collect(s3_store, now=LATER).trashed["blobs"].objects == 3
    assert get_blob(s3_store, garbage[0]) == b"garbage 0"
    assert s3_store.exists(layout.blob(garbage[0]))
    assert check(s3_store).status == 0
    assert collect(s3_store, now=LATER).deleted["blobs"].objects == 3
    assert sorted(s3_store.list("blobs/")) == sorted(layout.blob(d) for d in (model, part, manifest))
