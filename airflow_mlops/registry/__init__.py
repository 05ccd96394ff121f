"""Model versions, aliases, and the append-only log they are folded from."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_mlops.registry.log import Entry, Log, op_id
    from airflow_mlops.registry.registry import Registry, Share, Version

__all__ = ["Entry", "Log", "Registry", "Share", "Version", "op_id"]

_LAZY = {
    "Entry": "log",
    "Log": "log",
    "op_id": "log",
    "Registry": "registry",
    "Share": "registry",
    "Version": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
