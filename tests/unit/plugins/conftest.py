"""An Airflow database of these tests' own, and the pages' API with real tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow import settings
from airflow.api_fastapi.app import init_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel, DagTag
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, delete, event
from sqlalchemy.orm import scoped_session, sessionmaker

from airflow_mlops.plugins.api.app import create_api
from airflow_mlops.plugins.api.reader import StoreReader
from airflow_mlops.store import LocalStore
from tests.unit.plugins.pages import Get, Site, as_role


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Airflow's tables in a file of their own: other tests may count on there being none in Airflow's home."""
    import_all_models()
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('airflow')}/airflow.db")
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=OFF"))
    Base.metadata.create_all(engine)
    return engine


@pytest.fixture
def site(database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(settings, "engine", database)
    monkeypatch.setattr(settings, "NonScopedSession", sessionmaker(database, expire_on_commit=False), raising=False)
    monkeypatch.setattr(settings, "Session", scoped_session(settings.NonScopedSession), raising=False)
    site = Site(LocalStore(tmp_path / "store"))
    with create_session() as session:
        session.add(DagBundleModel(name="dags"))

    def may_read(
        self: Any, *, details: Any = None, method: str = "GET", user: Any = None, access_entity: Any = None
    ) -> bool:
        if access_entity is not None and access_entity.value in site.refused:
            return False
        if user.role is None or (method != "GET" and user.role == "viewer"):
            return False
        return details is None or site.readable is None or details.id in site.readable

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", may_read)
    yield site
    with create_session() as session:
        for table in (HITLDetail, TaskInstance, DagRun, DagTag, DagModel, DagBundleModel):
            session.execute(delete(table.__table__))


@pytest.fixture
def reader(site: Site) -> StoreReader:
    return StoreReader(lambda: site.store)


@pytest.fixture
def client(site: Site, reader: StoreReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """The API under ``/mlops/api``, with the simple auth manager."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of these tests, long enough for HS512 " * 2)
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(tmp_path / "passwords.json"))
    monkeypatch.setattr("airflow.configuration.conf.getimport", lambda *_, **__: SimpleAuthManager, raising=True)
    monkeypatch.setattr(SimpleAuthManager, "init", lambda _: None)
    purge_cached_app()
    outer = FastAPI()
    init_auth_manager(outer)
    outer.mount("/mlops/api", create_api(reader))
    yield TestClient(outer, raise_server_exceptions=False)
    purge_cached_app()


@pytest.fixture
def get(client: TestClient) -> Get:
    """Ask the API as a user with a role; returns the JSON of a 200."""

    def ask(path: str, role: str = "viewer", **query: Any) -> Any:
        answer = client.get(f"/mlops/api/{path}", params=query, headers=as_role(role))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask
