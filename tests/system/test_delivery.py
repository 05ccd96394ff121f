"""Commits on their way through staging to production, in two live Airflows."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from airflow_mlops.demo.airflow import LiveAirflow
from tests.system.two_airflows import DAGS, DELIVERY, World

TRAIN = DAGS[0]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("delivery"))
    with made.running(*DAGS):
        yield made


def wait_for(live: LiveAirflow, task_id: str, *states: str, timeout: float = 120) -> str:
    """The run of the training in which this task is in one of these states."""
    deadline = time.monotonic() + timeout
    while True:
        for run in live.get(f"dags/{TRAIN}/dagRuns")["dag_runs"]:
            if live.task_states(TRAIN, run["dag_run_id"]).get(task_id) in states:
                return str(run["dag_run_id"])
        live.check_alive()
        assert time.monotonic() < deadline, f"{task_id} is in none of the states {states}"
        time.sleep(0.1)


def test_a_commit_starts_its_delivery_and_comes_to_production_as_it_was_in_staging(world: World) -> None:
    live, first = world.staging, world.current("production").commit
    # A training by schedule begins in production; its second task is held until the next version is there.
    world.production.unpause(TRAIN)
    live.unpause(DELIVERY)
    held = wait_for(world.production, "retrain.claim", "running", "success")
    world.production.patch(f"dags/{TRAIN}", {"is_paused": True})
    run = world.next_run(0)
    assert live.wait(DELIVERY, run) == "success"
    assert "nothing was deployed: production has the commit" in world.verdict(run)
    # No pipeline changes: training is passed over here; `make delivery` does it.
    commit = world.push("Say more", {"README.md": "# crm\n"})
    run = world.next_run(1)
    assert live.approve(DELIVERY, run) == "production.approve"
    assert live.wait(DELIVERY, run) == "success", live.task_states(DELIVERY, run)
    assert world.verdict(run) == f"{commit[:12]} is delivered to staging and production"
    staging, production = world.current("staging"), world.current("production")
    assert staging.source == production.source == commit
    assert (staging.digest, staging.tree) == (production.digest, production.tree)
    assert staging.signed_by == world.signer.key_id
    assert "approved by admin" in production.reason
    for environment, deployment in (("staging", staging), ("production", production)):
        assert world.versions(environment) == dict.fromkeys(DAGS, deployment.commit)
    assert live.task_states(DELIVERY, run)["ci.train"] == "success"
    checkout = live.xcom(DELIVERY, run, "ci.checkout")
    assert (checkout["commit"], checkout["ref"]) == (commit, "refs/heads/main")
    links = live.get(f"dags/{DELIVERY}/dagRuns/{run}/taskInstances/report.outcome/links")["extra_links"]
    assert links["Delivery report"].startswith(f"/mlops/reports/{DELIVERY}/")

    # The training goes on with the files that it began with.
    states = world.production.task_states(TRAIN, held)
    assert (states["retrain.claim"], states["data.snapshot"]) == ("success", None)
    world.production.unpause(TRAIN)
    assert wait_for(world.production, "data.snapshot", "success") == held
    path = f"dags/{TRAIN}/dagRuns/{held}"
    found = world.production.patch(path, {"state": "failed"})
    assert found["bundle_version"] == first != production.commit
    assert f"/{first}/loader.py" in world.production.log(TRAIN, held, "data.snapshot")
    world.production.patch(f"dags/{TRAIN}", {"is_paused": True})


def test_a_bad_commit_is_taken_back_out_of_production(world: World) -> None:
    before, runs = world.current("production"), len(world.runs())
    loader = world.project / "loader.py"
    bad = 'import os\nif os.environ["AIRFLOW__MLOPS__ENVIRONMENT"] == "production":\n    raise RuntimeError("no")\n'
    commit = world.push("A loader that fails in production alone", {"loader.py": loader.read_text() + bad})
    live, run = world.staging, world.next_run(runs)
    live.approve(DELIVERY, run)
    assert live.wait(DELIVERY, run) == "failed"
    states = live.task_states(DELIVERY, run)
    failed = {task for task, state in states.items() if state == "failed"}
    assert failed == {"production.verify", "report.outcome"}
    assert (states["production.rollback"], states["staging.rollback"]) == ("success", "skipped")
    verdict = world.verdict(run)
    assert "production.verify failed" in verdict
    assert "RuntimeError" in verdict
    assert "production was rolled back; staging has it" in verdict
    after = world.current("production")
    assert (after.action, after.digest, after.tree) == ("rollback", before.digest, before.tree)
    assert world.versions("production") == dict.fromkeys(DAGS, after.commit)
    assert world.production.import_errors() == {}
    assert world.current("staging").source == commit
