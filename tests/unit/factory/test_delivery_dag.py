"""The DAG that delivers a project: its steps, their order, and what is wrong with a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG, TriggerRule
from airflow.serialization.serialized_objects import LazyDeserializedDAG

from airflow_mlops.config.project import Project
from airflow_mlops.delivery.relay import CHECKOUT
from airflow_mlops.delivery.stages import STAGES
from airflow_mlops.factory.delivery import load_delivery
from airflow_mlops.factory.levels import delivery as level

PROJECT = """\
project: crm
remote: crm.git
environments:
  staging: {branch: deploy/staging, api: a, smoke: {}}
  production: {branch: deploy/production, api: b, approve: {required: true, by: [ana], timeout: 2d}}
"""
WHOLE = [
    "ci.checkout", "ci.lint", "ci.test", "ci.build", "ci.train", "ci.gates", "ci.contract",
    "staging.ready", "staging.deploy", "staging.verify", "staging.smoke", "staging.rollback",
    "production.ready", "production.approve", "production.deploy", "production.verify", "production.rollback",
    "report.outcome",
]  # fmt: skip


def made(folder: Path, text: str = PROJECT, **options: float) -> DAG:
    (folder / "project.yaml").write_text(text)
    (dag,) = load_delivery(folder, **options).values()  # type: ignore[arg-type]
    return dag


def test_the_stages_are_those_of_ci() -> None:
    assert (level.record_name("ci.checkout"), level.STAGES) == (CHECKOUT, tuple(STAGES))


def test_the_steps_and_what_they_wait_for(tmp_path: Path) -> None:
    dag = made(tmp_path)
    assert (dag.dag_id, dag.max_active_runs, dag.schedule) == ("crm__delivery", 1, None)
    assert [step.name for step in level.delivery_steps(dag.task_dict["ci.lint"].project)] == WHOLE  # type: ignore[attr-defined]
    assert set(dag.task_dict) == set(WHOLE)
    behind = {"staging.deploy", "staging.verify", "staging.smoke"}
    assert dag.task_dict["staging.rollback"].upstream_task_ids == behind
    assert dag.task_dict["staging.rollback"].trigger_rule == TriggerRule.ONE_FAILED
    # A rollback keeps nothing waiting.
    assert dag.task_dict["production.ready"].upstream_task_ids == {"staging.smoke"}
    assert dag.task_dict["production.deploy"].upstream_task_ids == {"production.approve"}
    assert dag.task_dict["report.outcome"].upstream_task_ids == set(WHOLE) - {"report.outcome"}
    assert dag.task_dict["report.outcome"].trigger_rule == TriggerRule.ALL_DONE
    asked = dag.task_dict["production.approve"]
    assert asked.assigned_users == [{"id": "ana", "name": "ana"}]  # type: ignore[attr-defined]
    assert asked.defaults == ["Reject"]  # type: ignore[attr-defined]
    LazyDeserializedDAG.from_dag(dag)


def test_a_project_of_one_environment_without_questions(tmp_path: Path) -> None:
    dag = made(tmp_path, "project: a\nremote: x\nenvironments: {live: {branch: live, api: a}}\n")
    assert {t for t in dag.task_dict if t.startswith("live")} == {
        "live.ready", "live.deploy", "live.verify", "live.rollback"
    }  # fmt: skip


def test_the_form(tmp_path: Path) -> None:
    params = made(tmp_path).params
    assert dict(params.dump()) == {"ref": None, "up_to": "production", "reason": None}
    assert params.get_param("up_to").schema["enum"] == ["staging", "production"]


def test_it_watches_where_it_is_asked_to(tmp_path: Path) -> None:
    dag = made(tmp_path, PROJECT + "watch: {every: 2m, tags: 'v*'}\n")
    (watcher,) = dag.schedule.watchers  # type: ignore[union-attr]
    _, arguments = watcher.trigger.serialize()
    assert (arguments["remote"], arguments["tags"]) == (str(tmp_path / "crm.git"), "v*")
    assert (arguments["poll_interval"], arguments["emit_first"]) == (120.0, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PROJECT.replace("branch: deploy/staging", "brnch: x"), "unknown key `brnch`"),
        (PROJECT.replace("project: crm\n", ""), "the project has no name"),
        (PROJECT.replace("staging:", "ci:"), "'ci' cannot be the name of an environment"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_dag_that_says_so(tmp_path: Path, text: str, told: str) -> None:
    dag = made(tmp_path, text)
    assert dag.dag_id.endswith("__invalid")
    assert told in " ".join((dag.doc_md or "").split())


def test_no_file(tmp_path: Path) -> None:
    (dag,) = load_delivery(tmp_path).values()
    assert "there is no such file" in (dag.doc_md or "")


def test_a_relative_folder_starts_at_the_file_that_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)
    (tmp_path / "delivery").mkdir()
    loader = tmp_path / "delivery" / "dag.py"
    loader.write_text(
        "from airflow_mlops import load_delivery\n"
        "def more(dag, project):\n    dag.tags.add(project.name)\n"
        "globals().update(load_delivery('..', customise=more))\n"
        "import json, sys\n"
        "heavy = [m for m in ('pandas', 'numpy', 'sklearn', 'pyarrow', 'httpx', 'git') if m in sys.modules]\n"
        "print(json.dumps([sorted(crm__delivery.tags), heavy]))\n".replace(
            "crm__delivery", "globals()['crm__delivery']"
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # this checkout, too
    done = subprocess.run([sys.executable, str(loader)], capture_output=True, text=True, check=True, cwd=tmp_path)
    tags, heavy = json.loads(done.stdout.splitlines()[-1])
    assert tags == ["crm", "delivery", "mlops"]
    assert not set(heavy) - {"httpx"}  # Airflow's own


def test_the_model_of_the_file_keeps_the_order(tmp_path: Path) -> None:
    project = Project.model_validate({"remote": "x", "environments": {n: {"branch": n, "api": n} for n in "cab"}})
    names = [s.name.partition(".")[0] for s in level.delivery_steps(project) if s.name.endswith(".deploy")]
    assert names == ["c", "a", "b"]
