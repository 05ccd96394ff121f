"""Model files: skops, which cannot run code, and pickle and joblib, which can and are read only when signed."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from airflow_mlops.exceptions import TrainingError, UntrustedArtifact
from airflow_mlops.registry.reproducible import rewrite

with warnings.catch_warnings():
    # While it is imported, skops looks for each of scipy's functions in every loaded module, and some of Airflow's
    # answer each look with a deprecation warning: thousands of lines in a task's log.
    warnings.simplefilter("ignore")
    import skops.io

FORMAT = "skops"
"""What training writes."""

PICKLES = ("pickle", "joblib")
"""Formats that run code while they are read."""

MAX_BYTES = 2 << 30

_ENTRY = re.compile(r"[A-Za-z0-9_-]+\.[a-z]+")

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

_SAVE_HINT = "build it from scikit-learn's classes and importable ones of your own; no lambdas, no inner functions"
_DAMAGED_HINT = "the file is damaged or was not written by this package: train again, or restore it from a backup"
_LOAD_HINT = (
    "compare the versions in the model's record with the installed ones; the model's own code must be importable here"
)


def dump_model(model: Any, path: str | Path) -> None:
    """Write a fitted estimator to ``path``; equal estimators give equal bytes.

    :raises TrainingError: when it holds something that cannot be written, or found again by its name (a lambda).
    """
    path = Path(path)
    try:
        with _saving(model), path.open("w+b") as file:
            _dump(model, file)
    except TrainingError:
        path.unlink(missing_ok=True)
        raise


def dump_bytes(model: Any) -> bytes:
    """Return what :func:`dump_model` writes, for many small estimators.

    :raises TrainingError: as :func:`dump_model`.
    """
    with _saving(model):
        buffer = io.BytesIO()
        _dump(model, buffer)
        return buffer.getvalue()


@contextmanager
def _saving(model: Any) -> Iterator[None]:
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    try:
        yield
    except _Lost as e:
        raise TrainingError(
            f"the model {name} cannot be saved: {e} cannot be imported by that name", hint=_SAVE_HINT
        ) from None
    except Exception as e:
        raise TrainingError(f"the model {name} cannot be saved: {e}", hint=_SAVE_HINT) from e


class _Lost(Exception):
    """Names under which nothing can be found again."""


def _dump(model: Any, target: IO[bytes]) -> None:
    buffer = io.BytesIO()
    skops.io.dump(model, buffer)
    kind = _kind(rewrite(buffer, target))
    if kind in _SOUND:
        return
    own = set(skops.io.get_untrusted_types(file=cast("Path", target))) - set(TRUSTED_TYPES)
    # skops writes lambdas and inner functions by a name under which no process will find them.
    if lost := sorted(t for t in own if not _importable(t)):
        raise _Lost(", ".join(lost))
    while len(_SOUND) >= _MOST_SOUND:
        _SOUND.pop(next(iter(_SOUND)), None)
    _SOUND[kind] = None


_MOST_SOUND = 256
_SOUND: dict[bytes, None] = {}
"""What kinds of models were found to hold nothing but types that can be imported."""

_VALUES = re.compile(rb'"content":"(?:[^"\\]|\\.)*"|"__id__":\d+')


def _kind(schema: bytes) -> bytes:
    """What models have in common that consist of the same types in the same places: their schemas without values."""
    # Of a random generator a value names a type.
    bare = schema if b'"RandomGeneratorNode"' in schema else _VALUES.sub(b"", schema)
    return hashlib.sha256(bare).digest()


def load_model(
    source: str | Path | bytes | BinaryIO, *, trusted: Sequence[str] = (), max_bytes: int = MAX_BYTES
) -> Any:
    """Load an estimator from a skops file; nothing of it is built before its size and every type in it were checked.

    :param source: path, or the file's bytes, or an open file.
    :param trusted: dotted names of further types to build, from ``[mlops] trusted_types``.
    :param max_bytes: the most the file may unpack to.
    :raises UntrustedArtifact: when the file is too large, damaged, or holds a type that is not trusted.
    """
    name, file = _opened(source)
    check_archive(name, file, max_bytes)
    allowed = {*TRUSTED_TYPES, *trusted}
    try:
        unknown = untrusted_types(file)
    except Exception as e:
        raise UntrustedArtifact(f"{name} cannot be read: {e}", hint=_DAMAGED_HINT) from e
    refused = sorted(set(unknown) - allowed)
    if refused:
        raise UntrustedArtifact(
            f"{name} holds {len(refused)} type(s) that are not trusted: {', '.join(refused)}",
            hint=f"if you know them, add them to [mlops] trusted_types (comma-separated): {','.join(refused)}",
        )
    try:
        return skops.io.load(file, trusted=unknown)
    except Exception as e:
        raise _not_loaded(name, e) from e


def _opened(source: str | Path | bytes | BinaryIO) -> tuple[str, Any]:
    """What messages call a model file, and what zipfile and skops take."""
    if isinstance(source, (str, Path)):
        return f"the model file {source}", Path(source)
    return "the model file", io.BytesIO(source) if isinstance(source, bytes) else source


def load_signed(path: Path, format: str, *, signed_by: str | None, allowed: bool) -> Any:
    """Load a pickle or joblib file: the only place that does, and it runs whatever the file says.

    :param signed_by: id of the trusted key whose signature of these bytes was verified.
    :param allowed: ``[mlops] allow_pickle``.
    :raises UntrustedArtifact: it is not signed, not allowed, or cannot be loaded.
    """
    if not signed_by or not allowed:
        raise UntrustedArtifact(
            f"the model is in the format {format!r}, which can run code when it is loaded",
            hint="store it as skops; or sign it, trust that key and set [mlops] allow_pickle where it is loaded",
        )
    try:
        if format == "joblib":
            import joblib

            return joblib.load(path)
        with path.open("rb") as file:
            return pickle.load(file)  # noqa: S301 - signed by a trusted key
    except Exception as e:
        raise _not_loaded(f"the model file {path}", e) from e


def foreign_types(path: str | Path) -> list[str]:
    """Types in a model file that neither skops nor this package trusts: whoever loads it must name them."""
    return sorted(set(untrusted_types(path)) - set(TRUSTED_TYPES))


def untrusted_types(path: str | Path | BinaryIO) -> list[str]:
    """Types in a model file that skops does not trust by itself."""
    file = Path(path) if isinstance(path, str) else path
    return sorted(set(skops.io.get_untrusted_types(file=cast("Path", file))))


def _not_loaded(name: str, error: Exception) -> UntrustedArtifact:
    return UntrustedArtifact(
        f"{name} cannot be loaded with this environment: {type(error).__name__}: {error}",
        hint=_LOAD_HINT,
    )


def _importable(dotted: str) -> bool:
    module, _, attribute = dotted.rpartition(".")
    return hasattr(sys.modules.get(module), attribute)


def check_archive(name: str, file: Path | BinaryIO, max_bytes: int) -> None:
    """Refuse a zip bomb by what its directory announces (zipfile never unpacks more), and names skops does not write.

    :raises UntrustedArtifact: it is too large, no zip, or an entry is there twice or lies in a folder.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as e:
        raise UntrustedArtifact(f"{name} cannot be read: {e}", hint=_DAMAGED_HINT) from e
    size = sum(item.file_size for item in items)
    if size > max_bytes:
        packed = file.stat().st_size if isinstance(file, Path) else file.seek(0, io.SEEK_END)
        raise UntrustedArtifact(
            f"{name} ({packed:,} bytes) would unpack to {size:,} bytes; the limit is {max_bytes:,}",
            hint="train a smaller model (fewer or shallower trees)",
        )
    names = [item.filename for item in items]
    strange = [entry for entry in names if not _ENTRY.fullmatch(entry)]
    if strange or len(set(names)) < len(names):
        raise UntrustedArtifact(
            f"{name} cannot be read: " + (f"it has the entry {strange[0]!r}" if strange else "an entry is there twice"),
            hint=_DAMAGED_HINT,
        )
