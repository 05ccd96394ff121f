"""Who sees which pipeline under FAB's auth manager: ``python -m tests.ui.fab_rights``.

Needs FAB's provider. One line for each user and one for the routes, and exit code
1 when one sees more or less than they may.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

READ = (("can_read", "Website"), ("can_read", "Plugins"))
ONE = ("can_read", "DAG:churn__train")
ROLES: dict[str, tuple[tuple[str, str], ...]] = {
    "limited": (*READ, ONE, ("can_read", "DAG Runs")),
    "asked": (*READ, ONE, ("can_read", "DAG Runs"), ("can_read", "HITL Detail"), ("can_read", "Required Actions")),
    "noruns": (*READ, ONE),
    "noplugins": (("can_read", "Website"), ("can_read", "DAGs"), ("can_read", "DAG Runs")),
}
BOTH = ["churn", "hidden"]
# user → status of the fleet, pipelines in it, approvals of churn, whether its runs are shown, status of another's page
EXPECTED: dict[str, tuple[int, list[str], int, bool, int]] = {
    "admin": (200, BOTH, 1, True, 200),
    "viewer": (403, [], 0, False, 403),
    "limited": (200, ["churn"], 0, True, 404),
    "asked": (200, ["churn"], 1, True, 404),
    "noruns": (200, ["churn"], 0, False, 404),
    "noplugins": (403, [], 0, False, 403),
}


def main() -> int:
    """Build an Airflow with two pipelines and six users, and ask as each of them."""
    with tempfile.TemporaryDirectory(prefix="mlops-fab-") as folder:
        os.environ |= {
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this script, long enough for HS512 " * 2,
            "AIRFLOW__MLOPS__STORE": Path(folder, "store").as_uri(),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        _build(Path(folder, "store"))
        client = _client()
        found, open_routes = _ask(client), _open(client)
    for user, expected in EXPECTED.items():
        print(f"{user:10} {'as it should be' if found[user] == expected else f'{found[user]} instead of {expected}'}")
    print(f"{'routes':10} {open_routes or 'as it should be'}")
    return int(found != EXPECTED or bool(open_routes))


def _build(store: Path) -> None:
    from airflow.models.dagbundle import DagBundleModel
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session

    from airflow_mlops.store import LocalStore
    from tests.unit.plugins.pages import Site, champion

    initdb()
    with create_session() as session:
        session.add(DagBundleModel(name="dags"))
    site = Site(LocalStore(store))
    for name in BOTH:
        champion(site.pipeline(name))
        site.ask(f"{name}__train", "q1", f"Promote {name} version 2?")
    with get_application_builder() as builder:
        manager = builder.sm
        manager.sync_roles()
        for name in BOTH:
            manager.sync_perm_for_dag(f"{name}__train", None)
        for name, permissions in ROLES.items():
            role = manager.add_role(name)
            for action, resource in permissions:
                manager.add_permission_to_role(role, manager.create_permission(action, resource))
        for user in EXPECTED:
            role = manager.find_role(user if user in ROLES else user.capitalize())
            manager.add_user(user, user, user, f"{user}@example.org", role, password=user)


def _client() -> Any:
    from airflow.api_fastapi.app import cached_app
    from fastapi.testclient import TestClient

    return TestClient(cached_app(), raise_server_exceptions=False)


def _sign_in(client: Any, user: str) -> dict[str, str]:
    signed_in = client.post("/auth/token", json={"username": user, "password": user}).json()
    return {"Authorization": f"Bearer {signed_in['access_token']}"}


def _open(client: Any) -> list[str]:
    """Routes that answer whom they should not: nobody, who may not see plugin pages, who may not read the pipeline."""
    from airflow_mlops.plugins.api.app import create_api

    nobody: dict[str, str] = {}
    asked = ((nobody, 401), (_sign_in(client, "noplugins"), 403), (_sign_in(client, "viewer"), 403))
    limited, found = _sign_in(client, "limited"), []
    paths = sorted(getattr(route, "path", "") for route in create_api().routes)
    if not {"/fleet", "/runs/{dag_id}"} <= {*paths}:
        return ["the routes are not found"]
    for path in paths:
        url = "/mlops/api" + path.format(pipeline="hidden", dag_id="hidden__train")
        query = {"run_id": "q1", "window": "w", "column": "c"}
        for headers, status in asked:
            answer = client.get(url, headers=headers, params=query)
            if answer.status_code != status:
                found.append(f"{url}: {answer.status_code} instead of {status}")
        if "{" in path and client.get(url, headers=limited, params=query).status_code != 404:
            found.append(f"{url}: not 404 for who may not read it")
    return found


def _ask(client: Any) -> dict[str, tuple[int, list[str], int, bool, int]]:
    found = {}
    for user in EXPECTED:
        headers = _sign_in(client, user)
        fleet = client.get("/mlops/api/fleet", headers=headers)
        rows: list[dict[str, Any]] = fleet.json().get("rows", [])
        churn = next((r for r in rows if r["pipeline"] == "churn"), None)
        found[user] = (
            fleet.status_code,
            sorted(r["pipeline"] for r in rows),
            len(churn["approvals"]) if churn else 0,
            bool(churn and churn["last_training_run"]),
            client.get("/mlops/api/pipelines/hidden/timeline", headers=headers).status_code,
        )
    return found


if __name__ == "__main__":
    # Not by an import: it would settle on the caller's Airflow, database and all.
    try:
        version("apache-airflow-providers-fab")
    except PackageNotFoundError:
        sys.exit("FAB's auth manager is missing: say `make install`, or pip install apache-airflow-providers-fab")
    sys.exit(main())
