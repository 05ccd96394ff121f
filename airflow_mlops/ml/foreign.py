"""Take in a model that was trained elsewhere: as a version that says so, never as the champion."""

from __future__ import annotations

from collections.abc import Collection
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
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.registry.version import Version

ENDINGS = {".skops": FORMAT, ".joblib": "joblib", ".pkl": "pickle", ".pickle": "pickle"}
_ROWS = 5
_SAMPLE_HINT = "name rows as the model takes them: --data SAMPLE"


def take_in(
    registry: Registry,
    path: Path,
    *,
    sample: pd.DataFrame | None = None,
    target: str | None = None,
    positive: Any = None,
    private: Collection[str] = (),
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
    :param by: who takes it in, for the record.
    :param signer: signs it as a model of this pipeline.
    :param verifier: whose signatures count, and whether pickles are loaded.
    :raises UntrustedArtifact: the file may not be loaded here.
    :raises ConfigError: its format, its target or its columns are not known.
    :raises TrainingError: it is no estimator, or cannot predict the sample.
    """
    format = _format(path)
    known = _newest(registry)
    target = target or (known.target if known else None)
    if target is None:
        raise ConfigError(f"what {path.name} predicts is not known", hint="name the column: --target COLUMN")
    if format in PICKLES:
        info, model = _pickle(registry, path, format, signer, verifier or Verifier())
    else:
        model = load_model(path, trusted=trusted_types)
        info = store_foreign(registry.store, path, format, signer, pipeline=registry.pipeline)
    task = _task(model, path)
    features = _hidden(_features(model, path, sample, target, known), {*private, *(known.private if known else ())})
    classes = _classes(model, path) if task == "classification" else None
    chosen = _same(positive, classes) if classes is not None else None
    schema = FeatureSchema(
        features, target, classes, positive_class(classes, chosen, target) if classes is not None else None
    )
    if sample is not None:
        _try(model, schema, sample, path)
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
    operation = op_id("import", registry.pipeline, info["digest"], record["schema"])
    return registry.register(record, op_id=operation)


def _format(path: Path) -> str:
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(
            f"{path.name} is no model file by its name", hint=f"its ending is one of {', '.join(ENDINGS)}"
        )
    if not path.is_file():
        raise ConfigError(f"there is no file {path}", hint="check the path")
    return ENDINGS[path.suffix.lower()]


def _newest(registry: Registry) -> FeatureSchema | None:
    versions = registry.versions()
    return FeatureSchema.from_dict(versions[-1].record["schema"]) if versions else None


def _pickle(
    registry: Registry, path: Path, format: str, signer: Signer | None, verifier: Verifier
) -> tuple[dict[str, Any], Any]:
    if not verifier.allow_pickle:
        raise UntrustedArtifact(
            f"{path.name} is a {format} file, which runs code when it is loaded",
            hint="save it as skops (skops.io.dump); or, if you trust it, set [mlops] allow_pickle and a signing key",
        )
    verifier.check_signer(signer)
    info = store_foreign(registry.store, path, format, signer, pipeline=registry.pipeline)
    return info, open_model(path, info, verifier=verifier, pipeline=registry.pipeline)


def _task(model: Any, path: Path) -> str:
    if not hasattr(model, "predict") or not (is_classifier(model) or is_regressor(model)):
        raise TrainingError(
            f"{path.name} holds {type(model).__name__}, which is neither a classifier nor a regressor",
            hint="take in a fitted scikit-learn estimator or Pipeline",
        )
    return "classification" if is_classifier(model) else "regression"


def _classes(model: Any, path: Path) -> tuple[Any, ...]:
    found = getattr(model, "classes_", None)
    if found is None or np.ndim(found) != 1:
        raise TrainingError(f"{path.name} is a classifier without classes_", hint="fit it on one target, then save it")
    return tuple(plain(c) for c in found)


def _same(wanted: Any, classes: tuple[Any, ...]) -> Any:
    """The class that is written like ``wanted``; a command line has text alone."""
    return next((c for c in classes if str(c) == str(wanted)), wanted) if wanted is not None else None


def _features(
    model: Any, path: Path, sample: pd.DataFrame | None, target: str, known: FeatureSchema | None
) -> tuple[Feature, ...]:
    names = [str(n) for n in getattr(model, "feature_names_in_", ())]
    if sample is not None:
        names = names or [str(c) for c in sample.columns if c != target]
        if missing := [n for n in names if n not in sample.columns]:
            raise DataError(
                f"the sample has no column {', '.join(missing)}, which {path.name} reads",
                hint=f"give all of: {', '.join(names)}",
            )
        found = tuple(_feature(n, sample[n]) for n in names)
    elif not names:
        raise ConfigError(f"{path.name} does not say which columns it reads", hint=_SAMPLE_HINT)
    else:
        before = {f.name: f for f in known.features} if known else {}
        if not set(names) <= before.keys() and _has_kinds(model):
            raise ConfigError(f"which columns of {path.name} hold text is not known", hint=_SAMPLE_HINT)
        found = tuple(before.get(n) or Feature(n, "number") for n in names)
    wanted = getattr(model, "n_features_in_", len(found))
    if wanted != len(found):
        raise DataError(
            f"{path.name} takes {wanted} columns, and the sample has {len(found)} beside {target!r}",
            hint="give the columns it was fitted on, in their order, and name the target with --target",
        )
    return found


def _hidden(features: tuple[Feature, ...], private: set[str]) -> tuple[Feature, ...]:
    """The features with the private ones marked."""
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


def _try(model: Any, schema: FeatureSchema, sample: pd.DataFrame, path: Path) -> None:
    few = schema.check(sample.head(_ROWS))
    try:
        predicted = np.shape(model.predict(few))
    except Exception as e:
        raise TrainingError(
            f"{path.name} cannot predict the sample: {type(e).__name__}: {e}",
            hint="give rows as the model takes them, in --data",
        ) from e
    if predicted != (len(few),):
        raise TrainingError(
            f"{path.name} gave {predicted} predictions for {len(few)} rows", hint="predict must give one per row"
        )
