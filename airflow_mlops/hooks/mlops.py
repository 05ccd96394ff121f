"""The one place that sees Airflow's connections and the ``[mlops]`` configuration."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, conf
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from airflow.sdk.log import mask_secret

from airflow_mlops.exceptions import ConfigError, DataError, DataUnavailable
from airflow_mlops.hooks.options import option, options, switch, switch_or_none

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlalchemy import Engine

    from airflow_mlops.ml.files import Files
    from airflow_mlops.registry.mlflow_client import Target
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.registry.signing import Signer, Verifier
    from airflow_mlops.store.base import Store

# Keys of the connection's extra that are read; all others are ignored on purpose.
CONNECTION_EXTRAS = ("store", "data_root", "aws_conn_id")


def address_of(connection: Any) -> str:
    """Return the ``http(s)://…`` address of a server: a host that may hold the scheme and a path, else its schema does.

    A connection whose type is ``https`` has that scheme unless it says another.
    """
    host = connection.host or ""
    if "://" not in host:
        host = f"{connection.schema or ('https' if connection.conn_type == 'https' else 'http')}://{host}"
    port = f":{connection.port}" if connection.port else ""
    scheme, _, rest = host.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place}{port}{slash}{path}"


class MLOpsHook(BaseHook):
    """Opens the store, the data and the registry where configuration and connection say they are.

    :param mlops_conn_id: connection of type ``mlops``; default ``[mlops] mlops_conn_id``, and without
        one the ``[mlops]`` options alone.
    """

    conn_name_attr = "mlops_conn_id"
    default_conn_name = "mlops_default"
    conn_type = "mlops"
    hook_name = "MLOps store"

    def __init__(self, mlops_conn_id: str | None = None) -> None:
        super().__init__()
        self.mlops_conn_id = mlops_conn_id or option("mlops_conn_id") or None

    @cached_property
    def _settings(self) -> dict[str, str]:
        home = os.path.expanduser(
            os.environ.get("AIRFLOW_HOME") or conf.get("core", "airflow_home", fallback="~/airflow")
        )
        settings = {
            "store": option("store", f"file://{home}/mlops"),
            "data_root": option("data_root", f"{home}/data"),
            "aws_conn_id": option("aws_conn_id", "aws_default"),
        }
        if self.mlops_conn_id:
            try:
                extra = self.get_connection(self.mlops_conn_id).extra_dejson
            except AirflowNotFoundException as e:
                raise ConfigError(
                    f"the connection {self.mlops_conn_id!r} does not exist",
                    hint="create it with type mlops, or correct [mlops] mlops_conn_id",
                ) from e
            settings.update({key: str(extra[key]) for key in CONNECTION_EXTRAS if extra.get(key)})
        return settings

    @property
    def data_root(self) -> str:
        """Folder or URI that relative data paths start from."""
        return self._settings["data_root"]

    @property
    def aws_conn_id(self) -> str:
        """The AWS connection of the store and the data."""
        return self._settings["aws_conn_id"]

    @property
    def store_uri(self) -> str:
        """Where models, snapshots and reports are kept."""
        return self._settings["store"]

    @property
    def allowed_imports(self) -> tuple[str, ...]:
        """Import prefixes from which pipelines may name code."""
        return options("allowed_imports")

    @property
    def allow_commands(self) -> bool:
        """Whether pipelines may run programs of their own (``train.command``)."""
        return switch("allow_commands")

    def price(self) -> dict[str, Any]:
        """What an hour of a worker costs, as ``price_per_hour`` and ``currency``; empty where it is not set.

        :raises ConfigError: it is no number.
        """
        text = option("price_per_hour")
        if not text:
            return {}
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"[mlops] price_per_hour is {text!r}", hint="write a number, such as 0.42")
        return {"price_per_hour": value, "currency": option("currency")}

    @property
    def currency(self) -> str:
        """What prices are in; empty where it is not set."""
        return option("currency")

    @property
    def trusted_types(self) -> tuple[str, ...]:
        """Types, beyond the built-in ones, that a stored model may hold."""
        return options("trusted_types")

    def signer(self) -> Signer | None:
        """The private key that models are signed with here, or ``None`` where none is configured.

        :raises ConfigError: the connection or the file is not there, or holds no key.
        """
        from airflow_mlops.registry.signing import Signer

        conn_id, file = option("signing_key_conn_id"), option("signing_key_file")
        if conn_id and file:
            raise ConfigError(
                "[mlops] signing_key_conn_id and signing_key_file are both set", hint="take one of the two away"
            )
        if file:
            return Signer.from_file(file)
        if not conn_id:
            return None
        try:
            secret = self.get_connection(conn_id).password
        except AirflowNotFoundException as e:
            raise ConfigError(
                f"the connection {conn_id!r} does not exist",
                hint="create it with the private key as its password, or correct [mlops] signing_key_conn_id",
            ) from e
        if not secret:
            raise ConfigError(
                f"the connection {conn_id!r} has no password", hint="its password is the private key that models need"
            )
        # Airflow masks the password as a whole; a log may break it up.
        for line in secret.splitlines():
            if not line.startswith("-----"):
                mask_secret(line)
        return Signer.from_text(secret, where=f"the password of the connection {conn_id!r}")

    def verifier(self) -> Verifier:
        """Whose signatures count where models are loaded, and whether others are loaded at all.

        :raises ConfigError: a trusted key cannot be read, or an option is no boolean.
        """
        from airflow_mlops.registry.signing import Verifier, read_public_key

        keys = tuple(read_public_key(text) for text in options("trusted_keys"))
        return Verifier(keys, switch_or_none("allow_unsigned"), bool(switch_or_none("allow_pickle")))

    def _aws_session(self, conn_id: str) -> tuple[Any, str | None, str | None]:
        """Return (boto3 session, endpoint URL, region) of an AWS connection."""
        try:
            from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
        except ImportError as e:
            raise ConfigError(
                "S3 needs Airflow's amazon provider, which is not installed",
                hint="pip install 'airflow-mlops[amazon]'",
            ) from e
        hook = AwsBaseHook(aws_conn_id=conn_id, client_type="s3")
        return hook.get_session(), hook.conn_config.get_service_endpoint_url("s3"), hook.region_name

    @cached_property
    def _s3_client(self) -> Any:
        return self._new_s3_client()

    def _new_s3_client(self, *, impatient: bool = False) -> Any:
        from botocore.config import Config

        session, endpoint, region = self._aws_session(self._settings["aws_conn_id"])
        # Bounded waits and few tries: an unreachable store is the task's retry, not an hour's silence.
        seconds, tries = (10, 1) if impatient else (60, 3)
        config = Config(connect_timeout=5, read_timeout=seconds, retries={"max_attempts": tries, "mode": "standard"})
        return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)

    def _s3_filesystem(self, conn_id: str) -> Any:
        from pyarrow.fs import S3FileSystem

        session, endpoint, region = self._aws_session(conn_id)
        credentials = session.get_credentials()
        options: dict[str, Any] = {"connect_timeout": 5, "request_timeout": 60, "region": region or "us-east-1"}
        if credentials is not None:
            frozen = credentials.get_frozen_credentials()
            options |= {"access_key": frozen.access_key, "secret_key": frozen.secret_key, "session_token": frozen.token}
        if endpoint:
            scheme, _, host = endpoint.rpartition("://")
            options |= {"endpoint_override": host, "scheme": scheme or "https"}
        return S3FileSystem(**options)

    def store(self, *, impatient: bool = False) -> Store:
        """Open the store.

        :param impatient: for who would rather be told soon that it does not answer: a page, not a task.
        """
        from airflow_mlops.store import open_store

        if not self.store_uri.startswith("s3://"):
            return open_store(self.store_uri)
        client = self._new_s3_client(impatient=True) if impatient else self._s3_client
        return open_store(self.store_uri, s3_client=client)

    def files(self, *uris: str | None) -> Files:
        """Open the user's data; S3 is connected only where one of ``uris`` or the data root is on S3."""
        from airflow_mlops.ml.files import Files

        on_s3 = any((uri or "").startswith("s3://") for uri in (*uris, self.data_root))
        s3 = self._s3_filesystem(self._settings["aws_conn_id"]) if on_s3 else None
        return Files(root=self.data_root, s3=s3, connection=self._location)

    def _location(self, conn_id: str) -> tuple[str, Any]:
        """Where the connection of ``${conn:ID}`` leads, without its credentials, and its file system if that is S3.

        An AWS connection stands for the bucket in its extra (``service_config.s3.bucket_name``, as
        Airflow's own S3 hook reads it), one of type ``fs`` for its path, one of type ``mlops`` for its data root.

        :raises ConfigError: there is no such connection, or it names no location.
        """
        try:
            found = self.get_connection(conn_id)
        except AirflowNotFoundException as e:
            raise ConfigError(
                f"the connection {conn_id!r} of ${{conn:{conn_id}}} does not exist", hint="create it in Airflow"
            ) from e
        extra = found.extra_dejson
        if found.conn_type == "mlops" and extra.get("data_root"):
            root, aws = str(extra["data_root"]), str(extra.get("aws_conn_id") or self._settings["aws_conn_id"])
            return root, self._s3_filesystem(aws) if root.startswith("s3://") else None
        if found.conn_type == "fs" and extra.get("path"):
            return str(extra["path"]), None
        bucket = ((extra.get("service_config") or {}).get("s3") or {}).get("bucket_name")
        if found.conn_type == "aws" and bucket:
            return f"s3://{bucket}", self._s3_filesystem(conn_id)
        raise ConfigError(
            f"the connection {conn_id!r} of type {found.conn_type!r} names no location",
            hint='give an aws connection the extra {"service_config": {"s3": {"bucket_name": "…"}}}, '
            'an fs connection {"path": "…"}, or an mlops connection a data root',
        )

    def registry(self, pipeline: str) -> Registry:
        """Open the registry of one pipeline."""
        from airflow_mlops.registry.registry import Registry

        return Registry(self.store(), pipeline)

    def mlflow(self) -> Target | None:
        """Where MLflow is and who we are there, by the connection ``[mlops] mlflow_conn_id``; None without one.

        Its host may hold the scheme (``https://…``), else its schema field does; login and password are for
        basic authentication, a password alone is a bearer token.

        :raises ConfigError: there is no such connection, or it names no server.
        """
        from airflow_mlops.registry.mlflow_client import Target

        conn_id = option("mlflow_conn_id")
        if not conn_id:
            return None
        try:
            found = self.get_connection(conn_id)
        except AirflowNotFoundException as e:
            raise ConfigError(
                f"the connection {conn_id!r} does not exist",
                hint="create it with type http and MLflow's host, or correct [mlops] mlflow_conn_id",
            ) from e
        return Target(
            address_of(found),
            username=found.login or None,
            password=found.password if found.login else None,
            token=None if found.login else found.password or None,
            prefix=option("mlflow_prefix"),
        )

    def mirror(self, registry: Registry, version: int, event: str, key: str | None = None) -> None:
        """Show a commit in MLflow where one is configured; never fails, and else costs nothing.

        :param event: what was committed: ``register``, ``gates``, ``promote``, …
        """
        if option("mlflow_conn_id"):
            from airflow_mlops.registry.mlflow_mirror import mirror_event

            mirror_event(registry, version, event, self.mlflow, key=key)

    def sql(self, conn_id: str, query: str) -> Iterator[pa.Table]:
        """Run a query through an Airflow connection; yields Arrow tables of up to 50,000 rows.

        :raises ConfigError: there is no such connection, it is not a database, or its provider is not installed.
        :raises DataUnavailable: the database cannot be reached, or no longer.
        :raises DataError: the query is refused.
        """
        import pyarrow as pa

        from airflow_mlops.ml.reading import may_pass

        hook = self._database_hook(conn_id)
        try:
            connection = hook.get_conn()
        except Exception as e:  # drivers have no common base class for "cannot connect"
            raise DataUnavailable(
                f"cannot connect through {conn_id!r}: {type(e).__name__}: {e}", hint="check the connection in Airflow"
            ) from e
        try:
            cursor = connection.cursor()
            try:
                cursor.execute(query)
                names = [column[0] for column in cursor.description]
                while rows := cursor.fetchmany(50_000):
                    columns = list(zip(*rows, strict=True))
                    yield pa.table({name: list(values) for name, values in zip(names, columns, strict=True)})
            except Exception as e:  # as above: every driver has its own errors
                raise (DataUnavailable if may_pass(e) else DataError)(
                    f"the query through {conn_id!r} failed: {type(e).__name__}: {e}", hint="run it in a SQL client"
                ) from e
        finally:
            connection.close()

    def database(self, conn_id: str) -> Engine:
        """Open the database of an Airflow connection for SQLAlchemy; it connects when it is asked something.

        :raises ConfigError: there is no such connection, it is not a database, or its provider is not installed, or
            knows nothing of SQLAlchemy.
        """
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError
        from sqlalchemy.pool import NullPool

        hook = self._database_hook(conn_id)
        try:
            # Errors of a query would else quote the values in it.
            engine: Engine = hook.get_sqlalchemy_engine(engine_kwargs={"poolclass": NullPool, "hide_parameters": True})
        except (
            AirflowException,
            ArgumentError,
            AttributeError,
            ImportError,
            NoSuchModuleError,
            NotImplementedError,
        ) as e:
            raise ConfigError(
                f"connection {conn_id!r} cannot be opened with SQLAlchemy, which validate.engine: sql needs: "
                f"{type(e).__name__}: {e}",
                hint="install the dialect of SQLAlchemy for that database, or set validate.engine to pandas",
            ) from e
        return engine

    def _database_hook(self, conn_id: str) -> Any:
        """The hook of a connection to a database.

        :raises ConfigError: as :meth:`sql` says.
        """
        try:
            connected = self.get_connection(conn_id)
        except AirflowNotFoundException as e:
            raise ConfigError(
                f"the connection {conn_id!r} does not exist", hint="create it in Airflow, or correct data.sql.conn_id"
            ) from e
        try:
            hook = connected.get_hook()
        except (AirflowException, ImportError) as e:
            raise ConfigError(
                f"connection {conn_id!r} of type {connected.conn_type!r} cannot be used: {e}",
                hint="install Airflow's provider for that type where tasks run: apache-airflow-providers-…",
            ) from e
        if not hasattr(hook, "get_conn") or not hasattr(hook, "get_records"):
            raise ConfigError(f"connection {conn_id!r} is not a database", hint="data.sql needs a SQL connection")
        return hook
