"""What is asked of SageMaker, what its answers mean, and that nothing of the archive it leaves is trusted."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.cli import lineage as cli_lineage
from airflow_mlops.config.loader import load_text
from airflow_mlops.config.models import PipelineConfig, Train
from airflow_mlops.exceptions import ConfigError, TrainingError
from airflow_mlops.jobs import TRAINING, TRANSFORM, JobKind, check_ended, job_stem
from airflow_mlops.ml import card_sections
from airflow_mlops.ml.sagemaker import check_trained, job_facts, job_request, unpack_model
from airflow_mlops.registry.gc import collect
from airflow_mlops.registry.provenance import job_text
from airflow_mlops.store import LocalStore, layout

CREATE = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
NAME = CREATE.members["TrainingJobName"].metadata
JOB = {"image": "registry/trainer:1", "role": "arn:aws:iam::123456789012:role/trainer"}
FILE = """
pipeline: churn
level: 0
data: {source: a.csv, target: y}
train:
  sagemaker: {image: i, role: r}
"""


def request(job: dict[str, Any], timeout: float | None = None, **train: Any) -> dict[str, Any]:
    config = Train.model_validate({"sagemaker": JOB | job, **train})
    assert config.sagemaker is not None
    return job_request(
        config, config.sagemaker, name="p-1", target="y", input_uri="s3://b/i", output_uri="s3://b/o", timeout=timeout
    )


@given(st.text(st.sampled_from("abcXYZ019_-"), min_size=1, max_size=100).filter(lambda s: s[0].isalpha()))
def test_every_pipeline_has_valid_job_names(pipeline: str) -> None:
    for number in (1, 99_999):
        name = f"{job_stem(pipeline, 'ab' * 32)}-{number}"
        assert re.fullmatch(NAME["pattern"], name)
        assert len(name) <= NAME["max"]
    assert job_stem(pipeline, "ab" * 32) != job_stem(pipeline, "cd" * 32)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), json_values, max_size=5))
def test_hyperparameters_are_text_and_come_back(params: dict[str, Any]) -> None:
    params = {k: v for k, v in params.items() if k not in ("seed", "target")}
    found = request({}, params=params)
    assert not ParamValidator().validate(found, CREATE).has_errors()
    told = found["HyperParameters"]
    assert (told.pop("seed"), told.pop("target")) == ("7", "y")
    assert {k: v if isinstance(params[k], str) else json.loads(v) for k, v in told.items()} == params


@pytest.mark.parametrize(
    ("longest", "timeout", "seconds"),
    [("2h", None, 7200), ("2h", 60.0, 60), ("1m", 3600.0, 60), ("28d", None, 2419200)],
)
def test_a_job_never_outlives_its_task(longest: str, timeout: float | None, seconds: int) -> None:
    found = request({"max_runtime": longest}, timeout)
    assert found["StoppingCondition"] == {"MaxRuntimeInSeconds": seconds}


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("image: i, ", "", 6, "`image` is missing in `train.sagemaker`"),
        ("role: r", "role: r, instance_type: m5.large", 6, "instance_type"),
        ("role: r", "role: r, max_runtime: 29d", 6, "a job on SageMaker may take 28d at most"),
        ("role: r", "role: r, max_runtime: 60", 6, "`train.sagemaker.max_runtime` must be text"),
        ("role: r", "role: r, price_per_hour: -1", 6, "must be at least 0"),
        ("role: r", "role: r, request: {RoleArn: x}", 6, "RoleArn follows from the other keys"),
        ("role: r}", "role: r}\n  params: {seed: 3}", 7, "`params` of a SageMaker job need no seed and target"),
        ("role: r}", f"role: r}}\n  params: {{a: {'x' * 2501}}}", 7, "values 2500"),
        ("role: r}", "role: r}\n  estimator: sklearn.linear_model.Ridge", 7, "give exactly one of `estimator`"),
        ("role: r}", "role: r}\n  search: {space: {a: [1]}}", 7, "`search` needs `estimator`"),
        ("level: 0", "level: 2\nretrain: {when: [new_data]}\nexperiment: {space: {a: [1]}}", 5, "elsewhere: give one"),
    ],
)
def test_mistakes_are_told_with_their_place(old: str, new: str, line: int, said: str) -> None:
    assert isinstance(load_text(FILE, "p.yaml"), PipelineConfig)
    with pytest.raises(ConfigError) as e:
        load_text(FILE.replace(old, new), "p.yaml")
    assert said in str(e.value)
    assert f"p.yaml:{line}:" in str(e.value)


@pytest.mark.parametrize("kind", [TRAINING, TRANSFORM], ids=lambda k: k.name)
def test_what_an_end_means(kind: JobKind) -> None:
    def ended(status: str, **more: str) -> dict[str, str]:
        return {f"{kind.name}JobName": "p-1", f"{kind.name}JobStatus": status, **more}

    check_ended(kind, ended("Completed"))
    for reason in ("CapacityError: no room", "InternalServerError: try again"):
        with pytest.raises(kind.unavailable, match=reason) as e:
            check_ended(kind, ended("Failed", FailureReason=reason))
        assert e.value.retryable
    for reason in ("AlgorithmError: exit code 1", "ClientError: no such bucket", "the CapacityError is quoted"):
        with pytest.raises(kind.failed, match=reason) as e:
            check_ended(kind, ended("Failed", FailureReason=reason))
        assert not e.value.retryable
        assert f"/aws/sagemaker/{kind.name}Jobs, streams that begin with p-1/" in str(e.value)
    with pytest.raises(kind.failed, match="was stopped"):
        check_ended(kind, ended("Stopped"))
    with pytest.raises(kind.failed, match=r"(?s)took longer than 7,200 s and was stopped.*resources.timeout"):
        check_ended(kind, ended("Stopped"), limit=7200)
    for status in ("InProgress", "Stopping"):
        with pytest.raises(kind.unavailable, match=f"has not ended: it is {status}") as e:
            check_ended(kind, ended(status))
        assert e.value.retryable


def test_a_training_that_sagemaker_stopped_in_time_says_so() -> None:
    job = {"TrainingJobName": "p-1", "TrainingJobStatus": "Stopped", "SecondaryStatus": "MaxRuntimeExceeded"}
    with pytest.raises(TrainingError, match="longer than 60 s"):
        check_trained(job | {"StoppingCondition": {"MaxRuntimeInSeconds": 60}})
    with pytest.raises(TrainingError, match="p-1 was stopped"):
        check_trained(job | {"SecondaryStatus": "Stopped"})


def test_what_is_billed_is_told_where_it_is_known() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    job = {
        "TrainingJobArn": "arn", "TrainingJobName": "p-1", "AlgorithmSpecification": {"TrainingImage": "i@sha256:ab"},
        "ResourceConfig": {"InstanceType": "ml.m5.large"}, "TrainingStartTime": start,
        "TrainingEndTime": start + timedelta(seconds=90),
    }  # fmt: skip
    assert (job_facts(job)["seconds"], job_facts(job)["billed_seconds"]) == (90, 90)
    assert job_facts({**job, "TrainingTimeInSeconds": 80, "BillableTimeInSeconds": 24})["billed_seconds"] == 24
    assert job_facts({**job, "TrainingEndTime": None})["billed_seconds"] is None


# --- the archive ---------------------------------------------------------------------------------


def archive(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """Write a ``.tar.gz``; a member with text for content is a symbolic link to that."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["model.skops", "./model.skops"])
def test_the_model_alone_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    made = archive(
        tmp_path / "model.tar.gz",
        ("../evil", b"x"), ("/tmp/evil-of-a-test", b"x"), ("link", "/etc/passwd"), (name, b"model" * 1000),
    )  # fmt: skip
    found = unpack_model(made, tmp_path / "out")
    assert found.read_bytes() == b"model" * 1000
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model.skops", "model.tar.gz", "out"]
    assert not Path("/tmp/evil-of-a-test").exists()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([], r"no model.skops in /opt/ml/model \(found: nothing\)"),
        ([("model.pkl", b"x"), ("sub/model.skops", b"x")], r"found: model.pkl, sub/model.skops"),
        ([("model.skops", "/etc/passwd")], "is no plain file"),
        ([("model.skops", b"a"), ("./model.skops", b"b")], "is there twice"),
    ],
)
def test_an_archive_without_one_model(tmp_path: Path, members: list[Any], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        unpack_model(archive(tmp_path / "model.tar.gz", *members), tmp_path)


def test_a_small_archive_that_unpacks_to_much(tmp_path: Path) -> None:
    made = archive(tmp_path / "model.tar.gz", ("padding", bytes(1 << 20)), ("model.skops", b"x"))
    assert made.stat().st_size < 5000
    with pytest.raises(TrainingError, match="unpacks to more than 500,000 bytes"):
        unpack_model(made, tmp_path, max_bytes=500_000)
    assert unpack_model(made, tmp_path).read_bytes() == b"x"


@given(st.data())
def test_a_damaged_archive_is_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = archive(folder / "model.tar.gz", ("model.skops", bytes(range(256)) * 8)).read_bytes()
    raw = gzip.decompress(whole)
    cut = data.draw(st.integers(0, len(whole) - 1) | st.just(-1))
    spot, value = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(0, 255))
    broken = whole[:cut] if cut >= 0 else gzip.compress(raw[:spot] + bytes([value]) + raw[spot + 1 :])
    (folder / "model.tar.gz").write_bytes(broken)
    try:
        unpack_model(folder / "model.tar.gz", folder)
    except TrainingError:
        return
    assert cut < 0


def test_what_nobody_came_back_to_is_collected(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    key = layout.job_input("churn", "churn-0123-1")
    store.put(layout.pipeline_name("churn"), b"{}")
    store.put(key, b"rows")
    now = datetime.now(UTC)
    assert collect(store, now=now + timedelta(days=29)).deleted == {}
    assert collect(store, now=now + timedelta(days=31), dry_run=True).deleted["jobs"].examples == [key]
    assert store.exists(key)
    collect(store, now=now + timedelta(days=31))
    assert not store.exists(key)


def test_card_and_lineage_tell_the_job() -> None:
    job = {"arn": "arn", "name": "churn-1", "instance_type": "ml.m5.large", "billed_seconds": 1234}
    rows = dict(row[:2] for row in card_sections.lineage({"job": job}).rows)
    assert rows["Training job: billed seconds"] == "1,234"
    said = "trained by the SageMaker job churn-1 on ml.m5.large, 1,234 s billed"
    assert job_text(job) == said
    config = {"hash": "c" * 64, "estimator": "SageMaker: i", "seed": 7, "features": None, "params": {}, "job": job}
    assert [branch.text for branch in cli_lineage._config(config).below][1] == said
