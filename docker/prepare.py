"""Make ready what Airflow of docker-compose.yml needs: the bucket, a proof that it is safe to use, the login.

Runs once before the other services and may run again at any time.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.exceptions import BotoCoreError, ClientError

from airflow_mlops.exceptions import ConfigError, MLOpsError, ObjectExists, StoreError
from airflow_mlops.hooks.mlops import MLOpsHook, option
from airflow_mlops.store import Store

WRITERS, ROUNDS = 8, 3


def make_buckets(client: Any, uris: list[str]) -> None:
    """Create the bucket of every ``s3://`` URI that has none yet.

    :raises StoreError: S3 refuses or cannot be reached.
    """
    for bucket in sorted({urlsplit(uri).netloc for uri in uris if uri.startswith("s3://")}):
        try:
            if bucket in {found["Name"] for found in client.list_buckets()["Buckets"]}:
                print(f"bucket {bucket} is there")
                continue
            client.create_bucket(Bucket=bucket)
        except (BotoCoreError, ClientError) as e:
            raise StoreError(
                f"cannot create the bucket {bucket!r}: {type(e).__name__}: {e}",
                hint="check endpoint_url, login and password of the AWS connection",
            ) from e
        print(f"bucket {bucket} created")


def check_conditional_writes(store: Store) -> None:
    """Let several writers race for one key: the registry's log stands on one of them winning.

    :raises StoreError: none or more than one of them won.
    """
    for _ in range(ROUNDS):
        key = f"probes/{uuid.uuid4().hex}"

        def write(number: int, key: str = key) -> bool:
            try:
                store.put_if_absent(key, str(number).encode())
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(WRITERS) as pool:
            won = sum(pool.map(write, range(WRITERS)))
        store.delete(key)
        if won != 1:
            raise StoreError(
                f"{won} of {WRITERS} concurrent writers of one key in {store.uri} won; it has to be exactly one",
                hint="use an S3 server with atomic conditional writes (If-None-Match), or two runs could lose a model",
            )
    print(f"{store.uri} takes conditional writes")


def write_login(path: Path, password: str) -> None:
    """Write the password of the user ``admin`` where Airflow's simple auth manager reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"admin": password}) + "\n")
    print(f"login admin written to {path}")


def main() -> int:
    """Do it all; returns the exit code."""
    try:
        password = os.environ.get("MLOPS_ADMIN_PASSWORD")
        if not password:
            raise ConfigError("MLOPS_ADMIN_PASSWORD is not set", hint="it becomes the password of the user admin")
        hook = MLOpsHook()
        client = S3Hook(aws_conn_id=option("aws_conn_id", "aws_default")).get_conn()
        make_buckets(client, [hook.store_uri, hook.data_root])
        check_conditional_writes(hook.store())
        write_login(Path(conf.get("core", "simple_auth_manager_passwords_file")), password)
    except MLOpsError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
