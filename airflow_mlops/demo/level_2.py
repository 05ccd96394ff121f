"""Level 2 in two live Airflows: commits of a project on their way to production, and a model on its way to champion.

The pipeline is the demo's flight_delays with another ``level``, and with feature code: a first version that knows the
schedule, a second one that reads the weather, too, and a third commit that is bad on purpose.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from airflow_mlops.demo import story
from airflow_mlops.demo.airflow import FINAL, LiveAirflow
from airflow_mlops.demo.story import Say, StoryError
from airflow_mlops.demo.two_airflows import ENVIRONMENTS, TwoAirflows

PROJECT, PIPELINE = "flights", "flight_delays"
DAGS = tuple(f"{PIPELINE}__{suffix}" for suffix in ("train", "predict", "monitor", "registry"))
FIRST_MONTHS, LAST_MONTH = 2, 6
"""Of 2013: served by the first version of the features; then by the second one, up to this month."""
SAMPLE = 20_000
"""Rows that a pipeline is trained on in CI, at most."""

PROJECT_YAML = """\
# Where this project is delivered from, and to, in this order. `airflow mlops lint project.yaml` checks it.
project: flights
remote: {remote}
watch: {{every: 2s}}                     # every commit on main is delivered
environments:
  staging:
    branch: deploy/staging
    api: airflow_staging
    smoke: {{conf: {{window_start: "2013-01-01T00:00:00Z", window_end: "2013-02-01T00:00:00Z"}}}}
  production:
    branch: deploy/production
    api: airflow_production
    verify_timeout: 5m
    approve: {{required: true}}          # the demo answers in place of a person
"""
LOADER = """\
# Airflow reads only files that hold the words "airflow" and "dag"; this one now does.
from airflow_mlops import load_dags

globals().update(load_dags("pipelines"))
"""
DELIVERY_LOADER = """\
# Makes the DAG flights__delivery of ../project.yaml; Airflow reads it from a bundle of its own.
from airflow_mlops import load_delivery

globals().update(load_delivery("..", sample=20000))
"""
FEATURES = '''\
"""What flight_delays is told of a flight; the same code in training and prediction."""

SCHEDULE = ["day_of_week", "departure_hour", "arrival_hour", "carrier", "origin", "dest", "distance"]
WEATHER = ["humidity", "wind_speed", "precipitation", "visibility"]


def build(flights):
    """One row for each flight, and nothing learned from other rows."""
    return flights[{columns}]
'''
TESTS = '''\
"""Tests of the features of flight_delays."""

import pandas as pd

from features.flights import build

FLIGHT = {
    "flight_id": "a", "day_of_week": 2, "departure_hour": 5.25, "arrival_hour": 8.5, "carrier": "UA", "origin": "EWR",
    "dest": "IAH", "distance": 1400, "humidity": 62.2, "wind_speed": 12.7, "precipitation": 0.0, "visibility": 10.0,
}


def test_a_flight_is_known_by_its_schedule_and_not_by_its_name():
    made = build(pd.DataFrame([FLIGHT]))
    assert {"carrier", "departure_hour", "distance"} <= set(made.columns)
    assert "flight_id" not in made
'''
_SERVED = """
environments:                            # predictions of the two do not meet
  staging: {deploy: {batch: {output: predictions/staging/}}}
  production: {deploy: {batch: {output: predictions/production/}}}
"""


@dataclass(frozen=True)
class Delivered:
    """A line of the closing table: what a commit was, and what became of it."""

    commit: str
    what: str
    outcome: str


def pipeline_file(dags: Path) -> str:
    """The demo's ``flight_delays.yaml`` at level 2, with feature code and two environments.

    :param dags: the folder of DAG files that the first demo runs.
    """
    text = (dags / "pipelines" / f"{PIPELINE}.yaml").read_text(encoding="utf-8")
    text, levels = re.subn(r"(?m)^level: 1$", "level: 2", text)
    if levels != 1:
        raise StoryError(f"{PIPELINE}.yaml in {dags} has no line `level: 1`")
    return text + '\nfeatures: {callable: "features.flights:build"}\n' + _SERVED


def with_variable(text: str) -> str:
    """The pipeline file with an owner that a variable names."""
    return re.sub(r"(?m)^owner: .*$", 'owner: "${env:MLOPS_TEAM}"', text)


def features(weather: bool) -> str:
    """The feature code's first version, or the second one, with the weather."""
    return FEATURES.replace("{columns}", "SCHEDULE + WEATHER" if weather else "SCHEDULE")


def first_files(remote: Path, dags: Path) -> dict[str, str]:
    """The files of the first commit."""
    return {
        "project.yaml": PROJECT_YAML.format(remote=remote),
        "loader.py": LOADER,
        "delivery/dag.py": DELIVERY_LOADER,
        ".airflowignore": "delivery/\nfeatures/\ntests/\n",
        "features/__init__.py": "",
        "features/flights.py": features(weather=False),
        "tests/test_flights.py": TESTS,
        f"pipelines/{PIPELINE}.yaml": pipeline_file(dags),
    }


@contextmanager
def told(two: TwoAirflows, dags: Path, say: Say) -> Iterator[tuple[list[Delivered], list[str]]]:
    """Deliver three commits and roll a model out; the block has what there is to print, and both Airflows still run.

    :param dags: the folder of DAG files that the first demo runs.
    :raises MLOpsError: a step did not end as it should.
    """
    delivered = [_first(two, dags, say)]
    with two.running(*DAGS):
        two.production.unpause(*DAGS)
        two.staging.unpause(*DAGS, two.delivery)
        run = two.next_run(0)
        two.staging.wait(two.delivery, run)
        say(f"{two.delivery}: {two.verdict(run)}")
        say("production: the first model, of what the schedule tells")
        _replay(two, 1, FIRST_MONTHS, say)
        weather = {"features/flights.py": features(weather=True)}
        delivered.append(_deliver(two, "Read the weather, too", weather, "a second version of the features", say))
        say("production: the next training reads the weather; its model goes from shadow to canary to full")
        _replay(two, FIRST_MONTHS + 1, LAST_MONTH, say)
        file = f"pipelines/{PIPELINE}.yaml"
        bad = {file: with_variable((two.project / file).read_text(encoding="utf-8"))}
        what = "bad on purpose: nobody has set MLOPS_TEAM in production"
        delivered.append(_deliver(two, "Name the team by a variable", bad, what, say, good=False))
        _settled(two.production)
        table = _printed(two.production, "mlops", "registry", "history", PIPELINE)
        table += _printed(two.staging, "mlops", "status", "--project", str(two.project))
        yield delivered, table


def _first(two: TwoAirflows, dags: Path, say: Say) -> Delivered:
    """Commit the project, check it, and deploy it to both by hand: no Airflow runs yet that could do it."""
    commit = two.push("First version", first_files(two.remote, dags))
    say(f"commit {commit[:12]}: First version")
    bundle, project = str(two.folder / "first.zip"), str(two.project)
    commands = [["ci", project, "--sample", str(SAMPLE), "--data-root", str(two.data_root), "--bundle", bundle]]
    for environment in ENVIRONMENTS:
        here = [
            "deploy",
            bundle,
            "--env",
            environment,
            "--project",
            project,
            "--no-verify",
            "--reason",
            "the first one",
        ]
        commands.append(here + (["--break-glass"] if environment == "production" else []))
    for args in commands:
        say("airflow mlops " + shlex.join(args))
        for line in story.output(two.staging, ["mlops", *args]):
            say(f"  {line}")
    return Delivered(commit, "first version", "deployed to staging and production by commands")


def _deliver(
    two: TwoAirflows, message: str, files: Mapping[str, str], what: str, say: Say, *, good: bool = True
) -> Delivered:
    """Push a commit, wait for its delivery, and answer where it asks.

    :raises StoryError: it did not end as it should.
    """
    live, before = two.staging, len(two.runs())
    commit = two.push(message, files)
    say(f"commit {commit[:12]}: {message} ({what})")
    run = two.next_run(before)
    say(f"{two.delivery}: started by the commit, {live.url}/dags/{two.delivery}/runs/{run}")
    ended: set[str] = set()
    _follow(two, run, ended, say, until="production.approve")
    for metric in live.xcom(two.delivery, run, "ci.contract")["metrics"]:
        numbers = f"{metric['before']:.4f} deployed, {metric['after']:.4f} with this commit"
        say(f"  {metric['pipeline']}: {metric['name']} {numbers}: {metric['verdict']}")
    live.approve(two.delivery, run)
    say(f"{two.delivery}: asked a person, the demo answered Approve")
    _follow(two, run, ended, say)
    state, states, verdict = live.wait(two.delivery, run), live.task_states(two.delivery, run), two.verdict(run)
    say(f"{two.delivery}: {state}: {verdict}")
    if (state == "success") != good or (states.get("production.rollback") == "success") == good:
        raise StoryError(
            f"{two.delivery} {run} is {state}: {states}", hint=f"look at {live.url}/dags/{two.delivery}/runs/{run}"
        )
    return Delivered(commit, what, verdict)


def _follow(two: TwoAirflows, run: str, ended: set[str], say: Say, *, until: str | None = None) -> None:
    """Tell each task that ends, until the task ``until`` waits for an answer, or the run has ended.

    :raises StoryError: it takes longer than a quarter of an hour.
    """
    live, deadline = two.staging, time.monotonic() + 900
    while True:
        states = live.task_states(two.delivery, run)
        for task, state in states.items():
            if state in ("success", "failed") and task not in ended:
                ended.add(task)
                say(f"  {task}: {state}")
        waits = until is not None and states.get(until) == "awaiting_input"
        if waits or live.get(f"dags/{two.delivery}/dagRuns/{run}")["state"] in FINAL:
            return
        for each in (live, two.production):
            each.check_alive()
        if time.monotonic() > deadline:
            raise StoryError(f"{two.delivery} {run} does not come to an end: {states}", hint=f"look at {live.url}")
        time.sleep(1)


def _settled(live: LiveAirflow) -> None:
    """Wait until Airflow has forgotten the DAG of the file that could not be used.

    :raises StoryError: it takes longer than Airflow's own limits (``stale_dag_threshold`` and the like) allow for.
    """
    deadline = time.monotonic() + 300
    while f"{PIPELINE}__invalid" in live.dags():
        live.check_alive()
        if time.monotonic() > deadline:
            raise StoryError(f"{live.url} still has {PIPELINE}__invalid", hint=f"read {live.home}/dag-processor.log")
        time.sleep(2)


def _replay(two: TwoAirflows, first: int, last: int, say: Say) -> None:
    """Replay these months of 2013 in production."""
    start, end = (date(2013, month, 1).isoformat() for month in (first, last + 1))
    for line in story.replay(two.production, PIPELINE, start, end, say, two.production.check_alive):
        say(f"  {line}")


def _printed(live: LiveAirflow, *args: str) -> list[str]:
    """What a command prints, below the command."""
    return ["", "airflow " + shlex.join(args), *(line for line in story.output(live, args) if line)]
