"""The container of a batch transform job: ``python -m airflow_mlops.ml.transform_server serve``.

SageMaker's own contract for one's own container: it is started with the argument ``serve``, has the model unpacked in
``/opt/ml/model``, says 200 to ``GET /ping`` when it is ready, and answers each ``POST /invocations`` with what is
written beside the part that was sent. Here that is a part of :mod:`~airflow_mlops.ml.transform_parts`. Airflow is not
imported. What it prints goes to CloudWatch: how many rows, and errors; where features are private, not the words of a
model's own error, which may quote a row.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import MLOpsError, PredictionError
from airflow_mlops.ml.model_outputs import Outputs
from airflow_mlops.ml.privacy import told
from airflow_mlops.ml.transform_parts import CONTRACT_VARIABLE, PARQUET, get_rows, put_said, unpacked_model
from airflow_mlops.registry.artifacts import environment

MODEL_FOLDER = "/opt/ml/model"
_PORT = 8080
_LARGEST = 110 << 20  # SageMaker sends 100 MB at most
_IDLE = 3600.0  # seconds; as long as SageMaker waits for an answer


class Transformer:
    """A model that answers parts of rows.

    :param folder: where the model and its contract are unpacked.
    :param digest: sha256 of the contract.
    :raises UntrustedArtifact, CorruptObject: see :func:`~airflow_mlops.ml.transform_parts.unpacked_model`.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        model, self._schema, said = unpacked_model(folder, digest)
        self._outputs = Outputs(model, self._schema)
        self._model = said["model"]["digest"]
        self._packages = environment()["packages"]
        self.name = f"{said['pipeline']} v{said['version']}"

    def answer(self, part: bytes) -> tuple[int, bytes]:
        """How many rows a part has, and what the model says of them.

        :raises PredictionError: it is no such part, or the model fails.
        """
        inputs = get_rows(part, self._schema)
        about = {"part": hashlib.sha256(part).hexdigest(), "model": self._model, "packages": self._packages}
        try:
            return len(inputs), put_said(inputs.index.to_numpy(), self._outputs.of(inputs), about)
        except MLOpsError:
            raise
        except Exception as e:  # noqa: BLE001 - a model may raise anything, and may quote a row
            raise PredictionError(f"the model failed: {told(e, self._schema.private)}") from None


def say(text: str) -> None:
    """One line for the job's log."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a program's own output


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE
    transformer: Transformer

    def do_GET(self) -> None:
        """``/ping``; the other question that SageMaker may ask, ``/execution-parameters``, is answered by the job."""
        self._reply(200 if self.path == "/ping" else 404, b"", "text/plain")

    def do_POST(self) -> None:
        """``/invocations``."""
        began = time.monotonic()
        try:
            part = self._body()
        except ValueError as e:
            self.close_connection = True
            self._reply(400, str(e).encode(), "text/plain")
            return
        if self.path != "/invocations":
            self._reply(404, b"", "text/plain")
            return
        try:
            rows, answer = self.transformer.answer(part)
        except MLOpsError as e:
            say(f"refused a part of {len(part):,} bytes: {e}")
            self._reply(400, str(e).encode(), "text/plain")
            return
        say(f"{rows:,} rows in {time.monotonic() - began:.1f} s")
        self._reply(200, answer, PARQUET)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunked()
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LARGEST:
            raise ValueError(f"send a part of {_LARGEST:,} bytes at most, with its length")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ValueError("the part is cut off")
        return data

    def _chunked(self) -> bytes:
        parts: list[bytes] = []
        total = 0
        while size := int(self.rfile.readline(100).split(b";")[0], 16):
            total += size
            if size < 0 or total > _LARGEST:
                raise ValueError(f"send a part of {_LARGEST:,} bytes at most")
            parts.append(self.rfile.read(size))
            if len(parts[-1]) < size or self.rfile.readline(3) != b"\r\n":
                raise ValueError("the part is cut off")
        while self.rfile.readline(10_000) not in (b"\r\n", b""):
            """A trailer says nothing here."""
        return b"".join(parts)

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing for each request: `/ping` comes all the time."""


def open_server(transformer: Transformer, host: str, port: int) -> ThreadingHTTPServer:
    """A server that listens and is yet to serve."""
    return ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"transformer": transformer}))


def main(arguments: list[str] | None = None) -> int:
    """Load the model, then serve until the container is stopped."""
    parser = argparse.ArgumentParser(prog="python -m airflow_mlops.ml.transform_server", description=__doc__)
    parser.add_argument("serve", choices=["serve"], help="what SageMaker starts a container with")
    parser.add_argument("--model", type=Path, default=Path(MODEL_FOLDER), help="where the model is unpacked")
    # All addresses: SageMaker asks from outside of the container, and nobody else reaches it.
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104
    parser.add_argument("--port", type=int, default=int(os.environ.get("SAGEMAKER_BIND_TO_PORT") or _PORT))
    given = parser.parse_args(arguments)
    try:
        transformer = Transformer(given.model, os.environ.get(CONTRACT_VARIABLE, ""))
    except MLOpsError as e:
        say(str(e))
        return 1
    server = open_server(transformer, given.host, given.port)
    # Not in the main thread, which serves: shutdown() waits for it.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    say(f"{transformer.name} is ready on port {server.server_port}")
    with server:
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
