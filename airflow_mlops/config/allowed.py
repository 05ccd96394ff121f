"""Which code a pipeline may name: decided by the path alone, before anything is imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from airflow_mlops.exceptions import CodeNotAllowed

ALWAYS_ALLOWED = "sklearn"
_MODULE_ATTRIBUTE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*):([A-Za-z_][A-Za-z0-9_]*)")
_DOTTED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\.([A-Za-z_][A-Za-z0-9_]*)")


def lies_in(dotted: str, prefixes: Sequence[str]) -> bool:
    """Whether ``dotted`` is one of ``prefixes`` or below one, by whole components."""
    return any(dotted == p or dotted.startswith(p + ".") for p in prefixes)


def check_path(path: str, allowed: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return module, attribute and the prefixes that what they name may be defined in.

    :param path: ``pkg.mod:function`` or ``pkg.mod.Class``.
    :param allowed: packages, modules or full names, matched by whole components: ``my_pkg`` allows
        ``my_pkg.data``, never ``my_pkgevil``. Public names of scikit-learn are always allowed.
    :raises CodeNotAllowed: the path is malformed, private, or lies outside.
    """
    match = _MODULE_ATTRIBUTE.fullmatch(path) or _DOTTED.fullmatch(path)
    if not match:
        raise CodeNotAllowed(
            f"{path!r} is not a path to code", hint="write my_pkg.module:function or my_pkg.module.Class"
        )
    module, attribute = match.groups()
    full = f"{module}.{attribute}"
    components = full.split(".")
    if any(c.startswith("__") for c in components):
        raise CodeNotAllowed(
            f"{path!r} names something with a double underscore", hint="name a public class or function"
        )
    prefixes = [p.strip() for p in allowed if p.strip()]
    if not lies_in(full, prefixes):
        if components[0] != ALWAYS_ALLOWED:
            listed = ", ".join(prefixes) or "nothing"
            raise CodeNotAllowed(
                f"{path!r} is not in [mlops] allowed_imports (allowed: {listed})",
                hint="name code of your own"
                if components[0] in sys.stdlib_module_names
                else f"add its package, for example {components[0]}, to [mlops] allowed_imports",
            )
        if any(c.startswith("_") or c == "externals" for c in components):
            raise CodeNotAllowed(f"{path!r} is private to scikit-learn", hint="use the public name")
        prefixes.append(ALWAYS_ALLOWED)
    return module, attribute, prefixes
