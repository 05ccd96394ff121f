"""The checks of what was scored, as tasks run them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.decorators.check import mlops_check_task
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.monitoring import (
    FeatureSkewCheckOperator,
    PerformanceCheckOperator,
    StalenessCheckOperator,
    SystemCheckOperator,
)
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.registry.checks import all_checks, read_check, write_check
from airflow_mlops.window import Window

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
FEB = {"window_start": "2013-02-01", "window_end": "2013-03-01"}
COMMON = {"pipeline": "people"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 3000}}


@pytest.fixture
def champion(lake: Any, execute: Any) -> int:
    """Version 1 serves."""
    snapshot = execute(SnapshotOperator(task_id="snapshot", data=DATA, **COMMON))
    candidate = execute(TrainOperator(task_id="fit", snapshot=snapshot, data=DATA, train=LOGISTIC, **COMMON))
    evaluation = execute(EvaluateOperator(task_id="score", candidate=candidate, data=DATA, **COMMON))
    decision = execute(GateOperator(task_id="gates", evaluation=evaluation, **COMMON))
    number: int = execute(PromoteOperator(task_id="promote", decision=decision, **COMMON))["version"]
    return number


def predict(execute: Any, people: pd.DataFrame, lake: Any, window: Any = FEB, **arguments: Any) -> None:
    people.drop(columns="target").to_csv(lake / "new.csv", index=False)
    batch = {"source": "new.csv", "output": "out"}
    execute(BatchPredictOperator(task_id="predict", batch=batch, **COMMON, **{"data": DATA} | arguments), **window)


def check(**monitor: Any) -> FeatureSkewCheckOperator:
    return FeatureSkewCheckOperator(task_id="skew", data=DATA, monitor=monitor, **COMMON)


@pytest.mark.usefixtures("champion")
def test_feature_skew_is_found_reported_and_kept_as_evidence(
    execute: Any, people: pd.DataFrame, lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(FeatureSkewCheckOperator, "tell", lambda self, c, s, event, text: told.append((event, text)))
    predict(execute, people.assign(area=people.area * 0.01), lake)
    result = execute(check(skew={"source": "people.csv", "replay_rows": 100}), **FEB)
    assert (result["verdict"], result["rows"], result["version"]) == ("skew", 100, 1)
    assert "columns" not in result
    assert "area: 100 % of 100 rows differ, ratio 0.01" in result["sentence"]
    assert [event for event, _ in told] == ["skew"]
    store = MLOpsHook().store()
    kept = read_check(store, "people", "skew", Window.of("2013-02-01", "2013-03-01"))
    (found,) = (c for c in all_checks(store, "people") if c.name == "skew")
    assert found.run == {"dag_id": "people__train", "run_id": "manual__1"}
    assert kept is not None
    assert [c["name"] for c in kept["skew"]["columns"] if c["skewed"]] == ["area"]
    page = store.get(f"reports/people__train/{result['report']}.html").decode()
    assert "area: rows that differ" in page
    assert execute.pushed["mlops_reports"][0]["name"] == "Feature skew report"


@pytest.mark.usefixtures("champion")
def test_rows_are_kept_for_the_replay_where_the_pipeline_asks_for_it(
    execute: Any, people: pd.DataFrame, lake: Any
) -> None:
    predict(execute, people, lake)
    assert execute(check(skew={}), **FEB)["verdict"] == "not_enough_data"
    predict(execute, people, lake, replay_rows=200)
    result = execute(check(skew={}), **FEB)
    assert (result["verdict"], result["rows"]) == ("no_skew", 200)


@pytest.mark.usefixtures("champion")
def test_what_cannot_be_checked_is_skipped_or_fails_with_the_reason(
    execute: Any, people: pd.DataFrame, lake: Any
) -> None:
    with pytest.raises(AirflowSkipException, match=r"no monitor\.skew"):
        execute(check(), **FEB)
    with pytest.raises(AirflowSkipException, match="nothing was captured"):
        execute(check(skew={}), **FEB)
    predict(execute, people, lake)
    people.drop(columns="area").to_csv(lake / "less.csv", index=False)
    with pytest.raises(AirflowFailException, match=r"(?s)the replay of the rows of less\.csv.*area"):
        execute(check(skew={"source": "less.csv"}), **FEB)


def performance(**monitor: Any) -> PerformanceCheckOperator:
    return PerformanceCheckOperator(task_id="performance", data=DATA, monitor=monitor, **COMMON)


LABELS = {"source": "outcomes.csv", "join_on": "id"}


@pytest.mark.usefixtures("champion")
def test_a_drop_is_told_with_its_cause_and_with_who_was_asked(execute: Any, people: pd.DataFrame, lake: Any) -> None:
    predict(execute, people, lake)
    others = people.assign(target=1 - people.target)
    others[["id", "target"]].to_csv(lake / "outcomes.csv", index=False)
    store, window = MLOpsHook().store(), Window.of("2013-02-01", "2013-03-01")
    result = execute(performance(labels=LABELS), **FEB)
    assert (result["verdict"], result["cause"]) == ("drop", "unknown")
    assert result["at_least"] > 0.5
    drift = {"verdict": "no_drift", "version": 1, "columns": [{"name": "area", "drifted": False}]}
    write_check(store, "people", window, "drift", drift)
    result = execute(performance(labels=LABELS), **FEB)
    assert result["cause"] == "concept drift"
    assert "concept drift, as the inputs did not drift" in result["sentence"]
    # Of another champion's inputs, or of a rehearsal, nothing follows here.
    write_check(store, "people", window, "drift", drift | {"version": 9})
    assert execute(performance(labels=LABELS), **FEB)["cause"] == "unknown"
    scored = pd.read_parquet(lake / "out" / f"{window.key}.parquet")
    chosen = others[others.id.isin(scored.id[scored.prediction == 1])]
    chosen[["id", "target"]].to_csv(lake / "outcomes.csv", index=False)
    result = execute(performance(labels=LABELS, performance={"min_coverage": 0.3}), **FEB)
    assert result["selection"]["groups"]["0"][1] == 0
    assert "feedback loop" in result["sentence"]


@pytest.mark.usefixtures("champion")
def test_rows_of_one_day_count_together_where_the_capture_tells_the_day(
    execute: Any, people: pd.DataFrame, lake: Any
) -> None:
    days = pd.Timestamp("2013-02-01") + pd.to_timedelta(people.index % 20, unit="D")
    predict(execute, people.assign(day=days), lake, data=DATA | {"timestamp": "day"})
    people[["id", "target"]].to_csv(lake / "outcomes.csv", index=False)

    def judged(block: str, data: Any = DATA | {"timestamp": "day"}) -> str:
        arguments = {"monitor": {"labels": LABELS}, "evaluate": {"block": block}, "data": data}
        return str(execute(PerformanceCheckOperator(task_id="p", **arguments, **COMMON), **FEB)["sentence"])

    assert "independent" not in judged("1d")
    assert "rows count as independent: 3 blocks are too few" in judged("7d")
    assert "independent" not in judged("none")


@pytest.mark.usefixtures("champion")
def test_outcomes_that_have_not_come_are_pending(execute: Any, people: pd.DataFrame, lake: Any) -> None:
    predict(execute, people, lake)
    result = execute(performance(labels=LABELS | {"source": "outcomes/2013-02-01.csv"}), **FEB)
    assert result["verdict"] == "pending_labels"
    assert "labels are pending: " in result["sentence"]
    assert "outcomes/" in result["sentence"]
    people[["id", "target"]][:0].to_csv(lake / "outcomes.csv", index=False)
    assert execute(performance(labels=LABELS), **FEB)["verdict"] == "pending_labels"


@pytest.mark.usefixtures("champion")
def test_outcomes_are_those_of_the_window_that_is_judged(execute: Any, people: pd.DataFrame, lake: Any) -> None:
    march = {"window_start": "2013-03-01", "window_end": "2013-04-01"}
    predict(execute, people, lake)
    predict(execute, people, lake, window=march)
    people[["id", "target"]].to_csv(lake / "outcomes-2013-02-01.csv", index=False)
    labels = LABELS | {"source": "outcomes-{{ window.start }}.csv"}
    # At the end of March with a delay of a month, February's predictions are the newest that can be judged.
    result = execute(performance(labels=labels | {"delay": "30d"}), **march)
    assert (result["verdict"], result["window"]["start"][:10]) == ("ok", "2013-02-01")
    result = execute(performance(labels=labels), **march)
    assert (result["verdict"], "outcomes-2013-03-01.csv" in result["sentence"]) == ("pending_labels", True)


@pytest.mark.usefixtures("champion")
def test_features_that_were_not_captured_are_told(execute: Any, people: pd.DataFrame) -> None:
    def some() -> pd.DataFrame:
        return people[["area"]]

    drifted = execute(decorated(some, check="drift"), **FEB)
    assert drifted["verdict"] == "no_drift"
    assert "not captured, so not checked: " in drifted["sentence"]
    assert "area" not in drifted["sentence"]


@pytest.mark.usefixtures("champion")
def test_an_estimate_stands_in_while_outcomes_are_to_come(execute: Any, people: pd.DataFrame, lake: Any) -> None:
    predict(execute, people, lake)
    with pytest.raises(AirflowSkipException, match=r"no monitor\.labels"):
        execute(performance(), **FEB)
    result = execute(performance(performance={"estimate": True}), **FEB)
    assert result["verdict"] == "pending_labels"
    assert result["estimate"]["metric"] == "roc_auc"
    assert result["estimate"]["low"] < result["estimate"]["value"] <= result["estimate"]["high"]
    assert "which cannot see concept drift" in result["sentence"]
    late = performance(labels=LABELS | {"delay": "40d"}, performance={"estimate": True})
    assert "older than the label delay of 40d; estimated without outcomes" in execute(late, **FEB)["sentence"]
    other = performance(performance={"estimate": True, "metric": "average_precision"})
    assert execute(other, **FEB)["estimate"]["metric"] == "average_precision"
    predict(execute, people[:1], lake)
    refused = execute(performance(performance={"estimate": True}), **FEB)
    assert refused["estimate"] is None
    assert "not estimated" in refused["sentence"]


@pytest.mark.usefixtures("champion")
def test_age_and_cost_of_what_is_served(execute: Any, people: pd.DataFrame, lake: Any) -> None:
    predict(execute, people, lake)
    stored = read_check(MLOpsHook().store(), "people", "prediction", Window.of("2013-02-01", "2013-03-01"))
    assert stored is not None
    assert set(stored["prediction"]["cost"]) == {"wall_seconds", "cpu_seconds", "peak_mb"}
    age = StalenessCheckOperator(task_id="age", data=DATA, monitor={"max_age": "30d"}, **COMMON)
    # The model was trained on all the data, without a window: its age is not known.
    assert execute(age, **FEB)["verdict"] == "not_enough_data"
    runs = SystemCheckOperator(task_id="system", data=DATA, monitor={"system": {}}, **COMMON)
    assert "0 earlier predictions" in execute(runs, **FEB)["sentence"]
    with pytest.raises(AirflowSkipException, match=r"no monitor\.system"):
        execute(SystemCheckOperator(task_id="system", data=DATA, **COMMON), **FEB)


def decorated(function: Any, **arguments: Any) -> Any:
    with DAG("people__monitor"):
        return mlops_check_task(function, data=DATA, **COMMON, **arguments)().operator


@pytest.mark.usefixtures("champion")
def test_a_functions_rows_are_checked_in_the_place_of_the_capture(
    execute: Any, people: pd.DataFrame, lake: Any
) -> None:
    seen: list[Any] = []

    def rows(window: Any) -> pd.DataFrame:
        seen.append(window)
        return people.drop(columns="target").assign(area=people.area * 0.01)

    drifted = execute(decorated(rows, check="drift"), **FEB)
    assert drifted["verdict"] == "drift"
    assert "area" in drifted["sentence"]
    assert str(seen[0]) == "2013-02-01 … 2013-03-01"
    skew = decorated(rows, check="skew", monitor={"skew": {"source": "people.csv", "replay_rows": 50}})
    assert "area: 100 % of 50 rows differ, ratio 0.01" in execute(skew, **FEB)["sentence"]
    expected = {"expect_column_max_to_be_between": {"column": "area", "max_value": 26}}
    assert (
        execute(decorated(rows, validate={"expectations": [expected]}, check="quality"), **FEB)["verdict"] == "passed"
    )
    store = MLOpsHook().store()
    assert read_check(store, "people", "drift", Window.of("2013-02-01", "2013-03-01")) is not None
    assert list(store.list("pipelines/people/captures/")) == []

    people[["id", "target"]].to_csv(lake / "outcomes.csv", index=False)

    def said() -> pd.DataFrame:
        return people[["id"]].assign(prediction=people.target, probability=people.target * 0.8 + 0.1)

    assert execute(decorated(said, check="performance", monitor={"labels": LABELS}), **FEB)["value"] == 1.0


def test_a_check_of_rows_needs_a_champion_rows_and_a_name(execute: Any, lake: Any, champion: int) -> None:
    with pytest.raises(ConfigError, match="no check of rows"):
        decorated(lambda: None, check="staleness")

    def nothing() -> None:
        return None

    with pytest.raises(AirflowFailException, match="the rows to check are a NoneType"):
        execute(decorated(nothing), **FEB)

    def none() -> pd.DataFrame:
        return pd.DataFrame({"area": []})

    with pytest.raises(AirflowFailException, match="there is no row to check"):
        execute(decorated(none), **FEB)
    with pytest.raises(AirflowSkipException, match="no champion yet"), DAG("d"):
        execute(mlops_check_task(nothing, data=DATA, pipeline="other")().operator, **FEB)
