"""``airflow mlops deploy``, ``rollback`` and ``status`` of a project: bundles in environments."""

from __future__ import annotations

import json
import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.registry_changes import os_user
from airflow_mlops.config.harmless import harmless
from airflow_mlops.exceptions import BranchChanged, ConfigError, DeliveryError, MLOpsError
from airflow_mlops.registry.entry import op_id
from airflow_mlops.window import parse_duration

if TYPE_CHECKING:
    from airflow_mlops.config.project import Environment, Project
    from airflow_mlops.delivery.airflow_api import Server
    from airflow_mlops.delivery.bundle import Bundle
    from airflow_mlops.delivery.deployment import Deployment, History, Target
    from airflow_mlops.registry.signing import Verifier

ROLLED_BACK, STAYS = 3, 4
"""Exit codes: what was deployed is gone again; or it is there, and nobody can say that it works."""
_SHOWN = 10
_PATIENCE = 5.0


@dataclass(frozen=True)
class _Opened:
    """A project whose remote is open."""

    project: Project
    targets: dict[str, Target]
    verifier: Verifier

    def environment(self, name: str) -> tuple[Environment, Target]:
        """An environment by its name."""
        if name not in self.targets:
            known = ", ".join(self.targets)
            raise ConfigError(f"there is no environment {name!r} in project.yaml", hint=f"it has {known}")
        return self.project.environments[name], self.targets[name]


@contextmanager
def _opened(folder: str) -> Iterator[_Opened]:
    from airflow_mlops.config.project import read_project
    from airflow_mlops.hooks.delivery import opened_remote, targets_of
    from airflow_mlops.hooks.mlops import MLOpsHook

    logging.getLogger().setLevel(logging.WARNING)
    project = read_project(Path(folder))
    with opened_remote(project, Path(folder)) as remote:
        yield _Opened(project, targets_of(project, remote), MLOpsHook().verifier())


def _say(text: str) -> None:
    print(harmless(text), file=sys.stderr, flush=True)


# --- deploy --------------------------------------------------------------------------------------


@clear_errors
def deploy(args: Namespace) -> None:
    """Bring a bundle into an environment; ends with 3 where it was taken back, with 4 where that was not possible."""
    from airflow_mlops.delivery.deliver import deliver
    from airflow_mlops.delivery.deployment import Request, history

    if bool(args.bundle) == bool(args.source):
        raise ConfigError("name a bundle, or with --from the environment whose bundle is to be deployed", hint="one of")
    with redirect_stdout(sys.stderr), _opened(args.project) as opened:
        environment, target = opened.environment(args.env)
        bundle = _bundle(opened, args)
        if environment.approve.required and not args.break_glass:
            raise DeliveryError(
                f"{args.env} asks a person first (`approve.required`), and this command asks nobody",
                hint="let the project's delivery DAG deploy it; in an emergency: --break-glass --reason",
            )
        if args.break_glass and not args.reason:
            raise ConfigError("breaking the glass needs a reason", hint='give one: --reason "…"')
        named = target.remote.find(args.ref) if args.ref else None
        look = _prepared(environment, opened, args.env, bundle) if args.verify else None
        current = history(target).current
        again = current is not None and current.digest == bundle.digest
        base = current and (current.parent if again else current.commit)
        operation = op_id("deploy", opened.project.name, args.env, bundle.digest, base)
        request = Request(os_user(), operation, args.reason or "", args.break_glass)

        def check(deployment: Deployment) -> None:
            _say(f"{args.env}: {deployment}")
            if look is not None:
                _check(look, deployment, operation)

        outcome = deliver(
            target, bundle, request,
            check=check, verifier=opened.verifier, unproven=_longest(environment), source=named,
        )  # fmt: skip
        deployment, back = outcome.delivered.deployment, outcome.rolled_back
        if back is not None and args.verify:
            _say(f"{args.env}: rolled back to bundle {back.deployment.digest[:12]}")
    problem = outcome.problem
    if args.output == "json":
        said = {
            "environment": args.env,
            "changed": outcome.delivered.done,
            "deployment": deployment.to_dict(),
            "verified": args.verify and problem is None,
            "problem": problem.message if problem else None,
            "rolled_back": back.deployment.to_dict() if back else None,
        }
        print(json.dumps(said, indent=2))
    elif problem is None:
        done = "deployed to" if outcome.delivered.done else "was deployed already to"
        seen = "; its Airflow runs it" if args.verify else "; not verified"
        print(harmless(f"bundle {deployment.digest[:12]} {done} {args.env}, commit {deployment.commit}{seen}"))
    if problem is not None:
        _tell_problem(args.env, problem, back.deployment if back else None, outcome.stays)


def _tell_problem(name: str, problem: MLOpsError, back: Deployment | None, stays: str | None) -> None:
    _say(f"airflow mlops: {problem.message}")
    if problem.hint:
        _say(f"  What to do: {problem.hint}")
    if back is not None:
        _say(f"{name} was rolled back by itself, and is at {back}")
        raise SystemExit(ROLLED_BACK)
    _say(f"{name} was not rolled back: {stays}")
    raise SystemExit(STAYS)


def _bundle(opened: _Opened, args: Namespace) -> Bundle:
    from airflow_mlops.delivery.bundle import read_bundle
    from airflow_mlops.delivery.deployment import deployed_bundle

    if args.bundle:
        return read_bundle(Path(args.bundle), verifier=opened.verifier)
    _, source = opened.environment(args.source)
    found = deployed_bundle(source, opened.verifier)
    if found is None:
        raise DeliveryError(f"nothing is deployed to {args.source}", hint="deploy a bundle there first")
    return found


@dataclass(frozen=True)
class _Look:
    """What is asked after a deployment, of whom."""

    name: str
    environment: Environment
    server: Server
    bundle: str
    dags: tuple[str, ...]


def _prepared(environment: Environment, opened: _Opened, name: str, bundle: Bundle) -> _Look:
    """What can be wrong about it before anything is deployed is found now.

    :raises ConfigError: there is no such connection, or nobody can say which DAGs the bundle has there.
    """
    from airflow_mlops.delivery.verification import expected_dags
    from airflow_mlops.hooks.delivery import airflow_of
    from airflow_mlops.hooks.options import settings

    server, dags = airflow_of(environment.api), expected_dags(bundle, name, settings())
    return _Look(name, environment, server, opened.project.bundle_of(name), dags)


def _longest(environment: Environment) -> float:
    """Seconds that :func:`_check` may take, with its smoke runs."""
    limits = [environment.verify_timeout, *([environment.smoke.timeout] if environment.smoke else [])]
    return sum(parse_duration(limit).total_seconds() for limit in limits)


def _check(look: _Look, deployment: Deployment, operation: str | None) -> None:
    """Look whether an Airflow runs a deployment, and with ``operation`` whether its smoke runs are green."""
    from airflow_mlops.delivery.airflow_api import AirflowApi
    from airflow_mlops.delivery.verification import Expected, smoke, verify

    expected = Expected(look.bundle, deployment.commit, look.dags, datetime.fromisoformat(deployment.at))
    with AirflowApi(look.server) as api:
        limit = parse_duration(look.environment.verify_timeout).total_seconds()
        seconds = verify(api, expected, timeout=limit, say=_say)
        _say(f"{look.name}: {len(expected.dags)} DAGs at {deployment.commit[:12]} after {seconds:.1f} s")
        if look.environment.smoke is not None and operation is not None:
            wanted = look.environment.smoke
            runs = smoke(
                api,
                expected,
                wanted.dags or (),
                conf=wanted.conf,
                operation=operation,
                timeout=parse_duration(wanted.timeout).total_seconds(),
                say=_say,
            )
            for run in runs:
                _say(f"{look.name}: {run.dag_id} is green after {run.seconds:.1f} s: {run.url}")


# --- rollback ------------------------------------------------------------------------------------


@clear_errors
def rollback(args: Namespace) -> None:
    """Return to the deployment before; ends with 4 where the environment's Airflow does not run it."""
    from airflow_mlops.delivery.deployment import Request, deployed_bundle, history, roll_back

    problem: MLOpsError | None = None
    with redirect_stdout(sys.stderr), _opened(args.project) as opened:
        environment, target = opened.environment(args.env)
        current = history(target).current
        operation = op_id("rollback", opened.project.name, args.env, current.commit if current else None)
        # What was looked at is what is left: a deployment that comes in between is not taken for it.
        leave = args.expected or (current.commit if current else None)
        done = roll_back(target, Request(os_user(), operation, args.reason), verifier=opened.verifier, expected=leave)
        _say(f"{args.env}: {done.deployment}")
        if args.verify:
            try:
                bundle = deployed_bundle(target, opened.verifier)
                if bundle is not None:
                    _check(_prepared(environment, opened, args.env, bundle), done.deployment, None)
            except MLOpsError as e:
                problem = e
    now, before = done.deployment, done.before
    if args.output == "json":
        said = {
            "environment": args.env,
            "changed": done.done,
            "deployment": now.to_dict(),
            "verified": args.verify and problem is None,
            "problem": problem.message if problem else None,
        }
        print(json.dumps(said, indent=2))
    else:
        left = f" (was {before.digest[:12]})" if before else ""
        seen = "" if problem else "; its Airflow runs it" if args.verify else "; not verified"
        print(harmless(f"{args.env}: bundle {now.digest[:12]} again{left}, commit {now.commit}{seen}"))
    if problem is not None:
        _tell_problem(args.env, problem, None, "the branch is back at the deployment before; its Airflow is not")


# --- status --------------------------------------------------------------------------------------


@clear_errors
def status(args: Namespace) -> None:
    """What is deployed where, and what runs there; ends with 1 where that differs, or cannot be seen."""
    from airflow_mlops.cli.commands import pipeline_status

    if args.pipeline:
        if args.env:
            raise ConfigError("a pipeline has a status in the store alone", hint="leave out --env, or the pipeline")
        if args.output == "json":
            raise ConfigError(
                "the table of a pipeline is not made as JSON",
                hint=f"airflow mlops monitor history {args.pipeline} --output json has more than it",
            )
        pipeline_status(args)
        return
    with redirect_stdout(sys.stderr), _opened(args.project) as opened:
        names = [args.env] if args.env else list(opened.targets)
        found = [_environment(opened, name) for name in names]
    if args.output == "json":
        print(json.dumps({"project": opened.project.name, "environments": found}, indent=2))
    else:
        for number, each in enumerate(found):
            print(*([""] if number else []), *map(harmless, _told(each)), sep="\n")
    sys.stdout.flush()
    if any(each["problem"] for each in found):
        raise SystemExit(1)


def _environment(opened: _Opened, name: str) -> dict[str, Any]:
    from airflow_mlops.delivery.deployment import history

    environment, target = opened.environment(name)
    said: dict[str, Any] = {"environment": name, "branch": target.branch, "deployment": None, "history": []}
    try:
        known = history(target)
    except BranchChanged as e:
        return said | {"airflow": None, "problem": e.message, "hint": e.hint}
    said["history"] = [d.to_dict() for d in reversed(known.deployments)]
    if known.current is None:
        return said | {"airflow": None, "problem": None, "hint": None}
    return said | {"deployment": known.current.to_dict()} | _runs(environment, opened, known, name)


def _runs(environment: Environment, opened: _Opened, known: History, name: str) -> dict[str, Any]:
    """What the environment's Airflow runs, and whether that is what is deployed."""
    from airflow_mlops.delivery.airflow_api import AirflowApi
    from airflow_mlops.hooks.delivery import airflow_of

    commit = known.current.commit if known.current else ""
    bundle = opened.project.bundle_of(name)
    try:
        with AirflowApi(airflow_of(environment.api), patience=_PATIENCE) as api:
            dags, errors = api.dags(bundle), api.import_errors(bundle)
            url = api.server.url
    except MLOpsError as e:
        return {"airflow": None, "problem": e.message, "hint": e.hint}
    versions: dict[str, list[str]] = {}
    for dag_id, dag in sorted(dags.items()):
        versions.setdefault(str(dag["bundle_version"]), []).append(dag_id)
    # A file's errors stand in a DAG that Airflow forgets a minute or two after the file was mended, or taken back.
    gone = [i for v, ids in versions.items() if v != commit for i in ids if i.endswith("__invalid")]
    gone = gone if commit in versions else []
    versions = {v: kept for v, ids in versions.items() if (kept := [i for i in ids if i not in gone])}
    problem = None
    if set(versions) != {commit}:
        others = ", ".join(f"{len(ids)} at {version[:12]}" for version, ids in versions.items() if version != commit)
        problem = f"the Airflow at {url} does not run it yet: {others or 'it has no DAG of the bundle ' + bundle}"
    if errors:
        problem = f"the Airflow at {url} cannot import {', '.join(sorted(e['filename'] for e in errors))}"
    shown = {
        "url": url,
        "bundle": bundle,
        "versions": versions,
        "going": gone,
        "import_errors": [e["filename"] for e in errors],
    }
    return {"airflow": shown, "problem": problem, "hint": None}


def _told(said: dict[str, Any]) -> Iterator[str]:
    yield f"{said['environment']}  (branch {said['branch']})"
    now = said["deployment"]
    if now:
        ref = f", {now['ref'].removeprefix('refs/heads/').removeprefix('refs/tags/')}" if now["ref"] else ""
        yield f"  bundle    {now['digest']}"
        yield f"  source    {now['source']}{ref}"
        when = f"by {now['by']} at {now['at']}, {_since(now['at'])} ago"
        yield f"  {now['action']:<9} {when}: {now['reason'] or 'no reason given'}"
        yield f"  commit    {now['commit']}, signed by {now['signed_by'] or 'nobody that is trusted here'}"
    elif not said["problem"]:
        yield "  nothing is deployed"
    if said["airflow"] and not said["problem"]:
        count = sum(map(len, said["airflow"]["versions"].values()))
        going = said["airflow"]["going"]
        rest = f"; {', '.join(going)}, of the version before, is about to go" if going else ""
        yield f"  Airflow   {said['airflow']['url']} runs it: {count} DAGs{rest}"
    if said["problem"]:
        yield f"  PROBLEM   {said['problem']}"
    if said["hint"]:
        yield f"            What to do: {said['hint']}"
    earlier: Sequence[dict[str, Any]] = said["history"][1:]
    for number, past in enumerate(earlier[:_SHOWN]):
        reason = f": {past['reason']}" if past["reason"] else ""
        what = f"{past['at']}  {past['action']:<8}  {past['digest'][:12]}  {past['by']}{reason}"
        yield f"  {'' if number else 'before':<9} {what}"
    if len(earlier) > _SHOWN:
        yield f"            and {len(earlier) - _SHOWN} more; --output json has all of them"


def _since(at: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str:
    seconds = int((now() - datetime.fromisoformat(at)).total_seconds())
    for length, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * length or (seconds >= length and unit != "minute"):
            number = seconds // length
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{max(seconds, 0)} seconds"
