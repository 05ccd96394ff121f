"""Airflow's connections behind a ``project.yaml``: to the git remote, and to each environment's own Airflow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_mlops.delivery.deployment import Target
from airflow_mlops.delivery.remote import Remote
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.hooks.mlops import address_of

if TYPE_CHECKING:
    from airflow_mlops.config.project import Project
    from airflow_mlops.delivery.airflow_api import Server


@contextmanager
def opened_remote(project: Project, folder: Path) -> Iterator[Remote]:
    """Yield the project's remote, with the credentials of its connection while it is open.

    :param folder: where ``project.yaml`` lies; a remote that is a path starts there.
    :raises ConfigError: there is no such connection, it names no address, or the git provider is not installed.
    """
    url = address(project, folder)
    if project.conn_id is None:
        yield Remote(url or "")
        return
    try:
        from airflow.providers.git.hooks.git import GitHook
    except ImportError as e:
        raise ConfigError(
            "`conn_id` needs Airflow's git provider, which is not installed", hint="pip install 'airflow-mlops[git]'"
        ) from e
    try:
        hook = GitHook(git_conn_id=project.conn_id, repo_url=url)
    except AirflowNotFoundException as e:
        raise ConfigError(
            f"the connection {project.conn_id!r} does not exist",
            hint="create it with type git, or correct `conn_id` in project.yaml",
        ) from e
    except ValueError as e:
        raise ConfigError(f"the connection {project.conn_id!r} cannot be used: {e}", hint="correct it") from e
    if not hook.repo_url:
        raise ConfigError(
            f"the connection {project.conn_id!r} has no host",
            hint="its host is the address of the repository; or name that as `remote` in project.yaml",
        )
    with hook.configure_hook_env():
        yield Remote(str(hook.repo_url), dict(hook.env))


def targets_of(project: Project, remote: Remote) -> dict[str, Target]:
    """Return where deployments go, by the name of the environment, in their order."""
    found: dict[str, Target] = {}
    for name, environment in project.environments.items():
        before = project.before(name)
        found[name] = Target(remote, project.name, name, environment.branch, found[before] if before else None)
    return found


def airflow_of(conn_id: str) -> Server:
    """Return where the Airflow of an environment is, and who asks there.

    :raises ConfigError: there is no such connection, or it names no server.
    """
    from airflow_mlops.delivery.airflow_api import Server

    try:
        found = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as e:
        raise ConfigError(
            f"the connection {conn_id!r} does not exist",
            hint="create it with type http, the host of that Airflow, and a login; or correct `api` in project.yaml",
        ) from e
    if not found.host:
        raise ConfigError(
            f"the connection {conn_id!r} has no host", hint="its host is that of the environment's Airflow"
        )
    return Server(
        address_of(found),
        username=found.login or None,
        password=found.password if found.login else None,
        token=None if found.login else found.password or None,
    )


def address(project: Project, folder: Path) -> str | None:
    """Return ``remote``: an address as it is, a path as it is seen from the folder; ``None``: it is not given."""
    remote = project.remote
    if remote is None:
        return None
    if "://" in remote or re.match(r"[^/]+:", remote):  # or host:path, as ssh has it
        return remote
    return os.path.normpath(folder.resolve() / os.path.expanduser(remote))
