"""Begin the training of a fleet: count its keys, divide its rows, learn what all models have in common."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_mlops.config.models import Data, Evaluate, Features, Fleet, Train
from airflow_mlops.exceptions import TrainingError
from airflow_mlops.ml.candidate import made_from
from airflow_mlops.ml.data import Snapshot
from airflow_mlops.ml.features import classes_of
from airflow_mlops.ml.fleet.judging import check_fleet_gates
from airflow_mlops.ml.fleet.keys import ALL, is_parent
from airflow_mlops.ml.fleet.partition import Counts, Log, divide, shard_count, training_rows, write_shards
from airflow_mlops.ml.fleet.plan import Plan, broken_of
from airflow_mlops.ml.fleet.prepare import SAMPLE_ROWS, prepare, sample_rows
from airflow_mlops.ml.gates import gate_metrics
from airflow_mlops.ml.holdout import truth
from airflow_mlops.ml.metrics import default_metrics
from airflow_mlops.ml.training import task_of
from airflow_mlops.ml.wear import claim_use, spends
from airflow_mlops.registry.artifacts import environment, store_model
from airflow_mlops.registry.lineage import config_hash
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Signer
from airflow_mlops.store import put_json
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class FleetSettings:
    """The sections of a fleet's pipeline that its training reads.

    :param delivered: ``{"delivered": …}`` where the code came with a delivery, for the record.
    """

    fleet: Fleet
    data: Data
    train: Train
    evaluate: Evaluate
    features: Features | None = None
    task: str | None = None
    delivered: Mapping[str, Any] = field(default_factory=dict)


def begin_fleet(
    store: Store,
    registry: Registry,
    snapshot_ref: dict[str, Any],
    settings: FleetSettings,
    *,
    slots: int,
    due: Collection[str] | None,
    newcomers: bool = False,
    absent_before: Mapping[str, int],
    about: dict[str, Any],
    run: dict[str, Any],
    allowed_imports: Sequence[str],
    signer: Signer | None,
    log: Log,
) -> Plan:
    """Plan a training run: which keys are trained by which shard. Everything is in the store when it returns.

    The same snapshot and settings give the same plan, so that a second try changes nothing.

    :param slots: tasks that the executor runs at a time.
    :param due: keys to train; ``None``: all.
    :param newcomers: whether keys that have rows enough and never had a model are trained with those that are ``due``:
        nothing watches them, so that nothing else would ask for them.
    :param absent_before: by key, in how many trainings in a row it had no rows before this one.
    :raises DataError: no key has rows enough; a column is missing; rows without a key.
    :raises TrainingError: the estimator cannot be built.
    """
    fleet, train = settings.fleet, settings.train
    check_fleet_gates(settings.evaluate.gates)
    snapshot = Snapshot.load(store, snapshot_ref)
    counts = Counts(store, snapshot, fleet)
    log("%s keys in %s rows", f"{len(counts.keys):,}", f"{snapshot.rows:,}")
    set_aside = broken_of(store, snapshot_ref)
    known_models = {key for key in registry.keys() if key is not None}  # noqa: SIM118 - it is no dict
    if due is not None:
        _tell_unknown(due, {*counts.keys, *counts.groups, ALL, *set_aside, *known_models}, log)
        if newcomers:
            new = {k for k, rows in counts.keys.items() if rows >= fleet.min_rows} - known_models - set(due)
            if new:
                log("%s keys have rows enough and no model yet, and are trained too: %s", f"{len(new):,}", _some(new))
            due = {*due, *new}
    wanted = set(counts.keys) if due is None else set(counts.keys) & set(due)
    broken = {key: why for key, why in set_aside.items() if due is None or key in due}
    own = {key: counts.keys[key] for key in wanted if counts.keys[key] >= fleet.min_rows}
    fallback = {key: (counts.keys[key], counts.parent(key)) for key in wanted if key not in own}
    parents = {ALL, *(g for g, rows in counts.groups.items() if rows >= fleet.min_rows)}
    # A group that is too small itself is served by the model of all rows.
    fallback = {key: (rows, parent if parent in parents else ALL) for key, (rows, parent) in fallback.items()}
    champions = {key for key in registry.champions() if key is not None}
    # One that had rows enough before keeps its model.
    fallback |= {key: (fallback[key][0], key) for key in fallback.keys() & champions}
    if due is not None:
        parents &= set(due)
    if fallback:
        own_model = sum(parent == key for key, (_, parent) in fallback.items())
        log(
            "Keys with fewer than %d rows: %s, which a parent serves, and %s, whose own champion goes on serving",
            fleet.min_rows, f"{len(fallback) - own_model:,}", f"{own_model:,}",
        )  # fmt: skip
    rows = sum(own.values())
    stretches = divide(own, shard_count(len(own), rows, fleet.shard_size, slots)) if own else []
    if not stretches and not parents:
        raise _nothing(due, wanted, counts, fleet, broken)
    # What all models share is learned from all keys, however few are trained.
    among = training_rows(store, snapshot, fleet, counts, settings.data, train.seed) if due is not None else None
    shards = write_shards(
        store, snapshot, fleet, stretches, counts, parents=parents, seed=train.seed, log=log,
        sample=SAMPLE_ROWS if due is not None else 0, among=among,
    )  # fmt: skip
    known = [shards.pop()] if due is not None else shards
    of = _shared(
        store, registry.pipeline, snapshot_ref, known, settings, about, run, allowed_imports, signer, log,
        split=due is None,
    )  # fmt: skip
    served = {key for key in champions - set(counts.keys) - set(set_aside) if not is_parent(key)}
    plan = Plan(
        registry.pipeline,
        of,
        tuple(shards),
        fallback,
        # A run for some keys, maybe of a short window, says nothing of the others.
        {key: absent_before.get(key, 0) + (due is None) for key in served},
        tuple(sorted({*counts.keys, *set_aside} - wanted - set(broken))),
        broken,
        _wear(store, registry.pipeline, snapshot.fingerprint, of, settings, compared=bool(champions)),
        partial=due is not None,
    ).save(store)
    models, parts = "model" if plan.keys == 1 else "models", "shard" if len(shards) == 1 else "shards"
    log("%s %s to train in %d %s", f"{plan.keys:,}", models, len(shards), parts)
    return plan


def _some(keys: Collection[str], most: int = 5) -> str:
    return ", ".join(sorted(keys)[:most]) + (" …" if len(keys) > most else "")


def _tell_unknown(due: Collection[str], known: Collection[str], log: Log) -> None:
    """Say which keys to train are neither in the data nor in the registry.

    :raises TrainingError: all of them.
    """
    unknown = sorted(set(due) - set(known))
    if not unknown:
        return
    near = difflib.get_close_matches(unknown[0], [*known], 3)
    meant = f"did you mean {' or '.join(near)} for {unknown[0]}?" if near else "see airflow mlops fleet status"
    told = (
        f"{len(unknown):,} of the {len(due):,} keys to train are neither in the data nor have a model: {_some(unknown)}"
    )
    if len(unknown) == len(due):
        raise TrainingError(told, hint=meant)
    log("%s; %s", told, meant)


def _nothing(
    due: Collection[str] | None, wanted: Collection[str], counts: Counts, fleet: Fleet, broken: Mapping[str, str]
) -> TrainingError:
    if due is not None and broken:
        key, why = next(iter(broken.items()))
        return TrainingError(
            f"{len(broken):,} of the {len(due):,} keys to train {'is' if len(broken) == 1 else 'are'} set aside, {key} "
            f"because: {why}; no other one has {fleet.min_rows} rows, and what serves them goes on",
            hint="repair these rows; the validation report has all keys",
        )
    if due is not None and wanted:
        most = max(counts.keys[key] for key in wanted)
        return TrainingError(
            f"none of the {len(due):,} keys to train has {fleet.min_rows} rows in this window, the most has {most:,}; "
            "what serves them goes on",
            hint="use a longer data.window, or lower fleet.min_rows",
        )
    if due is not None:
        return TrainingError(
            f"none of the {len(due):,} keys to train has rows in this window", hint="use a longer data.window"
        )
    return TrainingError(
        f"none of the {len(counts.keys):,} keys has {fleet.min_rows} rows",
        hint="bring more rows, or lower fleet.min_rows",
    )


def _shared(
    store: Store,
    pipeline: str,
    snapshot_ref: dict[str, Any],
    shards: Sequence[Any],
    settings: FleetSettings,
    about: dict[str, Any],
    run: dict[str, Any],
    allowed: Sequence[str],
    signer: Signer | None,
    log: Log,
    *,
    split: bool,
) -> str:
    """Learn and store what all versions have in common; return its digest."""
    data, train, evaluate = settings.data, settings.train, settings.evaluate
    sample, columns = sample_rows(
        store, shards, data, features=settings.features, allowed_imports=allowed, seed=train.seed, split=split
    )
    schema, steps, estimator = prepare(sample, columns, data, settings.fleet, train, allowed)
    task = task_of(estimator, settings.task, str(train.estimator))
    if task == "classification":
        classes = schema.classes or classes_of(sample[data.target].dropna(), data.model_copy(update={"positive": 0}))
        schema = replace(schema, classes=classes)
        ordered, _ = truth(sample[data.target].dropna(), "classification", classes, schema.positive)
    else:
        schema, ordered = replace(schema, classes=None, positive=None), None
    metrics = evaluate.metrics or default_metrics(task, len(ordered) if ordered else None)  # type: ignore[arg-type]
    log("%s features, learned from %s training rows", len(schema.features), f"{len(sample):,}")
    for name, why in schema.excluded:
        log("Not a feature: %s (%s)", name, why)
    made_of = made_from(data, train, settings.features)
    made_of["code"] |= settings.delivered
    config = made_of["config"] | {"fleet": settings.fleet.model_dump(mode="json", exclude={"resources"})}
    made = store_model(store, steps, signer=signer, pipeline=pipeline)
    return put_json(
        store,
        {
            "model": {
                "format": "pack",
                "prepare": {k: v for k, v in made.items() if k != "environment"},
                "environment": environment(),
            },
            "schema": schema.to_dict(),
            "task": task,
            "ordered": list(ordered) if ordered is not None else None,
            "printed": list(dict.fromkeys([*metrics, *gate_metrics(evaluate.gates)])),
            "snapshot": snapshot_ref,
            **made_of,
            "config": config,
            "config_hash": config_hash(config),
            "seed": train.seed,
            "estimator": train.estimator,
            "params": train.params,
            "warnings": [],
            "about": about,
            "run": run,
        },
    )


def _wear(
    store: Store, pipeline: str, fingerprint: str, of: str, settings: FleetSettings, *, compared: bool
) -> dict[str, Any] | None:
    """Count this run among the decisions on its holdout, which is one for the whole fleet."""
    gates = settings.evaluate.gates
    if not gates:
        return None
    name = f"{fingerprint} {settings.train.seed} {settings.data.split.model_dump_json()}"
    wear = claim_use(
        store,
        pipeline,
        hashlib.sha256(name.encode()).hexdigest(),
        candidate=of,
        champion=None,
        limit=settings.evaluate.holdout_uses,
        spends=spends(gates, 1 if compared else None),
    )
    return wear.to_dict()
