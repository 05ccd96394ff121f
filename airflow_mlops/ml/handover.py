"""Model card and handover bundle of a registered version."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.ml.bundle import write_bundle
from airflow_mlops.ml.candidate import read_sample
from airflow_mlops.ml.card import card_of, note
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.registry.artifacts import foreign_types
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import get_blob_file
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class Handover:
    """What a bundle is: its sha256, its files (name → sha256), the command that uses it, and its card."""

    digest: str
    files: dict[str, str]
    command: str
    card_html: str


def make_bundle(store: Store, version: Version, path: Path) -> Handover:
    """Write the bundle of ``version`` to the zip file ``path``.

    :raises TrainingError: the environment lacks a package that the model needs.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        model = Path(folder, "model.skops")
        get_blob_file(store, version.record["model"]["digest"], model)
        markdown, html = card_of(version, foreign=foreign_types(model))
        made = write_bundle(
            path,
            model_path=model,
            record=version.record,
            schema=FeatureSchema.from_dict(version.record["schema"]),
            sample=read_sample(store, note(version, "evaluation")["sample"]),
            card_md=markdown,
            card_html=html,
        )
    return Handover(made["digest"], made["files"], made["command"], html)
