"""Which rows of a snapshot count as training rows: the ones that the shards do not hold out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from airflow_mlops.config.models import Data, Fleet
from airflow_mlops.ml.data import write_snapshots
from airflow_mlops.ml.fleet.partition import Counts, bounds_of, divide, read_shard, training_rows, write_shards
from airflow_mlops.ml.splitting import Splitter
from airflow_mlops.store import LocalStore


@pytest.mark.parametrize("odd", [None, 0.5])
def test_training_rows_are_those_that_the_shards_do_not_hold_out(tmp_path: Path, odd: float | None) -> None:
    """Also where the snapshot has a gap, or a fraction, in a column that is whole in most shards."""
    rng, store = np.random.default_rng(0), LocalStore(tmp_path)
    keys = [f"K{i:02d}" for i in range(20)]
    numbers = [*rng.integers(0, 9, 1999).tolist(), odd]
    table = pa.table(
        {
            "k": np.repeat(keys, 100),
            "x": rng.normal(size=2000),
            "n": pa.array(numbers, pa.float64() if odd else pa.int64()),
            "y": rng.normal(size=2000),
        }
    )
    (snapshot,) = write_snapshots(
        store, "p", ((batch,) for batch in table.to_batches()), table.schema, window=None, sources=[{"kind": "t"}]
    )
    fleet, data = Fleet(key="k"), Data(source="s", target="y")
    counts = Counts(store, snapshot, fleet)
    shards = write_shards(
        store, snapshot, fleet, divide(counts.keys, 4), counts, parents=set(), seed=7, log=lambda *_: None
    )
    training = training_rows(store, snapshot, fleet, counts, data, 7)
    assert len(shards) == 4
    held = 0
    for shard in shards:
        frame = read_shard(store, shard)
        splitter = Splitter(frame, data, 7)
        for key, rows in bounds_of(shard).items():
            mask = splitter.mask(rows)
            first = 100 * keys.index(key)
            np.testing.assert_array_equal(mask, ~training[first : first + 100])
            held += int(mask.sum())
    assert 300 < held < 500
