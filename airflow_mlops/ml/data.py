"""Everything about a run's data in one place: read it, copy it into a snapshot, look at it."""

from __future__ import annotations

from airflow_mlops.ml.profile import profile, profile_html
from airflow_mlops.ml.reading import SourceBatches, read_batches, render_source
from airflow_mlops.ml.snapshot import Snapshot, take_snapshot, write_snapshots
from airflow_mlops.ml.snapshot_writer import SnapshotFile

__all__ = [
    "Snapshot",
    "SnapshotFile",
    "SourceBatches",
    "profile",
    "profile_html",
    "read_batches",
    "render_source",
    "take_snapshot",
    "write_snapshots",
]
