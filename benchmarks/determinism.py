"""Which of scikit-learn's estimators give the same model, to the last bit, in every process.

    python benchmarks/determinism.py                 # writes docs/reference/determinism.md
    python benchmarks/determinism.py --check         # the same, and exit code 1 where the page says something else

Each classifier and regressor of the catalogue that can be built without arguments is trained as a pipeline
trains it, on the same rows with the same seed, in processes that differ in PYTHONHASHSEED and in the number of
threads of OpenMP and BLAS. Compared are the bytes of the model file and of the predictions.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "reference" / "determinism.md"
CATALOGUE = REPOSITORY / "airflow_mlops" / "config" / "catalogue.json"

ROWS = 2_000
NUMBERS = 20
SEED = 7
PROCESSES = ({"threads": 1, "hash": 1}, {"threads": 1, "hash": 2}, {"threads": 2, "hash": 3})
"""The first two differ in the hash seed alone, the third one also in the number of threads."""

HEAD = """\
# Which estimators train the same way twice

`airflow mlops rerun` trains a version again and compares it to the last bit. That can only hold where the estimator
gives the same model for the same rows, parameters and seed. This page is written by a run of
`python benchmarks/determinism.py`: each classifier and regressor that can be built without arguments was trained as a
pipeline trains it, on {rows:,} rows of {numbers} numbers and a category, some values missing, with seed {seed}; in
three processes with three values of `PYTHONHASHSEED`. Two had one thread, the third had two (`OMP_NUM_THREADS`).
The few that cannot take all columns were given the numbers alone, or one of them.

Measured with Python {python}, scikit-learn {sklearn}, numpy {numpy}, scipy {scipy} on {machine}. Other versions,
another kind of processor, or many more rows may give other last digits; `rerun` lists other versions under `env`.
"""
GROUPS = {
    "always": (
        "## Same bytes, whatever the number of threads",
        "Model file and predictions had the same bytes in all three processes.",
    ),
    "bytes": (
        "## Same predictions, whatever the number of threads; same bytes with the same number",
        "Predictions had the same bytes in all three processes. The model file differs with the number of threads, "
        "which\nmay be all that differs in it: histogram gradient boosting keeps that number.",
    ),
    "threads": (
        "## Same bytes with the same number of threads",
        "With another number of threads, numbers are added in another order, and last digits differ. Machines with\n"
        "another number of cores have another number of threads: set `OMP_NUM_THREADS` on the workers that train,\n"
        "and where models are trained again.",
    ),
    "predictions": (
        "## Same predictions, other bytes",
        "The model file holds something that differs from process to process; predictions had the same bytes.",
    ),
    "never": ("## Not the same", "Two processes with the same number of threads gave other predictions."),
}
EMPTY = "None was found."
LEFT_OUT = "## Not looked at"


def estimators() -> dict[str, str]:
    """Kind of every estimator of the catalogue that predicts and can be built without arguments."""
    found = json.loads(CATALOGUE.read_text())["estimators"]
    return {
        name: about["kind"]
        for name, about in sorted(found.items())
        if about["kind"] in ("classifier", "regressor") and not about["required"]
    }


def table(rows: int, numbers: int) -> Any:
    """A frame with numbers, a category, gaps, a label of two classes and a number to predict."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(11)
    values = random.normal(size=(rows, numbers))
    frame = pd.DataFrame(values, columns=[f"x{i}" for i in range(numbers)])
    frame["kind"] = random.choice(["a", "b", "c", "d"], rows)
    score = values[:, :5].sum(axis=1) + (frame["kind"] == "a") * 1.5 + random.normal(size=rows)
    frame["late"] = (score > 0.4).astype(int)
    frame["minutes"] = np.exp(score / 4)
    frame.loc[::17, "x1"] = np.nan
    frame.loc[::19, "kind"] = None
    return frame


def fit(names: Iterable[str], rows: int, numbers: int) -> Iterator[dict[str, str]]:
    """Train in this process; ``{"name", "model", "predictions"}`` (sha256), or ``{"name", "why"}`` where it cannot."""
    import numpy as np

    from airflow_mlops.config.models import Data, Train
    from airflow_mlops.exceptions import MLOpsError
    from airflow_mlops.ml.features import infer_schema
    from airflow_mlops.ml.training import train
    from airflow_mlops.registry.artifacts import dump_model

    def once(name: str, target: str, left_out: list[str]) -> dict[str, str]:
        data = Data(source="-", target=target, exclude=left_out)
        schema = infer_schema(part, data)
        made = train(part, part[target], schema, Train(estimator=name, seed=SEED), log=lambda _: None)
        given, said = made.schema.check(rest), io.BytesIO()
        scores = next((m for m in ("predict_proba", "decision_function") if hasattr(made.model, m)), "predict")
        for method in dict.fromkeys(("predict", scores)):
            np.save(said, getattr(made.model, method)(given), allow_pickle=False)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.skops")
            dump_model(made.model, path)
            model = hashlib.sha256(path.read_bytes()).hexdigest()
        return {"name": name, "model": model, "predictions": hashlib.sha256(said.getvalue()).hexdigest()}

    kinds, frame = estimators(), table(rows, numbers)
    part, rest = frame.iloc[: rows * 3 // 4], frame.iloc[rows * 3 // 4 :]
    columns = [c for c in frame if c not in ("late", "minutes")]
    for name in names:
        target, other = ("late", "minutes") if kinds[name] == "classifier" else ("minutes", "late")
        why = ""
        # Some take no columns that add up to one, and some take a single column.
        for left_out in ([], ["kind"], columns[1:]):
            try:
                yield once(name, target, [other, *left_out])
                break
            except Exception as e:  # noqa: BLE001 - whatever keeps it from predicting is printed
                why = why or (e.message if isinstance(e, MLOpsError) else f"{type(e).__name__}: {e}").splitlines()[0]
        else:
            yield {"name": name, "why": why}


def processes(names: list[str], *, rows: int = ROWS, numbers: int = NUMBERS) -> list[dict[str, dict[str, str]]]:
    """Train in each of ``PROCESSES``; results by name."""
    found = []
    for settings in PROCESSES:
        # BLAS libraries that do not ask OpenMP's variable have one of their own.
        threads = {f"{which}_NUM_THREADS": str(settings["threads"]) for which in ("OMP", "OPENBLAS", "MKL")}
        command = [sys.executable, __file__, "--fit", *names, "--rows", str(rows), "--numbers", str(numbers)]
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | threads | {"PYTHONHASHSEED": str(settings["hash"]), "PYTHONWARNINGS": "ignore"},
        )
        found.append({r["name"]: r for r in map(json.loads, done.stdout.splitlines())})
    return found


def group(runs: list[dict[str, str]]) -> str:
    """Which of ``GROUPS`` an estimator belongs to, or ``left out``."""
    if any("why" in run for run in runs):
        return "left out"
    one, again, threads = runs
    if one == again:
        if one == threads:
            return "always"
        return "bytes" if one["predictions"] == threads["predictions"] else "threads"
    return "predictions" if one["predictions"] == again["predictions"] == threads["predictions"] else "never"


def page(found: list[dict[str, dict[str, str]]]) -> str:
    """The reference page, in Markdown."""
    groups: dict[str, list[str]] = {}
    for name in found[0]:
        groups.setdefault(group([run[name] for run in found]), []).append(name)
    parts = [
        HEAD.format(
            rows=ROWS, numbers=NUMBERS, seed=SEED, python=platform.python_version(), machine=platform.machine(),
            sklearn=version("scikit-learn"), numpy=version("numpy"), scipy=version("scipy"),
        )
    ]  # fmt: skip
    for key, (title, text) in GROUPS.items():
        names = groups.get(key, [])
        parts += [f"{title}: {len(names)}", "", text if names else EMPTY, ""]
        parts += [*(f"- `{name}`" for name in names), ""] if names else []
    left = groups.get("left out", [])
    parts += [f"{LEFT_OUT}: {len(left)}", ""]
    parts += ["They cannot be trained on this table, with their defaults.", ""]
    why = {name: next(run[name]["why"] for run in found if "why" in run[name]) for name in left}
    parts += [f"- `{name}`: {_short(reason.removeprefix(f'{name} failed: '))}" for name, reason in why.items()]
    return "\n".join(parts) + "\n"


def _short(reason: str) -> str:
    text = " ".join(reason.split()).replace("|", "¦")
    return text if len(text) <= 160 else text[:157] + " …"


def main() -> int:
    """Write or check the page, or train for another process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page differs")
    parser.add_argument("--fit", nargs="*", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=ROWS, help=argparse.SUPPRESS)
    parser.add_argument("--numbers", type=int, default=NUMBERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit is not None:
        for result in fit(options.fit, options.rows, options.numbers):
            print(json.dumps(result), flush=True)
        return 0
    text = page(processes(list(estimators())))
    if options.check:
        same = PAGE.read_text() == text
        print("the page is as measured" if same else f"{PAGE} says something else")
        return 0 if same else 1
    PAGE.write_text(text)
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
