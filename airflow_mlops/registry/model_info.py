"""What a record says about its model, checked before a byte of the model is fetched."""

from __future__ import annotations

from typing import Any

from airflow_mlops.exceptions import UntrustedArtifact
from airflow_mlops.registry.formats import FORMAT, PICKLES
from airflow_mlops.registry.packs import PACK
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store import layout

RECORD_HINT = "its record was changed or was not written by this package: restore the store from a backup"


def check_info(info: dict[str, Any], verifier: Verifier, max_bytes: int) -> None:
    """Check what a record says about its model.

    :raises UntrustedArtifact: something is missing, not allowed or too large.
    """
    check_format(info.get("format"), (FORMAT, *PICKLES, PACK))
    if info["format"] == PACK:
        _check_packed(info, verifier, max_bytes)
    if info["format"] in PICKLES and not verifier.allow_pickle:
        raise UntrustedArtifact(
            f"the model is in the format {info['format']!r}, which can run code when it is loaded",
            hint="store it as skops, or set [mlops] allow_pickle: then it is loaded if a trusted key signed it",
        )
    _check_digest(info, "digest", "its file")
    size = info.get("bytes")
    if isinstance(size, bool) or not isinstance(size, int):
        raise UntrustedArtifact("the model's record does not say how large its file is", hint=RECORD_HINT)
    check_size(size, max_bytes)


def _check_packed(info: dict[str, Any], verifier: Verifier, max_bytes: int) -> None:
    """Check where a record says that its model lies, and what goes before it."""
    _check_digest(info, "pack", "its pack")
    entry, prepare = info.get("entry"), info.get("prepare", "")
    if isinstance(entry, bool) or not isinstance(entry, int) or entry < 0:
        raise UntrustedArtifact("the model's record does not say which entry of its pack it is", hint=RECORD_HINT)
    if prepare is None:
        return
    if not isinstance(prepare, dict):
        raise UntrustedArtifact("the model's record does not say which preparation goes before it", hint=RECORD_HINT)
    check_format(prepare.get("format"), (FORMAT,))
    check_info(prepare, verifier, max_bytes)


def _check_digest(info: dict[str, Any], name: str, of: str) -> None:
    try:
        layout.blob(info[name])
    except (KeyError, TypeError, ValueError) as e:
        raise UntrustedArtifact(f"the model's record names no sha256 of {of}", hint=RECORD_HINT) from e


def check_format(format: Any, known: tuple[str, ...] = (FORMAT, *PICKLES)) -> None:
    """Refuse a format that is not one of ``known``.

    :raises UntrustedArtifact: it is not.
    """
    if format not in known:
        raise UntrustedArtifact(
            f"the model is in the format {format!r}; this version knows {', '.join(known)}",
            hint="upgrade airflow-mlops, or train again",
        )


def check_size(size: int, max_bytes: int) -> None:
    """Refuse a model's file that is too large.

    :raises UntrustedArtifact: it is.
    """
    if size > max_bytes:
        raise UntrustedArtifact(
            f"the model's file has {size:,} bytes; the limit is {max_bytes:,}",
            hint="train a smaller model (fewer or shallower trees)",
        )
