"""What SageMaker does with containers, done with their programs as processes here."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from airflow_mlops.store import S3Store, layout
from tests.integration.sagemaker_server import SageMaker
from tests.unit.ml.transform_job import unpack

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/sagemaker.md"


def train_there(client: Any, bucket: str, job: dict[str, Any], folder: Path) -> Any:
    """Do what SageMaker does: the channel to /opt/ml, the container's program (of the docs), its model to S3."""
    root = folder / "opt-ml"
    for name in ("input/data/train", "input/config", "model"):
        (root / name).mkdir(parents=True)
    uri = job["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"]
    here = root / "input/data/train" / uri.rpartition("/")[2]
    client.download_file(bucket, uri.removeprefix(f"s3://{bucket}/"), str(here))
    (root / "input/config/hyperparameters.json").write_text(json.dumps(job["HyperParameters"]))
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert '"/opt/ml"' in program
    subprocess.run([sys.executable, "-c", program.replace("/opt/ml", str(root))], check=True)
    leave(client, bucket, job, root / "model/model.skops")
    return pq.read_table(here).to_pandas()


def leave(client: Any, bucket: str, job: dict[str, Any], file: Path, name: str = "model.skops") -> None:
    """Put a file where SageMaker puts what a container leaves."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(file, arcname=name)
    key = job["ModelArtifacts"]["S3ModelArtifacts"].removeprefix(f"s3://{bucket}/")
    client.put_object(Bucket=bucket, Key=key, Body=archive.getvalue())


def predict_there(store: S3Store, service: SageMaker, name: str, folder: Path) -> str:
    """Do what SageMaker does with the container: unpack, start it, wait for it, send it each part; what it printed."""
    job, model = service.transforms[name], service.models[name]
    container = model["PrimaryContainer"]
    key = layout.job_model("people", name)
    assert container["ModelDataUrl"] == f"{store.uri}/{key}"
    unpack(store, "people", name, folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow_mlops.ml.transform_server", "serve", "--model", str(folder),
         "--host", "127.0.0.1", "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | container["Environment"],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        port = re.search(r"port (\d+)", ready)
        assert port, ready + process.stderr.read()
        connection = http.client.HTTPConnection("127.0.0.1", int(port[1]), timeout=60)
        connection.request("GET", "/ping")
        assert connection.getresponse().read() == b""
        source = job["TransformInput"]
        prefix = source["DataSource"]["S3DataSource"]["S3Uri"].removeprefix(f"{store.uri}/")
        into = job["TransformOutput"]["S3OutputPath"].removeprefix(f"{store.uri}/")
        for part in list(store.list(prefix)):
            body = store.get(part)
            assert len(body) <= job["MaxPayloadInMB"] << 20
            connection.request("POST", "/invocations", body, {"Content-Type": source["ContentType"]})
            answer = connection.getresponse()
            assert answer.status == 200
            store.put(f"{into}/{part.removeprefix(prefix)}.out", answer.read())
        connection.close()
        process.terminate()
        assert process.wait(20) == 0
        return ready + process.stderr.read()
    finally:
        process.kill()
        process.communicate()
