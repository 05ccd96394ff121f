"""A file that goes from good to bad and back, in a live Airflow: it shows itself, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops.demo.airflow import LiveAirflow

PIPELINE = """\
pipeline: NAME
level: 0
extends: base.yaml
data: {source: churn.csv, target: churned}
train: {estimator: sklearn.linear_model.LogisticRegression}
"""
GOOD, CHURN = ({f"{name}__{what}" for what in ("train", "predict", "registry")} for name in ("good", "churn"))
FAST = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "1",
}


def _until(live: LiveAirflow, what: Callable[[], bool], timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        live.check_alive()
        assert time.monotonic() < deadline, live.dags()
        time.sleep(0.5)


def test_good_to_bad_and_back(live_airflow: Any, tmp_path: Path) -> None:
    folder = tmp_path / "dags" / "pipelines"
    folder.mkdir(parents=True)
    (folder.parent / "loader.py").write_text(
        "# airflow dag\nfrom airflow_mlops import load_dags\nglobals().update(load_dags('pipelines'))\n"
    )
    (folder / "base.yaml").write_text("owner: platform\n")
    for name in ("good", "churn"):
        (folder / f"{name}.yaml").write_text(PIPELINE.replace("NAME", name))
    live: LiveAirflow = live_airflow(folder.parent, env=FAST)
    live.wait_for_dags(*GOOD, *CHURN)

    (folder / "churn.yaml").write_text(PIPELINE.replace("NAME", "churn").replace("target:", "tagret:"))
    _until(live, lambda: live.dags() == {*GOOD, "churn__invalid"})
    shown = live.get("/dags/churn__invalid/details")
    assert shown["dag_display_name"] == "! churn.yaml:4:27: unknown key `tagret` in `data`"
    assert "did you mean `target`?" in shown["doc_md"]
    assert live.import_errors() == {}
    before = live.get("/dags/good__train")["last_parsed_time"]
    _until(live, lambda: live.get("/dags/good__train")["last_parsed_time"] > before)

    # A run of it says the same in its log.
    live.unpause("churn__invalid")
    run = live.trigger("churn__invalid")
    assert live.wait("churn__invalid", run) == "failed"
    assert "did you mean `target`?" in live.log("churn__invalid", run, "errors")

    (folder / "churn.yaml").write_text(PIPELINE.replace("NAME", "churn"))
    _until(live, lambda: live.dags() == GOOD | CHURN)

    # A mistake of a base is shown at its place in every pipeline that extends it.
    (folder / "base.yaml").write_text("ownr: platform\n")
    _until(live, lambda: live.dags() == {"good__invalid", "churn__invalid"})
    assert live.get("/dags/good__invalid")["dag_display_name"].startswith("! base.yaml:1:1: unknown key `ownr`")
    (folder / "base.yaml").write_text("owner: platform\n")
    _until(live, lambda: live.dags() == GOOD | CHURN)
    assert live.import_errors() == {}
