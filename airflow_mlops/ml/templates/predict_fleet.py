"""Predict with the models in this folder, each row by the one of its key: needs only what requirements.txt lists."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import one_model
from one_model import HERE, Problem, as_text, say

NEEDED = ("environment.json", "fleet.json", "models.csv", "models.zip", "one_model.py")
ENCODED = {"%": "%25", "/": "%2F", "*": "%2A"}


class Fleet:
    """The models of the bundle, by key; each is loaded when a row first needs it.

    :param trusted: further types that models may hold.
    """

    def __init__(self, trusted: list[str]) -> None:
        self.about: dict[str, Any] = json.loads((HERE / "fleet.json").read_text(encoding="utf-8"))
        with (HERE / "models.csv").open(newline="", encoding="utf-8") as table:
            self.rows = {row["key"]: row for row in csv.DictReader(table)}
        self.trusted = trusted

    def schema(self, number: str) -> dict[str, Any]:
        """The columns of the models that were trained together."""
        schema: dict[str, Any] = json.loads((HERE / f"schema-{number}.json").read_text(encoding="utf-8"))
        return schema

    def prepare(self, number: str) -> Any:
        """What is done to the rows before one of these models sees them."""
        return one_model.load(self.trusted, (HERE / f"prepare-{number}.skops").read_bytes())

    def model(self, key: str) -> Any:
        """Load the model of a key, with its sha256 checked."""
        row = self.rows[key]
        with zipfile.ZipFile(HERE / "models.zip") as models:
            data = models.read(row["file"])
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise Problem(f"the model of {key} is not the one that was handed over: nothing was loaded")
        return one_model.load(self.trusted, data)

    def columns(self) -> list[str]:
        """Columns that say which model serves a row."""
        return [*self.about["key"], *([self.about["parent"]] if self.about["parent"] else [])]

    def told(self) -> list[str]:
        """Columns that say which row of the input a prediction is of: its id, and those that say which model serves."""
        return [*([self.about["id"]] if self.about["id"] else []), *self.columns()]

    def served_by(self, frame: Any) -> list[str | None]:
        """The key of the model that serves each row: its own, else its group's, else that of all rows."""
        names = [c for c in self.about["key"] if c not in frame.columns]
        if names and len(self.rows) == 1:
            say(f"without {', '.join(names)} in the input, all rows are taken for those of {next(iter(self.rows))}")
            return [next(iter(self.rows))] * len(frame)
        if names:
            raise Problem(f"the input lacks {', '.join(names)}, which says whose model serves a row")
        own = ["/".join(encoded(v) for v in values) for values in frame[self.about["key"]].itertuples(index=False)]
        parent = self.about["parent"]
        groups = [f"{encoded(v)}/*" for v in frame[parent]] if parent in frame.columns else [""] * len(own)
        return [
            next((k for k in (key, group, "*") if k in self.rows), None) for key, group in zip(own, groups, strict=True)
        ]


def encoded(value: Any) -> str:
    """A value as it stands in a key."""
    text = as_text(value)
    for mark, code in ENCODED.items():
        text = text.replace(mark, code)
    return text


def predict(fleet: Fleet, frame: Any, kept: list[str]) -> Any:
    """Return a row for each row of ``frame``: ``kept``, which row it is, who served it, predictions."""
    import numpy as np
    import pandas as pd

    frame = frame.reset_index(drop=True)
    served = pd.Series(fleet.served_by(frame), dtype=object)
    parts: list[Any] = []
    numbers = served.map({key: row["training"] for key, row in fleet.rows.items()})
    for number, of_training in frame.groupby(numbers, sort=True):
        schema, prepare = fleet.schema(str(number)), fleet.prepare(str(number))
        rows = one_model.fit_to(schema, of_training)
        matrix = np.asarray(prepare.transform(rows), dtype=np.float64)
        places = pd.Series(np.arange(len(rows)), index=rows.index)
        for key, index in places.groupby(served[rows.index]):
            names = pd.DataFrame(
                {"model_key": key, "model_version": int(fleet.rows[key]["version"])}, index=index.index
            )
            parts.append(one_model.predict(fleet.model(str(key)), matrix[index], names, schema["positive"]))
    if not parts:
        raise Problem("no model of this bundle serves a row of the input")
    made = pd.concat(parts).reindex(frame.index)
    made["model_version"] = made["model_version"].astype("Int64")
    columns = list(dict.fromkeys([*kept, *(c for c in fleet.told() if c in frame.columns)]))
    return pd.concat([frame[columns], made], axis=1)


def run(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, epilog="Checks SHA256SUMS before it loads."
    )
    add = parser.add_argument
    add("input", type=Path, help="CSV or Parquet file; schema-1.json and fleet.json name the columns")
    add("--out", type=Path, default=Path("predictions.csv"), help="CSV to write (default: %(default)s)")
    add("--keep", action="append", default=[], metavar="COLUMN", help="copy this column of the input to the output")
    add("--trust", action="append", default=[], metavar="TYPE", help="a further type that the models may hold")
    options = parser.parse_args(arguments)
    if options.out.resolve() == options.input.resolve():
        raise Problem(f"--out {options.out} would replace the input")
    one_model.verify(NEEDED)
    one_model.warn_of_other_versions()
    fleet = Fleet(options.trust)
    schemas = [fleet.schema(number) for number in sorted({row["training"] for row in fleet.rows.values()})]
    # The id and what makes a key are text, as the categories are: 007 is not 7.
    texts = [{"name": name, "kind": "category"} for name in fleet.told()]
    frame = one_model.read(options.input, {"features": [*(f for s in schemas for f in s["features"]), *texts]})
    unknown = [c for c in options.keep if c not in frame.columns]
    if unknown:
        raise Problem(f"--keep names columns the input does not have: {', '.join(unknown)}")
    if not len(frame):
        raise Problem("the input has no rows")
    result = predict(fleet, frame, options.keep)
    # Written aside and renamed: a reader never sees half a file.
    part = options.out.with_name(options.out.name + ".part")
    result.to_csv(part, index=False)
    os.replace(part, options.out)
    lost = int(result["model_key"].isna().sum())
    models = result["model_key"].nunique()
    say(f"{len(result) - lost} predictions of {models} model{'' if models == 1 else 's'} written to {options.out}")
    if lost:
        say(f"{lost} rows have no prediction: no model of this bundle serves their key")


if __name__ == "__main__":
    try:
        run()
    except ImportError as e:
        say(f"error: {e.name or e} is not installed: pip install -r {HERE / 'requirements.txt'}")
        sys.exit(2)
    except (Problem, OSError) as e:
        say(f"error: {e}")
        sys.exit(2)
    except Exception as e:  # noqa: BLE001 - the user of a script needs the reason, not its stack
        say(f"error: {type(e).__name__}: {e}")
        sys.exit(1)
