"""``airflow mlops fleet``: the newest training of a fleet, told in a terminal."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pandas as pd
import pytest

from airflow_mlops.cli.commands import pipeline_status
from airflow_mlops.cli.fleet import drift, failures, show, status
from airflow_mlops.cli.fleet_definition import FLEET_STATUSES, PRINTED
from airflow_mlops.ml.fleet.carried import carry_on, earlier
from airflow_mlops.ml.fleet.drift import put_tests
from airflow_mlops.ml.fleet.result import STATUSES, WORDS, count, put_table, read_newest, save_result, sentence
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

ROWS = [
    {"key": "a", "status": "passed", "reason": "good", "version": 1, "metrics": {"r2": 0.5}, "promoted": True},
    {"key": "b", "status": "failed", "reason": "the target is 1.0 in all rows"},
    {"key": "c", "status": "fallback", "reason": "20 rows are too few", "served_by": "*"},
]


@pytest.fixture(autouse=True)
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}")
    monkeypatch.setenv("COLUMNS", "100")
    store = LocalStore(tmp_path)
    registry = Registry(store, "routes")
    searched = {"params": {"alpha": 1.0}, "config": {"train": {"search": {"space": {"alpha": [1.0, 9.0]}}}}}
    registry.register({"model": {"digest": "0" * 64}, "metrics": {"r2": 0.5}, **searched}, op_id="1", key="a")
    registry.promote(1, expected=None, op_id="2", reason="good", key="a")
    counts = count(ROWS)
    result = {
        "sentence": sentence(counts), "counts": counts, "table": put_table(store, ROWS), "dag_id": "routes__train",
        "run_id": "manual__1", "started_at": "2026-01-01T00:00:00+00:00", "window": None, "keys": 3, "tests": 0,
        "limit": None, "rehearsal": False, "absent": {}, "rows": 500,
    }  # fmt: skip
    save_result(store, "routes", "0" * 64, result)
    save_result(store, "routes", "1" * 64, result | {"started_at": "2025-01-01T00:00:00+00:00", "sentence": "old"})


def test_status_tells_counts_and_scores(capsys: pytest.CaptureFixture[str]) -> None:
    status(Namespace(pipeline="routes", output="text"))
    said = capsys.readouterr().out
    assert "routes: 1 promoted, 1 failed, 1 served by a parent" in said
    assert "r2: half of the keys between 0.5 and 0.5" in said
    status(Namespace(pipeline="routes", output="json"))
    assert json.loads(capsys.readouterr().out)["scores"]["r2"] == [0.5, 0.5, 0.5]


def test_failures_have_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    failures(Namespace(pipeline="routes", status=None, limit=None, output="table"))
    said = capsys.readouterr().out
    assert "1 of 3 keys are failed" in said
    assert "the target is 1.0 in all rows" in said
    failures(Namespace(pipeline="routes", status=["fallback"], limit=None, output="json"))
    assert [row["key"] for row in json.loads(capsys.readouterr().out)] == ["c"]
    failures(Namespace(pipeline="routes", status=["promoted"], limit=None, output="json"))
    assert [row["key"] for row in json.loads(capsys.readouterr().out)] == ["a"]


def test_show_tells_who_serves_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    show(Namespace(pipeline="routes", key="a", output="text"))
    said = capsys.readouterr().out
    assert "routes[a]: v1 serves" in said
    assert "v1 champion" in said
    assert "its search chose alpha=1.0" in said
    assert "registry show 'routes[a]'" in said
    show(Namespace(pipeline="routes", key="c", output="text"))
    assert "routes[c]: * serves" in capsys.readouterr().out


def test_the_status_of_any_pipeline_counts_what_a_fleet_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(LocalStore(tmp_path), "routes")
    for number, key in enumerate(("a", "b", "b"), 3):
        registry.register({"model": {"digest": "0" * 64}}, op_id=str(number), key=key)
    pipeline_status(Namespace(pipeline="routes"))
    assert capsys.readouterr().out.splitlines() == [
        "routes: 4 versions of 2 models, 1 of them with a champion",
        "newest training: 1 promoted, 1 failed, 1 served by a parent; airflow mlops fleet status tells more",
    ]
    registry = Registry(LocalStore(tmp_path), "churn")
    registry.register({"model": {"digest": "0" * 64}}, op_id="1")
    pipeline_status(Namespace(pipeline="churn"))
    assert capsys.readouterr().out == "churn: 1 versions, no champion\n"


def test_a_training_of_some_keys_hides_no_other_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path)
    rows = [ROWS[0] | {"status": "rejected", "promoted": False, "metrics": {"r2": 0.1}}]
    table, counts = put_table(store, rows), count(rows, not_due=2)
    carried = carry_on(store, table, earlier(store, "routes", "t", "drift__2"), not_due=["b", "c"], absent=())
    result = {
        "sentence": sentence(counts), "counts": counts, "table": table, "dag_id": "t", "run_id": "drift__2",
        "started_at": "2026-02-01T00:00:00+00:00", "window": None, "keys": 3, "tests": 0, "rehearsal": False,
    }  # fmt: skip
    save_result(store, "routes", "2" * 64, result | carried)
    status(Namespace(pipeline="routes", output="text"))
    said = capsys.readouterr().out
    assert "routes: 1 rejected, 2 not due\n" in said
    assert "all 3 keys, each by its last training: 1 rejected, 1 failed, 1 served by a parent\n" in said
    assert "airflow mlops fleet failures routes has the reasons" in said
    failures(Namespace(pipeline="routes", status=None, limit=None, output="table"))
    said = capsys.readouterr().out
    assert "2 of 3 keys are failed, rejected" in said
    failures(Namespace(pipeline="routes", status=["not due"], limit=None, output="json"))
    assert [row["key"] for row in json.loads(capsys.readouterr().out)] == ["b", "c"]
    assert "the target is 1.0 in all rows (in manual__1)" in " ".join(said.split())
    show(Namespace(pipeline="routes", key="b", output="text"))
    assert "last training, manual__1: failed: the target is 1.0 in all rows" in capsys.readouterr().out


def test_show_tells_what_was_rolled_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(tmp_path)
    registry = Registry(store, "routes")
    registry.register({"model": {"digest": "1" * 64}, "metrics": {"r2": 0.6}}, op_id="3", key="a")
    registry.promote(2, expected=1, op_id="4", reason="better", key="a")
    found = read_newest(store, "routes")
    assert found is not None
    save_result(store, "routes", "0" * 64, found | {"table": put_table(store, [ROWS[0] | {"version": 2}])})
    show(Namespace(pipeline="routes", key="a", output="text"))
    assert "newest training: promoted; passed: good\n" in capsys.readouterr().out
    registry.rollback(expected=2, op_id="5", reason="worse on Mondays", by="anna", key="a")
    show(Namespace(pipeline="routes", key="a", output="text"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["routes[a]: v1 serves", "newest training: promoted v2, which serves no more; passed: good"]
    assert lines[-3].endswith(": r2 0.6; rolled back: worse on Mondays, by anna")
    assert lines[-2].endswith(": r2 0.5")
    show(Namespace(pipeline="routes", key="a", output="json"))
    first, second = json.loads(capsys.readouterr().out)["versions"]
    assert "rolled_back" not in first
    assert second["rolled_back"]["reason"] == "worse on Mondays"
    registry.promote(2, expected=1, op_id="6", reason="not worse after all", key="a")
    show(Namespace(pipeline="routes", key="a", output="text"))
    assert "rolled back" not in capsys.readouterr().out


def test_the_command_knows_every_status() -> None:
    assert FLEET_STATUSES == STATUSES
    assert {*FLEET_STATUSES, *PRINTED, "not_due"} == {*WORDS, "not due"}


def test_what_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        show(Namespace(pipeline="routes", key="aa", output="text"))
    assert "did you mean a?" in capsys.readouterr().err
    for number, key in enumerate(("R10", "R1", "R51"), 7):
        Registry(LocalStore(tmp_path), "routes").register({"model": {"digest": "0" * 64}}, op_id=str(number), key=key)
    with pytest.raises(SystemExit):
        show(Namespace(pipeline="routes", key="r1O", output="text"))
    assert "did you mean R10?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        status(Namespace(pipeline="churn", output="text"))
    assert "no fleet of the name 'churn'" in capsys.readouterr().err


def test_drift_lists_the_alarms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        drift(Namespace(pipeline="routes", limit=None, output="table"))
    assert "has not been checked for drift" in capsys.readouterr().err
    store = LocalStore(tmp_path)
    tests = pd.DataFrame(
        [
            ("a", 1, "hour", "W1", 1.5, 0.1, 1e-9, 200, 40, True),
            ("b", 1, "hour", "W1", 0.2, 0.1, 0.04, 200, 40, False),
            ("*", 0, "rain", "share over all keys", 0.2, 0.05, 1e-12, 0, 0, True),
        ],
        columns=[
            "key", "version", "column", "statistic", "effect", "threshold", "p_value", "reference_rows",
            "current_rows", "alarm",
        ],
    )  # fmt: skip
    result = {
        "verdict": "drift", "sentence": "drift in 1 of 2 keys", "keys": 2, "drifted_keys": 1, "few": 0,
        "by_parent": {"keys": 0, "rows": 0}, "table": put_tests(store, tests),
    }  # fmt: skip
    write_check(store, "routes", Window.of("2026-01-01", "2026-02-01"), "drift", result)
    drift(Namespace(pipeline="routes", limit=None, output="table"))
    said = capsys.readouterr().out
    assert said.startswith("routes, 2026-01: drift in 1 of 2 keys\n")
    first, second = (line.split() for line in said.rstrip().splitlines()[-2:])
    assert first[:3] == ["all", "together", "–"]
    assert second == ["a", "v1", "hour", "W1", "1.5", "1e-09", "200", "→", "40"]
    drift(Namespace(pipeline="routes", limit=None, output="json"))
    assert [row["key"] for row in json.loads(capsys.readouterr().out)["alarms"]] == ["*", "a"]
    show(Namespace(pipeline="routes", key="a", output="text"))
    assert "drift, 2026-01: W1 1.5 in hour (p 1e-09): an alarm" in capsys.readouterr().out
    status(Namespace(pipeline="routes", output="text"))
    assert "drift, 2026-01: drift in 1 of 2 keys" in capsys.readouterr().out
