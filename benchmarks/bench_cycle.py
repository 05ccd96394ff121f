"""What orchestration adds: the level-1 cycle in a live Airflow against a bare script that does the same work.

    python benchmarks/bench_cycle.py [--rows 1000000] [--preload]

Both read the same Parquet files, fit the same estimator with the same preprocessing, score the same
holdout and a second file of as many rows. Counted are CPU seconds with all child processes: for the
script its process; for the cycle all of Airflow (scheduler, tasks, API server, DAG processor,
triggerer) from the first run's start to the last one's end, less what the same Airflow uses while it
has nothing to do (measured for 15 s before). Threads are limited to one on both
sides, so that waiting threads are not counted as work. Each task imports its libraries, as in any
Airflow; with ``--preload`` the scheduler has imported them before LocalExecutor forks, as in the demo.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

PIPELINE = "bench_cycle"
FACTOR, A_TASK = 1.2, 3.0  # the target: 1.2 × the script plus 3 CPU s a task
WATCHED = ("validate.expectations", "monitor.quality", "monitor.drift")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
ESTIMATOR = {"max_iter": 100, "max_leaf_nodes": 31, "learning_rate": 0.1}
EXPECTATIONS = [
    {"expect_column_values_to_be_in_set": {"column": "y", "value_set": [0, 1]}},
    {"expect_column_mean_to_be_between": {"column": "y", "min_value": 0.05, "max_value": 0.6}},
    {"expect_column_values_to_be_unique": {"column": "id"}},
    {"expect_column_values_to_be_in_set": {"column": "shop", "value_set": [f"shop-{i}" for i in range(5)]}},
    {"expect_column_values_to_not_be_null": {"column": "n0"}},
    {"expect_column_values_to_be_between": {"column": "n1", "min_value": -10, "max_value": 10}},
    {"expect_column_values_to_not_be_null": {"column": "n5", "mostly": 0.9}},
]
NUMBERS = [f"n{i}" for i in range(6)]
CATEGORIES = ["shop", "article"]
FEATURES = [*NUMBERS, *CATEGORIES, "online", "age"]
WINDOWS = (("2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"), ("2025-02-01T00:00:00Z", "2025-03-01T00:00:00Z"))


def make_data(folder: Path, rows: int) -> None:
    """Write ``history/`` (with outcome) and ``new/`` (without): ``rows`` rows, ten mixed features each."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(7)
    for name, (start, _) in zip(("history", "new"), WINDOWS, strict=True):
        numbers = rng.normal(size=(rows, len(NUMBERS)))
        frame = pd.DataFrame(numbers, columns=NUMBERS)
        frame["shop"] = np.array([f"shop-{i}" for i in range(5)], dtype=object)[rng.integers(0, 5, rows)]
        frame["article"] = np.array([f"a{i:02d}" for i in range(50)], dtype=object)[rng.integers(0, 50, rows)]
        frame["online"] = rng.random(rows) < 0.3
        frame["age"] = rng.integers(18, 90, rows)
        frame.loc[rng.random(rows) < 0.05, "n5"] = np.nan
        signal = numbers[:, 0] + 0.5 * numbers[:, 1] * numbers[:, 2] + (frame["shop"] == "shop-3") + frame["online"]
        frame.insert(0, "id", [f"{name}-{i:08d}" for i in range(rows)])
        frame.insert(1, "at", pd.Timestamp(start[:10]) + pd.to_timedelta(np.linspace(0, 27, rows), unit="D"))
        if name == "history":
            frame["y"] = (rng.random(rows) < 1 / (1 + np.exp(1.5 - signal))).astype("int64")
        (folder / name).mkdir(parents=True)
        frame.to_parquet(folder / name / "part.parquet", index=False)


# --- the bare script -----------------------------------------------------------------------------


def bare(folder: Path) -> dict[str, float]:
    """Read, fit, score and predict in one process, as one would without any of this; CPU s by part."""
    marks: dict[str, float] = {}
    last = 0.0

    def done(part: str) -> None:
        nonlocal last
        now = time.process_time()
        marks[part] = now - last
        last = now

    import numpy as np
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import log_loss, roc_auc_score
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    done("imports")
    frame = pd.read_parquet(folder / "history")
    done("read")
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan)
    others = [c for c in FEATURES if c not in CATEGORIES]
    prepare = ColumnTransformer([("category", encode, CATEGORIES), ("number", "passthrough", others)])
    estimator = HistGradientBoostingClassifier(
        **ESTIMATOR, categorical_features=list(range(len(CATEGORIES))), random_state=7
    )
    model = Pipeline([("prepare", prepare), ("model", estimator)])
    train, test = train_test_split(frame, test_size=0.2, random_state=7)
    model.fit(train[FEATURES], train["y"])
    done("fit")
    proba = model.predict_proba(test[FEATURES])[:, 1]
    print(f"roc_auc {roc_auc_score(test['y'], proba):.4f}, log_loss {log_loss(test['y'], proba):.4f}", file=sys.stderr)
    done("score")
    new = pd.read_parquet(folder / "new")
    out = new[["id"]].assign(probability=model.predict_proba(new[FEATURES])[:, 1])
    out["prediction"] = (out["probability"] > 0.5).astype(int)
    out.to_parquet(folder / "bare.parquet", index=False)
    done("predict")
    check_with_great_expectations(frame, EXPECTATIONS)
    done("validate")
    own = [e for e in EXPECTATIONS if next(iter(e.values()))["column"] != "y"]
    check_with_great_expectations(new, own)
    done("quality")
    compare(frame, new, [*NUMBERS, "age"], [*CATEGORIES, "online"])
    compare(test.assign(probability=proba), out, ["probability"], [])
    done("drift")
    return marks


def check_with_great_expectations(frame: object, expectations: list[dict[str, dict[str, object]]]) -> None:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    batch = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
    suite = gx.ExpectationSuite(name="s")
    for expectation in expectations:
        ((name, arguments),) = expectation.items()
        suite.add_expectation(getattr(gx.expectations, "".join(w.title() for w in name.split("_")))(**arguments))
    context.suites.add(suite)
    check = gx.ValidationDefinition(name="v", data=batch, suite=suite)
    result = check.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY")
    if not result.success:
        raise SystemExit(f"the generated data does not meet the expectations: {result}")


def compare(reference: Any, current: Any, numbers: list[str], categories: list[str]) -> None:
    import pandas as pd
    from scipy.stats import chi2_contingency, ks_2samp, wasserstein_distance

    for name in numbers:
        a, b = reference[name].dropna(), current[name].dropna()
        wasserstein_distance(a, b)
        ks_2samp(a, b, method="asymp")
    for name in categories:
        counts = pd.concat([reference[name].value_counts(), current[name].value_counts()], axis=1).fillna(0)
        chi2_contingency(counts.T)


def measure_bare(folder: Path) -> tuple[float, dict[str, float]]:
    before = children()
    done = subprocess.run(
        [sys.executable, __file__, "--bare", str(folder)],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return children() - before, json.loads(done.stdout.splitlines()[-1])


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


# --- the cycle -------------------------------------------------------------------------------------


def pipeline_yaml() -> str:
    """The pipeline; JSON is YAML."""
    return json.dumps(
        {
            "pipeline": PIPELINE,
            "level": 1,
            "dag": {"start_date": "2025-01-01", "end_date": "2025-01-02"},
            "data": {"source": "history/*.parquet", "target": "y", "positive": 1, "id": "id", "timestamp": "at"},
            "validate": {"expectations": EXPECTATIONS},
            "train": {"estimator": "sklearn.ensemble.HistGradientBoostingClassifier", "params": ESTIMATOR},
            "evaluate": {
                "metrics": ["roc_auc", "log_loss"],
                "gates": [
                    {"metric": "roc_auc", "at_least": 0.6},
                    {"metric": "roc_auc", "versus": "champion", "not_worse_by": 0.005},
                    {"serving": {"p95_ms": 1000.0, "max_mb": 100.0, "rows": 20}},
                ],
            },
            "deploy": {"batch": {"source": "new/*.parquet", "output": "predictions/"}},
            "monitor": {"drift": {"min_rows": 1000}},
            "retrain": {"when": ["drift"]},
        },
        indent=1,
    )


class Meter:
    """CPU seconds of a family of processes: the ended ones are in their parents' children's times."""

    _TASK = re.compile(r"airflow worker -- ([0-9a-f]{8}-[0-9a-f-]{27})$")

    def __init__(self) -> None:
        self.tasks: dict[str, float] = {}  # id of a task instance → CPU s when its process was last seen

    def total(self) -> float:
        """CPU s of all child processes of this one."""
        return sum(cpu(p) for p in psutil.Process().children(recursive=True))

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Watch the tasks' processes, ten times a second, as long as the block runs."""
        stop = threading.Event()

        def sample() -> None:
            while not stop.wait(0.1):
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):
                        if found := self._TASK.search(" ".join(process.cmdline()).strip()):
                            self.tasks[found[1]] = cpu(process)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def measure_cycle(folder: Path, preload: bool) -> dict[str, Any]:
    """Run train, predict and monitor once; CPU s of all of Airflow, of it idle, and by task."""
    from airflow_mlops.demo.airflow import LiveAirflow
    from airflow_mlops.demo.story import succeed

    dags = folder / "dags"
    (dags / "pipelines").mkdir(parents=True)
    (dags / "loader.py").write_text((Path(__file__).parents[1] / "dags/loader.py").read_text())
    (dags / "pipelines" / f"{PIPELINE}.yaml").write_text(pipeline_yaml())
    env = {
        "AIRFLOW__MLOPS__STORE": (folder / "store").as_uri(),
        "AIRFLOW__MLOPS__DATA_ROOT": str(folder),
        **ONE_THREAD,
    }
    if not preload:
        # Found before the harness's own, which imports libraries into the scheduler for all tasks at once.
        (folder / "plain").mkdir()
        (folder / "plain" / "airflow_local_settings.py").touch()
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder / "plain"), os.environ.get("PYTHONPATH"))))
    names = {what: f"{PIPELINE}__{what}" for what in ("train", "predict", "monitor")}
    with LiveAirflow(folder / "airflow", dags, env=env, say=say) as live:
        live.wait_for_dags(*names.values())
        live.unpause(*names.values())
        meter = Meter()
        time.sleep(5)
        idle = -meter.total()
        time.sleep(15)
        idle = (idle + meter.total()) / 15
        before, began, tasks = meter.total(), time.monotonic(), {}
        with meter.sampled():
            for what, window in zip(("train", "predict"), WINDOWS, strict=True):
                say(f"running {names[what]}")
                run = live.trigger(names[what], {"window_start": window[0], "window_end": window[1]})
                succeed(live, names[what], run)
                tasks[what] = live.get(f"dags/{names[what]}/dagRuns/{run}/taskInstances")["task_instances"]
            say(f"running {names['monitor']}")
            while not (runs := live.get(f"dags/{names['monitor']}/dagRuns")["dag_runs"]):
                time.sleep(0.3)
            succeed(live, names["monitor"], runs[0]["dag_run_id"])
            path = f"dags/{names['monitor']}/dagRuns/{runs[0]['dag_run_id']}/taskInstances"
            tasks["monitor"] = live.get(path)["task_instances"]
        total, wall = meter.total() - before, time.monotonic() - began
    by_task = {t["task_id"]: meter.tasks.get(t["id"], 0.0) for found in tasks.values() for t in found}
    states = {t["task_id"]: t["state"] for found in tasks.values() for t in found}
    if missing := [t for t in ("promote.champion", "predict.batch", "monitor.drift") if states.get(t) != "success"]:
        raise SystemExit(f"the cycle did not do all its work: {missing} of {states}")
    return {"total": total, "wall": wall, "idle": idle, "tasks": by_task}


# --- both -------------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="What orchestration adds to the level-1 cycle.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of history and of new data, each")
    parser.add_argument(
        "--preload", action="store_true", help="let the scheduler import the libraries, as the demo does"
    )
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare(options.bare)))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-cycle-") as name:
        folder = Path(name)
        say(f"writing 2 × {options.rows:,} rows")
        make_data(folder, options.rows)
        say("running the bare script")
        script, parts = measure_bare(folder)
        say("starting Airflow")
        cycle = measure_cycle(folder, options.preload)
    show(options.rows, script, parts, cycle)
    return 0


def show(rows: int, script: float, parts: dict[str, float], cycle: dict[str, Any]) -> None:
    tasks: dict[str, float] = cycle["tasks"]
    in_tasks = sum(tasks.values())
    idle = cycle["idle"] * cycle["wall"]
    around = cycle["total"] - in_tasks - idle
    extra = parts["validate"] + parts["quality"] + parts["drift"]
    print(f"\n{rows:,} rows of history and {rows:,} new ones, {len(FEATURES)} features; CPU s, children included\n")
    line = "  {:24} {:8.1f}"
    print("bare script")
    for part, value in [*parts.items(), ("interpreter, exit", script - sum(parts.values())), ("together", script)]:
        print(line.format(part, value))
    print("\ncycle")
    for task, value in [*tasks.items(), ("Airflow around them", around), ("together", in_tasks + around)]:
        print(line.format(task, value))
    print(f"  not counted: {idle:.1f} for {cycle['wall']:.0f} s of an idle Airflow at {cycle['idle']:.2f} a second\n")
    core = [t for t in tasks if t not in WATCHED]
    ours = in_tasks + around
    lines = [
        ("with validation and drift on both sides", ours, script, len(tasks)),
        (
            "reading, fitting and scoring on both sides",
            sum(tasks[t] for t in core) + around * len(core) / len(tasks),
            script - extra,
            len(core),
        ),
        ("all of the cycle, reading, fitting and scoring of the script", ours, script - extra, len(tasks)),
    ]
    for what, ours, theirs, count in lines:
        limit = FACTOR * theirs + A_TASK * count
        holds = "holds" if ours <= limit else "DOES NOT HOLD"
        print(what)
        print(
            f"  cycle {ours:.1f}, script {theirs:.1f}: ratio {ours / theirs:.2f}; beyond 1.2 × the script: "
            f"{(ours - FACTOR * theirs) / count:.1f} a task of {count}"
        )
        print(f"  target ≤ {FACTOR} × {theirs:.1f} + {A_TASK:g} × {count} = {limit:.1f}: {holds}")


if __name__ == "__main__":
    raise SystemExit(main())
