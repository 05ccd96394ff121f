"""Some keys of a fleet in the place of all rows: which, how many rows of each, and the same ones each time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data, Fleet
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.fleet.sampling import SampledKeys, choose_keys
from airflow_mlops.ml.reading import read_batches

COUNTS = st.dictionaries(st.text("abcé/*", min_size=1, max_size=4), st.integers(1, 3000), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(COUNTS, st.integers(50, 9000), st.integers(0, 5))
def test_the_keys_of_a_sample(counts: dict[str, int], rows: int, seed: int) -> None:
    chosen = choose_keys(counts, rows, seed, min_rows=50)
    assert sum(chosen.values()) <= rows
    assert all(0 < many <= counts[key] for key, many in chosen.items())
    enough = {key for key, many in counts.items() if many >= 50}
    if sum(counts.values()) <= rows:
        assert chosen == counts
    elif enough:
        # Each key that can have a model can have one in the sample, and at most one other is in it.
        assert enough & set(chosen)
        assert all(chosen[key] >= 50 for key in enough & set(chosen))
        assert len(set(chosen) - enough) <= 1
        assert not set(chosen) - enough or all(chosen[key] == counts[key] for key in set(chosen) - enough)
    assert choose_keys(dict(reversed(counts.items())), rows, seed, min_rows=50) == chosen


def test_which_keys_come_first() -> None:
    counts = {f"k{n}": 1000 for n in range(100)} | {"few": 20, "fewer": 10}
    chosen = choose_keys(counts, 5000, 7, min_rows=50)
    # About 500 rows of each, and one key that a parent serves.
    assert (len(chosen), len({"few", "fewer"} & set(chosen))) == (10, 1)
    # A key that is new takes the place of one at most.
    assert len(set(choose_keys(counts | {"new": 1000}, 5000, 7, min_rows=50)) & set(chosen)) >= 10
    assert set(choose_keys(counts, 5000, 8, min_rows=50)) != set(chosen)
    assert {"k5", "k77"} <= set(choose_keys(counts, 1200, 7, min_rows=50, wanted=["k5", "k77", "none"]))
    with pytest.raises(ConfigError, match="a sample of 40 rows is no sample of this fleet"):
        choose_keys(counts, 40, 7, min_rows=50)


def test_the_rows_of_a_sample_are_the_same_however_they_come(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    routes = rng.permutation(np.repeat(["a", "b", "c", "d", "tiny", None], [900, 700, 60, 800, 5, 35]))
    frame = pd.DataFrame({"route": routes, "id": range(2500), "y": 0})
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=300)
    frame.to_parquet(tmp_path / "other.parquet")

    def sample(name: str, seed: int = 7) -> tuple[pd.DataFrame, SampledKeys]:
        data = Data.model_validate({"source": name, "target": "y", "id": "id"})
        batches = SampledKeys(
            read_batches(data, files=Files(root=str(tmp_path)), window=None), 1000, seed, Fleet(key="route")
        )
        return pd.concat([batch.to_pandas() for batch in batches], ignore_index=True), batches

    taken, batches = sample("rows.parquet")
    assert Counter(taken["route"]) == batches.chosen
    assert set(batches.chosen) & {"a", "b", "d"}
    assert batches.chosen["tiny"] == 5
    assert batches.told.endswith(" of 5 keys with rows enough for a model, 1 with too few (tiny)")
    assert taken["id"].is_monotonic_increasing
    assert (batches.rows_read, batches.keys) == (2500, 5)
    assert batches.source["sample"] == {"rows": 1000, "seed": 7, "of": "keys"}
    pd.testing.assert_frame_equal(taken, sample("other.parquet")[0])
    assert not taken.equals(sample("rows.parquet", 8)[0])
