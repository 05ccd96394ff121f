"""How a command names a model: ``churn``, ``churn@champion``, ``churn@challenger``, ``churn:7``, ``churn[KEY]:7``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_mlops.exceptions import ConfigError, VersionNotFound

if TYPE_CHECKING:
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.registry.version import Version
    from airflow_mlops.store.base import Store

FORMS = "churn, churn@champion, churn@challenger, churn:7 or, in a fleet, churn[KEY]:7"
ALIASES = ("champion", "challenger")

_FORM = re.compile(
    r"(?P<pipeline>[A-Za-z0-9][A-Za-z0-9_.\-]*)(?:\[(?P<key>.+)\])?(?:@(?P<alias>[^:@\[\]]*)|:(?P<number>[^:@\[\]]*))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class ModelRef:
    """A model as a command names it: a version's number, or an alias."""

    pipeline: str
    key: str | None = None
    alias: str = "champion"
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read one of the forms; without version and alias it is the champion.

        :raises ConfigError: it is none of them.
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise ConfigError(f"{text!r} names no model", hint=f"write {FORMS}")
        alias, number = form["alias"], form["number"]
        if alias is not None and alias not in ALIASES:
            near = difflib.get_close_matches(alias, ALIASES, 1)
            raise ConfigError(
                f"{text!r}: there is no alias {alias!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"the aliases are {' and '.join(ALIASES)}",
            )
        if number is None:
            return cls(form["pipeline"], form["key"], alias or "champion")
        wanted = version_number(number)
        if wanted is None:
            near = difflib.get_close_matches(number, ALIASES, 1)
            raise ConfigError(
                f"{text!r}: {number!r} is no version",
                hint=f"an alias stands after '@': {text.rpartition(':')[0]}@{near[0]}"
                if near
                else "versions are numbers: 1, 2, 3, …",
            )
        return cls(form["pipeline"], form["key"], number=wanted)

    def __str__(self) -> str:
        key = "" if self.key is None else f"[{self.key}]"
        return f"{self.pipeline}{key}{f'@{self.alias}' if self.number is None else f':{self.number}'}"

    def find(self, store: Store) -> Version:
        """Return the version.

        :raises VersionNotFound: there is no such pipeline, key or version, or nobody has the alias; with near names.
        """
        from airflow_mlops.registry.records import stored_pipelines
        from airflow_mlops.registry.registry import Registry

        registry = Registry(store, self.pipeline)
        keys = registry.keys()
        if not keys:
            known = [p for p in stored_pipelines(store) if p != self.pipeline]
            raise VersionNotFound(
                f"{self.pipeline} has no versions in {store.uri}", hint=_near(self.pipeline, known, "pipeline")
            )
        if self.key not in keys:
            raise self._no_key(keys)
        return self._alias(registry) if self.number is None else self._version(registry, self.number)

    def _no_key(self, keys: Sequence[str | None]) -> VersionNotFound:
        named = [k for k in keys if k is not None]
        if self.key is None:
            few = ", ".join(named[:5]) + (", …" if len(named) > 5 else "")
            return VersionNotFound(
                f"{self.pipeline} has a model for each of {len(named):,} keys: {few}",
                hint=f"name one of them: {ModelRef(self.pipeline, named[0], self.alias, self.number)}",
            )
        if not named:
            return VersionNotFound(
                f"{self.pipeline} is no fleet: it has one model, without a key",
                hint=f"write {ModelRef(self.pipeline, None, self.alias, self.number)}",
            )
        return VersionNotFound(f"{self.pipeline} has no model for {self.key!r}", hint=_near(self.key, named, "key"))

    def _alias(self, registry: Registry) -> Version:
        found = registry.champion(self.key) if self.alias == "champion" else registry.challenger(self.key)
        if found is None:
            newest = registry.versions(self.key)[-1].number
            raise VersionNotFound(
                f"{self.pipeline} has no {self.alias}",
                hint=f"its newest version is {ModelRef(self.pipeline, self.key, number=newest)}",
            )
        return found

    def _version(self, registry: Registry, number: int) -> Version:
        try:
            return registry.get(number, self.key)
        except VersionNotFound as e:
            newest = registry.versions(self.key)[-1].number
            raise VersionNotFound(
                f"there is no {self}", hint=f"its versions are 1 to {newest}" if newest > 1 else "its only version is 1"
            ) from e


def version_number(text: str) -> int | None:
    """The version that ``7`` or ``v7`` means; None: it is no version's number."""
    digits = text.removeprefix("v")
    # Python refuses to read thousands of digits.
    found = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
    return found or None


def _near(name: str, known: Sequence[str], what: str) -> str:
    if not known:
        return "check [mlops] store, or train first"
    if near := difflib.get_close_matches(name, known, 3):
        return f"did you mean {' or '.join(near)}?"
    return f"the {what}s are {', '.join(sorted(known)[:5])}{', …' if len(known) > 5 else ''}"
