"""``project.yaml``: where a project is delivered from, and to. Without it there is no delivery.

It lies at the top of a project, and is read like a pipeline file: strictly, with the place of every mistake. It has
neither layers nor variables: what it says is the same wherever it is read.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictStr, ValidationError, model_validator

from airflow_mlops.config.explain import explain_as
from airflow_mlops.config.folder import PROJECT_FILE
from airflow_mlops.config.issues import InvalidPipeline, Issue
from airflow_mlops.config.models import Approve, Model
from airflow_mlops.config.text import read_text
from airflow_mlops.config.types import PositiveDuration, refuse, whole
from airflow_mlops.config.yaml_source import Source, parse

RECORD = ".record"
"""What the name of the branch ends with that follows an environment's own."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,99}$"
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*(/[A-Za-z0-9_][A-Za-z0-9._\-]*)*")
RESERVED = ("ci", "report")
"""What the delivery itself calls its groups of tasks."""
_ENVIRONMENT = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,99}")


class Smoke(Model):
    """Runs that must be green before an environment counts as well."""

    dags: Annotated[list[StrictStr], Field(min_length=1)] | None = Field(
        None, description="Ids of the DAGs that are run; default: `__train` of every pipeline."
    )
    conf: dict[StrictStr, Any] = Field(
        default_factory=dict,
        description="What is put into their trigger form, where that has the field; unless said here, `promote` is "
        "off, and the window of a DAG with a schedule is the day before the deployment, UTC.",
    )
    timeout: PositiveDuration = Field("1h", description="How long to wait for all of them.")


class Environment(Model):
    """A branch of the remote, and the Airflow that tracks it."""

    branch: StrictStr = Field(description="What that Airflow tracks; deployments alone write it. Created by the first.")
    api: Annotated[StrictStr, Field(min_length=1, max_length=250)] = Field(
        description="Airflow connection with the address of that Airflow (host, port, schema) and who asks: login and "
        "password, or a token as password alone."
    )
    bundle: Annotated[StrictStr, Field(min_length=1, max_length=250)] | None = Field(
        None, description="What its DAG bundle is called there; default: as the project."
    )
    verify_timeout: PositiveDuration = Field(
        "15m", description="How long a deployment may take to be seen there; it must exceed the bundle's refresh."
    )
    smoke: Smoke | None = Field(
        None, description="Runs after a deployment; default: none. A DAG that is paused is switched on meanwhile."
    )
    approve: Approve = Field(default_factory=Approve, description="A person's yes, before a deployment goes here.")


class Watch(Model):
    """What starts a delivery by itself."""

    every: PositiveDuration = Field("1m", description="How often the remote is asked.")
    tags: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9._*\-/]{1,100}$")] | None = Field(
        None,
        description="A pattern such as `v*`: the highest release among these tags is delivered when it is new, and not "
        "every commit of the branch.",
    )


class Project(Model):
    """One repository, or a folder of one, with pipelines, their code and tests."""

    schema_: Annotated[Literal[1], BeforeValidator(whole)] = Field(
        1, alias="schema", description="Version of this vocabulary."
    )
    project: Annotated[StrictStr, Field(pattern=_NAME)] | None = Field(
        None, description="Name; bundles carry it. Default: that of the folder."
    )
    remote: Annotated[StrictStr, Field(min_length=1, max_length=2000)] | None = Field(
        None,
        description="Address of the git repository, without a login; a path starts at this file. Default: the host "
        "of `conn_id`.",
    )
    conn_id: Annotated[StrictStr, Field(min_length=1, max_length=250)] | None = Field(
        None, description="Airflow connection of type git with the credentials; default: what git itself knows."
    )
    branch: StrictStr = Field(
        "main", description="The branch whose newest commit is delivered, where no other is named."
    )
    watch: Watch | None = Field(
        None, description="Deliver what is new by itself; default: when a person, or CI by Airflow's REST API, asks."
    )
    path: StrictStr | None = Field(None, description="Where the project lies below the top of the repository.")
    environments: Annotated[dict[StrictStr, Environment], Field(min_length=1)] = Field(
        description="Name → where a bundle goes, in the order in which it gets there; the name is also that of the "
        "overlay its pipelines have there."
    )

    @model_validator(mode="after")
    def _fits(self) -> Project:
        branches = [environment.branch for environment in self.environments.values()]
        every = [self.branch, *branches]
        names = [*every, *(f"{name}{RECORD}" for name in branches)]
        wrong = [name for name in every if not _is_branch(name)]
        twice = sorted({name for name in names if names.count(name) > 1})
        inside = [(a, b) for a in names for b in names if b.startswith(f"{a}/")]
        unnamed = [name for name in self.environments if not _ENVIRONMENT.fullmatch(name) or name in RESERVED]
        refuse(
            {
                "give `remote`, `conn_id` or both": self.remote is None and self.conn_id is None,
                f"`remote`: {_remote_problem(self.remote)}": _remote_problem(self.remote) is not None,
                "`path` must lead down from the top of the repository, without ..": self.path is not None
                and not _is_below(self.path),
                f"`environments`: {', '.join(map(repr, unnamed))} cannot be the name of an environment: letters, "
                f"digits, _ and -, a letter first; not {' and '.join(RESERVED)}": bool(unnamed),
                f"`environments`: {', '.join(map(repr, wrong))} cannot be the name of a branch": bool(wrong),
                f"`environments`: the branch {', '.join(map(repr, twice))} has more than one use; each environment "
                f"needs one of its own, and the same with {RECORD} after it": bool(twice),
                f"`environments`: git has no branch {inside[0][1] if inside else ''!r} beside a branch "
                f"{inside[0][0] if inside else ''!r}": bool(inside),
            }
        )
        return self

    @property
    def name(self) -> str:
        """The project's name; known once the file was read from its folder."""
        return self.project or ""

    def bundle_of(self, environment: str) -> str:
        """What the DAG bundle is called in the Airflow of an environment."""
        return self.environments[environment].bundle or self.name

    def before(self, environment: str) -> str | None:
        """The environment that comes before."""
        names = list(self.environments)
        at = names.index(environment)
        return names[at - 1] if at else None


def read_project(folder: Path) -> Project:
    """Read ``project.yaml`` of a project's folder.

    :raises InvalidPipeline: a :class:`ConfigError` with every problem of the file and its place.
    """
    path = folder / PROJECT_FILE
    found, issues = check_text(read_text(path), str(path))
    if found is None:
        raise InvalidPipeline(issues)
    return found if found.project else found.model_copy(update={"project": folder.resolve().name})


def check_text(text: str, filename: str) -> tuple[Project | None, list[Issue]]:
    """Check the text of a project file; returns the project, ``None`` if it has errors, and all issues."""
    source = parse(text, filename)
    if not isinstance(source.data, dict) or source.failed:
        whole_file = ("empty", "not_a_mapping")
        advice = "start with `environments:`"
        issues = [replace(i, suggestion=advice) if i.code in whole_file else i for i in source.issues]
        if isinstance(source.data, dict):
            _validated(source)
            issues = source.issues
        return None, issues
    found = _validated(source)
    return (None if source.failed else found), source.issues


def check_file(path: Path) -> list[Issue]:
    """All problems of a project file."""
    try:
        return check_text(read_text(path), str(path))[1]
    except InvalidPipeline as e:
        return e.issues


def name_in(text: str) -> str | None:
    """The name that the text of a project file gives the project; ``None``: none that can be used."""
    found, _ = check_text(text, PROJECT_FILE)
    return found.project if found else None


def _validated(source: Source) -> Project | None:
    try:
        return Project.model_validate(source.data, by_alias=True, by_name=False)
    except ValidationError as e:
        explain_as(Project, source, e)
        return None


def _is_branch(name: str) -> bool:
    # What git check-ref-format asks for, and no more characters than are needed.
    parts = name.split("/")
    return bool(_BRANCH.fullmatch(name)) and ".." not in name and not any(p.endswith((".", ".lock")) for p in parts)


def _is_below(path: str) -> bool:
    parts = path.split("/")
    return path.isprintable() and all(parts) and not any(p in (".", "..", ".git") or "\\" in p for p in parts)


def _remote_problem(remote: str | None) -> str | None:
    if remote is None:
        return None
    if not remote.isprintable() or remote != remote.strip() or remote.startswith("-") or "::" in remote:
        return "this is no address of a git repository"
    scheme, there, rest = remote.partition("://")
    login = rest.partition("/")[0].rpartition("@")[0] if there else ""
    if there and scheme not in ("https", "http", "ssh", "git", "file"):
        return f"git has no {scheme}://"
    if ":" in login or (login and scheme in ("https", "http")):
        return "it holds a login: put that into an Airflow connection of type git, and name it as `conn_id`"
    return None
