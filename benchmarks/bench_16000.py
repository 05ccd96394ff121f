"""16,000 DAGs through a real dag processor at Airflow's default timeouts: time, CPU and memory.

    python benchmarks/bench_16000.py
    python benchmarks/bench_16000.py --pipelines 500
    python benchmarks/bench_16000.py --one-loader      the contrast: the same folder through one loader

Writes pipeline files of level 0 (two DAGs each), lets ``airflow mlops loaders`` write their loaders,
starts ``airflow dag-processor`` with a new SQLite database and every other setting at its default, and
waits until each DAG is in the tables ``dag`` and ``serialized_dag``. The exit code is 1 when one is
missing, a file has an import error, a child was killed, or a process needed more than 300 MB.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil

PIPELINE = Path(__file__).parents[1] / "dags" / "pipelines" / "breast_cancer.yaml"
DAGS_EACH = 3
MEMORY_MB = 300
SAMPLE = 1.0
LOADER = 'from airflow_mlops import load_dags  # airflow, dag\n\nglobals().update(load_dags("pipelines"))\n'


def environment(home: Path, dags: Path) -> dict[str, str]:
    """Of Airflow's settings only where things lie; no server is started."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return own | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    }


def write_pipelines(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    text = PIPELINE.read_text("utf-8")
    for number in range(count):
        name = f"pipeline_{number:05d}"
        (folder / f"{name}.yaml").write_text(re.sub(r"^pipeline: \w+", f"pipeline: {name}", text, flags=re.MULTILINE))


def run(env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "airflow", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"airflow {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


class Watch:
    """Memory and CPU of the manager and of the children that parse, as they were seen once a second."""

    def __init__(self, pid: int) -> None:
        self.manager = psutil.Process(pid)
        self.peak = {"manager": [0.0, 0.0], "child": [0.0, 0.0], "together": [0.0, 0.0]}
        self.cpu = 0.0

    def look(self) -> None:
        found = [("manager", self.manager), *(("child", c) for c in self.manager.children(recursive=True))]
        total = [0.0, 0.0]
        for kind, process in found:
            try:
                memory = process.memory_full_info()
            except psutil.Error:
                continue
            for i, size in enumerate((memory.rss / 1e6, memory.pss / 1e6)):
                total[i] += size
                self.peak[kind][i] = max(self.peak[kind][i], size)
        self.peak["together"] = [max(old, new) for old, new in zip(self.peak["together"], total, strict=True)]
        times = self.manager.cpu_times()
        self.cpu = times.user + times.system + times.children_user + times.children_system


@contextmanager
def dag_processor(env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "dag-processor"],
            env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def counts(database: Path) -> tuple[int, int, list[str]]:
    """DAGs that are known and not stale, DAGs that can be scheduled, and import errors."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)) as connection:
        known = connection.execute("SELECT count(*) FROM dag WHERE NOT is_stale").fetchone()[0]
        kept = connection.execute("SELECT count(DISTINCT dag_id) FROM serialized_dag").fetchone()[0]
        errors = connection.execute("SELECT filename, stacktrace FROM import_error").fetchall()
    return known, kept, [f"{name}: {text}" for name, text in errors]


def main() -> int:
    parser = argparse.ArgumentParser(description="16,000 DAGs through a real dag processor.")
    parser.add_argument("--pipelines", type=int, default=5334, help="of three DAGs each")
    parser.add_argument("--one-loader", action="store_true", help="no shards: one loader for all files")
    parser.add_argument("--minutes", type=float, default=60, help="stop waiting after this long")
    options = parser.parse_args()
    expected = options.pipelines * DAGS_EACH
    with tempfile.TemporaryDirectory(prefix="bench-16000-") as name:
        home, dags = Path(name) / "home", Path(name) / "dags"
        home.mkdir()
        write_pipelines(dags / "pipelines", options.pipelines)
        env = environment(home, dags)
        run(env, "db", "migrate")
        if options.one_loader:
            (dags / "loader.py").write_text(LOADER)
        else:
            print("\n".join(run(env, "mlops", "loaders", str(dags / "pipelines")).splitlines()[-3:]))
        log, database = home / "dag-processor.log", home / "airflow.db"
        began, told = time.monotonic(), 0.0
        known, kept, errors = 0, 0, list[str]()
        with dag_processor(env, log) as process:
            watch = Watch(process.pid)
            while time.monotonic() - began < options.minutes * 60:
                time.sleep(SAMPLE)
                if process.poll() is not None:
                    raise SystemExit(f"the dag processor ended:\n{log.read_text(errors='replace')[-3000:]}")
                watch.look()
                known, kept, errors = counts(database)
                wall = time.monotonic() - began
                if wall - told > 30:
                    told = wall
                    print(f"  {wall:6.0f} s: {known:,} DAGs, {kept:,} serialised", flush=True)
                if errors or known == kept == expected:
                    break
            wall = time.monotonic() - began
        text = log.read_text(errors="replace")
        killed = [line for line in text.splitlines() if "killing it" in line.lower()]
        print(f"\n{known:,} of {expected:,} DAGs known, {kept:,} serialised, {len(errors)} import errors")
        print(f"  wall {wall:.0f} s, CPU of the dag processor and its children {watch.cpu:.0f} s")
        for kind, (rss, pss) in watch.peak.items():
            print(f"  {kind:9} peak RSS {rss:5.0f} MB, PSS {pss:5.0f} MB")
        for line in (*errors[:1], *killed[:3]):
            print(f"  {line[-1500:].strip()}")
        largest = max(watch.peak["manager"][0], watch.peak["child"][0])
        fine = known == kept == expected and not errors and not killed and largest <= MEMORY_MB
        print(f"target (all DAGs, no error, at most {MEMORY_MB} MB a process): {'met' if fine else 'missed'}")
        return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
