"""Checks names in a pipeline file, and what is given with them, against the catalogue.

Only what the library would refuse for certain, or what can never do what it says, is an issue: what
the catalogue cannot judge passes. The data may be anything; what has no valid form is passed over.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow_mlops.config.catalogue import Estimator, Kinds, Metric, accepts, estimator, estimator_paths, nearest, short
from airflow_mlops.config.expectation_names import check_expectations
from airflow_mlops.config.findings import OWN_CALL, Findings, Path, inner, is_number, items
from airflow_mlops.config.maturity import level_number
from airflow_mlops.config.yaml_source import Source

_TASKS = {"classifier": "classification", "regressor": "regression"}
_SUITED = {"classification": ("roc_auc", "log_loss"), "regression": ("r2", "rmse")}


def check(source: Source) -> None:
    """Note unknown estimators, parameters, metrics, expectations and arguments, and values they cannot take."""
    data = source.data
    if isinstance(data, dict):
        found = Findings(source)
        judged = _Model(found, data)
        judged.check()
        check_expectations(found, inner(data, "validate"))
        _skew(found, data)
        _rollout(found, data)
        _fleet(found, data)


class _Model:
    """What ``train``, ``evaluate`` and ``monitor`` say of one model."""

    def __init__(self, found: Findings, data: dict[Any, Any]) -> None:
        self.found = found
        self.train = inner(data, "train")
        self.search = inner(self.train, "search")
        self.experiment = inner(data, "experiment")
        self.evaluate = inner(data, "evaluate")
        self.watched = inner(inner(data, "monitor"), "performance")
        self.labels = inner(inner(data, "validate"), "labels")
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
        given = dict(items(self.experiment, "candidates"))
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
            for parameter, value in inner(candidate, "params").items():
                self._parameter(entry["parameters"], (*at, "params", parameter), (value,), cls)
            self._space(entry, cls, candidate, at)

    def _space(self, entry: Estimator, cls: str, holder: dict[Any, Any], at: Path) -> None:
        resource = inner(self.experiment, "halving").get("resource", "rows")
        if resource != "rows" and isinstance(resource, str) and resource not in entry["parameters"]:
            message = f"`{cls}` has no parameter `{short(resource)}` to ration"
            advice = "write `rows`, or a parameter that every candidate has"
            self.found.add(("experiment", "halving", "resource"), "parameter", message, advice, "scikit-learn")
        for parameter, values in inner(holder, "space").items():
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
        at, params = ("train", "estimator"), inner(self.train, "params")
        missing = [f"`{name}`" for name in entry["required"] if name not in params]
        if missing:
            message = f"`{cls}` cannot be made without {' and '.join(missing)}"
            self.found.add(at, "parameter", message, f"YAML cannot write other estimators: {OWN_CALL}", "scikit-learn")
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
        for name, values in inner(self.search, "space").items():
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
        names, seen = items(self.evaluate, "metrics"), set[str]()
        for i, name in names:
            self._metric(name, ("evaluate", "metrics", i))
            if isinstance(name, str) and name in seen:
                message = f"metric `{short(name)}` is listed twice"
                self.found.add(("evaluate", "metrics", i), "duplicate", message, "remove one", severity="warning")
            elif isinstance(name, str):
                seen.add(name)
        for i, gate in items(self.evaluate, "gates"):
            metric = None
            if isinstance(gate, dict):
                metric = self._metric(gate.get("metric"), ("evaluate", "gates", i, "metric"))
                self._value(gate, inner(gate, "value"), ("evaluate", "gates", i))
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
        gates = [gate.get("metric") for _, gate in items(self.evaluate, "gates") if isinstance(gate, dict)]
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
        if worths and all(map(is_number, worths)) and is_number(least) and least > max(worths):
            message = f"no model can pass this gate: no row is worth more than {max(worths):g}"
            self.found.add((*path, "at_least"), "gate", message, None, key=True)

    def _gate(self, gate: dict[Any, Any], metric: Metric, path: Path) -> None:
        given = [key for key in ("at_least", "at_most") if gate.get(key) is not None]
        if len(given) != 1 or gate.get("versus") is not None or not is_number(gate[given[0]]):
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


def _skew(found: Findings, data: dict[Any, Any]) -> None:
    skew = inner(data, "monitor").get("skew")
    if isinstance(skew, dict) and not skew.get("source") and not data.get("features"):
        message = "`monitor.skew` replays no code: there is no `features`, and batch inference reads what it keeps"
        advice = "set `source` to the rows as training reads them; leave it so if a server of your own writes captures"
        found.add(("monitor", "skew"), "skew", message, advice, key=True, severity="warning")


def _rollout(found: Findings, data: dict[Any, Any]) -> None:
    deploy, monitor = inner(data, "deploy"), inner(data, "monitor")
    verdict = inner(deploy, "verdict")
    if isinstance(monitor.get("labels"), dict) and verdict.get("max_shift") is not None:
        message = "`max_shift` judges a rollout without outcomes only, and `monitor.labels` says where they are"
        at, advice = ("deploy", "verdict", "max_shift"), "remove it: the gates against the champion decide"
        found.add(at, "rollout", message, advice, key=True, severity="warning")
    gates = inner(data, "evaluate").get("gates")
    relative = [g for g in gates if isinstance(g, dict) and g.get("versus")] if isinstance(gates, list) else []
    steps = deploy.get("rollout")
    if isinstance(steps, list) and len(steps) > 1 and monitor.get("labels") and not relative:
        message = "no gate compares with the champion: the steps are judged by `monitor.performance.max_drop`"
        advice = "write the gate: {metric: …, versus: champion, not_worse_by: …}"
        found.add(("deploy", "rollout"), "rollout", message, advice, key=True, severity="warning")
    in_steps = len(steps) > 1 if isinstance(steps, list) else _level(data) == 2 and "train" in data
    # A fleet's versions are champions at once, and a file that asks for steps is refused.
    if in_steps and "fleet" not in data and not inner(deploy, "batch").get("schedule"):
        message = "a rollout waits for windows that are scored, and `deploy.batch.schedule` is not set"
        advice = "set it, start `__predict` for each window by other means, or write `deploy: {rollout: [full]}`"
        where: Path = ("deploy", "rollout") if isinstance(steps, list) else ("level",)
        found.add(where, "rollout", message, advice, key=True, severity="warning")


def _fleet(found: Findings, data: dict[Any, Any]) -> None:
    retrain = inner(data, "retrain")
    when = retrain.get("when")
    if not inner(data, "fleet") or retrain.get("schedule") or not isinstance(when, list) or not when:
        return
    if "new_data" not in when:
        # These train the keys that alarmed. A key without a model of its own has no alarm: nothing is compared with it.
        message = (
            "only alarms start trainings, and a new key has none: it gets a model when other keys alarm, not before"
        )
        advice = 'add `schedule`, such as "@monthly", or `new_data` to `when`'
        found.add(("retrain", "when"), "fleet", message, advice, key=True, severity="warning")


def _level(data: dict[Any, Any]) -> int | None:
    with suppress(ValueError):
        return level_number(data.get("level"))
    return None
