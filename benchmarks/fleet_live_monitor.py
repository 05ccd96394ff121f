"""A night of a fleet after its training, for ``bench_fleet_live.py --monitor``: predictions, checks, new trainings.

Two sets of keys are made to change: of some the inputs drift, of others the outcomes are other ones than were learned.
Then ``__predict`` is started; its predictions start ``__monitor``, whose request starts ``__train`` for the keys that
alarmed, each by the asset of the one before.
"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.demo.airflow import LiveAirflow
from airflow_mlops.ml.fleet.alarms import read_alarms
from airflow_mlops.ml.fleet.result import read_newest, read_rows
from airflow_mlops.registry.checks import read_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

CONFIG = """
deploy: {batch: {source: score.parquet, output: predictions}}
monitor:
  labels: {source: outcomes.parquet, join_on: id}
  performance: {metric: mae}
  max_age: 90d
"""
RETRAIN = 'retrain: {schedule: "0 0 1 1 *", when: [drift, performance, staleness]}'
WINDOW = {"window_start": "2026-02-01T00:00:00Z", "window_end": "2026-03-01T00:00:00Z"}
DAGS = ("routes__predict", "routes__monitor", "routes__train")
EACH = 40
"""Rows of a key that are predicted."""
MOVED, WORSE = slice(0, 20), slice(20, 40)
"""Places of the keys whose inputs drift, and of those whose outcomes do."""
FOUND, FALSE = 0.9, 0.1
"""Least share of the changed keys that must be found, and most of the alarms that may be about others."""


def write_night(data: Path, frame: pd.DataFrame) -> tuple[set[str], set[str]]:
    """Write rows to score, their outcomes, and newer rows to train on; return the keys of both kinds.

    :param frame: rows like those of the first training, of other draws, all keys alike.
    """
    routes = np.unique(frame["route"])
    moved, worse = ({*routes[place].tolist()} for place in (MOVED, WORSE))
    frame = frame.copy()
    shift = 2.0 * frame["route"].isin(moved)
    frame["x0"] += shift
    frame["late"] += shift + 5.0 * frame["route"].isin(worse)
    scored = frame.groupby("route", sort=False).head(EACH).sample(frac=1, random_state=1)
    scored.drop(columns="late").to_parquet(data / "score.parquet")
    scored[["id", "late"]].sample(frac=1, random_state=2).to_parquet(data / "outcomes.parquet")
    frame.to_parquet(data / "rows.parquet")
    return moved, worse


def by_asset(live: LiveAirflow, dag_id: str, known: set[str], seconds: float = 120) -> str:
    """The run of a DAG that was not there before; it starts by itself."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for run in live.get(f"dags/{dag_id}/dagRuns", limit=100)["dag_runs"]:
            if run["dag_run_id"] not in known:
                return str(run["dag_run_id"])
        time.sleep(0.25)
    raise SystemExit(f"{dag_id} was not started in {seconds:.0f} s")


def clock(live: LiveAirflow, dag_id: str, run: str) -> tuple[float, dict[str, float]]:
    """Seconds from the first task's start to the last one's end, and those of each task, of mapped ones the sum."""
    tasks = live.get(f"dags/{dag_id}/dagRuns/{run}/taskInstances", limit=500)["task_instances"]
    ends = [[datetime.fromisoformat(t[end]) for t in tasks if t[end]] for end in ("start_date", "end_date")]
    steps: dict[str, float] = {}
    for task in tasks:
        if task["duration"]:
            steps[task["task_id"]] = round(steps.get(task["task_id"], 0.0) + task["duration"], 1)
    return (max(ends[1]) - min(ends[0])).total_seconds(), steps


def night(live: LiveAirflow, store: LocalStore, moved: set[str], worse: set[str]) -> list[str]:
    """Predict, watch, train again what alarms; print what it took, and return what is not as it must be."""
    # What a parent serves is not judged.
    models = {str(key) for key in Registry(store, "routes").champions()}
    moved, worse = moved & models, worse & models
    before = {d: {r["dag_run_id"] for r in live.get(f"dags/{d}/dagRuns", limit=100)["dag_runs"]} for d in DAGS}
    live.unpause(*DAGS)
    missed = []
    for dag_id in DAGS:
        run = live.trigger(dag_id, WINDOW) if dag_id == DAGS[0] else by_asset(live, dag_id, before[dag_id])
        state = live.wait(dag_id, run)
        seconds, steps = clock(live, dag_id, run)
        print(f"{dag_id}: {state} in {seconds:.1f} s; {steps}", flush=True)
        missed += [] if state == "success" else [f"{dag_id} failed"]
    for name, wanted in (("drift", moved), ("performance", worse)):
        check = read_check(store, "routes", name)
        result = (check or {}).get(name) or {}
        print(f"  {name}: {result.get('sentence')}")
        alarmed = {*read_alarms(store, result["alarms"])} if result.get("alarms") else set()
        missed += judged(name, alarmed, wanted)
    ages = (read_check(store, "routes", "staleness") or {}).get("staleness", {})
    print(f"  age: {ages.get('sentence')}")
    missed += [] if ages.get("verdict") == "fresh" else ["age"]
    newest: dict[str, Any] = read_newest(store, "routes") or {}
    rows = read_rows(store, newest["table"])
    print(f"  trained again: {newest.get('sentence')}")
    return missed + judged("trained again", {row["key"] for row in rows}, moved | worse)


def judged(what: str, found: set[str], wanted: set[str]) -> list[str]:
    """What is missing of the keys that changed, or there of others."""
    right = len(found & wanted)
    print(f"  {what}: {right} of {len(wanted)} changed keys, {len(found) - right} others", flush=True)
    enough = right >= FOUND * len(wanted) and len(found) - right <= FALSE * max(len(found), 1)
    return [] if enough else [f"{what}: {right} of {len(wanted)} keys and {len(found) - right} others"]


def pages(live: LiveAirflow) -> dict[str, float]:
    """Seconds that the MLOps pages wait for their data of this fleet, the first time and again."""
    found = {}
    for name, path, params in (
        ("fleet", "fleet", {}),
        ("pipeline", "pipelines/routes", {}),
        ("keys", "pipelines/routes/keys", {}),
        ("keys with an alarm", "pipelines/routes/keys", {"alarmed": True}),
        ("drift", "pipelines/routes/drift", {}),
        ("keys again", "pipelines/routes/keys", {"sort": "metric:r2"}),
    ):
        began = time.perf_counter()
        live.pages(path, **params)
        found[name] = round(time.perf_counter() - began, 2)
    return found
