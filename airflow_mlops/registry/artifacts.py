"""Models in the store: written as skops, signed where there is a key, and verified before anything is loaded."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import CorruptObject, UntrustedArtifact
from airflow_mlops.registry.formats import (
    FORMAT,
    MAX_BYTES,
    PICKLES,
    TRUSTED_TYPES,
    dump_model,
    foreign_types,
    load_model,
    load_signed,
    untrusted_types,
)
from airflow_mlops.registry.lineage import thread_counts
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import file_digest, get_blob_file, put_blob_file

__all__ = [
    "FORMAT", "MAX_BYTES", "PICKLES", "TRUSTED_TYPES", "dump_model", "environment", "fetch_model", "fetch_model_file",
    "foreign_types", "load_model", "open_model", "store_foreign", "store_model", "untrusted_types",
]  # fmt: skip

_PACKAGES = ("airflow-mlops", "scikit-learn", "numpy", "pandas", "pyarrow", "skops", "apache-airflow")
_RECORD_HINT = "its record was changed or was not written by this package: restore the store from a backup"


def store_model(
    store: Store, model: Any, *, signer: Signer | None = None, pipeline: str = "", key: str | None = None
) -> dict[str, Any]:
    """Store a fitted estimator as a blob.

    :param signer: signs it as the model of ``pipeline``, and of ``key`` within a fleet.
    :return: ``{"format", "digest", "bytes", "environment"}`` and, where it is signed, ``signature``, to go into
        the version's record.
    :raises TrainingError: when it cannot be saved.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "model.skops")
        dump_model(model, path)
        info = _store(store, path, FORMAT, signer, pipeline, key)
    return {**info, "environment": environment()}


def store_foreign(
    store: Store, path: str | Path, format: str, signer: Signer | None, *, pipeline: str, key: str | None = None
) -> dict[str, Any]:
    """Store a model file that was made elsewhere as it is; it is not opened.

    :param format: ``skops``, ``pickle`` or ``joblib``.
    :param signer: who answers for it; a pickle or joblib file cannot be loaded without a signature.
    :return: as :func:`store_model`, without ``environment``: nobody knows what it was made with.
    :raises UntrustedArtifact: for another format, a file that is too large, or one that runs code and is not signed.
    """
    path = Path(path)
    _check_format(format)
    if format in PICKLES and signer is None:
        raise UntrustedArtifact(
            f"{path} is a {format} file, which can run code when it is loaded: it is not stored without a signature",
            hint="set [mlops] signing_key_file or signing_key_conn_id, or save the model as skops",
        )
    _check_size(path.stat().st_size, MAX_BYTES)
    return _store(store, path, format, signer, pipeline, key)


def fetch_model(
    store: Store,
    info: dict[str, Any],
    *,
    trusted: Sequence[str] = (),
    verifier: Verifier | None = None,
    pipeline: str | None = None,
    key: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Load the estimator of a version's record.

    What is checked, in this order, before anything is built of it: the size it announces, the digest of its bytes,
    the signature, the size it unpacks to, and every type in it.

    :param info: what :func:`store_model` returned, from the version's record.
    :param verifier: whose signatures count; default: no key is known, and none is asked for.
    :param pipeline: whose model it must be; with ``key``, that of a fleet's.
    :raises CorruptObject: when the bytes are not those that were registered.
    :raises UntrustedArtifact: as :func:`load_model`, for an unknown format, and for a missing or wrong signature.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "model")
        signed_by = fetch_model_file(
            store, info, path, verifier=verifier, pipeline=pipeline, key=key, max_bytes=max_bytes
        )
        return _load(path, info, verifier, signed_by, trusted, max_bytes)


def fetch_model_file(
    store: Store,
    info: dict[str, Any],
    path: Path,
    *,
    verifier: Verifier | None = None,
    pipeline: str | None = None,
    key: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> str | None:
    """Write the model's file to ``path``, with its announced size, digest and signature verified; load nothing.

    :return: id of the key that signed it.
    :raises CorruptObject: as :func:`fetch_model`.
    :raises UntrustedArtifact: as :func:`fetch_model`.
    """
    _check_info(info, verifier or Verifier(), max_bytes)
    get_blob_file(store, info["digest"], path)
    return _verify(path, info, verifier or Verifier(), pipeline, key)


def open_model(
    path: str | Path,
    info: dict[str, Any],
    *,
    trusted: Sequence[str] = (),
    verifier: Verifier | None = None,
    pipeline: str | None = None,
    key: str | None = None,
) -> Any:
    """Load a model's file that is at hand, with the checks of :func:`fetch_model`."""
    path = Path(path)
    _check_info(info, verifier or Verifier(), MAX_BYTES)
    digest = file_digest(path)
    if digest != info["digest"]:
        raise CorruptObject(
            f"the model file {path} is not the one that was registered: its sha256 is {digest}", hint=_RECORD_HINT
        )
    signed_by = _verify(path, info, verifier or Verifier(), pipeline, key)
    return _load(path, info, verifier, signed_by, trusted, MAX_BYTES)


def environment() -> dict[str, Any]:
    """Return what a model was made with: Python, platform, package versions (None: not installed), threads."""
    packages: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            packages[name] = package_version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "threads": thread_counts(),
    }


def _store(
    store: Store, path: Path, format: str, signer: Signer | None, pipeline: str, key: str | None
) -> dict[str, Any]:
    info: dict[str, Any] = {"format": format, "digest": put_blob_file(store, path), "bytes": path.stat().st_size}
    if signer is not None:
        if not pipeline:
            raise ValueError("a model is signed as that of a pipeline: pass its name")
        info["signature"] = signer.sign(info, pipeline=pipeline, key=key)
    return info


def _check_info(info: dict[str, Any], verifier: Verifier, max_bytes: int) -> None:
    """Check what a record says about its model, before a byte of it is fetched."""
    _check_format(info.get("format"))
    if info["format"] in PICKLES and not verifier.allow_pickle:
        raise UntrustedArtifact(
            f"the model is in the format {info['format']!r}, which can run code when it is loaded",
            hint="store it as skops, or set [mlops] allow_pickle: then it is loaded if a trusted key signed it",
        )
    try:
        layout.blob(info["digest"])
    except (KeyError, TypeError, ValueError) as e:
        raise UntrustedArtifact("the model's record names no sha256 of its file", hint=_RECORD_HINT) from e
    size = info.get("bytes")
    if isinstance(size, bool) or not isinstance(size, int):
        raise UntrustedArtifact("the model's record does not say how large its file is", hint=_RECORD_HINT)
    _check_size(size, max_bytes)


def _check_format(format: Any) -> None:
    if format not in (FORMAT, *PICKLES):
        raise UntrustedArtifact(
            f"the model is in the format {format!r}; this version knows {', '.join((FORMAT, *PICKLES))}",
            hint="upgrade airflow-mlops, or train again",
        )


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UntrustedArtifact(
            f"the model's file has {size:,} bytes; the limit is {max_bytes:,}",
            hint="train a smaller model (fewer or shallower trees)",
        )


def _verify(path: Path, info: dict[str, Any], verifier: Verifier, pipeline: str | None, key: str | None) -> str | None:
    if path.stat().st_size != info["bytes"]:
        raise UntrustedArtifact(
            f"the model's file has {path.stat().st_size:,} bytes and its record says {info['bytes']:,}",
            hint=_RECORD_HINT,
        )
    return verifier.check(info, pipeline=pipeline, key=key)


def _load(
    path: Path,
    info: dict[str, Any],
    verifier: Verifier | None,
    signed_by: str | None,
    trusted: Sequence[str],
    max_bytes: int,
) -> Any:
    if info["format"] == FORMAT:
        return load_model(path, trusted=trusted, max_bytes=max_bytes)
    return load_signed(path, info["format"], signed_by=signed_by, allowed=(verifier or Verifier()).allow_pickle)
