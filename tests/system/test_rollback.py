"""Two champions, and back to the first by a run of ``<pipeline>__registry``, in a live Airflow."""

from __future__ import annotations

import getpass
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_mlops.demo.airflow import LiveAirflow
from airflow_mlops.demo.data import prepare_breast_cancer
from airflow_mlops.registry.fsck import check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore, layout

PIPELINE = Path(__file__).parents[2] / "dags" / "pipelines" / "breast_cancer.yaml"
TRAIN, REGISTRY = "breast_cancer__train", "breast_cancer__registry"


def _run(live: LiveAirflow, *args: str) -> tuple[int, str]:
    process = live.command("mlops", "registry", *args)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.timeout(600)
def test_rollback_through_airflow(shared_airflow: Any) -> None:
    live: LiveAirflow = shared_airflow.live
    store: LocalStore = shared_airflow.store
    # How fast a model answers is this machine's business today.
    lines = [line for line in PIPELINE.read_text().splitlines() if "serving:" not in line]
    prepare_breast_cancer(shared_airflow.data, say=lambda text: None)
    shared_airflow.pipelines("rollback", {PIPELINE.name: "\n".join(lines)})
    live.wait_for_dags(TRAIN, REGISTRY)
    live.unpause(TRAIN)
    for form in ({}, {"params": {"C": 0.4}}):
        run = live.trigger(TRAIN, form)
        live.approve(TRAIN, run)
        assert live.wait(TRAIN, run) == "success", live.task_states(TRAIN, run)
    registry = Registry(store, "breast_cancer")
    assert [v.status for v in registry.versions()] == ["candidate", "champion"]
    # Airflow's UI is told of the pages, and what they read says the same.
    shown = {app["destination"] for plugin in live.get("plugins")["plugins"] for app in plugin["react_apps"]}
    assert shown == {"nav", "dag", "dag_run", "dashboard"}
    while (fleet := live.pages("fleet", search="breast_cancer"))["pending"]:
        time.sleep(0.2)
    (row,) = fleet["rows"]
    assert (row["champion"]["version"], row["training"]["verdict"], row["attention"]["level"]) == (2, "passed", "ok")
    decided = live.pages(f"runs/{TRAIN}", run_id=run)
    assert (decided["version"], decided["state"]) == (2, "success")
    promoted = live.get("assets/events", source_dag_id=TRAIN, order_by="-timestamp")["asset_events"][0]["extra"]
    assert (promoted["name"], promoted["version"]) == ("breast_cancer", 2)
    assert "roc_auc" in promoted["metrics"]

    back = ("rollback", "breast_cancer", "--expected", "2", "--reason", "worse in production")
    code, said = _run(live, *back)
    assert (code, f"the DAG {REGISTRY} is paused" in said) == (1, True), said
    live.unpause(REGISTRY)
    code, said = _run(live, *back)
    assert code == 0, said
    assert "breast_cancer: champion is now v1 (was v2)" in said
    champion = registry.champion()
    assert champion is not None
    assert champion.number == 1
    change = registry.history()[-1]
    user = getpass.getuser()
    assert (change["action"], change["by"], change["reason"]) == ("rollback", user, "worse in production")
    (done,) = live.get(f"dags/{REGISTRY}/dagRuns")["dag_runs"]
    assert (done["state"], done["triggering_user_name"]) == ("success", user)
    (event,) = live.get("assets/events", source_dag_id=REGISTRY)["asset_events"]
    assert {k: event["extra"][k] for k in ("name", "key", "version", "previous", "digest", "metrics")} == {
        "name": "breast_cancer", "key": None, "version": 1, "previous": 2, "digest": champion.record["model"]["digest"],
        "metrics": champion.metrics,
    }  # fmt: skip

    # The same command again: whoever sends it has not seen that it is done.
    code, said = _run(live, *back)
    assert code == 1
    assert "breast_cancer@champion is v1, expected v2: nothing is rolled back" in said
    assert len([row for row in registry.history() if row["action"] == "rollback"]) == 1
    failed = next(r for r in live.get(f"dags/{REGISTRY}/dagRuns")["dag_runs"] if r["state"] == "failed")
    (task,) = live.get(f"dags/{REGISTRY}/dagRuns/{failed['dag_run_id']}/taskInstances")["task_instances"]
    assert (task["state"], task["try_number"]) == ("failed", 1), "a conflict is not tried again"
    _the_pages_say_so(live, done["dag_run_id"])

    code, said = _run(live, "retire", "breast_cancer:2", "--reason", "worse in production")
    assert (code, registry.get(2).status) == (0, "retired"), said
    assert len(live.get("assets/events", source_dag_id=REGISTRY)["asset_events"]) == 1, "no news of the champion"

    # A person's no: green, delivery skipped, and on the record.
    run = live.trigger(TRAIN, {"params": {"C": 0.45}})
    live.approve(TRAIN, run, option="Reject")
    assert live.wait(TRAIN, run) == "success", live.task_states(TRAIN, run)
    states = live.task_states(TRAIN, run)
    assert (states["approve.ask"], states["promote.handover"]) == ("success", "skipped")
    refused = registry.get(3)
    (note,) = refused.notes["approval"]
    assert (note["by"], note["answer"], refused.status) == ("admin", ["Reject"], "challenger")

    # What Airflow's processes have written is sound, and the program of this Airflow tells damage.
    assert check(store, ["breast_cancer"]).findings == []
    key = layout.blob(registry.get(1).record["model"]["digest"])
    store.put(key, store.get(key)[:-1] + b"?")
    code, said = _run(live, "fsck", "breast_cancer")
    assert code == 1
    assert "DAMAGED" in said
    assert "which is the champion" in " ".join(said.split())
    assert "v2 to v3 can be loaded" in " ".join(said.split())


def _the_pages_say_so(live: LiveAirflow, rolled_back: str) -> None:
    """The API of the MLOps pages, as the installed plugin serves it, tells the story of this pipeline."""
    signed_in = {"username": "admin", "password": "admin"}
    with httpx.Client(base_url=f"{live.url}/mlops", trust_env=False, timeout=30) as client:
        assert client.get("/api/fleet").status_code == 401
        token = httpx.post(f"{live.url}/auth/token", json=signed_in, trust_env=False).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"

        def get(path: str, **query: Any) -> Any:
            answer = client.get(f"/api/{path}", params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()

        (row,) = (r for r in get("fleet", limit=200)["rows"] if r["pipeline"] == "breast_cancer")
        assert (row["level"], row["champion"]["version"], row["champion"]["by"]) == (0, 1, getpass.getuser())
        assert (row["attention"]["code"], row["attention"]["level"]) == ("ok", "ok")
        titles = [e["title"] for e in get("pipelines/breast_cancer/timeline", kind="delivery")["events"]]
        assert titles[0] == "v1 became champion again: v2 was rolled back"
        assert get(f"runs/{REGISTRY}", run_id=rolled_back)["title"] == titles[0]
        compared = get("pipelines/breast_cancer/compare", a="2", b="1")
        assert compared["metrics"][0]["same_rows"]
        assert ("params", "C") in {(f["group"], f["name"]) for f in compared["facts"]}
        card = get("pipelines/breast_cancer/reports")["card"]
        framed = client.get(card.removeprefix("mlops"))
        assert "frame-src 'self'" in framed.headers["content-security-policy"]
        assert 'sandbox="allow-scripts"' in framed.text
        assert client.get("/static/mlops.js").status_code == 200
