from __future__ import annotations

import errno

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from airflow_mlops.exceptions import DataError, DataNotFound, DataUnavailable
from airflow_mlops.ml.files import Files, _pattern, io_errors


@pytest.fixture
def lake(tmp_path):
    for name in ("a.csv", "b.csv", "c.parquet", "year=1/d.csv", "year=1/x/e.csv", ".hidden.csv", "_tmp/f.csv", "g.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(files, uri, root):
    return [f.path.removeprefix(f"{root}/") for f in files.expand(uri)]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a.csv", ["a.csv"]),
        ("*.csv", ["a.csv", "b.csv"]),
        ("[ab].csv", ["a.csv", "b.csv"]),
        ("[!a].csv", ["b.csv"]),
        ("?.parquet", ["c.parquet"]),
        ("**/*.csv", ["a.csv", "b.csv", "year=1/d.csv", "year=1/x/e.csv"]),
        ("year=*/*.csv", ["year=1/d.csv"]),
        ("year=1/**", ["year=1/d.csv", "year=1/x/e.csv"]),
        ("", ["a.csv", "b.csv", "c.parquet"]),
    ],
)
def test_expand(lake, uri, expected):
    assert names(Files(str(lake)), uri, lake) == expected


def test_expand_of_absolute_path_and_file_uri(lake):
    for uri in (f"{lake}/*.csv", f"file://{lake}/*.csv", f"file://localhost{lake}/*.csv"):
        assert names(Files(), uri, lake) == ["a.csv", "b.csv"]


@pytest.mark.parametrize("root", ["s3://lake/data", "s3://lake/data/"])
def test_a_root_on_s3(root):
    s3 = LocalFileSystem()
    files = Files(root, s3)
    assert files.resolve("flights/*.parquet") == (s3, "lake/data/flights/*.parquet")
    assert files.resolve("s3://other/x.csv") == (s3, "other/x.csv")
    assert files.resolve("/tmp/x.csv")[1] == "/tmp/x.csv"


def test_a_root_that_is_a_file_uri(lake):
    assert names(Files(f"file://{lake}"), "*.csv", lake) == ["a.csv", "b.csv"]


def test_version_changes_with_the_file(lake):
    files = Files(str(lake))
    before = files.expand("a.csv")[0].version
    (lake / "a.csv").write_text("longer")
    assert files.expand("a.csv")[0].version != before


def test_nothing_found_names_the_place(lake):
    with pytest.raises(DataNotFound, match=r"no file matches \*\.orc .*/\*\.orc"):
        Files(str(lake)).expand("*.orc")
    with pytest.raises(DataNotFound, match="nowhere"):
        Files(str(lake)).expand("nowhere/x.csv")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("gs://b/x", "gs:// is not supported"),
        ("s3://user:pw@bucket/x", "credentials"),
        ("s3:///x", "names no bucket"),
        ("file://host/x", "names a host"),
        ("x.csv", "no data root"),
    ],
)
def test_unusable_uris(uri, said):
    with pytest.raises(DataError, match=said) as e:
        Files().resolve(uri)
    assert "pw" not in str(e.value)


def test_output_appears_whole_or_not_at_all(tmp_path):
    files = Files(str(tmp_path))
    with files.open_output("deep/er/x.bin") as out:
        out.write(b"one")
        assert not (tmp_path / "deep/er/x.bin").exists()
    with pytest.raises(RuntimeError), files.open_output("deep/er/x.bin") as out:  # noqa: PT012
        out.write(b"two")
        raise RuntimeError("stopped")
    assert (tmp_path / "deep/er/x.bin").read_bytes() == b"one"
    assert [p.name for p in (tmp_path / "deep/er").iterdir()] == ["x.bin"]


def test_output_into_a_file_as_folder(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(DataError, match="cannot be"), Files(str(tmp_path)).open_output("f/x") as out:
        out.write(b"")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            OSError("When listing objects under key 'x': AWS Error NETWORK_CONNECTION during ListObjectsV2"),
            DataUnavailable,
        ),
        (OSError("AWS Error SLOW_DOWN during GetObject operation"), DataUnavailable),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation"), DataError),
        (OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation"), DataNotFound),
        (FileNotFoundError("x"), DataNotFound),
        (PermissionError("x"), DataError),
        (OSError(errno.EIO, "I/O error"), DataUnavailable),
        (OSError(errno.ENAMETOOLONG, "too long"), DataError),
    ],
)
def test_errors_say_whether_a_retry_helps(error, expected):
    with pytest.raises(DataError) as e, io_errors("s3://b/x"):
        raise error
    assert type(e.value) is expected


def test_damage_reported_as_oserror_passes_through():
    with pytest.raises(OSError, match="Corrupt"), io_errors("x"):
        raise OSError("Corrupt snappy data")


@given(st.text(alphabet="ab/.*?[]-!^\\", min_size=1, max_size=20))
@example("[!]")
@settings(max_examples=100, deadline=None)
def test_every_glob_is_a_valid_pattern(glob):
    import re
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        try:
            re.compile(_pattern(glob.split("/")))
        except re.error:  # a reversed range such as [b-a] matches nothing in a shell either
            assert "-" in glob
