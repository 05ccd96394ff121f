"""What is compared when a version is trained again, part by part."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from airflow_mlops.config.models import Data, Features, Train
from airflow_mlops.exceptions import CorruptObject, DataError, ObjectNotFound
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.registry.lineage import Answer, config_hash
from airflow_mlops.registry.released import RETENTION
from airflow_mlops.registry.version import Version
from airflow_mlops.store import get_blob_file
from airflow_mlops.store.base import Store

_LAST_DIGITS = 1e-6
_THREADS = (
    "the number of threads is not recorded; a few estimators, such as kernel methods, differ in the last digits with "
    "another one: try OMP_NUM_THREADS as it was then"
)


@dataclass(frozen=True)
class Finding:
    """How one part of a version compares: ``same``, ``different``, or ``unknown`` where it was not recorded.

    :param what: ``data``, ``config``, ``code``, ``env``, ``metrics``, ``predictions`` or ``model``.
    :param summary: a few words; may be empty.
    :param details: a sentence for each thing worth knowing.
    """

    what: str
    answer: Answer
    summary: str = ""
    details: tuple[str, ...] = ()


def look_at_data(store: Store, version: Version) -> Finding:
    """Look at every part of the snapshot; different where one is damaged or gone."""
    reference = version.record["snapshot"]
    digest = reference.get("snapshot")
    try:
        snapshot = Snapshot.load(store, reference)
        with tempfile.TemporaryDirectory(prefix="mlops-rerun-") as folder:
            for file in snapshot.files:
                get_blob_file(store, file.digest, Path(folder, "part"))
    except ObjectNotFound as e:
        if any(n.get("what") == "snapshot" and n.get("digest") == digest for n in version.notes.get(RETENTION, ())):
            return Finding("data", "different", "deleted by retention", ("its rows were deleted by retention",))
        gone = f"{e.message}: it was deleted by hand, or lost; restore it from a backup"
        return Finding("data", "different", "not in the store", (gone,))
    except (CorruptObject, DataError) as e:
        return Finding("data", "different", "damaged", (e.message,))
    columns = [[name, kind] for name, kind in snapshot.columns.items()]
    content = json.dumps([columns, [f.digest for f in snapshot.files]]).encode()
    fingerprint = hashlib.sha256(content).hexdigest()
    if {fingerprint, snapshot.fingerprint} != {reference.get("fingerprint")}:
        said = f"the fingerprint is {fingerprint[:12]}, and {str(reference.get('fingerprint'))[:12]} was recorded"
        return Finding("data", "different", "another fingerprint", (said,))
    return Finding("data", "same")


def read_config(record: dict[str, Any]) -> tuple[Finding, tuple[Data, Train, Features | None] | None]:
    """Check the recorded configuration and read it; None where this release cannot."""
    config = record["config"]
    if config_hash(config) != record["config_hash"]:
        said = "the recorded configuration does not have the recorded hash"
        return Finding("config", "different", "not what was hashed", (said,)), None
    try:
        features = Features.model_validate(config["features"]) if config.get("features") else None
        sections = Data.model_validate(config["data"]), Train.model_validate(config["train"]), features
    except (KeyError, ValueError) as e:
        why = "; ".join(str(e).splitlines()[:3])
        return Finding("config", "different", "this release cannot read it", (why,)), None
    if sections[1].seed != record["seed"]:
        said = f"the configuration says seed {sections[1].seed}, and {record['seed']} was recorded"
        return Finding("config", "different", "another seed", (said,)), None
    return Finding("config", "same"), sections


def compare_metrics(recorded: dict[str, float], now: Evaluation) -> tuple[dict[str, dict[str, float]], Finding]:
    """Compare metrics exactly; returns them with their differences, too."""
    return compare_values(recorded, {m.name: m.candidate for m in now.metrics})


def compare_values(recorded: dict[str, float], again: dict[str, float]) -> tuple[dict[str, dict[str, float]], Finding]:
    """:func:`compare_metrics` of metrics by name."""
    shared = {
        name: {"recorded": value, "now": again[name], "delta": again[name] - value}
        for name, value in recorded.items()
        if name in again
    }
    if not shared:
        return {}, Finding("metrics", "unknown", "no evaluation was recorded")
    details = tuple(
        f"{name} {m['recorded']!r} → {m['now']!r}, Δ={m['delta']:.3g}"
        for name, m in shared.items()
        if m["now"] != m["recorded"]
    )
    if details:
        tiny = all(abs(m["delta"]) <= _LAST_DIGITS * max(1.0, abs(m["recorded"])) for m in shared.values())
        hints = (_THREADS,) if tiny else ()
        largest = max((m["delta"] for m in shared.values()), key=abs)
        return shared, Finding("metrics", "different", f"Δ={largest:.3g}", (*details, *hints))
    return shared, Finding("metrics", "same", "Δ=0")


def compare_predictions(before: Evaluation | None, now: Evaluation) -> Finding:
    """Compare row by row what both models said."""
    if before is None:
        return Finding("predictions", "unknown", "not recorded")
    columns = [c for c in map(str, before.frame.columns) if c in ("row", "y") or c.startswith("candidate_")]
    if len(before.frame) != len(now.frame) or any(c not in now.frame for c in columns):
        said = f"the holdout had {len(before.frame):,} rows, and has {len(now.frame):,}"
        return Finding("predictions", "different", "another holdout", (said,))
    other = np.zeros(len(now.frame), dtype=bool)
    for column in columns:
        other |= before.frame[column].to_numpy() != now.frame[column].to_numpy()
    if other.any():
        said = f"{int(other.sum()):,} of {len(other):,} rows are predicted differently"
        return Finding("predictions", "different", f"{int(other.sum()):,} rows differ", (said,))
    return Finding("predictions", "same", f"{len(other):,} rows equal")


def compare_models(then: dict[str, Any], now: dict[str, Any], predictions: Finding) -> Finding:
    """Compare the bytes of two model files."""
    if then.get("digest") == now["digest"]:
        return Finding("model", "same", "same bytes")
    if predictions.answer == "same":
        return Finding("model", "different", "other bytes, same predictions")
    return Finding("model", "different", "other bytes")
