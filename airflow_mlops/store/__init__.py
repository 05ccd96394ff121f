"""Where bytes live: a local folder or S3, behind one small protocol."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_mlops.exceptions import StoreError
from airflow_mlops.store.base import Store

if TYPE_CHECKING:
    from airflow_mlops.store.content import get_blob, get_blob_file, get_json, put_blob, put_blob_file, put_json
    from airflow_mlops.store.local import LocalStore
    from airflow_mlops.store.s3 import S3Store

__all__ = [
    "LocalStore",
    "S3Store",
    "Store",
    "get_blob",
    "get_blob_file",
    "get_json",
    "open_store",
    "put_blob",
    "put_blob_file",
    "put_json",
]

# boto3 costs 0.3 s: whoever works on a local store does not pay for it.
_LAZY = {
    "LocalStore": "local",
    "S3Store": "s3",
    **dict.fromkeys(["get_blob", "get_blob_file", "get_json", "put_blob", "put_blob_file", "put_json"], "content"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def open_store(uri: str, *, s3_client: Any = None) -> Store:
    """Open the store at ``uri``; touches neither disk nor network.

    :param uri: ``file:///folder``, an absolute path, or ``s3://bucket/prefix``.
    :param s3_client: the boto3 client to use for ``s3://``; by default one from boto3's own settings.
    :raises StoreError: for any other URI, and for credentials inside one.
    """
    hint = "write file:///folder, an absolute path, or s3://bucket/prefix, in [mlops] store or the MLOps connection"
    parts = urlsplit(uri)
    if "@" in parts.netloc:
        raise StoreError(
            "the store's URI carries credentials", hint="leave them out; they come from [mlops] aws_conn_id"
        )
    if parts.scheme == "s3":
        if not parts.netloc:
            raise StoreError(f"the store {uri!r} names no bucket", hint=hint)
        from airflow_mlops.store.s3 import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), s3_client)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        path = unquote(parts.path)
    elif uri.startswith("/"):
        path = uri
    else:
        raise StoreError(f"{uri!r} is not the URI of a store", hint=hint)
    from airflow_mlops.store.local import LocalStore

    return LocalStore(Path(path))
