"""The container's program as a process: SageMaker's contract over HTTP, and what it says where it cannot serve."""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from airflow_mlops.exceptions import PredictionError
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.transform_parts import CONTRACT_VARIABLE, ROW, contract, put_rows
from airflow_mlops.ml.transform_server import Transformer, main
from airflow_mlops.registry.artifacts import store_model
from airflow_mlops.store import LocalStore, layout

ROOT = Path(__file__).parents[3]
SCHEMA = FeatureSchema((Feature("x", "number"), Feature("secret", "number", private=True)), "y", (0, 1))


@dataclass
class Served:
    folder: Path
    digest: str
    process: subprocess.Popen[str]
    port: int

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def send(self, raw: bytes) -> bytes:
        """Send bytes as they are; what comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as peer:
            peer.sendall(raw)
            peer.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: peer.recv(65536), b""))


def unpacked(folder: Path) -> str:
    """A model and its contract as SageMaker unpacks them; the contract's sha256."""
    frame = inputs(100)
    store = LocalStore(folder / "store")
    info = store_model(store, LogisticRegression().fit(frame, (frame["x"] > 0).astype(int)))
    said = contract(info, SCHEMA, (), {"pipeline": "people", "version": 3})
    (folder / "contract.json").write_bytes(said)
    (folder / "model.skops").write_bytes(store.get(layout.blob(info["digest"])))
    return hashlib.sha256(said).hexdigest()


def inputs(n: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({"x": random.normal(size=n), "secret": random.normal(size=n)}, index=range(40, 40 + n))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("model")
    digest = unpacked(folder)
    command = [sys.executable, "-X", "importtime", "-m", "airflow_mlops.ml.transform_server", "serve"]
    process = subprocess.Popen(
        [*command, "--model", str(folder), "--host", "127.0.0.1", "--port", "0"],
        env=os.environ | {CONTRACT_VARIABLE: digest, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    imported = []
    for line in process.stderr:
        imported.append(line)
        if ready := re.fullmatch(r"people v3 is ready on port (\d+)\n", line):
            break
    else:
        pytest.fail("".join(imported[-20:]))
    # Airflow takes seconds and memory that a container has no use for.
    assert not [line for line in imported if re.search(r"\| +airflow(\.|$)", line)]
    assert [line for line in imported if "airflow_mlops.ml.transform_parts" in line]
    try:
        yield Served(folder, digest, process, int(ready[1]))
    finally:
        process.kill()
        process.communicate()


def test_it_says_when_it_is_ready(served: Served) -> None:
    assert served.ask("GET", "/ping") == (200, b"")
    assert served.ask("GET", "/execution-parameters")[0] == 404
    assert served.ask("POST", "/elsewhere", b"x")[0] == 404


@pytest.mark.parametrize("chunked", [False, True])
def test_it_answers_a_part(served: Served, chunked: bool) -> None:
    part = put_rows(inputs(1000), SCHEMA)
    if chunked:
        lines = [b"%x;a=b\r\n%b\r\n" % (len(part[i : i + 5000]), part[i : i + 5000]) for i in range(0, len(part), 5000)]
        head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw = served.send(head + b"".join(lines) + b"0\r\nSum: 1\r\n\r\n")
        top, _, body = raw.partition(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 200")
    else:
        status, body = served.ask("POST", "/invocations", part, **{"Content-Type": "application/x-parquet"})
        assert status == 200
    table = pq.read_table(io.BytesIO(body))
    assert table.column_names == [ROW, "prediction", "probability"]
    assert table[ROW].to_pylist() == list(range(40, 1040))
    assert body == Transformer(served.folder, served.digest).answer(part)[1]


def test_what_cannot_be_answered_is_refused_and_the_next_is_not(served: Served) -> None:
    part = put_rows(inputs(10), SCHEMA)
    status, said = served.ask("POST", "/invocations", b"no rows")
    assert status == 400
    assert b"no Parquet file that can be read" in said
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\n"
    for raw, said in (
        (head + b"\r\n", b"with its length"),
        (head + b"Content-Length: 999999999\r\n\r\n", b"115,343,360 bytes at most"),
        (head + b"Content-Length: 5\r\n\r\nabc", b"cut off"),
        (head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", b"cut off"),
        (head + b"Transfer-Encoding: chunked\r\n\r\nfffffffff\r\nabc", b"bytes at most"),
        (head + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc", b"bytes at most"),
        (head + b"Transfer-Encoding: chunked\r\n\r\n", b"invalid literal"),
    ):
        answer = served.send(raw)
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert said in answer
    assert served.ask("POST", "/invocations", part)[0] == 200


class Quoting:
    """A model whose error quotes a row."""

    classes_ = np.array([0, 1])

    def predict_proba(self, frame: pd.DataFrame) -> np.ndarray:
        raise RuntimeError(f"cannot do with {frame['secret'].iloc[0]}")


def test_an_error_of_the_model_quotes_nothing_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.ml.transform_parts.open_model", lambda *a, **k: Quoting())
    transformer = Transformer(tmp_path, unpacked(tmp_path))
    frame = inputs(5).assign(secret=31337.5)
    with pytest.raises(PredictionError, match=r"the model failed: RuntimeError at .*left out") as e:
        transformer.answer(put_rows(frame, SCHEMA))
    assert "31337" not in str(e.value)
    assert e.value.__cause__ is None


def test_it_ends_where_it_may_not_serve_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = unpacked(tmp_path)
    arguments = ["serve", "--model", str(tmp_path), "--port", "0"]
    monkeypatch.setenv(CONTRACT_VARIABLE, "0" * 64)
    assert main(arguments) == 1
    assert "not the one that the job was made for" in capsys.readouterr().err
    monkeypatch.delenv(CONTRACT_VARIABLE)
    assert main(arguments) == 1
    monkeypatch.setenv(CONTRACT_VARIABLE, digest)
    (tmp_path / "model.skops").write_bytes(b"another")
    assert main(arguments) == 1
    assert "not the one that was registered" in capsys.readouterr().err


def test_it_ends_well_when_the_container_is_stopped(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0
