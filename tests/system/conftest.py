from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_mlops.demo.airflow import LiveAirflow

Start = Callable[..., LiveAirflow]


@pytest.fixture(scope="session")
def live_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Call it with a DAGs folder (and ``env={…}``) for a live Airflow that ends with the test session."""
    with ExitStack() as stack:

        def start(dags: Path, *, home: Path | None = None, env: dict[str, str] | None = None) -> LiveAirflow:
            where = home or tmp_path_factory.mktemp("airflow")
            return stack.enter_context(LiveAirflow(where / "airflow", dags, env=env, say=print))

        yield start
