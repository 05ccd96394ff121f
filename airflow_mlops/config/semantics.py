"""Checks names in a pipeline file, and what is given with them, against the catalogue.

Only what the library would refuse for certain, or what can never do what it says, is an issue: what
the catalogue cannot judge passes. The data may be anything; what has no valid form is passed over.
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeGuard

from airflow_mlops.config.catalogue import (
    Catalogue,
    Estimator,
    Expectation,
    Kinds,
    Library,
    Metric,
    accepts,
    advice_for,
    catalogue,
    estimator,
    estimator_paths,
    nearest,
    short,
    shown,
    words,
)
from airflow_mlops.config.issues import Severity
from airflow_mlops.config.maturity import level_number
from airflow_mlops.config.yaml_source import Source

_TASKS = {"classifier": "classification", "regressor": "regression"}
_SUITED = {"classification": ("roc_auc", "log_loss"), "regression": ("r2", "rmse")}
_OWN_CALL = "make the model with `train.callable`"
_ANY_EXPECTATION = frozenset({"description", "meta", "notes", "severity"})
# All expressions of a file together; longer ones are left to the run. Ten of these characters can cost 5 ms.
_REGEX_CHARACTERS = 2_000
_MOST_SUGGESTIONS = 100
_SHOWN = 12

Path = tuple[Any, ...]


def check(source: Source) -> None:
    """Note unknown estimators, parameters, metrics, expectations and arguments, and values they cannot take."""
    data = source.data
    if isinstance(data, dict):
        found = _Findings(source)
        judged = _Model(found, data)
        judged.check()
        _expectations(found, _inner(data, "validate").get("expectations"))
        _skew(found, data)
        _rollout(found, data)


class _Findings:
    """Adds issues to a source.

    Those that rest on a library's names alone are warnings where another minor version of it is installed.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.known: Catalogue = catalogue()
        self._other: dict[Library, str] = {}
        self._regex_characters = 0

    def may_compile(self, pattern: str) -> bool:
        """Whether a regular expression is still within what a file may cost at each parse."""
        self._regex_characters += len(pattern)
        return self._regex_characters <= _REGEX_CHARACTERS

    def nearest(self, word: str, known: Sequence[str]) -> str | None:
        """The one of ``known`` that is meant; nobody reads the hundredth suggestion."""
        return nearest(word, known) if len(self.source.issues) < _MOST_SUGGESTIONS else None

    def add(
        self,
        path: Path,
        code: str,
        message: str,
        suggestion: str | None,
        library: Library | None = None,
        *,
        key: bool = False,
        severity: Severity = "error",
    ) -> None:
        if library and (other := self._other_version(library)):
            message, severity = f"{message} ({other})", "warning"
        where = ".".join(str(step) for step in path)
        self.source.add(self.source.place(path, key=key), code, message, suggestion, where, severity=severity)

    def _other_version(self, library: Library) -> str:
        """Of which versions are the catalogue and what is installed; empty when their minor versions are the same."""
        if library not in self._other:
            own = self.known["versions"][library]
            try:
                installed = importlib.metadata.version(library) or own
            except importlib.metadata.PackageNotFoundError:
                installed = own
            ours, theirs = (".".join(version.split(".")[:2]) for version in (own, installed))
            self._other[library] = "" if ours == theirs else f"as of {library} {ours}; {theirs} is installed"
        return self._other[library]

    def value(self, path: Path, owner: str, kinds: Kinds, value: Any, code: str, library: Library) -> None:
        """Note a value that none of ``kinds`` takes."""
        name, wanted = next(step for step in reversed(path) if isinstance(step, str)), words(kinds)
        message, advice = f"`{name}` of `{owner}` must be {wanted}, not {shown(value)}", advice_for(kinds, value)
        if not wanted:
            message, advice = f"`{name}` of `{owner}` takes what YAML cannot write", f"leave it out, or {_OWN_CALL}"
        self.add(path, code, message, advice, library)

    def unknown(self, path: Path, owner: str, what: str, known: list[str], library: Library) -> str | None:
        """Note a name that ``owner`` does not have; returns the known one that may be meant."""
        close = self.nearest(path[-1], known) if isinstance(path[-1], str) else None
        first, more = ", ".join(known[:_SHOWN]), len(known) - _SHOWN
        listed = f"it takes {first}" + (f" and {more} more" if more > 0 else "")
        message = f"`{owner}` has no {what} `{short(path[-1])}`"
        self.add(path, what, message, f"did you mean `{close}`?" if close else listed, library, key=True)
        return close


# --- the model and its metrics -------------------------------------------------------------------


class _Model:
    """What ``train``, ``evaluate`` and ``monitor`` say of one model."""

    def __init__(self, found: _Findings, data: dict[Any, Any]) -> None:
        self.found = found
        self.train = _inner(data, "train")
        self.search = _inner(self.train, "search")
        self.experiment = _inner(data, "experiment")
        self.evaluate = _inner(data, "evaluate")
        self.watched = _inner(_inner(data, "monitor"), "performance")
        self.labels = _inner(_inner(data, "validate"), "labels")
        self.name = self.train.get("estimator")
        self.estimator: Estimator | None = None
        task = data.get("task")
        self.task: str | None = task if task in ("classification", "regression") else None

    def check(self) -> None:
        if isinstance(self.name, str):
            self.estimator = estimator(self.name)
            if self.estimator is None:
                self._unknown_estimator(self.name)
            else:
                self._estimator(self.estimator, self.name.rpartition(".")[2])
        self._metrics()
        self._experiment()
        for limit in ("max_conflicts", "max_rate_change"):
            if self.task == "regression" and self.labels.get(limit) is not None:
                message = f"`{limit}` is for classes, and this pipeline is for regression"
                self.found.add(("validate", "labels", limit), "labels", message, "remove it", key=True)

    def _experiment(self) -> None:
        """The candidates' estimators, with their parameters and spaces, and the metric."""
        self._metric(self.experiment.get("metric"), ("experiment", "metric"))
        given = dict(_items(self.experiment, "candidates"))
        candidates = [one for one in given.values() if isinstance(one, dict)]
        inherit = [one for one in candidates if not one.get("estimator") and not one.get("space")]
        of_function = self.experiment.get("callable") is not None
        if self.estimator is not None and not of_function and (inherit or not candidates):
            self._space(self.estimator, str(self.name).rpartition(".")[2], self.experiment, ("experiment",))
        for i, candidate in given.items():
            if isinstance(candidate, dict):
                self._candidate(candidate, ("experiment", "candidates", i))

    def _candidate(self, candidate: dict[Any, Any], at: Path) -> None:
        name, entry, cls = candidate.get("estimator"), self.estimator, str(self.name).rpartition(".")[2]
        if name is not None:
            entry, cls = (estimator(name), name.rpartition(".")[2]) if isinstance(name, str) else (None, "")
            if isinstance(name, str) and entry is None:
                self._unknown_estimator(name, (*at, "estimator"))
            elif entry is not None and self.task not in (None, _TASKS.get(entry["kind"], "")):
                kind = entry["kind"] if entry["kind"] in _TASKS else "neither a classifier nor a regressor"
                message = f"`{cls}` is {'a ' * (kind in _TASKS)}{kind}, and this pipeline is for {self.task}"
                self.found.add((*at, "estimator"), "estimator", message, "take candidates of one kind")
        if entry is not None:
            for parameter, value in _inner(candidate, "params").items():
                self._parameter(entry["parameters"], (*at, "params", parameter), (value,), cls)
            self._space(entry, cls, candidate, at)

    def _space(self, entry: Estimator, cls: str, holder: dict[Any, Any], at: Path) -> None:
        resource = _inner(self.experiment, "halving").get("resource", "rows")
        if resource != "rows" and isinstance(resource, str) and resource not in entry["parameters"]:
            message = f"`{cls}` has no parameter `{short(resource)}` to ration"
            advice = "write `rows`, or a parameter that every candidate has"
            self.found.add(("experiment", "halving", "resource"), "parameter", message, advice, "scikit-learn")
        for parameter, values in _inner(holder, "space").items():
            self._parameter(entry["parameters"], (*at, "space", parameter), values, cls)

    def _unknown_estimator(self, name: str, at: Path = ("train", "estimator")) -> None:
        module, _, cls = name.rpartition(".")
        if module and not module.startswith("sklearn.") and module != "sklearn":
            return
        paths = estimator_paths()
        path = paths.get(cls) or paths.get(nearest(cls, list(paths)) or "")
        if not module:
            if path:
                key = "train.estimator" if at[0] == "train" else at[-1]
                message = f"`{key}` needs a dotted path, and `{short(name)}` is a name alone"
                self.found.add(at, "estimator", message, f"write {path}")
            return
        advice = "see scikit-learn's list of estimators"
        if path:
            advice = f"it is `{path}`" if cls in paths else f"did you mean `{path}`?"
        self.found.add(at, "estimator", f"scikit-learn has no estimator `{short(name)}`", advice, "scikit-learn")

    def _estimator(self, entry: Estimator, cls: str) -> None:
        at, params = ("train", "estimator"), _inner(self.train, "params")
        missing = [f"`{name}`" for name in entry["required"] if name not in params]
        if missing:
            message = f"`{cls}` cannot be made without {' and '.join(missing)}"
            self.found.add(at, "parameter", message, f"YAML cannot write other estimators: {_OWN_CALL}", "scikit-learn")
        elif entry["kind"] == "other":
            advice = "name one of the two, such as sklearn.ensemble.HistGradientBoostingClassifier"
            self.found.add(at, "estimator", f"`{cls}` is neither a classifier nor a regressor", advice)
        else:
            is_for = _TASKS[entry["kind"]]
            if self.task not in (None, is_for):
                needed = "classifier" if self.task == "classification" else "regressor"
                message = f"`{cls}` is a {entry['kind']}, and `task` is {self.task}"
                self.found.add(at, "estimator", message, f"name a {needed}, or write `task: {is_for}`")
                self.task = None  # which of the two is meant is not known
            else:
                self.task = is_for
        for name, value in params.items():
            self._parameter(entry["parameters"], ("train", "params", name), (value,), cls)
        for name, values in _inner(self.search, "space").items():
            self._parameter(entry["parameters"], ("train", "search", "space", name), values, cls)

    def _parameter(self, known: dict[str, Kinds], path: Path, values: Any, cls: str) -> None:
        """Judge one parameter; ``values`` is a list from the search space, or a tuple of the only value."""
        kinds = known.get(path[-1])
        if kinds is None:
            self.found.unknown(path, cls, "parameter", list(known), "scikit-learn")
            return
        for i, value in enumerate(values if isinstance(values, (list, tuple)) else ()):
            if not accepts(kinds, value):
                at = (*path, i) if isinstance(values, list) else path
                self.found.value(at, cls, kinds, value, "parameter", "scikit-learn")

    def _metrics(self) -> None:
        names, seen = _items(self.evaluate, "metrics"), set[str]()
        for i, name in names:
            self._metric(name, ("evaluate", "metrics", i))
            if isinstance(name, str) and name in seen:
                message = f"metric `{short(name)}` is listed twice"
                self.found.add(("evaluate", "metrics", i), "duplicate", message, "remove one", severity="warning")
            elif isinstance(name, str):
                seen.add(name)
        for i, gate in _items(self.evaluate, "gates"):
            metric = None
            if isinstance(gate, dict):
                metric = self._metric(gate.get("metric"), ("evaluate", "gates", i, "metric"))
                self._value(gate, _inner(gate, "value"), ("evaluate", "gates", i))
            if metric:
                self._gate(gate, metric, ("evaluate", "gates", i))
        self._metric(self.search.get("metric"), ("train", "search", "metric"))
        watched = self._metric(self.watched.get("metric"), ("monitor", "performance", "metric"))
        if watched and seen:
            self._measured(self.watched["metric"], seen)
        if self.watched.get("estimate") is True and (self.task == "regression" or self._lacks_probabilities()):
            message = "`estimate` needs a classifier's probabilities, and this model gives none"
            advice = "remove it: without outcomes nothing can be said of this model"
            self.found.add(("monitor", "performance", "estimate"), "metric", message, advice)
        if not self.evaluate.get("metrics") and self._lacks_probabilities():
            message = f"`{self.name}` gives no probabilities, and log_loss, a default of `evaluate.metrics`, needs them"
            advice = "set `evaluate.metrics`, such as [roc_auc, accuracy]"
            self.found.add(("train", "estimator"), "metric", message, advice)

    def _measured(self, watched: str, metrics: set[str]) -> None:
        """Note a watched metric that no evaluation measures: a fall needs the score at promotion to fall from."""
        gates = [gate.get("metric") for _, gate in _items(self.evaluate, "gates") if isinstance(gate, dict)]
        if watched not in metrics and watched not in gates:
            message = f"metric `{watched}` is watched, and no evaluation measures it: there is no score to fall from"
            advice = f"add it to `evaluate.metrics`, or watch one of {', '.join(sorted(metrics))}"
            self.found.add(("monitor", "performance", "metric"), "metric", message, advice)

    def _lacks_probabilities(self) -> bool:
        return self.estimator is not None and self.estimator.get("probabilities") is False

    def _metric(self, name: Any, path: Path) -> Metric | None:
        if not isinstance(name, str):
            return None
        known = self.found.known["metrics"]
        metric = known.get(name)
        if metric is None:
            close = self.found.nearest(name, list(known))
            advice = f"did you mean `{close}`?" if close else "use the name of a scikit-learn scorer, such as roc_auc"
            self.found.add(path, "metric", f"there is no metric `{short(name)}`", advice, "scikit-learn")
        elif not metric["tasks"]:
            message = f"metric `{name}` is for clustering, or for several labels a row"
            self.found.add(path, "metric", message, self._suited())
        elif self.task and (self.task == "regression") != ("regression" in metric["tasks"]):
            other = "classification" if self.task == "regression" else "regression"
            message = f"metric `{name}` is for {other}, and this pipeline is for {self.task}"
            self.found.add(path, "metric", message, self._suited())
        elif metric["probabilities"] and self._lacks_probabilities():
            message = f"metric `{name}` needs probabilities, and `{self.name}` gives none"
            advice = "use a metric without them, such as roc_auc or accuracy, or another estimator"
            self.found.add(path, "metric", message, advice)
        return metric

    def _suited(self) -> str:
        return "use for example " + " or ".join(_SUITED.get(self.task or "", ("roc_auc", "r2")))

    def _value(self, gate: dict[Any, Any], value: dict[Any, Any], path: Path) -> None:
        name, matrix, least = value.get("name"), value.get("matrix"), gate.get("at_least")
        if isinstance(name, str) and name in self.found.known["metrics"]:
            message = f"`{short(name)}` is the name of a metric, and of this value too"
            self.found.add((*path, "value", "name"), "gate", message, "call the value something else")
        if not isinstance(matrix, list) or not matrix:
            return
        if self.task == "regression":
            message = "a `matrix` is for classes, and this pipeline is for regression"
            self.found.add((*path, "value", "matrix"), "gate", message, "give a `callable`", key=True)
        worths = [v for row in matrix for v in (row if isinstance(row, list) else [row])]
        if worths and all(map(_is_number, worths)) and _is_number(least) and least > max(worths):
            message = f"no model can pass this gate: no row is worth more than {max(worths):g}"
            self.found.add((*path, "at_least"), "gate", message, None, key=True)

    def _gate(self, gate: dict[Any, Any], metric: Metric, path: Path) -> None:
        given = [key for key in ("at_least", "at_most") if gate.get(key) is not None]
        if len(given) != 1 or gate.get("versus") is not None or not _is_number(gate[given[0]]):
            return
        key, limit, name = given[0], gate[given[0]], gate["metric"]
        lower, best = metric["lower_is_better"], metric["best"]
        plain = name.removeprefix("neg_")
        loss = f"write {{metric: {plain}, at_most: …}}, where lower is better" if plain != name else None
        if key != ("at_most" if lower else "at_least"):
            better, right = ("lower", "at_most") if lower else ("higher", "at_least")
            message = f"`{key}` is the wrong side for `{name}`, of which {better} is better"
            self.found.add((*path, key), "gate", message, loss or f"write `{right}`", key=True)
        elif best is not None and (limit < best if lower else limit > best):
            message = f"no model can pass this gate: `{name}` is never {'below' if lower else 'above'} {best}"
            share = f"write {key}: {limit / 100:g}" if best == 1 and 1 < limit <= 100 else None
            self.found.add((*path, key), "gate", message, loss or share)


def _skew(found: _Findings, data: dict[Any, Any]) -> None:
    skew = _inner(data, "monitor").get("skew")
    if isinstance(skew, dict) and not skew.get("source") and not data.get("features"):
        message = "`monitor.skew` replays no code: there is no `features`, and batch inference reads what it keeps"
        advice = "set `source` to the rows as training reads them; leave it so if a server of your own writes captures"
        found.add(("monitor", "skew"), "skew", message, advice, key=True, severity="warning")


def _rollout(found: _Findings, data: dict[Any, Any]) -> None:
    deploy, monitor = _inner(data, "deploy"), _inner(data, "monitor")
    verdict = _inner(deploy, "verdict")
    if isinstance(monitor.get("labels"), dict) and verdict.get("max_shift") is not None:
        message = "`max_shift` judges a rollout without outcomes only, and `monitor.labels` says where they are"
        at, advice = ("deploy", "verdict", "max_shift"), "remove it: the gates against the champion decide"
        found.add(at, "rollout", message, advice, key=True, severity="warning")
    gates = _inner(data, "evaluate").get("gates")
    relative = [g for g in gates if isinstance(g, dict) and g.get("versus")] if isinstance(gates, list) else []
    steps = deploy.get("rollout")
    if isinstance(steps, list) and len(steps) > 1 and monitor.get("labels") and not relative:
        message = "no gate compares with the champion: the steps are judged by `monitor.performance.max_drop`"
        advice = "write the gate: {metric: …, versus: champion, not_worse_by: …}"
        found.add(("deploy", "rollout"), "rollout", message, advice, key=True, severity="warning")
    in_steps = len(steps) > 1 if isinstance(steps, list) else _level(data) == 2 and "train" in data
    if in_steps and not _inner(deploy, "batch").get("schedule"):
        message = "a rollout waits for windows that are scored, and `deploy.batch.schedule` is not set"
        advice = "set it, start `__predict` for each window by other means, or write `deploy: {rollout: [full]}`"
        where: Path = ("deploy", "rollout") if isinstance(steps, list) else ("level",)
        found.add(where, "rollout", message, advice, key=True, severity="warning")


def _level(data: dict[Any, Any]) -> int | None:
    with suppress(ValueError):
        return level_number(data.get("level"))
    return None


# --- expectations --------------------------------------------------------------------------------


def _expectations(found: _Findings, entries: Any) -> None:
    known = found.known["expectations"]
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict) or len(entry) != 1:
            continue
        ((name, arguments),) = entry.items()
        path = ("validate", "expectations", i, name)
        if not isinstance(name, str):
            continue
        if name in known:
            if isinstance(arguments, dict):
                _arguments(found, path, known[name], arguments)
            continue
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        close = snake if snake in known else found.nearest(snake, list(known))
        if not close and not name.startswith("expect_"):
            continue  # the form of the entry is wrong, and not its name
        advice = f"did you mean `{close}`?" if close else "see greatexpectations.io/expectations for the names"
        message = f"Great Expectations has no `{short(name)}`"
        found.add(path, "expectation", message, advice, "great-expectations", key=True)


def _arguments(found: _Findings, path: Path, entry: Expectation, given: dict[Any, Any]) -> None:
    known, owner, meant = entry["arguments"], path[-1], set[str | None]()
    for name, value in given.items():
        if name not in known:
            names = [n for n in known if n not in _ANY_EXPECTATION]
            meant.add(found.unknown((*path, name), owner, "argument", names, "great-expectations"))
        elif not accepts(known[name], value):
            found.value((*path, name), owner, known[name], value, "argument", "great-expectations")
        elif name == "regex":
            _regex(found, (*path, name), value)
        elif name == "regex_list" and isinstance(value, list):
            for i, pattern in enumerate(value):
                _regex(found, (*path, name, i), pattern)
    for name in entry["required"]:
        if name not in given and name not in meant:
            message, advice = f"`{owner}` needs `{name}`", f"add `{name}`: {words(known[name])}"
            found.add(path, "argument", message, advice, "great-expectations", key=True)
    low, high = given.get("min_value"), given.get("max_value")
    if low is None and high is None:
        if "one_of" in entry and not meant & {"min_value", "max_value"}:
            message = f"`{owner}` needs `min_value`, `max_value` or both"
            found.add(path, "argument", message, "add one of them", "great-expectations", key=True)
    elif _is_number(low) and _is_number(high) and low > high and {"min_value", "max_value"} <= known.keys():
        message = f"`min_value` is {shown(low)} and larger than `max_value`, {shown(high)}: no value fits"
        found.add((*path, "min_value"), "argument", message, "exchange the two")


def _regex(found: _Findings, path: Path, pattern: Any) -> None:
    if not isinstance(pattern, str) or not found.may_compile(pattern):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as e:
        message = f"`{path[-1] if isinstance(path[-1], str) else path[-2]}` is not a valid regular expression: {e}"
        found.add(path, "regex", message, "mend it; in single quotes YAML leaves backslashes alone")


# --- words and data ------------------------------------------------------------------------------


def _inner(mapping: dict[Any, Any], key: str) -> dict[Any, Any]:
    value = mapping.get(key)
    return value if isinstance(value, dict) else {}


def _items(mapping: dict[Any, Any], key: str) -> Iterator[tuple[int, Any]]:
    value = mapping.get(key)
    return enumerate(value if isinstance(value, list) else ())


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
