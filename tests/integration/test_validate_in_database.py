"""Expectations that a real PostgreSQL computes, through an Airflow connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from airflow_mlops.config.models import Validate
from airflow_mlops.exceptions import DataUnavailable
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.validation import validate
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window
from tests.integration.services import postgres, read_compose
from tests.unit.ml import sql_cases
from tests.unit.ml.sql_cases import assert_as_a_frame, data, fill


@pytest.fixture(scope="module")
def lake() -> Iterator[sa.Engine]:
    service = read_compose()["services"]["postgres"]
    settings = service["environment"]
    user, password, name = (settings[f"POSTGRES_{n}"] for n in ("USER", "PASSWORD", "DB"))
    with postgres(service) as port, pytest.MonkeyPatch.context() as patch:
        connection = {
            "conn_type": "postgres", "host": "127.0.0.1", "port": port, "login": user, "password": password,
            "schema": name,
        }  # fmt: skip
        patch.setenv("AIRFLOW_CONN_LAKE", json.dumps(connection))
        engine = sa.create_engine(f"postgresql+psycopg2://{user}:{password}@127.0.0.1:{port}/{name}")
        fill(engine)
        yield engine
        engine.dispose()


def test_postgresql_says_what_a_frame_says(lake: sa.Engine, tmp_path: Path) -> None:
    hook, store = MLOpsHook(), LocalStore(tmp_path)
    assert_as_a_frame(sql_cases.snapshot(store, hook.sql, data()), store, hook.database)


def test_it_only_reads_and_sees_one_state(lake: sa.Engine, tmp_path: Path) -> None:
    hook, store, section = MLOpsHook(), LocalStore(tmp_path), data()
    taken = sql_cases.snapshot(store, hook.sql, section)
    expectations = [
        {"expect_column_values_to_be_between": {"column": "i", "max_value": 56, "mostly": 0.9}},
        {"expect_table_row_count_to_equal": {"value": 60}},
    ]
    config = Validate.model_validate({"engine": "sql", "schema": "off", "expectations": expectations})
    with lake.connect() as connection:
        before = connection.execute(sa.text("SELECT count(*) FROM pg_class")).scalar()
    stop = threading.Event()

    def write() -> None:
        """Rows come and go all the time, always as many."""
        while not stop.is_set():
            with lake.begin() as connection:
                connection.execute(sa.text("DELETE FROM cases WHERE i > 900"))
                connection.execute(sa.text("INSERT INTO cases (i, n) VALUES (1000, 0)"))
            with lake.begin() as connection:
                connection.execute(sa.text("DELETE FROM cases WHERE i > 900"))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            found = validate(taken, store, config, section, database=hook.database)
            there = found.asked.rows if found.asked is not None else 0
            counted = [c for c in found.checks if c.expectation == "expect_table_row_count_to_equal"]
            # Whatever the moment, all answers are of the same one.
            assert [c.observed for c in counted] == [str(there)]
    finally:
        stop.set()
        writer.join()
    with lake.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM pg_class")).scalar() == before
        sessions = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert connection.execute(sessions).scalar() <= 3


def test_the_window_is_applied_there_and_nan_is_told(lake: sa.Engine, tmp_path: Path) -> None:
    hook, store = MLOpsHook(), LocalStore(tmp_path)
    with lake.begin() as connection:
        connection.execute(sa.text("CREATE TABLE IF NOT EXISTS odd AS SELECT * FROM cases"))
        connection.execute(sa.text("UPDATE odd SET n = 'NaN' WHERE i < 2"))
    section = data(sql={"conn_id": "lake", "query": "SELECT * FROM odd"}, timestamp="t")
    window = Window.of("2024-01-01", "2024-01-02")
    batches = read_batches(section, files=Files(""), window=window, sql=hook.sql)
    taken = take_snapshot(store, "cases", batches, data=section, window=window, gaps=True)
    assert 0 < taken.rows < 60
    expectations = [
        {"expect_column_values_to_be_between": {"column": "n", "max_value": 9}},
        {"expect_table_row_count_to_equal": {"value": taken.rows}},
    ]
    config = Validate.model_validate({"engine": "sql", "schema": "off", "expectations": expectations})
    found = validate(taken, store, config, section, database=hook.database)
    said = {check.expectation: check for check in found.checks}
    assert said["rows are those of the snapshot"].success
    assert said["expect_table_row_count_to_equal"].success
    # To PostgreSQL NaN is larger than any number, where pandas has a missing value.
    assert said["expect_column_values_to_be_between"].unexpected_count == 2
    assert (said["no NaN among numbers"].observed[:5], said["no NaN among numbers"].severity) == ("2 NaN", "warning")


def test_a_database_that_cannot_be_reached_may_come_back(
    lake: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, store, section = MLOpsHook(), LocalStore(tmp_path), data()
    taken = sql_cases.snapshot(store, hook.sql, section)
    nowhere = {"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "u", "password": "secret-word"}
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps(nowhere))
    config = Validate.model_validate(
        {"engine": "sql", "expectations": [{"expect_column_to_exist": {"column": "n"}}], "schema": "off"}
    )
    with pytest.raises(DataUnavailable, match="cannot connect through 'lake'") as caught:
        validate(taken, store, config, section, database=hook.database)
    assert "secret-word" not in str(caught.value)
