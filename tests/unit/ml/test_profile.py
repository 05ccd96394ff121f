from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.ml.data import profile, profile_html
from airflow_mlops.ml.profile import _distinct
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def made(store, **columns):
    table = pa.table(columns)
    batches = [(b,) for b in table.to_batches(max_chunksize=7)]
    window = Window.of("2024-01-01", "2024-02-01")
    return write_snapshots(
        store, "p", batches, table.schema, window=window, sources=[{"kind": "files", "uri": "a.csv"}]
    )[0]


def test_columns_of_every_kind(store):
    snapshot = made(
        store,
        n=[float(i) for i in range(98)] + [None, float("nan")],
        i=[1] * 100,
        c=[f"v{i % 30}" for i in range(100)],
        b=[True, False] * 50,
        t=[dt.datetime(2024, 1, 1) + dt.timedelta(hours=i) for i in range(100)],
        e=pa.nulls(100),
        lst=[[1]] * 100,
        inf=[float("inf"), 1.0] * 50,
        d=[dt.date(2024, 1, 1)] * 100,
        y=["late"] * 20 + ["on time"] * 80,
    )
    result = profile(snapshot, store, target="y")
    json.dumps(result, allow_nan=False)
    columns = {c["name"]: c for c in result["columns"]}
    n = columns["n"]
    assert (n["nulls"], n["null_percent"], n["distinct"], n["min"], n["max"], n["mean"]) == (
        2,
        2.0,
        98,
        0.0,
        97.0,
        48.5,
    )
    assert n["quantiles"]["0.5"] == 48.5
    assert sum(n["histogram"]) == 98
    assert (columns["c"]["distinct"], len(columns["c"]["values"]), columns["c"]["others"]) == (30, 10, 60)
    assert columns["t"]["min"] == "2024-01-01T00:00:00"
    assert columns["inf"]["infinite"] == 50
    assert columns["e"]["kind"] == "empty"
    assert [(v["value"], v["percent"]) for v in result["target_balance"]] == [("on time", 80.0), ("late", 20.0)]
    html = profile_html(result)
    assert html.count("<svg") == 5
    assert "<script" not in html
    assert "http" not in html


def test_regression_target_has_no_balance(store):
    result = profile(made(store, y=[float(i) for i in range(100)]), store, target="y")
    assert result["target_balance"] is None


def test_values_and_names_are_escaped(store):
    snapshot = made(store, **{"<img src=x>": ["<script>x</script>"] * 10, "y": ["\"'><b>"] * 10})
    html = profile_html(profile(snapshot, store, target="y"))
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html


def test_extreme_numbers(store):
    result = profile(made(store, a=[-1.7e308, 1.7e308] * 5, b=[1e16, 1e16 + 2] * 5, c=[0.0] * 10), store)
    json.dumps(result, allow_nan=False)
    profile_html(result)


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.float32(), pa.int64(), pa.uint8(), pa.date32(), pa.timestamp("us", "UTC")]
)
@given(drawn=st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=3).filter(any))
@settings(max_examples=15, deadline=None)
def test_different_values_are_counted_as_arrow_counts_them(kind, drawn):
    floats = [0.0, -0.0, 1.5, float("inf"), 2.0, -1.0]
    wide = pa.int32() if pa.types.is_date32(kind) else pa.int64()
    chunks = [
        pa.array([floats[v] for v in c], kind) if pa.types.is_floating(kind) else pa.array(c, wide).cast(kind)
        for c in drawn
    ]
    column = pa.chunked_array(chunks)
    before = column.to_pylist()
    assert _distinct(column) == pc.count_distinct(column).as_py()
    assert column.to_pylist() == before
