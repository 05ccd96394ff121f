"""Train all models of one training of a fleet again, from what it recorded, and compare them one by one.

The rows are divided as they were then, and each shard is trained as its task trained it. One shard's rows are in memory
at a time, and the models of one chunk. The store is only read: what is written lies in a temporary folder on top of it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.config.models import Data, Evaluate, Features, Fleet, Train
from airflow_mlops.exceptions import (
    CodeNotAllowed,
    ConfigError,
    CorruptObject,
    DataError,
    EvaluationError,
    RegistryError,
    TrainingError,
    UntrustedArtifact,
)
from airflow_mlops.ml.candidate import made_from
from airflow_mlops.ml.fleet.keys import is_parent
from airflow_mlops.ml.fleet.partition import Counts, Log, training_rows, write_shards
from airflow_mlops.ml.fleet.plan import Plan, Shard
from airflow_mlops.ml.fleet.prepare import SAMPLE_ROWS, prepare, sample_rows
from airflow_mlops.ml.fleet.result import read_table
from airflow_mlops.ml.fleet.shard import ShardWork, Trust, processes_of
from airflow_mlops.ml.fleet.training import FAILED, Trained
from airflow_mlops.ml.rerun_findings import Finding, compare_values, look_at_data, read_config
from airflow_mlops.ml.snapshot import Snapshot
from airflow_mlops.registry.artifacts import environment, store_model
from airflow_mlops.registry.fleet_runs import FleetRun, fleet_runs
from airflow_mlops.registry.lineage import code_version, compare_code, compare_environment
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.registry.version import Version
from airflow_mlops.store import LocalStore
from airflow_mlops.store.base import Store
from airflow_mlops.store.overlay import OverlayStore

OTHER_BYTES, DIFFERENT, LOST = "other bytes", "different", "not trained again"
"""How a model that has not the same bytes compares: with the same metrics, with others, or not at all."""
# What a past training can be at odds with; anything else (a store that does not answer) ends the command.
_BROKEN = (CodeNotAllowed, DataError, TrainingError, EvaluationError, UntrustedArtifact, CorruptObject, ConfigError)
_NO_CHAMPIONS = ".rerun"


@dataclass(frozen=True)
class OtherModel:
    """A model that has not the same bytes as the recorded one.

    :param what: :data:`OTHER_BYTES`, :data:`DIFFERENT` or :data:`LOST`. :param why: in words.
    """

    key: str
    version: int
    what: str
    why: str


@dataclass(frozen=True)
class FleetRerun:
    """What came of training a fleet's models again.

    :param run: the run's id in Airflow. :param models: how many it had made. :param same: how many have the same bytes.
    :param findings: what all have in common: ``data``, ``config``, ``code``, ``env``, ``prepare``.
    :param others: the other models, by key. :param failed: why none could be trained again; ``None``: they were.
    """

    pipeline: str
    run: str
    models: int
    same: int
    findings: tuple[Finding, ...]
    others: tuple[OtherModel, ...] = ()
    failed: str | None = None
    hint: str | None = None

    @property
    def verified(self) -> bool:
        """Whether all models were made again, from the same data, configuration and code.

        As of one model: another environment is no difference by itself, nor are other bytes with the same metrics.
        """
        if self.failed is not None or any(model.what != OTHER_BYTES for model in self.others):
            return False
        return not any(f.answer == "different" for f in self.findings if f.what in ("data", "config", "code"))

    @property
    def sentence(self) -> str:
        """``348 of 350 models have the same bytes, 1 is different, 1 cannot be trained again``."""
        words = {
            OTHER_BYTES: "other bytes and the same metrics",
            DIFFERENT: "different metrics",
            LOST: "not been trained again",
        }
        parts = [f"{self.same:,} of {self.models:,} models have the same bytes"]
        for what, said in words.items():
            if many := sum(model.what == what for model in self.others):
                parts.append(f"{many:,} {'has' if many == 1 else 'have'} {said}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "pipeline": self.pipeline,
            "run": self.run,
            "verified": self.verified,
            "models": self.models,
            "same": self.same,
            "findings": [asdict(f) | {"details": list(f.details)} for f in self.findings],
            "others": [asdict(model) for model in self.others],
            "failed": self.failed,
            "hint": self.hint,
        }


def rerun_fleet(
    store: Store,
    pipeline: str,
    training: FleetRun,
    *,
    allowed_imports: Sequence[str] = (),
    trusted_types: Sequence[str] = (),
    verifier: Verifier | None = None,
    processes: int | str = "auto",
    log: Log = lambda *_: None,
) -> FleetRerun:
    """Train all models of a training again and compare each with the recorded one, byte for byte.

    Nothing is registered. The preparation that all models share is made again and compared, too; the models get the
    recorded one, so that they are compared even where it is another.

    :param training: as :func:`find_training` returns it.
    :param processes: that train at a time; ``auto``: as many as there are cores.
    :raises RegistryError: the training has made no model, or its records do not say from what.
    """
    versions, divided = _versions(store, training)
    if not versions:
        raise RegistryError(f"the run {training.run_id} of {pipeline} has made no model", hint="name another run")
    registry = Registry(store, pipeline)
    key = min(versions)
    version = registry.get(versions[key], key)
    if "of" not in version.record:
        raise RegistryError(f"{version.name} cannot be trained again: it was taken in from elsewhere")
    with tempfile.TemporaryDirectory(prefix="mlops-rerun-") as scratch:
        # Reading, too, may write: what is found in the trash is restored.
        work = OverlayStore(LocalStore(Path(scratch)), store)
        trust = Trust(allowed_imports, trusted_types, verifier or Verifier())
        again = _Again(work, registry, version, trust, log)
        found = again.run(versions, divided, whole=training.whole, processes=processes)
    others = tuple(sorted(again.others, key=lambda model: model.key))
    same = len(versions) - len(others) if found is None else 0
    why, hint = found or (None, None)
    return FleetRerun(pipeline, training.run_id, len(versions), same, tuple(again.findings), others, why, hint)


def find_training(store: Store, pipeline: str, run_id: str | None = None) -> FleetRun:
    """Return the newest training of a fleet that counts, or the one with this run id, rehearsals too.

    :raises RegistryError: there is none.
    """
    found = [run for run in fleet_runs(store, pipeline) if (run.run_id == run_id if run_id else not run.rehearsal)]
    if found:
        return found[-1]
    if run_id is None:
        raise RegistryError(
            f"no training of all keys of {pipeline} by Airflow is recorded in {store.uri}",
            hint=f"name one of its models, such as {pipeline}[KEY]:1, or a run: --run RUN_ID",
        )
    known = ", ".join(run.run_id for run in fleet_runs(store, pipeline)[-3:])
    raise RegistryError(
        f"{pipeline} has no training with the run id {run_id!r}",
        hint=f"the newest are {known}" if known else "none is recorded",
    )


def _versions(store: Store, training: FleetRun) -> tuple[dict[str, int], list[list[str]]]:
    """The versions that a training has made, by key, and which keys its shards had, those that failed too."""
    versions: dict[str, int] = {}
    shards: dict[int, list[str]] = defaultdict(list)
    for row in read_table(store, training.table, ["key", "shard", "version"]).to_pylist():
        if row["shard"] is not None:
            shards[row["shard"]].append(row["key"])
        if row["version"] is not None:
            versions[row["key"]] = row["version"]
    return versions, [sorted(keys) for _, keys in sorted(shards.items())]


class _Again:
    """One rerun, and what it has found so far."""

    def __init__(self, store: Store, registry: Registry, version: Version, trust: Trust, log: Log) -> None:
        self.store, self.registry, self.version, self.record = store, registry, version, version.record
        self.trust, self.log = trust, log
        self.findings: list[Finding] = []
        self.others: list[OtherModel] = []

    def run(
        self, versions: Mapping[str, int], divided: Sequence[Sequence[str]], *, whole: bool, processes: int | str
    ) -> tuple[str, str | None] | None:
        """Compare part by part, as far as it goes; returns why it did not, and what to do."""
        self.log("Data: checking the snapshot %s", str(self.record["snapshot"].get("snapshot"))[:12])
        data_found, (config_found, sections) = look_at_data(self.store, self.version), read_config(self.record)
        self.findings += [data_found, config_found]
        for found in (data_found, config_found):
            if found.answer == "different" or sections is None:
                self._code_and_environment(None)
                return f"{found.what}: {found.summary}", None
        if sections is None:
            return None
        try:
            self._train(versions, divided, *sections, whole=whole, processes=processes)
        except _BROKEN as e:
            self._code_and_environment(None)
            return e.message, e.hint
        self._code_and_environment(made_from(*sections)["code"])
        return None

    def _code_and_environment(self, now: dict[str, Any] | None) -> None:
        """Compare them with the code just used; None: with the files where they were."""
        then = self.record.get("code") or {}
        compared = compare_code(then, code_version(then.get("files", {})) if now is None else now)
        self.findings.append(Finding("code", *compared))
        there = compare_environment(self.record["model"].get("environment"), environment())
        self.findings.append(Finding("env", *there))

    def _train(
        self,
        versions: Mapping[str, int],
        divided: Sequence[Sequence[str]],
        data: Data,
        train: Train,
        features: Features | None,
        *,
        whole: bool,
        processes: int | str,
    ) -> None:
        fleet = Fleet.model_validate(self.record["config"]["fleet"])
        snapshot = Snapshot.load(self.store, self.record["snapshot"])
        counts = Counts(self.store, snapshot, fleet)
        parents = [key for keys in divided for key in keys if is_parent(key)]
        own = [keys for keys in divided if not is_parent(keys[0])]
        shards = write_shards(
            self.store, snapshot, fleet, own, counts, parents=parents, seed=train.seed, log=self.log,
            sample=0 if whole else SAMPLE_ROWS,
            among=None if whole else training_rows(self.store, snapshot, fleet, counts, data, train.seed),
        )  # fmt: skip
        self._prepare([shards.pop()] if not whole else shards, data, fleet, train, features, split=whole)
        plan = Plan(self.version.pipeline, self.record["of"], tuple(shards), {}, {}, (), {}, None)
        done = 0
        for number, shard in enumerate(plan.shards):
            wanted = {key: versions[key] for key in shard.counts if key in versions}
            recorded = self.registry.get_many(wanted)
            for made in self._trained(plan, number, data, processes_of(processes, 1)):
                self._compare(made, recorded)
            done += len(wanted)
            self.log("%s of %s models trained again", f"{done:,}", f"{len(versions):,}")
        there = {key for shard in plan.shards for key in shard.counts}
        for key in sorted(set(versions) - there):
            self.others.append(OtherModel(key, versions[key], LOST, "the snapshot has no row of this key"))

    def _prepare(
        self,
        shards: Sequence[Shard],
        data: Data,
        fleet: Fleet,
        train: Train,
        features: Features | None,
        *,
        split: bool,
    ) -> None:
        """Learn what all models share again, and compare it with what was recorded."""
        sample, columns = sample_rows(
            self.store, shards, data, features=features, allowed_imports=self.trust.allowed_imports, seed=train.seed,
            split=split,
        )  # fmt: skip
        _, steps, _ = prepare(sample, columns, data, fleet, train, self.trust.allowed_imports)
        same = store_model(self.store, steps)["digest"] == self.record["model"]["prepare"]["digest"]
        summary = "same bytes" if same else "other bytes; the models got the recorded one"
        self.findings.append(Finding("prepare", "same" if same else "different", summary))

    def _trained(self, plan: Plan, number: int, data: Data, processes: int) -> Iterator[Trained]:
        # Nobody is compared with a champion here: that changes no model.
        nobody = Registry(self.store, plan.pipeline + _NO_CHAMPIONS)
        work = ShardWork(self.store, nobody, plan, number, Evaluate(), data, self.trust, watched=False)
        yield from (done for _, done in work.trained(range(work.chunks), processes))

    def _compare(self, made: Trained, recorded: Mapping[str, Version]) -> None:
        digests = {key: hashlib.sha256(model).hexdigest() for key, model in made.models}
        for row in made.rows:
            key = row["key"]
            version = recorded.get(key)
            if version is None or digests.get(key) == version.record["model"]["digest"]:
                continue
            if row["status"] == FAILED:
                self.others.append(OtherModel(key, version.number, LOST, row["reason"]))
                continue
            metrics = {name: float(f"{value:.6g}") for name, value in row["metrics"].items()}
            _, found = compare_values(version.record["metrics"], metrics)
            rows = {"train": row["train_rows"], "holdout": row["holdout_rows"]}
            why = [f"{name} rows {many:,} → {rows[name]:,}" for name, many in version.record["rows"].items()
                   if rows[name] != many]  # fmt: skip
            why += found.details[: len(metrics)]
            what = OTHER_BYTES if found.answer == "same" and not why else DIFFERENT
            self.others.append(OtherModel(key, version.number, what, "; ".join(why) or "the same metrics"))
