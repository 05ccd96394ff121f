"""The pages' own files: what Airflow is told to load is there, is served to anybody, and asks nobody else."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from airflow.api_fastapi.core_api.datamodels.plugins import ReactAppResponse
from fastapi.testclient import TestClient

from airflow_mlops.plugins.api import models
from airflow_mlops.plugins.app import WEB, create_app
from airflow_mlops.plugins.plugin import MLOpsPlugin, web_state

ROOT = WEB.parents[2]
OWN = sorted(WEB.glob("*.js"))
APPS = MLOpsPlugin.react_apps


def ids(path: Path) -> str:
    return path.name


def test_airflow_takes_every_page_and_each_has_an_address_of_its_own() -> None:
    for app in APPS:
        ReactAppResponse.model_validate(app)  # an unknown destination would drop the whole plugin with a warning
    routes = {app["destination"]: app["url_route"] for app in APPS}
    assert routes == {
        "nav": models.FLEET_ROUTE,
        "dag": models.PIPELINE_ROUTE,
        "dag_run": models.RUN_ROUTE,
        "dashboard": models.CARD_ROUTE,
    }
    assert len(set(routes.values())) == len(APPS)


def test_the_module_sets_the_global_of_every_page() -> None:
    # Airflow looks for globalThis[name] and shows an error page where there is none.
    source = (WEB / "mlops.js").read_text()
    for app in APPS:
        assert f'globalThis["{app["name"]}"] = ' in source


@pytest.mark.parametrize("url", sorted({app[key] for app in APPS for key in ("bundle_url", "icon", "icon_dark_mode")}))
def test_what_airflow_loads_is_relative_and_there(url: str) -> None:
    assert not url.startswith(("/", "http"))  # relative to <base>, which knows the prefix
    assert url.startswith(f"mlops/static/{web_state()}/")
    assert (WEB / url.removeprefix(f"mlops/static/{web_state()}/")).is_file()


@pytest.mark.parametrize("module", OWN, ids=ids)
def test_every_import_is_a_file_of_the_package(module: Path) -> None:
    source = module.read_text()
    named = re.findall(r'(?:^import [^;]*? from |import\()"([^"]+)"', source, re.MULTILINE)
    assert named or module.name == "format.js"
    for name in named:
        assert name.startswith("./"), name  # a bare name needs a bundler, an address needs the internet
        assert (WEB / name).is_file(), name


@pytest.mark.parametrize("module", OWN, ids=ids)
def test_no_text_becomes_markup_and_nobody_else_is_asked(module: Path) -> None:
    source = module.read_text()
    for never in ("dangerouslySetInnerHTML", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert never not in source
    assert not re.findall(r"https?://", source)
    # What the store holds as a page is shown at its own address alone: a page without a script, and the report in a
    # frame without an origin (test_reports_app.py).
    for frame in re.findall(r"<iframe.*?/>", source, re.DOTALL):
        assert module.name == "reports.js"
        assert "src=${here(link).href}" in frame
        assert "srcDoc" not in frame


def test_the_libraries_of_others_are_as_published_and_carry_their_licences() -> None:
    rows = [line for line in (WEB / "vendor" / "README.md").read_text().splitlines() if ".js |" in line]
    told = {row.split("|")[1].strip(): row for row in rows}
    assert told.keys() == {path.name for path in (WEB / "vendor").glob("*.js")}
    for name, row in told.items():
        assert hashlib.sha256((WEB / "vendor" / name).read_bytes()).hexdigest() in row
        for licence in re.findall(rf"{name[:-3]}\.[A-Z][\w-]+", row):
            assert (WEB / "vendor" / licence).stat().st_size > 100


def test_the_files_are_shipped() -> None:
    # Hatch ships what lies in the package and git does not ignore.
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert build["wheel"] == {"packages": ["airflow_mlops"]}
    assert "airflow_mlops" in build["sdist"]["include"]
    files = [str(path) for path in WEB.rglob("*") if path.is_file()]
    ignored = subprocess.run(["git", "check-ignore", *files], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ignored.returncode, ignored.stdout) == (1, "")  # 1: none is


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(create_app())


def test_a_state_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "web" / "vendor").mkdir(parents=True)
    module = tmp_path / "web" / "a.js"
    monkeypatch.setattr("airflow_mlops.plugins.plugin.__file__", str(tmp_path / "plugin.py"))
    names = []
    for number, text in enumerate(("1", "2", "33")):
        module.write_text(text)
        os.utime(module, ns=(0, number))
        names.append(web_state())
    assert len(set(names)) == 3


@pytest.mark.parametrize("path", ["mlops.js", "vendor/echarts.js", "icon.svg"])
def test_what_airflow_loads_is_kept_by_the_browser(client: TestClient, path: str) -> None:
    answer = client.get(f"/static/{web_state()}/{path}")
    assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
    assert answer.content == (WEB / path).read_bytes()


@pytest.mark.parametrize("path", ["mlops.js", "00000000/vendor/echarts.js", "icon.svg"])
def test_files_are_served_without_a_session_and_asked_for_again(client: TestClient, path: str) -> None:
    # Without the name of their state, or with that of another one: a server that is not upgraded yet, say.
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] in ("text/javascript", "image/svg+xml")
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(f"/static/{path}", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path", ["", "../app.py", "%2e%2e/app.py", "..%2fapp.py", "vendor", "none.js", "00000000/../../app.py", "00000000"]
)
def test_nothing_but_the_files_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/static/{path}").status_code == 404
