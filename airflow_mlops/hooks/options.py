"""The ``[mlops]`` section of Airflow's configuration."""

from __future__ import annotations

from airflow.sdk import conf

from airflow_mlops.config.settings import Settings
from airflow_mlops.exceptions import ConfigError


def option(name: str, default: str = "") -> str:
    """Return ``[mlops] name``, or ``default`` where it is not set."""
    value = conf.get("mlops", name, fallback=None)
    return value if value not in (None, "") else default


def options(name: str, default: str = "") -> tuple[str, ...]:
    """Return the parts of ``[mlops] name``, which is written with commas."""
    return tuple(filter(None, (part.strip() for part in option(name, default).split(","))))


def switch(name: str) -> bool:
    """Whether ``[mlops] name`` is on."""
    return option(name).lower() in ("true", "1", "yes")


def switch_or_none(name: str) -> bool | None:
    """Whether ``[mlops] name`` is on; ``None`` where it is not set.

    :raises ConfigError: it is neither on nor off; what guards the loading of code is not guessed.
    """
    value = option(name).strip().lower()
    if value in ("true", "1", "yes"):
        return True
    if value in ("false", "0", "no"):
        return False
    if value:
        raise ConfigError(f"[mlops] {name} is {value!r}", hint="write True or False")
    return None


def settings(environment: str | None = None) -> Settings:
    """Return what the deployment decides for pipeline files.

    :param environment: instead of ``[mlops] environment``.
    """
    return Settings(
        environment=environment or option("environment") or None,
        allowed_variables=options("allowed_variables", ",".join(Settings.allowed_variables)),
        allowed_imports=options("allowed_imports"),
        allow_commands=switch("allow_commands"),
    )
