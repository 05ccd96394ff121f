"""Model versions of one pipeline and their aliases: a fold of the pipeline's log."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from airflow_mlops.exceptions import ObjectExists, RegistryError
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.fleet import FleetWrites
from airflow_mlops.registry.items import BATCH, Items
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.rollout import Rollout, Step, rollout_of
from airflow_mlops.registry.rules import Rules
from airflow_mlops.registry.state import Model, Row, State
from airflow_mlops.registry.version import Notes, Share, Version
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
        self.rules = Rules(pipeline, store.uri)
        self.log: Log[State] = Log(store, prefix, memory=State(store, prefix, self.items), first=self._announce)

    # --- writing ---------------------------------------------------------------------------------

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

    # --- reading ---------------------------------------------------------------------------------

    def get(self, version: int, key: str | None = None) -> Version:
        """Return one version.

        :raises VersionNotFound: when there is no such version.
        """
        return self.log.view(lambda state: self._version(state, self.rules.exists(state, version, key), version))

    def versions(self, key: str | None = None) -> list[Version]:
        """Return every version of a model, oldest first."""

        def look(state: State) -> list[Version]:
            model = state.model(key)
            return [self._view(state, model, row) for row in state.rows(model)]

        return self.log.view(look)

    def champion(self, key: str | None = None) -> Version | None:
        """Return the version that serves, or None before the first promotion."""
        return self.log.view(lambda state: self._alias(state, key, state.model(key).champion))

    def challenger(self, key: str | None = None) -> Version | None:
        """Return the version that is tried beside the champion, or None."""
        return self.log.view(lambda state: self._alias(state, key, state.model(key).challenger))

    def reference(self, key: str | None = None) -> Version | None:
        """Return the version that ``not_worse_by`` counts losses from, or None before the first promotion.

        It is the champion where a person promoted it, approved it or rolled back to it, and where its gates have
        shown it to be better than the reference before; else that one is still the reference. A retired version is
        none: then the champion is.
        """

        def look(state: State) -> tuple[Version | None, bool]:
            model = state.model(key)
            if model.champion is None:
                return None, False
            row = state.row(model, model.champion)
            return self._view(state, model, row), "by" in row.more

        champion, by_a_person = self.log.view(look)
        if champion is None or by_a_person:
            return champion
        noted = [note["next_reference"] for note in champion.notes.get("gates", ()) if note.get("next_reference")]
        if not noted or noted[-1] == champion.number:
            return champion
        reference = self.get(noted[-1], key)
        return champion if reference.status == "retired" else reference

    def serving(self, key: str | None = None) -> tuple[Share, ...]:
        """Return which versions serve which part of the ids; empty before the first promotion.

        The champion first; then the version that is rolling out, whose share is 0 while it is a shadow.
        """
        return self.in_use(key)[0]

    def in_use(self, key: str | None = None) -> tuple[tuple[Share, ...], Rollout | None]:
        """Return what :meth:`serving` does, and the rollout that is under way, as of one moment."""

        def look(state: State) -> tuple[tuple[Share, ...], Rollout | None]:
            model = state.model(key)
            champion = self._alias(state, key, model.champion)
            if champion is None:
                return (), None
            if model.rollout is None:
                return (Share(champion, 1.0),), None
            rollout = rollout_of(model.rollout)
            tried = self._version(state, model, rollout.version)
            return (Share(champion, 1 - rollout.share), Share(tried, rollout.share)), rollout

        return self.log.view(look)

    def rollout(self, key: str | None = None) -> Rollout | None:
        """Return the rollout that is under way, or None."""
        return self.in_use(key)[1]

    def rolling(self, version: int, key: str | None = None) -> Rollout:
        """Return the rollout of a version.

        :raises RegistryError: when this version is not rolling out.
        """
        return self.log.view(lambda state: self.rules.rolling(state, version, key))

    def keys(self) -> list[str | None]:
        """Return the model keys that have versions; ``[None]`` for a pipeline with one model."""
        return sorted(self.log.view(lambda state: [*state.models]), key=lambda k: k or "")

    def history(self) -> list[dict[str, Any]]:
        """Return what every commit did, oldest first, as plain dicts with the same fields, for tables.

        ``seq, at, action, key, version, replaced, kind, reason, by, window, op_id``; ``action`` is
        ``register``, ``annotate``, ``promote``, ``rollback``, ``retire``, ``tag``, ``challenger`` or ``rollout``;
        ``replaced`` the champion before (of a rollout, the champion that stays); ``kind`` that of a note or of a
        move of a rollout (``begin``, ``wait``, ``next``, ``end``), or a tag's name. Of a note ``approval``, ``reason``
        is the answer; of a tag its value, None where it was removed. A commit for a fleet is a row for each model.
        """
        return [
            {
                "seq": e.seq,
                "at": e.at,
                "action": e.type,
                "key": e.key,
                "version": e.payload["version"],
                "replaced": e.payload.get("expected"),
                "kind": e.payload.get("kind", e.payload.get("name")),
                "reason": reason,
                "by": by,
                "window": copy.deepcopy(e.payload.get("window")),
                "op_id": e.op_id,
            }
            for entry in self.log.entries()
            for e in self.items.expand(entry)
            for by, reason in (_said(e.payload),)
        ]

    def _alias(self, state: State, key: str | None, number: int | None) -> Version | None:
        return None if number is None else self._version(state, state.model(key), number)

    def _version(self, state: State, model: Model, number: int) -> Version:
        return self._view(state, model, state.row(model, number))

    def _view(self, state: State, model: Model, row: Row) -> Version:
        more, seqs = row.more, [*row.more.get("notes", ())]
        return Version(
            self.pipeline,
            row.number,
            row.key,
            lambda: self._record(row),
            (lambda: self._notes(seqs)) if seqs else None,
            row.at,
            more.get("promoted"),
            state.status(model, row),
            {**more.get("tags", {})},
            {**more.get("metrics", {})},
            more.get("model"),
        )

    def _record(self, row: Row) -> Any:
        entry = self.log.read(row.seq)
        if entry.type == BATCH:
            # The batch is kept for its other models.
            return copy.deepcopy(self.items.get(entry)[row.key or ""]["record"])
        return entry.payload["record"]

    def _notes(self, seqs: Iterable[int]) -> Notes:
        notes: Notes = {}
        for entry in (self.log.read(seq) for seq in seqs):
            kind, note = _note(entry)
            notes.setdefault(kind, []).append(note)
        return notes


def _said(body: dict[str, Any]) -> tuple[str | None, str | None]:
    """Who did it and why; or who answered, and what; or the value of a tag."""
    if "value" in body:
        return None, None if body["value"] is None else str(body["value"])
    if body.get("kind") == "approval":
        return body["note"].get("by"), ", ".join(map(str, body["note"].get("answer") or ()))
    return body.get("by"), body.get("reason")


def _note(entry: Entry) -> tuple[str, dict[str, Any]]:
    body = entry.payload
    if entry.type == "annotate":
        return body["kind"], body["note"]
    said = {"at": entry.at, "reason": body["reason"], "by": body["by"]}
    if entry.type == "rollout":
        more = {k: v for k, v in body.items() if k not in ("version", "expected", "reason", "by")}
        return "rollout", more | {"champion": body["expected"]} | said
    return ("rollback", {"to": body["version"]} | said) if entry.type == "rollback" else ("retirement", said)
