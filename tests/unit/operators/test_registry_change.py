"""Changes of a registry by hand, as the task of ``<pipeline>__registry`` makes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.exceptions import StoreUnavailable
from airflow_mlops.operators.registry import RegistryChangeOperator
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

CHAMPION = Asset(name="churn.champion", uri="x-mlops://churn/champion")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two champions one after the other, and a candidate."""
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    found = Registry(LocalStore(tmp_path / "store"), "churn")
    for number in (1, 2, 3):
        record = {"model": {"digest": f"{number:064x}"}, "metrics": {"roc_auc": 0.9 + number / 100}}
        found.register(record, op_id=f"r{number}")
    found.promote(1, expected=None, op_id="p1", reason="first")
    found.promote(2, expected=1, op_id="p2", reason="better")
    return found


def task(notify: Any = None) -> RegistryChangeOperator:
    return RegistryChangeOperator(task_id="change", pipeline="churn", outlets=[CHAMPION], notify=notify)


def change(
    run_id: str = "manual__1",
    user: str | None = "ana",
    notify: Any = None,
    operator: RegistryChangeOperator | None = None,
    **form: Any,
) -> tuple[Any, Any]:
    """Run the task once; returns its result and the extra of the asset's event."""
    operator = operator or task(notify)
    ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "xcom_pull"])
    ti.dag_id, ti.run_id, ti.task_id, ti.map_index = "churn__registry", run_id, "registry.change", -1
    event = SimpleNamespace(extra=None)
    dag_run = SimpleNamespace(
        run_type="manual", data_interval_start=None, data_interval_end=None, triggering_user_name=user
    )
    context: Any = {"ti": ti, "params": form, "dag_run": dag_run, "outlet_events": {CHAMPION: event}}
    return operator.execute(context), event.extra


def test_a_rollback_returns_to_the_champion_before_and_tells_the_asset(registry: Registry) -> None:
    result, extra = change(action="rollback", version=None, expected=2, reason="worse in production")
    assert result == {"action": "rollback", "key": None, "version": 1, "previous": 2, "digest": f"{1:064x}"}
    champion = registry.champion()
    assert champion is not None
    assert champion.number == 1
    row = registry.history()[-1]
    assert (row["action"], row["by"], row["reason"]) == ("rollback", "ana", "worse in production")
    assert extra == {
        "window_start": None, "window_end": None, "promote": True, "replay": None,
        "name": "churn", "key": None, "version": 1, "previous": 2, "digest": f"{1:064x}", "metrics": {"roc_auc": 0.91},
    }  # fmt: skip


def test_a_second_try_changes_nothing_more(registry: Registry) -> None:
    form = {"action": "rollback", "version": None, "expected": 2, "reason": "worse"}
    first, _ = change(**form)
    assert change(**form)[0] == first
    assert [row["action"] for row in registry.history()].count("rollback") == 1


def test_a_stale_expectation_fails_at_once_and_says_what_is_there(registry: Registry) -> None:
    change(action="rollback", expected=2, reason="worse")
    with pytest.raises(AirflowFailException, match="churn@champion is v1, expected v2: nothing is rolled back"):
        change(run_id="manual__2", action="rollback", expected=2, reason="worse")
    with pytest.raises(AirflowFailException, match="churn@champion is v1, expected v2"):
        change(run_id="manual__3", action="promote", version=3, expected=2, reason="good")
    champion = registry.champion()
    assert champion is not None
    assert champion.number == 1


def test_a_promotion_by_hand(registry: Registry) -> None:
    result, extra = change(action="promote", version=3, expected=2, reason="asked for", user=None)
    assert (result["version"], result["previous"], extra["version"]) == (3, 2, 3)
    assert registry.history()[-1]["by"] is None
    registry.promote(1, expected=3, op_id="later", reason="another")
    with pytest.raises(AirflowSkipException, match=r"churn v3 was made the champion by this task before.*now is v1"):
        change(action="promote", version=3, expected=2, reason="asked for", user=None)


def test_a_rollout_is_ended_by_hand_or_taken_to_its_end_at_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(RegistryChangeOperator, "tell", lambda self, c, s, event, text: told.append(f"{event}: {text}"))
    with pytest.raises(AirflowFailException, match="v3 is not rolling out: no version is"):
        change(action="abort", version=3, reason="odd scores")
    steps: list[Any] = ["shadow", "full"]
    registry.begin_rollout(3, expected=2, steps=steps, op_id="b", reason="passed")
    operator = task()
    result, extra = change(operator=operator, run_id="manual__2", action="abort", version=3, reason="odd scores")
    assert (result["action"], result["previous"], extra, operator.outlets) == ("abort", None, None, [])
    assert (registry.rollout(), registry.champion().number, registry.get(3).status) == (None, 2, "candidate")
    assert told == ["rollback: churn v3: its rollout was ended: odd scores"]
    row = registry.history()[-1]
    assert (row["action"], row["kind"], row["by"], row["reason"]) == ("rollout", "end", "ana", "odd scores")
    registry.begin_rollout(3, expected=2, steps=steps, op_id="again", reason="passed")
    change(run_id="manual__3", action="promote", version=3, expected=2, reason="today")
    assert (registry.rollout(), registry.champion().number) == (None, 3)


def test_a_retirement_is_no_news_of_the_champion(registry: Registry) -> None:
    operator = task()
    result, extra = change(operator=operator, action="retire", version=3, reason="leaks")
    assert operator.outlets == []
    assert result == {"action": "retire", "key": None, "version": 3, "previous": None, "digest": f"{3:064x}"}
    assert extra is None
    assert registry.get(3).status == "retired"
    with pytest.raises(AirflowFailException, match="is the champion: it cannot be retired"):
        change(run_id="manual__2", action="retire", version=2, reason="leaks")


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "no action is given"),
        ({"action": "delete", "reason": "x"}, "the action is 'delete'"),
        ({"action": "promote", "expected": 2, "reason": "x"}, "promote needs version"),
        ({"action": "rollback", "reason": " "}, "rollback needs expected and reason"),
        ({"action": "retire", "version": 9, "reason": "x"}, "churn has no version 9"),
    ],
)
def test_what_is_missing_is_said(registry: Registry, form: dict[str, Any], message: str) -> None:
    before = registry.history()
    with pytest.raises(AirflowFailException, match=message):
        change(**form)
    assert registry.history() == before


def test_a_store_that_does_not_answer_is_tried_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*args: Any, **kwargs: Any) -> None:
        raise StoreUnavailable("no answer", hint="wait")

    monkeypatch.setattr(Registry, "rollback", silent)
    with pytest.raises(StoreUnavailable):
        change(action="rollback", expected=2, reason="worse")


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two models, each with two champions one after the other and a candidate."""
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    found = Registry(LocalStore(tmp_path / "store"), "churn")
    for number in (1, 2, 3):
        records = {key: {"model": {"digest": f"{number}{key}"}, "metrics": {}} for key in ("LGA", "JFK")}
        found.register_many(records, op_id=f"r{number}")
    for key in ("LGA", "JFK"):
        found.promote(1, expected=None, op_id=f"p1{key}", reason="first", key=key)
        found.promote(2, expected=1, op_id=f"p2{key}", reason="better", key=key)
    return found


def _statuses(registry: Registry, key: str) -> list[str]:
    return [v.status for v in registry.versions(key)]


def test_one_model_of_a_fleet_changes_alone(fleet: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        "airflow_mlops.notifications.dispatch.notify", lambda *args, **kwargs: told.append(args[4]) or 1
    )
    shown: list[Any] = []
    monkeypatch.setattr("airflow_mlops.hooks.mlops.MLOpsHook.mirror", lambda self, registry, *said: shown.append(said))
    wanted = {"events": ["rollback", "promoted"], "notifiers": [{"class": "x.Y"}]}
    result, extra = change(notify=wanted, action="rollback", key="LGA", expected=2, reason="worse")
    assert (result["key"], result["version"], result["digest"]) == ("LGA", 1, "1LGA")
    assert (extra["name"], extra["key"], extra["version"]) == ("churn[LGA]", "LGA", 1)
    result, extra = change(
        notify=wanted, run_id="manual__2", action="promote", key="LGA", version=3, expected=1, reason="good"
    )
    assert (extra["name"], extra["version"], extra["previous"]) == ("churn[LGA]", 3, 1)
    assert change(run_id="manual__3", action="retire", key="LGA", version=2, reason="leaks")[0]["key"] == "LGA"
    assert _statuses(fleet, "LGA") == ["candidate", "retired", "champion"]
    assert _statuses(fleet, "JFK") == ["candidate", "champion", "candidate"]
    assert told == ["churn[LGA]: rolled back from v2 to v1: worse", "churn[LGA]: champion is now v3"]
    assert shown == [(1, "rollback", "LGA"), (3, "promote", "LGA"), (2, "retire", "LGA")]


def test_the_same_change_of_two_models_in_one_run_is_two_changes(fleet: Registry) -> None:
    # As where a hand-written DAG maps the operator over keys: only the key tells the two apart.
    for key in ("LGA", "JFK"):
        change(operator=RegistryChangeOperator(task_id="change", pipeline="churn", key=key),
               action="rollback", expected=2, reason="worse")  # fmt: skip
    assert _statuses(fleet, "LGA") == _statuses(fleet, "JFK") == ["champion", "candidate", "candidate"]


def test_a_key_that_is_wrong_or_missing_is_said(fleet: Registry) -> None:
    before = fleet.history()
    with pytest.raises(AirflowFailException, match=r"(?s)has no model for 'LAG'.*2 keys, such as JFK"):
        change(action="rollback", key="LAG", expected=2, reason="worse")
    with pytest.raises(AirflowFailException, match="no key is given"):
        change(action="rollback", key="", expected=2, reason="worse")
    assert fleet.history() == before


def test_a_key_where_there_is_no_fleet_is_said(registry: Registry) -> None:
    with pytest.raises(AirflowFailException, match=r"(?s)is no fleet.*leave the key empty"):
        change(action="rollback", key="LGA", expected=2, reason="worse")


def test_whoever_asked_is_told(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []

    def notify(events: Any, notifiers: Any, event: str, context: Any, message: str, **kwargs: Any) -> int:
        told.append((event, message))
        return 1

    monkeypatch.setattr("airflow_mlops.notifications.dispatch.notify", notify)
    wanted = {"events": ["rollback", "promoted"], "notifiers": [{"class": "x.Y"}]}
    change(notify=wanted, action="rollback", expected=2, reason="worse")
    change(notify=wanted, run_id="manual__2", action="promote", version=3, expected=1, reason="good")
    change(notify=wanted, run_id="manual__3", action="retire", version=2, reason="old")
    assert told == [
        ("rollback", "churn: rolled back from v2 to v1: worse"), ("promoted", "churn: champion is now v3"),
    ]  # fmt: skip
