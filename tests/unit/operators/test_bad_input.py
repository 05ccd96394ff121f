"""Bad input ends in one clear message, without a retry where a retry cannot help, and with nothing half-written."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.exceptions import StoreUnavailable
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.operators.validation import ValidateOperator

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}


def snapshot(**data: Any) -> SnapshotOperator:
    return SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA | data)


def test_a_missing_file(lake, execute, stored) -> None:
    with pytest.raises(AirflowFailException, match=r"nowhere\.csv"):
        execute(snapshot(source="nowhere.csv"))
    assert stored() == set()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.iloc[:0], "no row|0 rows"),
        (lambda f: f.drop(columns="target"), "target"),
        (lambda f: f.assign(target=1), "constant"),
        (lambda f: f.assign(target=f.target.where(f.index != 7)), r"1 of 569 rows"),
        (lambda f: f.head(20), "20 rows"),
    ],
    ids=["empty", "target missing", "target constant", "NaN label", "too few rows"],
)
def test_data_that_nobody_can_learn_from(lake, execute, stored, people, spoil, message) -> None:
    spoil(people).to_csv(lake / "people.csv", index=False)
    with pytest.raises(AirflowFailException, match=message):
        execute(snapshot())
    assert stored() == set()


def test_a_truncated_file(lake, execute, stored) -> None:
    whole = (lake / "people.csv").read_bytes()
    cut = whole[: len(whole) // 2]
    (lake / "people.csv").write_bytes(cut[: cut.rindex(b",")])
    with pytest.raises(AirflowFailException, match=r"people\.csv"):
        execute(snapshot())
    assert stored() == set()


def test_a_dropped_column_is_schema_skew_by_name(lake, execute, people) -> None:
    validate = ValidateOperator(task_id="validate", pipeline="people", snapshot=execute(snapshot()), data=DATA)
    execute(validate)
    people.drop(columns="texture").to_csv(lake / "people.csv", index=False)
    validate.snapshot = execute(snapshot(), run_id="manual__2")
    with pytest.raises(AirflowFailException, match=r"'texture' is missing"):
        execute(validate)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"estimator": "sklearn.linear_model.LogisticRegresion"}, r"(?s)LogisticRegresion.*LogisticRegression"),
        ({"estimator": "sklearn.linear_model.LogisticRegression", "params": {"c": 1.0}}, r"(?s)c.*C"),
        ({"estimator": "os.path.Join"}, "allowed_imports"),
        ({"callable": "subprocess:check_output"}, "allowed_imports"),
        ({"estimator": "sklearn.linear_model.LinearRegression"}, "task is classification"),
    ],
    ids=["no such estimator", "no such parameter", "class off the list", "callable off the list", "wrong task"],
)
def test_training_that_cannot_work(lake, execute, stored, train, message) -> None:
    ref = execute(snapshot())
    before = stored()
    with pytest.raises(AirflowFailException, match=message):
        execute(
            TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=train, task="classification")
        )
    assert stored() == before


def test_a_command_runs_only_where_commands_are_allowed(lake, execute, stored, monkeypatch) -> None:
    ref = execute(snapshot())
    before = stored()
    fit = TrainOperator(
        task_id="fit", pipeline="people", snapshot=ref, data=DATA, train={"command": "touch run.txt {model_dir}/other"}
    )
    fit.folder = str(lake)
    with pytest.raises(AirflowFailException, match="allow_commands"):
        execute(fit)
    assert stored() == before
    assert not (lake / "run.txt").exists()
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_COMMANDS", "True")
    with pytest.raises(AirflowFailException, match=r"model\.skops"):
        execute(fit)
    assert (lake / "run.txt").exists()


def _promoted(execute) -> int:
    ref = execute(snapshot())
    candidate = execute(TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=LOGISTIC))
    execute(EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA))
    decision = {"version": candidate["version"], "champion": None, "sentence": "for the test"}
    execute(PromoteOperator(task_id="promote", pipeline="people", decision=decision))
    return candidate["version"]


def test_prediction_says_which_column_is_missing_and_writes_nothing(lake, execute, people) -> None:
    _promoted(execute)
    people.drop(columns=["target", "area"]).to_csv(lake / "new.csv", index=False)
    with pytest.raises(AirflowFailException, match="area"):
        execute(BatchPredictOperator(task_id="predict", pipeline="people", data=DATA, batch={"source": "new.csv"}))
    assert not list(lake.rglob("*.parquet*"))


def test_a_new_category_is_scored(lake, execute, people) -> None:
    version = _promoted(execute)
    people.drop(columns="target").assign(ward="west").to_csv(lake / "new.csv", index=False)
    result = execute(BatchPredictOperator(task_id="predict", pipeline="people", data=DATA, batch={"source": "new.csv"}))
    assert (result["version"], result["rows"]) == (version, len(people))
    written = pd.read_parquet(lake / "predictions" / "people" / "manual__1.parquet")
    assert list(written.columns) == ["id", "prediction", "probability", "model_version"]
    assert written["id"].tolist() == people["id"].tolist()


def test_a_task_that_runs_twice_registers_one_version(lake, execute) -> None:
    ref = execute(snapshot())
    fit = TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=LOGISTIC)
    assert execute(fit)["version"] == execute(fit)["version"] == 1
    assert execute(fit, run_id="manual__2")["version"] == 2


def test_the_form_cannot_read_outside_the_data_root(lake, execute, stored) -> None:
    for source in ("/etc/passwd", "../store/x.csv", "${conn:lake}/x.csv", "file:///etc/passwd", "{{ '/etc/passwd' }}"):
        with pytest.raises(AirflowFailException, match="leaves the data root"):
            execute(snapshot(), source=source)
    assert stored() == set()


@pytest.mark.parametrize("path", ["/{}", "../store", "file://{}", "a/../../x", "${{conn:lake}}"])
@pytest.mark.parametrize("field", ["source", "output"])
def test_the_form_of_prediction_stays_below_the_data_root(lake, execute, tmp_path, field, path) -> None:
    _promoted(execute)
    before = {p for p in tmp_path.rglob("*") if p.is_file()}
    predict = BatchPredictOperator(task_id="predict", pipeline="people", data=DATA)
    with pytest.raises(AirflowFailException, match=f"the form's {field} .* leaves the data root"):
        execute(predict, **{field: path.format(tmp_path / "elsewhere")})
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("field", ["source", "output"])
def test_a_form_of_prediction_may_name_places_below_the_data_root(lake, execute, people, field) -> None:
    _promoted(execute)
    predict = BatchPredictOperator(task_id="predict", pipeline="people", data=DATA)
    assert execute(predict, **{field: {"source": "people.csv", "output": "mine/"}[field]})["rows"] == len(people)


@pytest.mark.parametrize("expression", ["window.start", "window"])
def test_a_source_that_needs_a_window_says_so_at_once(lake, expression) -> None:
    operator = snapshot(source=f"people-{{{{ {expression} }}}}.csv")
    run = SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None)
    with pytest.raises(AirflowFailException, match=r"(?s)no data window.*trigger form"):
        operator.render_template_fields({"params": {}, "dag_run": run})


def test_a_run_that_must_not_promote_leaves_the_served_predictions_alone(lake, execute) -> None:
    _promoted(execute)
    predict = BatchPredictOperator(task_id="predict", pipeline="people", data=DATA)
    served = execute(predict)["output"]
    rehearsed = execute(predict, promote=False)["output"]
    assert rehearsed == served.replace("people/", "people/_rehearsal/")
    assert sorted(p.name for p in (lake / "predictions" / "people").iterdir()) == ["_rehearsal", "manual__1.parquet"]


def test_what_is_odd_about_the_source_is_in_the_log(lake, execute, people, capsys) -> None:
    people.sample(frac=1, random_state=7).to_parquet(lake / "people.parquet")
    execute(snapshot(source="people.parquet"))
    assert "index stored as" in capsys.readouterr().out


def test_nothing_to_score_with_yet(lake, execute) -> None:
    with pytest.raises(AirflowFailException, match=r"(?s)no champion yet.*people__train"):
        execute(BatchPredictOperator(task_id="predict", pipeline="people", data=DATA))


def test_an_unreachable_store_is_tried_again(lake: Path, execute, monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", "s3://bucket/mlops")
    monkeypatch.setenv(
        "AIRFLOW_CONN_AWS_DEFAULT",
        '{"conn_type": "aws", "login": "x", "password": "y", '
        '"extra": {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"}}',
    )
    # Not AirflowFailException: the task's retries apply.
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:9|bucket"):
        execute(snapshot())


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"metrics": ["auc"]}, "(?s)no metric 'auc'.*roc_auc"),
        ({"gates": [{"metric": "acuracy", "at_least": 0.5}]}, "(?s)no metric 'acuracy'.*accuracy"),
        ({"gates": [{"metric": "log_loss", "at_least": 0.5}]}, "(?s)lower is better.*at_most"),
    ],
)
def test_gates_that_nobody_can_judge_cost_no_training(lake, execute, stored, evaluate, message) -> None:
    ref = execute(snapshot())
    before = stored()
    fit = TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=LOGISTIC, evaluate=evaluate)
    with pytest.raises(AirflowFailException, match=message):
        execute(fit)
    assert stored() == before


@pytest.mark.parametrize("section", ["data", "features", "train"])
def test_where_a_users_code_failed_is_in_the_log(lake, execute, tmp_path, monkeypatch, section) -> None:
    code = "def code(*args, **kwargs):\n    return fails()\n\n\ndef fails():\n    return {}['nothing']\n"
    (tmp_path / f"broken_{section}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", f"broken_{section}")
    own = {"callable": f"broken_{section}:code"}
    if section == "data":
        operator: Any = SnapshotOperator(task_id="snapshot", pipeline="people", data={**own, "target": "target"})
    else:
        sections: dict[str, Any] = {"train": LOGISTIC, section: own}
        ref = execute(snapshot())
        operator = TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, **sections)
    with pytest.raises(AirflowFailException, match="KeyError: 'nothing'") as caught:
        execute(operator)
    cause = caught.value.__cause__
    assert cause is not None
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "fails"
