"""The handover of a fleet: one zip with its champions, and all it takes to use them without this package.

Files: ``predict.py`` and ``one_model.py`` (what it shares with the bundle of one model), ``models.zip`` (a skops file
for each model), ``models.csv`` (a row for each: ``key``, ``version``, ``training``, ``file``, ``sha256``,
``train_rows``, ``holdout_rows``), ``prepare-N.skops`` and ``schema-N.json`` (of the models of training N),
``fleet.json``, ``sample_input.csv``, ``requirements.txt``, ``environment.json``, ``README.md``, ``SHA256SUMS``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import ConfigError, ObjectNotFound, UntrustedArtifact
from airflow_mlops.ml.bundle import SCRIPT, json_bytes, requirements_of, trusting, write_zip
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.card import predict_command
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.fleet.keys import ALL, key_of
from airflow_mlops.ml.privacy import masked
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.registry.artifacts import fetch_model_file, fetch_model_files, foreign_types, untrusted_types
from airflow_mlops.registry.packs import PACK
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.base import Store

FLEET_SCRIPT = SCRIPT.with_name("predict_fleet.py")
SAMPLE = "sample_input.csv"
_SAMPLE_ROWS = 20
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: equal models give equal bytes
_COLUMNS = ("key", "version", "training", "file", "sha256", "train_rows", "holdout_rows")

_README = """\
# {title}

{description}

{models} of version {versions}. Each row is predicted by the model of its key ({key}){parents}.

    pip install -r requirements.txt
    {command}

`predict.py` checks every file against `SHA256SUMS` before it loads one, and each model against `models.csv`, in which
they are listed with their key, version and rows. The models lie in `models.zip`, as skops files; before each of them
comes the preparation of its training (`prepare-1.skops` and so on), which takes the columns of `schema-1.json`.
{notes}
"""


@dataclass(frozen=True)
class FleetHandover:
    """What a fleet's bundle is: its sha256, how many models it has, and the command that uses it."""

    digest: str
    models: int
    command: str


def make_fleet_bundle(
    store: Store,
    registry: Registry,
    path: Path,
    *,
    keys: Collection[str] | None = None,
    verifier: Verifier | None = None,
    allowed_imports: Sequence[str] = (),
) -> FleetHandover:
    """Write the champions of a fleet to the zip file ``path``; the same ones give the same bytes.

    :param keys: whose champions; ``None``: of all, parents included.
    :param verifier: whose signatures count: each model is checked before it goes into the bundle.
    :param allowed_imports: from which feature code may come, for the rows of ``sample_input.csv``.
    :raises ConfigError: a key has no champion, or there is none at all.
    :raises UntrustedArtifact: a signature is missing or wrong, or a champion was taken in from elsewhere.
    :raises TrainingError: the environment lacks a package that the models need.
    """
    found = registry.champions(keys)
    if missing := sorted(set(keys or ()) - {str(key) for key in found}):
        raise ConfigError(f"{registry.pipeline} has no champion for {missing[0]!r}", hint=_hint(registry))
    versions = {str(key): version for key, version in found.items() if key is not None}
    if not versions:
        raise ConfigError(f"{registry.pipeline} has no models with keys to hand over", hint=_hint(registry))
    for version in versions.values():
        if version.record["model"].get("format") != PACK:
            raise UntrustedArtifact(
                f"{version.name} was taken in from elsewhere; a fleet's bundle holds models that a fleet trained",
                hint="train this key again, or leave it out",
            )
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        return _write(store, registry.pipeline, versions, path, Path(folder), verifier, allowed_imports)


def _hint(registry: Registry) -> str:
    return f"airflow mlops fleet status {registry.pipeline} tells which keys have models"


def _write(
    store: Store,
    pipeline: str,
    versions: Mapping[str, Version],
    path: Path,
    folder: Path,
    verifier: Verifier | None,
    allowed_imports: Sequence[str],
) -> FleetHandover:
    # Champions of one fleet can come from several trainings, each with a preparation of its own.
    trainings = {of: n for n, of in enumerate(sorted({v.record["of"] for v in versions.values()}), 1)}
    first = {v.record["of"]: v for v in versions.values()}
    newest = max(versions.values(), key=lambda v: v.registered_at)
    contents: dict[str, bytes | Path] = {}
    types: set[str] = set()
    foreign: set[str] = set()

    def look(file: Path) -> None:
        types.update(untrusted_types(file))
        foreign.update(foreign_types(file))

    for of, number in trainings.items():
        record = first[of].record
        prepare = folder / f"prepare-{number}.skops"
        fetch_model_file(store, record["model"]["prepare"], prepare, verifier=verifier, pipeline=pipeline)
        look(prepare)
        contents |= {prepare.name: prepare, f"schema-{number}.json": json_bytes(record["schema"])}
    contents |= _models(store, versions, trainings, folder, verifier, look)
    fleet = newest.record["config"]["fleet"]
    columns = [fleet["key"]] if isinstance(fleet["key"], str) else list(fleet["key"])
    id_column = newest.record["config"]["data"].get("id")
    environment = newest.record["model"]["environment"] | {"requirements": requirements_of(newest.record, [*foreign])}
    sample = _sample(store, newest, columns, fleet["parent"], versions, allowed_imports)
    contents |= {SAMPLE: sample} if sample else {}
    command = predict_command(sorted(foreign), SAMPLE if sample else "rows.csv")
    about = newest.record.get("about") or {}
    contents |= {
        "predict.py": FLEET_SCRIPT.read_bytes(),
        "one_model.py": trusting(sorted(types)),
        "fleet.json": json_bytes({"pipeline": pipeline, "key": columns, "parent": fleet["parent"], "id": id_column}),
        "environment.json": json_bytes(environment),
        "requirements.txt": "".join(f"{n}=={v}\n" for n, v in environment["requirements"].items()).encode(),
        "README.md": _readme(pipeline, versions, columns, fleet["parent"], command, newest, about).encode(),
    }
    made = write_zip(path, contents)
    return FleetHandover(made["digest"], len(versions), command)


def _models(
    store: Store,
    versions: Mapping[str, Version],
    trainings: Mapping[str, int],
    folder: Path,
    verifier: Verifier | None,
    look: Any,
) -> dict[str, bytes | Path]:
    """``models.zip`` and ``models.csv``, ordered by key; ``look`` sees a model of each training."""
    place = {key: f"{n:06d}.skops" for n, key in enumerate(sorted(versions), 1)}
    rows, seen = [], set[str]()
    path = folder / "models.zip"
    with tempfile.TemporaryDirectory(dir=folder) as spool:
        for version, data in fetch_model_files(store, versions.values(), verifier=verifier):
            key = str(version.key)
            file = Path(spool, place[key])
            file.write_bytes(data)
            if version.record["of"] not in seen:
                seen.add(version.record["of"])
                look(file)
            many = version.record["rows"]
            digest = hashlib.sha256(data).hexdigest()
            training = trainings[version.record["of"]]
            rows.append((key, version.number, training, place[key], digest, many["train"], many["holdout"]))
        with zipfile.ZipFile(path, "w") as models:
            for name in sorted(place.values()):
                info = zipfile.ZipInfo(name, date_time=_TIME)
                info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 3
                models.writestr(info, Path(spool, name).read_bytes())
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([_COLUMNS, *sorted(rows)])
    return {"models.zip": path, "models.csv": table.getvalue().encode()}


def _sample(
    store: Store,
    newest: Version,
    columns: Sequence[str],
    parent: str | None,
    keys: Iterable[str],
    allowed_imports: Sequence[str],
) -> bytes | None:
    """Some rows that the newest training has seen, as the bundle takes them; ``None`` where they were given up."""
    record = newest.record
    data, schema = Data.model_validate(record["config"]["data"]), FeatureSchema.from_dict(record["schema"])
    own = set(keys)
    try:
        frame = next(Snapshot.load(store, record["snapshot"]).batches(store)).to_pandas()
    except ObjectNotFound:
        return None
    served = frame if ALL in own else frame[key_of(frame, columns).isin(own)]
    rows = served.head(_SAMPLE_ROWS)
    if rows.empty:
        return None
    made = schema.check(featured(rows, data, recorded_code(record), allowed_imports))
    known = data.id if data.id not in data.private else None
    named = [c for c in dict.fromkeys([known, *columns, parent]) if c is not None and c not in made.columns]
    shown = rows[named].join(masked(made, schema.private))
    return shown.to_csv(index=False, lineterminator="\n").encode()


def _readme(
    pipeline: str,
    versions: Mapping[str, Version],
    columns: Sequence[str],
    parent: str | None,
    command: str,
    newest: Version,
    about: Mapping[str, Any],
) -> str:
    parents = ""
    if ALL in versions or any(key.endswith("/*") for key in versions):
        parents = ", else by its parent's" + (f" (`{parent}`, or the model of all rows, `*`)" if parent else " (`*`)")
    numbers = sorted({version.number for version in versions.values()})
    notes = []
    if code := recorded_code(newest.record):
        notes.append(f"The input is what `{code}` makes of the source; that code is not part of the bundle.")
    if window := (newest.record.get("snapshot") or {}).get("window"):
        notes.append(f"The newest models have learned from rows up to {window['end']}.")
    return _README.format(
        title=f"{pipeline}: {len(versions):,} models" if len(versions) > 1 else f"{pipeline}[{next(iter(versions))}]",
        description=about.get("description") or f"Predicts {newest.record['schema']['target']}.",
        models=f"{len(versions):,} models" if len(versions) > 1 else "One model",
        versions=str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}",
        key=", ".join(f"`{c}`" for c in columns),
        parents=parents,
        command=command,
        notes="".join(f"\n{note}\n" for note in notes),
    )
