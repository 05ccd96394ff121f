"""load_dags: what a folder of YAML files becomes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization

from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.loading import load_dags

LEVEL_0 = """
pipeline: churn
level: 0
owner: ana
dag: {tags: [crm], default_args: {retries: 5, retry_delay: 2m}, access_control: {Op: {DAGs: [can_read]}}}
resources: {pool: ml, timeout: 1h}
data: {source: churn.csv, target: churned}
train: {estimator: sklearn.linear_model.LogisticRegression, resources: {queue: gpu, timeout: 3h}}
approve: {by: [lead], timeout: 2d}
"""
LEVEL_1 = """
pipeline: flights
level: 1
data: {source: "flights/*.parquet", target: late, timestamp: t, id: i, window: 90d}
train: {estimator: sklearn.ensemble.HistGradientBoostingClassifier}
evaluate: {gates: [{metric: roc_auc, at_least: 0.6}]}
deploy: {batch: {schedule: "@daily"}}
monitor: {labels: {source: "outcomes/*.parquet", join_on: i}}
retrain: {when: [new_data, drift, performance], schedule: "@monthly"}
"""


def _write(folder: Path, **files: str) -> Path:
    pipelines = folder / "pipelines"
    pipelines.mkdir()
    for name, text in files.items():
        (pipelines / f"{name}.yaml").write_text(text)
    return pipelines


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Parse as Airflow does for the start of a task of this DAG."""
    return lambda dag_id: monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", dag_id)


def test_a_bad_file_shows_itself_and_leaves_the_others_alone(tmp_path: Path) -> None:
    folder = _write(tmp_path, churn=LEVEL_0, bad="pipeline: bad\nlevel: 0\ndata: {sorce: x.csv, target: y}\n")
    dags = load_dags(folder)
    assert set(dags) == {"churn__train", "churn__predict", "churn__registry", "bad__invalid"}
    invalid = dags["bad__invalid"]
    assert "bad.yaml:3:8" in invalid.doc_md
    assert invalid.dag_display_name.startswith("! bad.yaml:")
    assert "did you mean `source`" in invalid.doc_md
    DagSerialization.to_dict(invalid)
    (folder / "bad.yaml").write_text(LEVEL_0.replace("churn", "good"))
    assert set(load_dags(folder)) == {
        f"{name}__{suffix}" for name in ("churn", "good") for suffix in ("train", "predict", "registry")
    }


def test_what_airflow_refuses_of_one_pipeline_does_not_touch_the_others(tmp_path: Path) -> None:
    refused = LEVEL_0.replace("churn", "refused").replace("tags: [crm]", f"tags: [{'x' * 101}]")
    dags = load_dags(_write(tmp_path, churn=LEVEL_0, refused=refused))
    assert set(dags) == {"churn__train", "churn__predict", "churn__registry", "refused__invalid"}
    assert "100 characters" in dags["refused__invalid"].doc_md


def test_the_second_file_of_one_name_is_named(tmp_path: Path) -> None:
    dags = load_dags(_write(tmp_path, a=LEVEL_0, b=LEVEL_0))
    assert set(dags) == {"churn__train", "churn__predict", "churn__registry", "churn__invalid"}
    assert "b.yaml: pipeline 'churn' is also in" in dags["churn__invalid"].doc_md


@pytest.mark.parametrize("only", [None, "churn__train"])
def test_of_two_with_one_name_the_file_of_that_name_counts(tmp_path: Path, starting, only) -> None:
    folder = _write(tmp_path, a=LEVEL_0.replace("owner: ana", "owner: impostor"), churn=LEVEL_0)
    if only:
        starting(only)
    dags = load_dags(folder)
    assert dags["churn__train"].default_args["owner"] == "ana"
    if not only:
        assert set(dags) == {"churn__train", "churn__predict", "churn__registry", "churn__invalid"}
        assert "a.yaml" in dags["churn__invalid"].dag_display_name


def test_an_invalid_file_is_named_by_its_pipeline(tmp_path: Path) -> None:
    bad = "pipeline: churn\nlevel: 0\n"
    dags = load_dags(_write(tmp_path, one=bad, two=bad, three="level: 0", four="{", five="pipeline: no/name"))
    assert set(dags) == {
        "churn__invalid", "churn-2__invalid", "three__invalid", "four__invalid", "five__invalid"
    }  # fmt: skip


def test_a_file_that_others_extend_is_no_pipeline(tmp_path: Path) -> None:
    folder = _write(tmp_path, base="owner: shared\n", orphan="owner: alone\n", churn=LEVEL_0 + "extends: base.yaml\n")
    dags = load_dags(folder)
    assert set(dags) == {"churn__train", "churn__predict", "churn__registry", "orphan__invalid"}
    (folder / "base.yaml").write_text("ownr: shared\n")
    assert "base.yaml:1:1" in load_dags(folder)["churn__invalid"].dag_display_name


def test_folders_in_the_folder_and_bases_above(tmp_path: Path) -> None:
    folder = _write(tmp_path, base="description: shared\n", flights=LEVEL_1)
    (folder / "crm").mkdir()
    (folder / "crm" / "churn.yaml").write_text(LEVEL_0 + "extends: ../base.yaml\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.yaml").write_text(LEVEL_0)
    dags = load_dags(folder)
    assert {"churn__train", "flights__monitor"} <= set(dags)
    assert not [dag_id for dag_id in dags if dag_id.endswith("__invalid")]


def test_a_change_shows_at_the_next_parse(tmp_path: Path) -> None:
    text = LEVEL_0.replace("owner: ana", "extends: base.yml")
    folder = _write(tmp_path, churn=text)
    (folder / "base.yml").write_text("owner: ana\n")
    for file, old, new in (("base.yml", "ana", "bob"), ("churn.yaml", "retries: 5", "retries: 6")):
        before = load_dags(folder)["churn__train"].default_args
        path = folder / file
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        # Same size, same time: nobody can have compared those.
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, ns=times)
        after = load_dags(folder)["churn__train"].default_args
        assert {key: after[key] for key in before if before[key] != after[key]} == {
            "base.yml": {"owner": "bob"},
            "churn.yaml": {"retries": 6},
        }[file]


def test_shards_share_the_files_out(tmp_path: Path) -> None:
    folder = _write(tmp_path, **{f"p{i}": LEVEL_0.replace("churn", f"p{i}", 1) for i in range(20)})
    shards = [set(load_dags(folder, shard=(i, 3))) for i in range(3)]
    assert all(shards)
    assert sum(map(len, shards)) == 60
    assert set().union(*shards) == set(load_dags(folder))
    with pytest.raises(ConfigError, match="no shard 3 of 3"):
        load_dags(folder, shard=(3, 3))


def test_the_deployment_decides_about_code_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = LEVEL_0.replace("source: churn.csv", "callable: my_pkg.data:load") + "environments: {staging: {owner: s}}\n"
    folder = _write(tmp_path, churn=text)
    monkeypatch.setenv("AIRFLOW__MLOPS__ENVIRONMENT", "staging")
    assert "not in [mlops] allowed_imports" in load_dags(folder)["churn__invalid"].doc_md
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOWED_IMPORTS", "my_pkg")
    assert load_dags(folder)["churn__train"].default_args["owner"] == "s"


def test_customise_adds_tasks_of_ones_own(tmp_path: Path) -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    def add(dag: DAG, config) -> None:
        EmptyOperator(task_id=f"tell_{config.owner}", dag=dag)

    dags = load_dags(_write(tmp_path, churn=LEVEL_0), customise=add)
    assert all("tell_ana" in dag.task_ids for dag in dags.values())


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        load_dags(tmp_path / "nowhere")


def test_a_tasks_start_builds_only_its_own_pipeline(tmp_path: Path, starting) -> None:
    folder = _write(tmp_path, churn=LEVEL_0, flights=LEVEL_1, renamed=LEVEL_0.replace("churn", "other"))
    starting("flights__train")
    assert set(load_dags(folder)) == {"flights__train", "flights__predict", "flights__monitor", "flights__registry"}
    starting("other__predict")
    assert set(load_dags(folder)) == {"other__train", "other__predict", "other__registry"}


@pytest.mark.parametrize("only", [None, "churn__train"])
def test_what_is_no_file_leaves_the_others_alone(tmp_path: Path, starting, only) -> None:
    pipelines = _write(tmp_path, other=LEVEL_0)
    (pipelines / "folder.yaml").mkdir()
    (pipelines / "broken.yaml").symlink_to(tmp_path / "gone.yaml")
    if only:
        starting(only)
    dags = load_dags(pipelines)
    assert "churn__train" in dags
    assert ("broken__invalid" in dags) == (only is None)


def test_a_relative_folder_starts_at_the_calling_file(tmp_path: Path) -> None:
    _write(tmp_path, churn=LEVEL_0)
    (tmp_path / "loader.py").write_text("from airflow_mlops import load_dags\nnames = sorted(load_dags('pipelines'))\n")
    code = f"import runpy; print(runpy.run_path({str(tmp_path / 'loader.py')!r})['names'])"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("['churn__predict', 'churn__registry', 'churn__train']")


HEAVY = ("pandas", "numpy", "sklearn", "scipy", "great_expectations", "evidently", "boto3", "pyarrow", "mlflow")


def test_parsing_imports_nothing_heavy(tmp_path: Path) -> None:
    job = "train: {sagemaker: {image: i, role: r}}\n"
    elsewhere = re.sub(r"(?m)^train:.*\n", job, LEVEL_0.replace("churn", "cloud"))
    assert job in elsewhere
    folder = _write(tmp_path, churn=LEVEL_0, flights=LEVEL_1, cloud=elsewhere)
    code = (
        f"import sys; from airflow_mlops import load_dags; assert len(load_dags({str(folder)!r})) == 10;"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip().endswith("[]"), done.stdout
