"""Deployments: which bundle an environment runs, since when, by whom; and the way to another one and back.

An environment is a branch of the project's remote, which its Airflow tracks as a git DAG bundle. A deployment is one
commit on it: the files of a checked bundle, its manifest and signature beside them, and what was done in the message.
It is there from one moment to the next, by one push that succeeds only where the branch is still what was looked at:
nobody can see half of a deployment, and of two at once one is refused. The tree depends on the bundle alone, so that
environments that have the same bundle have the same tree. A rollback is a commit, too, with the tree of the deployment
before. History only grows.

A second branch, ``BRANCH.record``, follows a moment later. Where the two are further apart than one deployment, or
the files are not those of the bundle that the message names, somebody else has moved or edited the branch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from airflow_mlops.delivery.bundle import Bundle, laid_out, read_deployed
from airflow_mlops.delivery.message import parse_message, write_message
from airflow_mlops.delivery.remote import Copy, Named, RawCommit, Remote
from airflow_mlops.delivery.tree import Tree
from airflow_mlops.exceptions import BranchChanged, ConfigError, DeliveryError, DeploymentConflict, UntrustedArtifact
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
class Request:
    """Who wants it, and why.

    :param operation: names what is done, however often it is tried: :func:`~airflow_mlops.registry.op_id`.
    :param break_glass: deploy what the environment before has not had.
    """

    by: str
    operation: str
    reason: str = ""
    break_glass: bool = False


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


@dataclass(frozen=True)
class Delivered:
    """What is deployed after the call; ``done`` is whether the call changed anything.

    :param before: what was deployed before ``deployment``.
    """

    deployment: Deployment
    done: bool
    before: Deployment | None


def history(target: Target) -> History:
    """Read what was deployed to an environment; the files of the current deployment are checked against its manifest.

    :raises BranchChanged: somebody has edited, moved or deleted the branch.
    :raises RemoteUnavailable: the remote cannot be reached.
    """
    with target.remote.copy(target.ref, target.record) as copy:
        return _history(target, copy)


def deployed_bundle(target: Target, verifier: Verifier) -> Bundle | None:
    """Return the bundle that is deployed, checked; ``None``: none is.

    :raises UntrustedArtifact: it is not signed as it must be.
    :raises BranchChanged: as :func:`history` does.
    """
    with target.remote.copy(target.ref, target.record) as copy:
        current = _history(target, copy).current
        return _bundle(copy, current, verifier) if current else None


def deploy(target: Target, bundle: Bundle, request: Request, *, source: Named | None = None) -> Delivered:
    """Deploy a checked bundle; where it is deployed already, there is nothing to do.

    :param bundle: of :func:`~airflow_mlops.delivery.bundle.read_bundle`, with the verifier of this environment.
    :param source: the branch or tag that the bundle's commit was named by; default: what the environment before knows.
    :raises DeliveryError: the bundle is of another project, has uncommitted changes, or was not in the environment
        before; or the remote refuses.
    :raises ConfigError: ``.gitattributes`` would have Airflow's git change a file.
    :raises BranchChanged: the source was moved since, or the environment's branch is not as it was left.
    :raises DeploymentConflict: somebody else deployed meanwhile.
    :raises RemoteUnavailable: the remote cannot be reached; the same call again deploys once.
    """
    files = laid_out(bundle)
    _check_bundle(target, bundle)
    refs = (target.ref, target.record, *((target.after.ref, target.after.record) if target.after else ()))
    with target.remote.copy(*refs) as copy:
        known = _history(target, copy)
        earlier = known.of_operation(request.operation)
        if earlier is None and known.current is not None and known.current.digest == bundle.digest:
            earlier = known.current
        if earlier is not None:
            return _again(target, copy, known, earlier)
        if target.after is not None:
            had = _check_before(target.after, _history(target.after, copy), bundle, request)
            source = source or (had.named_source if had else None)
        commit = str(bundle.manifest["commit"])
        if source is not None and source.commit != commit:
            raise DeliveryError(
                f"the bundle was built from {commit[:12]}, and {source.ref} names {source.commit[:12]}",
                hint="build a bundle of that commit, or name the branch or tag that it was built from",
            )
        if source is not None:
            target.remote.check_unmoved(source)
        fields = {
            "action": "deploy",
            "project": target.project,
            "environment": target.environment,
            "digest": bundle.digest,
            "content": bundle.content,
            "source": commit,
            "ref": source.ref if source else None,
            "signed_by": bundle.signed_by,
        }
        return _write(target, copy, known, request, fields, files)


def roll_back(target: Target, request: Request, *, verifier: Verifier, expected: str | None = None) -> Delivered:
    """Return to the deployment before; repeated, it goes back step by step.

    :param expected: the commit, or the bundle's digest, that is to be left. Where it has been rolled back already,
        there is nothing to do, so that a call with it can be repeated. ``None``: whatever is deployed.
    :raises DeliveryError: there is no deployment before, or nothing is deployed.
    :raises DeploymentConflict: something else than ``expected`` is deployed.
    :raises UntrustedArtifact: the bundle before is not signed as it must be now.
    """
    with target.remote.copy(target.ref, target.record) as copy:
        known = _history(target, copy)
        current = known.current
        if current is None:
            raise DeliveryError(f"nothing is deployed to {target.environment}", hint="deploy a bundle first")
        if (earlier := known.of_operation(request.operation)) is not None:
            return _again(target, copy, known, earlier)
        if expected is not None and not _is(current, expected):
            left = known.deployments[-2] if len(known.deployments) > 1 else None
            if current.action == "rollback" and left is not None and _is(left, expected):
                return _again(target, copy, known, current)
            raise DeploymentConflict(
                f"{target.environment} is not at {expected[:12]}: {current}",
                hint="`airflow mlops status` shows what is deployed; name that, if it is to be left",
            )
        standing = known.standing
        if len(standing) < 2:
            raise DeliveryError(
                f"there is no deployment to {target.environment} before {current}", hint="deploy another bundle instead"
            )
        back = standing[-2]
        _bundle(copy, back, verifier)
        fields = {
            "action": "rollback",
            "project": target.project,
            "environment": target.environment,
            "digest": back.digest,
            "content": back.content,
            "source": back.source,
            "ref": back.ref,
            "signed_by": back.signed_by,
            "restores": back.commit,
        }
        return _write(target, copy, known, request, fields, back.tree)


# --- reading -------------------------------------------------------------------------------------


def _history(target: Target, copy: Copy, *, look_again: bool = True) -> History:
    tip, record = copy.tip(target.ref), copy.tip(target.record)
    if tip is None:
        if record is not None:
            raise _changed(target, "is gone", record)
        return History(())
    commits = copy.commits(target.ref)
    found: list[Deployment] = []
    for raw in commits:
        deployment = _deployment(target, raw, found)
        if deployment is None:
            last = found[-1].commit if found and record in (None, *(d.commit for d in found)) else record
            more = f": {raw.message.splitlines()[0][:80]!r} by {raw.by}" if raw.message else ""
            raise _changed(target, f"has the commit {raw.commit[:12]}, which is no deployment{more}", last)
        found.append(deployment)
    # Between the two pushes of a deployment the record is one behind. Before the first one it is not there.
    if record not in (found[-1].commit, found[-1].parent):
        if look_again:  # the two are not read at the same moment, and somebody may be deploying
            copy.fetch(target.ref, target.record)
            return _history(target, copy, look_again=False)
        raise _changed(target, f"was moved to {tip[:12]} (force-pushed, or its record deleted)", record or tip)
    try:
        _bundle(copy, found[-1], Verifier())
    except UntrustedArtifact as e:
        whole = found[-2].commit if len(found) > 1 else None
        raise _changed(target, f"was edited by hand at {tip[:12]}: {e.message}", whole) from e
    return History(tuple(found))


def _deployment(target: Target, raw: RawCommit, before: list[Deployment]) -> Deployment | None:
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


def _bundle(copy: Copy, deployment: Deployment, verifier: Verifier) -> Bundle:
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


def _is(deployment: Deployment, name: str) -> bool:
    """Whether a commit or a digest, or at least 6 digits of one, names the deployment."""
    return len(name) >= 6 and (deployment.commit.startswith(name) or deployment.digest.startswith(name))


# --- writing -------------------------------------------------------------------------------------


def _check_bundle(target: Target, bundle: Bundle) -> None:
    if bundle.manifest["project"] != target.project:
        raise DeliveryError(
            f"the bundle is of the project {bundle.manifest['project']!r}, and this is {target.project!r}",
            hint="a bundle is called as the folder it was built in; `project` in project.yaml names this one",
        )
    if bundle.manifest["uncommitted"] or not bundle.manifest["commit"]:
        raise DeliveryError(
            "the bundle has changes that are in no commit: nobody could say what runs", hint="commit, and build again"
        )


def _check_before(before: Target, known: History, bundle: Bundle, request: Request) -> Deployment | None:
    """The deployment of a bundle in the environment before; ``None``: it has none, and that is let pass."""
    had = [d for d in known.deployments if d.action == "deploy" and d.digest == bundle.digest]
    standing = next((d for d in known.standing if d.digest == bundle.digest), None)
    if standing is not None:
        return standing
    if request.break_glass:
        if not request.reason:
            raise DeliveryError("breaking the glass needs a reason", hint='give one: --reason "…"')
        return had[-1] if had else None
    what = f"had it and rolled it back: {had[-1]}" if had else "has not had it"
    raise DeliveryError(
        f"the bundle {bundle.digest[:12]} must be in {before.environment} first, which {what}",
        hint=f"deploy it to {before.environment}; in an emergency: --break-glass --reason",
    )


def _again(target: Target, copy: Copy, known: History, earlier: Deployment) -> Delivered:
    """The answer where it was done already, by a call that may have been cut off."""
    if known.current is None or earlier.commit != known.current.commit:
        raise DeploymentConflict(
            f"this was done already ({earlier}), and since then {target.environment} has become {known.current}",
            hint="`airflow mlops status` shows what is deployed; if it is to be replaced, do that anew",
        )
    _follow(target, copy, earlier)
    return Delivered(earlier, False, _before(known))


def _before(known: History) -> Deployment | None:
    return known.deployments[-2] if len(known.deployments) > 1 else None


def _write(
    target: Target,
    copy: Copy,
    known: History,
    request: Request,
    fields: dict[str, Any],
    content: Tree | str,
) -> Delivered:
    current = known.current
    if current is not None:
        _follow(target, copy, current)
    asked = {"by": request.by, "reason": request.reason, "operation": request.operation}
    message = write_message(fields | asked | {"break_glass": request.break_glass})
    then = int(datetime.fromisoformat(current.at).timestamp()) if current else 0
    parent = current.commit if current else None
    commit = copy.commit(content, parent=parent, message=message, at=max(int(time.time()), then))
    files = content if isinstance(content, Mapping) else {}
    if changed := copy.converted(commit, files):
        raise ConfigError(
            f"{changed} would be another file where Airflow checks it out: .gitattributes has it converted",
            hint="take its attribute (eol, ident, working-tree-encoding, filter) away, or commit what git makes of it; then "
            "build again",
        )
    problem = copy.push(commit, target.ref, expected=parent)
    if problem is not None:
        # The answer may be lost, and the push done; or somebody else was faster.
        return _after_refusal(target, request, commit, parent, problem)
    made = next(raw for raw in copy.commits(commit) if raw.commit == commit)
    deployment = _deployment(target, made, list(known.deployments))
    if deployment is None:
        raise DeliveryError("a deployment was written that cannot be read", hint="report this")
    _follow(target, copy, deployment)
    return Delivered(deployment, True, current)


def _after_refusal(target: Target, request: Request, commit: str, parent: str | None, problem: str) -> Delivered:
    with target.remote.copy(target.ref, target.record) as copy:
        known = _history(target, copy)
        ours = known.of_operation(request.operation)
        if ours is not None:
            again = _again(target, copy, known, ours)
            return Delivered(ours, ours.commit == commit, again.before)
        now = known.current.commit if known.current else None
        if now != parent:
            raise DeploymentConflict(
                f"{target.environment} was deployed to meanwhile: {known.current}",
                hint="look at what is there now; then deploy again, if yours shall replace it",
            )
    raise DeliveryError(
        f"the remote {target.remote.url} does not take a commit on {target.branch}: {problem}",
        hint="delete the lock file, if no git is at work there"
        if ".lock'" in problem
        else "check that who delivers may push to the branch, and that no hook or rule of the remote refuses it",
    )


def _follow(target: Target, copy: Copy, deployment: Deployment) -> None:
    """Let the record follow; where that fails, the next deployment does it."""
    record = copy.tip(target.record)
    if record != deployment.commit:
        copy.push(deployment.commit, target.record, expected=record)
