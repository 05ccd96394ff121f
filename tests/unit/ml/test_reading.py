from __future__ import annotations

import datetime as dt
import gzip
import re
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError, DataNotFound, DataTruncated, DataUnavailable, TargetError, WindowError
from airflow_mlops.ml import csvfiles
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.reading import read_batches, render_source
from airflow_mlops.window import Window

JANUARY = Window.of("2024-01-01", "2024-02-01")


def data(**more):
    source = {} if {"sql", "callable"} & set(more) else {"source": "*"}
    return Data.model_validate({**source, "target": "y", **more})


def read(root, config, window=None, **more):
    batches = read_batches(config, files=Files(str(root)), window=window, allowed_imports=["mlops_reading"], **more)
    table = pa.Table.from_batches(list(batches), batches.schema)
    return table, batches


def csv(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- CSV ---------------------------------------------------------------------------------------


def test_csv_and_gz_give_the_same_rows(tmp_path):
    text = 'id,c,y\n1,"a, ""b""\nc",0\n2,,1\n3,NA,0\n4,"NA",1\n'
    csv(tmp_path / "a.csv", text)
    plain, batches = read(tmp_path, data(source="a.csv"))
    assert plain.to_pydict() == {"id": [1, 2, 3, 4], "c": ['a, "b"\nc', None, None, "NA"], "y": [0, 1, 0, 1]}
    assert batches.warnings == []
    csv(tmp_path / "a.csv.gz", gzip.compress(text.encode()))
    assert read(tmp_path, data(source="a.csv.gz"))[0].equals(plain)


def rows(n, last=""):
    return "id,x,y\n" + "".join(f"{i},{i}.5,{i % 2}\n" for i in range(n)) + last


def test_csv_cut_in_a_row(tmp_path):
    csv(tmp_path / "a.csv", rows(100, "100,3"))
    with pytest.raises(
        DataTruncated, match=r"a\.csv ends in the middle of line 102: 2 of 3 fields, after 100 complete"
    ):
        read(tmp_path, data())


def test_csv_cut_inside_quotes(tmp_path):
    csv(tmp_path / "a.csv", 'id,c,y\n1,"a",0\n2,1,"ab')
    with pytest.raises(DataTruncated, match="inside a quoted field, at line 3"):
        read(tmp_path, data())


def test_csv_cut_in_its_header(tmp_path):
    csv(tmp_path / "a.csv", "id,c,y")
    with pytest.raises(DataTruncated, match="header does not end"):
        read(tmp_path, data())


def test_complete_last_line_without_newline_is_a_warning(tmp_path):
    csv(tmp_path / "a.csv", rows(3)[:-1])
    table, batches = read(tmp_path, data())
    assert table.num_rows == 3
    assert "its last line 4 has all 3 fields" in batches.warnings[0]


@pytest.mark.parametrize("cut", [10, 4, 1, 200])
def test_gz_that_ends_early(tmp_path, cut):
    csv(tmp_path / "a.csv.gz", gzip.compress(rows(2000).encode())[:-cut])
    with pytest.raises(DataTruncated, match=r"a\.csv\.gz ends early: .*complete lines"):
        read(tmp_path, data())


def test_gz_with_a_flipped_bit(tmp_path):
    raw = bytearray(gzip.compress(rows(2000).encode()))
    raw[len(raw) // 2] ^= 8
    csv(tmp_path / "a.csv.gz", bytes(raw))
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path, data())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (rows(5, "5,1\n6,1,1\n"), r"row 7 \(the header is row 1\): 2 fields, the header has 3"),
        (rows(5, "5,1,1,9\n"), "row 7 .*4 fields"),
        ("a,a,y\n1,2,3\n", "names 'a' more than once"),
        (b"id,c,y\n1,\xff\xfe,0\n", "'c' is not UTF-8"),
        (rows(30, "30,oops,1\n"), r"row 32 .*column 'x': 'oops' is not a number"),
    ],
)
def test_csv_faults_name_file_row_and_column(tmp_path, text, said):
    csv(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=said) as e:
        read(tmp_path, data())
    assert "a.csv" in str(e.value)


def test_type_conflict_far_into_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfiles, "BLOCK_BYTES", 4096)
    csv(tmp_path / "a.csv", rows(5000, "5000,oops,1\n"))
    with pytest.raises(DataError, match=r"row 5002 .*column 'x': 'oops' is not a number"):
        read(tmp_path, data())


def test_types_widen_where_the_meaning_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(csvfiles, "BLOCK_BYTES", 4096)
    body = "".join(f"{i},1,,2024-01-01,{i}\n" for i in range(3000))
    csv(tmp_path / "a.csv", "id,x,late,d,y\n" + body + "A7,1.5,word,2024-01-01 05:00:00,1\n")
    table, _ = read(tmp_path, data(id="id"))
    assert [str(t) for t in table.schema.types] == ["string", "double", "string", "timestamp[s]", "int64"]
    assert table.slice(3000).to_pylist() == [
        {"id": "A7", "x": 1.5, "late": "word", "d": dt.datetime(2024, 1, 1, 5), "y": 1}
    ]


@given(st.integers(1, 400))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_csv_is_never_read_as_whole_without_a_word(tmp_path, cut):
    whole = rows(40)
    csv(tmp_path / "a.csv", whole[: max(len(whole) - cut, 1)])
    try:
        table, batches = read(tmp_path, data())
    except DataError:
        return
    # What is left: a cut at a line's end, which no reader can see, or inside the last value, which is told.
    assert batches.warnings or whole[: len(whole) - cut].endswith("\n")
    assert table.num_rows <= 40


# --- Parquet -----------------------------------------------------------------------------------


def lake(root, months=12):
    for month in range(1, months + 1):
        times = pd.date_range(f"2024-{month:02}-01", periods=500, freq="h")
        frame = pd.DataFrame({"t": times, "x": range(500), "y": [0, 1] * 250})
        frame.to_parquet(root / f"{month:02}.parquet", row_group_size=100)


def test_window_is_half_open_and_counts_what_it_drops(tmp_path):
    lake(tmp_path, 2)
    window = Window.of("2024-01-01T10:00:00", "2024-02-01T00:00:00")
    table, batches = read(tmp_path, data(timestamp="t"), window)
    assert table["t"][0].as_py() == dt.datetime(2024, 1, 1, 10)
    assert (table.num_rows, batches.rows_read, batches.rows_outside) == (490, 1000, 510)
    assert batches.newest == dt.datetime(2024, 1, 21, 19, tzinfo=dt.UTC)
    assert [f["size"] > 0 for f in batches.source["files"]] == [True, True]


def test_only_the_row_groups_of_the_window_are_read(tmp_path, monkeypatch):
    lake(tmp_path)
    batches = read_batches(data(timestamp="t"), files=Files(str(tmp_path)), window=JANUARY)
    scanned = [sum(b.num_rows for b in p.scan(["t"], ("t", JANUARY.start, JANUARY.end))) for p in batches._parts]
    assert scanned == [500] + [0] * 11
    assert sum(b.num_rows for b in batches) == 500


@pytest.mark.parametrize("kind", ["timestamp[ns]", "timestamp[s]", "timestamp[us, UTC]", "utc+2", "date32", "text"])
def test_kinds_of_time(tmp_path, kind):
    times = [dt.datetime(2023, 12, 31), dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 31), dt.datetime(2024, 2, 1)]
    column = {
        "timestamp[ns]": lambda: pa.array(times, pa.timestamp("ns")),
        "timestamp[s]": lambda: pa.array(times, pa.timestamp("s")),
        "timestamp[us, UTC]": lambda: pa.array(times, pa.timestamp("us", "UTC")),
        "utc+2": lambda: pa.array(times, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "+02:00")),
        "date32": lambda: pa.array([t.date() for t in times], pa.date32()),
        "text": lambda: pa.array([t.isoformat(" ") for t in times]),
    }[kind]()
    pq.write_table(pa.table({"t": column, "y": [0, 1, 2, 3]}), tmp_path / "a.parquet")
    assert read(tmp_path, data(timestamp="t"), JANUARY)[0]["y"].to_pylist() == [1, 2]


def test_rows_without_a_time_are_an_error_with_their_places(tmp_path):
    times = [dt.datetime(2025, 1, 1), None, dt.datetime(2024, 1, 1), None]
    pq.write_table(pa.table({"t": pa.array(times, pa.timestamp("us")), "y": [0, 1, 2, 3]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"2 of 4 rows have no value in 't' .*: data row 2, 4"):
        read(tmp_path, data(timestamp="t"), JANUARY)


def test_times_must_be_times(tmp_path):
    pq.write_table(pa.table({"t": [1, 2], "y": [0, 1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="holds int64, not times"):
        read(tmp_path, data(timestamp="t"), JANUARY)


def test_nothing_in_the_window(tmp_path):
    lake(tmp_path, 1)
    with pytest.raises(DataNotFound, match=r"none of the 500 rows .* lies in the window 2030-01-01 … 2030-01-02"):
        read(tmp_path, data(timestamp="t"), Window.of("2030-01-01", "2030-01-02"))


@pytest.mark.parametrize("damage", ["half", "tail", "not parquet", "empty"])
def test_cut_parquet(tmp_path, damage):
    lake(tmp_path, 1)
    path = tmp_path / "01.parquet"
    raw = path.read_bytes()
    path.write_bytes(
        {"half": raw[: len(raw) // 2], "tail": raw[:-4], "not parquet": b"id,y\n" * 9, "empty": b""}[damage]
    )
    with pytest.raises(DataNotFound if damage == "empty" else DataTruncated, match=r"01\.parquet"):
        read(tmp_path, data())


def test_flipped_bit_in_a_page_with_checksum(tmp_path):
    pq.write_table(pa.table({"x": range(1000), "y": range(1000)}), tmp_path / "a.parquet", write_page_checksum=True)
    raw = bytearray((tmp_path / "a.parquet").read_bytes())
    raw[2000] ^= 1
    (tmp_path / "a.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        read(tmp_path, data())


# --- several files -----------------------------------------------------------------------------


def test_files_of_different_columns(tmp_path):
    pq.write_table(pa.table({"a": [1], "y": [0]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": [1], "y": [0]}), tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"2\.parquet lacks 'a', has 'b' too"):
        read(tmp_path, data())
    assert read(tmp_path, data(exclude=["a", "b"]))[0].column_names == ["y"]


def test_files_of_different_types(tmp_path):
    pq.write_table(pa.table({"a": [1], "y": [0]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"y": [1], "a": [1.5]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"y": [1], "a": pa.nulls(1)}), tmp_path / "3.parquet")
    assert read(tmp_path, data())[0].to_pydict() == {"a": [1.0, 1.5, None], "y": [0, 1, 1]}
    pq.write_table(pa.table({"y": [1], "a": ["x"]}), tmp_path / "4.parquet")
    with pytest.raises(DataError, match=r"column 'a' is string in .*4\.parquet"):
        read(tmp_path, data())


def test_missing_columns_are_named(tmp_path):
    pq.write_table(pa.table({"delayd": [1], "z": [2]}), tmp_path / "1.parquet")
    with pytest.raises(TargetError, match=r"no column 'delayed' \(data.target\); did you mean 'delayd'"):
        read(tmp_path, data(target="delayed"))
    with pytest.raises(DataError, match=r"no column 'q' \(data.id\)"):
        read(tmp_path, data(target="z", id="q"))
    assert read(tmp_path, data(target="delayed"), target_optional=True)[0].num_rows == 1
    assert read(tmp_path, data(target="z"), columns=["z"])[0].column_names == ["z"]


def test_pandas_index_and_categories(tmp_path):
    frame = pd.DataFrame({"c": pd.Categorical(["a", "b"]), "y": [0, 1]}, index=[5, 6])
    frame.to_parquet(tmp_path / "a.parquet")
    table, batches = read(tmp_path, data())
    assert [str(t) for t in table.schema.types] == ["string", "int64"]
    assert "index" in batches.warnings[0]


def test_other_formats_are_refused(tmp_path):
    csv(tmp_path / "a.json", "{}")
    with pytest.raises(DataError, match="neither CSV nor Parquet"):
        read(tmp_path, data(source="a.json"))


# --- templates, queries, callables -------------------------------------------------------------


def test_render_source():
    assert (
        render_source("s3://l/{{ window.start }}-{{ window.end }}.csv", JANUARY) == "s3://l/2024-01-01-2024-02-01.csv"
    )
    assert render_source("plain.csv", None) == "plain.csv"
    with pytest.raises(WindowError, match="has none"):
        render_source("{{ window.start }}", None)
    with pytest.raises(DataError, match="cannot be filled in"):
        render_source("{{ window.start.__class__.__mro__ }}", JANUARY)


def test_sql_chunks_become_one_schema(tmp_path):
    asked = []

    def sql(conn_id, query):
        asked.append((conn_id, query))
        yield pa.table({"a": pa.nulls(2), "n": pa.array([1, 2]), "y": [0, 1]})
        yield pa.table({"a": ["x"], "n": pa.array([1.5]), "y": [0]})

    config = data(sql={"conn_id": "wh", "query": "SELECT * WHERE t >= '{{ window.start }}'"})
    table, batches = read(tmp_path, config, JANUARY, sql=sql)
    assert asked == [("wh", "SELECT * WHERE t >= '2024-01-01'")]
    assert table.to_pydict() == {"a": [None, None, "x"], "n": [1.0, 2.0, 1.5], "y": [0, 1, 0]}
    assert batches.source["kind"] == "sql"


def test_sql_faults(tmp_path):
    class OperationalError(Exception):
        pass

    def lost(conn_id, query):
        raise OperationalError("server closed the connection")
        yield

    config = data(sql={"conn_id": "wh", "query": "SELECT 1"})
    with pytest.raises(DataUnavailable, match="server closed"):
        read(tmp_path, config, sql=lost)
    with pytest.raises(DataNotFound, match="returned nothing"):
        read(tmp_path, config, sql=lambda c, q: iter(()))
    with pytest.raises(DataNotFound, match="0 rows"):
        read(tmp_path, config, sql=lambda c, q: iter([pa.table({"y": pa.array([], pa.int64())})]))


@pytest.fixture
def user_code(tmp_path, monkeypatch):
    (tmp_path / "mlops_reading.py").write_text(
        "import pandas as pd, pyarrow as pa\n"
        "def frame(window): return pd.DataFrame({'y': [0, 1], 's': [str(window)] * 2})\n"
        "def table(): return pa.table({'y': [0, 1]})\n"
        "def chunks():\n    yield pd.DataFrame({'y': [0]})\n    yield pa.table({'y': [1]})\n"
        "def wrong(): return 3\n"
        "def fails(): raise KeyError('x')\n"
        "def mixed(): return pd.DataFrame({'y': [0, 1], 'm': [1, 'a']})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("mlops_reading", None)


def test_callables(tmp_path, user_code):
    got = read(tmp_path, data(callable="mlops_reading:frame"), JANUARY)[0]
    assert got.to_pydict() == {"y": [0, 1], "s": ["2024-01-01 … 2024-02-01"] * 2}
    for name in ("table", "chunks"):
        assert read(tmp_path, data(callable=f"mlops_reading:{name}"))[0]["y"].to_pylist() == [0, 1]


@pytest.mark.parametrize(("name", "said"), [("wrong", "returned int"), ("fails", "KeyError"), ("mixed", "chunk 1")])
def test_callable_faults(tmp_path, user_code, name, said):
    with pytest.raises(DataError, match=said):
        read(tmp_path, data(callable=f"mlops_reading:{name}"))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("nom,été\nx,1\n".encode("latin-1"), "is not UTF-8: byte 0xe9 in the header"),
        (b"a;b;c\n1;2;3\n", "the header is one field that holds ';'"),
        (b"a\tb\n1\t2\n", "the header is one field that holds"),
    ],
)
def test_a_file_of_another_kind_says_so(tmp_path: Path, raw: bytes, words: str) -> None:
    from airflow_mlops.ml.csvfiles import CsvPart
    from airflow_mlops.ml.files import Files

    (tmp_path / "a.csv").write_bytes(raw)
    files = Files(str(tmp_path))
    with pytest.raises(DataError, match=re.escape(words)):
        CsvPart(files.resolve("a.csv")[0], files.expand("a.csv")[0])
