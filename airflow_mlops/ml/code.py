"""Loading a user's code by its dotted path, from allowed packages only."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Sequence

from airflow_mlops.config.allowed import check_path, lies_in
from airflow_mlops.exceptions import CodeNotAllowed


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
    module_name, attribute, prefixes = check_path(path, allowed)
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
    if not isinstance(home, str) or not (lies_in(home, prefixes) or lies_in(f"{home}.{attribute}", prefixes)):
        raise CodeNotAllowed(
            f"{path!r} was defined in {home}, which is not in [mlops] allowed_imports",
            hint="name it where it is defined, and allow that package",
        )
    return found
