"""What a pipeline file asks for and the deployment does not allow."""

from __future__ import annotations

from typing import Any

from airflow_mlops.config.allowed import check_path
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Source
from airflow_mlops.exceptions import CodeNotAllowed

CODE = (
    ("data", "callable"), ("features", "callable"), ("train", "estimator"), ("train", "callable"),
    ("experiment", "callable"),
)  # fmt: skip
CANDIDATES = ("experiment", "candidates")
GATES = ("evaluate", "gates")
NOTIFIERS = ("notify", "notifiers")
# Notifiers of Airflow and of its providers need no permission.
AIRFLOW = "airflow"


def check(source: Source, settings: Settings) -> None:
    """Note every path to code outside of the allowed imports, and a command where none may run.

    ``source.data`` may hold anything; what has no valid form is passed over.
    """
    if settings.allowed_imports is not None:
        for path in CODE:
            _code(source, path, settings.allowed_imports)
        gates = _at(source, GATES)
        for i in range(len(gates)) if isinstance(gates, list) else ():
            _code(source, (*GATES, i, "value", "callable"), settings.allowed_imports)
        candidates = _at(source, CANDIDATES)
        for i in range(len(candidates)) if isinstance(candidates, list) else ():
            for key in ("estimator", "features"):
                _code(source, (*CANDIDATES, i, key), settings.allowed_imports)
        notifiers = _at(source, NOTIFIERS)
        for i in range(len(notifiers)) if isinstance(notifiers, list) else ():
            _code(source, (*NOTIFIERS, i, "class"), (AIRFLOW, *settings.allowed_imports))
    command = ("train", "command")
    if settings.allow_commands is False and isinstance(_at(source, command), str):
        message = "`train.command` runs a program, and this deployment does not allow that"
        advice = "set [mlops] allow_commands = True, or use `estimator` or `callable`"
        source.add(source.place(command, key=True), "command", message, advice, "train.command")


def _at(source: Source, path: tuple[Any, ...]) -> Any:
    found, value = source.resolve(path)
    return value if found == path else None


def _code(source: Source, path: tuple[Any, ...], allowed: tuple[str, ...]) -> None:
    value = _at(source, path)
    # A path without a dot or colon is malformed, and said to be so elsewhere.
    if not isinstance(value, str) or not {".", ":"} & set(value):
        return
    try:
        check_path(value, allowed)
    except CodeNotAllowed as e:
        name = ".".join(str(step) for step in path)
        source.add(source.place(path), "import", f"`{name}`: {e.message}", e.hint, name)
