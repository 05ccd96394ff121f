from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.splitting import split_mask


def data(**more):
    return Data.model_validate({"source": "x", "target": "y", **more})


def frame(n=2000):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "t": pd.date_range("2024-01-01", periods=n, freq="h"),
            "g": rng.integers(0, 40, n),
            "x": rng.normal(size=n),
            "c": rng.choice(["a", "b", None], n),
            "y": rng.integers(0, 2, n),
        }
    )


@pytest.mark.parametrize("id_column", ["id", None])
def test_random_has_about_the_asked_share_and_follows_the_row(id_column):
    f = frame()
    config = data(id=id_column, split={"by": "random", "test": 0.3})
    mask = split_mask(f, config, 7)
    assert mask.dtype == bool
    assert 0.26 < mask.mean() < 0.34
    order = np.random.default_rng(1).permutation(len(f))[:1000]
    np.testing.assert_array_equal(split_mask(f.iloc[order].reset_index(drop=True), config, 7), mask[order])
    assert (split_mask(f, config, 8) != mask).any()


@given(st.lists(st.integers(-(2**62), 2**62), min_size=100, max_size=200, unique=True), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_an_id_keeps_its_side_when_others_leave(ids, seed):
    config = data(id="id", split={"test": 0.5})
    f = pd.DataFrame({"id": ids, "y": 0})
    mask = split_mask(f, config, seed)
    part = f.iloc[10:]
    np.testing.assert_array_equal(split_mask(part, config, seed), mask[10:])


def test_ids_of_other_types_hash_alike():
    ids = np.arange(500)
    config = data(id="id")
    whole = split_mask(pd.DataFrame({"id": ids}), config, 3)
    np.testing.assert_array_equal(split_mask(pd.DataFrame({"id": ids.astype(float)}), config, 3), whole)
    text = pd.Series([f"N{i}" for i in ids])
    np.testing.assert_array_equal(
        split_mask(pd.DataFrame({"id": text}), config, 3),
        split_mask(pd.DataFrame({"id": text.astype(object)}), config, 3),
    )


def test_time_takes_the_latest_rows_and_keeps_equal_times_together():
    f = frame(100)
    mask = split_mask(f, data(timestamp="t", split={"by": "time", "test": 0.2}), 7)
    assert mask.sum() == 20
    assert f.t[mask].min() > f.t[~mask].max()
    f["t"] = pd.to_datetime(["2024-01-01"] * 50 + ["2024-01-02"] * 50)
    np.testing.assert_array_equal(
        split_mask(f, data(timestamp="t", split={"by": "time", "test": 0.2}), 7), np.arange(100) >= 50
    )


@pytest.mark.parametrize("groups", [40, 2, 3])
def test_groups_stay_whole_and_no_side_is_empty(groups):
    f = frame()
    f["g"] = f.index % groups
    for seed in range(20):
        mask = split_mask(f, data(split={"by": "group", "column": "g", "test": 0.2}), seed)
        assert not set(f.g[mask]) & set(f.g[~mask])
        assert mask.any()
        assert not mask.all()


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ({"id": "id"}, {"id": None}, "rows have no value in 'id'"),
        ({"id": "nope"}, {}, "no column 'nope'"),
        ({"timestamp": "t", "split": {"by": "time"}}, {"t": pd.Timestamp("2024-01-01")}, "of 2000 rows"),
        ({"timestamp": "c", "split": {"by": "time"}}, {"c": "x"}, "does not hold times"),
        ({"split": {"by": "group", "column": "g"}}, {"g": 1}, "one group"),
        (
            {},
            {"id": 1, "t": pd.Timestamp("2024-01-01"), "g": 1, "x": 1.0, "c": "a", "y": 1},
            "of 2000 rows into the holdout",
        ),
    ],
)
def test_impossible_splits(config, change, said):
    f = frame().assign(**change)
    with pytest.raises(DataError, match=said):
        split_mask(f, data(**config), 7)


def test_no_rows():
    with pytest.raises(DataError, match="no rows"):
        split_mask(frame(0), data(), 7)
