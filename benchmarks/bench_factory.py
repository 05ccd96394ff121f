"""What pipeline files cost where Airflow parses them, against plain Python and dag-factory making the same DAGs.

    python benchmarks/bench_factory.py
    python benchmarks/bench_factory.py --pipelines 100 --repeat 3

Needs dag-factory: ``pip install -c constraints.txt -e '.[bench]'``. Each figure is the median of
``--repeat`` fresh processes, in CPU seconds; the sides take turns, so that a slow minute of the machine
meets all of them. The exit code is 1 when a target is missed or something heavy was imported.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import same_dags

PIPELINES = Path(__file__).parents[1] / "dags" / "pipelines"
LOADER = 'from airflow_mlops import load_dags  # airflow, dag\n\nglobals().update(load_dags("pipelines"))\n'
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
OF_BY_HAND = 1.5
OF_ONE = 1.2
SIDES = {
    "by hand": "plain Python",
    "by hand, late": "plain Python, form set last",
    "files": "pipeline files",
    "dag-factory": "dag-factory",
}

Figures = dict[str, Any]


# --- in a fresh process --------------------------------------------------------------------------


def parse(side: str, count: int, root: Path) -> Figures:
    """CPU s of making the DAGs of ``count`` pipelines, when the libraries are imported and have been used once."""
    recipe = json.loads((root / "recipe.json").read_text())
    make: dict[str, Callable[[str, int], dict[str, Any]]] = {
        "files": lambda which, n: _load(root / which / "pipelines"),
        "by hand": lambda which, n: same_dags.by_hand(recipe, n),
        "by hand, late": lambda which, n: same_dags.by_hand(recipe, n, late=True),
        "dag-factory": lambda which, n: _dag_factory(root / which / "dag-factory"),
    }
    make[side]("one", len(recipe))
    # As the dag processor does before it forks: its own imports are not searched for garbage while DAGs are made.
    gc.collect()
    gc.freeze()
    before = time.process_time()
    dags = make[side]("many", count)
    return {
        "seconds": time.process_time() - before,
        "dags": {name: same_dags.digest(dag) for name, dag in dags.items()},
        "tasks": sum(len(dag.tasks) for dag in dags.values()),
        "pages": sum(len(dag.doc_md) for dag in dags.values()),
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


def _load(folder: Path) -> dict[str, Any]:
    from airflow_mlops import load_dags

    return load_dags(folder)


def _dag_factory(folder: Path) -> dict[str, Any]:
    from airflow.sdk import DAG
    from dagfactory import load_yaml_dags

    found: dict[str, Any] = {}
    load_yaml_dags(found, dags_folder=str(folder), defaults_config_path=str(folder))
    return {name: dag for name, dag in found.items() if isinstance(dag, DAG)}


def start(dag_id: str, folder: Path) -> Figures:
    """CPU s until a task has its DAG, with Airflow's own steps (airflow.sdk.execution_time.task_runner.parse)."""
    import airflow.sdk  # noqa: F401

    imported = time.process_time()
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager

    with _airflow_parsing_context_manager(dag_id=dag_id, task_id="data.snapshot"):
        before = time.process_time()
        bag = BundleDagBag(
            dag_folder=str(folder / "loader.py"),
            safe_mode=False,
            load_op_links=False,
            bundle_path=folder,
            bundle_name="dags-folder",
        )
        after = time.process_time()
        task = bag.dags[dag_id].task_dict["data.snapshot"]
    return {
        "whole": after,
        "since import": after - imported,
        "parse": after - before,
        "dags": len(bag.dags),
        "task": task.task_id,
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


# --- preparation and report ----------------------------------------------------------------------


def write_files(recipe: dict[str, Any], count: int, root: Path) -> None:
    """``count`` copies of the demo's pipeline files and of dag-factory's, and a loader."""
    (root / "pipelines").mkdir(parents=True)
    (root / "dag-factory").mkdir()
    (root / "loader.py").write_text(LOADER)
    for name, kind, _ in same_dags.copies(recipe, count):
        text = (PIPELINES / f"{kind}.yaml").read_text("utf-8")
        changed = re.sub(r"^pipeline: \w+", f"pipeline: {name}", text, flags=re.MULTILINE)
        (root / "pipelines" / f"{name}.yaml").write_text(changed)
    same_dags.write_dag_factory(recipe, count, root / "dag-factory")


def differences(side: str, made: Figures, ours: Figures) -> str:
    """What tells the DAGs of a side from ours."""
    if made["dags"].keys() != ours["dags"].keys():
        return f"{side} makes {len(made['dags'])} DAGs, not the same {len(ours['dags'])}"
    if wrong := [name for name, digest in ours["dags"].items() if made["dags"][name] != digest]:
        return f"{side} makes {wrong[0]} and {len(wrong) - 1} more in another way"
    if made["pages"] < 0.97 * ours["pages"]:
        return f"{side} gives the DAGs shorter pages: {made['pages']} characters, not {ours['pages']}"
    return ""


class Bench:
    def __init__(self, root: Path, repeat: int) -> None:
        self.repeat = repeat
        # Neither side shall write a line of log for every file; dag-factory shall not call home.
        own = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
        self.env = own | {
            "AIRFLOW_HOME": str(root / "home"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(root),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False",
            "DO_NOT_TRACK": "1",
        }

    def once(self, *arguments: object) -> Figures:
        command = [sys.executable, "-W", "ignore", __file__, "--measure", *map(str, arguments)]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{arguments} failed:\n{done.stderr[-3000:]}")
        # Airflow logs to stdout where it is used for the first time.
        return json.loads(done.stdout.splitlines()[-1])

    def in_turn(self, sides: dict[str, tuple[object, ...]]) -> dict[str, list[Figures]]:
        found: dict[str, list[Figures]] = {side: [] for side in sides}
        for _ in range(self.repeat):
            for side, arguments in sides.items():
                found[side].append(self.once(*arguments))
        return found


def median(figures: list[Figures], key: str) -> float:
    return statistics.median(f[key] for f in figures)


def compare_parsing(bench: Bench, count: int, root: Path) -> bool:
    found = bench.in_turn({side: ("parse", side, count, root) for side in SIDES})
    ours = found["files"][-1]
    for side in SIDES:
        if wrong := differences(side, found[side][-1], ours):
            raise SystemExit(wrong)
    print(f"{count:,} pipelines: {len(ours['dags']):,} DAGs with {ours['tasks']:,} tasks, the same on every side")
    hand = median(found["by hand"], "seconds")
    for side, what in SIDES.items():
        seconds = median(found[side], "seconds")
        spread = sorted(f["seconds"] for f in found[side])
        print(
            f"  {what:28}{seconds:6.2f} s ({spread[0]:.2f} … {spread[-1]:.2f})"
            f"{1000 * seconds / count:6.1f} ms each {seconds / hand:5.2f} x"
        )
    ratio = median(found["files"], "seconds") / hand
    heavy = sorted({name for f in found["files"] for name in f["heavy"]})
    print(f"  target: at most {OF_BY_HAND} x plain Python: {'met' if ratio <= OF_BY_HAND else 'missed'}")
    print(f"  heavy modules imported by pipeline files: {', '.join(heavy) or 'none'}")
    return ratio <= OF_BY_HAND and not heavy


def compare_starts(bench: Bench, count: int, root: Path, dag_id: str) -> bool:
    found = bench.in_turn({which: ("start", dag_id, root / which) for which in ("single", "many", "renamed")})
    print(f"\nStart of a task: its DAG in a project of one pipeline, in one of {count:,} (a),")
    print("and in one whose files have other names than their pipelines (b)")
    print(f"  {'CPU s':32}{'one':>7}{'a':>7}{'b':>7}   ratios")
    ratios = [0.0, 0.0]
    for key, what in (
        ("whole", "the whole process"),
        ("parse", "reading the loader"),
        ("since import", "all after `import airflow.sdk`"),
    ):
        one, many, renamed = (median(found[which], key) for which in ("single", "many", "renamed"))
        ratios = [many / one, renamed / one]
        print(f"  {what:32}{one:7.3f}{many:7.3f}{renamed:7.3f}   {ratios[0]:.2f} x  {ratios[1]:.2f} x")
    met = max(ratios) <= OF_ONE
    print(f"  target: at most {OF_ONE} x after the import: {'met' if met else 'missed'}")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU cost of parsing pipeline files.")
    parser.add_argument("--pipelines", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, *rest = options.measure
        if what == "recipe":
            print(json.dumps(same_dags.recipes(PIPELINES)))
        elif what == "parse":
            print(json.dumps(parse(rest[0], int(rest[1]), Path(rest[2]))))
        else:
            print(json.dumps(start(rest[0], Path(rest[1]))))
        return 0
    if importlib.util.find_spec("dagfactory") is None:
        print("dag-factory is missing: pip install -c constraints.txt -e '.[bench]'", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="bench-factory-") as name:
        root = Path(name)
        bench = Bench(root, options.repeat)
        recipe = bench.once("recipe")
        (root / "recipe.json").write_text(json.dumps(recipe))
        kinds = list(recipe)
        write_files(recipe, len(kinds), root / "one")
        write_files(recipe, options.pipelines, root / "many")
        parsing = compare_parsing(bench, options.pipelines, root)
        middle = f"{kinds[-1]}_{options.pipelines // len(kinds) // 2:04d}"
        for project in ("single", "renamed"):
            (root / project / "pipelines").mkdir(parents=True)
            (root / project / "loader.py").write_text(LOADER)
        shutil.copy(root / "many" / "pipelines" / f"{middle}.yaml", root / "single" / "pipelines")
        for number, file in enumerate((root / "many" / "pipelines").iterdir()):
            shutil.copy(file, root / "renamed" / "pipelines" / f"file_{number}.yaml")
        starting = compare_starts(bench, options.pipelines, root, f"{middle}__train")
    return 0 if parsing and starting else 1


if __name__ == "__main__":
    raise SystemExit(main())
