"""Predict with the model in this folder: needs only the packages in requirements.txt."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
# The types this model is made of, beside those that skops knows; set when the bundle was written.
TRUSTED: tuple[str, ...] = ()
# What a signed statement about a model begins with.
SIGNED = b"airflow-mlops model, statement version 1\n"
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>"]
BOOLEANS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0}


class Problem(Exception):
    """Something the user can put right; printed without a traceback."""


def sha256(path: Path) -> str:
    """Return the sha256 of a file, without holding it in memory."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def verify(needed: tuple[str, ...] = ("model.skops", "schema.json", "environment.json")) -> None:
    """Compare every file of the bundle with SHA256SUMS before one of them is used."""
    sums = HERE / "SHA256SUMS"
    if not sums.is_file():
        raise Problem(f"{sums} is missing: unzip the whole bundle again")
    listed = {}
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    for name in sorted(set(needed) - set(listed)):
        raise Problem(f"SHA256SUMS does not list {name}: this bundle has been changed")
    for name, digest in listed.items():
        path = HERE / name
        if not path.is_file():
            raise Problem(f"{name} is missing: unzip the whole bundle again")
        if sha256(path) != digest:
            raise Problem(f"{name} is not the file that was handed over (its sha256 differs): nothing was loaded")


def verify_signature(trusted: str | None) -> None:
    """Check who signed the model; ``trusted`` is the public key it must be signed with, or None."""
    path = HERE / "signature.json"
    if not path.is_file():
        if trusted:
            raise Problem("the model in this bundle is not signed: nothing was loaded")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    public = found["public_key"]
    if trusted and trusted != public:
        raise Problem(f"the model is signed with another key ({public}): nothing was loaded")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        if trusted:
            raise Problem("--key needs the package cryptography: pip install cryptography") from None
        say("the signature of the model was not checked: cryptography is not installed")
        return
    statement = found["statement"].encode()
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(found["value"], validate=True), statement)
        signed = json.loads(statement.removeprefix(SIGNED))["digest"]
    except (InvalidSignature, KeyError, ValueError):
        raise Problem("the signature of the model is not valid: nothing was loaded") from None
    if sha256(HERE / "model.skops") != signed:
        raise Problem("the signature is that of another model: nothing was loaded")
    # The key came with the bundle: it proves something only to who knows it from elsewhere.
    say(f"the model is signed with {public}" + ("" if trusted else "; to insist on that key: --key"))


def warn_of_other_versions() -> None:
    """Say where this environment differs from the one the model was made with."""
    made = json.loads((HERE / "environment.json").read_text(encoding="utf-8"))
    here = {"Python": platform.python_version()}
    there = {"Python": made["python"]}
    for name, version in made["requirements"].items():
        there[name] = version
        try:
            here[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise Problem(f"{name} is not installed: pip install -r {HERE / 'requirements.txt'}") from None
    for name, version in there.items():
        if version.split(".")[:2] != here[name].split(".")[:2]:
            say(f"warning: the model was made with {name} {version}, this is {here[name]}; results may differ")


def say(text: str) -> None:
    """Messages go to stderr; stdout is for results."""
    sys.stderr.write(f"predict.py: {text}\n")


def read(path: Path, schema: dict[str, Any]) -> Any:
    """Return the rows of a CSV or Parquet file as a DataFrame."""
    import pandas as pd

    if not path.is_file():
        raise Problem(f"there is no file {path}")
    if path.suffix.lower() in (".parquet", ".pq"):
        try:
            return pd.read_parquet(path)
        except ImportError:
            raise Problem("reading Parquet needs pyarrow: pip install pyarrow, or give a CSV file") from None
        except Exception as e:
            raise Problem(f"{path} cannot be read as Parquet: {e}") from e
    # A category such as 007 or NA is text: it must be neither a number nor missing.
    kinds = {f["name"]: f["kind"] for f in schema["features"]}
    try:
        names = list(pd.read_csv(path, nrows=0).columns)
        return pd.read_csv(
            path,
            dtype={n: "object" for n in names if kinds.get(n) in ("category", "boolean")},
            keep_default_na=False,
            na_values={n: [""] if kinds.get(n) == "category" else MISSING for n in names},
            float_precision="round_trip",
        )
    except Exception as e:
        raise Problem(f"{path} cannot be read as CSV: {e}") from e


def fit_to(schema: dict[str, Any], frame: Any) -> Any:
    """Return the columns the model needs, in its order and types."""
    import pandas as pd

    names = [f["name"] for f in schema["features"]]
    lacking = [n for n in names if n not in frame.columns]
    if lacking:
        has = ", ".join(map(str, frame.columns))
        raise Problem(f"the input lacks {len(lacking)} column(s): {', '.join(lacking)}; it has: {has}")
    if not len(frame):
        raise Problem("the input has no rows")
    columns = {}
    for feature in schema["features"]:
        name, values = feature["name"], frame[feature["name"]].astype(object)
        if feature["kind"] == "category":
            values = values.map(as_text, na_action="ignore")
            columns[name] = values.where(values.notna() & (values != ""), float("nan"))
            continue
        if feature["kind"] == "number":
            made = pd.to_numeric(values, errors="coerce").astype("float64")
        else:
            made = values.map(lambda v: BOOLEANS.get(str(v).strip().lower()), na_action="ignore").astype("float64")
        bad = (made.isna() & values.notna() & (values.astype(str).str.strip() != "")) | made.abs().eq(float("inf"))
        if bad.any():
            row = int(bad.to_numpy().argmax())
            what = "a number" if feature["kind"] == "number" else "true or false"
            raise Problem(
                f"column {name} must hold {what}; {int(bad.sum())} row(s) do not, the first is row {row + 1}"
                + ("" if feature.get("private") else f": {values.iloc[row]!r}")
            )
        columns[name] = made
    return pd.DataFrame(columns, index=frame.index, columns=names)


def as_text(value: Any) -> str:
    """Write a category as text; 7.0 is 7, as where a missing value turned whole numbers into floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def load(trusted: list[str], data: bytes | None = None) -> Any:
    """Load the model, or that of ``data``; nothing is built when it holds a type that is not trusted."""
    import skops.io

    path = HERE / "model.skops"
    allowed = {*TRUSTED, *trusted}
    types = skops.io.get_untrusted_types(file=path) if data is None else skops.io.get_untrusted_types(data=data)
    refused = sorted(set(types) - allowed)
    if refused:
        options = " ".join(f"--trust {t}" for t in refused)
        raise Problem(f"the model holds types that are not scikit-learn's; if you know them, add: {options}")
    return skops.io.load(path, trusted=types) if data is None else skops.io.loads(data, trusted=types)


def predict(model: Any, rows: Any, kept: Any, positive: Any) -> Any:
    """Return ``kept`` with the prediction and, where the model gives them, probabilities or scores.

    Two classes: ``probability`` (or ``score``) of the positive one; more: ``probability_<class>`` for each.
    """
    result = kept.copy()
    result["prediction"] = model.predict(rows)
    classes = list(getattr(model, "classes_", []))
    second = len(classes) == 2 and (positive is None or classes[1] == positive)
    if hasattr(model, "predict_proba"):
        columns = dict(zip(classes, model.predict_proba(rows).T, strict=True))
        if len(classes) == 2:
            result["probability"] = columns[classes[1] if second else classes[0]]
        else:
            for label, values in columns.items():
                result[f"probability_{label}"] = values
    elif hasattr(model, "decision_function") and len(classes) == 2:
        result["score"] = model.decision_function(rows) * (1 if second else -1)
    return result


def run(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="predict.py", description=__doc__, epilog="Checks SHA256SUMS before it loads."
    )
    add = parser.add_argument
    add("input", type=Path, help="CSV or Parquet file; schema.json names the columns")
    add("--out", type=Path, default=Path("predictions.csv"), help="CSV to write (default: %(default)s)")
    add("--keep", action="append", default=[], metavar="COLUMN", help="copy this column of the input to the output")
    add("--trust", action="append", default=[], metavar="TYPE", help="a further type that the model may hold")
    add("--key", metavar="BASE64", help="the public key that the model must be signed with")
    options = parser.parse_args(arguments)
    if options.out.resolve() == options.input.resolve():
        raise Problem(f"--out {options.out} would replace the input")
    verify()
    verify_signature(options.key)
    warn_of_other_versions()
    schema = json.loads((HERE / "schema.json").read_text(encoding="utf-8"))
    frame = read(options.input, schema)
    unknown = [c for c in options.keep if c not in frame.columns]
    if unknown:
        raise Problem(f"--keep names columns the input does not have: {', '.join(unknown)}")
    rows = fit_to(schema, frame)
    result = predict(load(options.trust), rows, frame[options.keep], schema["positive"])
    # Written aside and renamed: a reader never sees half a file.
    part = options.out.with_name(options.out.name + ".part")
    result.to_csv(part, index=False)
    os.replace(part, options.out)
    say(f"{len(result)} predictions written to {options.out}")


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
