"""Loading a user's code by its dotted path, from allowed packages only."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Sequence

from airflow_mlops.exceptions import CodeNotAllowed

_MODULE_ATTRIBUTE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*):([A-Za-z_][A-Za-z0-9_]*)")
_DOTTED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\.([A-Za-z_][A-Za-z0-9_]*)")
ALWAYS_ALLOWED = "sklearn"


def _lies_in(dotted: str, prefixes: Sequence[str]) -> bool:
    """Whether ``dotted`` is one of ``prefixes`` or below one, by whole components."""
    return any(dotted == p or dotted.startswith(p + ".") for p in prefixes)


def resolve(path: str, allowed: Sequence[str]) -> object:
    """Import and return the class or function at ``path``.

    :param path: ``pkg.mod:function`` or ``pkg.mod.Class``.
    :param allowed: packages, modules or full names user code may come from (``[mlops] allowed_imports``), matched
        by whole components: ``my_pkg`` allows ``my_pkg.data``, never ``my_pkgevil``. Public names of scikit-learn
        are always allowed.
    :raises CodeNotAllowed: when the path lies outside, when what it names was defined outside (an imported
        ``os.system`` is not code of ``my_pkg``), or when it is no class or function. Nothing is imported before
        the path itself has passed.
    """
    match = _MODULE_ATTRIBUTE.fullmatch(path) or _DOTTED.fullmatch(path)
    if not match:
        raise CodeNotAllowed(
            f"{path!r} is not a path to code", hint="write my_pkg.module:function or my_pkg.module.Class"
        )
    module_name, attribute = match.groups()
    full = f"{module_name}.{attribute}"
    components = full.split(".")
    if any(c.startswith("__") for c in components):
        raise CodeNotAllowed(
            f"{path!r} names something with a double underscore", hint="name a public class or function"
        )
    prefixes = [p.strip() for p in allowed if p.strip()]
    if not _lies_in(full, prefixes):
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
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name and (module_name == e.name or module_name.startswith(e.name + ".")):
            raise CodeNotAllowed(
                f"{path!r}: there is no module {e.name!r}",
                hint="check the spelling, and that the package is installed where the task runs",
            ) from e
        raise CodeNotAllowed(f"{path!r}: importing {module_name} failed: {e}", hint=f"install {e.name!r}") from e
    except Exception as e:  # whatever a user's module does while it is imported
        raise CodeNotAllowed(
            f"{path!r}: importing {module_name} failed: {type(e).__name__}: {e}", hint="the module must be importable"
        ) from e
    missing = object()
    found = getattr(module, attribute, missing)
    if found is missing:
        near = difflib.get_close_matches(attribute, [n for n in dir(module) if not n.startswith("_")], 1)
        raise CodeNotAllowed(
            f"{path!r}: {module_name} has no {attribute!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint="check the spelling",
        )
    if not (inspect.isclass(found) or inspect.isroutine(found)):
        raise CodeNotAllowed(f"{path!r} is a {type(found).__name__}", hint="name a class or a function")
    home = getattr(found, "__module__", None)
    if not isinstance(home, str) or not (_lies_in(home, prefixes) or _lies_in(f"{home}.{attribute}", prefixes)):
        raise CodeNotAllowed(
            f"{path!r} was defined in {home}, which is not in [mlops] allowed_imports",
            hint="name it where it is defined, and allow that package",
        )
    return found
