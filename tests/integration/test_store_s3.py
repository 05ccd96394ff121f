"""What every store promises, on local disk and on S3; then what only S3 can do wrong."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from airflow_mlops.exceptions import (
    CorruptObject,
    ObjectExists,
    ObjectNotFound,
    PromotionConflict,
    StoreError,
    StoreUnavailable,
)
from airflow_mlops.registry import Log, Registry, op_id
from airflow_mlops.store import LocalStore, S3Store, content, open_store
from airflow_mlops.store.base import Store


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path) -> Store:
    return LocalStore(tmp_path / "store") if request.param == "local" else request.getfixturevalue("s3_store")


# --- every store -------------------------------------------------------------------------------


def test_put_get_replace_delete(store: Store) -> None:
    assert isinstance(store, Store)
    with pytest.raises(ObjectNotFound, match="a/b"):
        store.get("a/b")
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    assert store.exists("a/b")
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert not store.exists("a")


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.exists("empty")
    assert store.get("empty") == b""


def test_put_if_absent_keeps_the_first(store: Store) -> None:
    store.put_if_absent("k", b"first")
    for data in (b"second", b"first"):
        with pytest.raises(ObjectExists, match="'k'"):
            store.put_if_absent("k", data)
    assert store.get("k") == b"first"


def test_list_is_sorted_like_s3(store: Store) -> None:
    keys = ["a/b/1", "a/b-c/1", "a/b.json", "a/b/0", "ab", "z"]
    for key in keys:
        store.put(key, b"x")
    assert list(store.list("")) == sorted(keys)
    assert list(store.list("a/b")) == sorted(k for k in keys if k.startswith("a/b"))
    assert list(store.list("a/b/")) == ["a/b/0", "a/b/1"]
    assert list(store.list("nothing/")) == []


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/", "a\\b", "a\0b"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.get(key), lambda: store.put(key, b""), lambda: store.put_if_absent(key, b""),
        lambda: store.exists(key), lambda: store.delete(key),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match="not usable as a key"):
            call()


def test_files_round_trip(store: Store, tmp_path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(9 << 20))  # above the threshold of a multipart upload
    digest = content.put_blob_file(store, source)
    assert content.put_blob_file(store, source) == digest
    target = tmp_path / "target"
    content.get_blob_file(store, digest, target)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(ObjectNotFound):
        store.get_file("absent", tmp_path / "absent")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["source", "target"]


def test_blobs_are_verified(store: Store, tmp_path) -> None:
    digest = content.put_blob(store, b"model")
    assert content.put_blob(store, b"model") == digest
    assert content.get_blob(store, digest) == b"model"
    store.put(f"blobs/{digest[:2]}/{digest}", b"nodel")
    with pytest.raises(CorruptObject, match=digest):
        content.get_blob(store, digest)
    with pytest.raises(CorruptObject, match=digest):
        content.get_blob_file(store, digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_json_is_canonical_and_finite(store: Store) -> None:
    assert content.put_json(store, {"b": 1, "a": [1.5, "é"]}) == content.put_json(store, {"a": [1.5, "é"], "b": 1})
    assert content.get_json(store, content.put_json(store, {"a": None})) == {"a": None}
    with pytest.raises(ValueError, match="JSON"):
        content.put_json(store, {"auc": float("nan")})


def test_the_registry_works_on_it(store: Store) -> None:
    registry = Registry(store, "churn")
    for i in range(12):
        registry.register({"i": i}, op_id=op_id("r", i))
    registry.promote(6, expected=None, op_id=op_id("p", 6), reason="first")
    with pytest.raises(PromotionConflict, match="churn@champion is v6, expected v5"):
        Registry(store, "churn").promote(7, expected=5, op_id=op_id("p", 7), reason="late")
    fresh = Registry(store, "churn")
    assert fresh.champion() == registry.champion()
    assert [v.number for v in fresh.versions()] == list(range(1, 13))


def test_threads_append_without_loss(store: Store) -> None:
    def work(worker: int) -> None:
        log = Log(store, "log/")
        for i in range(8):
            log.append("t", {"worker": worker, "i": i}, op_id=op_id(worker, i))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    entries = Log(store, "log/").entries()
    assert sorted((e.payload["worker"], e.payload["i"]) for e in entries) == [
        (w, i) for w in range(4) for i in range(8)
    ]


# --- S3 alone ----------------------------------------------------------------------------------


def test_one_of_many_processes_takes_a_key(s3_store: S3Store, s3_endpoint: str) -> None:
    code = (
        "import sys, boto3\n"
        "from airflow_mlops.store import S3Store\n"
        "from airflow_mlops.exceptions import ObjectExists\n"
        "c = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1', aws_access_key_id='test',"
        " aws_secret_access_key='test')\n"
        "s = S3Store(sys.argv[2], 'mlops', c)\n"
        "for i in range(20):\n"
        "    try: s.put_if_absent(f'k/{i:02}', sys.argv[3].encode()); print(i)\n"
        "    except ObjectExists: pass\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, s3_endpoint, s3_store.bucket, str(n)], stdout=subprocess.PIPE, text=True
        )
        for n in range(3)
    ]
    won = [int(line) for w in workers for line in w.communicate(timeout=60)[0].split()]
    assert sorted(won) == list(range(20))


def _inject(store: S3Store, status: int, code: str, times: int, operation: str = "PutObject") -> list[int]:
    """Let the next ``times`` requests of ``operation`` fail with ``status``; returns the list of those it hit."""
    hits: list[int] = []

    class Raw(io.BytesIO):
        def stream(self, **_: object):
            yield self.read()

    def reply(request, **_: object):
        if len(hits) >= times:
            return None
        hits.append(status)
        body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        return AWSResponse(request.url, status, {"Content-Type": "application/xml"}, Raw(body))

    store._client.meta.events.register(f"before-send.s3.{operation}", reply)
    return hits


def test_409_is_repeated_inside(s3_store: S3Store) -> None:
    hits = _inject(s3_store, 409, "ConditionalRequestConflict", 2)
    s3_store.put_if_absent("k", b"x")
    assert s3_store.get("k") == b"x"
    assert len(hits) == 2


def test_409_for_ever_is_said(s3_store: S3Store) -> None:
    _inject(s3_store, 409, "ConditionalRequestConflict", 99)
    with pytest.raises(StoreUnavailable, match="conflicting write"):
        s3_store.put_if_absent("k", b"x")


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout")])
def test_an_overloaded_s3_is_retryable_and_named(s3_store: S3Store, s3_endpoint: str, status: int, code: str) -> None:
    _inject(s3_store, status, code, 99)
    with pytest.raises(StoreUnavailable) as e:
        s3_store.put("some/key", b"x")
    for part in (s3_endpoint, s3_store.bucket, "some/key", code):
        assert part in str(e.value)


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_not_retried(s3_store: S3Store, status: int) -> None:
    _inject(s3_store, status, "AccessDenied", 99, "GetObject")
    with pytest.raises(StoreError, match="s3:ListBucket") as e:
        s3_store.get("k")
    assert not e.value.retryable
    with pytest.raises(StoreError, match="AccessDenied"):
        s3_store.exists("k")


def test_refused_upload_of_a_file(s3_store: S3Store, tmp_path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    _inject(s3_store, 403, "AccessDenied", 99)
    with pytest.raises(StoreError, match="AccessDenied"):
        s3_store.put_file("k", tmp_path / "f")


def test_a_missing_bucket_is_named(s3_client, tmp_path) -> None:
    store = S3Store("no-such-bucket-here", "", s3_client)
    (tmp_path / "f").write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.get("k"), lambda: store.exists("k"), lambda: list(store.list("")),
        lambda: store.put("k", b""), lambda: store.put_file("k", tmp_path / "f"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match="no-such-bucket-here' does not exist") as e:
            call()
        assert not e.value.retryable
        assert not isinstance(e.value, ObjectNotFound)


def _client(port: int):
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1", aws_access_key_id="test",
        aws_secret_access_key="test", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip


def test_an_unreachable_s3_is_retryable_and_named(tmp_path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    store = S3Store("bucket", "", _client(port))
    (tmp_path / "f").write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: store.get("k"), lambda: store.put_if_absent("k", b""), lambda: store.put_file("k", tmp_path / "f"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreUnavailable, match=f"'k' in s3://bucket at http://127.0.0.1:{port}"):
            call()


@pytest.fixture
def cut_server():
    """Answers every GET with 100 announced bytes; sends all of them only from the third request on."""
    listener = socket.create_server(("127.0.0.1", 0))
    state = {"requests": 0, "cut": 2}

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                state["requests"] += 1
                sent = 50 if state["requests"] <= state["cut"] else 100
                head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
                connection.sendall(head + b"x" * sent)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], state
    listener.close()


def test_a_body_cut_short_is_read_again(cut_server, tmp_path) -> None:
    port, state = cut_server
    store = S3Store("bucket", "", _client(port))
    assert store.get("k") == b"x" * 100
    assert state["requests"] == 3
    state.update(requests=0)
    store.get_file("k", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"x" * 100


def test_a_body_always_cut_short_is_never_used(cut_server, tmp_path) -> None:
    port, state = cut_server
    state["cut"] = 99
    store = S3Store("bucket", "", _client(port))
    with pytest.raises(StoreUnavailable, match="s3://bucket"):
        store.get("k")
    with pytest.raises(StoreUnavailable):
        store.get_file("k", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_open_store_takes_the_client(s3_client, s3_bucket: str) -> None:
    store = open_store(f"s3://{s3_bucket}/a/b/", s3_client=s3_client)
    store.put("k", b"x")
    assert store.uri == f"s3://{s3_bucket}/a/b"
    assert open_store(f"s3://{s3_bucket}", s3_client=s3_client).get("a/b/k") == b"x"


def test_many_keys_are_listed_over_pages(s3_store: S3Store) -> None:
    keys = [f"k/{i:04}" for i in range(1050)]
    for key in keys:
        s3_store.put(key, b"")
    assert list(s3_store.list("k/")) == keys
