from __future__ import annotations

import datetime as dt
import json
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import (
    CorruptObject,
    DataError,
    DataNotFound,
    DataStale,
    DataTruncated,
    ObjectNotFound,
    TargetError,
)
from airflow_mlops.ml import snapshot_writer
from airflow_mlops.ml.data import Snapshot, read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.window import Window


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def data(**more):
    return Data.model_validate({"source": "a.parquet", "target": "y", "min_rows": 1, **more})


def table(n=1000):
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "id": np.arange(n),
            "t": pa.array([dt.datetime(2024, 1, 1) + dt.timedelta(minutes=i) for i in range(n)], pa.timestamp("us")),
            "x": pa.array([None if i % 7 == 0 else i for i in range(n)], pa.int64()),
            "c": rng.choice(["a", "b"], n).tolist(),
            "y": rng.integers(0, 2, n),
        }
    )


def take(store, root, content=None, window=None, previous=None, log=None, optional=False, **config):
    root.mkdir(exist_ok=True)
    if content is not None:
        pq.write_table(content, root / "a.parquet")
    made = data(**config)
    batches = read_batches(made, files=Files(str(root)), window=window, target_optional=optional)
    return take_snapshot(store, "p", batches, data=made, window=window, previous_rows=previous, log=log)


def test_round_trip(store, tmp_path):
    said = []
    snapshot = take(store, tmp_path / "d", table(), log=said.append)
    again = Snapshot.load(store, json.loads(json.dumps(snapshot.to_ref())))
    assert again == snapshot == Snapshot.load(store, snapshot.digest)
    assert list(snapshot.columns) == ["id", "t", "x", "c", "y"]
    assert again.to_arrow(store).equals(table())
    frame = snapshot.to_pandas(store, ["c", "x"])
    assert list(frame.columns) == ["c", "x"]
    assert frame.x.isna().sum() == 143
    assert len(json.dumps(snapshot.to_ref())) < 600
    assert "1,000 rows × 5 columns" in said[-1]


def test_window_and_source_are_recorded(store, tmp_path):
    window = Window.of("2024-01-01T00:00:00", "2024-01-01T01:00:00")
    snapshot = take(store, tmp_path / "d", table(), window, timestamp="t")
    assert snapshot.rows == 60
    assert snapshot.to_ref()["window"] == window.to_dict()
    assert snapshot.source["kind"] == "files"


def test_same_rows_same_fingerprint_however_they_come(store, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot_writer, "FILE_ROWS", 1 << 17)
    content = table(300_000)
    first = take(store, tmp_path / "d", content)
    pq.write_table(content, tmp_path / "d" / "a.parquet", row_group_size=777, compression="zstd", use_dictionary=["c"])
    second = take(store, tmp_path / "d")
    assert [f.rows for f in first.files] == [131072, 131072, 37856]
    assert (second.fingerprint, second.files) == (first.fingerprint, first.files)
    assert second.digest != first.digest  # it came from another file
    pieces = tmp_path / "e"
    pieces.mkdir()
    for i in range(3):
        pq.write_table(content.slice(i * 100_000, 100_000), pieces / f"a{i}.parquet")
    assert take(store, pieces, source="a*.parquet").fingerprint == first.fingerprint
    other = content.set_column(4, "y", pa.array(1 - content["y"].to_numpy()))
    assert take(store, tmp_path / "d", other).fingerprint != first.fingerprint


@given(st.lists(st.tuples(st.integers(0, 1), st.one_of(st.none(), st.text(max_size=3))), min_size=2, max_size=40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_back_as_they_went_in(store, tmp_path, rows):
    content = pa.table({"s": pa.array([r[1] for r in rows], pa.string()), "y": [r[0] for r in rows]})
    if len({r[0] for r in rows}) < 2:
        with pytest.raises(TargetError, match="constant"):
            take(store, tmp_path / "d", content)
        return
    assert take(store, tmp_path / "d", content).to_arrow(store).equals(content)


def test_changed_bytes_are_found(store, tmp_path):
    snapshot = take(store, tmp_path / "d", table())
    key = layout.blob(snapshot.files[0].digest)
    raw = bytearray(store.get(key))
    raw[len(raw) // 2] ^= 1
    store.put(key, bytes(raw))
    with pytest.raises(CorruptObject):
        snapshot.to_arrow(store)


def test_bad_references(store, tmp_path):
    for ref in ({}, "not a digest", {"snapshot": 3}):
        with pytest.raises(DataError, match="not a reference"):
            Snapshot.load(store, ref)
    with pytest.raises(ObjectNotFound):
        Snapshot.load(store, "0" * 64)
    snapshot = take(store, tmp_path / "d", table())
    with pytest.raises(DataError, match="no column 'nope'"):
        list(snapshot.batches(store, ["nope"]))


def with_target(values, kind=None):
    return pa.table({"id": list(range(len(values))), "y": pa.array(values, kind)})


@pytest.mark.parametrize(
    ("values", "config", "said"),
    [
        ([0, 1, None, 1, None], {}, r"'y' has no usable value in 2 of 5 rows .*: row 3, 5"),
        ([0.0, float("nan"), float("inf"), 1.0], {}, "2 of 4 rows .*: row 2, 3"),
        ([1, 1, 1], {}, "'y' is constant: 1 in all 3 rows"),
        (["a", "b"], {"positive": "yes"}, "data.positive is 'yes', .* holds 'a', 'b'"),
        ([0, 1], {"positive": "1"}, "never holds; it holds 0, 1"),
        ([None] * 9 + [1], {}, r"9 of 10 rows .*: row 1, 2, 3, 4, 5 …"),
    ],
)
def test_unusable_targets(store, tmp_path, values, config, said):
    with pytest.raises(TargetError, match=said):
        take(store, tmp_path / "d", with_target(values), **config)
    assert list(store.list("")) == []


def test_positive_is_found_however_late(store, tmp_path):
    values = [i % 500 for i in range(100_000)] + [12345]
    assert take(store, tmp_path / "d", with_target(values), positive=12345).rows == 100_001


def test_too_few_rows(store, tmp_path):
    with pytest.raises(DataError, match=r"3 rows, data.min_rows is 50"):
        take(store, tmp_path / "d", with_target([0, 1, 0]), min_rows=50)
    assert take(store, tmp_path / "d", optional=True, min_rows=50).rows == 3


def test_lost_rows(store, tmp_path):
    with pytest.raises(DataTruncated, match=r"1000 rows, 1500 last time: 33.3% fewer; data.max_row_drop is 30.0%"):
        take(store, tmp_path / "d", table(), previous=1500, max_row_drop=0.3)
    assert take(store, tmp_path / "d", previous=1400, max_row_drop=0.3).rows == 1000
    assert list(store.list("pipelines/")) == []


def test_stale_rows(store, tmp_path):
    config = {"timestamp": "t", "fresh_within": "2h"}
    late = Window.of("2024-01-01", "2024-01-02")  # the newest row is of 16:39
    with pytest.raises(DataStale, match=r"newest row is of 2024-01-01T16:39:00\+00:00, 7.3 h before the window ends"):
        take(store, tmp_path / "d", table(), late, **config)
    assert take(store, tmp_path / "d", None, Window.of("2024-01-01", "2024-01-01T18:00:00"), **config).rows == 1000
    with pytest.raises(DataStale, match="before now"):
        take(store, tmp_path / "d", **config)


def test_nothing_is_written_when_there_is_nothing(store, tmp_path):
    with pytest.raises(DataNotFound):
        take(store, tmp_path / "d", table(0))
    assert list(store.list("")) == []


def test_dates_and_decimals_for_pandas(store, tmp_path):
    from decimal import Decimal

    content = pa.table({"d": [dt.date(2024, 1, 1)] * 2, "n": [Decimal("1.25"), None], "y": [0, 1]})
    frame = take(store, tmp_path / "d", content).to_pandas(store)
    assert frame.d.dtype.kind == "M"
    assert frame.n.dtype == np.float64
    assert isinstance(frame, pd.DataFrame)


def test_memory_stays_flat(tmp_path):
    """A snapshot of 252 MB of rows needs far less memory than the rows, in a process of its own."""
    import subprocess

    script = f"""
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from airflow_mlops.config.models import Data
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.store import LocalStore
rng = np.random.default_rng(0)
schema = pa.schema([(f"x{{i}}", pa.float64()) for i in range(20)] + [("y", pa.int64())])
with pq.ParquetWriter({str(tmp_path / "big.parquet")!r}, schema) as out:
    for _ in range(15):
        out.write_table(pa.table([rng.normal(size=100_000)] * 20 + [rng.integers(0, 2, 100_000)], schema=schema))
data = Data.model_validate({{"source": "big.parquet", "target": "y"}})
batches = read_batches(data, files=Files({str(tmp_path)!r}), window=None)
rows = take_snapshot(LocalStore({str(tmp_path / "store")!r}), "p", batches, data=data, window=None).rows
print(rows, pa.default_memory_pool().max_memory() // 10**6)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == "1500000"
    assert int(out[1]) < 160, out
