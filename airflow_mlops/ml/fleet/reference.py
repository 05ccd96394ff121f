"""What the drift checks of a fleet's keys compare with: of each key at most 500 rows, one file for a whole shard.

The check looks at no more rows of a key than that (:data:`~airflow_mlops.ml.fleet.drift.MOST_ROWS`), so it says of
these what it would say of all. Exact p-values need the rows themselves: of quantiles or counts ties are not known, and
of 100,000 tests those decide whose p-value is far below 1e-5. Private columns are left out, as from the reference of a
single model.

A reference is kept for as long as a version that names it serves, is the newest of its key, or would serve after a
rollback; then garbage collection takes it (:func:`airflow_mlops.registry.released.released_references`).

How far rows hang together is measured on all rows of the training, before some are chosen: those that are kept lie far
apart in time, the rows of a window that is compared with them do not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.ml.drift_values import to_numbers
from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.ml.fleet.dependence import dependence_of
from airflow_mlops.ml.fleet.drift import thinned
from airflow_mlops.ml.prediction import to_arrow
from airflow_mlops.store import get_blob_file, get_json, put_blob_file, put_json
from airflow_mlops.store.base import Store

REFERENCE = "reference"
"""Field of a version's record with the digest of its reference."""
_KEY = "airflow_mlops.key"


def keep_reference(
    store: Store, inputs: pd.DataFrame, schema: FeatureSchema, counts: Mapping[str, int], times: pd.Series | None = None
) -> str:
    """Keep some rows of each key, in the order of their time; return the digest of what names them.

    :param inputs: rows × features as :meth:`FeatureSchema.check` returns them, ordered by key.
    :param counts: rows by key, in their order.
    :param times: when the rows were, in whose order they are put; default: their own order.
    """
    of_row = np.repeat(np.arange(len(counts)), [*counts.values()])
    order = np.arange(len(inputs))
    if times is not None:
        order = np.lexsort((to_numbers(times, "datetime"), of_row))
    starts = np.concatenate([[0], np.cumsum([*counts.values()])]).astype(np.int64)
    rows = order[thinned(starts)]
    kinds = {f.name: f.kind for f in schema.features if not f.private}
    keys = pa.DictionaryArray.from_arrays(pa.array(of_row[rows], pa.int32()), pa.array([*counts], pa.string()))
    columns = {name: to_arrow(inputs[name].iloc[rows], kind) for name, kind in kinds.items()}
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        path = Path(folder, "reference.parquet")
        table = pa.table({_KEY: keys, **columns})
        pq.write_table(table, path, compression="zstd", write_statistics=False, write_page_checksum=True)
        file = put_blob_file(store, path)
    # In a blob of its own: what garbage collection releases are the rows that this one names.
    worth = {name: [*dependence_of(inputs[name].iloc[order], kind, starts)] for name, kind in kinds.items()}
    return put_json(
        store, {"kind": "fleet reference", "format": 1, "columns": kinds, "dependence": worth, "file": file}
    )


def read_reference(store: Store, digest: str) -> tuple[pd.DataFrame, dict[str, slice]]:
    """Return the rows (rows × features), and where those of each key lie.

    :raises CorruptObject, ObjectNotFound: it is damaged or gone.
    """
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        path = Path(folder, "reference.parquet")
        get_blob_file(store, get_json(store, digest)["file"], path)
        try:
            table = pq.read_table(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as e:
            raise CorruptObject(f"the reference {digest} cannot be read: {e}", hint="train these keys again") from e
    keys = table[_KEY].cast(pa.string()).to_numpy()
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.zeros(0, int)
    ends = [*begins[1:].tolist(), len(keys)]
    places = {str(keys[begin]): slice(begin, end) for begin, end in zip(begins.tolist(), ends, strict=False)}
    return table.drop_columns([_KEY]).to_pandas(), places


def reference_kinds(store: Store, digest: str) -> dict[str, str]:
    """Return the kind of each column of a reference."""
    return dict(get_json(store, digest)["columns"])


def reference_dependence(store: Store, digest: str) -> dict[str, tuple[float, float]]:
    """Return of each column how many neighbouring training rows are worth one: of its values, and of its gaps."""
    return {name: (values, gaps) for name, (values, gaps) in get_json(store, digest)["dependence"].items()}
