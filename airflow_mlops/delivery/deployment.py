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
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from airflow_mlops.delivery.bundle import Bundle, laid_out
from airflow_mlops.delivery.history import (
    Action,
    Deployment,
    History,
    Target,
    bundle_of,
    deployed_bundle,
    deployment_of,
    history,
    read_history,
)
from airflow_mlops.delivery.message import write_message
from airflow_mlops.delivery.remote import Copy, Named
from airflow_mlops.delivery.tree import Tree
from airflow_mlops.exceptions import ConfigError, DeliveryError, DeploymentConflict
from airflow_mlops.registry.signing import Verifier

__all__ = [
    "Action",
    "Delivered",
    "Deployment",
    "History",
    "Request",
    "Target",
    "deploy",
    "deployed_bundle",
    "history",
    "roll_back",
]


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
class Delivered:
    """What is deployed after the call; ``done`` is whether the call changed anything.

    :param before: what was deployed before ``deployment``.
    """

    deployment: Deployment
    done: bool
    before: Deployment | None


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
        known = read_history(target, copy)
        earlier = known.of_operation(request.operation)
        if earlier is None and known.current is not None and known.current.digest == bundle.digest:
            earlier = known.current
        if earlier is not None:
            return _again(target, copy, known, earlier)
        if target.after is not None:
            had = _check_before(target.after, read_history(target.after, copy), bundle, request)
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
        known = read_history(target, copy)
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
        bundle_of(copy, back, verifier)
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
        _must_follow(target, copy, current)
    asked = {"by": request.by, "reason": request.reason, "operation": request.operation}
    message = write_message(fields | asked | {"break_glass": request.break_glass})
    then = int(datetime.fromisoformat(current.at).timestamp()) if current else 0
    parent = current.commit if current else None
    commit = copy.commit(content, parent=parent, message=message, at=max(int(time.time()), then))
    files = content if isinstance(content, Mapping) else {}
    if changed := copy.converted(commit, files):
        raise ConfigError(
            f"{changed} would be another file where Airflow checks it out: .gitattributes has it converted",
            hint="take its attribute (eol, ident, working-tree-encoding, filter) away, or commit what git makes of it; "
            "then build again",
        )
    problem = copy.push(commit, target.ref, expected=parent)
    if problem is not None:
        # The answer may be lost, and the push done; or somebody else was faster.
        return _after_refusal(target, request, commit, parent, problem)
    made = next(raw for raw in copy.commits(commit) if raw.commit == commit)
    deployment = deployment_of(target, made, list(known.deployments))
    if deployment is None:
        raise DeliveryError("a deployment was written that cannot be read", hint="report this")
    _follow(target, copy, deployment)
    return Delivered(deployment, True, current)


def _after_refusal(target: Target, request: Request, commit: str, parent: str | None, problem: str) -> Delivered:
    with target.remote.copy(target.ref, target.record) as copy:
        known = read_history(target, copy)
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


def _follow(target: Target, copy: Copy, deployment: Deployment) -> str | None:
    """Let the record follow; where that fails, the next deployment does it. Returns what git said then."""
    record = copy.tip(target.record)
    return None if record == deployment.commit else copy.push(deployment.commit, target.record, expected=record)


def _must_follow(target: Target, copy: Copy, current: Deployment) -> None:
    """Let the record follow before another deployment: it must never be further behind than one.

    :raises DeliveryError: the remote does not take it.
    """
    problem = _follow(target, copy, current)
    # Where it has moved all the same, the answer was lost or somebody else was faster: the next push tells.
    if problem is None or target.remote.tips(target.record).get(target.record) != copy.tip(target.record):
        return
    record = target.record.removeprefix("refs/heads/")
    raise DeliveryError(
        f"the remote {target.remote.url} does not take a commit on {record}, which follows {target.branch}: {problem}",
        hint=f"nothing was changed. Let who delivers push to {record} as to {target.branch}, by the rules of the "
        "branches and by the rights of the token; then do it again",
    )
