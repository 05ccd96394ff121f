"""An S3 server for tests: moto on a free loopback port, which it prints. Ends when its stdin closes."""

from __future__ import annotations

import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *args: object) -> None:
        """Say nothing."""


app = DomainDispatcherApplication(create_backend_app)
lock = threading.Lock()


def one_at_a_time(environ, start_response):
    # moto checks If-None-Match and then writes: without the lock two writers could both pass the check.
    with lock:
        return app(environ, start_response)


server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_port, flush=True)
sys.stdin.read()
