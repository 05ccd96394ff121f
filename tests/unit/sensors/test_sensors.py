from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException, TaskDeferred
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.exceptions import ConfigError, DataError, DataUnavailable, StoreUnavailable
from airflow_mlops.registry.checks import write_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.sensors.base import MLOpsSensor
from airflow_mlops.sensors.champion import NewChampionSensor
from airflow_mlops.sensors.check import VERDICTS, CheckSensor
from airflow_mlops.sensors.data import NewDataSensor
from airflow_mlops.sensors.drift import DriftVerdictSensor
from airflow_mlops.store import LocalStore
from airflow_mlops.triggers.data import NewDataTrigger
from airflow_mlops.triggers.registry import ChampionTrigger, CheckTrigger
from airflow_mlops.window import Window

JAN = Window.of("2013-01-01", "2013-02-01")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", (tmp_path / "store").as_uri())
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return LocalStore(tmp_path / "store")


def deferred(sensor: MLOpsSensor) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({})
    return caught.value


def test_data_that_is_there_needs_no_waiting(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "a.csv").write_text("x")
    found = NewDataSensor(task_id="s", source="a.csv").execute({})
    assert found["files"] == 1
    assert set(found) == {"version", "files", "newest"}
    again = deferred(NewDataSensor(task_id="s", source="a.csv", since=found["version"]))
    assert isinstance(again.trigger, NewDataTrigger)
    assert again.trigger.since == found["version"]


def test_waiting_is_handed_to_the_triggerer(store: LocalStore) -> None:
    sensor = NewDataSensor(task_id="s", source="*.csv", poke_interval=3, timeout=50, max_failures=4, mlops_conn_id=None)
    waiting = deferred(sensor)
    assert waiting.method_name == "execute_complete"
    assert waiting.timeout == timedelta(seconds=50)
    _, arguments = waiting.trigger.serialize()
    assert arguments == {
        "source": "*.csv",
        "since": None,
        "poll_interval": 3,
        "once": True,
        "emit_first": False,
        "max_failures": 4,
        "mlops_conn_id": None,
    }


@pytest.mark.parametrize("missing", [None, "", "None"])
def test_a_template_without_a_value_means_none(store: LocalStore, missing: Any) -> None:
    assert deferred(NewDataSensor(task_id="s", source="*.csv", since=missing)).trigger.since is None
    assert deferred(NewChampionSensor(task_id="s", pipeline="p", after_version=missing)).trigger.after_version is None
    assert deferred(DriftVerdictSensor(task_id="s", pipeline="p", window=missing)).trigger.window is None


def test_the_new_champion_is_returned(store: LocalStore) -> None:
    registry = Registry(store, "churn")
    registry.register({}, op_id="r1")
    registry.promote(1, expected=None, op_id="p1", reason="first")
    assert NewChampionSensor(task_id="s", pipeline="churn").execute({})["version"] == 1
    waiting = deferred(NewChampionSensor(task_id="s", pipeline="churn", after_version="1"))
    assert isinstance(waiting.trigger, ChampionTrigger)
    assert waiting.trigger.after_version == 1


def test_the_drift_verdict_is_returned(store: LocalStore) -> None:
    write_check(store, "churn", JAN, "drift", {"verdict": "no_drift", "sentence": "0 of 9 columns drifted"})
    sensor = DriftVerdictSensor(task_id="s", pipeline="churn", window=JAN.to_dict())
    assert sensor.execute({})["verdict"] == "no_drift"
    waiting = deferred(DriftVerdictSensor(task_id="s", pipeline="churn", window=JAN.to_dict(), verdicts=["drift"]))
    assert isinstance(waiting.trigger, CheckTrigger)
    assert waiting.trigger.verdicts == ["drift"]


@pytest.mark.parametrize("check", list(VERDICTS))
def test_any_check_can_be_waited_for(store: LocalStore, check: str) -> None:
    first, *others = VERDICTS[check]
    sensor = CheckSensor(task_id="s", pipeline="churn", check=check)
    assert deferred(sensor).trigger.check == check
    write_check(store, "churn", JAN, check, {"verdict": first, "sentence": "so it is"})
    assert sensor.execute({})["sentence"] == "so it is"
    waiting = deferred(CheckSensor(task_id="s", pipeline="churn", check=check, window=JAN.to_dict(), verdicts=others))
    assert waiting.trigger.verdicts == others


def test_a_check_that_there_is_not_is_refused_while_the_dag_is_read() -> None:
    with pytest.raises(ConfigError, match="there is no check 'drifts'"):
        CheckSensor(task_id="s", pipeline="p", check="drifts")
    with pytest.raises(ConfigError, match="of the check skew"):
        CheckSensor(task_id="s", pipeline="p", check="skew", verdicts=["drift"])


@pytest.mark.parametrize("verdicts", [["drifted"], [], "drift"])
def test_an_unknown_verdict_is_refused_while_the_dag_is_read(verdicts: Any) -> None:
    with pytest.raises(ConfigError, match="verdicts"):
        DriftVerdictSensor(task_id="s", pipeline="p", verdicts=verdicts)


@pytest.mark.parametrize(
    "sensor",
    [
        NewChampionSensor(task_id="s", pipeline="p", after_version="three"),
        DriftVerdictSensor(task_id="s", pipeline="p", window="2013"),  # type: ignore[arg-type]
        DriftVerdictSensor(task_id="s", pipeline="p", window={"start": "2013-02-01", "end": "2013-01-01"}),
        NewDataSensor(task_id="s", source="ftp://host/x"),
        NewDataSensor(task_id="s", source="s3://key@bucket/x", deferrable=False),
    ],
    ids=lambda s: type(s).__name__,
)
def test_what_cannot_work_fails_at_once_and_for_good(store: LocalStore, sensor: MLOpsSensor) -> None:
    with pytest.raises(AirflowFailException):
        sensor.execute({})


def test_poke_mode_waits_in_the_worker(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensor = NewDataSensor(task_id="s", source="*.csv", deferrable=False, poke_interval=0.001, timeout=60)
    looks = 0
    real = NewDataTrigger.look

    def look(self: NewDataTrigger) -> Any:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise DataUnavailable("network")
        if looks == 3:
            (tmp_path / "data" / "a.csv").write_text("x")
        return real(self)

    monkeypatch.setattr(NewDataTrigger, "look", look)
    assert sensor.execute({})["files"] == 1
    assert looks == 3


def test_poke_mode_times_out(store: LocalStore) -> None:
    with pytest.raises(AirflowSensorTimeout):
        NewDataSensor(task_id="s", source="*.csv", deferrable=False, poke_interval=0, timeout=0).execute({})
    with pytest.raises(AirflowSkipException):
        NewDataSensor(
            task_id="s", source="*.csv", deferrable=False, poke_interval=0, timeout=0, soft_fail=True
        ).execute({})


def test_poke_mode_ends_after_max_failures(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: NewDataTrigger) -> Any:
        raise DataUnavailable("S3 is down")

    monkeypatch.setattr(NewDataTrigger, "look", look)
    sensor = NewDataSensor(task_id="s", source="x", deferrable=False, poke_interval=0, max_failures=3)
    with pytest.raises(DataUnavailable, match="S3 is down"):
        sensor.execute({})
    # Deferrable: the first look may fail; the triggerer has more patience.
    deferred(NewDataSensor(task_id="s", source="x"))


def test_the_event_becomes_the_xcom_value() -> None:
    sensor = NewDataSensor(task_id="s", source="x")
    assert sensor.execute_complete({}, {"status": "ok", "version": "v", "files": 2}) == {"version": "v", "files": 2}


@pytest.mark.parametrize("event", [None, True, "ok", {}, {"status": "done"}, ["ok"]])
def test_an_event_that_is_not_ours_is_refused(event: Any) -> None:
    with pytest.raises(AirflowFailException, match="does not know"):
        NewDataSensor(task_id="s", source="x").execute_complete({}, event)


@pytest.mark.parametrize(
    ("name", "raised"),
    [
        ("StoreUnavailable", StoreUnavailable),
        ("DataUnavailable", DataUnavailable),
        ("DataError", AirflowFailException),
        ("CorruptObject", AirflowFailException),
        ("annotations", AirflowFailException),
        ("FromTheFuture", StoreUnavailable),
    ],
)
def test_an_error_event_is_retried_where_a_retry_can_help(name: str, raised: type[Exception]) -> None:
    sensor = NewDataSensor(task_id="s", source="x")
    with pytest.raises(raised, match="it broke"):
        sensor.execute_complete({}, {"status": "error", "error": name, "message": "it broke"})


def test_sensors_serialize_and_render_their_templates() -> None:
    with DAG("d", schedule=None) as dag:
        NewDataSensor(task_id="data", source="in/{{ ds }}.csv", since="{{ params.since }}")
        DriftVerdictSensor(task_id="drift", pipeline="p", window={"start": "{{ ds }}", "end": "2013-02-01"})
        NewChampionSensor(task_id="champion", pipeline="p", after_version=3)
    back = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(back.task_dict) == {"data", "drift", "champion"}
    sensor = dag.get_task("data")
    sensor.render_template_fields({"ds": "2013-01-01", "params": {"since": None}})
    assert sensor.source == "in/2013-01-01.csv"
    assert DataError.retryable is False
