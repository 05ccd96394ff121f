"""project.yaml: what it may say, and the place of everything that it may not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.config.folder import pipeline_files
from airflow_mlops.config.issues import InvalidPipeline
from airflow_mlops.config.json_schema import project_schema
from airflow_mlops.config.lint import count_files, lint
from airflow_mlops.config.project import Project, check_text, name_in, read_project
from airflow_mlops.config.settings import Settings

ROOT = Path(__file__).parents[3]
WHOLE = """\
schema: 1
project: crm
remote: ../crm.git
conn_id: crm_git
branch: trunk
path: ml/crm
environments:
  staging: {branch: deploy/staging, api: airflow_staging, smoke: {dags: [a__train], conf: {seed: 1}, timeout: 5m}}
  production:
    branch: deploy/production
    api: airflow_production
    bundle: crm_code
    verify_timeout: 10m
    approve: {required: true, by: [ml-lead], timeout: 2d, on_timeout: reject}
"""
SMALL = "remote: x\nenvironments: {staging: {branch: s, api: a}}\n"


def issues(text: str) -> list[str]:
    return [f"{i.line}:{i.column}: {i.message}" for i in check_text(text, "project.yaml")[1]]


def test_everything_at_once(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(WHOLE)
    found = read_project(tmp_path)
    assert (found.name, found.bundle_of("staging"), found.bundle_of("production")) == ("crm", "crm", "crm_code")
    assert list(found.environments) == ["staging", "production"]
    assert (found.before("staging"), found.before("production")) == (None, "staging")
    assert found.environments["staging"].approve.required is False


def test_the_name_is_that_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "erp").mkdir()
    (tmp_path / "erp" / "project.yaml").write_text(SMALL)
    assert read_project(tmp_path / "erp").name == "erp"
    assert (name_in(SMALL), name_in(WHOLE), name_in("project: [")) == (None, "crm", None)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "1:1: the file is empty"),
        ("- a", "1:1: the file is not a mapping"),
        ("environments: {a: {branch: b, api: c}}", "1:1: give `remote`, `conn_id` or both"),
        ("remote: x", "1:1: `environments` is missing: Name → where"),
        ("remote: x\nenvironments: {}", "2:15: `environments` must not be empty"),
        ("remote: x\nenvironments: {a: {branch: b}}", "2:16: `api` is missing in `environments.a`: Airflow conn"),
        (SMALL + "remot: y", "3:1: unknown key `remot`"),
        (SMALL.replace("api: a", "api: a, smoke: {dag: [x]}"), "2:53: unknown key `dag` in `environments."),
        (SMALL.replace("api: a", "api: a, verify_timeout: 5"), "`environments.staging.verify_timeout` must be text"),
        ("project: 1.10\n" + SMALL, "1:10: `project` must be text, not the number 1.1"),
        ("project: a/b\n" + SMALL, "1:10: `project` is not a name"),
        (SMALL.replace("{staging", "{9x"), "2:1: `environments`: '9x' cannot be the name of an environment"),
        (SMALL.replace("remote: x", "remote: https://me:pw@h/x.git"), "1:1: `remote`: it holds a login"),
        (SMALL.replace("remote: x", "remote: ssh://me:pw@h/x.git"), "1:1: `remote`: it holds a login"),
        (SMALL.replace("remote: x", "remote: 'ext::sh -c x'"), "1:1: `remote`: this is no address"),
        (SMALL.replace("remote: x", "remote: --upload-pack=x"), "1:1: `remote`: this is no address"),
        (SMALL.replace("remote: x", "remote: s3://x/y"), "1:1: `remote`: git has no s3://"),
        (SMALL + "path: ../x", "3:1: `path` must lead down"),
        (SMALL + "path: /x", "3:1: `path` must lead down"),
        (SMALL + "branch: s", "`environments`: the branch 's' has more than one use"),
        (SMALL + "branch: s.record", "`environments`: the branch 's.record' has more than one use"),
        (SMALL + "branch: s/x", "`environments`: git has no branch 's/x' beside a branch 's'"),
        *((SMALL.replace("branch: s", f"branch: {b!r}"), f"`environments`: {b!r} cannot be the name of a branch")
          for b in ("-x", "a..b", "a b", "a/", "/a", "a.lock", "a~1", "a:b", "HEAD^", "@{u}", "x.")),
    ],
)  # fmt: skip
def test_what_is_wrong(text: str, wanted: str) -> None:
    found = issues(text)
    assert any(wanted in issue for issue in found), found
    assert len(found) == 1


@pytest.mark.parametrize(
    "remote", ["git@h:ml/crm.git", "ssh://git@h/crm.git", "https://h/crm.git", "/srv/crm.git", "~/x"]
)
def test_addresses(remote: str) -> None:
    assert issues(SMALL.replace("remote: x", f"remote: {remote}")) == []


def test_a_key_that_is_misspelt_is_not_also_missing() -> None:
    assert issues("remote: x\nenvironments: {a: {brnch: b, api: c}}") == [
        "2:20: unknown key `brnch` in `environments.a`"
    ]


@given(st.text(alphabet="ab.-_/~^: @{\\\n*[?", max_size=12))
def test_a_branch_that_is_taken_is_one_for_git(name: str) -> None:
    text = (
        f"remote: x\nenvironments: {{staging: {{branch: {yaml.safe_dump(name, width=1000).splitlines()[0]}, api: a}}}}"
    )
    project, _ = check_text(text, "project.yaml")
    if project is not None:
        taken = project.environments["staging"].branch
        done = subprocess.run(["git", "check-ref-format", "--branch", taken], capture_output=True, check=False)
        assert done.returncode == 0, taken


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidPipeline, match=r"project\.yaml:1:1: there is no such file"):
        read_project(tmp_path)
    (tmp_path / "project.yaml").write_text("remote: x\nx: 1\n")
    with pytest.raises(InvalidPipeline, match=r"project\.yaml:2:1: unknown key `x`"):
        read_project(tmp_path)


def test_it_is_no_pipeline_and_lint_checks_it(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text("remote: x\nx: 1\n")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "project.yaml").write_text("pipeline: project\n")
    assert pipeline_files(tmp_path) == [tmp_path / "pipelines" / "project.yaml"]
    assert count_files([tmp_path]) == 2
    for path in (tmp_path, tmp_path / "project.yaml"):
        found = {(Path(i.file).parent.name, i.message) for i in lint([path], Settings())}
        assert (tmp_path.name, "unknown key `x`") in found
    found = {i.message for i in lint([tmp_path / "pipelines"], Settings())}
    assert any("`level` is missing" in message for message in found)
    assert not any("environments" in message for message in found)


def test_the_schema_says_the_same() -> None:
    validator = jsonschema.Draft202012Validator(project_schema())
    validator.check_schema(project_schema())
    assert validator.is_valid(yaml.safe_load(WHOLE))
    assert validator.is_valid(yaml.safe_load(SMALL))
    for wrong in (SMALL + "x: 1", "remote: x", SMALL.replace("api: a", "api: 1")):
        assert not validator.is_valid(yaml.safe_load(wrong))


@pytest.mark.parametrize(
    ("module", "page"), [("json_schema", "project.schema.json"), ("reference", "reference/project.md")]
)
def test_the_pages_in_docs_are_the_model(module: str, page: str) -> None:
    command = ["-m", f"airflow_mlops.config.{module}", "project"]
    printed = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "docs" / page).read_text(), f"run: python {' '.join(command)} > docs/{page}"


def test_the_examples_in_docs_are_right() -> None:
    pages = [(ROOT / "docs" / page).read_text() for page in ("reference/project.md", "how-to/deliver-pipelines.md")]
    blocks = [block for page in pages for block in re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)]
    assert blocks
    for block in blocks:
        assert issues(block) == []


def test_every_key_is_described() -> None:
    assert all(info.description for info in Project.model_fields.values())
