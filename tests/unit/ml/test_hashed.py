from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.ml import hashed as module
from airflow_mlops.ml.hashed import Buckets, Repeats, firsts, hashed

COLUMNS = {
    "float": st.sampled_from([0.0, -0.0, 1.5, float("inf"), 1e-300]) | st.none(),
    "int": st.integers(-3, 3),
    "bool": st.booleans(),
    "text": st.sampled_from(["", "a", "b", "True", "é"]) | st.none(),
    "time": st.sampled_from([dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)]) | st.none(),
    "gaps": st.sampled_from([True, False, None]),
}


def column(kind, values):
    kinds = {"float": "float64", "int": "int64", "bool": "bool", "text": "str", "time": "datetime64[us]"}
    return pd.Series(values, dtype=kinds.get(kind, object))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_rows_are_hashed_alike_where_pandas_finds_them_equal(data):
    rows = data.draw(st.integers(1, 15))
    frame = pd.DataFrame(
        {k: column(k, data.draw(st.lists(v, min_size=rows, max_size=rows))) for k, v in COLUMNS.items()}
    )
    names = data.draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=3, unique=True))
    codes = frame.groupby(names, dropna=False, sort=False).ngroup()
    found = [tuple(h) for h in hashed(frame[names])]
    assert pd.factorize(pd.Series(found))[0].tolist() == pd.factorize(codes)[0].tolist()


def test_columns_do_not_stand_for_each_other():
    one, other = pd.DataFrame({"x": [1], "y": [2]}), pd.DataFrame({"x": [2], "y": [1]})
    assert (hashed(one) != hashed(other)).all()


@pytest.mark.parametrize("bucket", [2, 1000])
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_repeats_is_what_pandas_finds(bucket, data):
    kind = data.draw(st.sampled_from(list(COLUMNS)))
    values = column(kind, data.draw(st.lists(COLUMNS[kind], max_size=30)))
    step = data.draw(st.integers(1, 31))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BUCKET_ROWS", bucket)
        with Repeats(len(values)) as repeats:
            for first in range(0, len(values), step):
                repeats.add(values.iloc[first : first + step].to_frame())
            repeats.finish()
            assert repeats.different == values.nunique(dropna=False)
            np.testing.assert_array_equal(repeats.mask(values.to_frame()), values.duplicated(keep=False).to_numpy())


def test_values_that_share_half_of_a_hash_are_two_values(monkeypatch):
    half = np.array([[7, 1], [7, 2], [7, 2], [7, 3]], dtype=np.uint64)
    monkeypatch.setattr(module, "hashed", lambda frame: half[frame.index])
    values = pd.DataFrame({"x": [1, 2, 3, 4]})
    with Repeats(4) as repeats:
        repeats.add(values)
        repeats.finish()
        assert repeats.different == 3
        assert repeats.mask(values).tolist() == [False, True, True, False]


def test_a_value_that_fills_a_batch_is_one_record():
    with Buckets(10, {"row": "i8", "count": "i8"}) as buckets:
        for first in (0, 5):
            buckets.add(np.full((5, 2), 9, dtype=np.uint64), row=np.arange(first, first + 5))
        (records,) = buckets.sorted()
        assert (records["row"].tolist(), records["count"].tolist(), firsts(records).tolist()) == ([0, 5], [5, 5], [0])
