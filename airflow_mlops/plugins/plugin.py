"""What the package adds to Airflow's API server."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_mlops.links.reports import URL_PREFIX


class MLOpsPlugin(AirflowPlugin):
    """Serves reports and bundles from the store, below ``/mlops``."""

    name = "mlops"

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The read-only report app; built on first access, which only the API server makes."""
        # Every process that loads plugins imports this module: FastAPI would cost each of them about a second.
        from airflow_mlops.plugins.app import create_app

        return [{"name": "mlops", "app": create_app(), "url_prefix": URL_PREFIX}]
