"""Level 0 on the cluster of docker-compose.yml: Celery, PostgreSQL, Redis, everything that lasts on S3."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import httpx
import psycopg2
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))  # importmode=importlib leaves the folder out

from services import ComposeAirflow, postgres, read_compose, redis

from airflow_mlops.demo.story import succeed
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import S3Store

TRAIN, PREDICT = "breast_cancer__train", "breast_cancer__predict"


def test_level_0_from_data_on_s3_to_predictions_on_s3(tmp_path, s3_endpoint, s3_client) -> None:
    compose = read_compose()["services"]
    with postgres(compose["postgres"]) as database, redis(compose["redis"], tmp_path) as broker:
        swaps = {
            "@postgres:5432/": f"@127.0.0.1:{database}/",
            "@redis:6379/": f"@127.0.0.1:{broker}/",
            "http://s3:8333": s3_endpoint,
        }
        with ComposeAirflow(tmp_path / "airflow", swaps) as live:
            assert "http" not in live.run("demo-data")
            assert httpx.get(f"http://127.0.0.1:{live.health_port}/health", trust_env=False).is_success
            live.wait_for_dags(TRAIN, PREDICT)
            live.unpause(TRAIN, PREDICT)
            run = live.trigger(TRAIN)
            assert live.approve(TRAIN, run) == "approve.ask"
            tasks = succeed(live, TRAIN, run)
            assert tasks["promote.handover"] == "success"
            run = live.trigger(PREDICT)
            succeed(live, PREDICT, run)
            scored = live.xcom(PREDICT, run, "predict.batch")
            settings = compose["postgres"]["environment"]
            with psycopg2.connect(
                host="127.0.0.1",
                port=database,
                user=settings["POSTGRES_USER"],
                password=settings["POSTGRES_PASSWORD"],
                dbname=settings["POSTGRES_DB"],
            ) as connection:
                cursor = connection.cursor()
                cursor.execute("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")
                by_celery = cursor.fetchone()[0]
            connection.close()

    # Airflow is gone; what it made is on S3.
    assert by_celery >= 8
    store = S3Store("mlops", "store", s3_client)
    champion = Registry(store, "breast_cancer").champion()
    assert champion is not None
    assert champion.number == scored["version"] == 1
    bundles = list(store.list(f"handover/{TRAIN}/"))
    assert len(bundles) == 1
    with zipfile.ZipFile(io.BytesIO(store.get(bundles[0]))) as bundle:
        assert bundle.testzip() is None
    # The pipeline says where, relative to [mlops] data_root.
    found = s3_client.list_objects_v2(Bucket="mlops", Prefix=f"data/{scored['output']}")["Contents"]
    body = s3_client.get_object(Bucket="mlops", Key=found[0]["Key"])["Body"].read()
    predictions = pq.read_table(io.BytesIO(body))
    assert predictions.num_rows == scored["rows"] == 100
    assert set(predictions["prediction"].to_pylist()) == {"benign", "malignant"}
