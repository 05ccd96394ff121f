"""The report routes with Airflow's real simple auth manager and real tokens; only its database is not there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import pytest
from airflow.api_fastapi.app import init_auth_manager, purge_cached_app
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel
from airflow.models.revoked_token import RevokedToken
from fastapi import FastAPI
from fastapi.testclient import TestClient

from airflow_mlops.exceptions import StoreUnavailable
from airflow_mlops.plugins.app import create_app
from airflow_mlops.store import LocalStore, layout

HTML = b"<!doctype html><title>Gate report</title><script>document.title='ran'</script>"
DIGEST = hashlib.sha256(HTML).hexdigest()
BUNDLE = b"PK\x05\x06" + bytes(18)
BUNDLE_DIGEST = hashlib.sha256(BUNDLE).hexdigest()
REPORT = f"/mlops/reports/churn__train/{DIGEST}"
RAW = f"{REPORT}/raw"
FILE = f"/mlops/files/churn__train/{BUNDLE_DIGEST}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", (tmp_path / "store").as_uri())
    store = LocalStore(tmp_path / "store")
    store.put(layout.report("churn__train", DIGEST), HTML)
    store.put(layout.handover("churn__train", BUNDLE_DIGEST), BUNDLE)
    return store


@pytest.fixture
def client(tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of these tests, long enough for HS512 " * 2)
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", str(tmp_path / "passwords.json"))
    monkeypatch.setattr("airflow.configuration.conf.getimport", lambda *_, **__: SimpleAuthManager, raising=True)
    monkeypatch.setattr(RevokedToken, "is_revoked", lambda *_, **__: False)
    monkeypatch.setattr(DagModel, "get_team_name", lambda *_, **__: None)
    monkeypatch.setattr(SimpleAuthManager, "init", lambda _: None)
    purge_cached_app()
    outer = FastAPI()
    init_auth_manager(outer)
    outer.mount("/mlops", create_app())
    yield TestClient(outer, raise_server_exceptions=False)
    purge_cached_app()


def as_role(role: str | None) -> dict[str, str]:
    token = SimpleAuthManager().generate_jwt(SimpleAuthManagerUser(username="someone", role=role))
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", [REPORT, RAW, FILE, "/mlops/reports/churn__train/" + "0" * 64])
def test_nobody_unknown_reads_anything(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401
    assert "Sign in" in answer.text


@pytest.mark.parametrize("path", [REPORT, RAW, FILE])
def test_a_forged_token_is_refused(client: TestClient, path: str) -> None:
    assert client.get(path, headers={"Authorization": "Bearer not.a.token"}).status_code == 403


@pytest.mark.parametrize("path", [REPORT, RAW, FILE])
def test_a_user_without_a_role_is_refused(client: TestClient, path: str) -> None:
    answer = client.get(path, headers=as_role(None))
    assert answer.status_code == 403
    assert "may not read" in answer.text


@pytest.mark.parametrize("path", [REPORT, RAW, FILE])
def test_plugin_pages_alone_are_not_enough(client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def only_another(self: Any, *, details: Any, **_: Any) -> bool:
        asked.append(details.id)
        return details.id == "another__train"

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", only_another)
    assert client.get(path, headers=as_role("viewer")).status_code == 403
    assert asked == ["churn__train"]


@pytest.mark.parametrize("path", [REPORT, RAW, FILE])
def test_reading_the_dag_alone_is_not_enough(client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleAuthManager, "is_authorized_view", lambda *_, **__: False)
    assert client.get(path, headers=as_role("viewer")).status_code == 403


@pytest.mark.parametrize("path", [REPORT, RAW])
def test_a_query_parameter_does_not_change_which_dag_is_checked(
    client: TestClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        SimpleAuthManager, "is_authorized_dag", lambda *_, details, **__: details.id == "another__train"
    )
    assert client.get(path + "?dag_id=another__train", headers=as_role("viewer")).status_code == 403


def test_the_session_cookie_signs_in(client: TestClient) -> None:
    token = as_role("viewer")["Authorization"].removeprefix("Bearer ")
    client.cookies.set("_token", token)
    assert [client.get(path).status_code for path in (REPORT, RAW)] == [200, 200]


def test_at_the_address_of_a_report_stands_a_page_that_frames_it(client: TestClient) -> None:
    answer = client.get(REPORT, headers=as_role("viewer"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>Report of churn__train</title>" in answer.text
    assert answer.text.count("<iframe") == 1
    frame = re.search(r'<iframe sandbox="allow-scripts" [^>]*src="([^":]+)"></iframe>', answer.text)
    assert frame
    assert urljoin(REPORT, frame[1]) == RAW  # wherever Airflow lives
    # No script of anybody, and no frame but of here.
    assert "<script" not in answer.text
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["frame-src"]) == ("'none'", "'self'")
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"


def test_a_report_is_served_in_a_sandbox(client: TestClient) -> None:
    answer = client.get(RAW, headers=as_role("viewer") | {"Sec-Fetch-Dest": "iframe"})
    assert answer.status_code == 200
    assert answer.content == HTML
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none';")
    assert "allow-same-origin" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "private" in answer.headers["cache-control"]
    assert answer.headers["etag"] == f'"{DIGEST}"'


def test_a_report_alone_in_a_tab_gets_its_frame(client: TestClient) -> None:
    tab = as_role("viewer") | {"Sec-Fetch-Dest": "document", "If-None-Match": f'"{DIGEST}"'}
    answer = client.get(RAW, headers=tab, follow_redirects=False)
    assert (answer.status_code, answer.content) == (303, b"")
    assert urljoin(RAW, answer.headers["location"]) == REPORT


def test_what_the_browser_has_is_not_sent_again_but_only_to_who_may_read_it(client: TestClient) -> None:
    tag = {"If-None-Match": f'W/"other", "{DIGEST}"'}
    answer = client.get(RAW, headers=as_role("viewer") | tag)
    assert (answer.status_code, answer.content) == (304, b"")
    assert client.get(RAW, headers=tag).status_code == 401


def test_a_bundle_is_a_download(client: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    answer = client.get(FILE, headers=as_role("viewer"))
    assert answer.status_code == 200
    assert answer.content == BUNDLE
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="churn__train-{BUNDLE_DIGEST[:12]}.zip"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(("kind", "end"), [("reports", ""), ("reports", "/raw"), ("files", "")])
@pytest.mark.parametrize(
    "tail",
    ["churn__train/" + "0" * 64, "churn__train/short", "~/" + "0" * 64, "a%2F..%2Fb/" + "0" * 64, "a..b/" + "0" * 64],
)
def test_what_is_not_there_is_a_readable_page(client: TestClient, kind: str, end: str, tail: str) -> None:
    answer = client.get(f"/mlops/{kind}/{tail}{end}", headers=as_role("viewer"))
    assert answer.status_code == 404
    assert "<h1" in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/mlops/docs", "/mlops/redoc", "/mlops/openapi.json"])
def test_there_is_no_api_documentation(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(("path", "method"), [(REPORT, "stat"), (RAW, "get"), (FILE, "get_file")])
def test_a_store_that_is_down_is_a_readable_page(
    client: TestClient, path: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: Any) -> None:
        raise StoreUnavailable("cannot reach s3://models: timed out <b>", hint="check the network")

    monkeypatch.setattr(LocalStore, method, down)
    answer = client.get(path, headers=as_role("viewer"))
    assert answer.status_code == 503
    assert "timed out &lt;b&gt;" in answer.text
    assert "check the network" in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("path", "key"),
    [(RAW, layout.report("churn__train", DIGEST)), (FILE, layout.handover("churn__train", BUNDLE_DIGEST))],
)
def test_a_changed_object_is_not_served(client: TestClient, store: LocalStore, path: str, key: str) -> None:
    store.put(key, b"<script>alert(1)</script>")
    answer = client.get(path, headers=as_role("viewer"))
    assert answer.status_code == 502
    assert "alert" not in answer.text
    assert "damaged" in answer.text


def test_an_unforeseen_error_is_a_page_too(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_mlops.plugins.app.MLOpsHook", lambda: SimpleNamespace())
    answer = client.get(REPORT, headers=as_role("viewer"))
    assert answer.status_code == 500
    assert "AttributeError" in answer.text
    assert "Traceback" not in answer.text
