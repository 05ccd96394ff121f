"""``airflow mlops plan``: what another level would change, in the file and in Airflow. Changes nothing."""

from __future__ import annotations

import copy
import dataclasses
import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_mlops.cli.describe import entry, level_names, read, starts, width
from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.issue_list import shorten
from airflow_mlops.config.catalogue import catalogue, estimator
from airflow_mlops.config.maturity import LEVELS, VOCABULARIES, level_number, vocabularies
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.origins import origin_of
from airflow_mlops.config.yaml_source import Source, parse
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.factory.outline import DagOutline, outline

_OF_A_FLEET = {
    (1, "promotion"): "gates decide key by key; approval is optional",
    (1, "monitoring"): "data, drift, performance, staleness, key by key",
    (2, "start"): "as at level 1; a change of the pipeline by a commit, which `airflow mlops ci` tries with some keys",
    (2, "promotion"): "as at level 1: a fleet has no shadow and no canary",
}


@dataclass(frozen=True)
class Addition:
    """A key that the file lacks: ``snippet`` is YAML to paste, as it stands, at the file's left margin."""

    key: str
    why: str
    snippet: str


@dataclass(frozen=True)
class Removal:
    """A key that may not stay; ``origin`` is ``file:line``, ``layer`` as in :mod:`airflow_mlops.config.origins`."""

    key: str
    why: str
    origin: str
    layer: str


@dataclass(frozen=True)
class DagChange:
    """One DAG: ``change`` is ``added``, ``removed``, ``changed`` or ``unchanged``; a tuple is empty where it is not."""

    id: str
    change: str
    starts_now: tuple[str, ...]
    starts_then: tuple[str, ...]
    tasks_added: tuple[str, ...]
    tasks_removed: tuple[str, ...]
    form_added: tuple[str, ...]
    form_removed: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A change of level: ``missing`` must come into the file, ``optional`` may, ``remove`` must go.

    :param fleet: whether there is a model for each key.
    """

    pipeline: str
    now: int
    then: int
    missing: tuple[Addition, ...]
    optional: tuple[Addition, ...]
    remove: tuple[Removal, ...]
    dags: tuple[DagChange, ...]
    fleet: bool = False


@clear_errors
def plan(args: Namespace) -> None:
    """``airflow mlops plan``."""
    try:
        then = level_number(args.level)
    except ValueError as e:
        raise ConfigError(f"--level: {e}") from e
    config, source, _ = read(args)
    as_json = args.output == "json"
    planned = plan_level(config, source, then)
    if as_json:
        print(json.dumps(_plain(planned), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_text(planned, source, width())))


def plan_level(config: PipelineConfig, source: Source, then: int) -> Plan:
    """Plan the change of ``config``, which was read from ``source``, to the level ``then``."""
    if then == config.level:
        return Plan(config.pipeline, then, then, (), (), (), (), config.fleet is not None)
    missing, optional = (_missing(config), _optional(config)) if then and not config.level else ((), ())
    if then == 2:
        needed, may = _rollout_at_2(config)
        missing, optional = missing + needed, optional + may
    remove = tuple(_removals(config, source, then)) if then < config.level else ()
    hypothetical = copy.deepcopy(source.data) | {"level": then}
    for removal in remove:
        _drop(hypothetical, removal.key.split("."))
    for addition in missing:
        _add(hypothetical, parse(addition.snippet, addition.key).data)
    after = PipelineConfig.model_validate(hypothetical, by_alias=True, by_name=False)
    dags = tuple(_changes(config, after))
    return Plan(config.pipeline, config.level, then, missing, optional, remove, dags, config.fleet is not None)


def _missing(config: PipelineConfig) -> tuple[Addition, ...]:
    """What the levels above need and a file of level 0 lacks."""
    why = "from level 1 it trains by itself: say when; `when: [new_data, drift, …]` trains on events too"
    found = [Addition("retrain", why, 'retrain:\n  schedule: "@weekly"\n')]
    if not config.evaluate.gates:
        metric, least = _metric(config)
        gate = f"evaluate:\n  gates:\n    - {{metric: {metric}, at_least: {least}}}\n"
        why = "gates decide about promotion in the place of a person; metric and number are for you to choose"
        found.append(Addition("evaluate.gates", why, gate))
    return tuple(found)


def _optional(config: PipelineConfig) -> tuple[Addition, ...]:
    """What the levels above can do with keys that a file of level 0 may not have, or are better with."""
    found = []
    if config.data.timestamp is None:
        why = "the column that says which rows belong to a run's window, and how much history training reads"
        found.append(Addition("data.timestamp", why, "data:\n  timestamp: COLUMN\n  window: 90d\n"))
    elif config.data.window is None:
        why = "how much history training reads; without it a run reads the days since the last one"
        found.append(Addition("data.window", why, "data:\n  window: 90d\n"))
    if not any(gate.versus for gate in config.evaluate.gates):
        gate = f"{{metric: {_metric(config)[0]}, versus: champion, not_worse_by: 0.005}}"
        why = "a model that is worse than the champion is not promoted; one more item of the list"
        found.append(Addition("evaluate.gates", why, f"evaluate:\n  gates:\n    - {gate}\n"))
    found += [
        Addition(
            "deploy.batch.schedule",
            "score without a person; without it the DAG __predict is started by hand",
            'deploy:\n  batch:\n    schedule: "@daily"\n',
        ),
        Addition(
            "monitor",
            "check what was scored for drift, in a DAG __monitor; `retrain.when: [drift]` then trains on it",
            "monitor:\n  max_age: 60d\n",
        ),
    ]
    return tuple(found)


def _rollout_at_2(config: PipelineConfig) -> tuple[tuple[Addition, ...], tuple[Addition, ...]]:
    """What must and what may be said of rollouts, which only level 2 has."""
    if config.deploy.rollout is not None or config.fleet is not None:
        return (), ()
    if config.deploy.batch.sagemaker is not None:
        why = "level 2 rolls out in steps, and `deploy.batch.sagemaker` predicts with one version: give up one of them"
        return (Addition("deploy.rollout", why, "deploy:\n  rollout: [full]\n"),), ()
    steps = "[shadow, {canary: 0.1}, full]" if config.data.id is not None else "[shadow, full]"
    why = "the steps from candidate to champion; these are the default, and `[full]` is none"
    return (), (Addition("deploy.rollout", why, f"deploy:\n  rollout: {steps}\n"),)


def _metric(config: PipelineConfig) -> tuple[str, str]:
    """A metric for a gate, one of the file's if it can be, and a first threshold."""
    known = catalogue()["metrics"]
    named = [name for name in config.evaluate.metrics if name in known]
    made = estimator(config.train.estimator or "")
    regression = any("regression" in known[name]["tasks"] for name in named)
    if config.task or made:
        regression = config.task == "regression" or (made is not None and made["kind"] == "regressor")
    usable = (name for name in named if known[name]["best"] == 1 and not known[name]["lower_is_better"])
    return next(usable, "r2" if regression else "roc_auc"), "0.0" if regression else "0.5"


def _removals(config: PipelineConfig, source: Source, then: int) -> Iterator[Removal]:
    """What a lower level refuses."""
    by_hand, at_once = "level 0 is started by a person", "below level 2 a version that passes is champion at once"
    rolls = config.deploy.rollout if len(config.deploy.rollout or ()) > 1 else None
    verdict = config.deploy.verdict if "verdict" in config.deploy.model_fields_set else None
    after = config.retrain.experiment_after if config.retrain is not None else None
    keys: dict[str, tuple[Any, str]] = {
        "deploy.rollout": (rolls, at_once),
        "deploy.verdict": (verdict, at_once),
        "retrain.experiment_after": (after, "level 2 alone asks for experiments"),
    }
    if then == 0:
        del keys["retrain.experiment_after"]  # the whole of `retrain` goes
    by_level_0: dict[str, tuple[Any, str]] = {
        "data.watch": (config.data.watch, f"nothing waits for new files: {by_hand}"),
        "deploy.batch.schedule": (config.deploy.batch.schedule, by_hand),
        "monitor": (config.monitor, "level 0 has no monitoring"),
        "retrain": (config.retrain, by_hand),
    }
    for key, (value, why) in (keys | (by_level_0 if then == 0 else {})).items():
        if value is not None:
            yield Removal(key, why, *origin_of(source, tuple(key.split("."))))


def _drop(data: dict[str, Any], path: list[str]) -> None:
    for key in path[:-1]:
        data = data[key]
    del data[path[-1]]


def _add(data: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _add(data[key], value)
        else:
            data[key] = value


def _changes(now: PipelineConfig, then: PipelineConfig) -> Iterator[DagChange]:
    before, after = ({dag.id: dag for dag in outline(config).dags} for config in (now, then))
    for name in dict.fromkeys([*before, *after]):
        yield _change(name, before.get(name), after.get(name))


def _change(name: str, old: DagOutline | None, new: DagOutline | None) -> DagChange:
    tasks = _difference(_task_ids(old), _task_ids(new))
    form = _difference(old.form if old else (), new.form if new else ())
    # What follows what is compared too: the same tasks in another order are a change.
    change = "added" if old is None else "removed" if new is None else "unchanged" if old == new else "changed"
    return DagChange(name, change, old.starts if old else (), new.starts if new else (), *tasks, *form)


def _task_ids(dag: DagOutline | None) -> tuple[str, ...]:
    return tuple(task.id for task in dag.tasks) if dag else ()


def _difference(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is only in ``new``, and what is only in ``old``."""
    return tuple(x for x in new if x not in old), tuple(x for x in old if x not in new)


def _plain(planned: Plan) -> dict[str, Any]:
    data = dataclasses.asdict(planned)
    data["now"], data["then"] = level_names(planned.now), level_names(planned.then)
    return {"changes": planned.now != planned.then} | data


def _text(planned: Plan, source: Source, columns: int) -> Iterator[str]:
    if planned.now == planned.then:
        yield from entry(f"{planned.pipeline}:", f"level {planned.now} already; nothing changes.", columns)
        yield from _levels(planned, columns)
        return
    yield f"{planned.pipeline}: from level {planned.now} to level {planned.then}. Nothing is changed by this command."
    yield ""
    yield from _levels(planned, columns)
    yield ""
    yield "THE FILE"
    yield from _file(planned, source, columns)
    yield ""
    stand_ins = " and ".join(f"`{a.key}`" for a in planned.missing)
    yield f"THE DAGS{f', with {stand_ins} as above' if stand_ins else ''}"
    for dag in planned.dags:
        yield from _dag(dag, columns)


def _levels(planned: Plan, columns: int) -> Iterator[str]:
    before, after = vocabularies(planned.now), vocabularies(planned.then)
    for name, title in VOCABULARIES.items():
        now, then = ("; ".join(map(str, terms[name])) for terms in (before, after))
        yield from entry(f"  {title:<13}", now if now == then else f"{now} → {then}", columns)
    if planned.now == planned.then:
        return
    for aspect in ("start", "promotion", "monitoring"):
        now, then = (_aspect(level, aspect, planned.fleet) for level in (planned.now, planned.then))
        yield from entry(f"  {aspect:<13}", f"{now} → {then}", columns)


def _aspect(level: int, aspect: str, fleet: bool) -> str:
    """What a level is in one respect; a fleet has no steps from candidate to champion and no experiments."""
    own = _OF_A_FLEET.get((level, aspect)) if fleet else None
    return own or str(getattr(LEVELS[level], aspect))


def _file(planned: Plan, source: Source, columns: int) -> Iterator[str]:
    origin, layer = origin_of(source, ("level",))
    yield from entry("  write  ", f"level: {planned.then}   ({_place(origin, layer)})", columns)
    for removal in planned.remove:
        where = _place(removal.origin, removal.layer)
        yield from entry("  remove ", f"{removal.key}   ({where}): {removal.why}", columns)
        if removal.layer == "extends":
            yield from entry("         ", "or, for this file alone, write it here with an empty value", columns)
    for word, additions in (("missing", planned.missing), ("may add", planned.optional)):
        for addition in additions:
            yield from entry(f"  {word}", f"{addition.key}: {addition.why}", columns)
            top = addition.key.partition(".")[0]
            origin, layer = origin_of(source, (top,))
            if layer != "default":
                yield f"      # into `{top}`, {_place(origin, layer)}"
            yield from (f"      {line}" for line in addition.snippet.splitlines())


def _place(origin: str, layer: str) -> str:
    filename, _, line = origin.rpartition(":")
    return f"{shorten(filename)}:{line}" + (f", {layer}" if layer.startswith("environment") else "")


def _dag(dag: DagChange, columns: int) -> Iterator[str]:
    sign = {"added": "+", "removed": "-", "changed": "~", "unchanged": "="}[dag.change]
    yield f"  {sign} {dag.id}   {dag.change}"
    if dag.change == "added":
        yield from starts("      started by", dag.starts_then, columns)
    elif dag.change != "removed" and dag.starts_now != dag.starts_then:
        yield from starts("      was started by", dag.starts_now, columns)
        yield from starts("      is started by ", dag.starts_then, columns)
    for sign, names in (("+", dag.tasks_added), ("-", dag.tasks_removed)):
        if names:
            yield from entry(f"      {sign} tasks", ", ".join(names), columns)
    for sign, names in (("+", dag.form_added), ("-", dag.form_removed)):
        if names and dag.change == "changed":
            yield from entry(f"      {sign} form ", ", ".join(names), columns)
