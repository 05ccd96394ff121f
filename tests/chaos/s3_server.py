"""An S3 server on a free loopback port, which it prints, that fails as it is told. Ends when its stdin closes.

moto behind a lock (it checks If-None-Match and then writes), with faults between it and the wire. They are
told by ``POST /-/plan`` with a JSON object; the answer has ``requests``: the number of requests since the
plan before, and ``faults``: how often each was done.

``PUT /-/bucket/<name>`` makes a bucket of a pickled dict of keys and bytes, ``GET`` returns it, ``DELETE``
removes it: hundreds of requests in one, past all faults.

- ``kill``: ``[pid, k, "before" | "after"]``: SIGKILL to the client when its request k (from 0) has arrived,
  or has been done but not answered.
- ``rate``, ``seed``: that part of all requests goes wrong: 503; 409 (conditional writes); done, and the
  connection closed without an answer; body cut short (reads).
"""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import random
import signal
import socket
import sys
import threading
from collections import Counter
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

LOCK = threading.Lock()
_BUSY = (503, "SlowDown", "Please reduce your request rate.")
_CONFLICT = (409, "ConditionalRequestConflict", "A conflicting conditional operation is in progress.")
_PHRASES = {503: "Slow Down", 409: "Conflict"}


class Plan:
    """What goes wrong, and what was seen of it."""

    def __init__(self, *, kill: tuple[int, int, str] | None = None, rate: float = 0, seed: int = 0) -> None:
        self.kill, self.rate, self.random = kill, rate, random.Random(seed)
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self.lock = threading.Lock()

    def fault(self, command: str, conditional: bool) -> str:
        """What happens to the next request."""
        with self.lock:
            at = self.requests
            self.requests += 1
            if self.kill is not None:
                return f"kill {self.kill[2]}" if at == self.kill[1] else ""
            if self.random.random() >= self.rate:
                return ""
            kinds = ["503", "lost reply"] + ["409"] * conditional + ["cut"] * (command == "GET")
            return self.random.choice(kinds)


class Handler(WSGIRequestHandler):
    """Answers one request after the other, through a buffer that the faults are done to."""

    protocol_version = "HTTP/1.1"
    plan = Plan()

    def log(self, *args: object) -> None:
        """Say nothing."""

    def run_wsgi(self) -> None:
        """Answer one request."""
        if self.path == "/-/plan":
            return self._new_plan()
        if self.path.startswith("/-/bucket/"):
            return self._bucket(self.path.rpartition("/")[2])
        if self.headers.get("Expect", "").lower() == "100-continue":
            # Now: the client waits for it, and what moto says waits in the buffer.
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            del self.headers["Expect"]
        plan = Handler.plan
        fault = plan.fault(self.command, self.headers.get("If-None-Match") == "*")
        if fault in ("503", "409", "kill before"):
            self._read_all()
            return self._refuse(plan, fault)
        wire, self.wfile = self.wfile, io.BytesIO()
        try:
            super().run_wsgi()
            reply = self.wfile.getvalue()
        finally:
            self.wfile = wire
        head, _, body = reply.partition(b"\r\n\r\n")
        if fault == "cut" and (len(body) < 2 or not head.startswith(b"HTTP/1.1 2")):
            fault = "lost reply"  # there is nothing to cut
        if fault:
            self._count(plan, fault)
        if fault == "kill after":
            self._kill(plan)
        elif fault == "cut":
            wire.write(reply[: -(len(body) // 2)])
        elif fault != "lost reply":
            wire.write(reply)
            return None
        return self._hang_up()

    def _new_plan(self) -> None:
        told = json.loads(self._read_all() or b"{}")
        old, Handler.plan = Handler.plan, Plan(**told)
        self._answer(200, "OK", json.dumps({"requests": old.requests, "faults": old.faults}).encode())

    def _bucket(self, name: str) -> None:
        raw, answer = self._read_all(), b""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        with LOCK:
            if self.command == "PUT":
                backend.create_bucket(name, "us-east-1")
                for key, data in pickle.loads(raw).items():
                    backend.put_object(name, key, data)
            elif self.command == "GET":
                answer = pickle.dumps({key: found.value for key, found in backend.buckets[name].keys.items()})
            else:
                del backend.buckets[name]
        self._answer(200, "OK", answer)

    def _refuse(self, plan: Plan, fault: str) -> None:
        self._count(plan, fault)
        if fault == "kill before":
            self._kill(plan)
            return self._hang_up()
        status, code, message = _BUSY if fault == "503" else _CONFLICT
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        return self._answer(status, _PHRASES[status], b"" if self.command == "HEAD" else body)

    def _answer(self, status: int, phrase: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)

    def _read_all(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _count(self, plan: Plan, fault: str) -> None:
        with plan.lock:
            plan.faults[fault] += 1

    def _kill(self, plan: Plan) -> None:
        if plan.kill is not None:
            os.kill(plan.kill[0], signal.SIGKILL)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve until stdin closes."""
    logging.disable(logging.CRITICAL)
    app = DomainDispatcherApplication(create_backend_app)

    def one_at_a_time(environ: Any, start_response: Any) -> Any:
        with LOCK:
            return app(environ, start_response)

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
