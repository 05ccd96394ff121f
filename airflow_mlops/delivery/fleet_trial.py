"""What is tried of a fleet in CI: the training of some of its keys, as their tasks would do it.

As :mod:`airflow_mlops.delivery.trial`, and each function in a process of its own likewise. Which keys,
:func:`airflow_mlops.ml.fleet.sampling.choose_keys` says. One that the gates reject is a result of the fleet, as in
Airflow; what every key comes to is in the answer, and what all of them come to together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Data, Evaluate, PipelineConfig
from airflow_mlops.exceptions import EvaluationError, TrainingError
from airflow_mlops.pipeline import Pipeline, Say

if TYPE_CHECKING:
    import pandas as pd

    from airflow_mlops.ml.evaluation import Evaluation
    from airflow_mlops.ml.expectations_sql import Database
    from airflow_mlops.ml.files import Files
    from airflow_mlops.ml.fleet.plan import Plan
    from airflow_mlops.ml.reading import Sql
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.store.base import Store

COMPARED_STEPS = ("fleet.partition", "fleet.train")
"""Steps whose cost is compared: those that both sides run."""
BEFORE = ".before"
"""Ends the name that the pipeline before a change has in CI's store, where that of the one after is another model."""
KEY, PLACE = "airflow_mlops.key", "airflow_mlops.place"
"""Columns of the features that training saw: the key of a row, and its place among the rows of its key."""
GOES_ON = ("passed", "no_baseline")
_ROWS, _TOLD = 200, 5


def train(
    config: PipelineConfig,
    folder: Path,
    store: Store,
    *,
    files: Files,
    sql: Sql | None,
    database: Database | None = None,
    sample: int,
    start: str | None,
    end: str | None,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
    say: Say,
) -> dict[str, Any]:
    """Run the training of a fleet on the rows of some keys and register their models in ``store``.

    :param store: one of CI's own: nothing in it is served. There, each model becomes the champion of its key.
    :returns: what came of it, as plain JSON: as :func:`airflow_mlops.delivery.trial.train` of one model, the metrics
        over the rows of all keys together; ``fleet`` has the keys.
    :raises TrainingError: no key has a model of its own.
    :raises MLOpsError: as the steps do.
    """
    from airflow_mlops.delivery.trial import load_libraries
    from airflow_mlops.ml.fleet.plan import Plan
    from airflow_mlops.ml.snapshot import Snapshot

    load_libraries()
    config = _in_one_shard(config, sample)
    result = Pipeline(config, folder=folder, allowed_imports=allowed_imports).run_fleet(
        sample=sample,
        start=start,
        end=end,
        store=store,
        register=True,
        say=say,
        sql=sql,
        database=database,
        trusted_types=trusted_types,
        files=files,
    )
    plan, rows = Plan.load(store, result.plan), list(result.rows)
    found = _about(
        config, store, plan, rows, result.costs, allowed_imports=allowed_imports, trusted_types=trusted_types
    )
    snapshot = Snapshot.load(store, result.snapshot)
    return found | {
        "verdict": result.verdict,
        "gates": [*_limits(config.evaluate, found["fleet"]["keys"]), *found["gates"]],
        "snapshot": result.snapshot,
        "columns": [*snapshot.columns],
    }


def train_before(
    config: PipelineConfig,
    folder: Path,
    store: Store,
    *,
    snapshot: dict[str, Any],
    data: Data,
    seed: int,
    evaluate: Evaluate,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
) -> dict[str, Any]:
    """Train the same keys as the pipeline before a change does, on the snapshot, split and seed of the one after it.

    :param data: of the pipeline after. :param evaluate: of the pipeline after: which metrics and limits count.
    :returns: as :func:`train`, without ``verdict``, ``snapshot`` and ``columns``.
    """
    from airflow_mlops.delivery.trial import SPLIT, load_libraries
    from airflow_mlops.local_fleet import STEPS
    from airflow_mlops.local_run import LocalRun
    from airflow_mlops.ml.cost import Meter
    from airflow_mlops.ml.files import Files

    load_libraries()
    split = {name: getattr(data, name) for name in SPLIT} | {"min_rows": 1}
    config = _in_one_shard(config, snapshot["rows"]).model_copy(
        update={
            "pipeline": config.pipeline + BEFORE,
            "data": config.data.model_copy(update=split),
            "train": config.train.model_copy(update={"seed": seed}),
            "evaluate": evaluate,
        }
    )
    run = LocalRun(
        config,
        folder,
        store,
        Files(root="."),
        "before",
        lambda title, page: None,
        register=True,
        allowed_imports=allowed_imports,
        trusted_types=trusted_types,
        snapshot=snapshot,
    )
    costs = []
    for step in (*COMPARED_STEPS, "evaluate.gates"):
        meter = Meter()
        try:
            STEPS[step](run)
        except Exception as e:
            e.add_note(f"in the step {step} of {config.pipeline.removesuffix(BEFORE)}")
            raise
        costs.append({"task": step, **meter.read()})
    return _about(
        config,
        store,
        run.fleet["plan"],
        run.fleet["rows"],
        costs,
        allowed_imports=allowed_imports,
        trusted_types=trusted_types,
    )


def _in_one_shard(config: PipelineConfig, keys: int) -> PipelineConfig:
    """The pipeline with all keys in one shard: how work is divided is a matter of the executor."""
    fleet = config.fleet
    return config.model_copy(update={"fleet": fleet and fleet.model_copy(update={"shard_size": max(keys, 1)})})


def _about(
    config: PipelineConfig,
    store: Store,
    plan: Plan,
    rows: Sequence[Mapping[str, Any]],
    costs: Sequence[Mapping[str, Any]],
    *,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
) -> dict[str, Any]:
    """What came of a training; its models are the champions of their keys when it returns."""
    from airflow_mlops.delivery.compare import gate_of
    from airflow_mlops.ml.cost import total
    from airflow_mlops.ml.fleet.keys import is_parent
    from airflow_mlops.ml.value import metric_of
    from airflow_mlops.ml.versus import versus
    from airflow_mlops.registry.log import op_id
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.store import get_json

    own = [row for row in rows if not is_parent(row["key"])]
    if not any("version" in row for row in own):
        raise _nothing(config, own)
    registry = Registry(store, config.pipeline)
    promotions: dict[str, tuple[int, int | None]] = {
        row["key"]: (row["version"], None) for row in rows if "version" in row
    }
    registry.promote_many(promotions, op_id=op_id(plan.digest, "tried"), reason="tried in CI")
    evaluation, features = _held_out(
        config, store, registry, plan, allowed_imports=allowed_imports, trusted_types=trusted_types
    )
    shared = get_json(store, plan.of)
    evaluation, problems = _scored(evaluation, shared["printed"])
    records = registry.get_many({key: number for key, (number, _) in promotions.items()})
    of_rows = [row for row in own if "version" in row]
    gates = [gate for gate in config.evaluate.gates if gate.versus]
    return {
        "task": shared["task"],
        "rows": {name: sum(row[f"{name}_rows"] for row in of_rows) for name in ("train", "holdout")},
        "features": {f["name"]: f["kind"] for f in shared["schema"]["features"]},
        "model": {
            "digest": plan.of,
            "bytes": shared["model"]["prepare"]["bytes"] + sum(v.record["model"]["bytes"] for v in records.values()),
        },
        "evaluation": _put(store, "evaluation.parquet", evaluation.to_parquet),
        "metrics": {m["name"]: m for m in evaluation.to_dict()["metrics"]},
        "gates": [gate_of(versus(gate, metric_of(gate), evaluation)) for gate in gates],
        "warnings": [*shared["warnings"], *problems],
        "cost": {
            name: total([c for c in costs if c["task"] in COMPARED_STEPS])[name]
            for name in ("wall_seconds", "cpu_seconds")
        },
        "fleet": {
            "plan": plan.digest,
            "seen": _put(store, "seen.parquet", features.to_parquet),
            "keys": [_told(row) for row in rows],
        },
    }


def _nothing(config: PipelineConfig, own: Sequence[Mapping[str, Any]]) -> TrainingError:
    """No key has a model of its own: why."""
    failed = [f"{row['key']}: {row['reason']}" for row in own if row["status"] == "failed"]
    if failed:
        return TrainingError(
            f"none of {len(own):,} keys has a model of its own: " + listed(failed, "; "),
            hint="`airflow mlops run FILE --key KEY` trains one of them alone",
        )
    least = config.fleet.min_rows if config.fleet else 0
    return TrainingError(
        f"none of {len(own):,} keys has the {least:,} rows of fleet.min_rows: there is no model of a key to try",
        hint="give CI data in which some keys have rows enough: --data-root, --from and --to",
    )


def listed(texts: Sequence[str], between: str = ", ", most: int = _TOLD) -> str:
    """The first ones, and how many more there are."""
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return between.join(texts[:most]) + more


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """One key of the answer."""
    names = ("key", "status", "reason", "train_rows", "holdout_rows", "metrics", "served_by")
    return {name: row[name] for name in names if row.get(name) is not None}


def _limits(config: Evaluate, keys: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the gates without a comparison say of all keys: rejected where no key would go on."""
    from airflow_mlops.ml.fleet.keys import is_parent
    from airflow_mlops.ml.gate_result import gate_name

    limits = [gate for gate in config.gates if not gate.versus]
    if not limits:
        return []
    own = [row for row in keys if not is_parent(row["key"]) and "metrics" in row]
    good = [row for row in own if row["status"] in GOES_ON]
    verdict = "passed" if good else "rejected"
    if not good and any(row["status"] == "inconclusive" for row in own):
        verdict = "inconclusive"
    bad = [f"{row['key']}: {reason_of(row)}" for row in own if row["status"] == "rejected"]
    undecided = sum(row["status"] == "inconclusive" for row in own)
    sentence = f"{len(good)} of {len(own)} keys pass" + (f", {undecided} inconclusive" if undecided else "")
    sentence += f"; rejected: {listed(bad, '; ')}" if bad else ""
    return [
        {
            "name": ", ".join(gate_name(gate) for gate in limits) + ", each key",
            "verdict": verdict,
            "sentence": sentence,
            "versus": False,
        }
    ]


def reason_of(row: Mapping[str, Any]) -> str:
    """Why a key has its status, without the status itself."""
    return str(row["reason"]).removeprefix(f"{row['status']}: ")


def _scored(evaluation: Evaluation, names: Sequence[str]) -> tuple[Evaluation, list[str]]:
    """The metrics over the rows of all keys together, and which of them cannot be told."""
    from airflow_mlops.ml.evaluation import metric_value
    from airflow_mlops.ml.metrics import Metric

    values, problems = [], []
    for name in names:
        try:
            values.append(metric_value(evaluation, Metric(name)))
        except EvaluationError as e:
            problems.append(f"{name} cannot be told of all keys together: {e.message}")
    return replace(evaluation, metrics=tuple(values)), problems


def _held_out(
    config: PipelineConfig,
    store: Store,
    registry: Registry,
    plan: Plan,
    *,
    allowed_imports: Sequence[str],
    trusted_types: Sequence[str],
) -> tuple[Evaluation, pd.DataFrame]:
    """What each key's champion says of its held out rows, in one evaluation; and some of these rows as models see them.

    Rows are named by their key (a slice of the evaluation) and by their place among the rows of it.
    """
    import numpy as np
    import pandas as pd

    from airflow_mlops.ml.blocks import block_codes, block_words
    from airflow_mlops.ml.candidate import featured
    from airflow_mlops.ml.evaluation import Evaluation
    from airflow_mlops.ml.features import FeatureSchema, recorded_code
    from airflow_mlops.ml.fleet.champions import ask_champions
    from airflow_mlops.ml.fleet.keys import is_parent
    from airflow_mlops.ml.fleet.partition import bounds_of, read_shard
    from airflow_mlops.ml.fleet.training import labels
    from airflow_mlops.ml.privacy import masked
    from airflow_mlops.ml.splitting import Splitter
    from airflow_mlops.store import get_json

    data, shared, champions = config.data, get_json(store, plan.of), registry.champions()
    (shard,) = [shard for shard in plan.shards if not is_parent(next(iter(shard.counts)))]
    frame, bounds = read_shard(store, shard), bounds_of(shard)
    keys = [key for key in shard.counts if key in champions]
    splitter, holdout = Splitter(frame, data, shared["seed"]), np.zeros(len(frame), dtype=bool)
    for key in keys:
        holdout[bounds[key]] = splitter.mask(bounds[key])
    classes = tuple(shared["ordered"]) if shared["ordered"] is not None else None
    said, _ = ask_champions(
        store,
        registry,
        frame,
        bounds,
        holdout,
        data=data,
        classes=classes,
        labels=True,
        allowed_imports=allowed_imports,
        trusted_types=trusted_types,
        verifier=None,
        wanted=keys,
        tolerant=False,
    )
    y = labels(frame[data.target], shared["task"], classes)[1]
    parts = []
    for key in keys:
        found = said[key].said
        if found is None:
            raise TrainingError(f"{key}: its model cannot be asked: {said[key].problem}")
        rows = np.flatnonzero(holdout[bounds[key]])
        columns: dict[str, Any] = {"row": rows, "y": y[bounds[key]][rows], "slice:key": key}
        columns["candidate_label"] = found.labels
        for kind, values in (("proba", found.proba), ("decision", found.decision)):
            if values is not None:
                table = values.reshape(len(rows), -1)
                columns |= {f"candidate_{kind}_{i}": table[:, i] for i in range(table.shape[1])}
        parts.append(pd.DataFrame(columns))
    # A score that some keys' models do not give is none of the fleet's.
    pooled = pd.concat(parts, ignore_index=True).dropna(axis="columns")
    blocks = block_codes(frame[holdout], data, config.evaluate)
    if blocks is not None:
        pooled["block"] = blocks
    evaluation = Evaluation(
        shared["task"],
        classes,
        (),
        pooled,
        has_champion=False,
        blocks=block_words(data, config.evaluate) if blocks is not None else None,
    )
    schema = FeatureSchema.from_dict(shared["schema"])
    made = masked(schema.check(featured(frame, data, recorded_code(shared), allowed_imports)), schema.private)
    held = np.flatnonzero(holdout)
    chosen = held[np.linspace(0, len(held) - 1, min(_ROWS, len(held))).astype(int)]
    counts = [*shard.counts.values()]
    of_row = np.repeat(np.array([*shard.counts], dtype=object), counts)
    place = np.arange(len(frame)) - np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    seen = made.iloc[chosen].reset_index(drop=True)
    return evaluation, seen.assign(**{KEY: of_row[chosen], PLACE: place[chosen]})


def _put(store: Store, name: str, write: Callable[[Path], Any]) -> str:
    from airflow_mlops.store import put_blob_file

    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, name)
        write(path)
        return put_blob_file(store, path)
