"""Commits about many models of a fleet at once: one entry, whose items lie in one blob."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_mlops.exceptions import PromotionConflict, RegistryError
from airflow_mlops.registry.entry import Entry
from airflow_mlops.registry.items import BATCH, Item
from airflow_mlops.registry.reads import RegistryReads
from airflow_mlops.registry.state import State
from airflow_mlops.registry.version import Version
from airflow_mlops.window import Window


class _NothingToCommit(Exception):
    """Every item was left out; carries them."""

    def __init__(self, conflicts: list[Item]) -> None:
        super().__init__()
        self.conflicts = conflicts


class FleetWrites(RegistryReads):
    """The part of a registry that writes many models in one commit."""

    def register_many(self, records: dict[str, dict[str, Any]], *, op_id: str) -> dict[str, Version]:
        """Add one version to each model of a fleet, in one commit.

        :param records: what :meth:`register` takes, by model key.
        """
        if not records:
            return {}

        def items(state: State) -> tuple[list[Item], list[Item]]:
            return [
                {"key": key, "version": len(state.model(key).places) + 1, "record": records[key]}
                for key in _keys(records)
            ], []

        entry = self._batch("register", items, {}, op_id)
        return self._versions(entry)

    def promote_many(
        self,
        promotions: dict[str, tuple[int, int | None]],
        *,
        op_id: str,
        reason: str,
        by: str | None = None,
        window: Window | dict[str, Any] | None = None,
    ) -> dict[str, Version | PromotionConflict]:
        """Make versions champions of their models, each if its champion is still the expected one, in one commit.

        :param promotions: ``(version, expected)`` by model key, as :meth:`promote` takes them.
        :returns: by model key the version, or why it was left out (another champion, or retired). The others are
            promoted. A repeat with the same ``op_id`` leaves out the same ones.
        :raises VersionNotFound: when a version does not exist; then none is promoted.
        """
        if not promotions:
            return {}

        def items(state: State) -> tuple[list[Item], list[Item]]:
            taken: list[Item] = []
            left: list[Item] = []
            for key in _keys(promotions):
                version, expected = promotions[key]
                model = self.rules.exists(state, version, key)
                retired = "retired" in state.row(model, version).more
                item = {"key": key, "version": version, "expected": expected}
                if model.champion == expected and not retired:
                    taken.append(item)
                else:
                    left.append(item | {"champion": model.champion, "retired": retired})
            if not taken:
                raise _NothingToCommit(left)
            return taken, left

        more = {"reason": reason, "by": by, "window": window.to_dict() if isinstance(window, Window) else window}
        return self._those_that_fit("promote", items, more, op_id)

    def annotate_many(self, notes: dict[str, tuple[int, str, dict[str, Any]]], *, op_id: str) -> dict[str, Version]:
        """Attach a note to a version of each model, in one commit.

        :param notes: ``(version, kind, note)`` by model key, as :meth:`annotate` takes them.
        :raises VersionNotFound: when a version does not exist; then nothing is noted.
        """
        if not notes:
            return {}

        def items(state: State) -> tuple[list[Item], list[Item]]:
            taken: list[Item] = []
            for key in _keys(notes):
                version, kind, note = notes[key]
                self.rules.exists(state, version, key)
                taken.append({"key": key, "version": version, "kind": kind, "note": note})
            return taken, []

        return self._versions(self._batch("annotate", items, {}, op_id))

    def retire_many(
        self, champions: dict[str, int], *, op_id: str, reason: str, by: str | None = None
    ) -> dict[str, Version | PromotionConflict]:
        """Retire the champions of models whose keys have vanished, each if it is still the expected one, in one commit.

        Such a model has no champion any more, no challenger, and none to roll back to; it serves again when another
        of its versions is promoted.

        :param champions: the champion that is to be retired, by model key.
        :returns: by model key the retired version, or why it was left out, as :meth:`promote_many` does.
        :raises VersionNotFound: when a version does not exist; then none is retired.
        """
        if not champions:
            return {}

        def items(state: State) -> tuple[list[Item], list[Item]]:
            taken: list[Item] = []
            left: list[Item] = []
            for key in _keys(champions):
                expected = champions[key]
                model = self.rules.exists(state, expected, key)
                item = {"key": key, "version": expected, "expected": expected}
                if model.champion == expected:
                    taken.append(item)
                else:
                    retired = "retired" in state.row(model, expected).more
                    left.append(item | {"champion": model.champion, "retired": retired})
            if not taken:
                raise _NothingToCommit(left)
            return taken, left

        return self._those_that_fit("retire", items, {"reason": reason, "by": by}, op_id)

    def _those_that_fit(
        self, action: str, items: Callable[[State], tuple[list[Item], list[Item]]], more: dict[str, Any], op_id: str
    ) -> dict[str, Version | PromotionConflict]:
        """Commit the items that fit the state; return their versions, and why the others were left out."""
        try:
            entry = self._batch(action, items, more, op_id)
        except _NothingToCommit as e:
            return {item["key"]: self._left_out(item) for item in e.conflicts}
        done: dict[str, Version | PromotionConflict] = {**self._versions(entry)}
        return done | {key: self._left_out(item) for key, item in self.items.conflicts(entry).items()}

    def _batch(
        self, action: str, items: Callable[[State], tuple[list[Item], list[Item]]], more: dict[str, Any], op_id: str
    ) -> Entry:
        def payload(state: State) -> dict[str, Any]:
            taken, left = items(state)
            # Before the commit that names them.
            return {"action": action, "items": self.items.put(taken, left), "count": len(taken)} | more

        entry = self.log.append(BATCH, payload, op_id=op_id)
        if entry.payload["action"] != action:
            raise RegistryError(
                f"operation {op_id} is already a batch of another kind: {entry.payload['action']!r}, not {action!r}",
                hint="give each action an operation id of its own",
            )
        return entry

    def _versions(self, entry: Entry) -> dict[str, Version]:
        items = self.items.get(entry)
        return self.log.view(
            lambda state: {k: self._version(state, state.model(k), item["version"]) for k, item in items.items()}
        )

    def _left_out(self, item: Item) -> PromotionConflict:
        key = item["key"]
        if item["retired"]:
            return PromotionConflict(
                self.rules.retired(item["version"], key), hint="leave it out, or train and register a new version"
            )
        return self.rules.conflict(key, item["champion"], item["expected"])


def _keys(of: dict[str, Any]) -> list[str]:
    if wrong := [key for key in of if not isinstance(key, str)]:
        raise RegistryError(f"{wrong[0]!r} is not a model key", hint="name each model of a fleet by a string")
    return sorted(of)
