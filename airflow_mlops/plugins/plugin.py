"""What the package adds to Airflow's API server."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_mlops.links.reports import URL_PREFIX

# Below the page's base URL, not from the host's root: Airflow may live under a prefix.
STATIC = f"{URL_PREFIX.lstrip('/')}/static"


def _page(name: str, destination: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "destination": destination,
        "bundle_url": f"{STATIC}/mlops.js",
        "icon": f"{STATIC}/icon.svg",
        "icon_dark_mode": f"{STATIC}/icon-dark.svg",
        **more,
    }


class MLOpsPlugin(AirflowPlugin):
    """The MLOps pages in Airflow's UI, and what they read: reports, bundles and facts, below ``/mlops``."""

    name = "mlops"
    # A page is found by its name: `web/mlops.js` sets a global of each. One component serves the three that
    # are called MLOps; it sees from the ids it is given where it stands.
    react_apps: list[Any] = [  # noqa: RUF012 (declared so by the base class)
        _page("MLOps", "nav", url_route="mlops", nav_top_level=True),
        _page("MLOps", "dag", url_route="mlops-pipeline"),
        _page("MLOps", "dag_run", url_route="mlops-run"),
        _page("MLOps attention", "dashboard", url_route="mlops-attention"),
    ]

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The read-only app; built on first access, which only the API server makes."""
        # Every process that loads plugins imports this module: FastAPI would cost each of them about a second.
        from airflow_mlops.plugins.app import create_app

        return [{"name": "mlops", "app": create_app(), "url_prefix": URL_PREFIX}]
