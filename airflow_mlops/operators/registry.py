"""Change a registry by hand, as a run that Airflow permits, records and shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.exceptions import ConfigError, VersionNotFound
from airflow_mlops.links.reports import ModelCardLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope
from airflow_mlops.operators.promotion import champion_extra
from airflow_mlops.registry.version import model_name

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_mlops.registry.registry import Registry, Version

Action = Literal["promote", "rollback", "retire", "abort"]

NEEDS: dict[str, tuple[str, ...]] = {
    "promote": ("version", "reason"),
    "rollback": ("expected", "reason"),
    "retire": ("version", "reason"),
    "abort": ("version", "reason"),
}
"""Action → what it cannot be done without; ``expected`` of a promotion may be empty: there was no champion."""


class RegistryChangeOperator(MLOpsOperator):
    """Promote a version, roll back to the champion before, retire a version, or end the rollout of one.

    To promote a version that is rolling out takes it to its end at once. Who started the run is recorded with the
    change. What is not given here is taken from the trigger form.
    After a promotion or a rollback the outlet asset's events carry the new champion.

    Returns ``{"action", "key", "version", "previous", "digest"}``; ``version`` is the one promoted, returned to, or
    retired or whose rollout has ended, ``previous`` the champion before.

    :param action: ``promote``, ``rollback``, ``retire`` or ``abort`` (the rollout).
    :param version: the version to promote, to retire, or that is rolling out.
    :param expected: the champion now; the change is refused when it is another one. ``None``: there is none.
    :param reason: why; kept in the registry.
    :param key: which model of a fleet; ``None``: the pipeline's own.
    :raises PromotionConflict: (fails without retry) the champion is not ``expected``.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (ModelCardLink(),)

    def __init__(
        self,
        *,
        action: Action | None = None,
        version: int | None = None,
        expected: int | None = None,
        reason: str | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.action = action
        self.version = version
        self.expected = expected
        self.reason = reason
        self.key = key

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Make the change, and tell the assets and whoever asked."""
        asked = self._asked(context)
        action, key, registry = asked["action"], asked["key"], self.hook.registry(self.pipeline)
        name = model_name(self.pipeline, key)
        version = self._change(registry, asked, context)
        previous = None if action in ("retire", "abort") else asked["expected"]
        digest = version.record["model"]["digest"]
        result = {
            "action": action,
            "key": key,
            "version": version.number,
            "previous": previous,
            "digest": digest,
        }
        self.hook.mirror(registry, version.number, action, key)
        if action in ("retire", "abort"):
            self.log.info("%s %s", version.name, "is retired" if action == "retire" else "rolls out no more")
            if action == "abort":
                self.tell(context, scope, "rollback", f"{version.name}: its rollout was ended: {asked['reason']}")
            # When the task has ended, Airflow sends an event for each outlet, and the champion has no news.
            self.outlets = []
            return result
        if version.status != "champion":
            champion = registry.champion(key)
            raise AirflowSkipException(
                f"{version.name} was made the champion by this task before; the champion now is "
                f"v{champion.number if champion else '?'}"
            )
        self.log.info("%s: champion is now v%d (was %s)", name, version.number, _named(previous))
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = scope.event_extra() | champion_extra(version, previous)
        if action == "promote":
            self.tell(context, scope, "promoted", f"{name}: champion is now v{version.number}")
        else:
            said = f"{name}: rolled back from {_named(previous)} to v{version.number}: {asked['reason']}"
            self.tell(context, scope, "rollback", said)
        return result

    def _asked(self, context: Context) -> dict[str, Any]:
        form = context.get("params") or {}
        names = ("action", "key", "version", "expected", "reason")
        asked = {name: form.get(name) if (given := getattr(self, name)) is None else given for name in names}
        asked["key"] = asked["key"] or None  # what a form gives for a field that is left empty
        asked["reason"] = str(asked["reason"] or "").strip()
        if asked["action"] not in NEEDS:
            raise ConfigError(
                f"the action is {asked['action']!r}" if asked["action"] else "no action is given",
                hint=f"choose one of {', '.join(NEEDS)} in the trigger form",
            )
        if missing := [name for name in NEEDS[asked["action"]] if asked[name] in (None, "")]:
            raise ConfigError(
                f"{asked['action']} needs {' and '.join(missing)}", hint="start the DAG again and fill in the form"
            )
        return asked

    def _change(self, registry: Registry, asked: dict[str, Any], context: Context) -> Version:
        action, number, expected, key = asked["action"], asked["version"], asked["expected"], asked["key"]
        if (keys := registry.keys()) and key not in keys:
            raise _no_such_model(self.pipeline, key, keys)
        said: dict[str, Any] = {
            "op_id": self.operation(context, action, number, expected, key),
            "key": key,
            "reason": asked["reason"],
            "by": getattr(context.get("dag_run"), "triggering_user_name", None),
        }
        if action == "promote":
            return registry.promote(number, expected=expected, **said)
        if action == "rollback":
            return registry.rollback(expected=expected, **said)
        if action == "abort":
            return registry.end_rollout(number, **said)
        return registry.retire(number, **said)


def _no_such_model(pipeline: str, key: str | None, keys: Sequence[str | None]) -> VersionNotFound:
    first = next((k for k in keys if k is not None), None)
    if first is None:
        return VersionNotFound(
            f"{pipeline} is no fleet and has no model for {key!r}", hint="start the DAG again and leave the key empty"
        )
    what = f"has no model for {key!r}" if key else "has a model for each of its keys, and no key is given"
    return VersionNotFound(
        f"{pipeline} {what}", hint=f"start the DAG again and name one of the {len(keys):,} keys, such as {first}"
    )


def _named(number: int | None) -> str:
    return "none" if number is None else f"v{number}"
