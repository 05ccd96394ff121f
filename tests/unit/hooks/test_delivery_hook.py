"""From a project's file to its remote, and from a connection to an environment's Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_mlops.config.project import Project, check_text
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.hooks.delivery import airflow_of, opened_remote, targets_of

ENVIRONMENTS = "environments: {a: {branch: d/a, api: x}, b: {branch: d/b, api: x}, c: {branch: d/c, api: x}}\n"


def project(text: str) -> Project:
    found, issues = check_text(f"project: crm\n{text}\n{ENVIRONMENTS}", "project.yaml")
    assert found is not None, issues
    return found


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("../x.git", "PARENT/x.git"),
        ("x.git", "PARENT/crm/x.git"),
        ("/srv/x.git", "/srv/x.git"),
        ("https://h/x.git", "https://h/x.git"),
        ("git@h:ml/x.git", "git@h:ml/x.git"),
        ("file:///srv/x", "file:///srv/x"),
    ],
)
def test_an_address(remote: str, url: str, tmp_path: Path) -> None:
    with opened_remote(project(f"remote: {remote}"), tmp_path / "crm") as found:
        assert found.url == url.replace("PARENT", str(tmp_path))


def test_a_connection_has_the_login_and_perhaps_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = {"conn_type": "git", "host": "https://h/a.git", "login": "me", "password": "t0ken"}
    monkeypatch.setenv("AIRFLOW_CONN_CRM_GIT", json.dumps(conn))
    for remote, url in (("", "https://h/a.git"), ("remote: https://h/b.git", "https://h/b.git")):
        with opened_remote(project(f"conn_id: crm_git\n{remote}"), tmp_path) as found:
            assert found.url == url
            assert "t0ken" not in repr(found)
            assert found.environment["AIRFLOW_GIT_TOKEN"] == "t0ken"


def test_a_connection_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ConfigError, match="the connection 'none' does not exist"),
        opened_remote(project("conn_id: none"), tmp_path),
    ):
        pass
    monkeypatch.setenv("AIRFLOW_CONN_EMPTY", '{"conn_type": "git"}')
    with (
        pytest.raises(ConfigError, match="the connection 'empty' has no host"),
        opened_remote(project("conn_id: empty"), tmp_path),
    ):
        pass


def test_each_environment_comes_after_the_one_before(tmp_path: Path) -> None:
    with opened_remote(project("remote: x"), tmp_path) as remote:
        found = targets_of(project("remote: x"), remote)
    assert list(found) == ["a", "b", "c"]
    assert (found["a"].after, found["b"].after, found["c"].after) == (None, found["a"], found["b"])
    assert (found["c"].project, found["c"].ref) == ("crm", "refs/heads/d/c")


@pytest.mark.parametrize(
    ("conn", "url", "who"),
    [
        ("http://admin:pw@h:8080", "http://h:8080", ("admin", "pw", None)),
        ("https://admin:pw@h", "https://h", ("admin", "pw", None)),
        ('{"conn_type": "http", "host": "https://h/a", "password": "tok"}', "https://h/a", (None, None, "tok")),
        ('{"conn_type": "http", "host": "h", "schema": "https", "port": 8443, "login": "a", "password": "b"}',
         "https://h:8443", ("a", "b", None)),
    ],
)  # fmt: skip
def test_an_airflow(conn: str, url: str, who: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_THERE", conn)
    found = airflow_of("there")
    assert (found.url, (found.username, found.password, found.token)) == (url, who)


def test_an_airflow_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="the connection 'none' does not exist"):
        airflow_of("none")
    monkeypatch.setenv("AIRFLOW_CONN_THERE", '{"conn_type": "http"}')
    with pytest.raises(ConfigError, match="the connection 'there' has no host"):
        airflow_of("there")
