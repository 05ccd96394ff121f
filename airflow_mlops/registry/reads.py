"""What can be asked of a pipeline's registry."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.items import Items
from airflow_mlops.registry.log import Log
from airflow_mlops.registry.models import Model
from airflow_mlops.registry.rollout import Rollout, rollout_of
from airflow_mlops.registry.rules import Rules
from airflow_mlops.registry.shared import Shared
from airflow_mlops.registry.state import Row, State
from airflow_mlops.registry.version import Notes, Share, Version


class RegistryReads:
    """The part of a registry that writes nothing."""

    pipeline: str
    log: Log[State]
    items: Items
    shared: Shared
    rules: Rules

    def get(self, version: int, key: str | None = None) -> Version:
        """Return one version.

        :raises VersionNotFound: when there is no such version.
        """
        return self.log.view(lambda state: self._version(state, self.rules.exists(state, version, key), version))

    def get_many(self, numbers: Mapping[str, int]) -> dict[str, Version]:
        """Return one version of each key, ordered by key, as of one moment; each commit is read once for all of them.

        Their records share what they have in common: treat them as read-only.

        :param numbers: version by model key.
        :raises VersionNotFound: when there is no such version.
        """
        records: dict[str, Any] = {}

        def look(state: State) -> dict[str, tuple[int, Version]]:
            found = {}
            for key, number in sorted(numbers.items()):
                model = self.rules.exists(state, number, key)
                row = state.row(model, number)
                found[key] = row.seq, self._view(state, model, row, partial(records.__getitem__, key))
            return found

        found = self.log.view(look)
        by_commit: dict[int, list[str]] = defaultdict(list)
        for key, (seq, _) in found.items():
            by_commit[seq].append(key)
        for seq, keys in sorted(by_commit.items()):
            entry = self.log.read(seq)
            for key in keys:
                records[key] = self.shared.whole(self.items.of(entry, key).payload["record"])
        return {key: version for key, (_, version) in found.items()}

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
        return self.references([key]).get(key)

    def references(self, keys: Iterable[str | None] | None = None) -> dict[str | None, Version]:
        """Return what :meth:`reference` does, by model key, of those that have a champion.

        Each commit is read once for all of them, as :meth:`get_many` does.
        """

        def look(state: State) -> dict[str | None, tuple[Version, Sequence[int]]]:
            found = {}
            for key in [*state.models] if keys is None else keys:
                model = state.model(key)
                if model.champion is not None:
                    row = state.row(model, model.champion)
                    # Where a person has put it into service, no note says what losses are counted from.
                    notes = () if "by" in row.more else row.more.get("notes", ())
                    found[key] = self._view(state, model, row), notes
            return found

        found = self.log.view(look)
        by_commit: dict[int, list[str | None]] = defaultdict(list)
        for key, (_, seqs) in found.items():
            for seq in seqs:
                by_commit[seq].append(key)
        noted: dict[str | None, int] = {}
        for seq, of_commit in sorted(by_commit.items()):
            entry = self.log.read(seq)
            for key in of_commit:
                kind, note = _note(self.items.of(entry, key))
                if kind == "gates" and note.get("next_reference"):
                    noted[key] = note["next_reference"]
        champions = {key: champion for key, (champion, _) in found.items()}
        older = self.log.view(
            lambda state: {
                key: self._version(state, state.model(key), number)
                for key, number in noted.items()
                if number != champions[key].number
            }
        )
        return champions | {key: version for key, version in older.items() if version.status != "retired"}

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

    def champions(self, keys: Iterable[str | None] | None = None) -> dict[str | None, Version]:
        """Return the versions that serve, by model key, as of one moment; of ``keys`` alone where they are given."""

        def look(state: State) -> dict[str | None, Version]:
            wanted = [*state.models] if keys is None else keys
            found = {key: self._alias(state, key, state.model(key).champion) for key in wanted}
            return {key: version for key, version in found.items() if version is not None}

        return self.log.view(look)

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

    def _view(self, state: State, model: Model, row: Row, record: Callable[[], Any] | None = None) -> Version:
        more, seqs = row.more, [*row.more.get("notes", ())]
        return Version(
            self.pipeline,
            row.number,
            row.key,
            record or (lambda: self._record(row)),
            (lambda: self._notes(row.key, seqs)) if seqs else None,
            row.at,
            more.get("promoted"),
            state.status(model, row),
            {**more.get("tags", {})},
            {**more.get("metrics", {})},
            more.get("model"),
        )

    def _record(self, row: Row) -> Any:
        # A copy: the batch is kept for its other models, and what they share too.
        return self.shared.own_copy(self.items.of(self.log.read(row.seq), row.key).payload["record"])

    def _notes(self, key: str | None, seqs: Iterable[int]) -> Notes:
        notes: Notes = {}
        for entry in (self.log.read(seq) for seq in seqs):
            kind, note = _note(self.items.of(entry, key))
            notes.setdefault(kind, []).append(copy.deepcopy(note))
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
