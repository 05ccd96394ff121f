"""Level 0's handover: one zip with the model and all it takes to use it without Airflow and without this package."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_mlops.exceptions import TrainingError
from airflow_mlops.ml.card import predict_command
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.registry.artifacts import TRUSTED_TYPES, foreign_types, untrusted_types

SCRIPT = Path(__file__).parent / "templates" / "predict.py"
_NEEDED = ("scikit-learn", "skops", "numpy", "pandas", "scipy")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold: equal contents give equal bytes
_SAMPLE_ROWS = 20


def write_bundle(
    path_zip: Path,
    *,
    model_path: Path,
    record: dict[str, Any],
    schema: FeatureSchema,
    sample: pd.DataFrame,
    card_md: str,
    card_html: str,
    signature: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the bundle; the same arguments in the same environment give the same bytes.

    :param model_path: the model's skops file.
    :param record: the version's record; its environment's package versions become the requirements.
    :param sample: rows with the schema's columns; the first 20 go into ``sample_input.csv``.
    :param signature: what :meth:`airflow_mlops.registry.signing.Verifier.evidence` returned, of a signed model.
    :return: ``{"digest": sha256 of the zip, "files": {name: sha256}, "command": how to predict with it}``.
    :raises PredictionError: when the sample does not fit the schema.
    :raises TrainingError: when a package the model needs is not installed here.
    """
    types = untrusted_types(model_path)
    foreign = foreign_types(model_path)
    requirements = requirements_of(record, foreign)
    environment = {
        **record.get("model", {}).get("environment", {"python": platform.python_version()}),
        "requirements": requirements,
    }
    contents: dict[str, bytes] = {
        "MODEL_CARD.md": card_md.encode(),
        "MODEL_CARD.html": card_html.encode(),
        "schema.json": json_bytes(schema.to_dict()),
        "sample_input.csv": schema.check(sample.head(_SAMPLE_ROWS)).to_csv(index=False, lineterminator="\n").encode(),
        "requirements.txt": "".join(f"{n}=={v}\n" for n, v in requirements.items()).encode(),
        "environment.json": json_bytes(environment),
        "predict.py": trusting(types),
        **({"signature.json": json_bytes(signature)} if signature else {}),
    }
    made = write_zip(path_zip, {**contents, "model.skops": model_path})
    return {**made, "command": predict_command(foreign)}


def trusting(types: Sequence[str]) -> bytes:
    """The script that predicts with one model, where the model holds ``types``; it trusts those that are known here."""
    marker = "TRUSTED: tuple[str, ...] = ()"
    trusted = tuple(sorted(set(types) & set(TRUSTED_TYPES)))
    return SCRIPT.read_text(encoding="utf-8").replace(marker, f"TRUSTED: tuple[str, ...] = {trusted!r}").encode()


def write_zip(path_zip: Path, contents: Mapping[str, bytes | Path]) -> dict[str, Any]:
    """Write files, by name, and ``SHA256SUMS`` of them into a zip, whole or not at all; equal ones give equal bytes.

    :return: ``{"digest": sha256 of the zip, "files": {name: sha256}}``.
    """
    files = {
        name: _digest(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
        for name, data in contents.items()
    }
    sums = "".join(f"{files[name]}  {name}\n" for name in sorted(files)).encode()
    part = path_zip.with_name(path_zip.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, data in sorted({**contents, "SHA256SUMS": sums}.items()):
                _add(bundle, name, data.open("rb") if isinstance(data, Path) else io.BytesIO(data))
        os.replace(part, path_zip)
    finally:
        part.unlink(missing_ok=True)
    return {"digest": _digest(path_zip), "files": files}


def requirements_of(record: dict[str, Any], foreign: Sequence[str]) -> dict[str, str]:
    """Exact versions: those the model was made with where recorded, else those installed here."""
    recorded = record.get("model", {}).get("environment", {}).get("packages", {})
    by_module = metadata.packages_distributions()
    # Own code that belongs to no distribution cannot be required; its types are named in the command.
    modules = {t.partition(".")[0] for t in foreign} - sys.stdlib_module_names
    owners = {distribution for module in modules for distribution in by_module.get(module, ())}
    result = {}
    for name in (*_NEEDED, *sorted(owners - set(_NEEDED))):
        try:
            result[name] = recorded.get(name) or metadata.version(name)
        except metadata.PackageNotFoundError as e:
            raise TrainingError(f"the model needs {name}, which is not installed here", hint=f"install {name}") from e
    return result


def _add(bundle: zipfile.ZipFile, name: str, source: io.BufferedIOBase | io.BytesIO) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o755 if name == "predict.py" else 0o644) << 16
    info.create_system = 3  # Unix, whatever writes it
    with source, bundle.open(info, "w", force_zip64=True) as target:
        while block := source.read(1 << 20):
            target.write(block)


def json_bytes(value: Any) -> bytes:
    """Plain JSON as a person reads it; equal values give equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
