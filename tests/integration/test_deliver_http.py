"""Deliveries through a real git server that asks for a login, which is a connection's."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_mlops.config.project import Project, check_text
from airflow_mlops.delivery.deployment import deploy, history, roll_back
from airflow_mlops.exceptions import DeliveryError, RemoteUnavailable
from airflow_mlops.hooks.delivery import opened_remote, targets_of
from airflow_mlops.registry.signing import Verifier
from tests.integration.git_http import GitServer
from tests.unit.delivery.deliveries import asked, bare, bundle

PASSWORD = "s3cret-t0ken"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitServer]:
    origin = bare(tmp_path / "crm.git")
    subprocess.run(["git", "-C", str(origin), "config", "http.receivepack", "true"], check=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with GitServer(tmp_path, "deployer", PASSWORD) as found:
        thread = threading.Thread(target=found.serve_forever, daemon=True)
        thread.start()
        connect(monkeypatch, found.url, PASSWORD)
        yield found
        found.shutdown()
        thread.join()


def connect(monkeypatch: pytest.MonkeyPatch, url: str, password: str) -> None:
    conn = {"conn_type": "git", "host": f"{url}/crm.git", "login": "deployer", "password": password}
    monkeypatch.setenv("AIRFLOW_CONN_CRM_GIT", json.dumps(conn))


@pytest.fixture
def project() -> Project:
    text = "project: crm\nconn_id: crm_git\nenvironments: {staging: {branch: deploy/staging, api: a}}\n"
    found, issues = check_text(text, "project.yaml")
    assert found is not None, issues
    return found


def test_there_and_back(server: GitServer, project: Project, tmp_path: Path) -> None:
    with opened_remote(project, tmp_path) as remote:
        staging = targets_of(project, remote)["staging"]
        assert history(staging).current is None
        for text in "ab":
            assert deploy(staging, bundle(text), asked(text)).done
        assert roll_back(staging, asked("r"), verifier=Verifier()).deployment.digest == bundle("a").digest
        assert len(history(staging).deployments) == 3
    # Git asks without a login first; it was always given the right one then.
    assert server.refused > 0
    assert PASSWORD not in " ".join(os.environ.get(name, "") for name in ("AIRFLOW_GIT_TOKEN", "GIT_CONFIG_VALUE_1"))


def test_a_wrong_login_is_no_matter_of_trying_again(
    server: GitServer, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, server.url, "wr0ng-t0ken")
    with opened_remote(project, tmp_path) as remote, pytest.raises(DeliveryError, match="refuses: ") as raised:
        history(targets_of(project, remote)["staging"])
    assert not isinstance(raised.value, RemoteUnavailable)
    assert "wr0ng-t0ken" not in str(raised.value)


def test_a_server_that_is_down_is(
    server: GitServer, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, "http://127.0.0.1:9", PASSWORD)
    with opened_remote(project, tmp_path) as remote, pytest.raises(RemoteUnavailable, match="cannot be reached"):
        history(targets_of(project, remote)["staging"])
