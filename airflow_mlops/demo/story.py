"""What the demo does in the live Airflow: level 0 with a person's yes, level 1 through a whole year."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from airflow_mlops.demo.airflow import LiveAirflow, ended_on_exit
from airflow_mlops.exceptions import MLOpsError

LEVEL_0 = ("breast_cancer__train", "breast_cancer__predict")
LEVEL_1 = ("flight_delays__train", "flight_delays__predict", "flight_delays__monitor")

Say = Callable[[str], None]


class StoryError(MLOpsError):
    """A run of the demo did not end as it should."""


@dataclass(frozen=True)
class Step:
    """A line of the closing table."""

    what: str
    state: str
    detail: str


def succeed(live: LiveAirflow, dag_id: str, run_id: str) -> dict[str, str | None]:
    """Wait for a run and return its task states.

    :raises StoryError: it failed; with the end of the failing task's log.
    """
    state = live.wait(dag_id, run_id)
    tasks = live.task_states(dag_id, run_id)
    if state != "success":
        failed = [task for task, found in tasks.items() if found == "failed"]
        text = "".join(f"\n  task {task}:\n{live.log(dag_id, run_id, task)[-3000:]}" for task in failed)
        raise StoryError(f"{dag_id} {run_id} is {state}{text}", hint=f"look at {live.url}/dags/{dag_id}/runs/{run_id}")
    return tasks


def breast_cancer(live: LiveAirflow, say: Say) -> list[Step]:
    """Level 0: train, approve, hand over, predict, and use the handed over model without Airflow.

    :raises StoryError: a run failed or the model could not be used.
    """
    train, predict = LEVEL_0
    say(f"{train}: started with the form")
    run = live.trigger(train, {"reason": "demo"})
    asked = live.approve(train, run)
    say(f"{train}: the gates passed, task {asked} asked a person, the demo answered Approve")
    tasks = succeed(live, train, run)
    gates = live.xcom(train, run, "evaluate.gates")
    handover = live.xcom(train, run, "promote.handover")
    steps = [Step(train, "success", f"v{gates['version']}, gates {gates['verdict']}: {gates['sentence']}")]
    if tasks.get("promote.handover") != "success":
        raise StoryError(f"{train}: nothing was handed over; the tasks are {tasks}")
    steps.append(Step("approval", "success", "answered by admin in place of a person"))
    run = live.trigger(predict)
    succeed(live, predict, run)
    scored = live.xcom(predict, run, "predict.batch")
    say(f"{predict}: {scored['rows']} rows scored with v{scored['version']}")
    steps.append(Step(predict, "success", f"{scored['rows']} rows with v{scored['version']} → {scored['output']}"))
    steps.append(use_handover(str(handover["command"]), live.home.parent, say))
    return steps


def use_handover(command: str, folder: Path, say: Say) -> Step:
    """Run the command of the handover in a fresh process.

    :raises StoryError: it failed.
    """
    say(f"handover: {command}")
    # The command says `python`: the one that runs the demo, with nothing of Airflow in its environment.
    path = str(Path(sys.executable).parent)
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={"PATH": f"{path}:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise StoryError(
            f"the handover command failed with exit code {done.returncode}: {command}\n{done.stderr[-3000:]}"
        )
    lines = done.stdout.strip().splitlines()
    return Step(
        "handover", "success", f"a fresh process without Airflow predicted: {lines[-1] if lines else '(no output)'}"
    )


def months(count: int) -> tuple[str, str]:
    """``--from`` and ``--to`` of the first ``count`` months of 2013."""
    years, month = divmod(count, 12)
    return "2013-01-01", date(2013 + years, month + 1, 1).isoformat()


def flight_delays(live: LiveAirflow, count: int, say: Say) -> list[str]:
    """Level 1: replay ``count`` months; returns the lines of the table that the command prints at its end.

    :raises StoryError: the command failed.
    """
    start, end = months(count)
    args = ["mlops", "backfill", "flight_delays", "--from", start, "--to", end, "--promote"]
    say("airflow " + shlex.join(args))
    table: list[str] = []
    last: list[str] = []
    with ended_on_exit(live.command(*args)) as process:
        for raw in process.stdout or ():
            line = raw.rstrip()
            last = [*last[-60:], line]
            if line.startswith("[") and "/" in line.split("]")[0]:
                say(f"flight_delays {line}")
                table = []
            else:
                table.append(line)
    if process.returncode:
        raise StoryError(f"the backfill ended with exit code {process.returncode}:\n" + "\n".join(last))
    return [line for line in table if line]


def tell(live: LiveAirflow, count: int, say: Say) -> tuple[list[Step], list[str]]:
    """Run both pipelines at the same time to their end; the first error ends both.

    :raises MLOpsError: as :func:`breast_cancer` and :func:`flight_delays` do.
    """
    live.wait_for_dags(*LEVEL_0, *LEVEL_1)
    live.unpause(*LEVEL_0, *LEVEL_1)
    with ThreadPoolExecutor(1) as pool:
        zero: Future[list[Step]] = pool.submit(breast_cancer, live, say)
        table = flight_delays(live, count, say)
        steps = zero.result()
    live.check_alive()
    if errors := live.import_errors():
        raise StoryError("Airflow could not read: " + ", ".join(errors))
    return steps, table
