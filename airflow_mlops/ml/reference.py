"""What a version's drift checks compare with, made once and kept with the version.

One Parquet blob: a sample of rows to draw and to tell apart from others, and in the file's metadata the
profile that decides. It is named in the version's note ``evaluation``, so it lives as long as that does, also
after retention has released the rows it was made of.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.ml.drift_profile import Profile, column_profile
from airflow_mlops.ml.drift_values import to_numbers
from airflow_mlops.ml.evaluation import Evaluation
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.prediction import PREDICTION, PROBABILITY, SCORE, capture_kinds, likeliest
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import get_blob_file, put_blob_file
from airflow_mlops.store.base import Store

SAMPLE_ROWS = 5000
_SEED = 7
_META = b"airflow_mlops.reference"
_AGAIN = "train and evaluate again"


@dataclass(frozen=True)
class Reference:
    """A version's reference: the profile of all rows, and up to 5,000 of them in their order.

    Columns are the features that are not private, and what the version predicts; in ``sample`` predictions are
    missing outside the holdout.
    """

    profile: Profile
    sample: pd.DataFrame

    def to_parquet(self, path: str | Path) -> None:
        """Write the sample and, in the file's metadata, the profile; the same reference gives the same bytes."""
        table = pa.Table.from_pandas(self.sample, preserve_index=False)
        meta = json.dumps({"format": 1, **self.profile.to_dict()}, allow_nan=False).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _META: meta})
        pq.write_table(table, str(path), write_page_checksum=True, compression="zstd")

    @classmethod
    def from_parquet(cls, path: str | Path) -> Reference:
        """Read back what :meth:`to_parquet` wrote.

        :raises CorruptObject: when the file is damaged or something else.
        """
        try:
            table = pq.read_table(str(path), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as e:
            raise CorruptObject(f"the drift reference {path} cannot be read: {e}", hint=_AGAIN) from e
        if _META not in (table.schema.metadata or {}):
            raise CorruptObject(f"{path} is a Parquet file, but not a drift reference", hint=_AGAIN)
        return cls(Profile.from_dict(json.loads(table.schema.metadata[_META])), table.to_pandas())


class Columns(Protocol):
    """A frame of which one column is in memory at a time."""

    columns: list[str]

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, name: str) -> pd.Series:
        """Read one column."""


def make_reference(frame: pd.DataFrame | Columns, schema: FeatureSchema, times: pd.Series | None = None) -> Reference:
    """Profile what a version was trained on.

    :param frame: rows × (features, predictions); predictions are missing outside the holdout: on rows that it was
        trained on a model is surer of itself than on any new row, which would look like drift.
    :param times: the rows' times, in whose order the rows are put; default: their own order.
    """
    order = None
    if times is not None:
        order = np.argsort(to_numbers(times.reset_index(drop=True), "datetime"), kind="stable")
    rows = np.arange(len(frame)) if order is None else order
    if len(rows) > SAMPLE_ROWS:
        chosen = np.random.default_rng(_SEED).choice(len(rows), SAMPLE_ROWS, replace=False)
        rows = rows[np.sort(chosen)]
    columns, sample = {}, {}
    for name, kind in capture_kinds(schema, frame.columns).items():
        column = frame[name]
        values = column.iloc[order] if order is not None else column
        columns[name] = column_profile(values if name in schema.names else values.dropna(), kind)
        sample[name] = column.iloc[rows].reset_index(drop=True)
    return Reference(Profile(len(frame), columns), pd.DataFrame(sample))


def predicted(model: Any, evaluation: Evaluation, inputs: pd.DataFrame) -> dict[str, np.ndarray]:
    """What the candidate said about the holdout, in the columns of a capture, each of shape (n,).

    :param inputs: the holdout as the model takes it; it is asked again only where the evaluation did not need
        its classes.
    """
    said, classes = evaluation.predictions("candidate"), evaluation.classes
    if classes is None:
        return {PREDICTION: np.asarray(said.labels, dtype=np.float64)}
    codes = said.labels
    if codes is None and said.proba is not None and likeliest(model):
        codes = said.proba.argmax(axis=1)
    names = np.empty(len(classes), dtype=object)
    names[:] = classes
    columns = {PREDICTION: np.asarray(model.predict(inputs), dtype=object) if codes is None else names[codes]}
    if said.proba is not None and len(classes) == 2:
        columns[PROBABILITY] = said.proba[:, 1]
    elif said.proba is not None:
        columns |= {f"{PROBABILITY}_{c}": said.proba[:, i] for i, c in enumerate(classes)}
    elif said.decision is not None and len(classes) == 2:
        columns[SCORE] = said.decision
    return columns


def store_reference(store: Store, reference: Reference) -> str:
    """Keep the reference as a blob and return its digest; a second call changes nothing."""
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "reference.parquet")
        reference.to_parquet(path)
        return put_blob_file(store, path)


def load_reference(store: Store, version: Version) -> Reference | None:
    """The reference of a version, verified; ``None``: it was evaluated before references were kept, or never.

    :raises CorruptObject, ObjectNotFound: the blob is damaged or gone.
    """
    digests = [note["reference"] for note in version.notes.get("evaluation", []) if note.get("reference")]
    if not digests:
        return None
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "reference.parquet")
        get_blob_file(store, digests[-1], path)
        return Reference.from_parquet(path)
