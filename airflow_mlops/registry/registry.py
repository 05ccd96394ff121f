"""Model versions of one pipeline and their aliases: a fold of the pipeline's log."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from airflow_mlops.exceptions import ObjectExists, RegistryError
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.fleet import FleetWrites
from airflow_mlops.registry.items import BATCH, Items
from airflow_mlops.registry.log import Log
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
    ) -> Version:
        """Make a version the champion, if the champion is still ``expected``.

        :param expected: the champion the decision was made against; None for "there was none".
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
        """Make a version the challenger; promoting or retiring it frees the alias.

        :raises VersionNotFound: when there is no such version.
        :raises RegistryError: when the version is retired.
        """
        return self._write(
            "challenger", {"version": version}, op_id, key, lambda state: self.rules.may_serve(state, version, key)
        )

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
        """Return which versions serve which part of the ids; empty before the first promotion."""
        champion = self.champion(key)
        return () if champion is None else (Share(champion, 1.0),)

    def keys(self) -> list[str | None]:
        """Return the model keys that have versions; ``[None]`` for a pipeline with one model."""
        return sorted(self.log.view(lambda state: [*state.models]), key=lambda k: k or "")

    def history(self) -> list[dict[str, Any]]:
        """Return what every commit did, oldest first, as plain dicts with the same fields, for tables.

        ``seq, at, action, key, version, replaced, kind, reason, by, window, op_id``; ``action`` is
        ``register``, ``annotate``, ``promote``, ``rollback``, ``retire``, ``tag`` or ``challenger``;
        ``replaced`` the champion before; ``kind`` that of a note, or a tag's name. Of a note ``approval``, ``reason``
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
    return ("rollback", {"to": body["version"]} | said) if entry.type == "rollback" else ("retirement", said)
