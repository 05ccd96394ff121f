"""A file that goes from good to bad and back, in a live Airflow: it shows itself, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_mlops.demo.airflow import LiveAirflow

MINE = ("good__", "shop__")
PIPELINE = """\
pipeline: NAME
level: 0
extends: base.yaml
data: {source: churn.csv, target: churned}
train: {estimator: sklearn.linear_model.LogisticRegression}
"""
GOOD, SHOP = ({f"{name}__{what}" for what in ("train", "predict", "registry")} for name in ("good", "shop"))


def _dags(live: LiveAirflow) -> set[str]:
    return {dag for dag in live.dags() if dag.startswith(MINE)}


def _until(live: LiveAirflow, what: Callable[[], bool], timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not what():
        live.check_alive()
        assert time.monotonic() < deadline, _dags(live)
        time.sleep(0.5)


def test_good_to_bad_and_back(shared_airflow: Any) -> None:
    live: LiveAirflow = shared_airflow.live
    files = {f"{name}.yaml": PIPELINE.replace("NAME", name) for name in ("good", "shop")}
    folder: Path = shared_airflow.pipelines("bad_files", {**files, "base.yaml": "owner: platform\n"})
    live.wait_for_dags(*GOOD, *SHOP)

    (folder / "shop.yaml").write_text(PIPELINE.replace("NAME", "shop").replace("target:", "tagret:"))
    _until(live, lambda: _dags(live) == {*GOOD, "shop__invalid"})
    shown = live.get("/dags/shop__invalid/details")
    assert shown["dag_display_name"] == "! shop.yaml:4:27: unknown key `tagret` in `data`"
    assert "did you mean `target`?" in shown["doc_md"]
    assert live.import_errors() == {}
    before = live.get("/dags/good__train")["last_parsed_time"]
    _until(live, lambda: live.get("/dags/good__train")["last_parsed_time"] > before)

    # A run of it says the same in its log.
    live.unpause("shop__invalid")
    run = live.trigger("shop__invalid")
    assert live.wait("shop__invalid", run) == "failed"
    assert "did you mean `target`?" in live.log("shop__invalid", run, "errors")

    (folder / "shop.yaml").write_text(PIPELINE.replace("NAME", "shop"))
    _until(live, lambda: _dags(live) == GOOD | SHOP)

    # A mistake of a base is shown at its place in every pipeline that extends it.
    (folder / "base.yaml").write_text("ownr: platform\n")
    _until(live, lambda: _dags(live) == {"good__invalid", "shop__invalid"})
    assert live.get("/dags/good__invalid")["dag_display_name"].startswith("! base.yaml:1:1: unknown key `ownr`")
    (folder / "base.yaml").write_text("owner: platform\n")
    _until(live, lambda: _dags(live) == GOOD | SHOP)
    assert live.import_errors() == {}
