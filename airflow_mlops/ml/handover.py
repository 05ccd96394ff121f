"""Model card and handover bundle of a registered version."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.exceptions import UntrustedArtifact
from airflow_mlops.ml.bundle import write_bundle
from airflow_mlops.ml.candidate_verdict import read_sample
from airflow_mlops.ml.card import card_of, note
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.registry.artifacts import FORMAT, fetch_model_file, foreign_types
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class Handover:
    """What a bundle is: its sha256, its files (name → sha256), the command that uses it, and its card."""

    digest: str
    files: dict[str, str]
    command: str
    card_html: str


def make_bundle(store: Store, version: Version, path: Path, *, verifier: Verifier | None = None) -> Handover:
    """Write the bundle of ``version`` to the zip file ``path``.

    :param verifier: whose signatures count; a signature that was verified goes into the bundle.
    :raises UntrustedArtifact: the model's signature is missing or wrong, or it is no skops file.
    :raises TrainingError: the environment lacks a package that the model needs.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        model = Path(folder, "model.skops")
        info, verifier = version.record["model"], verifier or Verifier()
        if info["format"] != FORMAT:
            raise UntrustedArtifact(
                f"{version.name} is in the format {info['format']!r}; a bundle holds models in skops only",
                hint="save the model as skops, and import it again",
            )
        signed_by = fetch_model_file(store, info, model, verifier=verifier, pipeline=version.pipeline, key=version.key)
        markdown, html = card_of(version, store, foreign=foreign_types(model))
        made = write_bundle(
            path,
            model_path=model,
            record=version.record,
            schema=FeatureSchema.from_dict(version.record["schema"]),
            sample=read_sample(store, note(version, "evaluation")["sample"]),
            card_md=markdown,
            card_html=html,
            signature=verifier.evidence(info, pipeline=version.pipeline, key=version.key) if signed_by else None,
        )
    return Handover(made["digest"], made["files"], made["command"], html)
