from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.snapshot import frame_of
from airflow_mlops.ml.splitting import Splitter, draws, split_mask


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


_NUMBERS = st.one_of(st.integers(-9, 9), st.integers(-(2**62), 2**62))
_COLUMNS = {
    "int64": (pa.int64(), _NUMBERS),
    "uint64": (pa.uint64(), st.integers(2**63 - 9, 2**64 - 1)),
    "float": (pa.float64(), st.one_of(st.integers(-9, 9).map(float), st.floats())),
    "float32": (pa.float32(), st.one_of(st.integers(-9, 9).map(float), st.floats(width=32))),
    "bool": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.sampled_from(["", "a", "True", "1"])),
    "time": (pa.timestamp("us"), st.integers(0, 2**50)),
    "time zone": (pa.timestamp("us", "UTC"), st.integers(0, 2**50)),
    "decimal": (pa.decimal128(9, 2), st.decimals(-100, 100, places=2)),
}


@pytest.mark.parametrize("kind", _COLUMNS)
@given(st.data())
@settings(max_examples=15, deadline=None)
def test_a_row_is_drawn_by_its_own_values_whatever_rows_it_is_read_with(kind: str, drawn: st.DataObject) -> None:
    """A gap or a fraction in another row changes the type that pandas gives a column, and not the draw."""
    arrow, values = _COLUMNS[kind]
    some = drawn.draw(st.lists(st.one_of(st.none(), values), min_size=1, max_size=8))

    def draws_of(rows: slice) -> list[float]:
        table = pa.table({"a": pa.array(some[rows], arrow), "row": range(len(some))[rows]})
        return Splitter(frame_of(table), data(), 3)._values.tolist()

    assert [draws_of(slice(place, place + 1))[0] for place in range(len(some))] == draws_of(slice(None))


_TIMES = pd.Series(pd.to_datetime(["2024-01-01", None]).astype("datetime64[us]"))


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        (pd.Series([0, -1, 2**53 - 1]), [0.41242283164903426, 0.4672717249907642, 0.2991358445232417]),
        (pd.Series([0.0, -1.0, 2.0**53 - 1]), [0.41242283164903426, 0.4672717249907642, 0.2991358445232417]),
        (pd.Series([2**60 + 1, -(2**62), 2**53 + 1]), [0.08159266763432704, 0.2320661879678776, 0.6239676739366959]),
        (pd.Series([0.5, np.nan, 1e300]), [0.4123224884164969, 0.28280573219065164, 0.5848937208504317]),
        (pd.Series([0.5, -1.25], dtype="float32"), [0.33492286944057004, 0.6080487072907259]),
        (pd.Series([True, False]), [0.4680404225876006, 0.41242283164903426]),
        (pd.Series(["a", "", None]), [0.5343978059653869, 0.2610934106485999, 0.2610934106485999]),
        (_TIMES, [0.20052996932974076, 0.01877376896272631]),
        (_TIMES.dt.tz_localize("UTC"), [0.9047824722911295, 0.4672717249907642]),
    ],
)
def test_draws_are_those_of_versions_that_were_recorded(values: pd.Series, drawn: list[float]) -> None:
    """What decided over a holdout once must do so in a later rerun."""
    assert draws(values, 7).tolist() == drawn


def test_an_integer_is_drawn_as_a_whole_float_is() -> None:
    ids = pd.Series([1, 2, -3, 2**53 - 1])
    mixed = draws(pd.Series([1.0, 2.0, -3.0, 2.0**53 - 1, 0.5, np.nan]), 7)
    assert mixed[:4].tolist() == draws(ids, 7).tolist()
    gappy = draws(pd.Series([*ids, None], dtype="Int64"), 7)
    assert gappy.tolist() == [*mixed[:4], mixed[5]]
    flags: list[Any] = [True, False, None]
    assert draws(pd.Series(flags, dtype=object), 7)[:2].tolist() == draws(pd.Series(flags[:2]), 7).tolist()
    # Ids of 64 bits that are next to each other are different ones, though as floats they are the same.
    assert len({*draws(pd.Series([2**60, 2**60 + 1]), 7)}) == 2


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
