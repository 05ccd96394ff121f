"""A version as files that are read without this package: the model, its record as JSON, its card."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_mlops.exceptions import ConfigError, ObjectNotFound
from airflow_mlops.registry.artifacts import FORMAT, PACK, fetch_model_file
from airflow_mlops.registry.provenance import bare
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.registry.version import Version, model_name
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_blob, readable_json

_ENDINGS = {"pickle": "pkl", PACK: FORMAT}
_CARDS = {"markdown": "card.md", "html": "card.html"}


def told(version: Version) -> dict[str, Any]:
    """Everything the registry says about a version, as plain JSON; without credentials in addresses."""
    said: dict[str, Any] = without_credentials(
        {
            "pipeline": version.pipeline,
            "key": version.key,
            "version": version.number,
            "status": version.status,
            "registered_at": version.registered_at,
            "promoted_at": version.promoted_at,
            "tags": version.tags,
            "metrics": version.metrics,
            "record": version.record,
            "notes": version.notes,
        }
    )
    return said


def without_credentials(value: Any) -> Any:
    """Plain JSON, with user, password and query left out of every address in it."""
    if isinstance(value, dict):
        return {k: without_credentials(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_credentials(v) for v in value]
    return bare(value) if isinstance(value, str) else value


def card_of(version: Version) -> dict[str, str]:
    """Digests of the version's newest card, by format; empty where none was made."""
    notes = version.notes.get("card") or [{}]
    return {kind: str(notes[-1][kind]) for kind in _CARDS if notes[-1].get(kind)}


def export_version(store: Store, version: Version, folder: Path, *, verifier: Verifier | None = None) -> Path:
    """Write ``folder/<pipeline>-v<number>``: ``model.skops`` (or ``.joblib``, ``.pkl``), ``record.json``, the card.

    The model's size, digest and signature are verified; nothing is loaded. The folder appears whole or not at all. Of a
    fleet's model ``prepare.skops`` is what goes before it: ``predict(x)`` is ``model.predict(prepare.transform(x))``.

    :param folder: made if it is not there.
    :return: the folder of the version.
    :raises ConfigError: it is there already, or cannot be written.
    :raises CorruptObject, UntrustedArtifact: as :func:`~airflow_mlops.registry.artifacts.fetch_model_file`.
    """
    name = quote(model_name(version.pipeline, version.key), safe="[] ", errors="surrogatepass")
    place = folder / f"{name}-v{version.number}"
    if place.exists():
        raise ConfigError(f"{place} is there already", hint="remove it, or choose another folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".exporting-", dir=folder))
    except OSError as e:
        raise ConfigError(f"{folder} cannot be written: {e.strerror}", hint="choose another folder with -o") from e
    try:
        info = version.record["model"]
        ending = _ENDINGS.get(str(info.get("format")), str(info.get("format")))
        fetch_model_file(
            store, info, made / f"model.{ending}", verifier=verifier, pipeline=version.pipeline, key=version.key
        )
        if info.get("format") == PACK and info["prepare"]:
            fetch_model_file(
                store, info["prepare"], made / f"prepare.{FORMAT}", verifier=verifier, pipeline=version.pipeline
            )
        record = readable_json(told(version))
        (made / "record.json").write_text(record + "\n", "utf-8")
        for kind, digest in card_of(version).items():
            try:
                (made / _CARDS[kind]).write_bytes(get_blob(store, digest))
            except ObjectNotFound:
                continue  # a card is made again by the next gates; the model is what counts
        made.chmod(0o755)
        made.rename(place)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return place
