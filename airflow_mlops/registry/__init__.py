"""Model versions, aliases, and the append-only log they are folded from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.registry.entry import Entry, op_id
    from airflow_mlops.registry.log import Log
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.registry.version import Share, Version

__all__ = ["Entry", "Log", "Registry", "Share", "Version", "op_id"]

_LAZY = {
    "Entry": "entry",
    "op_id": "entry",
    "Log": "log",
    "Registry": "registry",
    "Share": "version",
    "Version": "version",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
