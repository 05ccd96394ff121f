"""What the package adds to Airflow's API server."""

from __future__ import annotations

import os
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_mlops.links.reports import URL_PREFIX


def web_state() -> str:
    """Names the state of the pages' files: another release, or an edited file, has another name.

    By their sizes and times, not by what is in them: every process of Airflow that loads plugins asks.
    """
    web = Path(__file__).with_name("web")
    told = []
    for folder in (web, web / "vendor"):
        with os.scandir(folder) as files:
            told += [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files if f.is_file()]
    told.sort()
    return f"{zlib.crc32(chr(10).join(told).encode()):08x}"


# Below the page's base URL, not from the host's root: Airflow may live under a prefix. The name of the files' state is
# in their addresses, so that browsers keep them without asking again for each.
STATIC = f"{URL_PREFIX.lstrip('/')}/static/{web_state()}"


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
