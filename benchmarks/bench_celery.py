"""Two Celery workers against one: the same training tasks, each worker on a core of its own.

    python benchmarks/bench_celery.py [--tasks 12] [--trees 400] [--repeat 2]

Airflow's services of docker-compose.yml, PostgreSQL and Redis run as processes on this machine; the store is a folder.
A snapshot is trained on by so many mapped tasks, one seed each, in workers that take one task at a time and are held
to one core each by ``taskset``. Measured is the clock from the first task's start to the last one's end, with one
worker and with two, in turns; printed are the medians, their ratio, and the machine's load before. Scheduler, API
server and databases share the same cores. Exit code 1 when two workers are less than 1.7 times as fast.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/integration"))

from services import ComposeAirflow, postgres, read_compose, redis

from airflow_mlops.demo.airflow import AirflowDown
from airflow_mlops.demo.story import succeed

TARGET = 1.7
DAG_ID = "bench_celery"
DAG = """
from airflow.sdk import DAG
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.training import TrainOperator

DATA = {"source": "rows.csv", "target": "y", "id": "id"}
FOREST = {"estimator": "sklearn.ensemble.RandomForestClassifier", "params": {"n_estimators": TREES, "n_jobs": 1}}
with DAG("bench_celery", schedule=None, max_active_tasks=32):
    snapshot = SnapshotOperator(task_id="snapshot", pipeline="bench_celery", data=DATA)
    fit = TrainOperator.partial(
        task_id="fit", pipeline="bench_celery", snapshot=snapshot.output, data=DATA, max_active_tis_per_dag=32
    ).expand(train=[{**FOREST, "seed": seed} for seed in range(TASKS)])
    snapshot >> fit
"""


class Cluster(ComposeAirflow):
    """The compose file's Airflow, whose workers are started by the benchmark."""

    LASTING = ("api-server", "scheduler", "dag-processor", "triggerer")
    ONCE = ("migrate",)

    def environment(self, service: str) -> dict[str, str]:
        """As the parent's, with a store on this disk and one task at a time."""
        place = {"STORE": f"file://{self.folder}/store", "DATA_ROOT": str(self.folder / "data")}
        return super().environment(service) | {
            **{f"AIRFLOW__MLOPS__{name}": value for name, value in place.items()},
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
            # A worker that took a second task would keep it from one that is free.
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            # Airflow's own value: the scheduler shares the workers' cores.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
            "OMP_NUM_THREADS": "1",
        }

    @contextmanager
    def worker(self, core: int) -> Iterator[None]:
        """A Celery worker held to one core."""
        argv = ["taskset", "--cpu-list", str(core), *self.argv("worker")]
        own = ["--celery-hostname", f"core{core}@%h", "--pid", str(self.folder / f"worker-{core}.pid")]
        with (self.folder / f"worker-{core}.log").open("ab") as log:
            process = subprocess.Popen(
                [*argv, *own], cwd=self.folder, env=self.environment("worker"), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers answer."""
        argv = [sys.executable, "-m", "celery", "--app", "airflow.providers.celery.executors.celery_executor.app"]
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = subprocess.run(
                [*argv, "inspect", "ping", "--timeout", "2"], cwd=self.folder, env=self.environment("worker"),
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.stdout.count("pong") == count:
                return
        raise AirflowDown(f"{count} workers did not answer", hint=f"read {self.folder}/worker-*.log")

    def seconds(self) -> tuple[float, float]:
        """Run the DAG; from the first fit's start to the last one's end, and a fit's median time."""
        run = self.trigger(DAG_ID)
        succeed(self, DAG_ID, run)
        found = self.get(f"/dags/{DAG_ID}/dagRuns/{run}/taskInstances", limit=1000)["task_instances"]
        fits = [ti for ti in found if ti["task_id"] == "fit"]
        starts, ends = ([datetime.fromisoformat(ti[key]) for ti in fits] for key in ("start_date", "end_date"))
        return (max(ends) - min(starts)).total_seconds(), statistics.median(ti["duration"] for ti in fits)


def make_data(path: Path, rows: int = 20_000) -> None:
    """Write numbers and a noisy class."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    frame = pd.DataFrame(rng.normal(size=(rows, 8)), columns=[f"x{i}" for i in range(8)])
    frame["y"] = (frame.sum(axis=1) + rng.normal(size=rows) > 0).astype(int)
    frame.insert(0, "id", range(rows))
    frame.to_csv(path, index=False)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--trees", type=int, default=400)
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("two workers need two cores")
        return 2
    services = read_compose()["services"]
    load = os.getloadavg()[0]
    took: dict[int, list[float]] = {1: [], 2: []}
    fits: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="mlops-celery-") as name:
        home = Path(name) / "airflow"
        for folder in ("data", "dags", "volumes/login"):
            (home / folder).mkdir(parents=True)
        (home / "volumes/login/passwords.json").write_text('{"admin": "admin"}')
        make_data(home / "data/rows.csv")
        (home / "dags/bench.py").write_text(DAG.replace("TREES", str(args.trees)).replace("TASKS", str(args.tasks)))
        with postgres(services["postgres"]) as database, redis(services["redis"], Path(name)) as broker:
            swaps = {
                "@postgres:5432/": f"@127.0.0.1:{database}/",
                "@redis:6379/": f"@127.0.0.1:{broker}/",
                "http://s3:8333": "http://127.0.0.1:1",
            }
            with Cluster(home, swaps) as live:
                live.wait_for_dags(DAG_ID)
                live.unpause(DAG_ID)
                with live.worker(cores[0]):
                    live.wait_for_workers(1)
                    live.seconds()  # what is imported and read once is not measured
                    for _ in range(args.repeat):
                        for workers in (1, 2):
                            if workers == 2:
                                with live.worker(cores[1]):
                                    live.wait_for_workers(2)
                                    seconds, fit = live.seconds()
                            else:
                                seconds, fit = live.seconds()
                            took[workers].append(seconds)
                            fits[workers].append(fit)
                            print(f"{workers} worker(s): {seconds:6.1f} s, a task {fit:.1f} s", flush=True)
    one, two = (statistics.median(took[n]) for n in (1, 2))
    ratio = one / two
    print(f"\n{args.tasks} trainings; load of the machine {load:.2f} before, {os.getloadavg()[0]:.2f} at the end")
    print(f"one worker {one:.1f} s, two workers {two:.1f} s: {ratio:.2f} times as fast (target: at least {TARGET})")
    return 0 if ratio >= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
