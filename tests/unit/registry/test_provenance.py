from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.registry import Registry
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.provenance import (
    bare,
    delivered_text,
    lineage,
    trained_by_code,
    trained_on_data,
    trained_on_snapshot,
)
from airflow_mlops.store import LocalStore
from airflow_mlops.store.content import put_json
from airflow_mlops.window import Window

COMMIT = "c0ffee" + "0" * 34
SHA = "5eed" * 16
FILE = {"uri": "/lake/flights/2013-01.parquet", "size": 1234, "version": "v"}
FILES = {"kind": "files", "uri": "flights/*.parquet", "files": [FILE], "version": "1"}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def snapshot(store: LocalStore, source: dict[str, Any] = FILES, fingerprint: str = "f1" * 32) -> dict[str, Any]:
    digest = put_json(store, {"kind": "snapshot", "source": source, "fingerprint": fingerprint})
    window = Window.of("2013-01-01", "2013-02-01").to_dict()
    return {"snapshot": digest, "fingerprint": fingerprint, "rows": 10, "columns": 3, "window": window}


def register(store: LocalStore, pipeline: str = "churn", key: str | None = None, **more: Any) -> dict[str, Any]:
    record = {
        "snapshot": snapshot(store),
        "model": {"digest": "d" * 64, "bytes": 5, "format": "skops", "environment": {"python": "3.11", "packages": {}}},
        "config": {"features": None},
        "config_hash": "c" * 64,
        "code": {"git": COMMIT, "files": {"/code/train.py": SHA}},
        "rows": {"train": 8, "holdout": 2},
        "seed": 7,
        "estimator": "sklearn.tree.DecisionTreeClassifier",
        "params": {"max_depth": 3},
        "run": {"dag_id": f"{pipeline}__train", "run_id": "manual__1"},
    } | more
    registry = Registry(store, pipeline)
    version = registry.register(record, op_id=f"r{key}{len(registry.versions(key))}", key=key)
    return {"number": version.number, "record": record}


def tell(store: LocalStore, number: int, pipeline: str = "churn", key: str | None = None) -> dict[str, Any]:
    return lineage(store, Registry(store, pipeline).get(number, key))


def test_a_version_from_data_to_deployment(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    for _ in range(3):
        register(store)
    metric = {"name": "roc_auc", "candidate": 0.7, "candidate_low": 0.6, "candidate_high": 0.8, "champion": 0.65}
    registry.annotate(2, "evaluation", {"champion": 1, "metrics": {"roc_auc": metric}}, op_id="e")
    gates = {
        "verdict": "passed",
        "sentence": "all",
        "champion": 1,
        "results": [{"verdict": "passed", "sentence": "ok"}],
    }
    registry.annotate(2, "gates", gates, op_id="g")
    registry.annotate(2, "approval", {"by": "ann", "answer": ["Approve"]}, op_id="a")
    registry.promote(1, expected=None, op_id="p1", reason="first")
    registry.promote(2, expected=1, op_id="p2", reason="better", by="ann")
    registry.annotate(2, "handover", {"bundle": "b", "uri": "s3://key:secret@bucket/b.zip"}, op_id="h")
    registry.promote(3, expected=2, op_id="p3", reason="better still")
    registry.rollback(expected=3, op_id="b", reason="worse", by="bob")
    for month in ("02", "03"):
        window = Window.of(f"2013-{month}-01", f"2013-{month}-28")
        write_check(store, "churn", window, "prediction", {"version": 2, "rows": 5, "output": "out/x"})
    write_check(store, "churn", Window.of("2013-05-01", "2013-06-01"), "prediction", {"version": 3, "rows": 9})
    write_check(store, "churn", Window.of("2013-05-01", "2013-06-01"), "drift", {"version": 2})

    told = tell(store, 2)
    assert json.loads(json.dumps(told)) == told
    assert (told["model"]["name"], told["model"]["status"]) == ("churn v2", "champion")
    assert told["data"]["source"] == FILES
    assert (told["data"]["state"], told["data"]["train"], told["data"]["holdout"]) == ("kept", 8, 2)
    assert told["config"]["hash"] == "c" * 64
    assert told["code"]["git"] == COMMIT
    assert told["metrics"] == [
        {"name": "roc_auc", "value": 0.7, "low": 0.6, "high": 0.8, "champion": 0.65, "champion_version": 1}
    ]
    assert [v["verdict"] for v in told["verdicts"]] == ["passed"]
    assert [a["by"] for a in told["approvals"]] == ["ann"]
    assert [d["what"] for d in told["deployments"]] == [
        "promoted", "handed over", "replaced", "returned to", "predicted", "predicted",
    ]  # fmt: skip
    assert told["deployments"][1]["uri"] == "s3://bucket/b.zip"
    assert [d["rows"] for d in told["deployments"][4:]] == [5, 5]
    assert "secret" not in json.dumps(told)

    first, last = tell(store, 1), tell(store, 3)
    assert [(d["what"], d.get("by_version")) for d in first["deployments"]] == [("promoted", None), ("replaced", 2)]
    assert [(d["what"], d.get("by_version")) for d in last["deployments"]] == [
        ("promoted", None), ("rolled back", 2), ("predicted", None),
    ]  # fmt: skip
    assert (last["metrics"], last["verdicts"], last["approvals"]) == ([], [], [])


def test_models_of_a_fleet_are_kept_apart(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    for key in ("LGA", "JFK"):
        register(store, key=key)
        registry.promote(1, expected=None, op_id=f"p{key}", reason=f"for {key}", key=key)
    window = Window.of("2013-02-01", "2013-03-01")
    write_check(store, "churn", window, "prediction", {"version": 1, "key": "JFK", "rows": 5})
    told = tell(store, 1, key="LGA")
    assert [(d["what"], d["reason"]) for d in told["deployments"]] == [("promoted", "for LGA")]
    assert [d["what"] for d in tell(store, 1, key="JFK")["deployments"]] == ["promoted", "predicted"]


def test_what_the_record_does_not_say_is_empty(store: LocalStore) -> None:
    Registry(store, "churn").register({"model": {"digest": "d" * 64}}, op_id="r")
    told = tell(store, 1)
    assert told["data"]["snapshot"] is None
    assert told["data"]["state"] == "not in the store"
    assert (told["config"]["hash"], told["code"], told["environment"], told["run"]) == (None, {}, {}, None)


def test_released_data_is_said_to_be(store: LocalStore) -> None:
    made = register(store)
    note = {
        "what": "snapshot",
        "digest": made["record"]["snapshot"]["snapshot"],
        "window": None,
        "older_than": "9 days",
    }
    Registry(store, "churn").annotate(1, "retention", note, op_id="x")
    assert tell(store, 1)["data"]["state"] == "released by retention"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("s3://key:secret@bucket/a.csv", "s3://bucket/a.csv"),
        ("https://host/a.csv?X-Amz-Signature=secret&x=1", "https://host/a.csv"),
        ("s3://key:se/cr@et@bucket/a.csv", "s3://bucket/a.csv"),
        ("s3://bucket/a@b/2013:01@x.csv", "s3://bucket/a@b/2013:01@x.csv"),
        ("https://host/a.csv?token#fragment", "https://host/a.csv"),
        ("s3://bucket/2013-0?.csv", "s3://bucket/2013-0?.csv"),
        ("/data/me@home?.csv", "/data/me@home?.csv"),
        ("flights/*.parquet", "flights/*.parquet"),
    ],
)
def test_uris_are_shown_without_credentials(uri: str, shown: str) -> None:
    assert bare(uri) == shown


@given(st.from_regex(r"[a-z0-9]{1,8}:[a-zA-Z0-9%.+/=@]{4,20}", fullmatch=True))
def test_no_password_is_ever_shown(credentials: str) -> None:
    assert credentials not in bare(f"s3://{credentials}@bucket/x")


def test_sources_of_a_snapshot_are_shown_without_credentials(store: LocalStore) -> None:
    secret = {"kind": "files", "uri": "s3://k:hidden@b/x.csv", "files": [FILE | {"uri": "s3://k:hidden@b/x.csv"}]}
    register(store, snapshot=snapshot(store, secret))
    assert "hidden" not in json.dumps(tell(store, 1))
    (use,) = trained_on_data(store, "s3://b/x.csv")
    assert use.through == "s3://b/x.csv, 1,234 bytes"


# --- backwards -----------------------------------------------------------------------------------


def names(uses: list[Any]) -> list[str]:
    return [use.name for use in uses]


def test_who_used_a_snapshot(store: LocalStore) -> None:
    mine = register(store)["record"]["snapshot"]
    same_rows = snapshot(store, FILES | {"uri": "copy.parquet"})
    kept = snapshot(store, FILES | {"from": mine["snapshot"], "part": "kept"}, fingerprint="e" * 64)
    register(store, "flights", snapshot=same_rows)
    register(store, "flights", snapshot=kept)
    register(store, "parts", key="LGA", snapshot=snapshot(store, FILES | {"uri": "z"}, fingerprint="9" * 64))
    Registry(store, "flights").promote(2, expected=None, op_id="p", reason="r")
    found = trained_on_snapshot(store, mine["snapshot"][:8].upper())
    assert [(u.name, u.status, u.through) for u in found] == [
        ("churn v1", "candidate", "the snapshot"),
        ("flights v2", "champion", "what validation left of it"),
    ]
    assert names(trained_on_snapshot(store, "f1" * 32)) == ["churn v1", "flights v1"]
    assert names(trained_on_snapshot(store, "9" * 6)) == ["parts[LGA] v1"]
    assert trained_on_snapshot(store, "abcdef") == []
    for wrong in ("abc", "xyzxyz", "", "a" * 65):
        with pytest.raises(ConfigError, match="is no snapshot"):
            trained_on_snapshot(store, wrong)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("/lake/flights/2013-01.parquet", True),
        ("file:///lake/flights/2013-01.parquet", True),
        ("flights/2013-01.parquet", True),
        ("2013-01.parquet", True),
        ("./2013-01.parquet", True),
        ("flights/*.parquet", True),
        ("/lake/", True),
        ("/lake/flights/", True),
        ("/lake/fl", False),
        ("1.parquet", False),
        ("/2013-01.parquet", False),
        ("s3://lake/flights/2013-01.parquet", False),
    ],
)
def test_who_used_a_file(store: LocalStore, asked: str, found: bool) -> None:
    register(store)
    assert names(trained_on_data(store, asked)) == (["churn v1"] if found else [])


def test_who_used_a_connection_or_a_loader(store: LocalStore) -> None:
    register(store, snapshot=snapshot(store, {"kind": "sql", "conn_id": "warehouse", "query": "SELECT 1"}))
    register(store, snapshot=snapshot(store, {"kind": "callable", "callable": "pkg.data:load"}))
    register(store, snapshot={"snapshot": "0" * 64, "fingerprint": "0" * 64})  # its manifest is gone
    assert names(trained_on_data(store, "warehouse")) == ["churn v1"]
    assert names(trained_on_data(store, "pkg.data:load")) == ["churn v2"]


def test_who_used_code(store: LocalStore, tmp_path: Path) -> None:
    source = tmp_path / "train.py"
    source.write_text("x = 1\n")
    register(store)
    register(store, "flights", code={"git": f"{COMMIT}-dirty", "files": {}})
    sha = hashlib.sha256(b"x = 1\n").hexdigest()
    register(store, "parts", code={"git": "unknown", "files": {"/code/other.py": sha}})
    register(store, "parts", code={})
    assert [(u.name, u.through) for u in trained_by_code(store, "c0ffee")] == [
        ("churn v1", f"commit {COMMIT}"),
        ("flights v1", f"commit {COMMIT}-dirty"),
    ]
    assert [(u.name, u.through) for u in trained_by_code(store, SHA)] == [("churn v1", "the file /code/train.py")]
    assert names(trained_by_code(store, str(source))) == ["parts v1"]
    with pytest.raises(ConfigError, match="is no commit or sha256"):
        trained_by_code(store, "HEAD~1")


def test_a_fleet_registered_in_one_commit_is_searched(store: LocalStore) -> None:
    record = {"snapshot": snapshot(store), "code": {"git": COMMIT}}
    Registry(store, "fleet").register_many({"a": record, "b": record}, op_id="m")
    assert names(trained_by_code(store, COMMIT)) == ["fleet[a] v1", "fleet[b] v1"]
    assert tell(store, 1, "fleet", "b")["model"]["name"] == "fleet[b] v1"


def test_who_was_trained_by_what_was_delivered(store: LocalStore) -> None:
    delivered = {"project": "crm", "commit": COMMIT, "bundle": "b0" * 32, "deployment": "de" * 20}
    register(store, "crm", code={"git": "unknown", "files": {}, "delivered": delivered})
    assert tell(store, 1, "crm")["code"]["delivered"] == delivered
    assert delivered_text(delivered) == f"commit {COMMIT[:12]} of crm, bundle b0b0b0b0b0b0, deployment dededededede"
    for asked, what in ((COMMIT, "commit"), ("b0b0b0", "bundle"), ("dedede", "deployment")):
        found = [(use.name, use.through) for use in trained_by_code(store, asked)]
        assert found == [("crm v1", f"the {what} {delivered[what]}")]
    changed = delivered | {"bundle": None}
    assert "bundle unknown" in delivered_text(changed)
