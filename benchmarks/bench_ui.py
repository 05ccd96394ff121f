"""What the MLOps pages cost the API server: the fleet of 1,000 pipelines with 50 versions each, on a local disk.

    python benchmarks/bench_ui.py
    python benchmarks/bench_ui.py --pipelines 100 --folder /data
    python benchmarks/bench_ui.py --browser    # the page in a real Chromium instead (extra ``ui``)

Airflow's tables are in SQLite, with 4 DAGs and 250 runs for each pipeline. Requests go through the whole application
(sign-in, rights, queries, JSON) in one process, without a network. Cold: nothing is in memory, but in the disk's cache.
The target is of processor time: nothing is waited for, so that on a quiet machine the clock says the same.
Each pipeline's records are links to the same files, so that the store is built in seconds; they are read one by one all
the same, and without the checkpoints that spare a real registry some of it. The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PIPELINES, VERSIONS = 1_000, 50
WINDOWS, COLUMNS = 30, 20
RUNS = {"train": 50, "monitor": 100, "predict": 100, "registry": 0}
TARGET = 0.3
REPEATS = 20
NOW = datetime(2026, 11, 27, tzinfo=UTC)


def main() -> int:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=PIPELINES)
    parser.add_argument("--folder", type=Path, help="where to build; default: a temporary folder")
    parser.add_argument("--browser", action="store_true", help="open the page in Chromium; target: within 2 s")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-ui-", dir=args.folder))
    port = free_port()
    os.environ |= {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this benchmark, long enough for HS512 " * 2,
        "AIRFLOW__MLOPS__STORE": (folder / "store").as_uri(),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    (folder / "airflow").mkdir()
    (folder / "passwords.json").write_text('{"admin": "admin"}')
    try:
        begun = time.perf_counter()
        build_store(folder / "store", args.pipelines)
        build_airflow(args.pipelines)
        print(f"{args.pipelines:,} pipelines of {VERSIONS} versions, built in {time.perf_counter() - begun:.0f} s")
        if args.browser:
            import ui_browser

            return ui_browser.measure(folder, port)
        return measure(args.pipelines, folder / "store")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def names(pipelines: int) -> list[str]:
    """Their names."""
    return [f"pipeline_{n:04d}" for n in range(pipelines)]


# --- building ----------------------------------------------------------------------------------------


def build_store(root: Path, pipelines: int) -> None:
    """One pipeline as its runs would have left it; the others have the same files."""
    from airflow_mlops.config.models import Retrain
    from airflow_mlops.ml.retrain import Ledger
    from airflow_mlops.registry import Registry
    from airflow_mlops.registry.checks import write_check
    from airflow_mlops.store import LocalStore
    from airflow_mlops.window import Window

    store = LocalStore(root)
    first, *others = names(pipelines)
    registry, ledger = Registry(store, first), Ledger(store, first)
    config = Retrain.model_validate({"cooldown": "7d"})
    for number in range(1, VERSIONS + 1):
        window = Window.of(
            NOW - timedelta(days=7 * (VERSIONS - number) + 90), NOW - timedelta(days=7 * (VERSIONS - number))
        )
        run = {"dag_id": f"{first}__train", "run_id": f"run_{number}"}
        registry.register(record(run, window.to_dict()), op_id=f"r{number}")
        metrics = {
            name: {"candidate": 0.7, "candidate_low": 0.6, "candidate_high": 0.8, "lower_is_better": False}
            for name in ("roc_auc", "log_loss")
        }
        registry.annotate(number, "evaluation", {"metrics": metrics, "rows": 15_000}, op_id=f"e{number}")
        line = {
            "name": "roc_auc at_least 0.6",
            "verdict": "passed",
            "sentence": "roc_auc 0.700 reaches 0.6",
            "slices": [],
        }
        gates = {
            "verdict": "passed",
            "sentence": "passed: all 3 gates. " + "x" * 200,
            "results": [line] * 3,
            "go": True,
        }
        registry.annotate(number, "gates", gates, op_id=f"g{number}")
        cost = {"task": "train.fit", "wall_seconds": 3.5, "cpu_seconds": 2.5, "peak_mb": 500.0}
        registry.annotate(number, "cost", cost, op_id=f"c{number}")
        if number % 5 == 1:
            registry.promote(number, expected=number - 5 if number > 5 else None, op_id=f"p{number}", reason="passed")
        ledger.claim(None, start="schedule", at=window.end, run=f"run_{number}", config=config, op_id=f"l{number}")
    for day in range(WINDOWS):
        window = Window.of(NOW - timedelta(days=WINDOWS - day), NOW - timedelta(days=WINDOWS - day - 1))
        for name, result in checks(day).items():
            write_check(store, first, window, name, result)
    head = root / "pipelines" / first / "log" / "HEAD"
    without_checkpoint(head)
    files = [p.relative_to(root / "pipelines" / first) for p in (root / "pipelines" / first).rglob("*") if p.is_file()]
    for name in others:
        target = root / "pipelines" / name
        for folder in {p.parent for p in files}:
            (target / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            os.link(root / "pipelines" / first / file, target / file)
        store.put(f"names/{name}.json", f'{{"pipeline":"{name}"}}'.encode())


def without_checkpoint(head: Path) -> None:
    """A checkpoint stands for one pipeline alone; without it readers take the entries."""
    from airflow_mlops.registry.entry import sealed, unsealed

    head.write_bytes(sealed(unsealed(head.read_bytes()) | {"checkpoint": None}))


def record(run: dict[str, Any], window: dict[str, str]) -> dict[str, Any]:
    """What a version is registered with."""
    features = [{"name": f"column_{n}", "kind": "number", "categories": None} for n in range(COLUMNS)]
    return {
        "model": {"digest": "d" * 64, "bytes": 500_000, "format": "skops", "environment": {"python": "3.11"}},
        "schema": {"features": features, "target": "left", "classes": [0, 1], "positive": 1, "excluded": []},
        "snapshot": {
            "snapshot": "a" * 64,
            "fingerprint": "f" * 64,
            "rows": 75_000,
            "columns": COLUMNS,
            "window": window,
        },
        "rows": {"train": 60_000, "holdout": 15_000},
        "run": run,
        "about": {"owner": "ops", "description": "A pipeline of the benchmark."},
        "params": {f"parameter_{n}": n for n in range(20)},
        "seen": {"columns": {f["name"]: {"min": 0.0, "max": 1.0, "missing": 0} for f in features}},
    }


def checks(day: int) -> dict[str, dict[str, Any]]:
    """What a day's monitoring leaves."""
    columns = [
        {"name": f"column_{n}", "kind": "number", "effect": 0.05, "p_value": 0.5, "drifted": False, "statistic": "W1",
         "sentence": f"column_{n}: no drift, W1 0.05 σ (limit 0.1, p 0.5)"}
        for n in range(COLUMNS)
    ]  # fmt: skip
    serving = VERSIONS - (VERSIONS - 1) % 5
    about = {"version": serving, "rows": 28_000}
    return {
        "drift": {"verdict": "no_drift", "sentence": "no drift in 20 columns", "columns": columns, **about},
        "quality": {"verdict": "passed", "sentence": "all 6 checks passed", **about},
        "performance": {"verdict": "ok", "sentence": "not worse", "metric": "roc_auc", "value": 0.7 + day / 1000,
                        "low": 0.6, "high": 0.8, "baseline": 0.7, **about},
        "staleness": {"verdict": "fresh", "sentence": "12 days, limit 30 days", **about},
        "prediction": {"output": "predictions/x.parquet", **about},
    }  # fmt: skip


def build_airflow(pipelines: int) -> None:
    """Airflow's tables with the pipelines' DAGs and runs."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.models.dag import DagModel, DagTag
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.utils.db import _get_alembic_config
    from airflow.utils.session import create_session
    from alembic import command
    from sqlalchemy import insert

    settings.initialize()
    import_all_models()
    Base.metadata.create_all(settings.engine)
    dags, tags, runs = [], [], []
    for name in names(pipelines):
        for suffix, count in RUNS.items():
            dag_id = f"{name}__{suffix}"
            dags.append(
                {"dag_id": dag_id, "bundle_name": "dags", "is_stale": False, "is_paused": False, "owners": "ops",
                 "max_active_tasks": 16, "max_active_runs": 1, "max_consecutive_failed_dag_runs": 0,
                 "has_task_concurrency_limits": False, "timetable_summary": "@daily"}
            )  # fmt: skip
            tags += [{"dag_id": dag_id, "name": tag} for tag in ("mlops", "level-1", "ops")]
            for number in range(count):
                at = NOW - timedelta(days=count - number)
                runs.append(
                    {"dag_id": dag_id, "run_id": f"run_{number}", "state": "success", "run_type": "scheduled",
                     "run_after": at, "start_date": at, "end_date": at + timedelta(minutes=1), "queued_at": at,
                     "clear_number": 0, "span_status": "not_started"}
                )  # fmt: skip
    # The API server asks at its start whether these are its tables.
    command.stamp(_get_alembic_config(), "heads")
    with create_session() as session:
        session.execute(insert(DagBundleModel.__table__), [{"name": "dags"}])
        for table, rows in ((DagModel, dags), (DagTag, tags), (DagRun, runs)):
            session.execute(insert(table.__table__), rows)


# --- measuring ---------------------------------------------------------------------------------------


def measure(pipelines: int, store: Path) -> int:
    """Ask as a browser does, and print what it takes."""
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_mlops.plugins.app import create_app
    from airflow_mlops.registry.overview import overview
    from airflow_mlops.store import LocalStore

    outer = FastAPI()
    init_auth_manager(outer)
    outer.mount("/mlops", create_app())
    client = TestClient(outer)
    token = SimpleAuthManager().generate_jwt(SimpleAuthManagerUser(username="admin", role="admin"))
    client.headers["Authorization"] = f"Bearer {token}"

    def ask(path: str, **query: Any) -> Any:
        answer = client.get(f"/mlops/api/{path}", params=query)
        answer.raise_for_status()
        return answer.json()

    print(f"{'':44}{'clock':>10}{'processor':>12}")
    shown("the store's index, made for the first time", lambda: overview(LocalStore(store)))
    found = shown("fleet, cold: the first answer", lambda: ask("fleet"))
    read = sum(row["read"] for row in found["rows"])
    print(f"  {read} of its {len(found['rows'])} rows complete, {found['pending']:,} pipelines being read")

    def complete() -> None:
        while ask("fleet")["pending"]:
            time.sleep(0.5)

    shown("fleet, until all pipelines are read", complete)
    warm = [
        repeated("fleet, warm", lambda: ask("fleet")),
        repeated("fleet, warm, 100 rows by performance", lambda: ask("fleet", sort="performance", limit=100)),
        repeated("fleet, warm, search", lambda: ask("fleet", search="_07")),
        repeated("attention card, warm", lambda: ask("attention")),
    ]
    name = names(pipelines)[pipelines // 2]
    repeated("pipeline head, warm", lambda: ask(f"pipelines/{name}"))
    repeated("timeline, warm", lambda: ask(f"pipelines/{name}/timeline"))
    repeated("comparison, warm", lambda: ask(f"pipelines/{name}/compare"))
    total = ask("fleet")
    if (total["total"], total["pending"], total["store_problem"]) != (pipelines, 0, None):
        print(f"the fleet is not complete: {total['total']:,} pipelines, {total['store_problem']}")
        return 1
    slowest = max(warm)
    verdict = "met" if slowest <= TARGET else "MISSED"
    print(f"target: a warm answer about the fleet within {TARGET * 1000:.0f} ms: {verdict}")
    return int(slowest > TARGET)


def shown(what: str, work: Callable[[], Any]) -> Any:
    """Do it once, and print how long it took by the clock and in processor time of this process."""
    clock, processor = time.perf_counter(), time.process_time()
    found = work()
    print_line(what, time.perf_counter() - clock, time.process_time() - processor)
    return found


def repeated(what: str, work: Callable[[], Any]) -> float:
    """Do it often; print the medians, and return that of processor time."""
    clocks, processors = [], []
    work()
    for _ in range(REPEATS):
        clock, processor = time.perf_counter(), time.process_time()
        work()
        clocks.append(time.perf_counter() - clock)
        processors.append(time.process_time() - processor)
    print_line(what, statistics.median(clocks), statistics.median(processors))
    return statistics.median(processors)


def print_line(what: str, clock: float, processor: float) -> None:
    """One line of the table."""
    print(f"{what:44}{clock * 1000:>7,.0f} ms{processor * 1000:>9,.0f} ms", flush=True)


if __name__ == "__main__":
    sys.exit(main())
