"""What the demo does in the live Airflow: level 0 with a person's yes, level 1 through a whole year."""

from __future__ import annotations

import queue
import re
import shlex
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from airflow_mlops.demo.airflow import LiveAirflow, ended_on_exit
from airflow_mlops.exceptions import MLOpsError

LEVEL_0 = ("breast_cancer__train", "breast_cancer__predict", "breast_cancer__registry")
LEVEL_1 = ("flight_delays__train", "flight_delays__predict", "flight_delays__monitor", "flight_delays__registry")

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
    train, predict, _ = LEVEL_0
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
    steps.append(use_handover(str(handover["uri"]), str(handover["command"]), live.home.parent / "handover", say))
    return steps


def use_handover(uri: str, command: str, folder: Path, say: Say) -> Step:
    """Unzip the bundle at ``uri`` into ``folder`` and run its command there, in a fresh process.

    :raises StoryError: the command failed.
    """
    with zipfile.ZipFile(Path(url2pathname(urlsplit(uri).path))) as bundle:
        bundle.extractall(folder)
    before = {path.name for path in folder.iterdir()}
    say(f"handover: unzipped into {folder}, running {command}")
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
    made = sorted(path.name for path in folder.iterdir() if path.name not in before)
    told = ", ".join([*done.stdout.strip().splitlines()[-1:], *made])
    return Step("handover", "success", f"a fresh process without Airflow predicted: {told}")


def months(count: int) -> tuple[str, str]:
    """``--from`` and ``--to`` of the first ``count`` months of 2013."""
    years, month = divmod(count, 12)
    return "2013-01-01", date(2013 + years, month + 1, 1).isoformat()


def flight_delays(live: LiveAirflow, count: int, say: Say, beside: Future[list[Step]]) -> list[str]:
    """Level 1: replay ``count`` months; returns the lines of the table that the command prints at its end.

    :param beside: what runs at the same time; its error ends this too.
    :raises StoryError: the command failed.
    """
    return replay(live, "flight_delays", *months(count), say, lambda: _check(live, beside))


def replay(live: LiveAirflow, pipeline: str, start: str, end: str, say: Say, check: Callable[[], None]) -> list[str]:
    """Replay the months from ``start`` to ``end``; returns the lines of the table that the command prints at its end.

    :param check: called every second.
    :raises StoryError: the command failed.
    """
    args = ["mlops", "backfill", pipeline, "--from", start, "--to", end, "--promote"]
    say("airflow " + shlex.join(args))
    table: list[str] = []
    for line in output(live, args, check):
        if re.match(r"\[\d+/\d+\] ", line):
            say(f"{pipeline} {line}")
            table = []
        else:
            table.append(line)
    return [line for line in table if line]


def output(live: LiveAirflow, args: Sequence[str], check: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Yield the lines that ``airflow ARGS`` prints, while it runs.

    :param check: called every second.
    :raises StoryError: it ended with another exit code than 0; with the end of what it printed.
    """
    last: list[str] = []
    with ended_on_exit(live.command(*args)) as process:
        for line in _lines(process, check):
            last = [*last[-60:], line]
            yield line
        process.wait()
    if process.returncode:
        told = "\n".join(last)
        raise StoryError(f"airflow {shlex.join(args)} ended with exit code {process.returncode}:\n{told}")


def explained(live: LiveAirflow, pipeline: str) -> list[str]:
    """What ``airflow mlops monitor history`` prints: the reason of every alarm and of every silent month.

    :raises StoryError: the command failed.
    """
    args = ["mlops", "monitor", "history", pipeline]
    lines = list(output(live, args))
    told = next((n for n, line in enumerate(lines) if line.startswith(f"{pipeline}: ")), None)
    if told is None:
        raise StoryError(f"airflow {shlex.join(args)} told no history:\n" + "\n".join(lines[-60:]))
    return ["", "airflow " + shlex.join(args), *(line for line in lines[told:] if line)]


def _check(live: LiveAirflow, beside: Future[list[Step]]) -> None:
    """Raise what has ended Airflow or went wrong in the other pipeline, if anything."""
    live.check_alive()
    if beside.done():
        beside.result()


def _lines(process: subprocess.Popen[str], check: Callable[[], None]) -> Iterator[str]:
    """Yield the lines that a process prints until it closes its output; calls ``check`` every second."""
    found: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            found.put(line.rstrip())
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = found.get(timeout=1)
        except queue.Empty:
            check()
            continue
        if line is None:
            return
        yield line


def tell(live: LiveAirflow, count: int, say: Say) -> tuple[list[Step], list[str]]:
    """Run both pipelines at the same time to their end; the first error ends both.

    :raises MLOpsError: as :func:`breast_cancer` and :func:`flight_delays` do.
    """
    live.wait_for_dags(*LEVEL_0, *LEVEL_1)
    live.unpause(*LEVEL_0, *LEVEL_1)
    zero: Future[list[Step]] = Future()

    def level_0() -> None:
        try:
            zero.set_result(breast_cancer(live, say))
        except Exception as e:  # noqa: BLE001 - handed to the thread that asks for the result
            zero.set_exception(e)

    # A daemon: when level 1 fails there is nothing to wait for.
    threading.Thread(target=level_0, daemon=True).start()
    table = flight_delays(live, count, say, zero)
    steps = zero.result()
    table += explained(live, LEVEL_1[0].partition("__")[0])
    live.check_alive()
    if errors := live.import_errors():
        raise StoryError("Airflow could not read: " + ", ".join(errors))
    return steps, table
