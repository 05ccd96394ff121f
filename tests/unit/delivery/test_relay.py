"""Stages one at a time, through a store: each as if it ran on a machine of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery import stages
from airflow_mlops.delivery.bundle import read_bundle
from airflow_mlops.delivery.record import Asked, Check
from airflow_mlops.delivery.relay import CHECKOUT, Records, Source, keep_files, read_files, read_stage, run_stage
from airflow_mlops.delivery.repository import Repository
from airflow_mlops.delivery.scaffold import example_customers
from airflow_mlops.delivery.stages import STAGES
from airflow_mlops.exceptions import ConfigError, ObjectNotFound
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore, layout
from tests.unit.delivery.small_project import CHURN, FILES, Project

Make = Callable[..., Project]
STEPS = (CHECKOUT, *STAGES)
OLD = FILES["signals/churn.py"].replace('[["visits", "support_calls"]]', '[["visits"]]')


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "customers.csv").write_bytes(example_customers())
    settings = Settings(allowed_imports=())
    return Asked(tmp_path, settings, str(tmp_path / "lake"), sample=400, signer=Signer.generate())


def begun(tmp_path: Path, made: Project, before: str | None = None) -> tuple[Records, Source]:
    store = LocalStore(tmp_path / "store")
    repository = Repository.around(made.folder)
    kept = {
        commit: keep_files(store, repository.files_at(commit), project="crm", commit=commit)
        for commit in (repository.head, before)
        if commit
    }
    source = Source("crm", repository.head, "main", kept[repository.head], base=before, before=kept.get(before or ""))
    return Records(store, "crm", "0" * 64, STEPS), source


def test_all_stages_find_what_they_find_together(
    project: Make, tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow's own reading of the DAGs is tested with the stages; it takes seconds to import.
    dags = {"dags": {f"churn__{name}": 1 for name in ("train", "predict", "registry")}, "errors": {}}
    real = stages.run_task

    def quick(found: Check, task: str, *given: Any, **more: Any) -> dict[str, Any]:
        return {"result": dags} if task == "dags" else real(found, task, *given, **more)

    monkeypatch.setattr(stages, "run_task", quick)
    made = project(**{"signals/churn.py": OLD, "tests/test_a.py": "def test_a():\n    pass\n"})
    before = made.git("rev-parse", "HEAD")
    made.commit(**{"signals/churn.py": FILES["signals/churn.py"]})
    records, source = begun(tmp_path, made, before)
    for name in STAGES:
        ended = run_stage(records, source, name, asked)
        assert ended.status == "passed", ended.told
        assert read_stage(records, name) == ended
        assert (records.read(name) or {})["report"] is not None or name != "contract"
    last = records.read("contract") or {}
    page = last["report"]
    assert "all stages passed" in page
    assert f"Commit `{source.commit[:12]}` against `{before[:12]}`" in page
    assert "signals/churn.py" in page
    trial = last["trials"]["churn"]
    assert trial["contract"] == {"rows": 75, "problems": []}
    assert [m["verdict"] for m in trial["comparison"]["metrics"]]
    assert trial["before"]["features"] != trial["after"]["features"]
    digest = last["bundle"]["digest"]
    assert asked.signer is not None
    bundle = read_bundle(records.store.get(layout.bundle("crm", digest)), verifier=Verifier((asked.signer.public,)))
    assert (bundle.digest, bundle.signed_by) == (digest, asked.signer.key_id)
    assert bundle.manifest["commit"] == source.commit
    assert bundle.files == read_files(records.store, source.files)

    # Another try of a stage says the same; what stands behind it is taken back.
    assert run_stage(records, source, "gates", asked).told == tuple((records.read("gates") or {})["told"])
    assert records.read("contract") is None
    assert [record["step"] for record in records.all()] == ["lint", "test", "build", "train", "gates"]


def test_a_stage_that_fails_keeps_its_report_and_ends_the_rest(project: Make, tmp_path: Path, asked: Asked) -> None:
    made = project(**{"pipelines/churn.yaml": CHURN.replace("target", "tagret")})
    records, source = begun(tmp_path, made)
    ended = run_stage(records, source, "lint", asked)
    assert ended.status == "failed"
    page = (records.read("lint") or {})["report"]
    assert "lint failed" in page
    assert "did you mean `target`?" in page
    assert str(tmp_path) not in page
    assert run_stage(records, source, "test", asked).told == ("not begun: lint failed",)


def test_a_stage_whose_predecessor_left_nothing(project: Make, tmp_path: Path, asked: Asked) -> None:
    records, source = begun(tmp_path, project())
    with pytest.raises(ConfigError, match="lint has left no record, and test builds on it"):
        run_stage(records, source, "test", asked)


def test_the_files_are_those_of_the_commit(project: Make, tmp_path: Path, asked: Asked) -> None:
    made = project()
    records, source = begun(tmp_path, made)
    made.write(**{"pipelines/churn.yaml": "nonsense"})
    assert run_stage(records, source, "lint", asked).status == "passed"
    with pytest.raises(ObjectNotFound):
        run_stage(records, dataclasses.replace(source, files="f" * 64), "lint", asked)
