"""An Airflow that is only its REST API, as far as deliveries ask it; for faults that a real one has not on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx

from airflow_mlops.delivery.airflow_api import AirflowApi, Server

COMMIT, OLD = "c" * 40, "0" * 40


class FakeAirflow:
    """``dags``, ``errors`` and ``runs`` are what it shows; ``broken`` answers instead, where it gives an answer."""

    def __init__(self) -> None:
        self.dags: dict[str, dict[str, Any]] = {}
        self.errors: list[dict[str, Any]] = []
        self.runs: dict[tuple[str, str], dict[str, Any]] = {}
        self.ends = "success"
        self.token = "t0ken"
        self.asked: list[str] = []
        self.broken: Callable[[httpx.Request], httpx.Response | None] = lambda request: None

    def add(self, *dag_ids: str, version: str | None = COMMIT, bundle: str = "crm", **more: Any) -> None:
        for dag_id in dag_ids:
            dag = {"dag_id": dag_id, "bundle_name": bundle, "bundle_version": version, "is_stale": False}
            form = {"promote": {}, "window_start": {}, "window_end": {}, "seed": {}}
            self.dags[dag_id] = {**dag, "is_paused": True, "timetable_summary": "@weekly", "params": form, **more}

    def api(self, *, patience: float = 0.0, **login: Any) -> AirflowApi:
        login = login or {"username": "admin", "password": "p4ss"}
        return AirflowApi(Server("http://there:8080/", **login), patience=patience, transport=httpx.MockTransport(self))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(f"{request.method} {path}")
        if (answer := self.broken(request)) is not None:
            return answer
        if path == "/auth/token":
            right = json.loads(request.content) == {"username": "admin", "password": "p4ss"}
            return httpx.Response(201, json={"access_token": self.token}) if right else httpx.Response(401, text="no")
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return httpx.Response(401, json={"detail": "Invalid JWT token"})
        return self._api(request, path.removeprefix("/api/v2/").split("/"))

    def _api(self, request: httpx.Request, parts: list[str]) -> httpx.Response:
        if parts == ["dags"]:
            mine = [d for d in self.dags.values() if d["bundle_name"] == request.url.params["bundle_name"]]
            return self._page(request, "dags", mine)
        if parts == ["importErrors"]:
            return self._page(request, "import_errors", self.errors)
        dag = self.dags.get(parts[1])
        if dag is None:
            return httpx.Response(404, json={"detail": "not found"})
        if request.method == "PATCH" and len(parts) == 2:
            dag |= json.loads(request.content)
            return httpx.Response(200, json=dag)
        if parts[2:] == ["details"]:
            return httpx.Response(200, json=dag)
        if request.method == "POST":
            body = json.loads(request.content)
            key = (parts[1], body["dag_run_id"])
            if key in self.runs:
                return httpx.Response(409, json={"detail": "there is one"})
            run = {"dag_run_id": key[1], "state": "queued", "conf": body["conf"], "note": body["note"]}
            self.runs[key] = run | {"bundle_version": dag["bundle_version"]}
            return httpx.Response(200, json=self.runs[key])
        if len(parts) == 3:
            mine = [run for (dag_id, _), run in self.runs.items() if dag_id == parts[1]]
            state = request.url.params["state"]
            return self._page(request, "dag_runs", [run for run in mine if run["state"] == state])
        run = self.runs.get((parts[1], parts[3]))
        if run is None:
            return httpx.Response(404, json={"detail": "not found"})
        if request.method == "PATCH":
            run |= json.loads(request.content)
            return httpx.Response(200, json=run)
        if parts[4:] == ["taskInstances"]:
            return self._page(request, "task_instances", [{"task_id": "train.fit"}])
        if not dag["is_paused"] and run["state"] == "queued":
            run["state"] = self.ends
        return httpx.Response(200, json=run)

    def _page(self, request: httpx.Request, key: str, every: list[dict[str, Any]]) -> httpx.Response:
        limit, offset = (int(request.url.params[name]) for name in ("limit", "offset"))
        return httpx.Response(200, json={key: every[offset : offset + limit], "total_entries": len(every)})
