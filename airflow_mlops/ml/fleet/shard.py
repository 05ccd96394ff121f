"""Train one shard of a fleet: chunk by chunk, in processes of its own, and register all its models in one commit."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from airflow_mlops.config.models import Data, Evaluate, Search
from airflow_mlops.exceptions import CorruptObject, DataError, ObjectExists, ObjectNotFound
from airflow_mlops.ml.blocks import block_codes, block_words
from airflow_mlops.ml.candidate import featured
from airflow_mlops.ml.estimators import build_estimator
from airflow_mlops.ml.features import FeatureSchema, recorded_code
from airflow_mlops.ml.fleet.champions import ask_champions
from airflow_mlops.ml.fleet.chunks import Chunks, chunk_size
from airflow_mlops.ml.fleet.judging import needs_labels
from airflow_mlops.ml.fleet.keys import is_parent
from airflow_mlops.ml.fleet.partition import Log, bounds_of, read_shard
from airflow_mlops.ml.fleet.plan import Plan
from airflow_mlops.ml.fleet.prepare import matrix
from airflow_mlops.ml.fleet.reference import REFERENCE, keep_reference
from airflow_mlops.ml.fleet.result import Row
from airflow_mlops.ml.fleet.training import Chunk, Settings, Trained, labels, train_chunk
from airflow_mlops.ml.preprocessing import categorical_positions
from airflow_mlops.ml.splitting import Splitter
from airflow_mlops.ml.wear import Wear
from airflow_mlops.registry.artifacts import fetch_model, store_models
from airflow_mlops.registry.formats import load_model
from airflow_mlops.registry.kind_reader import KindReader
from airflow_mlops.registry.kinds import kind_of
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import get_json, layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import packed_json, unpacked


@dataclass(frozen=True)
class Trust:
    """Which code may run and which models may be loaded.

    :param signer: signs new models, where there is a key.
    """

    allowed_imports: Sequence[str] = ()
    trusted_types: Sequence[str] = ()
    verifier: Verifier | None = None
    signer: Signer | None = None


def processes_of(wanted: int | str, slots: int) -> int:
    """How many processes a shard trains in.

    :param wanted: ``fleet.processes``; ``auto``: the cores that this task may use, shared with the other slots of
        its machine.
    :param slots: tasks that run on this machine at a time.
    """
    if wanted != "auto":
        return int(wanted)
    return max(1, cores() // max(slots, 1))


def cores() -> int:
    """Cores that this process may use: by affinity, and by the quota of its control group (version 2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def train_shard(
    store: Store,
    registry: Registry,
    plan: Plan,
    number: int,
    *,
    run: str,
    evaluate: Evaluate,
    data: Data,
    trust: Trust,
    processes: int,
    op_id: str,
    log: Log,
    watched: bool = False,
) -> dict[str, Any]:
    """Train, judge and register the models of a shard; a second try does what the first one left.

    :param run: names the run, 64 hex digits; chunks and results lie under it.
    :param op_id: names the registration.
    :param watched: whether the keys are checked for drift, so that rows to compare with are kept.
    :return: ``{"shard", "keys", "models", "counts"}``; ``counts`` by status.
    """
    chunks = Chunks(store, plan.pipeline, run, number)
    count = -(-len(plan.shards[number].counts) // chunk_size(len(plan.shards[number].counts)))
    rows = read_result(store, plan.pipeline, run, number)
    if rows is None:
        missing = [n for n in range(count) if chunks.load(n) is None]
        if len(missing) < count:
            log("%d of %d chunks were finished by an earlier try", count - len(missing), count)
        watched = watched and not is_parent(next(iter(plan.shards[number].counts)))
        reference = None
        if missing or watched:
            work = ShardWork(store, registry, plan, number, evaluate, data, trust, watched)
            if missing:
                work.run(chunks, missing, processes, log)
            reference = work.reference
        try:
            made = [*chunks.every(count)]
        except CorruptObject:
            # Two of this task at a time: the faster one has ended, and cleared away what both were writing.
            rows = read_result(store, plan.pipeline, run, number)
            if rows is None:
                raise
        else:
            rows = _register(store, registry, plan, made, trust, op_id, reference)
            rows = _keep_result(store, plan.pipeline, run, number, rows)
    else:
        log("Shard %d was finished by an earlier try", number)
    chunks.discard(count)
    counts, models = Counter(row["status"] for row in rows), sum("version" in row for row in rows)
    told = ", ".join(f"{many:,} {status}" for status, many in counts.most_common())
    log("Shard %d: %s of %s keys have a model; by itself each: %s", number, f"{models:,}", f"{len(rows):,}", told)
    return {"shard": number, "keys": len(rows), "models": models, "counts": dict(counts)}


def _keep_result(store: Store, pipeline: str, run: str, number: int, rows: list[Row]) -> list[Row]:
    """Write what a shard came to, once: of two of its tasks at a time, what the faster one registered counts."""
    try:
        store.put_if_absent(layout.fleet_shard(pipeline, run, number), packed_json({"format": 1, "rows": rows}))
    except ObjectExists:
        return read_result(store, pipeline, run, number) or rows
    return rows


def read_result(store: Store, pipeline: str, run: str, number: int) -> list[Row] | None:
    """Return what a shard came to, a row for each key; ``None`` where it has not ended."""
    try:
        raw = store.get(layout.fleet_shard(pipeline, run, number))
    except ObjectNotFound:
        return None
    rows: list[Row] = json.loads(unpacked(raw))["rows"]
    return rows


def _register(
    store: Store,
    registry: Registry,
    plan: Plan,
    made: Sequence[Trained],
    trust: Trust,
    op_id: str,
    reference: str | None,
) -> list[Row]:
    """Pack the models, register them in one commit, and return the rows with what they became."""
    by_key = {row["key"]: row for done in made for row in done.rows}
    infos = store_models(
        store,
        [model for done in made for model in done.models],
        kinds={digest: kind for done in made for digest, kind in done.kinds.items()},
        prepare=get_json(store, plan.of)["model"]["prepare"],
        signer=trust.signer,
        pipeline=plan.pipeline,
    )
    records = {
        key: {
            "of": plan.of,
            "model": info,
            "rows": {"train": by_key[key]["train_rows"], "holdout": by_key[key]["holdout_rows"]},
            "metrics": {name: float(f"{value:.6g}") for name, value in by_key[key]["metrics"].items()},
            "seconds": by_key[key]["seconds"],
            **({"params": by_key[key]["params"]} if "params" in by_key[key] else {}),
            **({REFERENCE: reference} if reference is not None else {}),
        }
        for key, info in infos.items()
    }
    versions = registry.register_many(records, op_id=op_id)
    return [row | ({"version": versions[key].number} if key in versions else {}) for key, row in by_key.items()]


def search_of(shared: dict[str, Any]) -> Search | None:
    """The search that each key makes, from what a training recorded of its configuration."""
    search = shared["config"]["train"].get("search")
    return Search.model_validate(search) if search else None


class ShardWork:
    """A shard's rows as arrays, cut into so many ``chunks``.

    ``reference`` names the rows that drift checks compare with; ``None`` where nobody does.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        plan: Plan,
        number: int,
        evaluate: Evaluate,
        data: Data,
        trust: Trust,
        watched: bool,
    ) -> None:
        shard, shared = plan.shards[number], get_json(store, plan.of)
        frame = read_shard(store, shard)
        self._bounds = bounds_of(shard)
        self._trusted, self._loaded = trust.trusted_types, set[str | None]()
        schema = FeatureSchema.from_dict(shared["schema"])
        steps = fetch_model(
            store,
            shared["model"]["prepare"],
            trusted=trust.trusted_types,
            verifier=trust.verifier,
            pipeline=plan.pipeline,
        )
        estimator = build_estimator(shared["estimator"], shared["params"], trust.allowed_imports, shared["seed"])
        if positions := categorical_positions(schema, estimator):
            estimator.set_params(categorical_features=positions)
        self._task, ordered = shared["task"], shared["ordered"]
        self._classes = tuple(ordered) if ordered is not None else None
        blocks = block_codes(frame, data, evaluate)
        self.settings = Settings(
            estimator,
            self._task,
            self._classes,
            tuple(shared["printed"]),
            evaluate,
            shared["seed"],
            block_words(data, evaluate) if blocks is not None else None,
            Wear(**plan.wear) if plan.wear is not None else None,
            tuple(data.private),
            search_of(shared),
        )
        made = featured(frame, data, recorded_code(shared), trust.allowed_imports)
        self._inputs = matrix(schema, steps, made)
        times = frame.get(data.timestamp) if data.timestamp is not None else None
        self.reference = keep_reference(store, schema.check(made), schema, shard.counts, times) if watched else None
        self._target, self._y = labels(frame[data.target], self._task, self._classes)
        self._blocks = blocks
        self._holdout = np.zeros(len(frame), dtype=bool)
        self._problems: dict[str, str] = {}
        splitter = Splitter(frame, data, shared["seed"])
        for key, rows in self._bounds.items():
            try:
                self._holdout[rows] = splitter.mask(rows)
            except DataError as e:
                self._problems[key] = str(e)
        self._size = chunk_size(len(self._bounds))
        self.chunks = -(-len(self._bounds) // self._size)
        wanted = set(self._bounds) - set(self._problems)
        self._champions, self._references = ask_champions(
            store,
            registry,
            frame,
            self._bounds,
            self._holdout,
            data=data,
            classes=self._classes,
            labels=needs_labels(evaluate.gates, shared["printed"], self._task),
            allowed_imports=trust.allowed_imports,
            trusted_types=trust.trusted_types,
            verifier=trust.verifier,
            wanted=wanted,
            tolerant=any(gate.not_worse_by is not None for gate in evaluate.gates),
        )

    def chunk(self, number: int) -> Chunk:
        """One chunk's rows."""
        keys = [*self._bounds][number * self._size : (number + 1) * self._size]
        first, last = self._bounds[keys[0]].start, self._bounds[keys[-1]].stop
        whole = slice(first, last)
        bounds = {k: slice(self._bounds[k].start - first, self._bounds[k].stop - first) for k in keys}
        return Chunk(
            number,
            bounds,
            self._inputs[whole],
            self._target[whole],
            self._y[whole],
            self._holdout[whole],
            self._blocks[whole] if self._blocks is not None else None,
            {k: self._champions[k] for k in keys if k in self._champions},
            {k: self._references[k] for k in keys if k in self._references},
            {k: self._problems[k] for k in keys if k in self._problems},
        )

    def run(self, chunks: Chunks, numbers: Sequence[int], processes: int, log: Log) -> None:
        """Train chunks, and save each as soon as it is done."""
        keys = len(self._bounds)
        finished = keys - sum(len(self.chunk(number).bounds) for number in numbers)
        for number, done in self.trained(numbers, processes):
            self._check_loads(done)
            chunks.save(number, done)
            finished += len(done.rows)
            log("%s of %s keys trained", f"{finished:,}", f"{keys:,}")

    def _check_loads(self, done: Trained) -> None:
        """Load a model of each kind as whoever asks it will.

        :raises UntrustedArtifact: it has types that are not trusted, which no prediction could load.
        """
        for _, data in done.models:
            kind = kind_of(data)
            if kind in self._loaded:
                continue
            self._loaded.add(kind)
            if kind is None:
                load_model(data, trusted=self._trusted)
            else:
                KindReader(self._trusted).load(done.kinds[kind], data)

    def trained(self, numbers: Sequence[int], processes: int) -> Iterator[tuple[int, Trained]]:
        """Train chunks, and yield each with its number as soon as it is done."""
        if processes == 1 or len(numbers) == 1:
            for number in numbers:
                yield number, train_chunk(self.settings, self.chunk(number))
            return
        # New interpreters, not forks: a fork of a process whose threads hold locks can wait for ever.
        with ProcessPoolExecutor(min(processes, len(numbers)), mp_context=get_context("spawn")) as pool:
            waiting = {pool.submit(train_chunk, self.settings, self.chunk(number)): number for number in numbers}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
