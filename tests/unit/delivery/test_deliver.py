"""What a delivery takes back where its check fails, and what it leaves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from airflow_mlops.delivery.deliver import Outcome, deliver
from airflow_mlops.delivery.deployment import Deployment, Target, deploy, history, roll_back
from airflow_mlops.exceptions import VerificationFailed
from airflow_mlops.registry.signing import Verifier
from tests.unit.delivery.deliveries import asked, bare, bundle, targets

ANY = Verifier()
LIMIT = 600.0


@pytest.fixture
def staging(tmp_path: Path) -> Target:
    return targets(bare(tmp_path / "origin.git"))[0]


def failing(deployment: Deployment) -> None:
    raise VerificationFailed("no dag processor")


def again(staging: Target, text: str, operation: str) -> Outcome:
    return deliver(staging, bundle(text), asked(operation), check=failing, verifier=ANY, unproven=LIMIT)


def made(staging: Target, monkeypatch: pytest.MonkeyPatch, *texts: str, ago: float) -> None:
    then = time.time() - ago
    with monkeypatch.context() as patched:
        patched.setattr("airflow_mlops.delivery.deployment.time.time", lambda: then)
        for text in texts:
            deploy(staging, bundle(text), asked(text))


def test_what_was_just_made_is_taken_back(staging: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    made(staging, monkeypatch, "a", ago=9000)
    outcome = again(staging, "b", "b")
    assert outcome.rolled_back is not None
    assert outcome.rolled_back.deployment.digest == bundle("a").digest


def test_so_is_what_a_try_made_that_was_cut_off(staging: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    made(staging, monkeypatch, "a", "b", ago=LIMIT - 60)
    assert again(staging, "b", "b").rolled_back is not None


@pytest.mark.parametrize(("operation", "ago"), [("b", LIMIT + 60), ("another", LIMIT - 60)], ids=["old", "another's"])
def test_what_runs_already_stays(operation: str, ago: float, staging: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    made(staging, monkeypatch, "a", "b", ago=ago)
    outcome = again(staging, "b", operation)
    assert outcome.rolled_back is None
    assert outcome.stays == "it was deployed before this, and may well run"
    assert str(outcome.problem).startswith("no dag processor")
    now = history(staging).current
    assert now is not None
    assert (now.action, now.digest) == ("deploy", bundle("b").digest)


def test_nobody_goes_further_back_than_a_rollback(staging: Target) -> None:
    for text in "abc":
        deploy(staging, bundle(text), asked(text))
    roll_back(staging, asked("back"), verifier=ANY)
    assert again(staging, "b", "b once more").rolled_back is None
