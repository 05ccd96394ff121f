"""Take in a model that was trained elsewhere: as a version that says so, never as the champion."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from airflow_mlops.exceptions import ConfigError, DataError, TrainingError, UntrustedArtifact
from airflow_mlops.ml.estimators import readable
from airflow_mlops.ml.features import Feature, FeatureSchema, plain, positive_class
from airflow_mlops.registry.artifacts import FORMAT, PICKLES, load_model, open_model, store_foreign
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.mlflow_client import Target
from airflow_mlops.registry.mlflow_import import Found, import_model
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.registry.version import Version
from airflow_mlops.store.content import file_digest

ENDINGS = {".skops": FORMAT, ".joblib": "joblib", ".pkl": "pickle", ".pickle": "pickle"}
_ROWS = 5
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_SAMPLE_HINT = "name rows as the model takes them: --data SAMPLE"


def take_in(
    registry: Registry,
    path: Path,
    *,
    sample: pd.DataFrame | None = None,
    target: str | None = None,
    positive: Any = None,
    private: Collection[str] = (),
    key: str | None = None,
    by: str | None = None,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
    trusted_types: tuple[str, ...] = (),
) -> Version:
    """Register a model file as a version; the same file again gives the same version.

    :param path: ``.skops``, ``.joblib``, ``.pkl`` or ``.pickle``.
    :param sample: rows (at least 1) × columns as the model takes them, with or without the target; default: what
        the model says of its columns.
    :param target: the column it predicts; default: that of the newest version.
    :param positive: the class whose probability is reported, as text.
    :param private: columns of which nothing but the name may be told, beside those private in the newest version.
    :param key: the model of a fleet that gets the version.
    :param by: who takes it in, for the record.
    :param signer: signs it as a model of this pipeline.
    :param verifier: whose signatures count, and whether pickles are loaded.
    :raises UntrustedArtifact: the file may not be loaded here.
    :raises ConfigError: its format, its target or its columns are not known.
    :raises TrainingError: it is no estimator, or cannot predict the sample.
    """
    format, verifier = _format(path), verifier or Verifier()
    known = _newest(registry, key)
    target = _target(target, known, path.name)
    verifier.check_signer(signer)
    if format in PICKLES:
        info, model = _pickle(registry, path, format, signer, verifier, key)
    else:
        digest = file_digest(path)
        model = load_model(path, trusted=trusted_types)
        info = store_foreign(registry.store, path, format, signer, pipeline=registry.pipeline, key=key)
        if info["digest"] != digest:
            raise UntrustedArtifact(
                f"{path.name} was changed while it was read",
                hint="take it in from a folder where nobody else may write",
            )
    task = _task(model, path.name)
    features = _hidden(_features(model, path.name, sample, target, known), private, known, sample)
    classes = _classes(model, path.name) if task == "classification" else None
    schema = _schema(features, target, classes, positive)
    if sample is not None:
        _try(model, schema, sample, path.name)
    last = model[-1] if isinstance(model, Pipeline) else model
    record = {
        "model": info,
        "schema": schema.to_dict(),
        "task": task,
        # Nobody knows what it learned from, and no code makes its features.
        "snapshot": {},
        "config": {"features": None},
        "estimator": f"{type(last).__module__}.{type(last).__qualname__}",
        "params": readable(last.get_params(deep=False)) if hasattr(last, "get_params") else {},
        "seed": None,
        "imported": {"from": "file", "file": path.name, "by": by},
        "about": {"owner": by, "description": f"Trained elsewhere; taken in from the file {path.name}."},
    }
    operation = op_id("import", registry.pipeline, info["digest"], record["schema"], key)
    return registry.register(record, op_id=operation, key=key)


def take_in_from_mlflow(
    tracking: Target,
    source: str,
    registry: Registry,
    *,
    sample: pd.DataFrame | None = None,
    target: str | None = None,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    positive: Any = None,
    private: Collection[str] = (),
    key: str | None = None,
    by: str | None = None,
    signer: Signer | None = None,
    verifier: Verifier | None = None,
    trusted_types: tuple[str, ...] = (),
) -> Version:
    """Register a model of MLflow as a version; the same model again gives the same version.

    As :func:`take_in`, and :func:`~airflow_mlops.registry.mlflow_import.import_model` for what MLflow adds:

    :param source: ``models:/NAME/3``, ``models:/NAME@alias`` or ``models:/NAME/latest``.
    :param sample: rows as the model takes them; default: what the model's signature says of its columns.
    :param task: ``classification`` or ``regression``; default: what a skops file says.
    :param classes: as text, in the model's order; only for a pickle file: a skops file says it itself.
    :raises RegistryError: MLflow cannot be reached, or task, classes or columns are not known.
    :raises UntrustedArtifact: it may not be loaded here; or a pickle file that no trusted key would sign.
    """
    known, verifier = _newest(registry, key), verifier or Verifier()
    column = _target(target, known, source)
    verifier.check_signer(signer)

    def schema(found: Found) -> dict[str, Any]:
        if found.model is None:
            _answered_for(source, "pickle", signer, verifier)
        enough = sample is not None and (found.model is not None or found.signature is None)
        said = [] if enough else [Feature.from_dict(f) for f in found.features()]
        features = _hidden(_features(found.model, source, sample, column, known, said), private, known, sample)
        told = None if found.classes is None else tuple(plain(c) for c in found.classes)
        made = _schema(features, column, told, positive)
        if sample is not None and found.model is not None:
            _try(found.model, made, sample, source)
        return made.to_dict()

    return import_model(
        tracking,
        source,
        registry,
        target=column,
        task=task,
        classes=_typed(classes),
        schema=schema,
        key=key,
        by=by,
        signer=signer,
        allow_pickle=verifier.allow_pickle,
        trusted=trusted_types,
    )


def _target(target: str | None, known: FeatureSchema | None, name: str) -> str:
    found = target or (known.target if known else None)
    if found is None:
        raise ConfigError(f"what {name} predicts is not known", hint="name the column: --target COLUMN")
    return found


def _answered_for(name: str, format: str, signer: Signer | None, verifier: Verifier) -> None:
    """Refuse a file that runs code where nobody whose signature counts here would answer for it.

    :raises UntrustedArtifact: there is no key to sign with, or it is not trusted.
    """
    if signer is not None and signer.public in verifier.keys:
        return
    raise UntrustedArtifact(
        f"{name} is a {format} file, which is loaded only where a trusted key signed it, and "
        + ("there is no key to sign with" if signer is None else f"the key {signer.key_id} is not trusted"),
        hint="set [mlops] signing_key_file or signing_key_conn_id"
        if signer is None
        else f"add it to [mlops] trusted_keys: {signer.public}",
    )


def _schema(
    features: tuple[Feature, ...], target: str, classes: tuple[Any, ...] | None, positive: Any
) -> FeatureSchema:
    if classes is None:
        return FeatureSchema(features, target)
    return FeatureSchema(features, target, classes, positive_class(classes, _same(positive, classes), target))


def _typed(classes: Sequence[str] | None) -> list[Any] | None:
    """Classes that a command line names: whole numbers where all of them are."""
    if classes is None:
        return None
    return [int(c) for c in classes] if all(_WHOLE.fullmatch(c) for c in classes) else [*classes]


def _format(path: Path) -> str:
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"{path.name} is no model file by its name", hint=f"its ending is one of {', '.join(ENDINGS)}"
        )
    try:
        path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
        raise ConfigError(f"there is no file {path}", hint="check the path") from e
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror}", hint="check the rights on it") from e
    return ENDINGS[path.suffix.lower()]


def _newest(registry: Registry, key: str | None) -> FeatureSchema | None:
    """The schema of the newest version, if there is one.

    :raises ConfigError: the key is empty, given for a pipeline with one model, or missing for a fleet.
    """
    if key == "":
        raise ConfigError("the key is empty", hint="name the model of a fleet, or give no key")
    keys = registry.keys()
    if keys and (keys == [None]) != (key is None):
        raise ConfigError(
            f"{registry.pipeline} is no fleet: it has one model, without a key"
            if key
            else f"{registry.pipeline} has a model for each of its keys, and no key is given",
            hint="leave --key out, or name another pipeline" if key else "name the model: --key KEY",
        )
    versions = registry.versions(key)
    return FeatureSchema.from_dict(versions[-1].record["schema"]) if versions else None


def _pickle(
    registry: Registry, path: Path, format: str, signer: Signer | None, verifier: Verifier, key: str | None
) -> tuple[dict[str, Any], Any]:
    if not verifier.allow_pickle:
        raise UntrustedArtifact(
            f"{path.name} is a {format} file, which runs code when it is loaded",
            hint="save it as skops (skops.io.dump); or, if you trust it, set [mlops] allow_pickle and a signing key",
        )
    _answered_for(path.name, format, signer, verifier)
    info = store_foreign(registry.store, path, format, signer, pipeline=registry.pipeline, key=key)
    return info, open_model(path, info, verifier=verifier, pipeline=registry.pipeline, key=key)


def _task(model: Any, name: str) -> str:
    if not hasattr(model, "predict") or not (is_classifier(model) or is_regressor(model)):
        raise TrainingError(
            f"{name} holds {type(model).__name__}, which is neither a classifier nor a regressor",
            hint="take in a fitted scikit-learn estimator or Pipeline",
        )
    return "classification" if is_classifier(model) else "regression"


def _classes(model: Any, name: str) -> tuple[Any, ...]:
    found = getattr(model, "classes_", None)
    if found is None or np.ndim(found) != 1:
        raise TrainingError(f"{name} is a classifier without classes_", hint="fit it on one target, then save it")
    return tuple(plain(c) for c in found)


def _same(wanted: Any, classes: tuple[Any, ...]) -> Any:
    """The class that is written like ``wanted``; a command line has text alone."""
    return next((c for c in classes if str(c) == str(wanted)), wanted) if wanted is not None else None


def _features(
    model: Any,
    name: str,
    sample: pd.DataFrame | None,
    target: str,
    known: FeatureSchema | None,
    signature: Sequence[Feature] = (),
) -> tuple[Feature, ...]:
    """The columns it reads, as the sample says, else as its own signature and the newest version do."""
    stated = {f.name: f for f in signature}
    names = [str(n) for n in getattr(model, "feature_names_in_", stated)]
    if sample is not None:
        names = names or [str(c) for c in sample.columns if c != target]
        if missing := [n for n in names if n not in sample.columns]:
            raise DataError(
                f"the sample has no column {', '.join(missing)}, which {name} reads",
                hint=f"give all of: {', '.join(names)}",
            )
        found = tuple(_feature(n, sample[n]) for n in names)
    elif not names:
        raise ConfigError(f"{name} does not say which columns it reads", hint=_SAMPLE_HINT)
    else:
        before = {f.name: f for f in known.features} if known else {}
        # The version before knows the categories as well.
        before = {n: f for n, f in before.items() if n not in stated or stated[n].kind == f.kind}
        if not set(names) <= before.keys() | stated.keys() and _has_kinds(model):
            raise ConfigError(f"which columns of {name} hold text is not known", hint=_SAMPLE_HINT)
        found = tuple(before.get(n) or stated.get(n) or Feature(n, "number") for n in names)
    if target in names:
        raise ConfigError(
            f"{name} reads the column {target}, so it cannot be what it predicts",
            hint="name the other: --target COLUMN",
        )
    wanted = getattr(model, "n_features_in_", len(found))
    if wanted != len(found):
        raise DataError(
            f"{name} takes {wanted} columns, and the {'signature' if sample is None else 'sample'} has {len(found)} "
            f"beside {target!r}",
            hint="give the columns it was fitted on, in their order, and name the target with --target",
        )
    return found


def _hidden(
    features: tuple[Feature, ...], named: Collection[str], known: FeatureSchema | None, sample: pd.DataFrame | None
) -> tuple[Feature, ...]:
    """The features with the private ones marked: those that are named, and those private in the newest version.

    :raises DataError: a name is that of no column, so that it would hide nothing; or private text is read.
    """
    there = {f.name for f in features} | ({str(c) for c in sample.columns} if sample is not None else set())
    if lost := sorted({*named} - there):
        raise DataError(
            f"there is no column {', '.join(lost)} to keep private", hint=f"the columns are {', '.join(sorted(there))}"
        )
    private = {*named, *(known.private if known else ())}
    text = [f.name for f in features if f.name in private and f.kind == "category"]
    if text:
        raise DataError(
            f"the model reads {', '.join(text)}, which is private text: it holds the values it has seen",
            hint="train it without the column",
        )
    return tuple(replace(f, private=True) if f.name in private else f for f in features)


def _has_kinds(model: Any) -> bool:
    """Whether it treats columns differently, so that not all of them need be numbers."""
    return isinstance(model, ColumnTransformer) or (
        isinstance(model, Pipeline) and any(_has_kinds(step) for _, step in model.steps)
    )


def _feature(name: str, values: pd.Series) -> Feature:
    if pd.api.types.is_bool_dtype(values):
        return Feature(name, "boolean")
    if pd.api.types.is_numeric_dtype(values):
        return Feature(name, "number")
    if pd.api.types.is_datetime64_any_dtype(values):
        raise DataError(f"the column {name} of the sample holds times", hint="make numbers of it before the model")
    return Feature(name, "category", tuple(sorted({str(v) for v in values.dropna()})))


def _try(model: Any, schema: FeatureSchema, sample: pd.DataFrame, name: str) -> None:
    few = schema.check(sample.head(_ROWS))
    try:
        predicted = np.shape(model.predict(few))
    except Exception as e:
        raise TrainingError(
            f"{name} cannot predict the sample: {type(e).__name__}: {e}",
            hint="give rows as the model takes them, in --data",
        ) from e
    if predicted != (len(few),):
        raise TrainingError(
            f"{name} gave {predicted} predictions for {len(few)} rows", hint="predict must give one per row"
        )
