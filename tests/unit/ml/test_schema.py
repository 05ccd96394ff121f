from __future__ import annotations

import pyarrow as pa
import pytest

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import CorruptObject, SchemaSkew
from airflow_mlops.ml.schema import compare_schema, family, lock_schema, locked_schema
from airflow_mlops.ml.snapshot import write_snapshots
from airflow_mlops.store import LocalStore, layout


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def snapshot(store, **columns):
    table = pa.table(columns)
    batches = [(table.to_batches()[0],)]
    return write_snapshots(store, "p", batches, table.schema, window=None, sources=[{"kind": "sql"}])[0]


def data(**more):
    return Data.model_validate({"source": "x", "target": "y", **more})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.int8(), "number"), (pa.uint64(), "number"), (pa.float32(), "number"), (pa.decimal128(5, 2), "number"),
        (pa.string(), "text"), (pa.large_string(), "text"), (pa.bool_(), "boolean"),
        (pa.timestamp("us", "UTC"), "time"),
        (pa.date32(), "time"), (pa.time64("us"), "time"), (pa.duration("s"), "time"), (pa.null(), "empty"),
        (pa.list_(pa.int64()), "other"), (pa.binary(), "other"), (pa.struct([("a", pa.int8())]), "other"),
    ],
)  # fmt: skip
def test_families(kind, expected):
    assert family(str(kind)) == expected


def test_first_lock_wins(store):
    assert locked_schema(store, "p") is None
    assert not compare_schema(snapshot(store, a=[1], y=[1]), store, data())
    lock_schema(snapshot(store, a=[1], y=[1]), store, data())
    assert lock_schema(snapshot(store, b=[1], y=[1]), store, data()) == {"a": "number", "y": "number"}


def test_each_difference_is_named(store):
    lock_schema(snapshot(store, a=[1], b=["x"], c=[True], y=[1]), store, data())
    diff = compare_schema(snapshot(store, a=["1"], c=[True], d=[1], y=[1]), store, data())
    assert (diff.added, diff.removed, diff.retyped) == (("d",), ("b",), {"a": ("number", "text")})
    with pytest.raises(SchemaSkew, match="'a' was number and is text; 'b' is missing; 'd' is new") as e:
        diff.check()
    assert layout.schema("p") in str(e.value)


def test_what_is_no_difference(store):
    lock_schema(snapshot(store, a=[1], b=["x"], u=[1], e=pa.nulls(1), y=[1]), store, data(exclude=["u"]))
    now = snapshot(store, y=[1.5], b=pa.nulls(1), a=[1.0], v=["new"], e=["now text"])
    assert not compare_schema(now, store, data(exclude=["u", "v"]))
    assert not compare_schema(snapshot(store, a=[1], y=[1]), store, data(exclude=["u", "b", "e"]))


def test_target_may_be_absent(store):
    lock_schema(snapshot(store, a=[1], y=[1]), store, data())
    now = snapshot(store, a=[1])
    assert compare_schema(now, store, data()).removed == ("y",)
    assert not compare_schema(now, store, data(), target_optional=True)


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"columns": 3}'])
def test_unreadable_lock(store, body):
    store.put(layout.schema("p"), body)
    with pytest.raises(CorruptObject, match="cannot be read"):
        locked_schema(store, "p")
