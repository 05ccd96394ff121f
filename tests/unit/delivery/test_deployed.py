"""What a task can say of the deployment that its code came with."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_mlops.delivery.bundle import laid_out
from airflow_mlops.delivery.deployed import deployed_code
from airflow_mlops.delivery.tree import write_tree
from airflow_mlops.registry.signing import Signer
from tests.unit.delivery.deliveries import COMMIT, bundle


@pytest.mark.parametrize("signer", [None, Signer.generate()])
def test_it_names_bundle_and_commit(tmp_path: Path, signer: Signer | None) -> None:
    made = bundle("a", signer=signer)
    write_tree(laid_out(made), tmp_path / "version")
    # What Python leaves beside the code is not of the bundle.
    (tmp_path / "version" / "signals" / "__pycache__").mkdir()
    (tmp_path / "version" / "signals" / "__pycache__" / "churn.pyc").touch()
    wanted = {"project": "crm", "commit": COMMIT, "bundle": made.digest}
    assert deployed_code(tmp_path / "version" / "pipelines") == wanted
    assert deployed_code(tmp_path / "version") == wanted


def test_files_that_were_changed_since_are_another_bundle(tmp_path: Path) -> None:
    made = bundle("a")
    write_tree(laid_out(made), tmp_path / "version")
    (tmp_path / "version" / "notes.txt").write_text("b")
    found = deployed_code(tmp_path / "version")
    assert found is not None
    assert found["commit"] == COMMIT
    assert found["bundle"] != made.digest
    (tmp_path / "version" / "notes.txt").unlink()
    assert (deployed_code(tmp_path / "version") or {})["bundle"] is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3, "project": "crm", "commit": "1"}', "\xff"])
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / ".mlops").mkdir()
    (tmp_path / ".mlops" / "bundle.json").write_text(text, encoding="latin-1")
    assert deployed_code(tmp_path) is None


def test_code_that_was_not_deployed(tmp_path: Path) -> None:
    assert deployed_code(tmp_path) is None
