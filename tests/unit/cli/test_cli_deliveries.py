"""`airflow mlops deploy`, `rollback` and `status`: a real remote, and an Airflow that follows its branches."""

from __future__ import annotations

import json
import os
import subprocess
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_mlops.cli import deliveries
from airflow_mlops.cli.deliveries import deploy, rollback, status
from airflow_mlops.delivery import airflow_api, verification
from airflow_mlops.registry.signing import Signer
from tests.unit.delivery.deliveries import bare, git, packed
from tests.unit.delivery.fake_airflow import FakeAirflow

PROJECT = """\
project: crm
remote: ../origin.git
environments:
  staging: {branch: deploy/staging, api: airflow_staging, verify_timeout: 1s, smoke: {}}
  production: {branch: deploy/production, api: airflow_production, verify_timeout: 1s}
"""


class Following(FakeAirflow):
    """Shows the tip of a branch; ``bad`` are the contents of notes.txt that it cannot import."""

    def __init__(self, origin: Path, branch: str) -> None:
        super().__init__()
        self.origin, self.branch = origin, branch
        self.bad: tuple[str, ...] = ()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        tip = subprocess.run(
            ["git", "-C", str(self.origin), "rev-parse", "-q", "--verify", f"refs/heads/{self.branch}"],
            capture_output=True, text=True, check=False,
        ).stdout.strip()  # fmt: skip
        if tip and git(self.origin, "show", f"{tip}:notes.txt") in self.bad:
            at, stack = datetime.now(UTC).isoformat(), "ValueError: bad"
            self.errors = [{"timestamp": at, "filename": "loader.py", "stack_trace": stack}]
            self.dags.clear()  # they are stale
        elif tip:
            self.errors = []
            for name in ("churn__train", "churn__predict", "churn__monitor", "churn__registry"):
                paused = self.dags.get(name, {"is_paused": True})["is_paused"]
                self.add(name, version=tip, is_paused=paused)
        return super().__call__(request)


Airflows = dict[str, Following]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "SETTLE", 0.0)
    monkeypatch.setattr(verification.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    for name, value in {"COUNT": "1", "KEY_0": "core.fsync", "VALUE_0": "none"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    for name in ("staging", "production"):
        monkeypatch.setenv(f"AIRFLOW_CONN_AIRFLOW_{name.upper()}", f"http://admin:p4ss@{name}:8080")


@pytest.fixture
def airflows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Airflows:
    origin = bare(tmp_path / "origin.git")
    (tmp_path / "crm").mkdir()
    (tmp_path / "crm" / "project.yaml").write_text(PROJECT)
    found = {name: Following(origin, f"deploy/{name}") for name in ("staging", "production")}

    def api(server: airflow_api.Server, **more: Any) -> airflow_api.AirflowApi:
        there = found[server.url.split("//")[1].split(":")[0]]
        return real(server, patience=0.0, transport=httpx.MockTransport(there))

    real = airflow_api.AirflowApi
    monkeypatch.setattr(airflow_api, "AirflowApi", api)
    return found


@pytest.fixture
def run(airflows: Airflows, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call it with a command and its arguments; returns exit code, output and errors."""

    def call(command: Callable[[Namespace], None], **given: Any) -> tuple[int, str, str]:
        args = {
            "bundle": None, "source": None, "env": None, "ref": None, "reason": None, "break_glass": False,
            "verify": True, "project": str(tmp_path / "crm"), "output": "text", "expected": None, "pipeline": None,
        } | given  # fmt: skip
        capsys.readouterr()
        code = 0
        try:
            command(Namespace(**args))
        except SystemExit as e:
            code = int(e.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    def write(text: str, **more: Any) -> str:
        path = tmp_path / f"{text}.zip"
        path.write_bytes(packed(text, **more))
        return str(path)

    return write


Run = Callable[..., tuple[int, str, str]]
File = Callable[..., str]


def test_to_staging_and_on_to_production(run: Run, file: File, airflows: Airflows) -> None:
    code, out, err = run(deploy, bundle=file("a"), env="staging", reason="first")
    assert (code, err.count("\n")) == (0, 4), err
    assert "; its Airflow runs it" in out
    assert "churn__train is green after" in err
    assert [run["conf"]["promote"] for run in airflows["staging"].runs.values()] == [False]
    code, out, _ = run(deploy, source="staging", env="production", output="json")
    said = json.loads(out)
    assert (code, said["changed"], said["verified"], said["problem"]) == (0, True, True, None)
    assert said["deployment"]["environment"] == "production"
    code, out, _ = run(status)
    assert code == 0
    assert out.count("runs it: 4 DAGs") == 2
    assert "first" in out


def test_the_errors_of_a_version_that_was_taken_back_are_no_problem(run: Run, file: File, airflows: Airflows) -> None:
    run(deploy, bundle=file("a"), env="staging")
    airflows["staging"].add("shop__invalid", version="0" * 40)
    code, out, _ = run(status, env="staging")
    assert code == 0
    assert "runs it: 4 DAGs; shop__invalid, of the version before, is about to go" in out
    airflows["staging"].add("shop__train", version="0" * 40)
    code, out, _ = run(status, env="staging")
    assert code == 1
    assert "does not run it yet: 1 at 000000000000" in out


def test_once_more_changes_nothing(run: Run, file: File) -> None:
    run(deploy, bundle=file("a"), env="staging")
    code, out, _ = run(deploy, bundle=file("a"), env="staging")
    assert code == 0
    assert "was deployed already to staging" in out


def test_what_does_not_run_there_is_taken_back(run: Run, file: File, airflows: Airflows) -> None:
    run(deploy, bundle=file("a"), env="staging")
    airflows["staging"].bad = ("bad",)
    code, out, err = run(deploy, bundle=file("bad"), env="staging", output="json")
    assert code == deliveries.ROLLED_BACK
    said = json.loads(out)
    assert said["verified"] is False
    assert "cannot import loader.py (ValueError)" in said["problem"]
    assert said["rolled_back"]["reason"].startswith("VerificationFailed: the Airflow at")
    assert "staging was rolled back by itself, and is at bundle" in err
    code, out, _ = run(status, env="staging", output="json")
    (now,) = json.loads(out)["environments"]
    assert (code, now["deployment"]["action"]) == (0, "rollback")
    assert [d["action"] for d in now["history"]] == ["rollback", "deploy", "deploy"]
    # And it does not go on.
    code, _, err = run(deploy, bundle=file("bad"), env="production")
    assert code == 1
    assert "which had it and rolled it back" in err


def test_a_smoke_run_that_is_red_takes_it_back(run: Run, file: File, airflows: Airflows) -> None:
    run(deploy, bundle=file("a"), env="staging")
    airflows["staging"].ends = "failed"
    code, _, err = run(deploy, bundle=file("b"), env="staging")
    assert code == deliveries.ROLLED_BACK
    assert "the smoke run of churn__train failed: train.fit" in err


def test_the_first_deployment_cannot_be_taken_back(run: Run, file: File, airflows: Airflows) -> None:
    airflows["staging"].bad = ("bad",)
    code, _, err = run(deploy, bundle=file("bad"), env="staging")
    assert code == deliveries.STAYS
    assert "staging was not rolled back: there is no deployment to staging before" in err


def test_an_airflow_that_is_down_between_deploy_and_verify(run: Run, file: File, airflows: Airflows) -> None:
    run(deploy, bundle=file("a"), env="staging")
    airflows["staging"].broken = lambda request: httpx.Response(503)
    code, _, err = run(deploy, bundle=file("b"), env="staging")
    assert code == deliveries.ROLLED_BACK
    assert "has not answered for" in err
    # What was there before the command stays: it may well run.
    code, _, err = run(deploy, bundle=file("a"), env="staging")
    assert code == deliveries.STAYS
    assert "it was deployed before this, and may well run" in err
    code, out, _ = run(status, env="staging")
    assert code == 1
    assert "PROBLEM   the Airflow at http://staging:8080 has not answered" in out


def test_without_asking(run: Run, file: File, airflows: Airflows) -> None:
    airflows["staging"].broken = lambda request: httpx.Response(503)
    code, out, _ = run(deploy, bundle=file("a"), env="staging", verify=False)
    assert code == 0
    assert out.endswith("; not verified\n")
    assert airflows["staging"].asked == []


def test_back_and_back_again(run: Run, file: File) -> None:
    for text in "abc":
        run(deploy, bundle=file(text), env="staging")
    code, out, _ = run(rollback, env="staging", reason="worse")
    assert code == 0
    assert "again (was " in out
    (now,) = json.loads(run(status, env="staging", output="json")[1])["environments"]
    leave = now["history"][1]["digest"]
    for _ in range(2):
        code, out, _ = run(rollback, env="staging", reason="worse", expected=leave, output="json")
        assert (code, json.loads(out)["changed"]) == (0, False)
    code, _, err = run(rollback, env="staging", reason="worse", expected="0" * 12)
    assert code == 1
    assert "staging is not at 000000000000" in err
    assert run(rollback, env="staging", reason="worse")[0] == 0
    code, _, err = run(rollback, env="staging", reason="worse")
    assert code == 1
    assert "there is no deployment to staging before" in err


def test_a_rollback_that_is_not_seen(run: Run, file: File, airflows: Airflows) -> None:
    for text in "ab":
        run(deploy, bundle=file(text), env="staging")
    airflows["staging"].bad = ("a",)
    code, _, err = run(rollback, env="staging", reason="worse")
    assert code == deliveries.STAYS
    assert "the branch is back at the deployment before; its Airflow is not" in err


def test_an_approval_is_asked_by_the_delivery_dag_alone(run: Run, file: File, tmp_path: Path) -> None:
    (tmp_path / "crm" / "project.yaml").write_text(PROJECT.replace("smoke: {}", "approve: {required: true}"))
    code, _, err = run(deploy, bundle=file("a"), env="staging")
    assert code == 1
    assert "staging asks a person first" in err
    code, _, err = run(deploy, bundle=file("a"), env="staging", break_glass=True)
    assert code == 1
    assert "breaking the glass needs a reason" in err
    code, _, _ = run(deploy, bundle=file("a"), env="staging", break_glass=True, reason="it burns")
    assert code == 0
    (now, _) = json.loads(run(status, output="json")[1])["environments"]
    assert (now["deployment"]["break_glass"], now["deployment"]["reason"]) == (True, "it burns")


def test_a_signature_is_asked_for(run: Run, file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer.generate()
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", signer.public)
    code, _, err = run(deploy, bundle=file("a"), env="staging")
    assert code == 1
    assert "is not signed" in err
    code, _, _ = run(deploy, bundle=file("b", signer=signer), env="staging")
    assert code == 0
    assert f"signed by {signer.key_id}" in run(status, env="staging")[1]


def test_a_branch_that_was_edited_is_shown(run: Run, file: File, tmp_path: Path) -> None:
    run(deploy, bundle=file("a"), env="staging")
    git(tmp_path / "origin.git", "update-ref", "-d", "refs/heads/deploy/staging")
    code, out, _ = run(status)
    assert code == 1
    assert "PROBLEM   the branch deploy/staging of staging is gone" in out
    assert "What to do: find out who did it" in out
    assert "production  (branch deploy/production)\n  nothing is deployed" in out


def test_what_is_asked_for_wrongly(run: Run, file: File, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "name a bundle, or with --from" in run(deploy, env="staging")[2]
    assert "there is no environment 'dev'" in run(deploy, bundle=file("a"), env="dev")[2]
    assert "nothing is deployed to staging" in run(deploy, source="staging", env="production")[2]
    assert "monitor history churn --output json" in run(status, pipeline="churn", output="json")[2]
    assert "leave out --env" in run(status, pipeline="churn", env="staging")[2]
    monkeypatch.delenv("AIRFLOW_CONN_AIRFLOW_STAGING")
    assert "the connection 'airflow_staging' does not exist" in run(deploy, bundle=file("a"), env="staging")[2]
    assert git(tmp_path / "origin.git", "for-each-ref") == ""
    assert "there is no branch, tag or commit 'v9'" in run(deploy, bundle=file("a"), env="staging", ref="v9")[2]
    (tmp_path / "crm" / "project.yaml").unlink()
    code, _, err = run(status)
    assert code == 1
    assert "project.yaml:1:1: there is no such file" in err


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 seconds"), (90, "90 seconds"), (150, "2 minutes"), (3700, "1 hour"), (90000, "1 day"), (200000, "2 days")],
)
def test_how_long_ago(seconds: int, said: str) -> None:
    then = datetime(2026, 11, 27, tzinfo=UTC)
    now = datetime.fromtimestamp(then.timestamp() + seconds, UTC)
    assert deliveries._since(then.isoformat(), lambda: now) == said
