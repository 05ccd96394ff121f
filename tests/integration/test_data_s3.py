"""Reading from and writing to S3, over HTTP against a real server process."""

from __future__ import annotations

import gzip

import pandas as pd
import pytest
from pyarrow import fs as pafs

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import DataError, DataNotFound, DataTruncated, DataUnavailable
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.window import Window


def filesystem(endpoint):
    return pafs.S3FileSystem(
        access_key="test", secret_key="test", endpoint_override=endpoint, region="us-east-1", connect_timeout=2,
        request_timeout=5, retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),
    )  # fmt: skip


@pytest.fixture
def files(s3_endpoint):
    return Files(s3=lambda: filesystem(s3_endpoint))


def put(client, bucket, key, body):
    client.put_object(Bucket=bucket, Key=key, Body=body)


def frame(month):
    times = pd.date_range(f"2024-{month:02}-01", periods=100, freq="h")
    return pd.DataFrame({"t": times, "c": ["a", "b"] * 50, "y": [0, 1] * 50})


@pytest.fixture
def lake(s3_client, s3_bucket, tmp_path):
    for month in (1, 2, 3):
        frame(month).to_parquet(tmp_path / "x.parquet")
        put(s3_client, s3_bucket, f"lake/{month:02}.parquet", (tmp_path / "x.parquet").read_bytes())
    put(s3_client, s3_bucket, "lake/_tmp/04.parquet", b"half")
    put(s3_client, s3_bucket, "csv/a.csv.gz", gzip.compress(frame(1).to_csv(index=False).encode()))
    return f"s3://{s3_bucket}"


def test_glob_window_snapshot(lake, files, s3_store):
    data = Data.model_validate({"source": lake + "/lake/*.parquet", "target": "y", "timestamp": "t"})
    window = Window.of("2024-02-01", "2024-03-01")
    snapshot = take_snapshot(s3_store, "p", read_batches(data, files=files, window=window), data=data, window=window)
    assert snapshot.rows == 100
    assert [f["uri"] for f in snapshot.source["files"]] == [f"{lake}/lake/{m}.parquet" for m in ("01", "02", "03")]
    assert snapshot.to_pandas(s3_store).t.min() == pd.Timestamp("2024-02-01")


def test_version_is_the_etag(lake, files, s3_client, s3_bucket):
    etag = s3_client.head_object(Bucket=s3_bucket, Key="lake/01.parquet")["ETag"].strip('"')
    assert files.expand(lake + "/lake/01.parquet")[0].version == etag


def test_csv(lake, files, s3_client, s3_bucket):
    data = Data.model_validate({"source": lake + "/csv", "target": "y"})
    assert sum(b.num_rows for b in read_batches(data, files=files, window=None)) == 100
    put(s3_client, s3_bucket, "csv/a.csv.gz", gzip.compress(frame(1).to_csv(index=False).encode())[:-20])
    with pytest.raises(DataTruncated, match="ends early"):
        read_batches(data, files=files, window=None)


def test_output_appears_whole_or_not_at_all(lake, files):
    with files.open_output(lake + "/out/p.bin") as out:
        out.write(b"x" * 12_000_000)
    assert files.expand(lake + "/out/p.bin")[0].size == 12_000_000
    with pytest.raises(RuntimeError), files.open_output(lake + "/out/q.bin") as out:  # noqa: PT012
        out.write(b"half")
        raise RuntimeError("stopped")
    with pytest.raises(DataNotFound):
        files.expand(lake + "/out/q.bin")


def test_what_is_not_there(lake, files):
    for uri in (lake + "/nothing/*.parquet", lake + "/lake/09.parquet", "s3://no-such-bucket-here/x.csv"):
        with pytest.raises(DataNotFound):
            files.expand(uri)


def test_unreachable_s3_can_be_retried():
    files = Files(s3=filesystem("http://127.0.0.1:9"))
    with pytest.raises(DataUnavailable, match="S3 cannot be reached") as e:
        files.expand("s3://bucket/x.csv")
    assert e.value.retryable
    with pytest.raises(DataUnavailable), files.open_output("s3://bucket/x.csv") as out:
        out.write(b"x")


def test_patterns_for_buckets_are_refused(files):
    with pytest.raises(DataError, match="bucket name cannot be a pattern"):
        files.expand("s3://buck*/x.csv")
