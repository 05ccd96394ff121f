"""One live Airflow for all tests that need none of their own; they run last, so that it idles beside nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_mlops.demo.airflow import LiveAirflow
from airflow_mlops.store import LocalStore

LOADER = "# airflow dag\nfrom airflow_mlops import load_dags\nglobals().update(load_dags('pipelines'))\n"


@dataclass(frozen=True)
class SharedAirflow:
    """An Airflow that reads changed files within seconds; a test keeps to DAGs of its own.

    :param dags: its DAGs folder.
    :param data: its ``[mlops] data_root``.
    :param store: its ``[mlops] store``.
    """

    live: LiveAirflow
    dags: Path
    data: Path
    store: LocalStore

    def pipelines(self, test: str, files: dict[str, str], loader: str = LOADER) -> Path:
        """Make a folder of a test's own, with a loader and ``files`` (name → text); returns that of the files."""
        folder = self.dags / test / "pipelines"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        (folder.parent / "loader.py").write_text(loader)
        return folder


@pytest.fixture(scope="session")
def shared_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedAirflow]:
    folder = tmp_path_factory.mktemp("shared")
    dags, data, store = (folder / name for name in ("dags", "data", "store"))
    dags.mkdir()
    data.mkdir()
    env = {
        "AIRFLOW__CORE__DAG_DISCOVERY_SAFE_MODE": "True",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "2",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
        "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "1",
        "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "1",
        "AIRFLOW__MLOPS__DATA_ROOT": str(data),
        "AIRFLOW__MLOPS__STORE": store.as_uri(),
        "AIRFLOW__MLOPS__ALLOWED_IMPORTS": "desk",  # whom test_closed_loop has told
    }
    with LiveAirflow(folder / "airflow", dags, env=env, say=print) as live:
        yield SharedAirflow(live, dags, data, LocalStore(store))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "shared_airflow" in getattr(item, "fixturenames", ()))
