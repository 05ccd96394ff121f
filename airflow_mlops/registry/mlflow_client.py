"""Talking to an MLflow server: where it is, who we are there, and how long a task waits for it."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_mlops.exceptions import ConfigError, RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

AUTH_PROVIDER = "airflow-mlops"
"""How MLflow finds :class:`AuthProvider`: an entry point of this package has that name."""

# MLflow reads these from the environment alone. Its own defaults wait for a dead server for minutes.
_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_OURS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

_headers: dict[str, str] = {}  # server → Authorization, while we talk to it; never in the environment
_lock = threading.RLock()


@dataclass(frozen=True)
class Target:
    """An MLflow server.

    :param uri: ``http://…`` or ``https://…``, without credentials.
    :param username: with ``password``: HTTP basic authentication.
    :param token: instead of the two: a bearer token.
    :param prefix: what names of experiments and registered models begin with there, like ``staging.``.
    """

    uri: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    prefix: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            # MLflow's databases must have one process alone when they are first used; servers take care of that.
            raise ConfigError(
                "MLflow is reached through its server, at http://… or https://…; its address here has "
                + (f"the scheme {parts.scheme!r}" if parts.scheme else "no scheme"),
                hint="start one with `mlflow server` and name its host in the connection",
            )
        if "@" in parts.netloc:
            raise ConfigError(
                f"the address of the MLflow server {parts.hostname} holds a login",
                hint="put it into the connection's own fields: login and password, or a token as password alone",
            )
        object.__setattr__(self, "uri", self.uri.rstrip("/"))

    @property
    def authorization(self) -> str | None:
        """The HTTP header of that name."""
        if self.username:
            plain = f"{self.username}:{self.password or ''}"
            return f"Basic {base64.b64encode(plain.encode()).decode()}"
        return f"Bearer {self.token}" if self.token else None

    def cleaned(self, text: str) -> str:
        """Return ``text`` without any secret of this server that an answer may have repeated."""
        header = self.authorization
        for secret in (self.password, self.token, header and header.partition(" ")[2]):
            text = text.replace(secret, "***") if secret else text
        return text


class AuthProvider:
    """Gives MLflow's requests the credentials of the server that :func:`connected` is talking to."""

    def get_name(self) -> str:
        """Return the name in ``MLFLOW_TRACKING_AUTH``."""
        return AUTH_PROVIDER

    def get_auth(self) -> Any:
        """Return what requests calls with each request before it is sent."""
        return _authorize


def _authorize(request: Any) -> Any:
    """Set the header of a request to a known server; others get nothing."""
    for uri, header in _headers.items():
        if request.url == uri or request.url.startswith((f"{uri}/", f"{uri}?")):
            request.headers["Authorization"] = header
    return request


@contextmanager
def connected(target: Target) -> Iterator[MlflowClient]:
    """Yield MLflow's client for the server; one thread at a time.

    :raises ConfigError: MLflow is not installed.
    :raises RegistryError: what the server or the way to it refused, without secrets.
    """
    with _lock, _environment(target):
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as e:
            raise ConfigError(
                "MLflow is configured and its client is not installed", hint="pip install 'airflow-mlops[mlflow]'"
            ) from e
        try:
            yield MlflowClient(tracking_uri=target.uri, registry_uri=target.uri)
        except (MlflowException, OSError) as e:
            # OSError: requests' errors are. The cause is left out: it may quote what was sent.
            said = target.cleaned(" ".join(str(e).split()))[:300]
            raise RegistryError(f"MLflow at {target.uri}: {said}", hint="read the MLflow server's log") from None


def failed_with(error: Exception, *codes: str) -> bool:
    """Whether an ``MlflowException`` has one of these error codes, like ``RESOURCE_ALREADY_EXISTS``."""
    return getattr(error, "error_code", None) in codes


@contextmanager
def _environment(target: Target) -> Iterator[None]:
    wanted = {name: os.environ.get(name, value) for name, value in _SETTINGS.items()} | _OURS
    header = target.authorization
    if header:
        wanted["MLFLOW_TRACKING_AUTH"] = AUTH_PROVIDER
        _headers[target.uri] = header
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _headers.pop(target.uri, None)
