"""Model versions of one pipeline and their aliases: a fold of the pipeline's log."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_mlops.exceptions import PromotionConflict, RegistryError, VersionNotFound
from airflow_mlops.registry.log import Entry, Log
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.window import Window


@dataclass(frozen=True)
class Version:
    """One registered model.

    ``record`` is what was registered (model, snapshot, lineage, metrics); ``notes`` what was said about
    it later, by kind and oldest first; times are UTC in ISO 8601; ``status`` is ``candidate``,
    ``challenger``, ``champion`` or ``retired`` (was champion).
    """

    pipeline: str
    number: int
    key: str | None
    record: dict[str, Any]
    notes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    registered_at: str = ""
    promoted_at: str | None = None
    status: str = "candidate"

    @property
    def name(self) -> str:
        """``churn v7``, or ``churn[LGA] v7`` within a fleet."""
        return f"{_model(self.pipeline, self.key)} v{self.number}"


@dataclass(frozen=True)
class Share:
    """The part of the ids (0 to 1) that ``version`` serves."""

    version: Version
    share: float


@dataclass
class _Model:
    """What the log says about one model key."""

    versions: list[Version] = field(default_factory=list)
    champion: int | None = None
    challenger: int | None = None


_State = dict[str | None, _Model]


class Registry:
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
        self.log: Log[_State] = Log(store, prefix, self._fold)

    # --- writing ---------------------------------------------------------------------------------

    def register(self, record: dict[str, Any], *, op_id: str, key: str | None = None) -> Version:
        """Add a version with the next number (1, 2, 3, …).

        :param record: plain JSON: model info, snapshot, config hash, code, environment, seed, metrics.
        """

        def payload(state: _State) -> dict[str, Any]:
            return {"version": len(self._model(state, key).versions) + 1, "record": record}

        entry = self.log.append("register", payload, op_id=op_id, key=key)
        return self.get(entry.payload["version"], key)

    def annotate(
        self, version: int, kind: str, payload: dict[str, Any], *, op_id: str, key: str | None = None
    ) -> Version:
        """Attach ``payload`` to a version: ``evaluation``, ``gates``, ``approval``, ``handover``, ``deployment``, …

        :raises VersionNotFound: when there is no such version.
        """
        body = {"version": version, "kind": kind, "note": payload}
        self.log.append("annotate", body, op_id=op_id, key=key, check=self._exists(version, key))
        return self.get(version, key)

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
        """
        exists = self._exists(version, key)

        def check(state: _State) -> None:
            exists(state)
            champion = self._model(state, key).champion
            if champion != expected:
                now = f"v{champion}" if champion is not None else "not set"
                then = f"v{expected}" if expected is not None else "none"
                raise PromotionConflict(
                    f"{_model(self.pipeline, key)}@champion is {now}, expected {then}: v{version} is not promoted",
                    hint="evaluate again, against the present champion",
                )

        body = {
            "version": version,
            "expected": expected,
            "reason": reason,
            "by": by,
            "window": window.to_dict() if isinstance(window, Window) else window,
        }
        self.log.append("promote", body, op_id=op_id, key=key, check=check)
        return self.get(version, key)

    def set_challenger(self, version: int, *, op_id: str, key: str | None = None) -> Version:
        """Make a version the challenger; promoting it frees the alias.

        :raises VersionNotFound: when there is no such version.
        """
        self.log.append("challenger", {"version": version}, op_id=op_id, key=key, check=self._exists(version, key))
        return self.get(version, key)

    # --- reading ---------------------------------------------------------------------------------

    def get(self, version: int, key: str | None = None) -> Version:
        """Return one version.

        :raises VersionNotFound: when there is no such version.
        """
        state = self.log.state()
        self._exists(version, key)(state)
        return self._view(self._model(state, key), version)

    def versions(self, key: str | None = None) -> list[Version]:
        """Return every version of a model, oldest first."""
        model = self._model(self.log.state(), key)
        return [self._view(model, v.number) for v in model.versions]

    def champion(self, key: str | None = None) -> Version | None:
        """Return the version that serves, or None before the first promotion."""
        model = self._model(self.log.state(), key)
        return None if model.champion is None else self._view(model, model.champion)

    def challenger(self, key: str | None = None) -> Version | None:
        """Return the version that is tried beside the champion, or None."""
        model = self._model(self.log.state(), key)
        return None if model.challenger is None else self._view(model, model.challenger)

    def serving(self, key: str | None = None) -> tuple[Share, ...]:
        """Return which versions serve which part of the ids; empty before the first promotion."""
        champion = self.champion(key)
        return () if champion is None else (Share(champion, 1.0),)

    def keys(self) -> list[str | None]:
        """Return the model keys that have versions; ``[None]`` for a pipeline with one model."""
        return sorted(self.log.state(), key=lambda k: k or "")

    def history(self) -> list[dict[str, Any]]:
        """Return every commit, oldest first, as plain dicts with the same fields, for tables.

        ``seq, at, action, key, version, replaced, kind, reason, by, window, op_id``; ``action`` is
        ``register``, ``annotate``, ``promote`` or ``challenger``; ``replaced`` the champion before a promotion.
        """
        return [
            {
                "seq": e.seq,
                "at": e.at,
                "action": e.type,
                "key": e.key,
                "version": e.payload["version"],
                "replaced": e.payload.get("expected"),
                "kind": e.payload.get("kind"),
                "reason": e.payload.get("reason"),
                "by": e.payload.get("by"),
                "window": copy.deepcopy(e.payload.get("window")),
                "op_id": e.op_id,
            }
            for e in self.log.entries()
        ]

    # --- the fold --------------------------------------------------------------------------------

    def _fold(self, entries: tuple[Entry, ...]) -> _State:
        state: _State = {}
        for e in entries:
            model = state.setdefault(e.key, _Model())
            number = e.payload["version"]
            if e.type == "register":
                model.versions.append(Version(self.pipeline, number, e.key, e.payload["record"], registered_at=e.at))
                continue
            version = model.versions[number - 1]
            if e.type == "annotate":
                version.notes.setdefault(e.payload["kind"], []).append(e.payload["note"])
            elif e.type == "promote":
                model.champion = number
                model.challenger = None if model.challenger == number else model.challenger
                model.versions[number - 1] = replace(version, promoted_at=e.at)
            elif e.type == "challenger":
                model.challenger = number
            else:
                raise RegistryError(
                    f"entry {e.seq} of the registry of {self.pipeline} is of the unknown type {e.type!r}",
                    hint="it was written by a newer airflow-mlops: upgrade this installation",
                )
        return state

    def _view(self, model: _Model, number: int) -> Version:
        """A copy that the caller may change without changing the cached state."""
        version = model.versions[number - 1]
        if number == model.champion:
            status = "champion"
        elif number == model.challenger:
            status = "challenger"
        else:
            status = "candidate" if version.promoted_at is None else "retired"
        return replace(copy.deepcopy(version), status=status)

    def _exists(self, version: int, key: str | None) -> Callable[[_State], None]:
        def check(state: _State) -> None:
            newest = len(self._model(state, key).versions)
            if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= newest:
                raise VersionNotFound(
                    f"{_model(self.pipeline, key)} has no version {version!r}; "
                    + (f"its newest is v{newest}" if newest else f"nothing is registered in {self.store.uri}"),
                    hint=f"see `airflow mlops status {self.pipeline}`, or run the training DAG first",
                )

        return check

    @staticmethod
    def _model(state: _State, key: str | None) -> _Model:
        return state.get(key) or _Model()


def _model(pipeline: str, key: str | None) -> str:
    return pipeline if key is None else f"{pipeline}[{key}]"
