"""Batch inference on SageMaker: against a server that checks every request by botocore's model, and against moto."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import MagicMock

import boto3
import pandas as pd
import pyarrow.parquet as pq
import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.exceptions import PredictionUnavailable, StoreError
from airflow_mlops.hooks.sagemaker import TransformJobs
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.registry.checks import read_check
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import S3Store, layout
from tests.integration.sagemaker_containers import predict_there
from tests.integration.sagemaker_predicting import DATA, JOB, ROLE, WINDOW, context, left, operator, resume, run, submit
from tests.unit.ml.transform_job import run_job

pytest_plugins = ["tests.integration.sagemaker_predicting"]
pytestmark = pytest.mark.usefixtures("models_are_read_once")


def test_from_a_source_to_predictions(sagemaker, connect, train, lake, s3_store, tmp_path, lines) -> None:
    connect(sagemaker.url)
    version = train()
    asked = {"price_per_hour": 0.4, "instance_type": "ml.c5.xlarge", "instance_count": 2, "max_payload_mb": 1}
    task = operator(**asked)
    waiting = submit(task)
    (name,) = sagemaker.transforms
    assert re.fullmatch(r"people-[0-9a-f]{24}-1", name)
    job, model = sagemaker.transforms[name], sagemaker.models[name]
    assert (job["ModelName"], model["ExecutionRoleArn"]) == (name, ROLE)
    assert job["TransformResources"] == {"InstanceType": "ml.c5.xlarge", "InstanceCount": 2}
    assert (job["MaxPayloadInMB"], job["TransformInput"]["SplitType"]) == (1, "None")
    assert lines[-1] == (
        f"Created the SageMaker job {name}: 300 rows in 1 part for v1, on 2 × ml.c5.xlarge; "
        f"https://console.aws.amazon.com/sagemaker/home?region=us-east-1#/transform-jobs/{name}"
    )
    # What comes after is of no matter: the rows are frozen, and so is the version.
    (lake / "new.csv").write_text("id\n")
    assert train() == 2
    said = predict_there(s3_store, sagemaker, name, tmp_path / "model")
    assert re.search(r"people v1 is ready on port \d+\n300 rows in ", said)
    sagemaker.end_transform(name)
    result, here = resume(task, waiting)
    output = lake / "predictions/people" / f"{WINDOW.key}.parquet"
    assert result | {"capture": ""} == {
        "version": version, "rows": 300, "output": f"predictions/people/{WINDOW.key}.parquet", "capture": "",
        "newest": None, "job": name,
    }  # fmt: skip
    assert lines[-3:-1] == [
        f"Writing what a job said of new.csv with v1 into predictions/people/{WINDOW.key}.parquet",
        f"The SageMaker job {name} took 60 s on 2 × ml.c5.xlarge, about 0.013 "
        "(SageMaker bills that time on each instance)",
    ]
    check = read_check(s3_store, "people", "prediction", WINDOW)["prediction"]
    facts = check["job"]
    assert facts.pop("packages")["scikit-learn"]
    assert datetime.fromisoformat(facts.pop("finished")) > datetime.now(UTC)
    assert facts == {
        "arn": job["TransformJobArn"], "name": name, "image": JOB["image"], "instance_type": "ml.c5.xlarge",
        "instances": 2, "seconds": 60.0,
        "cost": {"task": "SageMaker 2 × ml.c5.xlarge", "wall_seconds": 120.0, "cpu_seconds": 0.0, "peak_mb": 0.0,
                 "price_per_hour": 0.4, "currency": ""},
    }  # fmt: skip
    # What the record says the task took is all of it, before and after it waited.
    assert check["cost"]["wall_seconds"] > waiting.kwargs["cost"]["wall_seconds"]
    spent = here["ti"].xcom_push.call_args.kwargs["value"]
    assert spent["wall_seconds"] > waiting.kwargs["cost"]["wall_seconds"] > 0
    assert left(s3_store) == []
    assert sagemaker.models == {}

    # The same as here, by the same version.
    found = pq.read_table(output)
    Registry(s3_store, "people").promote(1, expected=2, op_id="back", reason="test")
    pd.read_csv(lake / "people.csv").drop(columns="target").iloc[:300].to_csv(lake / "new.csv", index=False)
    here_too = BatchPredictOperator(task_id="here", pipeline="people", data=DATA, batch={"source": "new.csv"})
    assert here_too.execute(context(here_too))["version"] == 1
    assert pq.read_table(output).equals(found)
    assert found["id"][0].as_py() == 2**53 + 1


def test_another_try_finds_the_job_that_runs(sagemaker, connect, train, s3_store, tmp_path) -> None:
    connect(sagemaker.url)
    train()
    submit(operator())
    again = operator(max_runtime="2d", price_per_hour=1)
    waiting = submit(again)
    (name,) = sagemaker.transforms
    run(s3_store, sagemaker, name, tmp_path / "model")
    assert operator().execute(context(again))["job"] == name
    # Airflow may run a task twice: what the other try has used and cleared away is not there any more.
    with pytest.raises(PredictionUnavailable, match="the rows are gone"):
        resume(again, waiting)
    # Cleared, it predicts anew.
    submit(operator())
    assert [*sagemaker.transforms] == [name, name[:-1] + "2"]


def test_a_try_with_something_else_stops_the_job_before(sagemaker, connect, train, lake, s3_store) -> None:
    connect(sagemaker.url)
    train()
    submit(operator())
    (first,) = sagemaker.transforms
    submit(operator(image="registry/predictor:2"))
    second = first[:-1] + "2"
    assert sagemaker.transforms[first]["TransformJobStatus"] == "Stopping"
    assert [*sagemaker.models] == [second]
    train()
    submit(operator(image="registry/predictor:2"))
    assert sagemaker.transforms[second]["TransformJobStatus"] == "Stopping"
    assert {key.split("/")[3] for key in left(s3_store)} == {first[:-1] + "3"}


def test_a_version_that_is_rolling_out_is_passed_over_aloud(sagemaker, connect, train, s3_store, lines) -> None:
    connect(sagemaker.url)
    train()
    train()
    registry = Registry(s3_store, "people")
    registry.begin_rollout(1, expected=2, steps=["shadow", "full"], op_id="b", reason="test")
    submit(operator())
    assert lines[-2] == (
        "v1 is rolling out, and a job on SageMaker predicts with the champion alone: v2 serves all rows, and this run "
        "is no evidence for the rollout"
    )
    assert "300 rows in 1 part for v2" in lines[-1]


def test_a_reply_that_was_lost_is_no_second_job(sagemaker, connect, train, monkeypatch) -> None:
    connect(sagemaker.url)
    train()
    find, missed = TransformJobs.find, []

    def blind(self: TransformJobs, name: str) -> Any:
        missed.append(name)
        return None if len(missed) == 1 else find(self, name)

    submit(operator())
    monkeypatch.setattr(TransformJobs, "find", blind)
    assert submit(operator()).trigger.job == next(iter(sagemaker.transforms))
    assert len(sagemaker.transforms) == 1


def test_what_a_retry_mends_and_what_not(sagemaker, connect, train, s3_store, tmp_path) -> None:
    connect(sagemaker.url)
    train()
    task = operator()
    waiting = submit(task)
    (first,) = sagemaker.transforms
    reason = "CapacityError: Unable to provision requested ML compute capacity."
    sagemaker.end_transform(first, "Failed", FailureReason=reason)
    with pytest.raises(PredictionUnavailable, match="CapacityError: Unable to provision"):
        resume(task, waiting)
    assert left(s3_store) == []
    assert sagemaker.models == {}
    waiting = submit(task)
    second = first[:-1] + "2"
    assert [*sagemaker.transforms] == [first, second]
    sagemaker.end_transform(second, "Failed", FailureReason="ClientError: See job logs for more information")
    with pytest.raises(AirflowFailException, match=r"(?s)See job logs.*/TransformJobs, .* with people-.*-2/"):
        resume(task, waiting)
    assert left(s3_store) == []
    # A job that ended well, and left less than was asked for.
    waiting = submit(task)
    third = first[:-1] + "3"
    run(s3_store, sagemaker, third, tmp_path / "model", change=lambda number, answer: None)
    with pytest.raises(AirflowFailException, match=r"(?s)1 missing \(000000.parquet.out\).*s3:PutObject"):
        resume(task, waiting)
    assert left(s3_store) == []
    assert sagemaker.models == {}
    assert read_check(s3_store, "people", "prediction", WINDOW) is None


def test_an_output_that_cannot_be_written_costs_no_second_job(
    sagemaker, connect, train, lake, s3_store, tmp_path
) -> None:
    connect(sagemaker.url)
    train()
    task = operator()
    waiting = submit(task)
    (name,) = sagemaker.transforms
    run(s3_store, sagemaker, name, tmp_path / "model")
    (lake / "predictions").write_text("in the way")
    with pytest.raises(AirflowFailException, match="cannot be opened"):
        resume(task, waiting)
    (lake / "predictions").unlink()
    assert operator().execute(context(task))["rows"] == 300
    assert [*sagemaker.transforms] == [name]
    assert left(s3_store) == []


def test_a_death_while_clearing_away_stops_no_later_try(
    sagemaker, connect, train, s3_store, tmp_path, monkeypatch
) -> None:
    connect(sagemaker.url)
    train()
    task = operator()
    waiting = submit(task)
    (first,) = sagemaker.transforms
    run(s3_store, sagemaker, first, tmp_path / "model")
    delete, gone = S3Store.delete, []

    def dies(self: S3Store, key: str) -> None:
        if gone:
            raise StoreError("the worker is gone")
        gone.append(key)
        delete(self, key)

    monkeypatch.setattr(S3Store, "delete", dies)
    with pytest.raises(Exception, match="the worker is gone"):
        resume(task, waiting)
    monkeypatch.setattr(S3Store, "delete", delete)
    assert gone == [layout.job_plan("people", first)]
    assert sagemaker.models == {}
    # What is left of it is taken away, and the rows are predicted anew.
    waiting = submit(task)
    second = first[:-1] + "2"
    assert {key.split("/")[3] for key in left(s3_store)} == {second}
    # Rows that are gone, whoever took them away, are no dead end.
    run(s3_store, sagemaker, second, tmp_path / "model2")
    s3_store.delete(layout.job_part("people", second, "rows", 0))
    with pytest.raises(PredictionUnavailable, match="some of the rows are gone"):
        resume(task, waiting)
    assert left(s3_store) == []


def test_a_wait_that_broke_off_leaves_no_job_behind(sagemaker, connect, train) -> None:
    connect(sagemaker.url)
    train()
    task = operator()
    waiting = submit(task)
    (name,) = sagemaker.transforms
    event = {"status": "error", "error": "PredictionUnavailable", "message": "no network", **waiting.trigger.of_error()}
    here = context(task)
    here["ti"].try_number, here["ti"].max_tries = 1, 2
    with pytest.raises(PredictionUnavailable, match="broke off: no network"):
        task.execute_complete(here, event)
    assert sagemaker.transforms[name]["TransformJobStatus"] == "InProgress"
    here["ti"].try_number = 3
    with pytest.raises(PredictionUnavailable, match="broke off: no network"):
        task.execute_complete(here, event)
    assert sagemaker.transforms[name]["TransformJobStatus"] == "Stopping"
    assert sagemaker.models == {}
    waiting.trigger.job = "people-unknown-1"
    with pytest.raises(PredictionUnavailable, match="SageMaker does not know the job people-unknown-1"):
        waiting.trigger.look()


def test_a_job_that_takes_too_long_is_stopped(sagemaker, connect, train, s3_store) -> None:
    connect(sagemaker.url)
    train()
    task = operator(max_runtime="2h")
    task.execution_timeout = timedelta(hours=1)
    waiting = submit(task)
    assert waiting.trigger.max_seconds == 3600
    (name,) = sagemaker.transforms
    sagemaker.transforms[name]["CreationTime"] -= timedelta(minutes=61)
    with pytest.raises(AirflowFailException, match=r"(?s)took longer than 3,600 s and was stopped.*max_runtime"):
        resume(task, waiting)
    assert [a for a, _ in sagemaker.asked].count("StopTransformJob") == 1
    assert left(s3_store) == []


def test_who_stops_the_task_stops_the_job(sagemaker, connect, train) -> None:
    connect(sagemaker.url)
    train()
    task = operator()
    task.on_kill()
    waiting = submit(task)
    (name,) = sagemaker.transforms
    asyncio.run(waiting.trigger.on_kill())
    assert sagemaker.transforms[name]["TransformJobStatus"] == "Stopping"
    assert sagemaker.models == {}
    task.on_kill()  # it ends already: nothing more to stop
    submit(task)
    task.on_kill()
    assert sagemaker.transforms[name[:-1] + "2"]["TransformJobStatus"] == "Stopping"
    assert sagemaker.models == {}


def test_the_trigger_says_how_far_the_job_is(sagemaker, connect, train, s3_store, tmp_path, lines, monkeypatch) -> None:
    connect(sagemaker.url)
    train()
    waiting = submit(operator())
    (name,) = sagemaker.transforms
    trigger = waiting.trigger
    del lines[:]
    assert trigger.is_news(trigger.look()) is False
    trigger.look()
    run_job(s3_store, "people", name, tmp_path / "model")
    trigger.look()
    monkeypatch.setattr(S3Store, "list", MagicMock(side_effect=StoreError("no rights to list")))
    assert trigger.is_news(trigger.look()) is False
    assert lines == [f"The SageMaker job {name} is InProgress: {n} of 1 parts are done" for n in (0, 1)] + [
        f"The SageMaker job {name} is InProgress: how far it is cannot be seen: no rights to list"
    ]


def test_refused_requests(sagemaker, connect, train) -> None:
    connect(sagemaker.url)
    train()
    task = operator()
    for refused, error, said in (
        ((400, "ThrottlingException", "Rate exceeded"), PredictionUnavailable, "Rate exceeded"),
        ((400, "ResourceLimitExceeded", "ml.m5.large: 0 Instances"), PredictionUnavailable, "0 Instances"),
        ((503, "ServiceUnavailable", "later"), PredictionUnavailable, "later"),
        ((400, "AccessDeniedException", "no PassRole"), AirflowFailException, r"(?s)no PassRole.*CreateTransformJob"),
    ):
        sagemaker.refuse = refused
        with pytest.raises(error, match=said):
            task.execute(context(task))
    # Between the model and its job: the next try makes both.
    sagemaker.refuse, sagemaker.refuses = (400, "ThrottlingException", "Rate exceeded"), "CreateTransformJob"
    with pytest.raises(PredictionUnavailable, match="Rate exceeded"):
        task.execute(context(task))
    assert (len(sagemaker.models), sagemaker.transforms, sagemaker.refuse) == (0, {}, None)
    for request, said in (({"Tagz": []}, '"Tagz"'), ({"MaxConcurrentTransforms": "many"}, "'many'")):
        wrong = operator(request=request)
        with pytest.raises(AirflowFailException, match=rf"(?s){said}.*deploy.batch.sagemaker"):
            wrong.execute(context(wrong))
    assert sagemaker.transforms == {}
    vpc = {"VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]}}
    submit(operator(model_request=vpc, request={"MaxConcurrentTransforms": 2}))
    (name,) = sagemaker.transforms
    assert sagemaker.models[name]["VpcConfig"] == vpc["VpcConfig"]
    assert sagemaker.transforms[name]["MaxConcurrentTransforms"] == 2


def test_nothing_to_score_with_and_a_store_elsewhere(sagemaker, connect, lake, monkeypatch, tmp_path) -> None:
    connect(sagemaker.url)
    task = operator()
    with pytest.raises(AirflowFailException, match="no champion yet"):
        task.execute(context(task))
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    task = operator()
    with pytest.raises(AirflowFailException, match=r"deploy\.batch\.sagemaker needs a store on S3"):
        task.execute(context(task))


def test_moto_predicts_at_once(connect, train, s3_endpoint, s3_bucket, s3_store, tmp_path, monkeypatch) -> None:
    connect(s3_endpoint)
    train()
    login = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
    iam = boto3.client("iam", endpoint_url=s3_endpoint, **login)
    arn = iam.create_role(RoleName=s3_bucket, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    task = operator(role=s3_bucket)
    with pytest.raises(AirflowFailException, match=r"1 missing \(000000.parquet.out\)"):
        task.execute(context(task))
    # With a container that answers at once, as moto's jobs end.
    create = TransformJobs.create

    def and_run(self: TransformJobs, model: dict[str, Any], request: dict[str, Any]) -> None:
        create(self, model, request)
        there = boto3.client("sagemaker", endpoint_url=s3_endpoint, **login)
        made = there.describe_model(ModelName=model["ModelName"])
        assert made["ExecutionRoleArn"] == arn
        assert made["PrimaryContainer"]["Image"] == JOB["image"]
        job = there.describe_transform_job(TransformJobName=request["TransformJobName"])
        assert job["TransformJobStatus"] == "Completed"
        run_job(s3_store, "people", request["TransformJobName"], tmp_path / "model")

    monkeypatch.setattr(TransformJobs, "create", and_run)
    assert task.execute(context(task))["rows"] == 300
    assert left(s3_store) == []
    there = boto3.client("sagemaker", endpoint_url=s3_endpoint, **login)
    assert [m["ModelName"] for m in there.list_models()["Models"] if m["ModelName"].startswith("people")] == []
