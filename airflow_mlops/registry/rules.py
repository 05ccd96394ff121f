"""What may be done to a version, given the state."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_mlops.exceptions import PromotionConflict, RegistryError, VersionNotFound
from airflow_mlops.registry.models import Model
from airflow_mlops.registry.rollout import Rollout, rollout_of
from airflow_mlops.registry.state import State
from airflow_mlops.registry.version import model_name


@dataclass(frozen=True)
class Rules:
    """The rules of one pipeline; each raises what stands in the way."""

    pipeline: str
    where: str

    def exists(self, state: State, version: int, key: str | None) -> Model:
        """Return the model that has this version.

        :raises VersionNotFound: when it has not.
        """
        model = state.model(key)
        newest = len(model.places)
        if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= newest:
            raise VersionNotFound(
                f"{model_name(self.pipeline, key)} has no version {version!r}; "
                + (f"its newest is v{newest}" if newest else f"nothing is registered in {self.where}"),
                hint=f"see `airflow mlops status {self.pipeline}`, or run the training DAG first",
            )
        return model

    def may_serve(self, state: State, version: int, key: str | None) -> Model:
        """Return the model, whose version is not retired.

        :raises RegistryError: when it is.
        """
        model = self.exists(state, version, key)
        if "retired" in state.row(model, version).more:
            raise RegistryError(self.retired(version, key), hint="train and register a new version")
        return model

    def retired(self, version: int, key: str | None) -> str:
        """Say that a version is retired."""
        return f"{model_name(self.pipeline, key)} v{version} is retired: it cannot serve again"

    def may_promote(self, state: State, version: int, expected: int | None, key: str | None) -> None:
        """Whether a version may become champion after ``expected``.

        :raises PromotionConflict: when the champion is another one.
        """
        champion = self.may_serve(state, version, key).champion
        if champion != expected:
            raise self.conflict(key, champion, expected)

    def may_begin(self, state: State, version: int, expected: int, key: str | None) -> None:
        """Whether a version may begin a rollout beside ``expected``.

        :raises PromotionConflict: when the champion is another one, or another version is rolling out.
        """
        self.may_promote(state, version, expected, key)
        model = state.model(key)
        if version == model.champion:
            raise RegistryError(
                f"{model_name(self.pipeline, key)} v{version} is the champion: there is nothing to roll out"
            )
        if model.rollout is not None:
            under_way = rollout_of(model.rollout)
            raise PromotionConflict(
                f"{model_name(self.pipeline, key)} v{under_way.version} is rolling out ({under_way.name})",
                hint="wait for its end, or end it by hand first",
            )

    def rolling(self, state: State, version: int, key: str | None) -> Rollout:
        """Return the rollout of a version.

        :raises RegistryError: when it is not rolling out.
        """
        kept = self.exists(state, version, key).rollout
        if kept is None or kept["version"] != version:
            other = f"v{kept['version']} is" if kept is not None else "no version is"
            raise RegistryError(
                f"{model_name(self.pipeline, key)} v{version} is not rolling out: {other}",
                hint=f"see `airflow mlops registry history {self.pipeline}`",
            )
        return rollout_of(kept)

    def rolls(self, state: State, rollout: Rollout, key: str | None) -> None:
        """Whether a rollout is still where it was looked at.

        :raises PromotionConflict: when it is not.
        """
        kept = state.model(key).rollout
        if kept is None or rollout_of(kept) != rollout:
            now = f"is at {rollout_of(kept).name} of v{kept['version']} by now" if kept is not None else "has ended"
            raise PromotionConflict(
                f"the rollout of {model_name(self.pipeline, key)} v{rollout.version} {now}",
                hint="somebody was faster: look at the registry's history",
            )

    def before(self, state: State, expected: int, key: str | None) -> int:
        """Return the champion before ``expected``.

        :raises PromotionConflict: when the champion is another one.
        :raises RegistryError: when there was none before.
        """
        model = self.exists(state, expected, key)
        if model.champion != expected:
            raise PromotionConflict(
                f"{self._unexpected(key, model.champion, expected)}: nothing is rolled back",
                hint="somebody was faster: look whether the present champion is the one to leave",
            )
        if not model.before:
            raise RegistryError(
                f"{model_name(self.pipeline, key)} has no champion before v{expected} to return to",
                hint="promote another version, or fix what feeds this one",
            )
        return model.before[-1]

    def may_retire(self, state: State, version: int, key: str | None) -> None:
        """Whether a version may be retired.

        :raises RegistryError: when it is the champion.
        """
        if self.exists(state, version, key).champion == version:
            raise RegistryError(
                f"{model_name(self.pipeline, key)} v{version} is the champion: it cannot be retired",
                hint="promote another version first, or roll back",
            )

    def conflict(self, key: str | None, champion: int | None, expected: int | None) -> PromotionConflict:
        """Say that the champion is not the one a promotion was decided against."""
        return PromotionConflict(
            f"{self._unexpected(key, champion, expected)}: re-evaluate",
            hint="evaluate again, against the present champion; a person who has decided gives it as --expected"
            + (f" {champion}" if champion is not None else " none"),
        )

    def _unexpected(self, key: str | None, champion: int | None, expected: int | None) -> str:
        now = f"v{champion}" if champion is not None else "not set"
        then = f"v{expected}" if expected is not None else "none"
        return f"{model_name(self.pipeline, key)}@champion is {now}, expected {then}"
