"""Where a pipeline stands, from its records."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.config.models import Retrain
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.ml.standing import POINTS, fold, standing
from airflow_mlops.registry import Registry
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.records import Records
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def register(registry: Registry, number: int, **run: Any) -> None:
    registry.register({"run": run, "about": {"owner": "ops", "description": f"the {number}th"}}, op_id=f"r{number}")


def test_nothing_is_known_of_a_pipeline_that_never_ran(store: LocalStore) -> None:
    found = standing(store, "churn", NOW)
    assert (found.champion, found.candidate, found.checks, found.performance, found.cost) == (
        None,
        None,
        {},
        None,
        None,
    )
    assert (found.assessed.level, found.models, found.alarms) == (None, 0, {})


def test_aliases_are_those_of_the_registry_after_every_kind_of_commit(store: LocalStore) -> None:
    registry = Registry(store, "churn")

    def same() -> None:
        model = fold(Records.read(store, "churn").log)[None]
        champion, challenger, rollout = registry.champion(), registry.challenger(), registry.rollout()
        assert model.champion == (champion.number if champion else None)
        assert model.challenger == (challenger.number if challenger else None)
        assert bool(model.rollout) == (rollout is not None)
        assert len(model.places) == len(registry.versions())

    for number in range(1, 6):
        register(registry, number)
    same()
    registry.promote(1, expected=None, op_id="p1", reason="x")
    registry.set_challenger(2, op_id="c2")
    same()
    registry.promote(2, expected=1, op_id="p2", reason="x")
    registry.begin_rollout(3, expected=2, steps=["shadow", {"canary": 0.1}, "full"], op_id="b3", reason="x")
    same()
    registry.judge_rollout(registry.rolling(3), "next", look=1, spent=0.1, op_id="n3", reason="x")
    assert standing(store, "churn", NOW).rollout == registry.rollout()
    registry.end_rollout(3, op_id="e3", reason="x")
    same()
    registry.rollback(expected=2, op_id="b", reason="x")
    same()
    registry.promote(4, expected=1, op_id="p4", reason="x")
    assert standing(store, "churn", NOW).returns_to == 1
    registry.retire(1, op_id="t1", reason="x")
    same()
    assert standing(store, "churn", NOW).returns_to is None


def test_the_champion_is_told_with_who_made_it_one(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    for number in (1, 2):
        register(registry, number)
    registry.promote(1, expected=None, op_id="p1", reason="x", by="anna")
    registry.promote(2, expected=1, op_id="p2", reason="x")
    back = registry.rollback(expected=2, op_id="b", reason="x", by="bob")
    found = standing(store, "churn", NOW)
    assert found.champion is not None
    assert (found.champion.version, found.champion.by, found.champion.at) == (1, "bob", back.promoted_at)
    assert (found.owner, found.description) == ("ops", "the 2th")


def test_the_newest_candidate_is_no_rehearsal(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    register(registry, 1, dag_id="churn__train", run_id="r1")
    registry.annotate(1, "gates", {"verdict": "inconclusive", "sentence": "first"}, op_id="g")
    registry.annotate(1, "gates", {"verdict": "rejected", "sentence": "then"}, op_id="g2")
    register(registry, 2, rehearsal=True)
    candidate = standing(store, "churn", NOW).candidate
    assert candidate is not None
    assert (candidate.version, candidate.verdict, candidate.sentence) == (1, "rejected", "then")
    assert (candidate.promoted, candidate.run["run_id"]) == (False, "r1")


def window(day: int) -> Window:
    return Window.of(datetime.fromtimestamp(86400 * day, UTC), datetime.fromtimestamp(86400 * (day + 1), UTC))


def test_performance_keeps_the_last_values_of_one_metric(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    register(registry, 1)
    registry.annotate(1, "evaluation", {"metrics": {"rmse": {"candidate": 1.0, "lower_is_better": True}}}, op_id="e")
    for day in range(POINTS + 5):
        metric = "mae" if day == POINTS else "rmse"
        value = None if day == POINTS + 1 else float(day)
        write_check(store, "churn", window(day), "performance", {"verdict": "ok", "metric": metric, "value": value})
    trend = standing(store, "churn", NOW).performance
    assert trend is not None
    assert (trend.metric, trend.lower_is_better, len(trend.points)) == ("rmse", True, POINTS)
    assert [c.result["value"] for c in trend.points][-3:] == [POINTS - 1, POINTS + 2, POINTS + 3, POINTS + 4][-3:]


def test_an_alarm_counts_while_the_champion_it_was_about_serves(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    for number in (1, 2):
        register(registry, number)
    registry.promote(1, expected=None, op_id="p1", reason="x")
    write_check(store, "churn", window(1), "drift", {"verdict": "drift", "version": 1})
    write_check(store, "churn", window(1), "quality", {"verdict": "not_enough_data", "version": 1})
    write_check(store, "churn", window(1), "gates", {"verdict": "rejected", "version": 1})
    assert [*standing(store, "churn", NOW).alarms] == ["drift"]
    registry.promote(2, expected=1, op_id="p2", reason="x")
    assert standing(store, "churn", NOW).alarms == {}


def test_a_request_is_told_until_a_training_goes_on(store: LocalStore) -> None:
    ledger, config = Ledger(store, "churn"), Retrain.model_validate({"cooldown": "7d"})
    ledger.claim(None, start="schedule", at=NOW, run="r0", config=config, op_id="c0")
    ledger.request(["drift"], evidence="a", at=NOW, config=config, op_id="q", dry=True)
    assert standing(store, "churn", NOW).request is None
    ledger.request(["drift"], evidence="a", at=NOW, config=config, op_id="q2")
    found = standing(store, "churn", NOW).request
    assert found is not None
    assert (found["granted"], found["held"], found["reasons"]) == (False, ["cooldown"], ["drift"])
    ledger.claim(None, start="manual", at=NOW, run="r1", config=config, op_id="c1")
    assert standing(store, "churn", NOW).request is None


def test_cost_is_that_of_this_month(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    register(registry, 1)
    registry.annotate(1, "cost", {"wall_seconds": 2.0, "cpu_seconds": 1.0, "peak_mb": 5.0}, op_id="c")
    cost = {"wall_seconds": 3.0, "cpu_seconds": 1.0, "peak_mb": 9.0}
    write_check(store, "churn", window(1), "prediction", {"rows": 1, "cost": cost})
    # A job elsewhere predicted the next window.
    job = {"cost": {"wall_seconds": 60.0, "cpu_seconds": 0.0, "peak_mb": 0.0, "price_per_hour": 3.0, "currency": "EUR"}}
    write_check(store, "churn", window(2), "prediction", {"rows": 1, "cost": cost, "job": job})
    found = standing(store, "churn", datetime.now(UTC)).cost
    assert found is not None
    assert (found["wall_seconds"], found["cpu_seconds"], found["peak_mb"]) == (68.0, 3.0, 9.0)
    assert found["money"] == ["0.05 EUR"]
    assert standing(store, "churn", datetime(2001, 1, 1, tzinfo=UTC)).cost is None


def test_it_is_read_without_airflow_and_without_anything_heavy() -> None:
    code = (
        "import sys, airflow_mlops.ml.standing\n"
        "print([m for m in ('airflow', 'numpy', 'pandas', 'pyarrow', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
