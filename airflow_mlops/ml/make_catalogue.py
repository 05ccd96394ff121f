"""Write the catalogue of names that pipeline files are checked against, from the installed libraries.

``python -m airflow_mlops.ml.make_catalogue > airflow_mlops/config/catalogue.json``

Kinds of values are those of :mod:`airflow_mlops.config.catalogue`. What YAML has no value for, such as
a function or a fitted estimator, is left out of the kinds; what cannot be told is ``any``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator
from datetime import date
from enum import Enum
from numbers import Integral, Real
from typing import Any

import sklearn
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.utils import _param_validation as validation
from sklearn.utils.discovery import all_estimators

from airflow_mlops.exceptions import EvaluationError
from airflow_mlops.ml import expectations, metrics

Kinds = list[Any]

LIBRARIES = ("great-expectations", "scikit-learn")
_NOT_FOR_USERS = {"conftest", "estimator_checks", "experimental", "externals", "tests"}
_SAMPLES = {"bool": True, "dict": {}, "list": [], "str": "a", "int": 1, "float": 0.5}
_INTERVALS = {Integral: "int", Real: "number", validation.RealNotInt: "float"}
_WORDS: dict[str, Kinds] = {
    "boolean": ["bool"],
    "verbose": ["bool", {"int": [0, None, "left"]}],
    "random_state": ["none", {"int": [0, 2**32 - 1, "both"]}],
    "cv_object": ["dict", "list", "none", {"int": [2, None, "left"]}],
    "array-like": ["dict", "list"],
    "sparse matrix": [],
}


def catalogue() -> dict[str, dict[str, Any]]:
    """The whole catalogue, as plain JSON; the same libraries give the same."""
    estimators, aliases = _estimators()
    return {
        "aliases": aliases,
        "estimators": estimators,
        "expectations": _expectations(),
        "metrics": _metrics(),
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def text(content: dict[str, dict[str, Any]]) -> str:
    """JSON with sorted keys and one entry a line."""
    sections = []
    for section, entries in sorted(content.items()):
        lines = [f"  {json.dumps(name)}: {_compact(entry)}" for name, entry in sorted(entries.items())]
        sections.append(f" {json.dumps(section)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


# --- estimators ----------------------------------------------------------------------------------


def _estimators() -> tuple[dict[str, Any], dict[str, str]]:
    """Estimators by the path where they are at home, and other public paths → that path."""
    modules = list(_modules())
    found: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for name, cls in all_estimators():
        holders = [m for m in modules if getattr(m, name, None) is cls]
        # The shortest of those that publish it; some modules have no list of what they publish.
        homes = [m.__name__ for m in holders if name in getattr(m, "__all__", ()) or cls.__module__ == m.__name__]
        home = min(homes, key=lambda m: (m.count("."), len(m), m))
        found[f"{home}.{name}"] = _estimator(cls)
        aliases |= {f"{m.__name__}.{name}": f"{home}.{name}" for m in holders if m.__name__ != home}
    return found, aliases


def _modules() -> Iterator[types.ModuleType]:
    for module in pkgutil.walk_packages(sklearn.__path__, "sklearn."):
        parts = module.name.split(".")
        if not _NOT_FOR_USERS & set(parts) and not any(p.startswith("_") for p in parts):
            yield importlib.import_module(module.name)


def _estimator(cls: type) -> dict[str, Any]:
    arguments = inspect.signature(cls).parameters
    constraints = getattr(cls, "_parameter_constraints", {})
    entry: dict[str, Any] = {
        "kind": "other",
        "parameters": {name: _parameter(constraints.get(name, "no_validation")) for name in arguments},
        "required": sorted(n for n, a in arguments.items() if a.default is a.empty),
    }
    if issubclass(cls, ClassifierMixin):
        # A class that has it on some conditions only has it here.
        entry |= {"kind": "classifier", "probabilities": hasattr(cls, "predict_proba")}
    elif issubclass(cls, RegressorMixin):
        entry["kind"] = "regressor"
    return entry


def _parameter(constraints: Any) -> Kinds:
    if constraints == "no_validation":
        return ["any"]
    return _tidy([kind for constraint in constraints for kind in _constraint(constraint)])


def _constraint(constraint: Any) -> Kinds:
    if isinstance(constraint, validation.Hidden):
        constraint = constraint.constraint
    if constraint is None:
        return ["none"]
    if isinstance(constraint, str):
        return list(_WORDS.get(constraint, ["any"]))
    if isinstance(constraint, validation.Interval):
        return [{_INTERVALS[constraint.type]: [_end(constraint.left), _end(constraint.right), constraint.closed]}]
    if isinstance(constraint, validation.Options):
        options = [o for o in constraint.options if isinstance(o, str | int | float) and o not in (math.inf, -math.inf)]
        return [{"options": sorted(options, key=str)}] if options else []
    if isinstance(constraint, validation.MissingValues):
        return ["any"]
    made = validation.make_constraint(constraint)
    fits = {kind for kind, sample in _SAMPLES.items() if made.is_satisfied_by(sample)}
    whole: Any = {"int", "bool"}
    if fits >= whole:
        fits -= whole | {"float"}
        kind = "number" if made.is_satisfied_by(_SAMPLES["float"]) else "int"
        return [*fits, {kind: [None, None, "neither"]}]
    return [{"float": [None, None, "neither"]} if kind == "float" else kind for kind in fits]


def _end(value: Any) -> int | float | None:
    if value is None or math.isinf(value):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def _tidy(kinds: Kinds) -> Kinds:
    if "any" in kinds:
        return ["any"]
    return sorted({_compact(kind): kind for kind in kinds}.values(), key=_compact)


# --- metrics -------------------------------------------------------------------------------------


def _metrics() -> dict[str, Any]:
    scorers = get_scorer_names()
    names = {*scorers, *(n.removeprefix("neg_") for n in scorers), *metrics._SHORT}
    return {name: _metric(metrics.Metric(name)) for name in names}


def _metric(metric: metrics.Metric) -> dict[str, Any]:
    tasks: list[tuple[str, metrics.Task, int | None]] = [
        ("binary", "classification", 2), ("multiclass", "classification", 3), ("regression", "regression", None),
    ]  # fmt: skip
    best = metric.limited(math.inf)
    if metric.scorer_name.startswith("neg_"):
        best = 0.0  # the opposite of a loss
    return {
        "best": int(best) if math.isfinite(best) else None,
        "lower_is_better": metric.lower_is_better,
        "probabilities": get_scorer(metric.scorer_name)._response_method == "predict_proba",
        "tasks": [name for name, task, n_classes in tasks if _suits(metric, task, n_classes)],
    }


def _suits(metric: metrics.Metric, task: metrics.Task, n_classes: int | None) -> bool:
    try:
        metric.check_task(task, n_classes)
    except EvaluationError:
        return False
    return True


# --- expectations --------------------------------------------------------------------------------


def _expectations() -> dict[str, Any]:
    registry = expectations.gx_registry
    found = {}
    for name in registry.list_registered_expectation_implementations():
        implementation = registry.get_expectation_impl(name)
        # Whoever runs this may have registered more.
        if name.startswith("expect_") and implementation.__module__.startswith("great_expectations."):
            found[name] = _expectation(name, implementation)
    return found


def _expectation(name: str, implementation: Any) -> dict[str, Any]:
    fields = {k: f for k, f in implementation.__fields__.items() if k not in expectations._OURS}
    arguments = {k: _tidy(_argument(k, f)) for k, f in fields.items()}
    required = sorted(k for k, f in fields.items() if f.required)
    entry = {
        "arguments": arguments,
        "columns": [k for k in expectations._COLUMN_KEYS if k in fields],
        "required": required,
    }
    least = dict.fromkeys(required, "a")
    if not _builds(implementation, least) and _builds(implementation, {**least, "min_value": 1}):
        entry["one_of"] = ["min_value", "max_value"]
    return entry


def _builds(implementation: Any, arguments: dict[str, Any]) -> bool:
    try:
        implementation(**arguments)
    except ValueError:  # pydantic's own is one
        return False
    return True


def _argument(name: str, field: Any) -> Kinds:
    if name == "row_condition":
        return ["none", "str"]  # conditions as objects have no form in YAML
    return _annotation(field.outer_type_) + (["none"] if field.allow_none else [])


def _annotation(annotation: Any) -> Kinds:
    """Kinds of what pydantic, which converts, takes for a type."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _annotation(inner[0])
    if origin in (typing.Union, types.UnionType):
        # A mapping beside something else names a parameter of the suite.
        return [k for a in inner for k in (["suite_parameter"] if a is dict else _annotation(a))]
    if origin is typing.Literal:
        return [{"options": sorted(inner)}]
    if annotation is type(None):
        return ["none"]
    plain = origin or annotation
    if not isinstance(plain, type):
        return ["any"]
    if issubclass(plain, Enum):
        return [{"options": sorted(member.value for member in plain)}]
    if issubclass(plain, float) and plain is not float:
        low, high = getattr(plain, "ge", None), getattr(plain, "le", None)
        return [{"real": [low, high, "both"]}]
    if issubclass(plain, str) and plain is not str:
        return ["str"]
    if plain is tuple or issubclass(plain, str | int | float | date | dict):
        simple = {tuple: "list", str: "scalar", bool: "flag", int: "count", float: "real", dict: "dict"}
        return [simple.get(plain, "time")]
    if hasattr(plain, "__fields__"):
        return ["dict"]
    if hasattr(plain, "__iter__"):
        items = _annotation(inner[0]) if inner else ["any"]
        return ["list"] if "any" in items else [{"items": items}]
    return ["any"]


if __name__ == "__main__":
    sys.stdout.write(text(catalogue()))
