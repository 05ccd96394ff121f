"""What was deployed to an environment, as its branch tells; and whether the branch is as deployments left it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from airflow_mlops.delivery.bundle import Bundle, read_deployed
from airflow_mlops.delivery.message import parse_message
from airflow_mlops.delivery.remote import Copy, Named, RawCommit, Remote
from airflow_mlops.exceptions import BranchChanged, UntrustedArtifact
from airflow_mlops.registry.signing import Verifier

Action = Literal["deploy", "rollback"]


@dataclass(frozen=True)
class Target:
    """An environment of a project.

    :param branch: what its Airflow tracks.
    :param after: the environment that must have a bundle first; ``None``: it is the first.
    """

    remote: Remote
    project: str
    environment: str
    branch: str
    after: Target | None = None

    @property
    def ref(self) -> str:
        """The branch, in full."""
        return f"refs/heads/{self.branch}"

    @property
    def record(self) -> str:
        """The branch that follows, in full."""
        return f"{self.ref}.record"


@dataclass(frozen=True)
class Deployment:
    """One commit of an environment's branch.

    :param commit: its name, which is the version that Airflow shows for the bundle.
    :param action: ``deploy``; or ``rollback``, where ``restores`` is the commit whose tree it has.
    :param digest: of the bundle; ``content`` is that of its files alone.
    :param source: the commit that the bundle was built from; ``ref``: the branch or tag that named it.
    :param at: ISO 8601, UTC.
    """

    commit: str
    parent: str | None
    action: Action
    project: str
    environment: str
    digest: str
    content: str
    source: str
    by: str
    reason: str
    operation: str
    at: str
    ref: str | None = None
    signed_by: str | None = None
    restores: str | None = None
    break_glass: bool = False
    tree: str = field(default="", repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)

    @property
    def named_source(self) -> Named:
        """What it was built from, with the branch or tag, for looking whether that has moved."""
        return Named(self.source, self.ref)

    def __str__(self) -> str:
        done = "deployed" if self.action == "deploy" else "rolled back to"
        return f"bundle {self.digest[:12]}, {done} by {self.by} at {self.at} (commit {self.commit[:12]})"


@dataclass(frozen=True)
class History:
    """Every deployment to an environment, oldest first."""

    deployments: tuple[Deployment, ...]

    @property
    def current(self) -> Deployment | None:
        """What is deployed."""
        return self.deployments[-1] if self.deployments else None

    @property
    def standing(self) -> tuple[Deployment, ...]:
        """The deployments that were not rolled back, oldest first: a rollback takes the last of them away."""
        stack: list[Deployment] = []
        for deployment in self.deployments:
            if deployment.action == "deploy":
                stack.append(deployment)
            else:
                stack.pop()
        return tuple(stack)

    def of_operation(self, operation: str) -> Deployment | None:
        """What an operation has done."""
        return next((d for d in reversed(self.deployments) if d.operation == operation), None)


def history(target: Target) -> History:
    """Read what was deployed to an environment; the files of the current deployment are checked against its manifest.

    :raises BranchChanged: somebody has edited, moved or deleted the branch.
    :raises RemoteUnavailable: the remote cannot be reached.
    """
    with target.remote.copy(target.ref, target.record) as copy:
        return read_history(target, copy)


def deployed_bundle(target: Target, verifier: Verifier) -> Bundle | None:
    """Return the bundle that is deployed, checked; ``None``: none is.

    :raises UntrustedArtifact: it is not signed as it must be.
    :raises BranchChanged: as :func:`history` does.
    """
    with target.remote.copy(target.ref, target.record) as copy:
        current = read_history(target, copy).current
        return bundle_of(copy, current, verifier) if current else None


# --- in a copy of the remote ----------------------------------------------------------------------


def read_history(target: Target, copy: Copy, *, look_again: bool = True) -> History:
    """As :func:`history`, in a copy that is there; ``look_again``: fetch once more where the two branches differ."""
    tip, record = copy.tip(target.ref), copy.tip(target.record)
    if tip is None:
        if record is not None:
            raise _changed(target, "is gone", record)
        return History(())
    commits = copy.commits(target.ref)
    found: list[Deployment] = []
    for raw in commits:
        deployment = deployment_of(target, raw, found)
        if deployment is None:
            last = found[-1].commit if found and record in (None, *(d.commit for d in found)) else record
            more = f": {raw.message.splitlines()[0][:80]!r} by {raw.by}" if raw.message else ""
            raise _changed(target, f"has the commit {raw.commit[:12]}, which is no deployment{more}", last)
        found.append(deployment)
    # Between the two pushes of a deployment the record is one behind. Before the first one it is not there.
    if record not in (found[-1].commit, found[-1].parent):
        if look_again:  # the two are not read at the same moment, and somebody may be deploying
            copy.fetch(target.ref, target.record)
            return read_history(target, copy, look_again=False)
        raise _changed(target, f"was moved to {tip[:12]} (force-pushed, or its record deleted)", record or tip)
    try:
        bundle_of(copy, found[-1], Verifier())
    except UntrustedArtifact as e:
        whole = found[-2].commit if len(found) > 1 else None
        raise _changed(target, f"was edited by hand at {tip[:12]}: {e.message}", whole) from e
    return History(tuple(found))


def deployment_of(target: Target, raw: RawCommit, before: list[Deployment]) -> Deployment | None:
    """The deployment that a commit is, following ``before``; ``None``: it is something else."""
    fields = parse_message(raw.message)
    parent = before[-1].commit if before else None
    if fields is None or raw.parents != ((parent,) if parent else ()):
        return None
    if (fields["project"], fields["environment"]) != (target.project, target.environment):
        return None
    at = datetime.fromtimestamp(raw.at, UTC).isoformat()
    found = Deployment(commit=raw.commit, parent=parent, at=at, tree=raw.tree, **fields)
    if found.action == "rollback":
        standing = History(tuple(before)).standing
        if len(standing) < 2 or (standing[-2].commit, standing[-2].tree) != (found.restores, found.tree):
            return None
    return found


def bundle_of(copy: Copy, deployment: Deployment, verifier: Verifier) -> Bundle:
    """Return the bundle of a deployment, put together again from its files and checked.

    :raises UntrustedArtifact: it is not the one the message names, or not signed as it must be.
    """
    try:
        files = copy.files(deployment.commit)
    except ValueError as e:
        raise UntrustedArtifact(f"{deployment.commit[:12]}: {e}", hint="deploy the bundle again") from e
    return read_deployed(files, verifier=verifier, digest=deployment.digest)


def _changed(target: Target, what: str, last: str | None) -> BranchChanged:
    if last:
        url, ref = target.remote.url, target.ref
        hint = (
            f"find out who did it. The last deployment is {last[:12]}; this puts the branch back, and its Airflow with "
            f"it: git push --force {url} {last}:{ref} {last}:{target.record} (from a clone that has the commit)"
        )
    else:
        hint = f"rename the branch, if it is somebody's; deployments need {target.branch} for themselves"
    return BranchChanged(f"the branch {target.branch} of {target.environment} {what}", hint=hint)
