"""A small client of Airflow's REST API, for the Airflow of an environment; a login is never shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from airflow_mlops.exceptions import AirflowUnavailable, ConfigError, DeliveryError

FINAL = ("success", "failed")
# A page may hold no more than the server's [api] maximum_page_limit, which is 100 by default.
_PAGE = 100
_TIMES = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True)
class Server:
    """An Airflow, and who asks there.

    :param url: ``http://…`` or ``https://…``, without a login.
    :param username: with ``password``, gets a token at ``/auth/token``.
    :param token: instead of the two: one that is there already.
    """

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ConfigError(
                "the address of an Airflow is http://… or https://…, without a login in it",
                hint="put host, port and schema into the connection's own fields, and login and password, too",
            )
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def cleaned(self, text: str) -> str:
        """``text`` without the secrets that an answer may have repeated."""
        for secret in (self.password, self.token):
            text = text.replace(secret, "***") if secret else text
        return text


class AirflowApi:
    """Asks one Airflow; what fails for a moment is asked again.

    :param patience: seconds after which an Airflow that does not answer is given up.
    :param transport: in place of the network, for tests.
    """

    def __init__(self, server: Server, *, patience: float = 30.0, transport: httpx.BaseTransport | None = None) -> None:
        self.server = server
        self.patience = patience
        self._client = httpx.Client(base_url=server.url, timeout=_TIMES, transport=transport)
        self._token = server.token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    # --- what is there ---------------------------------------------------------------------------

    def dags(self, bundle: str) -> dict[str, dict[str, Any]]:
        """Return the DAGs that Airflow has read from a bundle and not given up, by their ids."""
        return {d["dag_id"]: d for d in self._pages("dags", "dags", bundle_name=bundle, exclude_stale="true")}

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """Return one DAG with the fields of its trigger form (``params``); ``None``: there is none."""
        return self._ask("GET", f"dags/{quote(dag_id, safe='')}/details", absent=True)

    def import_errors(self, bundle: str) -> list[dict[str, Any]]:
        """Return the files of a bundle that cannot be imported now."""
        return list(self._pages("importErrors", "import_errors", bundle_name=bundle))

    def run(self, dag_id: str, run_id: str) -> dict[str, Any] | None:
        """Return one run; ``None``: there is none."""
        return self._ask("GET", f"dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}", absent=True)

    def running(self, dag_id: str) -> list[str]:
        """Return the ids of the runs of a DAG that have begun and not ended."""
        path = f"dags/{quote(dag_id, safe='')}/dagRuns"
        return [str(run["dag_run_id"]) for run in self._pages(path, "dag_runs", state="running")]

    def failed_tasks(self, dag_id: str, run_id: str) -> list[str]:
        """Return the ids of the tasks of a run that failed themselves."""
        path = f"dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return sorted({t["task_id"] for t in self._pages(path, "task_instances", state="failed")})

    # --- what is done ----------------------------------------------------------------------------

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any], note: str) -> None:
        """Start a run, unless one of this id is there."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf), "note": note}
        self._ask("POST", f"dags/{quote(dag_id, safe='')}/dagRuns", body=body, there=True)

    def note(self, dag_id: str, run_id: str, text: str) -> None:
        """Write a run's note anew."""
        path = f"dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"
        self._ask("PATCH", path, body={"note": text})

    def pause(self, dag_id: str, paused: bool) -> None:
        """Switch a DAG off, or on."""
        self._ask("PATCH", f"dags/{quote(dag_id, safe='')}", body={"is_paused": paused})

    # --- asking ----------------------------------------------------------------------------------

    def _pages(self, path: str, key: str, **params: str) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            answer = self._ask("GET", path, params={**params, "limit": str(_PAGE), "offset": str(offset)}) or {}
            found = answer[key]
            yield from found
            offset += len(found)
            if not found or offset >= answer["total_entries"]:
                return

    def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        absent: bool = False,
        there: bool = False,
    ) -> dict[str, Any] | None:
        """Ask for ``/api/v2/PATH``.

        Everything that is asked here may arrive twice.

        :param absent: 404 is an answer, and ``there``: so is 409.
        :raises AirflowUnavailable: there was no answer but errors for as long as ``patience``.
        :raises DeliveryError: Airflow refuses.
        """
        renewed = False

        def send() -> httpx.Response:
            headers = {"Authorization": f"Bearer {self._authorized()}"}
            return self._client.request(method, f"/api/v2/{path}", params=params, json=body, headers=headers)

        while True:
            response = self._patiently(send)
            if response.status_code == 401 and self.server.username and not renewed:
                self._token, renewed = None, True  # it ran out
                continue
            if (response.status_code == 404 and absent) or (response.status_code == 409 and there):
                return None
            if response.is_error:
                raise self._refused(f"{method} {path.partition('?')[0]}", response)
            return self._json(response)

    def _authorized(self) -> str:
        if self._token is None:
            login = {"username": self.server.username, "password": self.server.password}
            if not self.server.username or not self.server.password:
                raise ConfigError(
                    f"there is no login for the Airflow at {self.server.url}",
                    hint="give the connection login and password, or a token as password alone",
                )
            response = self._patiently(lambda: self._client.post("/auth/token", json=login))
            if response.is_error:
                raise self._refused(f"the login {self.server.username}", response)
            self._token = str(self._json(response)["access_token"])
        return self._token

    def _patiently(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """The first answer that is no error of the server; waits grow from half a second to five."""
        deadline, wait = time.monotonic() + self.patience, 0.5
        while True:
            try:
                response = send()
                said = f"it answers {response.status_code}"
                if response.status_code < 500 and response.status_code != 429:
                    return response
            except httpx.TransportError as e:
                # The cause is left out: its text may hold a proxy's address with a login.
                said = type(e).__name__
            if time.monotonic() + wait > deadline:
                raise AirflowUnavailable(
                    f"the Airflow at {self.server.url} has not answered for {self.patience:g} seconds: {said}",
                    hint="is its API server up, and is the address of the connection right?",
                )
            time.sleep(wait)
            wait = min(wait * 2, 5.0)

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            found = response.json() if response.content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DeliveryError(
                f"what answers at {self.server.url} is no Airflow: {response.request.url.path} gives no JSON object",
                hint="check host, port and schema of the connection; a path of [api] base_url belongs to the host",
            )
        return found

    def _refused(self, what: str, response: httpx.Response) -> DeliveryError:
        said = self.server.cleaned(" ".join(response.text.split()))[:300]
        hint = {
            401: "check login and password of the connection",
            403: "give this user the right to read DAGs and import errors, and for smoke runs to start DAGs, "
            "switch them on, and write the notes of runs",
        }.get(response.status_code, "read that Airflow's API server log")
        return DeliveryError(
            f"the Airflow at {self.server.url} refuses {what}: {response.status_code} {said}", hint=hint
        )
