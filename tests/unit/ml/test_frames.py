from __future__ import annotations

import datetime as dt
import re
import tempfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.features import _categories
from airflow_mlops.ml.frames import frames, joined
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.ml.splitting import snapshot_mask, split_mask
from airflow_mlops.store import LocalStore

KINDS = {
    "i": (pa.int64(), st.integers(-(2**53), 2**53)),
    "u": (pa.uint8(), st.integers(0, 255)),
    "f": (pa.float64(), st.floats(allow_nan=True)),
    "w": (pa.float64(), st.integers(-5, 5).map(float)),
    "b": (pa.bool_(), st.booleans()),
    "c": (pa.string(), st.text(max_size=3)),
    "t": (pa.timestamp("us", "UTC"), st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2100, 1, 1))),
    "d": (pa.date32(), st.dates(dt.date(1990, 1, 1), dt.date(2100, 1, 1))),
    "m": (pa.decimal128(9, 2), st.decimals(-1000, 1000, places=2, allow_nan=False)),
    "n": (pa.null(), st.none()),
}


@st.composite
def tables(draw, least=1):
    """Tables of all kinds of columns, some of them with gaps in a part of the rows only."""
    rows = draw(st.integers(least, 12))
    columns = {}
    for name, (kind, values) in KINDS.items():
        gaps = draw(st.sampled_from([0, 0, 1, 3]))
        drawn = draw(st.lists(values, min_size=rows, max_size=rows))
        places = draw(st.lists(st.integers(0, rows - 1), min_size=gaps, max_size=gaps))
        columns[name] = pa.array([None if i in places else v for i, v in enumerate(drawn)], kind)
    return pa.table(columns)


def snapshot(store, table):
    batches = ((b,) for b in table.to_batches(max_chunksize=5))
    return write_snapshots(store, "p", batches, table.schema, window=None, sources=[{"kind": "files", "uri": "x"}])[0]


@given(tables(), st.integers(1, 13), st.integers(0, 2**12))
@settings(max_examples=40, deadline=None)
def test_batches_and_columns_are_of_the_types_of_the_whole(table, rows, kept):
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        made = snapshot(store, table)
        whole = made.to_pandas(store)
        with frames(made, store, rows) as read:
            batches = list(read.batches())
            assert [len(b) for b in batches[:-1]] == [rows] * (len(batches) - 1)
            assert read.single == (len(batches) == 1)
            for batch in batches:
                assert dict(batch.dtypes) == dict(whole.dtypes)
            pd.testing.assert_frame_equal(pd.concat(batches), whole, check_index_type=False)
            pd.testing.assert_frame_equal(read.whole(), whole)
            keep = np.array([bool(kept >> i & 1) for i in range(len(whole))])
            pd.testing.assert_frame_equal(read.whole(["c", "i", "b"], keep), whole.loc[keep, ["c", "i", "b"]])
            if not read.single:
                assert dict(next(read.batches(["b", "i"])).dtypes) == dict(whole[["b", "i"]].dtypes)


@given(
    tables(least=2),
    st.sampled_from(["random", "i", "w", "c", "time of t", "time of d", "group of c", "group of w", "group of b"]),
    st.integers(1, 13),
)
@settings(max_examples=60, deadline=None)
def test_a_snapshot_is_split_in_batches_as_in_one(table, how, rows):
    by, _, column = how.partition(" of ")
    split = {"by": by if column else "random", "test": 0.4} | ({"column": column} if by == "group" else {})
    data = Data.model_validate(
        {"source": "x", "target": "y", "split": split}
        | ({"timestamp": column} if by == "time" else {})
        | ({"id": how} if not column and how != "random" else {})
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_mlops.ml.splitting.frames", lambda s, store: frames(s, store, rows))
        store = LocalStore(folder)
        made = snapshot(store, table)
        try:
            expected = split_mask(made.to_pandas(store), data, 7)
        except DataError as e:
            with pytest.raises(DataError, match=f"^{re.escape(e.message)}"):
                snapshot_mask(made, store, data, 7)
        else:
            np.testing.assert_array_equal(snapshot_mask(made, store, data, 7), expected)


def test_a_column_that_is_not_there(tmp_path):
    store = LocalStore(tmp_path)
    made = snapshot(store, pa.table({"x": [1, 2]}))
    with frames(made, store) as read, pytest.raises(DataError, match="no column 'z'"):
        list(read.batches(["z"]))


def test_categories_of_text_share_their_texts():
    text = pd.Series(["aa", "", None, "bb", "aa"], index=[3, 1, 2, 0, 9], name="c", dtype="str")
    made = _categories(text)
    pd.testing.assert_series_equal(made, _categories(text.astype(object)))
    assert made[3] is made[9]


@given(tables(), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_a_column_put_together_is_the_whole_column_with_each_text_once(table, rows):
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        taken = snapshot(store, table)
        with frames(taken, store, rows) as read:
            for name in ("i", "f", "w", "c"):
                whole = read.whole([name])[name]
                column = joined((batch[name] for batch in read.batches([name])), taken.rows)
                if name == "c":
                    whole = whole.astype(object).where(whole.notna(), np.nan)
                    assert len({id(v) for v in column.dropna()}) == column.nunique()
                pd.testing.assert_series_equal(column, whole, check_names=False)
