"""The pages with their store on S3: complete where it answers, in time where it does not, and back by themselves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from airflow_mlops.plugins.api import app as api_app
from airflow_mlops.plugins.api.reader import StoreReader
from airflow_mlops.store import S3Store
from tests.unit.plugins.conftest import client, database, get, reader, site  # noqa: F401 (fixtures)
from tests.unit.plugins.fleets import night
from tests.unit.plugins.pages import Get, Site, as_role, champion, check

WAIT, LONG_WAIT = 0.8, 1.5
SECTIONS = ("timeline", "versions", "compare?a=1&b=1", "performance", "drift", "lineage", "reports")


class Relay:
    """A TCP relay before a server; while it ``hangs`` it takes connections and bytes, and answers nothing."""

    def __init__(self, target: str) -> None:
        at = urlsplit(target)
        self._target = (str(at.hostname), int(at.port or 80))
        self.hangs = False
        self.taken = 0
        self._open: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                self._open.append(near)
                self.taken += 1
                far = socket.create_connection(self._target)
                self._open.append(far)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not self.hangs:
                    sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def wake(self) -> None:
        """Answer again; connections from before are lost."""
        self.hangs = False
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.wake()
        self._server.close()


@pytest.fixture
def relay(s3_endpoint: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """The store of the API server is the bucket, by way of a relay and Airflow's own connection."""
    found = Relay(s3_endpoint)
    connection = {
        "conn_type": "aws", "login": "test", "password": "test",
        "extra": {"endpoint_url": found.url, "region_name": "us-east-1"},
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"s3://{s3_bucket}/mlops")
    yield found
    found.close()


@pytest.fixture
def pages(site: Site, reader: StoreReader, relay: Relay, s3_store: S3Store) -> Site:  # noqa: F811
    """A pipeline of one model and a fleet, in S3."""
    site.store = s3_store
    champion(site.pipeline("churn"))
    check(s3_store, "churn", "drift", 5, "no_drift", version=1, rows=9, columns=[])
    site.pipeline("routes")
    night(s3_store, 1, keys=12, shard=6)
    site.run("routes__train", "night_1")
    reader.open_store = api_app._open_store
    reader.wait, reader.long_wait = WAIT, LONG_WAIT
    return site


def test_every_page_is_complete_on_s3(pages: Site, reader: StoreReader, get: Get) -> None:  # noqa: F811
    reader.wait, reader.long_wait = 10, 10
    found = get("fleet")
    assert (found["pending"], found["store_problem"]) == (0, None)
    rows = {row["pipeline"]: row for row in found["rows"]}
    assert (rows["churn"]["champion"]["version"], rows["churn"]["drift"]["verdict"]) == (1, "no_drift")
    assert (rows["routes"]["training"]["verdict"], rows["routes"]["champions"]) == ("9 promoted", 9)
    for section in SECTIONS:
        assert get(f"pipelines/churn/{section}")
    assert get("pipelines/churn/lineage")["version"] == 1
    assert get("pipelines/routes/keys", sort="metric:r2", order="desc")["rows"][0]["key"] == "r00011"
    assert get("pipelines/routes/versions", key="r00005")["versions"][0]["status"] == "champion"
    assert get("runs/routes__train", run_id="night_1")["title"].startswith("9 promoted")


@pytest.fixture
def server(client: Any, pages: Site) -> Iterator[str]:  # noqa: F811
    """The API in a real server, beside a page of Airflow's own; its address."""
    outer: FastAPI = client.app

    @outer.get("/own")
    def own() -> str:
        return "Airflow"

    running = uvicorn.Server(uvicorn.Config(outer, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(10)


def test_an_endpoint_that_never_answers_is_told_in_time_and_holds_nothing_of_airflows(
    server: str, relay: Relay
) -> None:
    asked = httpx.Client(base_url=server, headers=as_role("viewer"), timeout=20)

    def timed(path: str) -> tuple[float, int, Any]:
        begun = time.monotonic()
        answer = asked.get(path)
        return time.monotonic() - begun, answer.status_code, answer.json()

    relay.hangs = True
    # More at once than Airflow's server has threads for plain functions (40).
    paths = [
        "/mlops/api/fleet",
        "/mlops/api/attention",
        "/mlops/api/pipelines/churn",
        "/mlops/api/pipelines/churn/drift",
    ]
    with ThreadPoolExecutor(64) as crowd:
        waiting = [crowd.submit(timed, path) for path in paths * 15]
        own = [crowd.submit(timed, "/own").result() for _ in range(10)]
        answers = [future.result() for future in waiting]
    assert relay.taken > 0
    assert all((status, said) == (200, "Airflow") for _, status, said in own)
    assert max(took for took, _, _ in own) < 3
    assert max(took for took, _, _ in answers) < LONG_WAIT + 3
    for _, status, said in answers:
        # Fleet and head show what Airflow knows, also while others wait; what is in the store alone is refused.
        assert status in (200, 503)
        if status == 503:
            assert "has not answered" in said["detail"] or "wait for the store already" in said["detail"]
    took, status, said = timed("/mlops/api/fleet")
    assert (status, said["total"], said["counts"]["unknown"]) == (200, 2, 2)
    assert took < 1
    assert "has not answered" in said["store_problem"]

    relay.wake()
    deadline = time.monotonic() + 15
    while (said := timed("/mlops/api/fleet")[2])["store_problem"] or said["pending"]:
        assert time.monotonic() < deadline, said["store_problem"]
        time.sleep(0.3)
    assert {row["pipeline"]: row["champions"] for row in said["rows"]} == {"churn": 1, "routes": 9}


def test_an_endpoint_that_is_gone_is_told(server: str, relay: Relay) -> None:
    relay.close()
    answer = httpx.get(f"{server}/mlops/api/fleet", headers=as_role("viewer"), timeout=20)
    assert answer.status_code == 200
    assert answer.json()["store_problem"]
    assert "127.0.0.1" not in answer.json()["store_problem"]
