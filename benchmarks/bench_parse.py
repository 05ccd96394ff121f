"""What pipeline files cost where Airflow parses them: the demo's folder, 100 copies of it, and plain Airflow.

    python benchmarks/bench_parse.py

Every figure is the median of ``--repeat`` fresh processes, in CPU seconds. "By hand" is one Python
file that makes DAGs of the same ids, tasks, groups, forms, schedules and dependencies with Airflow's
PythonOperator: what one would write without this package.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PIPELINES = Path(__file__).parents[1] / "dags" / "pipelines"
HEAVY = (
    "pandas",
    "numpy",
    "sklearn",
    "scipy",
    "pyarrow",
    "skops",
    "great_expectations",
    "evidently",
    "boto3",
    "mlflow",
)

TRAIN_0 = {
    "data.snapshot": [],
    "data.profile": ["data.snapshot"],
    "validate.expectations": ["data.snapshot"],
    "train.fit": ["validate.expectations"],
    "evaluate.score": ["train.fit"],
    "evaluate.gates": ["evaluate.score"],
    "approve.ask": ["evaluate.gates"],
    "promote.handover": ["approve.ask"],
}
TRAIN_1 = {
    "retrain.claim": [],
    "data.snapshot": ["retrain.claim"],
    "validate.expectations": ["data.snapshot"],
    "train.fit": ["validate.expectations"],
    "evaluate.score": ["train.fit"],
    "evaluate.gates": ["evaluate.score"],
    "promote.champion": ["evaluate.gates"],
}
MONITOR = {
    "monitor.quality": [],
    "monitor.drift": [],
    "monitor.performance": [],
    "retrain.request": ["monitor.quality", "monitor.drift", "monitor.performance"],
}
PREDICT: dict[str, list[str]] = {"predict.batch": []}
BY_HAND = {  # pipeline: {DAG: (fields of the form, tasks and what they follow)}
    "breast_cancer": {"train": (5, TRAIN_0), "predict": (4, PREDICT)},
    "flight_delays": {"train": (5, TRAIN_1), "predict": (6, PREDICT), "monitor": (4, MONITOR)},
}


def write_copies(folder: Path, copies: int) -> None:
    for file in sorted(PIPELINES.glob("*.yaml")):
        text = file.read_text()
        for number in range(copies):
            name = f"{file.stem}_{number:03d}"
            changed = re.sub(r"^pipeline: \w+", f"pipeline: {name}", text, flags=re.MULTILINE)
            (folder / f"{name}.yaml").write_text(changed)


def by_hand(copies: int) -> dict[str, object]:
    """DAGs as one would write them with Airflow alone."""
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronDataIntervalTimetable, Param, TaskGroup

    def work() -> None:
        """The function a task would call."""

    dags: dict[str, object] = {}
    for pipeline, kinds in BY_HAND.items():
        for number in range(copies):
            name = f"{pipeline}_{number:03d}"
            assets = {
                what: Asset(name=f"{name}.{what}", uri=f"x-hand://{name}/{what}")
                for what in ("data", "retrain", "predictions")
            }
            cron = CronDataIntervalTimetable("0 0 1 */3 *", timezone="UTC")
            schedules = {
                "flight_delays.train": lambda a=assets, c=cron: AssetOrTimeSchedule(
                    timetable=c, assets=a["data"] | a["retrain"]
                ),
                "flight_delays.monitor": lambda a=assets: [a["predictions"]],
            }
            for kind, (fields, tasks) in kinds.items():
                schedule = schedules.get(f"{pipeline}.{kind}", lambda: None)()
                form = {f"field_{i}": Param(None, type=["null", "string"], title=f"Field {i}") for i in range(fields)}
                with DAG(
                    f"{name}__{kind}", schedule=schedule, params=form, tags={"mlops", "level"}, doc_md="x" * 2000
                ) as dag:
                    made: dict[str, object] = {}
                    groups: dict[str, TaskGroup] = {}
                    for step, after in tasks.items():
                        group, task = step.split(".")
                        if group not in groups:
                            groups[group] = TaskGroup(group_id=group)
                        with groups[group]:
                            made[step] = PythonOperator(task_id=task, python_callable=work, doc_md="What it does.")
                        for earlier in after:
                            made[earlier] >> made[step]
                dags[dag.dag_id] = dag
    return dags


def measure(what: str, copies: int, folder: str) -> dict[str, object]:
    """In a fresh process: CPU s of one thing after Airflow's SDK has been imported, as a DAG processor has it."""
    from airflow.sdk import DAG  # noqa: F401

    shape: dict[str, object] = {}
    before = time.process_time()
    if what == "import":
        from airflow_mlops import load_dags
    elif what == "by_hand":
        dags = by_hand(copies)
    else:
        from airflow_mlops import load_dags

        dags = load_dags(folder)
    shape["seconds"] = time.process_time() - before
    if what != "import":
        shape["dags"] = len(dags)
        shape["tasks"] = {dag_id: sorted(t.task_id for t in dag.tasks) for dag_id, dag in dags.items()}
        shape["invalid"] = [dag_id for dag_id in dags if dag_id.endswith("__invalid")]
    shape["heavy"] = [name for name in HEAVY if name in sys.modules]
    return shape


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU cost of parsing pipeline files.")
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--measure", nargs=3, metavar=("WHAT", "COPIES", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, copies, folder = options.measure
        print(json.dumps(measure(what, int(copies), folder)))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-parse-") as name:
        root = Path(name)
        for copies in (1, options.copies):
            (root / str(copies)).mkdir()
            write_copies(root / str(copies), copies)

        env = os.environ | {"AIRFLOW_HOME": str(root / "home")}

        def median(what: str, copies: int) -> tuple[float, dict[str, object]]:
            command = [sys.executable, __file__, "--measure", what, str(copies), str(root / str(copies))]
            found = []
            for _ in range(options.repeat):
                # Airflow logs to stdout where it is used for the first time.
                out = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
                found.append(json.loads(out.splitlines()[-1]))
            return statistics.median(f["seconds"] for f in found), found[-1]

        imported, shape = median("import", 1)
        print(f"import load_dags, after airflow.sdk: {imported:.3f} CPU s; heavy modules: {shape['heavy'] or 'none'}")
        heavy = set(shape["heavy"])
        for copies in (1, options.copies):
            pipelines = copies * len(BY_HAND)
            ours, made = median("load", copies)
            theirs, plain = median("by_hand", copies)
            if made["invalid"] or made["tasks"] != plain["tasks"]:
                raise SystemExit(f"the two make different DAGs: {made['invalid'] or 'tasks differ'}")
            heavy |= set(made["heavy"])
            print(f"\n{pipelines} pipelines, {made['dags']} DAGs")
            print(f"  pipeline files   {ours:7.3f} CPU s, {1000 * ours / pipelines:7.1f} ms a pipeline")
            print(f"  by hand          {theirs:7.3f} CPU s, {1000 * theirs / pipelines:7.1f} ms a pipeline")
            print(f"  ratio            {ours / theirs:7.2f}")
            print(f"  heavy modules: {', '.join(made['heavy']) or 'none'}")
    return 1 if heavy else 0


if __name__ == "__main__":
    raise SystemExit(main())
