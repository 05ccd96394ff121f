"""Models in the store: written as skops, signed where there is a key, and verified before anything is loaded."""

from __future__ import annotations

import hashlib
import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import CorruptObject, MLOpsError, UntrustedArtifact
from airflow_mlops.registry.formats import (
    FORMAT,
    MAX_BYTES,
    PICKLES,
    TRUSTED_TYPES,
    check_archive,
    dump_bytes,
    dump_model,
    foreign_types,
    load_model,
    load_signed,
    untrusted_types,
)
from airflow_mlops.registry.kind_reader import KindReader
from airflow_mlops.registry.kinds import Kind, join, split
from airflow_mlops.registry.lineage import thread_counts
from airflow_mlops.registry.model_info import RECORD_HINT, check_format, check_info, check_size
from airflow_mlops.registry.packs import PACK, PackReader, packs_of, write_pack
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.registry.version import Version
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json, file_digest, get_blob_file, put_blob_file

__all__ = [
    "FORMAT", "MAX_BYTES", "PACK", "PICKLES", "TRUSTED_TYPES", "dump_bytes", "dump_model", "environment",
    "fetch_model", "fetch_model_file", "fetch_models", "foreign_types", "load_model", "open_model", "store_foreign",
    "store_model", "store_models", "untrusted_types",
]  # fmt: skip

_PACKAGES = ("airflow-mlops", "scikit-learn", "numpy", "pandas", "pyarrow", "skops", "apache-airflow")


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


def store_models(
    store: Store,
    models: Sequence[tuple[str, bytes]],
    *,
    prepare: dict[str, Any] | None,
    kinds: Mapping[str, Kind] | None = None,
    signer: Signer | None = None,
    pipeline: str = "",
) -> dict[str, dict[str, Any]]:
    """Store models of a fleet in packs.

    :param models: key and bytes of each (:func:`~airflow_mlops.registry.formats.dump_bytes`, or
        :meth:`~airflow_mlops.registry.kinds.KindWriter.dump`); packs follow their order.
    :param prepare: what :func:`store_model` returned of the fitted preparation that goes before each of them, stored
        as the ``pipeline``'s without a key; None: they are whole.
    :param kinds: of those that are entries, by sha256.
    :param signer: signs each, with its preparation, as the model of ``pipeline`` and its key.
    :return: by key ``{"digest", "bytes", "pack", "entry"}`` and, where it is signed, ``signature``. With ``format``
        (``pack``), ``prepare`` and ``environment``, which all have in common, that is the model info of a record.
    :raises ValueError: a key is there twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for part in packs_of(models):
        pack = write_pack(store, part, kinds)
        for entry, (key, data) in enumerate(part):
            if key in found:
                raise ValueError(f"there are two models of {key!r}")
            own = {"digest": hashlib.sha256(data).hexdigest(), "bytes": len(data), "pack": pack, "entry": entry}
            if signer is not None:
                info = {"format": PACK, "prepare": prepare, **own}
                own["signature"] = signer.sign(info, pipeline=_named(pipeline), key=key)
            found[key] = own
    return found


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
    check_format(format)
    if format in PICKLES and signer is None:
        raise UntrustedArtifact(
            f"{path} is a {format} file, which can run code when it is loaded: it is not stored without a signature",
            hint="set [mlops] signing_key_file or signing_key_conn_id, or save the model as skops",
        )
    check_size(path.stat().st_size, MAX_BYTES)
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
    the signature, the size it unpacks to, and every type in it. A model of a pack comes as a ``Pipeline`` with the
    preparation that goes before it, which is checked likewise.

    :param info: what :func:`store_model` returned, from the version's record.
    :param verifier: whose signatures count; default: no key is known, and none is asked for.
    :param pipeline: whose model it must be; with ``key``, that of a fleet's.
    :raises CorruptObject: when the bytes are not those that were registered.
    :raises UntrustedArtifact: as :func:`load_model`, for an unknown format, and for a missing or wrong signature.
    """
    if info.get("format") == PACK:
        return _Packed(store, trusted, verifier, max_bytes).fetch(info, pipeline, key)
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "model")
        signed_by = fetch_model_file(
            store, info, path, verifier=verifier, pipeline=pipeline, key=key, max_bytes=max_bytes
        )
        return _load(path, info, verifier, signed_by, trusted, max_bytes)


def fetch_models(
    store: Store,
    versions: Iterable[Version],
    *,
    trusted: Sequence[str] = (),
    verifier: Verifier | None = None,
    max_bytes: int = MAX_BYTES,
    failed: Callable[[Version, MLOpsError], object] | None = None,
) -> Iterator[tuple[str | None, Any]]:
    """Load the estimators of many versions, with the checks of :func:`fetch_model`: each pack and preparation once.

    :param versions: of different keys.
    :param failed: told of each version that cannot be loaded, and why, in place of raising; an error that a retry
        can help with is raised all the same.
    :return: key and estimator, in the order of the packs.
    :raises CorruptObject, UntrustedArtifact: as :func:`fetch_model`.
    """

    packed = _Packed(store, trusted, verifier, max_bytes)
    todo: list[tuple[str, int, Version]] = []
    for version in versions:
        try:
            info = version.record.get("model") or {}
            if info.get("format") == PACK:
                check_info(info, verifier or Verifier(), max_bytes)
            todo.append((info.get("pack") or "", info.get("entry") or 0, version))
        except MLOpsError as e:
            _tell(failed, version, e)
    for _, _, version in sorted(todo, key=lambda item: item[:2]):
        try:
            info = version.record.get("model") or {}
            if info.get("format") == PACK:
                model = packed.fetch(info, version.pipeline, version.key)
            else:
                model = fetch_model(
                    store, info, trusted=trusted, verifier=verifier, pipeline=version.pipeline, key=version.key,
                    max_bytes=max_bytes,
                )  # fmt: skip
        except MLOpsError as e:
            _tell(failed, version, e)
        else:
            yield version.key, model


def _tell(failed: Callable[[Version, MLOpsError], object] | None, version: Version, error: MLOpsError) -> None:
    if failed is None or error.retryable:
        raise error
    failed(version, error)


class _Packed:
    """Loads models from packs, with the preparations they share."""

    def __init__(self, store: Store, trusted: Sequence[str], verifier: Verifier | None, max_bytes: int) -> None:
        self._store, self._trusted, self._verifier, self._max_bytes = store, trusted, verifier, max_bytes
        self._packs, self._kinds = PackReader(store), KindReader(trusted, max_bytes)
        self._prepared: dict[tuple[bytes, str | None], Any] = {}

    def fetch(self, info: dict[str, Any], pipeline: str | None, key: str | None) -> Any:
        """Load a model with its preparation before it."""
        kind, data, _ = _packed(self._packs, info, self._verifier, pipeline, key, self._max_bytes)
        prepare = info["prepare"] and self._prepare(info["prepare"], pipeline)
        if kind is None:
            return _composed(prepare, load_model(data, trusted=self._trusted, max_bytes=self._max_bytes))
        return _composed(prepare, self._kinds.load(kind, data))

    def _prepare(self, info: dict[str, Any], pipeline: str | None) -> Any:
        said = canonical_json(info), pipeline
        if said not in self._prepared:
            self._prepared[said] = fetch_model(
                self._store, info, trusted=self._trusted, verifier=self._verifier, pipeline=pipeline,
                max_bytes=self._max_bytes,
            )  # fmt: skip
        return self._prepared[said]


def _packed(
    packs: PackReader,
    info: dict[str, Any],
    verifier: Verifier | None,
    pipeline: str | None,
    key: str | None,
    max_bytes: int,
) -> tuple[Kind | None, bytes, str | None]:
    """Kind and bytes of a model in a pack, with size, key, digest and signature verified, and who signed it."""
    check_info(info, verifier or Verifier(), max_bytes)
    kind, data = packs.parts(info, key, pipeline=pipeline or "", max_bytes=max_bytes)
    return kind, data, (verifier or Verifier()).check(info, pipeline=pipeline, key=key)


def _composed(prepare: Any, model: Any) -> Any:
    from sklearn.pipeline import Pipeline

    return model if prepare is None else Pipeline([("prepare", prepare), ("model", model)])


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

    Of a model in a pack that is its own file, without the preparation that goes before it.

    :return: id of the key that signed it.
    :raises CorruptObject: as :func:`fetch_model`.
    :raises UntrustedArtifact: as :func:`fetch_model`.
    """
    if info.get("format") == PACK:
        kind, data, signed_by = _packed(PackReader(store), info, verifier, pipeline, key, max_bytes)
        path.write_bytes(data if kind is None else join(kind, data, max_bytes=max_bytes))
        return signed_by
    check_info(info, verifier or Verifier(), max_bytes)
    get_blob_file(store, info["digest"], path)
    return _verify(path.stat().st_size, info, verifier or Verifier(), pipeline, key)


def fetch_model_files(
    store: Store, versions: Iterable[Version], *, verifier: Verifier | None = None, max_bytes: int = MAX_BYTES
) -> Iterator[tuple[Version, bytes]]:
    """Yield many versions with their models' files, as :func:`fetch_model_file` writes one: each pack is read once.

    :param versions: of different keys; each in a pack.
    :raises CorruptObject, UntrustedArtifact: as :func:`fetch_model_file`.
    """
    packs = PackReader(store)
    for version in sorted(versions, key=lambda v: (v.record["model"]["pack"], v.record["model"]["entry"])):
        info = version.record["model"]
        kind, data, _ = _packed(packs, info, verifier, version.pipeline, version.key, max_bytes)
        yield version, data if kind is None else join(kind, data, max_bytes=max_bytes)


def open_model(
    path: str | Path,
    info: dict[str, Any],
    *,
    trusted: Sequence[str] = (),
    verifier: Verifier | None = None,
    pipeline: str | None = None,
    key: str | None = None,
    prepare: str | Path | None = None,
) -> Any:
    """Load a model's file that is at hand, with the checks of :func:`fetch_model`.

    :param prepare: of a model of a pack, the file of the preparation that goes before it.
    """
    path = Path(path)
    check_info(info, verifier or Verifier(), MAX_BYTES)
    digest, size = file_digest(path), path.stat().st_size
    if digest != info["digest"] and info["format"] == PACK:
        digest, size = _entry_of(path) or (digest, size)
    if digest != info["digest"]:
        raise CorruptObject(
            f"the model file {path} is not the one that was registered: its sha256 is {digest}", hint=RECORD_HINT
        )
    signed_by = _verify(size, info, verifier or Verifier(), pipeline, key)
    model = _load(path, info, verifier, signed_by, trusted, MAX_BYTES)
    if info["format"] != PACK or info["prepare"] is None:
        return model
    if prepare is None:
        raise UntrustedArtifact(
            f"the file of the preparation that goes before the model file {path} is missing",
            hint="pass prepare=, the file that was written beside the model's",
        )
    return _composed(open_model(prepare, info["prepare"], trusted=trusted, verifier=verifier, pipeline=pipeline), model)


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
        info["signature"] = signer.sign(info, pipeline=_named(pipeline), key=key)
    return info


def _named(pipeline: str) -> str:
    if not pipeline:
        raise ValueError("a model is signed as that of a pipeline: pass its name")
    return pipeline


def _entry_of(path: Path) -> tuple[str, int] | None:
    """Sha256 and size of the entry that a pack has of a model's file; ``None`` where the file is no such model's."""
    check_archive(f"the model file {path}", path, MAX_BYTES)
    parts = split(path.read_bytes())
    return parts and (hashlib.sha256(parts[1]).hexdigest(), len(parts[1]))


def _verify(size: int, info: dict[str, Any], verifier: Verifier, pipeline: str | None, key: str | None) -> str | None:
    if size != info["bytes"]:
        raise UntrustedArtifact(
            f"the model's file has {size:,} bytes and its record says {info['bytes']:,}",
            hint=RECORD_HINT,
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
    if info["format"] in (FORMAT, PACK):
        return load_model(path, trusted=trusted, max_bytes=max_bytes)
    return load_signed(path, info["format"], signed_by=signed_by, allowed=(verifier or Verifier()).allow_pickle)
