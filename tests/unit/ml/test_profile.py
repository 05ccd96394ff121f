from __future__ import annotations

import datetime as dt
import json

import pyarrow as pa
import pytest

from airflow_mlops.ml.data import profile, profile_html
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
