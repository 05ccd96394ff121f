"""Model versions of one pipeline and their aliases: a fold of the pipeline's log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from airflow_mlops.exceptions import ObjectExists, RegistryError
from airflow_mlops.registry.fleet import FleetWrites
from airflow_mlops.registry.items import Items
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.rollout import Rollout, Step
from airflow_mlops.registry.rules import Rules
from airflow_mlops.registry.shared import Shared
from airflow_mlops.registry.state import State
from airflow_mlops.registry.version import Share, Version
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json
from airflow_mlops.window import Window

__all__ = ["Registry", "Share", "Version"]


class Registry(FleetWrites):
    """The registry of one pipeline; every write is one commit to its log, atomic and idempotent.

    Writes raise :class:`~airflow_mlops.exceptions.StoreUnavailable` when the store does not answer;
    repeating one with the same ``op_id`` (see :func:`~airflow_mlops.registry.log.op_id`) is safe and
    returns what the first commit did. ``key`` names one model of a fleet; each key counts its own versions.
    """

    def __init__(self, store: Store, pipeline: str) -> None:
        try:
            prefix = layout.log_prefix(pipeline)
        except ValueError as e:
            raise RegistryError(
                f"{pipeline!r} cannot be the name of a pipeline", hint="use letters, digits, '_', '-' and '.'"
            ) from e
        self.store = store
        self.pipeline = pipeline
        self.items = Items(store)
        self.shared = Shared(store)
        self.rules = Rules(pipeline, store.uri)
        self.log: Log[State] = Log(store, prefix, memory=State(store, prefix, self.items), first=self._announce)

    def register(self, record: dict[str, Any], *, op_id: str, key: str | None = None) -> Version:
        """Add a version with the next number (1, 2, 3, …).

        :param record: plain JSON: model info, snapshot, config hash, code, environment, seed, metrics.
        """

        def payload(state: State) -> dict[str, Any]:
            return {"version": len(state.model(key).places) + 1, "record": record}

        entry = self.log.append("register", payload, op_id=op_id, key=key)
        return self.get(entry.payload["version"], key)

    def annotate(self, version: int, kind: str, note: dict[str, Any], *, op_id: str, key: str | None = None) -> Version:
        """Attach ``note`` to a version: ``evaluation``, ``gates``, ``approval``, ``handover``, ``deployment``, …

        :raises VersionNotFound: when there is no such version.
        """
        body = {"version": version, "kind": kind, "note": note}
        return self._write("annotate", body, op_id, key, lambda state: self.rules.exists(state, version, key))

    def promote(
        self,
        version: int,
        *,
        expected: int | None,
        op_id: str,
        reason: str,
        by: str | None = None,
        window: Window | dict[str, Any] | None = None,
        key: str | None = None,
        rollout: dict[str, Any] | None = None,
    ) -> Version:
        """Make a version the champion, if the champion is still ``expected``. A rollout that is under way ends.

        :param expected: the champion the decision was made against; None for "there was none".
        :param rollout: what :meth:`judge_rollout` says of the last look.
        :raises PromotionConflict: when another champion was promoted meanwhile.
        :raises VersionNotFound: when there is no such version.
        :raises RegistryError: when the version is retired.
        """
        body = {
            "version": version,
            "expected": expected,
            "reason": reason,
            "by": by,
            "window": window.to_dict() if isinstance(window, Window) else window,
        }
        if rollout is not None:
            body["rollout"] = rollout
        return self._write(
            "promote", body, op_id, key, lambda state: self.rules.may_promote(state, version, expected, key)
        )

    def rollback(
        self, *, expected: int, op_id: str, reason: str, by: str | None = None, key: str | None = None
    ) -> Version:
        """Make the champion before ``expected`` the champion again; the version left keeps a note ``rollback``.

        Repeated rollbacks go back step by step: after v5, v6, v7, to v6, then to v5.

        :param expected: the champion to leave.
        :raises PromotionConflict: when the champion is another one by now.
        :raises RegistryError: when there was no champion before it, or it was retired.
        """

        def payload(state: State) -> dict[str, Any]:
            back = self.rules.before(state, expected, key)
            return {"version": back, "expected": expected, "reason": reason, "by": by}

        return self._write("rollback", payload, op_id, key)

    def retire(
        self, version: int, *, op_id: str, reason: str, by: str | None = None, key: str | None = None
    ) -> Version:
        """Take a version out of use: it can never be promoted, nor returned to.

        :raises RegistryError: when it is the champion.
        :raises VersionNotFound: when there is no such version.
        """
        body = {"version": version, "reason": reason, "by": by}
        return self._write("retire", body, op_id, key, lambda state: self.rules.may_retire(state, version, key))

    def tag(
        self, version: int, name: str, value: str | int | float | bool | None, *, op_id: str, key: str | None = None
    ) -> Version:
        """Set a tag of a version; None removes it.

        :raises VersionNotFound: when there is no such version.
        """
        body = {"version": version, "name": name, "value": value}
        return self._write("tag", body, op_id, key, lambda state: self.rules.exists(state, version, key))

    def set_challenger(self, version: int, *, op_id: str, key: str | None = None) -> Version:
        """Make a version the challenger; promoting or retiring it frees the alias. One that rolls out stays it.

        :raises VersionNotFound: when there is no such version.
        :raises RegistryError: when the version is retired.
        """
        return self._write(
            "challenger", {"version": version}, op_id, key, lambda state: self.rules.may_serve(state, version, key)
        )

    def begin_rollout(
        self,
        version: int,
        *,
        expected: int,
        steps: Sequence[Step],
        op_id: str,
        reason: str,
        by: str | None = None,
        window: Window | dict[str, Any] | None = None,
        key: str | None = None,
    ) -> Version:
        """Let a version begin its way to champion, as challenger, if the champion is still ``expected``.

        :param steps: ``shadow``, ``{"canary": share}``, the last one ``full``; at least two.
        :param by: who agreed to it, if a person did.
        :raises PromotionConflict: when the champion is another one, or another version is rolling out.
        :raises VersionNotFound: when there is no such version.
        :raises RegistryError: when the version is retired.
        """
        body = {
            "version": version,
            "expected": expected,
            "kind": "begin",
            "steps": [*steps],
            "reason": reason,
            "by": by,
            "window": window.to_dict() if isinstance(window, Window) else window,
        }
        return self._write(
            "rollout", body, op_id, key, lambda state: self.rules.may_begin(state, version, expected, key)
        )

    def judge_rollout(
        self,
        rollout: Rollout,
        kind: str,
        *,
        look: int,
        spent: float,
        op_id: str,
        reason: str,
        window: Window | dict[str, Any] | None = None,
        evidence: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> Version:
        """Commit what a look at a rollout came to, if the rollout is still where it was: one commit a look.

        :param kind: ``wait``: it stays; ``next``: it goes to its next step, where that is ``full`` as a promotion;
            ``end``: the version falls, and the champion serves alone.
        :param look: number of this look in its step, from 1; ``spent``: share of the error probability spent with it.
        :param evidence: plain JSON that the look stands on.
        :raises PromotionConflict: when the rollout is elsewhere by now.
        """
        said = {"id": rollout.id, "step": rollout.step, "look": look, "spent": spent, "evidence": evidence or {}}
        whole = {
            "version": rollout.version,
            "expected": rollout.champion,
            "reason": reason,
            "by": None,
            "window": window.to_dict() if isinstance(window, Window) else window,
        }

        def check(state: State) -> None:
            self.rules.rolls(state, rollout, key)

        if kind == "next" and rollout.step + 2 == len(rollout.steps):
            body = whole | {"by": rollout.by, "rollout": said}
            return self._write("promote", body, op_id, key, check)
        return self._write("rollout", whole | {"kind": kind} | said, op_id, key, check)

    def end_rollout(
        self, version: int, *, op_id: str, reason: str, by: str | None = None, key: str | None = None
    ) -> Version:
        """End the rollout of a version by hand; the champion serves alone again.

        :raises RegistryError: when this version is not rolling out.
        """

        def payload(state: State) -> dict[str, Any]:
            found = self.rules.rolling(state, version, key)
            said = {"id": found.id, "step": found.step, "look": found.looks, "spent": found.spent, "evidence": {}}
            whole = {"version": version, "expected": found.champion, "kind": "end", "reason": reason, "by": by}
            return whole | {"window": None} | said

        return self._write("rollout", payload, op_id, key)

    def _write(
        self,
        type: str,
        payload: dict[str, Any] | Callable[[State], dict[str, Any]],
        op_id: str,
        key: str | None,
        check: Callable[[State], object] | None = None,
    ) -> Version:
        entry = self.log.append(type, payload, op_id=op_id, key=key, check=check)
        return self.get(entry.payload["version"], key)

    def _announce(self) -> None:
        """Before its first commit, so that every pipeline with commits is found without listing them all."""
        with suppress(ObjectExists):
            self.store.put_if_absent(layout.pipeline_name(self.pipeline), canonical_json({"pipeline": self.pipeline}))
