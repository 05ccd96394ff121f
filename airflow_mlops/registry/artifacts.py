"""Model files that cannot run code: skops, with the trusted types listed here and never in the file."""

from __future__ import annotations

import platform
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import TrainingError, UntrustedArtifact
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_blob_file, put_blob_file

with warnings.catch_warnings():
    # While it is imported, skops looks for each of scipy's functions in every loaded module, and some of Airflow's
    # answer each look with a deprecation warning: thousands of lines in a task's log.
    warnings.simplefilter("ignore")
    import skops.io

FORMAT = "skops"
MAX_BYTES = 2 << 30

# Parts of scikit-learn's estimators that skops does not trust by itself: plain containers of numbers and
# settings. Nothing here can be made to call a function that the file chooses.
TRUSTED_TYPES: tuple[str, ...] = (
    # HistGradientBoosting with categories holds partial(check_array); a partial's function is judged by itself.
    "functools.partial",
    "sklearn.utils.validation.check_array",
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.feature_selection._mutual_info.mutual_info_classif",
    "sklearn.feature_selection._mutual_info.mutual_info_regression",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Matern",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.metrics._dist_metrics.EuclideanDistance",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.model_selection._split.GroupKFold",
    "sklearn.model_selection._split.KFold",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.model_selection._split.TimeSeriesSplit",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)

_PACKAGES = ("airflow-mlops", "scikit-learn", "numpy", "pandas", "pyarrow", "skops", "apache-airflow")
_SAVE_HINT = "build it from scikit-learn's classes and importable ones of your own; no lambdas, no inner functions"
_DAMAGED_HINT = "the file is damaged or was not written by this package: train again, or restore it from a backup"


def dump_model(model: Any, path: str | Path) -> None:
    """Write a fitted estimator to ``path``.

    :raises TrainingError: when it holds something that cannot be written, or found again by its name (a lambda).
    """
    path = Path(path)
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    try:
        skops.io.dump(model, path)
        own = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED_TYPES)
    except Exception as e:
        path.unlink(missing_ok=True)
        raise TrainingError(f"the model {name} cannot be saved: {e}", hint=_SAVE_HINT) from e
    # skops writes lambdas and inner functions by a name under which no process will find them.
    lost = sorted(t for t in own if not _importable(t))
    if lost:
        path.unlink()
        raise TrainingError(
            f"the model {name} cannot be saved: {', '.join(lost)} cannot be imported by that name", hint=_SAVE_HINT
        )


def load_model(path: str | Path, *, trusted: Sequence[str] = (), max_bytes: int = MAX_BYTES) -> Any:
    """Load an estimator; nothing of it is built before its size and every type in it were checked.

    :param trusted: dotted names of further types to build, from ``[mlops] trusted_types``.
    :param max_bytes: the most the file may unpack to.
    :raises UntrustedArtifact: when the file is too large, damaged, or holds a type that is not trusted.
    """
    path = Path(path)
    _check_size(path, max_bytes)
    allowed = {*TRUSTED_TYPES, *trusted}
    try:
        unknown = skops.io.get_untrusted_types(file=path)
    except Exception as e:
        raise UntrustedArtifact(f"the model file {path} cannot be read: {e}", hint=_DAMAGED_HINT) from e
    refused = sorted(set(unknown) - allowed)
    if refused:
        raise UntrustedArtifact(
            f"the model file {path} holds {len(refused)} type(s) that are not trusted: {', '.join(refused)}",
            hint=f"if you know them, add them to [mlops] trusted_types (comma-separated): {','.join(refused)}",
        )
    try:
        return skops.io.load(path, trusted=sorted(set(unknown)))
    except Exception as e:
        raise UntrustedArtifact(
            f"the model file {path} cannot be loaded with this environment: {type(e).__name__}: {e}",
            hint="compare the versions in the model's record with the installed ones; the model's own code must be "
            "importable here",
        ) from e


def store_model(store: Store, model: Any) -> dict[str, Any]:
    """Store a fitted estimator as a blob.

    :return: ``{"format", "digest", "bytes", "environment"}``, to go into the version's record.
    :raises TrainingError: when it cannot be saved.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "model.skops")
        dump_model(model, path)
        size = path.stat().st_size
        return {"format": FORMAT, "digest": put_blob_file(store, path), "bytes": size, "environment": environment()}


def foreign_types(path: str | Path) -> list[str]:
    """Types in a model file that neither skops nor this package trusts: whoever loads it must name them."""
    return sorted(set(untrusted_types(path)) - set(TRUSTED_TYPES))


def untrusted_types(path: str | Path) -> list[str]:
    """Types in a model file that skops does not trust by itself."""
    return sorted(set(skops.io.get_untrusted_types(file=Path(path))))


def fetch_model(store: Store, info: dict[str, Any], *, trusted: Sequence[str] = ()) -> Any:
    """Load the estimator that :func:`store_model` stored; its digest is verified before anything is read.

    :param info: what :func:`store_model` returned, from the version's record.
    :raises CorruptObject: when the bytes are not those that were registered.
    :raises UntrustedArtifact: as :func:`load_model`, and for an unknown format.
    """
    if info.get("format") != FORMAT:
        raise UntrustedArtifact(
            f"the model is in the format {info.get('format')!r}; this version loads {FORMAT!r} only",
            hint="upgrade airflow-mlops, or train again",
        )
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "model.skops")
        get_blob_file(store, info["digest"], path)
        return load_model(path, trusted=trusted)


def environment() -> dict[str, Any]:
    """Return what a model was made with: Python, platform, package versions (None: not installed)."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = package_version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": packages}


def _importable(dotted: str) -> bool:
    module, _, attribute = dotted.rpartition(".")
    return hasattr(sys.modules.get(module), attribute)


def _check_size(path: Path, max_bytes: int) -> None:
    """Refuse a zip bomb by what its directory announces; zipfile never unpacks more than that."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as e:
        raise UntrustedArtifact(f"the model file {path} cannot be read: {e}", hint=_DAMAGED_HINT) from e
    if size > max_bytes:
        raise UntrustedArtifact(
            f"the model file {path} ({path.stat().st_size:,} bytes) would unpack to {size:,} bytes; "
            f"the limit is {max_bytes:,}",
            hint="train a smaller model (fewer or shallower trees)",
        )
