"""What the deployment that reads a pipeline file decides for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Set by Airflow's ``[mlops]`` configuration, or by whoever reads a file without Airflow.

    :param environment: the overlay of ``environments`` that counts; ``None``: none.
    :param allowed_variables: names of environment variables that ``${env:NAME}`` may use; a ``*`` at
        the end stands for any ending.
    :param allowed_imports: import prefixes for code that a file names; ``None``: not checked here.
    :param allow_commands: whether ``train.command`` may be used; ``None``: not checked here.
    :param need_variables: off: a variable that is not set is a warning, and its value is not checked.
    """

    environment: str | None = None
    allowed_variables: tuple[str, ...] = ("MLOPS_*",)
    allowed_imports: tuple[str, ...] | None = None
    allow_commands: bool | None = None
    need_variables: bool = True
