"""A store in an S3 bucket, or in anything that speaks S3 with conditional writes."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import boto3
from boto3.exceptions import S3UploadFailedError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError, ResponseStreamingError
from botocore.exceptions import ConnectionError as BotoConnectionError

from airflow_mlops.exceptions import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from airflow_mlops.store.base import Stat
from airflow_mlops.store.local import check_key, disk_errors

T = TypeVar("T")

_CHUNK = 1 << 20
_ATTEMPTS = 4
_NETWORK = (
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    ConnectionError,
    TimeoutError,
)
_BUSY = {
    "InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "BandwidthLimitExceeded",
}  # fmt: skip
_RIGHTS = "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"


class _Conflict(Exception):
    """409: two conditional writes met; S3 asks to repeat the request."""


class S3Store:
    """Objects are S3 objects below ``s3://bucket/prefix``.

    :param client: a boto3 S3 client (its credentials, region and endpoint are used as they are);
        by default one from boto3's own settings.
    """

    def __init__(self, bucket: str, prefix: str = "", client: Any = None) -> None:
        self.bucket = bucket
        self.prefix = check_key(prefix.strip("/"), prefix=True)
        self.uri = f"s3://{bucket}/{self.prefix}".rstrip("/")
        self._client: Any = client or boto3.client(
            "s3", config=Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=10)
        )

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def get(self, key: str) -> bytes:
        """Return the object's bytes; a body shorter than announced is read again."""
        return self._repeat(key, lambda: b"".join(self._body(key)))

    def peek(self, key: str, length: int) -> bytes:
        """Return at most ``length`` bytes from the object's beginning."""

        def first_bytes() -> bytes:
            reply = self._client.get_object(Bucket=self.bucket, Key=self._key(key), Range=f"bytes=0-{length - 1}")
            with closing(reply["Body"]) as body:
                data: bytes = body.read()
                return data

        try:
            return self._repeat(key, first_bytes)
        except StoreError as e:
            if _empty(e):
                return b""
            raise

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        self._repeat(key, lambda: self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data))

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object if the key is free (``If-None-Match: *``).

        boto3 repeats a request whose reply was lost, so :class:`ObjectExists` may mean that *this* write
        took the key: a caller to whom that matters puts a mark of its own into the object and looks.
        """
        self._repeat(
            key,
            lambda: self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*"),
        )

    def get_file(self, key: str, path: Path) -> None:
        """Download the object to ``path``, which appears complete or not at all."""
        tmp = path.with_name(f".tmp-{uuid.uuid4().hex}")

        def download() -> None:
            failed = f"cannot copy {key!r} to {path}"
            with disk_errors(failed, path):
                file = tmp.open("wb", buffering=0)
            with file:
                for chunk in self._body(key):
                    with disk_errors(failed, path, len(chunk)):
                        file.write(chunk)

        try:
            self._repeat(key, download)
            with disk_errors(f"cannot copy {key!r} to {path}", path):
                tmp.replace(path)
        finally:
            tmp.unlink(missing_ok=True)

    def put_file(self, key: str, path: Path) -> None:
        """Upload the file at ``path``, in parts when it is large; replaces atomically."""
        path.stat()  # a missing file is the caller's error, not the store's
        self._call(key, lambda: self._client.upload_file(str(path), self.bucket, self._key(key)))

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""

        # Not HEAD: its 404 has no body, so that a missing bucket would look like a missing object.
        try:
            self.peek(key, 1)
        except ObjectNotFound:
            return False
        return True

    def stat(self, key: str) -> Stat:
        """Return the object's size and time."""
        head = self._call(key, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(key)))
        return Stat(key, head["ContentLength"], head["LastModified"])

    def touch(self, key: str) -> None:
        """Set the object's time to now: S3 copies it onto itself."""
        # S3 refuses such a copy unless something is replaced.
        self._copy(key, key, MetadataDirective="REPLACE")

    def move(self, key: str, target: str) -> None:
        """Copy the object to ``target`` within S3, then delete it."""
        self._copy(key, target)
        self.delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, in ascending order."""
        return (found.key for found in self.scan(prefix))

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Like :meth:`list`, with size and time: the listing has them."""
        check_key(prefix, prefix=True)
        full = f"{self.prefix}/{prefix}" if self.prefix else prefix
        token: dict[str, str] = {}
        while True:
            page = self._call(prefix, partial(self._client.list_objects_v2, Bucket=self.bucket, Prefix=full, **token))
            for item in page.get("Contents", []):
                yield Stat(self._own(item["Key"]), item["Size"], item["LastModified"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove the object; no error if it is already gone."""
        self._call(key, lambda: self._client.delete_object(Bucket=self.bucket, Key=self._key(key)))

    def sweep(self, before: datetime, *, dry_run: bool = False) -> tuple[Stat, ...]:
        """Abort uploads in parts that were begun before that time and never finished; S3 charges for them."""
        full = f"{self.prefix}/" if self.prefix else ""
        found = []
        token: dict[str, str] = {}
        more = True
        while more:
            listing = partial(self._client.list_multipart_uploads, Bucket=self.bucket, Prefix=full, **token)
            page = self._call(full, listing)
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    key = self._own(upload["Key"])
                    found.append(Stat(key, 0, upload["Initiated"]))
                    if not dry_run:
                        self._abort(key, upload["UploadId"])
            more = bool(page.get("IsTruncated"))
            if more:
                token = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        return tuple(sorted(found, key=lambda left: left.key))

    def _abort(self, key: str, upload: str) -> None:
        abort = partial(self._client.abort_multipart_upload, Bucket=self.bucket, Key=self._key(key), UploadId=upload)
        with suppress(ObjectNotFound):  # finished or aborted since it was listed
            self._call(key, abort)

    def _copy(self, key: str, target: str, **more: str) -> None:
        source = {"Bucket": self.bucket, "Key": self._key(key)}
        # boto3's managed copy: in parts where S3's own limit of 5 GB is passed.
        copy = partial(self._client.copy, source, self.bucket, self._key(target), ExtraArgs=more)
        self._call(key, copy)

    def _own(self, full: str) -> str:
        return full[len(self.prefix) + 1 :] if self.prefix else full

    def _key(self, key: str) -> str:
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    def _body(self, key: str) -> Iterator[bytes]:
        reply = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
        expected, got = reply["ContentLength"], 0
        with closing(reply["Body"]) as body:
            for chunk in body.iter_chunks(_CHUNK):
                got += len(chunk)
                yield chunk
        if got != expected:
            raise IncompleteReadError(actual_bytes=got, expected_bytes=expected)

    def _repeat(self, key: str, action: Callable[[], T]) -> T:
        """Call ``action``; repeat what boto3 does not: a body cut short, and 409 on a conditional write."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._call(key, action)
            except _Conflict as e:
                conflict: BaseException | None = e.__cause__
                if attempt == _ATTEMPTS - 1:
                    raise StoreUnavailable(
                        f"S3 still reports a conflicting write on {self._where(key)} after {_ATTEMPTS} attempts",
                        hint="another writer is busy with the same object; the task is retried",
                    ) from conflict
            except StoreUnavailable as e:
                cut = isinstance(e.__cause__, (IncompleteReadError, ResponseStreamingError))
                if not cut or attempt == _ATTEMPTS - 1:
                    raise
            time.sleep(random.uniform(0.05, 0.1) * 2**attempt)  # noqa: S311 - jitter, not a secret
        raise RuntimeError("not reached: the last attempt returns or raises")

    def _call(self, key: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except S3UploadFailedError as e:
            # boto3's transfer keeps the real error only as context.
            raise self._translate(e.__context__ or e, key) from (e.__context__ or e)
        except (ClientError, BotoCoreError, ConnectionError, TimeoutError) as e:
            raise self._translate(e, key) from e

    def _translate(self, e: BaseException, key: str) -> Exception:
        where = self._where(key)
        if isinstance(e, ClientError):
            code, status = e.response.get("Error", {}).get("Code", ""), _status(e)
            what = f"S3 answered {status} {code} for {where}"
            if code == "NoSuchBucket":
                return StoreError(
                    f"the bucket {self.bucket!r} does not exist at {self._client.meta.endpoint_url}",
                    hint="create it, or correct [mlops] store and the endpoint and region of the AWS connection",
                )
            if status == 404:
                return ObjectNotFound(f"there is no object {where}")
            if status == 412:
                return ObjectExists(f"there is already an object {where}")
            if status == 409 and code in ("ConditionalRequestConflict", "409"):
                return _Conflict(what)
            if status in (401, 403):
                hint = f"the credentials of [mlops] aws_conn_id need {_RIGHTS} on {self.uri}"
                return StoreError(what, hint=hint)
            if status == 429 or status >= 500 or code in _BUSY:
                return StoreUnavailable(what, hint="S3 is overloaded or failing; the task is retried")
            return StoreError(
                f"{what}: {e.response.get('Error', {}).get('Message', '')}",
                hint="check the bucket's region and settings, and the AWS connection",
            )
        if isinstance(e, _NETWORK):
            return StoreUnavailable(
                f"cannot reach {where}: {e}", hint="check the endpoint of the AWS connection and the network"
            )
        return StoreError(
            f"cannot use {where}: {e}",
            hint="check the AWS connection named by [mlops] aws_conn_id: keys, region, endpoint",
        )

    def _where(self, key: str) -> str:
        return f"{key!r} in {self.uri} at {self._client.meta.endpoint_url}"


def _empty(e: StoreError) -> bool:
    """Whether S3 refused the first bytes because there are none."""
    return isinstance(e.__cause__, ClientError) and _status(e.__cause__) == 416


def _status(e: ClientError) -> int:
    return int(e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
