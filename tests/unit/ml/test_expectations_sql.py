"""Expectations that the database computes: SQLite here, PostgreSQL in tests/integration."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_mlops.config.models import Validate
from airflow_mlops.exceptions import ConfigError, DataError, ValidationFailed
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.ml.validation import validate
from airflow_mlops.store import LocalStore
from tests.unit.ml import sql_cases
from tests.unit.ml.sql_cases import assert_as_a_frame, data, fill


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lake.db"
    fill(sa.create_engine(f"sqlite:///{path}"))
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def checked(store: LocalStore, *expectations: dict[str, Any], section: Any = None, **config: Any) -> Any:
    hook, section = MLOpsHook(), section or data()
    taken = sql_cases.snapshot(store, hook.sql, section)
    made = Validate.model_validate({"engine": "sql", "schema": "off", "expectations": [*expectations], **config})
    return taken, lambda: validate(taken, store, made, section, database=hook.database)


def test_a_database_says_what_a_frame_says(lake: Path, store: LocalStore) -> None:
    hook = MLOpsHook()
    assert_as_a_frame(sql_cases.snapshot(store, hook.sql, data()), store, hook.database)


def test_rows_that_fail_are_named_by_their_ids_and_values(lake: Path, store: LocalStore) -> None:
    _, ask = checked(store, {"expect_column_values_to_be_between": {"column": "i", "max_value": 56}})
    found = ask()
    (check,) = [c for c in found.failed if c.expectation.startswith("expect")]
    assert (check.unexpected_count, check.examples, check.ids) == (3, ("57", "58", "59"), ("57", "58", "59"))
    with pytest.raises(ValidationFailed, match=r"on i: 3 unexpected \(5 %\), such as 57, 58, 59"):
        found.check()
    assert found.evidence["database"] == {"conn_id": "lake", "dialect": "sqlite", "rows": 60, "one_state": True}
    assert "evaluated in the database of <code>lake</code>" in found.html
    hidden = data(private=["i", "u"], id=None)
    _, ask = checked(store, {"expect_column_values_to_be_in_set": {"column": "u", "value_set": ["a"]}}, section=hidden)
    private = ask()
    assert "u59" not in private.html + private.sentence


def test_quarantine_takes_the_same_rows_of_the_snapshot(lake: Path, store: LocalStore) -> None:
    entry = {"expect_column_values_to_be_between": {"column": "i", "max_value": 56}}
    _, ask = checked(store, entry, on_failure="quarantine")
    found = ask()
    assert not found.blocked
    assert (found.snapshot.rows, found.quarantined.rows) == (57, 3)
    # A row that came after the snapshot is the database's alone: nobody can set it aside.
    _, ask = checked(store, entry, on_failure="quarantine")
    with sqlite3.connect(lake) as db:
        db.execute("INSERT INTO cases (i, n) VALUES (1000, 0)")
    changed = ask()
    assert changed.blocked
    assert "rows are those of the snapshot: observed 61 in the database, 60 in the snapshot" in changed.sentence


def test_what_cannot_be_asked_says_so(lake: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, ask = checked(store, {"expect_column_mean_to_be_between": {"column": "n", "max_value": 9}})
    with sqlite3.connect(lake) as db:
        db.execute("ALTER TABLE cases RENAME TO elsewhere")
    with pytest.raises(DataError, match=r"the query through 'lake' failed: OperationalError: no such table: cases"):
        ask()
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", "http://nowhere")
    with pytest.raises(ConfigError, match="'lake'"):
        ask()


def test_rows_that_are_not_a_databases_are_looked_at_here(lake: Path, store: LocalStore, tmp_path: Path) -> None:
    from airflow_mlops.ml.data import read_batches, take_snapshot
    from airflow_mlops.ml.files import Files
    from tests.unit.ml.test_expectations_parts import TABLE

    TABLE.to_pandas().to_csv(tmp_path / "rows.csv", index=False)
    section = data(sql=None, source="rows.csv")
    batches = read_batches(section, files=Files(str(tmp_path)), window=None)
    taken = take_snapshot(store, "cases", batches, data=section, window=None)
    config = Validate.model_validate(
        {
            "engine": "sql", "schema": "off",
            "expectations": [
                {"expect_column_values_to_be_between": {"column": "i", "max_value": 60}},
                {"expect_column_values_to_match_like_pattern": {"column": "u", "like_pattern": "u%"}},
            ],
        }
    )  # fmt: skip
    found = validate(taken, store, config, section)
    assert not found.blocked
    assert "evaluated here, not in a database" in found.sentence
    assert "left out, as only a database computes it: expect_column_values_to_match_like_pattern" in found.sentence
