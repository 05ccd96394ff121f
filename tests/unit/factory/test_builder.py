"""From a pipeline file to its DAGs: tasks, order, settings."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.param import process_params
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.config.loader import load_text
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.builder import build_pipeline
from airflow_mlops.factory.levels import LEVELS, dag_specs
from airflow_mlops.factory.levels.fleet import fleet_of
from airflow_mlops.factory.loading import load_dags
from airflow_mlops.factory.step_context import airflow_resources
from airflow_mlops.factory.steps import STEPS

LEVEL_0 = """
pipeline: churn
level: 0
owner: ana
dag: {tags: [crm], default_args: {retries: 5, retry_delay: 2m}, access_control: {Op: {DAGs: [can_read]}}}
resources: {pool: ml, timeout: 1h}
data: {source: churn.csv, target: churned}
train: {estimator: sklearn.linear_model.LogisticRegression, resources: {queue: gpu, timeout: 3h}}
approve: {by: [lead], timeout: 2d}
"""
LEVEL_1 = """
pipeline: flights
level: 1
data: {source: "flights/*.parquet", target: late, timestamp: t, id: i, window: 90d}
train: {estimator: sklearn.ensemble.HistGradientBoostingClassifier}
evaluate: {gates: [{metric: roc_auc, at_least: 0.6}]}
deploy: {batch: {schedule: "@daily"}}
monitor: {labels: {source: "outcomes/*.parquet", join_on: i}}
retrain: {when: [new_data, drift, performance], schedule: "@monthly"}
"""


def _write(folder: Path, **files: str) -> Path:
    pipelines = folder / "pipelines"
    pipelines.mkdir()
    for name, text in files.items():
        (pipelines / f"{name}.yaml").write_text(text)
    return pipelines


def _edges(dag: DAG) -> dict[str, set[str]]:
    return {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}


def test_level_0_is_started_by_a_person_and_ends_in_a_handover(tmp_path: Path) -> None:
    dags = load_dags(_write(tmp_path, churn=LEVEL_0))
    assert set(dags) == {"churn__train", "churn__predict", "churn__registry"}
    train = dags["churn__train"]
    assert train.schedule is None
    assert _edges(train) == {
        "data.snapshot": set(),
        "data.profile": {"data.snapshot"},
        "validate.expectations": {"data.snapshot"},
        "train.fit": {"validate.expectations"},
        "evaluate.score": {"train.fit"},
        "evaluate.gates": {"evaluate.score"},
        "approve.ask": {"evaluate.gates"},
        "promote.handover": {"approve.ask", "evaluate.gates"},
    }
    assert {"window_start", "source", "params", "seed"} <= set(train.params)
    ask = train.get_task("approve.ask")
    assert ask.response_timeout == timedelta(days=2)
    assert ask.assigned_users[0]["id"] == "lead"
    assert ask.defaults == ["Reject"]
    assert ask.options == ["Approve", "Reject"]
    assert not ask.inherits_from_skipmixin, "a no must reach the task that records it"


@pytest.mark.parametrize("gates", [[], [{"name": "roc_auc at_least 0.7", "verdict": "passed", "sentence": "it does"}]])
def test_who_is_asked_sees_the_numbers_with_and_without_gates(gates: list[dict[str, str]]) -> None:
    ask = build_pipeline(load_text(LEVEL_0))["churn__train"].get_task("approve.ask")
    auc = {"candidate": 0.71491, "candidate_low": 0.659, "candidate_high": 0.7708}
    none = {"champion": None, "champion_low": None, "champion_high": None}
    loss = {"candidate": 0.561, "candidate_low": None, "candidate_high": None, "champion": 0.6,
            "champion_low": 0.5, "champion_high": 0.7}  # fmt: skip
    xcoms = {
        "evaluate.gates": {"version": 2, "champion": 1, "sentence": "passed: so it is", "results": gates},
        "evaluate.score": {
            "rows": 1406,
            "metrics": {
                "roc_auc": {"name": "roc_auc", "lower_is_better": False, **auc, **none},
                "log_loss": {"name": "log_loss", "lower_is_better": True, **loss},
            },
        },
    }
    ti = SimpleNamespace(xcom_pull=lambda task_ids: xcoms[task_ids])
    lines = jinja2.Template(ask.body).render(ti=ti).splitlines()
    header = lines.index("| on 1,406 holdout rows | this version | champion | better is |")
    assert lines[header - 1] == ""
    assert lines[header + 2 : header + 5] == [
        "| roc_auc | 0.7149 (0.659 … 0.7708) | – | higher |",
        "| log_loss | 0.561 | 0.6 (0.5 … 0.7) | lower |",
        "",
    ]
    assert ("| gate | verdict | what was found |" in lines) == bool(gates)


def test_level_1_chains_its_dags_by_assets(tmp_path: Path) -> None:
    dags = load_dags(_write(tmp_path, flights=LEVEL_1))
    assert set(dags) == {"flights__train", "flights__predict", "flights__monitor", "flights__registry"}
    written = {o.name for d in dags.values() for t in d.tasks for o in t.outlets}
    assert written == {"flights.champion", "flights.predictions", "flights.retrain"}
    train, monitor = dags["flights__train"].schedule, dags["flights__monitor"].schedule
    assert {a.name for a in train.asset_condition.objects} == {"flights.data", "flights.retrain"}
    assert train.timetable.expression == "0 0 1 * *"
    assert monitor.name == "flights.predictions"
    assert dags["flights__predict"].schedule.expression == "0 0 * * *"
    assert "approve.ask" not in dags["flights__train"].task_ids
    # Whoever reads the champion is shown as reading it, so that the asset graph is one piece.
    assert [i.name for i in dags["flights__predict"].get_task("predict.batch").inlets] == ["flights.champion"]


def test_the_replay_is_a_task_where_the_file_asks_for_it() -> None:
    assert "monitor.skew" not in build_pipeline(load_text(LEVEL_1))["flights__monitor"].task_ids
    for skew, kept in (("{replay_rows: 70}", 70), ('{source: "flights/*.parquet"}', 0)):
        dags = build_pipeline(load_text(LEVEL_1.replace("monitor: {", f"monitor: {{skew: {skew}, ")))
        edges = _edges(dags["flights__monitor"])
        assert "monitor.skew" in edges["retrain.request"]
        assert edges["monitor.performance"] == {"monitor.drift", "monitor.skew"}
        assert dags["flights__predict"].get_task("predict.batch").replay_rows == kept


def test_performance_is_a_task_where_it_can_be_known_or_estimated() -> None:
    without = LEVEL_1.partition("monitor:")[0] + "retrain: {when: [drift]}\n"
    silent = build_pipeline(load_text(without + "monitor: {}\n"))["flights__monitor"]
    assert "monitor.performance" not in silent.task_ids
    dags = build_pipeline(load_text(without + "monitor: {performance: {estimate: true}}\n"))
    assert dags["flights__monitor"].get_task("monitor.performance").trigger_rule == "none_failed"


def test_a_level_1_pipeline_asks_only_where_its_file_says_so() -> None:
    text = LEVEL_1.replace("at_least: 0.6}]}", "at_least: 0.6}], on_inconclusive: require_approval}")
    train = build_pipeline(load_text(text))["flights__train"]
    assert _edges(train)["promote.champion"] == {"evaluate.gates", "approve.ask"}


def test_settings_reach_every_task(tmp_path: Path) -> None:
    dag = load_dags(_write(tmp_path, churn=LEVEL_0))["churn__train"]
    assert dag.tags == {"mlops", "level-0", "ana", "crm"}
    # FAB's permissions are sets.
    assert {k: {r: set(p) for r, p in v.items()} for k, v in dag.access_control.items()} == {
        "Op": {"DAGs": {"can_read"}}
    }
    for task in dag.tasks:
        assert (task.owner, task.retries, task.retry_delay) == ("ana", 5, timedelta(minutes=2)), task.task_id
    assert dag.get_task("data.snapshot").pool == "ml"
    assert dag.get_task("data.snapshot").execution_timeout == timedelta(hours=1)
    fit = dag.get_task("train.fit")
    assert (fit.pool, fit.queue, fit.execution_timeout) == ("ml", "gpu", timedelta(hours=3))


def test_the_form_is_valid_and_reaches_every_task(tmp_path: Path) -> None:
    dags = load_dags(_write(tmp_path, churn=LEVEL_0, flights=LEVEL_1))
    assert {dag_id: dag.schedule for dag_id, dag in dags.items() if dag_id.endswith("__registry")} == {
        "churn__registry": None, "flights__registry": None,
    }  # fmt: skip
    for dag in (dag for dag_id, dag in dags.items() if not dag_id.endswith("__registry")):
        # Every field can be left empty: otherwise no schedule could start the DAG.
        assert dag.params.validate() == {name: name == "promote" or None for name in dag.params}
        for task in dag.tasks:
            form = {"window_start": "2024-01-01T00:00:00+00:00"}
            seen = process_params(dag, task, form, suppress_exception=False)
            assert seen == dag.params.validate() | form, task.task_id
        with pytest.raises(ParamValidationError, match="window_start"):
            process_params(dag, dag.tasks[0], {"window_start": 3}, suppress_exception=False)
    encoded = DagSerialization.to_dict(dags["churn__train"])["dag"]
    assert [name for name, _ in encoded["params"]] == ["window_start", "window_end", "source", "params", "seed"]


def test_a_change_of_the_registry_has_to_be_said_and_explained() -> None:
    dag = build_pipeline(load_text(LEVEL_0))["churn__registry"]
    (task,) = dag.tasks
    with pytest.raises(ParamValidationError, match="action"):
        dag.params.validate()
    form = {"action": "rollback", "expected": 2, "reason": "worse"}
    assert process_params(dag, task, form, suppress_exception=False) == form | {"version": None, "key": None}
    for wrong in (
        {"action": None}, {"action": "delete"}, {"reason": ""}, {"reason": None}, {"expected": 0}, {"key": 3},
    ):  # fmt: skip
        with pytest.raises(ParamValidationError, match=next(iter(wrong))):
            process_params(dag, task, form | wrong, suppress_exception=False)
    assert [o.name for o in task.outlets] == ["churn.champion"]
    # That of a training says something else.
    assert build_pipeline(load_text(LEVEL_1))["flights__train"].params["reason"] is None


def test_the_form_of_one_dag_is_its_own(tmp_path: Path) -> None:
    dags = load_dags(_write(tmp_path, churn=LEVEL_0))
    dags["churn__train"].params["source"] = "another.csv"
    assert dags["churn__predict"].params["source"] is None


def test_default_args_of_one_dag_are_its_own() -> None:
    dags = build_pipeline(load_text(LEVEL_0))
    dags["churn__train"].default_args["retries"] = 9
    assert dags["churn__predict"].default_args["retries"] == 5


def test_every_dag_and_task_says_what_it_is_and_serialises(tmp_path: Path) -> None:
    for dag in load_dags(_write(tmp_path, churn=LEVEL_0, flights=LEVEL_1)).values():
        assert "pipeline:" in dag.doc_md, "the YAML is shown with the DAG"
        assert all(task.doc_md for task in dag.tasks)
        json.dumps(DagSerialization.to_dict(dag))


def test_every_step_of_every_level_has_an_operator() -> None:
    levels = [*LEVELS.values(), *map(fleet_of, LEVELS.values())]
    named = {step.name for level in levels for spec in level for step in spec.steps}
    assert named == set(STEPS)


def test_a_level_without_monitor_has_no_monitor_dag() -> None:
    text = LEVEL_1.replace("when: [new_data, drift, performance], ", "").replace(
        'monitor: {labels: {source: "outcomes/*.parquet", join_on: i}}\n', ""
    )
    assert [spec.suffix for spec in dag_specs(load_text(text))] == ["train", "predict", "registry"]


def test_files_that_are_watched_start_training() -> None:
    text = LEVEL_1.replace("target: late", "target: late, watch: 5m")
    train = build_pipeline(load_text(text))["flights__train"]
    watched = {a.name: a for a in train.schedule.asset_condition.objects}["flights.data"]
    (watcher,) = watched.watchers
    assert watcher.trigger.serialize()[1]["poll_interval"] == 300
    assert watcher.trigger.source == "flights/*.parquet"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("when: [new_data, drift, performance]", "when: [drift]"), "new_data"),
        (("flights/*.parquet", "flights/{{ window.start }}.parquet"), "without a template"),
    ],
)
def test_watching_what_cannot_be_watched_is_refused(change: tuple[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_text(LEVEL_1.replace("target: late", "target: late, watch: 5m").replace(*change))


def test_a_time_limit_for_tasks_is_none_for_people() -> None:
    text = LEVEL_0.replace("retries: 5", "execution_timeout: 1h").replace(", timeout: 2d", "")
    train = build_pipeline(load_text(text))["churn__train"]
    ask = train.get_task("approve.ask")
    assert (ask.response_timeout, ask.execution_timeout) == (None, None)
    assert train.get_task("data.snapshot").execution_timeout == timedelta(hours=1)


def test_values_of_the_data_cannot_write_rows_into_the_question() -> None:
    ask = build_pipeline(load_text(LEVEL_0))["churn__train"].get_task("approve.ask")
    said = "plan = a\n| forged | passed | all is well"
    result = {"version": 1, "champion": None, "sentence": said, "results": [
        {"name": "slices", "verdict": "rejected", "sentence": said}]}  # fmt: skip
    task_instance = SimpleNamespace(xcom_pull=lambda task_ids: result)
    text = ask.render_template(ask.body, {"ti": task_instance})
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[2:] == ["| slices | rejected | plan = a ¦ forged ¦ passed ¦ all is well |"]


def test_later_resources_go_before_earlier_ones() -> None:
    from airflow_mlops.config.models import Resources

    merged = airflow_resources(Resources(pool="a", timeout="1h"), None, Resources(pool="b", executor_config={"x": 1}))
    assert merged == {"pool": "b", "executor_config": {"x": 1}, "execution_timeout": timedelta(hours=1)}


def test_flight_delays_goes_to_level_2_by_its_level_alone() -> None:
    file = Path(__file__).parents[3] / "dags" / "pipelines" / "flight_delays.yaml"
    text = file.read_text(encoding="utf-8")
    before, after = (build_pipeline(load_text(t)) for t in (text, text.replace("level: 1", "level: 2")))
    assert set(before) <= set(after)
    assert all("level-2" in dag.tags for dag in after.values())


@pytest.mark.parametrize(
    ("steps", "begins"),
    [
        (["shadow", {"canary": 0.2}, "full"], "lets this version roll out (shadow → canary 20 % → full)"),
        (["full"], "makes this version the champion"),
    ],
)
def test_who_is_asked_is_told_what_a_yes_begins(steps: list[Any], begins: str) -> None:
    config = load_text(LEVEL_1.replace("level: 1", "level: 2"))
    deploy = config.deploy.model_copy(update={"rollout": steps})
    approve = config.approve.model_copy(update={"required": True})
    train = build_pipeline(config.model_copy(update={"deploy": deploy, "approve": approve}))["flights__train"]
    assert f"**Approve** {begins}" in train.get_task("approve.ask").body
    name = "promote.champion" if steps == ["full"] else "promote.rollout"
    assert _edges(train)[name] == {"evaluate.gates", "approve.ask"}


def test_a_rollout_is_judged_where_nothing_else_is_watched() -> None:
    text = LEVEL_1.replace("level: 1", "level: 2").replace("when: [new_data, drift, performance], ", "")
    text = text.replace('monitor: {labels: {source: "outcomes/*.parquet", join_on: i}}\n', "")
    monitor = build_pipeline(load_text(text))["flights__monitor"]
    assert set(monitor.task_ids) == {"rollout.advance"}
    assert monitor.schedule.name == "flights.predictions"
