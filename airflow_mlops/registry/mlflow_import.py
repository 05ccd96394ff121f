"""Bring a model out of MLflow into the registry as a file, believing nothing that MLflow says about it.

MLflow keeps no digest, and whoever may write its artifacts decides by the text of ``MLmodel`` how a file is
loaded. So nothing is loaded with MLflow: ``MLmodel`` is read as plain data, the file must be what it says,
a skops file must hold trusted types only, and a pickle file needs the signature of whoever imports it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from airflow_mlops.exceptions import DataError, RegistryError, UntrustedArtifact, VersionNotFound
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.mlflow_client import Target, connected, failed_with
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.version import Version

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from airflow_mlops.registry.signing import Signer

_FORMATS = {"skops": "skops", "pickle": "pickle", "cloudpickle": "pickle"}
_KINDS = {
    "double": "number", "float": "number", "long": "number", "integer": "number", "boolean": "boolean",
    "string": "category",
}  # fmt: skip
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_MAX_MLMODEL = 1 << 20
_SAVE_HINT = 'save it again in MLflow with mlflow.sklearn.log_model(…, serialization_format="skops")'
_CHANGED_HINT = "somebody may have changed it: ask who may write MLflow's artifacts, and log the model again"


def import_model(
    tracking: Target,
    source: str,
    registry: Registry,
    *,
    target: str,
    task: str | None = None,
    classes: Sequence[Any] | None = None,
    positive: Any = None,
    schema: Mapping[str, Any] | Callable[[Found], Mapping[str, Any]] | None = None,
    private: Collection[str] = (),
    key: str | None = None,
    by: str | None = None,
    signer: Signer | None = None,
    allow_pickle: bool = False,
    trusted: Sequence[str] = (),
    max_bytes: int = 2 << 30,
) -> Version:
    """Register a model of MLflow as a candidate; version 1 where the pipeline has none. Repeating it changes nothing.

    :param source: ``models:/NAME/3``, ``models:/NAME@alias``, or ``NAME`` for its newest version.
    :param target: the column it predicts.
    :param task: ``classification`` or ``regression``; default: what a skops file says.
    :param classes: of a classification, in the model's order; only for a pickle file: a skops file says it itself.
    :param positive: the class that counts as positive.
    :param schema: feature schema as in a version's record, or what makes it of what was found, and may refuse it;
        default: the signature in ``MLmodel``.
    :param private: columns of which nothing but the name may be told, beside those private in the newest version.
    :param by: who imports it, for the record.
    :param signer: signs it as a model of this pipeline; a pickle file is not imported without.
    :param allow_pickle: ``[mlops] allow_pickle``.
    :param trusted: ``[mlops] trusted_types``.
    :raises UntrustedArtifact: when the file is not what ``MLmodel`` says, too large, or can run code and may not.
    :raises VersionNotFound: when MLflow has no such model.
    :raises RegistryError: when MLflow cannot be reached, or task, classes or features are not known.
    :raises DataError: when it reads private text.
    """
    from airflow_mlops.registry.artifacts import load_model, store_foreign

    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        with connected(tracking) as client:
            about = _find(client, source)
            location = _location(client, about["source"])
            described = read_mlmodel(_fetch(tracking, location, "MLmodel", Path(folder), _MAX_MLMODEL))
            path = _fetch(tracking, location, described["file"], Path(folder), max_bytes)
            run = _run(client, about["run_id"])
        check_content(path, described["format"])
        if described["format"] == "skops":
            # Builds types from our own list only; what the file itself calls trusted is not looked at.
            model = load_model(path, trusted=trusted, max_bytes=max_bytes)
        elif allow_pickle:
            model = None
        else:
            raise UntrustedArtifact(
                f"{about['name']} in MLflow is a pickle file, which can run code when it is loaded",
                hint=f"{_SAVE_HINT}; or set [mlops] allow_pickle and a signing key",
            )
        task = _task(model, task)
        found = Found(
            model, task, _classes(model, classes) if task == "classification" else None, described["signature"]
        )
        if schema is None:
            schema = _schema(found, target, positive)
        given = schema(found) if callable(schema) else schema
        told = _hiding(given, {*private, *_private_before(registry, key)})
        info = store_foreign(registry.store, path, described["format"], signer, pipeline=registry.pipeline, key=key)
    imported = {"from": "mlflow", "server": tracking.uri, **about, "flavor_version": described["version"], **run}
    record = {
        "model": info | {"environment": {"python": described["python"], "packages": {}}},
        "schema": told,
        "task": task,
        # Nobody knows what it learned from, and no code makes its features.
        "snapshot": {},
        "config": {"features": None},
        "estimator": None,
        "params": run["params"],
        "seed": None,
        "imported": imported,
        "about": {"owner": by, "description": f"Imported from {about['name']} version {about['version']} in MLflow."},
    }
    operation = op_id("import", tracking.uri, about["name"], about["version"], info["digest"], key, told)
    return registry.register(record, op_id=operation, key=key)


@dataclass(frozen=True)
class Found:
    """What a model in MLflow is, as far as it says so itself.

    :param model: the estimator; None: a pickle file, which is not opened.
    :param classes: of a classification, in the model's order.
    :param signature: as in ``MLmodel``.
    """

    model: Any
    task: str
    classes: Sequence[Any] | None
    signature: dict[str, Any] | None

    def features(self) -> list[dict[str, Any]]:
        """The features of a schema that the signature names.

        :raises RegistryError: it names none, or not plain columns.
        """
        try:
            columns = json.loads((self.signature or {})["inputs"])
            return [{"name": c["name"], "kind": _KINDS[c["type"]], "categories": None} for c in columns]
        except (KeyError, TypeError, ValueError) as e:
            raise RegistryError(
                "the model in MLflow does not say which columns it reads: its signature is missing or not one of "
                "plain named columns",
                hint="log it with a signature (infer_signature of a data frame), or give rows as the model takes them: "
                "--data SAMPLE",
            ) from e


def read_mlmodel(path: Path) -> dict[str, Any]:
    """Return ``file``, ``format``, ``signature``, ``version`` and ``python`` of an ``MLmodel`` file.

    :raises UntrustedArtifact: when it is damaged, no scikit-learn model, or names a file elsewhere.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        flavor = content["flavors"]["sklearn"]
        file, format = flavor["pickled_model"], flavor.get("serialization_format", "pickle")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as e:
        raise UntrustedArtifact(
            f"MLmodel is not plain YAML: {' '.join(str(e).split())[:200]}", hint=_CHANGED_HINT
        ) from e
    except (KeyError, TypeError, AttributeError) as e:
        raise UntrustedArtifact("MLmodel describes no scikit-learn model", hint=_SAVE_HINT) from e
    if not isinstance(file, str) or not _FILE.fullmatch(file):
        raise UntrustedArtifact(f"MLmodel names the model's file {str(file)[:100]!r}", hint=_CHANGED_HINT)
    if not isinstance(format, str) or format not in _FORMATS:
        raise UntrustedArtifact(f"MLmodel names the unknown format {str(format)[:100]!r}", hint=_SAVE_HINT)
    function = content["flavors"].get("python_function")
    python = function.get("python_version") if isinstance(function, dict) else None
    signature = content.get("signature")
    return {
        "file": file,
        "format": _FORMATS[format],
        "signature": signature if isinstance(signature, dict) else None,
        "version": str(flavor.get("sklearn_version", ""))[:50],
        "python": str(python)[:50] if python else None,
    }


def check_content(path: Path, format: str) -> None:
    """Check that a file begins as one of its format does.

    :raises UntrustedArtifact: when ``MLmodel`` says something else than the file.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip != (format == "skops"):
        raise UntrustedArtifact(
            f"MLmodel says that {path.name} is in the format {format}, and the file is "
            + ("a zip, as skops writes" if is_zip else "not: skops files are zips"),
            hint=_CHANGED_HINT,
        )


def _find(client: MlflowClient, source: str) -> dict[str, Any]:
    """Which model version is meant."""
    from mlflow.exceptions import MlflowException

    name, alias, number = source.removeprefix("models:/"), "", ""
    if source.startswith("models:/"):
        if "@" in name:
            name, _, alias = name.rpartition("@")
        else:
            name, _, number = name.rpartition("/")
    try:
        if alias:
            found = client.get_model_version_by_alias(name, alias)
        elif number and number != "latest":
            found = client.get_model_version(name, number)
        else:
            escaped = name.replace("'", "''")
            versions = client.search_model_versions(f"name = '{escaped}'")
            if not versions:
                raise VersionNotFound(f"MLflow has no model {name!r}", hint="write models:/NAME/VERSION")
            found = max(versions, key=lambda v: int(v.version))
    except MlflowException as e:
        if failed_with(e, "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"):
            raise VersionNotFound(
                f"MLflow has no model {source!r}", hint="write models:/NAME/VERSION or models:/NAME@ALIAS"
            ) from None
        raise
    uri = client.get_model_version_download_uri(found.name, str(found.version))
    return {"name": found.name, "version": str(found.version), "run_id": found.run_id or None, "source": uri}


def _location(client: MlflowClient, uri: str) -> str:
    """Where the files lie, never on this machine: else MLflow's database could name any file of it.

    :raises UntrustedArtifact: it is a path, or leads to one.
    """
    scheme, rest = urlsplit(uri).scheme, uri.partition(":/")[2].strip("/")
    if scheme == "models":
        found = client.get_logged_model(rest).artifact_location
    elif scheme == "runs":
        run_id, _, inside = rest.partition("/")
        found = f"{client.get_run(run_id).info.artifact_uri}/{inside}"
    else:
        found = uri
    if len(urlsplit(found).scheme) < 2 or urlsplit(found).scheme in ("file", "models", "runs"):
        raise UntrustedArtifact(
            f"MLflow keeps the model in {found[:200]!r}, a path of its own machine",
            hint="start MLflow with --serve-artifacts or artifacts on S3, and log the model again",
        )
    return found.rstrip("/")


def _fetch(tracking: Target, location: str, name: str, folder: Path, max_bytes: int) -> Path:
    """Download one file of the model, its announced size checked before and after.

    :raises UntrustedArtifact: there is none, or it is too large.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts

    files = {Path(f.path).name: f for f in list_artifacts(artifact_uri=location, tracking_uri=tracking.uri) or ()}
    if name not in files or files[name].is_dir:
        raise UntrustedArtifact(f"the model in MLflow has no file {name!r}", hint=_CHANGED_HINT)
    size = files[name].file_size or 0
    if size > max_bytes:
        raise UntrustedArtifact(
            f"{name} in MLflow has {size:,} bytes; the limit is {max_bytes:,}", hint="import a smaller model"
        )
    got = download_artifacts(artifact_uri=f"{location}/{name}", dst_path=str(folder), tracking_uri=tracking.uri)
    path = Path(got)
    if path.stat().st_size != size:
        raise UntrustedArtifact(
            f"{name} in MLflow was announced with {size:,} bytes and has {path.stat().st_size:,}", hint=_CHANGED_HINT
        )
    return path


def _run(client: MlflowClient, run_id: str | None) -> dict[str, Any]:
    """What MLflow says of the run that made the model, as a remark: nothing is decided by it."""
    from mlflow.exceptions import MlflowException

    try:
        data = client.get_run(run_id).data if run_id else None
    except MlflowException:
        data = None
    if data is None:
        return {"params": {}, "metrics": {}}
    return {"params": _first(data.params), "metrics": _first(data.metrics)}


def _first(values: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(values.items())[:100])


def _task(model: Any, task: str | None) -> str:
    """What kind of model it is, as the file and whoever imports it say."""
    if model is None:
        if task is None:
            raise RegistryError("the task of a pickle file is not known", hint="say classification or regression")
        return task
    from sklearn.base import is_classifier, is_regressor

    if not (is_classifier(model) or is_regressor(model)):
        raise RegistryError(
            f"the model in MLflow is a {type(model).__name__}, which is neither a classifier nor a regressor",
            hint="import a fitted scikit-learn estimator or Pipeline",
        )
    found = "classification" if is_classifier(model) else "regression"
    if task not in (None, found):
        raise RegistryError(f"the model in MLflow is one of {found}, not of {task}", hint=f"say {found}, or nothing")
    return found


def _classes(model: Any, given: Sequence[Any] | None) -> list[Any]:
    """The classes in the model's order: the file's own where it was opened."""
    own = getattr(model, "classes_", None)
    found = given if own is None else own.tolist()
    if not found:
        raise RegistryError("the classes of the model are not known", hint="name them, in the model's own order")
    if given is not None and [*map(str, given)] != [*map(str, found)]:
        raise RegistryError(
            f"the classes of the model are {', '.join(map(str, found))}, not {', '.join(map(str, given))}",
            hint="leave them out: the file says what they are",
        )
    return [*found]


def _schema(found: Found, target: str, positive: Any) -> dict[str, Any]:
    """The feature schema that a model's signature gives."""
    return {
        "features": found.features(),
        "target": target,
        "classes": None if found.classes is None else list(found.classes),
        "positive": positive,
        "excluded": [],
    }


def _private_before(registry: Registry, key: str | None) -> list[str]:
    versions = registry.versions(key)
    schema = (versions[-1].record.get("schema") or {}) if versions else {}
    return [f["name"] for f in schema.get("features") or () if f.get("private")]


def _hiding(schema: Mapping[str, Any], private: set[str]) -> dict[str, Any]:
    """The schema with the private features marked."""
    features = [f | {"private": True} if f["name"] in private else f for f in schema["features"]]
    if text := [f["name"] for f in features if f.get("private") and f["kind"] == "category"]:
        raise DataError(
            f"the model reads {', '.join(text)}, which is private text: it holds the values it has seen",
            hint="train it without the column",
        )
    return {**schema, "features": features}
