"""``airflow mlops registry promote|rollback|retire|abort|tag``: changes, through Airflow or past it."""

from __future__ import annotations

import os
import pwd
import secrets
import sys
import textwrap
from argparse import Namespace
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_mlops.cli.errors import clear_errors, utf8
from airflow_mlops.cli.model_ref import ModelRef, version_number
from airflow_mlops.config.harmless import harmless
from airflow_mlops.exceptions import ConfigError

if TYPE_CHECKING:
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry.registry import Registry

WIDTH = 80
TASK = "registry.change"


@dataclass(frozen=True)
class Change:
    """What the trigger form of ``<pipeline>__registry`` takes."""

    action: str
    key: str | None
    version: int | None
    expected: int | None
    reason: str


@clear_errors
def promote(args: Namespace) -> None:
    """Make a version the champion."""
    hook, ref = _opened(args.model)
    number = _number(hook, ref)
    _make(args, hook, ref, Change("promote", ref.key, number, _expected(args.expected, none=True), _reason(args)))


@clear_errors
def rollback(args: Namespace) -> None:
    """Return to the champion before."""
    hook, ref = _opened(args.pipeline)
    if ref.number is not None or "@" in args.pipeline:
        raise ConfigError(
            f"{args.pipeline!r} names a version: a rollback finds its own",
            hint=f"airflow mlops registry rollback {ref.pipeline} --expected N, or promote the version you want",
        )
    ref.find(hook.store())  # a wrong name or key is told here, not by a run that fails
    _make(args, hook, ref, Change("rollback", ref.key, None, _expected(args.expected), _reason(args)))


@clear_errors
def retire(args: Namespace) -> None:
    """Take a version out of use."""
    hook, ref = _opened(args.model)
    number = _number(hook, ref)
    _make(args, hook, ref, Change("retire", ref.key, number, None, _reason(args)))


@clear_errors
def abort(args: Namespace) -> None:
    """End the rollout of a version."""
    hook, ref = _opened(args.model)
    number = _number(hook, ref)
    hook.registry(ref.pipeline).rolling(number, ref.key)  # told here, not by a run that fails
    _make(args, hook, ref, Change("abort", ref.key, number, None, _reason(args)))


@clear_errors
def tag(args: Namespace) -> None:
    """Set and remove tags, one commit each."""
    hook, ref = _opened(args.model)
    from airflow_mlops.registry.entry import op_id

    changes: dict[str, str | None] = {}
    for text in args.tags:
        name, equals, given = utf8(text, "the tag").partition("=")
        if not name or not equals:
            raise ConfigError(f"{text!r} is no tag", hint="write NAME=VALUE, or --remove NAME")
        changes[name] = given
    changes |= dict.fromkeys(args.remove or ())
    if not changes:
        raise ConfigError("there is no tag to set or to remove", hint="write NAME=VALUE, or --remove NAME")
    version = ref.find(hook.store())
    if lost := sorted({*(args.remove or ())} - version.tags.keys()):
        raise ConfigError(
            f"{version.name} has no tag {', '.join(lost)}",
            hint="its tags: " + (", ".join(sorted(version.tags)) or "none"),
        )
    registry = hook.registry(ref.pipeline)
    for name, value in changes.items():
        version = registry.tag(version.number, name, value, op_id=op_id("tag", uuid4().hex), key=ref.key)
    print(harmless(f"{version.name}: " + (", ".join(f"{k}={v}" for k, v in sorted(version.tags.items())) or "no tags")))


def _opened(model: str) -> tuple[MLOpsHook, ModelRef]:
    from airflow_mlops.hooks.mlops import MLOpsHook

    ref = ModelRef.parse(model)
    return MLOpsHook(), ref


def _number(hook: MLOpsHook, ref: ModelRef) -> int:
    found = ref.find(hook.store())
    if ref.number is None and ref.alias == "champion":
        raise ConfigError(f"{ref} is the champion already", hint=f"name a version, such as {ref.pipeline}:7")
    return found.number


def _expected(text: str, *, none: bool = False) -> int | None:
    if none and text.lower() == "none":
        return None
    number = version_number(text)
    if number is None:
        raise ConfigError(
            f"--expected {text[:40]!r} is no version", hint="the champion's number" + (", or none" if none else "")
        )
    return number


def _reason(args: Namespace) -> str:
    if not args.reason.strip():
        raise ConfigError("--reason is empty", hint="say why; it is kept in the registry")
    return utf8(str(args.reason).strip(), "--reason")


def _make(args: Namespace, hook: MLOpsHook, ref: ModelRef, change: Change) -> None:
    if args.break_glass:
        if args.no_wait:
            raise ConfigError("--break-glass starts no run to wait for", hint="leave --no-wait out")
        _directly(hook, ref, change)
    else:
        _through_airflow(hook, ref.pipeline, change, wait=not args.no_wait)


def _through_airflow(hook: MLOpsHook, pipeline: str, change: Change, *, wait: bool) -> None:
    from airflow_mlops.cli.live import LiveScheduler
    from airflow_mlops.registry.entry import op_id
    from airflow_mlops.registry.version import model_name

    name = model_name(pipeline, change.key)
    scheduler = LiveScheduler(
        lambda text: print(f"  {text}", file=sys.stderr, flush=True),
        again=f"mend the cause, look at `airflow mlops registry list {name}`, and start it again",
    )
    dag_id, user = f"{pipeline}__registry", os_user()
    scheduler.require(dag_id)
    wanted = f"registry__{change.action}__{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{secrets.token_hex(2)}"
    try:
        run_id = scheduler.trigger(dag_id, wanted, asdict(change), by=user)
        if not wait:
            print(harmless(f"{name}: started"))
            print(f"  by {user}, the run {run_id} of {dag_id}")
            return
        scheduler.wait(dag_id, run_id)
    except KeyboardInterrupt:
        print(f"\nStopped. The run {wanted} of {dag_id}, once started, goes on in Airflow.", file=sys.stderr)
        raise SystemExit(130) from None
    # What the run has done is what its operation has committed.
    operation = op_id(dag_id, run_id, TASK, -1, change.action, change.version, change.expected, change.key)
    entry = hook.registry(pipeline).log.find(operation)
    if entry is None:
        raise ConfigError(
            f"the run {run_id} of {dag_id} has ended and changed nothing in {hook.store_uri}",
            hint="look at its task in Airflow; do its worker and this machine have the same [mlops] store?",
        )
    print(harmless(_told(name, change, entry.payload["version"])))
    print(f"  by {user}, in the run {run_id} of {dag_id}")


def _directly(hook: MLOpsHook, ref: ModelRef, change: Change) -> None:
    from airflow_mlops.registry.entry import op_id
    from airflow_mlops.registry.version import model_name

    registry, by = hook.registry(ref.pipeline), f"break-glass: {os_user()}"
    said: dict[str, Any] = {"op_id": op_id("break-glass", uuid4().hex), "reason": change.reason, "by": by}
    version = _commit(registry, change, said)
    hook.mirror(registry, version, change.action, change.key)
    print(harmless(_told(model_name(ref.pipeline, ref.key), change, version)))
    print(f"  by {by}")
    if change.action in ("retire", "abort"):
        lost = "No notification was sent."
    else:
        lost = (
            f"No event of the asset {ref.pipeline}.champion was sent: DAGs that wait for a new champion do not start. "
            "No notification was sent."
        )
    warning = (
        f"THE GLASS IS BROKEN: this was written to {hook.store_uri} directly. Airflow's permissions were not asked, "
        f"and its audit log knows nothing of it. {lost} The registry's own history does: "
        f"airflow mlops registry history {ref.pipeline}"
    )
    print("\n".join(textwrap.wrap(warning, WIDTH, break_on_hyphens=False)), file=sys.stderr)


def os_user() -> str:
    """Who runs the command, as the machine knows them; a container may know a number alone."""
    try:
        # Not getpass: what stands in LOGNAME is anybody's to say.
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _commit(registry: Registry, change: Change, said: dict[str, Any]) -> int:
    said = {**said, "key": change.key}
    if change.action == "rollback" and change.expected is not None:
        return registry.rollback(expected=change.expected, **said).number
    if change.version is None:
        raise ConfigError(f"{change.action} needs a version", hint=f"name one, such as {registry.pipeline}:7")
    if change.action == "promote":
        return registry.promote(change.version, expected=change.expected, **said).number
    if change.action == "abort":
        return registry.end_rollout(change.version, **said).number
    return registry.retire(change.version, **said).number


def _told(name: str, change: Change, version: int) -> str:
    if change.action == "retire":
        return f"{name}: v{version} is retired"
    if change.action == "abort":
        return f"{name}: v{version} rolls out no more; the champion serves alone"
    return f"{name}: champion is now v{version} (was {f'v{change.expected}' if change.expected else 'none'})"
