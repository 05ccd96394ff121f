"""Airflow's own API app, with its database and middlewares, serves reports through the installed plugin."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_mlops.store import LocalStore, layout

HTML = b"<!doctype html><h1>Gate report</h1>"
DIGEST = hashlib.sha256(HTML).hexdigest()

SCRIPT = """
import json, sys
from airflow.utils.db import initdb
initdb()
from airflow.api_fastapi.app import cached_app
from fastapi.testclient import TestClient
client = TestClient(cached_app(), raise_server_exceptions=False)
url = sys.argv[1]
token = client.post("/auth/token", json={"username": "viewer", "password": "viewer"}).json()["access_token"]
answers = {
    "anonymous": client.get(url),
    "forged": client.get(url, headers={"Authorization": "Bearer x.y.z"}),
    "bearer": client.get(url, headers={"Authorization": f"Bearer {token}"}),
    "no such report": client.get(url[:-4] + "0000", headers={"Authorization": f"Bearer {token}"}),
    "no docs": client.get("/mlops/openapi.json"),
}
client.cookies.set("_token", token)
answers["cookie"] = client.get(url)
answers["frame"] = client.get(f"{url}/raw")
print("RESULT" + json.dumps({k: [a.status_code, a.text, dict(a.headers)] for k, a in answers.items()}))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "passwords.json").write_text(json.dumps({"viewer": "viewer"}))
    LocalStore(tmp_path / "store").put(layout.report("churn__train", DIGEST), HTML)
    return os.environ | {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "viewer:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__MLOPS__STORE": (tmp_path / "store").as_uri(),
    }


def test_the_installed_plugin_serves_reports_to_whoever_may_read_them(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"/mlops/reports/churn__train/{DIGEST}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results, done.stdout[-3000:] + done.stderr[-3000:]
    answers = json.loads(results[0].removeprefix("RESULT"))
    assert {name: status for name, (status, _, _) in answers.items()} == {
        "anonymous": 401,
        "forged": 403,
        "bearer": 200,
        "no such report": 404,
        "no docs": 404,
        "cookie": 200,
        "frame": 200,
    }
    _, text, headers = answers["cookie"]
    assert f'src="{DIGEST}/raw"' in text
    assert "frame-src 'self'" in headers["content-security-policy"]
    _, text, headers = answers["frame"]
    assert text == HTML.decode()
    assert headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
