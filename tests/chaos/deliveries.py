"""kill -9 of every task of a delivery, in two live Airflows; prints a table: ``python -m tests.chaos.deliveries``.

Each pass delivers a new commit while the process of every task is killed once, at a moment of its own: as soon as it
is seen, or some seconds later. A watcher looks at both environments' branches all the time: whenever anybody looks,
there is one whole deployment, old or new. At the end both have the new one, once, and their Airflows run it. The last
pass delivers a commit that production cannot read, and kills on, the rollback too: production ends with the deployment
before.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from tests.system.two_airflows import DAGS, DELIVERY, World

BAD = 'import os\nif os.environ["AIRFLOW__MLOPS__ENVIRONMENT"] == "production":\n    raise RuntimeError("only here")\n'
FINAL = ("success", "failed", "skipped", "upstream_failed")


class Watcher(threading.Thread):
    """Reads both branches again and again; ``problems`` are moments at which one held no whole deployment."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self.world = world
        self.ended = threading.Event()
        self.looks = 0
        self.problems: list[str] = []

    def run(self) -> None:
        while not self.ended.wait(0.2):
            for environment in ("staging", "production"):
                try:
                    self.world.current(environment)
                except Exception as e:  # noqa: BLE001 - whatever it is, it is what this looks for
                    self.problems.append(f"{environment}: {e}")
                self.looks += 1


@contextmanager
def watched(world: World) -> Iterator[Watcher]:
    watcher = Watcher(world)
    watcher.start()
    try:
        yield watcher
    finally:
        watcher.ended.set()
        watcher.join()


def kill_each_once(world: World, run: str, draw: random.Random) -> dict[str, float]:
    """Kill the process of each task of a run once, and answer its question; returns task → seconds it had lived."""
    killed: dict[str, float] = {}
    seen: dict[str, tuple[float, float]] = {}
    path = f"dags/{DELIVERY}/dagRuns/{run}"
    while world.staging.get(path)["state"] not in FINAL:
        for task in world.staging.get(f"{path}/taskInstances", limit=100)["task_instances"]:
            name, pid = task["task_id"], task["pid"]
            if task["state"] == "awaiting_input":
                with suppress(Exception):
                    world.staging.approve(DELIVERY, run, timeout=1)
            if task["state"] != "running" or name in killed or pid is None or name.endswith(".approve"):
                continue
            now = time.monotonic()
            began, wanted = seen.setdefault(name, (now, draw.choice((0.0, draw.uniform(0, 4), draw.uniform(0, 8)))))
            if now - began < wanted:
                continue
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                # By id, and only where it still is this task's.
                if task["id"] in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    killed[name] = now - began
        time.sleep(0.1)
    return killed


def one_pass(world: World, number: int, *, bad: bool, draw: random.Random) -> bool:
    """Deliver a commit under fire; says how it went, and whether all was as it must be."""
    before, runs = world.current("production"), len(world.runs())
    # A changed pipeline is trained before and after; a changed loader is not.
    path = "loader.py" if bad else "features/churn.py"
    text = (world.project / path).read_text() + (BAD if bad else f"\n\nPASS_{number} = True\n")
    with watched(world) as watcher:
        commit = world.push(f"pass {number}", {path: text})
        run = world.next_run(runs)
        began = time.monotonic()
        killed = kill_each_once(world, run, draw)
        seconds = time.monotonic() - began
    states = world.staging.task_states(DELIVERY, run)
    staging, production = world.current("staging"), world.current("production")
    tries = sum(d.source == commit and d.action == "deploy" for d in world.history("staging").deployments)
    problems = list(watcher.problems)
    if staging.source != commit or tries != 1:
        problems.append(f"staging has {staging}, deployed {tries} times")
    if bad and (production.action != "rollback" or production.digest != before.digest):
        problems.append(f"production has {production}")
    if not bad and production.digest != staging.digest:
        problems.append(f"production has {production}")
    for environment, deployment in (("staging", staging), ("production", production)):
        if world.versions(environment) != dict.fromkeys(DAGS, deployment.commit):
            problems.append(f"the Airflow of {environment} shows {world.versions(environment)}")
    if not bad:
        model = Registry(LocalStore(world.folder / "staging-store"), "churn").versions()[-1].record["code"]
        told = {"project": "crm", "commit": commit, "bundle": staging.digest, "deployment": staging.commit}
        if model.get("delivered") != told:
            problems.append(f"the model of the smoke run says {model.get('delivered')}")
    wanted = "failed" if bad else "success"
    if (state := world.staging.get(f"dags/{DELIVERY}/dagRuns/{run}")["state"]) != wanted:
        problems.append(f"the run is {state}, not {wanted}: {states}")
    for task in states:
        lived = f"killed after {killed[task]:.1f} s" if task in killed else "–"
        print(f"  {task:<20} {lived:<20} {states[task]}")
    kind = "a commit that production cannot read" if bad else "a good commit"
    print(
        f"pass {number}, {kind}: {len(killed)} tasks killed, {watcher.looks} looks at the branches, {seconds:.0f} s: "
        f"{world.verdict(run)[-300:]}"
    )
    for problem in problems:
        print(f"  WRONG: {problem}")
    return not problems


def main() -> None:
    """Run the passes; ends with 1 where anything was not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passes", type=int, default=3, help="good commits; one that is bad comes after them")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory(prefix="mlops-deliveries-") as folder:
        world = World(Path(folder), smoke=True)
        with world.running(*DAGS):
            world.staging.unpause(DELIVERY)
            world.staging.wait(DELIVERY, world.next_run(0))
            numbers = range(1, asked.passes + 2)
            good = [one_pass(world, number, bad=number > asked.passes, draw=draw) for number in numbers]
    print(f"{sum(good)} of {len(good)} passes ended with one whole version each")
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
