"""MLOpsHook: where store and data are, by configuration and by connection."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from airflow_mlops.exceptions import ConfigError, DataError, DataUnavailable
from airflow_mlops.hooks.mlops import MLOpsHook


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    for name in ("STORE", "DATA_ROOT", "MLOPS_CONN_ID", "ALLOWED_IMPORTS"):
        monkeypatch.delenv(f"AIRFLOW__MLOPS__{name}", raising=False)


def test_without_settings_everything_is_in_airflow_home(tmp_path: Path) -> None:
    hook = MLOpsHook()
    assert (hook.store_uri, hook.data_root) == (f"file://{tmp_path}/mlops", f"{tmp_path}/data")
    assert hook.allowed_imports == ()


def test_configuration_and_then_the_connection_go_before_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", "s3://a/b")
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", "/lake")
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", " my.features , my.models,")
    hook = MLOpsHook()
    assert (hook.store_uri, hook.data_root) == ("s3://a/b", "/lake")
    assert hook.allowed_imports == ("my.features", "my.models")
    extra = {"store": "s3://c/d", "aws_conn_id": "other", "trusted_types": "os.system", "allowed_imports": "os"}
    monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": "mlops", "extra": extra}))
    hook = MLOpsHook("team")
    assert (hook.store_uri, hook.data_root) == ("s3://c/d", "/lake")
    # A connection says where things are, never what may be imported or trusted.
    assert hook.allowed_imports == ("my.features", "my.models")
    assert hook.trusted_types == ()


def test_a_connection_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowNotFoundException

    def missing(cls: type, conn_id: str) -> None:
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setattr(MLOpsHook, "get_connection", classmethod(missing))
    with pytest.raises(ConfigError, match="'nowhere' does not exist"):
        _ = MLOpsHook("nowhere").store_uri


def test_rows_come_through_an_airflow_connection_in_arrow_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("CREATE TABLE t (id INTEGER, name TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [(i, f"n{i}") for i in range(70_000)])

    class Hook:
        def get_conn(self) -> sqlite3.Connection:
            return sqlite3.connect(tmp_path / "x.db")

        def get_records(self) -> None: ...

    class Connection:
        def get_hook(self) -> Hook:
            return Hook()

    monkeypatch.setattr(MLOpsHook, "get_connection", classmethod(lambda cls, conn_id: Connection()))
    tables = list(MLOpsHook().sql("warehouse", "SELECT id, name FROM t ORDER BY id"))
    assert [t.num_rows for t in tables] == [50_000, 20_000]
    assert tables[1].slice(0, 1).to_pylist() == [{"id": 50_000, "name": "n50000"}]
    with pytest.raises(DataError, match="no such table"):
        list(MLOpsHook().sql("warehouse", "SELECT * FROM nowhere"))


def test_a_connection_lost_in_the_middle_of_a_query_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class OperationalError(Exception):
        """As database drivers name it (PEP 249)."""

    class AdminShutdown(OperationalError):
        """As psycopg names one kind of it."""

    class Cursor:
        description = (("id",),)
        batches: ClassVar = [[(1,), (2,)]]

        def execute(self, query: str) -> None: ...

        def fetchmany(self, most: int) -> list[tuple[int]]:
            if not self.batches:
                raise AdminShutdown("terminating connection")
            return self.batches.pop()

    connection = SimpleNamespace(cursor=Cursor, close=lambda: None)
    database = SimpleNamespace(get_conn=lambda: connection, get_records=None)
    monkeypatch.setattr(MLOpsHook, "get_connection", lambda *_: SimpleNamespace(get_hook=lambda: database))
    with pytest.raises(DataUnavailable, match="terminating connection"):
        list(MLOpsHook().sql("warehouse", "SELECT id FROM t"))


def test_a_query_through_no_connection_or_one_without_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    def missing(cls: type, conn_id: str) -> None:
        raise AirflowNotFoundException(conn_id)

    monkeypatch.setattr(MLOpsHook, "get_connection", classmethod(missing))
    with pytest.raises(ConfigError, match=r"(?s)'nowhere' does not exist.*data\.sql\.conn_id"):
        list(MLOpsHook().sql("nowhere", "SELECT 1"))
    unknown = Connection(conn_id="shop", conn_type="no_such_database")
    monkeypatch.setattr(MLOpsHook, "get_connection", classmethod(lambda cls, conn_id: unknown))
    with pytest.raises(ConfigError, match=r"(?s)'shop' of type 'no_such_database'.*install Airflow's provider"):
        list(MLOpsHook().sql("shop", "SELECT 1"))


class TestLocationsOfConnections:
    def test_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "lake").mkdir()
        (tmp_path / "lake" / "a.csv").write_text("x\n1\n")
        extra = {"path": str(tmp_path / "lake")}
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "fs", "extra": extra}))
        files = MLOpsHook().files("${conn:lake}/*.csv")
        assert [f.path for f in files.expand("${conn:lake}/*.csv")] == [f"{tmp_path}/lake/a.csv"]
        assert files.resolve("${conn:lake}")[1] == f"{tmp_path}/lake"

    def test_a_bucket_is_read_with_the_connections_own_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bucket = {"s3": {"bucket_name": "lake"}}
        extra = {"service_config": bucket, "endpoint_url": "http://127.0.0.1:9", "region_name": "x-1"}
        aws = {"conn_type": "aws", "login": "key-of-lake", "password": "secret-of-lake", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(aws))
        filesystem, path = MLOpsHook().files("${conn:lake}/a").resolve("${conn:lake}/a/{{ x }}.csv")
        assert path == "lake/a/{{ x }}.csv"
        assert filesystem.region == "x-1"
        assert "key-of-lake" in str(filesystem.__reduce__())

    def test_a_data_root_of_another_team(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        extra = {"data_root": str(tmp_path)}
        monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps({"conn_type": "mlops", "extra": extra}))
        assert MLOpsHook().files().resolve("${conn:team}/x.csv")[1] == f"{tmp_path}/x.csv"

    @pytest.mark.parametrize(
        ("connection", "words"),
        [(None, "does not exist"), ({"conn_type": "http", "host": "x"}, "names no location"),
         ({"conn_type": "aws"}, "names no location")],
    )  # fmt: skip
    def test_what_names_no_location(self, monkeypatch: pytest.MonkeyPatch, connection, words: str) -> None:
        if connection is not None:
            monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
        with pytest.raises(ConfigError, match=words):
            MLOpsHook().files().resolve("${conn:lake}/x.csv")


def test_settings_for_pipeline_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.config.settings import Settings
    from airflow_mlops.hooks.options import settings

    assert settings() == Settings(allowed_imports=(), allow_commands=False)
    monkeypatch.setenv("AIRFLOW__MLOPS__ENVIRONMENT", "staging")
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_VARIABLES", "A, B_*")
    found = settings()
    assert (found.environment, found.allowed_variables) == ("staging", ("A", "B_*"))
    assert settings("production").environment == "production"
