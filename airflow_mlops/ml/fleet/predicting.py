"""Predict one shard of a fleet's rows: some thousand rows at a time, each key by the model that serves it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.pipeline import Pipeline

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import MLOpsError, PredictionError
from airflow_mlops.ml.features import FeatureSchema, apply_features, recorded_code
from airflow_mlops.ml.fleet.partition import Log, frame_of
from airflow_mlops.ml.fleet.prediction_chunks import Stretch, chunks_of
from airflow_mlops.ml.fleet.serving import NO_KEY, ROW, ServingPlan
from airflow_mlops.ml.fleet.shard import Trust
from airflow_mlops.ml.outputs import KEY, MODEL_KEY, PREDICTION, VERSION
from airflow_mlops.ml.prediction import Outputs, to_arrow
from airflow_mlops.ml.privacy import told
from airflow_mlops.registry.artifacts import fetch_models
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store import put_blob_file, put_json
from airflow_mlops.store.base import Store

_TOLD_ROWS = 1_000_000

Outcome = tuple[str | None, str | None, int | None, str | None]
"""Key, key and version of the model that served it, and what there is to say about it."""


def predict_shard(
    store: Store, registry: Registry, plan: ServingPlan, number: int, *, data: Data, trust: Trust, log: Log
) -> dict[str, Any]:
    """Predict a shard's rows and store what came of it; the same plan gives the same bytes.

    Where the model that serves a key cannot be loaded, its parent serves; a key whose rows cannot be predicted keeps
    no other from being predicted, and the outcome says why.

    :return: ``{"shard", "rows", "predicted", "keys", "files", "outcome"}``: ``files`` are digests of Parquet files (in
        no order of their rows; those that could not be predicted have no columns beside their ids), ``outcome`` that
        of a list of ``[key, key of the model, version, reason, rows]``.
    """
    part = plan.parts[number]
    outcome: Counter[Outcome] = Counter()
    work = _Work(store, registry, plan, data, trust)
    rows = sum(n for _, n, _ in part.keys)
    with tempfile.TemporaryDirectory(prefix="mlops-fleet-") as folder:
        written = _Written(Path(folder))
        done = 0
        with written:
            for table, stretches in chunks_of(store, part, plan, Path(folder)):
                for made in work.predict(table, stretches, outcome):
                    written.add(made)
                done += table.num_rows
                if done // _TOLD_ROWS > (done - table.num_rows) // _TOLD_ROWS:
                    log("%s of %s rows", f"{done:,}", f"{rows:,}")
        files = [put_blob_file(store, path) for path in written.paths]
    predicted = sum(count for (_, model, _, _), count in outcome.items() if model is not None)
    models = len({(model, version) for _, model, version, _ in outcome if model is not None})
    log("Shard %d: %s of %s rows predicted by %s models", number, f"{predicted:,}", f"{rows:,}", f"{models:,}")
    return {
        "shard": number,
        "rows": rows,
        "predicted": predicted,
        "keys": len(part.keys),
        "files": files,
        "outcome": put_json(store, [[*what, count] for what, count in outcome.items()]),
    }


class _Written:
    """Tables in Parquet files, one for each layout of columns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[pa.Schema, pq.ParquetWriter] = {}
        self.paths: list[Path] = []

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def add(self, table: pa.Table) -> None:
        """Write a table."""
        if table.schema not in self._writers:
            self.paths.append(self._folder / f"made-{len(self.paths)}.parquet")
            self._writers[table.schema] = pq.ParquetWriter(
                self.paths[-1], table.schema, compression="zstd", write_page_checksum=True
            )
        self._writers[table.schema].write_table(table)


class _Work:
    """Predicts chunk after chunk."""

    def __init__(self, store: Store, registry: Registry, plan: ServingPlan, data: Data, trust: Trust) -> None:
        self._store, self._registry, self._plan, self._data, self._trust = store, registry, plan, data, trust

    def predict(self, table: pa.Table, stretches: Sequence[Stretch], outcome: Counter[Outcome]) -> Iterator[pa.Table]:
        """Yield the rows of a chunk with what their models said, and those that none could predict without."""
        frame = frame_of(table)
        waiting, notes = list(stretches), dict[str, str]()
        lost: list[Stretch] = []
        while waiting:
            by_model: dict[str, list[Stretch]] = {}
            for stretch in waiting:
                by_model.setdefault(stretch.asked[0], []).append(stretch)
            broken: dict[str, str] = {}
            said: dict[int, tuple[_Rows, list[_Said]]] = {}
            for rows, found, failed in self._ask(frame, by_model, broken):
                said.setdefault(id(rows), (rows, []))[1].extend(found)
                for stretch, why in failed:
                    outcome[_key(stretch), None, None, why] += stretch.rows
                    lost.append(stretch)
            for rows, found in said.values():
                for one in found:
                    for stretch in one.stretches:
                        note = notes.get(stretch.key)
                        if note is None and one.version.key != stretch.key:
                            note = "it has no champion of its own"
                        outcome[_key(stretch), one.version.key, one.version.number, note] += stretch.rows
                yield from self._tables(table, rows, found)
            waiting = []
            for model, why in broken.items():
                for stretch in by_model[model]:
                    notes[stretch.key] = "; ".join(filter(None, [notes.get(stretch.key), why]))
                    if len(stretch.asked) > 1:
                        waiting.append(replace(stretch, asked=stretch.asked[1:]))
                    else:
                        outcome[_key(stretch), None, None, notes[stretch.key]] += stretch.rows
                        lost.append(stretch)
        if lost:
            yield table.select([*self._named(table), ROW]).take(_places(s.place for s in lost))

    def _ask(
        self, frame: pd.DataFrame, by_model: dict[str, list[Stretch]], broken: dict[str, str]
    ) -> Iterator[tuple[_Rows, list[_Said], list[tuple[Stretch, str]]]]:
        """Ask models for their rows; yield what each said, and which rows it could not predict.

        :param broken: gets the models that cannot be loaded, and why.
        """
        versions: dict[str, Version] = {}
        of_training: dict[str, list[str]] = {}

        def tell(version: Version, error: MLOpsError) -> None:
            broken[str(version.key)] = f"{version.name} cannot be loaded: {error.message}"

        for key in by_model:
            version = self._registry.get(self._plan.champions[key], key)
            try:
                of_training.setdefault(version.record.get("of") or version.name, []).append(key)
            except MLOpsError as e:
                if e.retryable:
                    raise
                tell(version, e)
            else:
                versions[key] = version
        rows_of: dict[str, _Rows] = {}
        for keys in of_training.values():
            stretches = [stretch for key in keys for stretch in by_model[key]]
            rows = _Rows(frame, stretches, versions[keys[0]].record, self._data, self._trust.allowed_imports)
            rows_of |= dict.fromkeys(keys, rows)
        models = fetch_models(
            self._store,
            [*versions.values()],
            trusted=self._trust.trusted_types,
            verifier=self._trust.verifier,
            failed=tell,
        )
        for loaded, model in models:
            name = str(loaded)
            yield (rows_of[name], *rows_of[name].ask(versions[name], model, by_model[name]))

    def _named(self, table: pa.Table) -> list[str]:
        return [self._data.id] if self._data.id is not None else []

    def _tables(self, table: pa.Table, rows: _Rows, said: Sequence[_Said]) -> Iterator[pa.Table]:
        """Join what models said with ids and inputs: a table for each set of columns that they have."""
        data = self._data
        kept = [
            c for c in (data.timestamp, data.split.column) if c and c not in data.private and c in table.column_names
        ]
        alike: dict[tuple[str, ...], list[_Said]] = {}
        for one in said:
            alike.setdefault(tuple(one.columns), []).append(one)
        for names, group in alike.items():
            stretches = [stretch for one in group for stretch in one.stretches]
            counts = [stretch.rows for stretch in stretches]
            taken = table.select([*dict.fromkeys([*self._named(table), *kept]), ROW])
            columns = dict(
                zip(taken.column_names, taken.take(_places(s.place for s in stretches)).columns, strict=True)
            )
            keys = pa.array([_key(stretch) for stretch in stretches], pa.string())
            columns[KEY] = keys.take(pa.array(np.repeat(np.arange(len(counts)), counts)))
            inputs = rows.inputs.iloc[_places(rows.places[s] for s in stretches).to_numpy()]
            for feature in rows.schema.features:
                if not feature.private and feature.name not in columns:
                    columns[feature.name] = to_arrow(inputs[feature.name], feature.kind)
            for name in names:
                columns[name] = pa.concat_arrays([one.columns[name] for one in group])
            served = [sum(stretch.rows for stretch in one.stretches) for one in group]
            of_row = pa.array(np.repeat(np.arange(len(group)), served))
            columns[MODEL_KEY] = pa.array([one.version.key for one in group], pa.string()).take(of_row)
            columns[VERSION] = pa.array([one.version.number for one in group], pa.int32()).take(of_row)
            yield pa.table(columns).combine_chunks()


def _key(stretch: Stretch) -> str | None:
    return None if stretch.key == NO_KEY else stretch.key


def _places(parts: Any) -> pa.Array:
    """The row numbers of slices, one after the other."""
    return pa.array(np.concatenate([np.arange(p.start, p.stop) for p in parts]))


@dataclass(frozen=True)
class _Said:
    """What one model said of stretches of rows, in their order."""

    version: Version
    stretches: list[Stretch]
    columns: dict[str, pa.Array]


class _Rows:
    """Rows of a chunk as the models of one training take them: feature code and preprocessing run once for all.

    ``inputs`` are the rows of those stretches that the models can take, and ``places`` where each lies in them.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        stretches: Sequence[Stretch],
        record: dict[str, Any],
        data: Data,
        allowed: Sequence[str],
    ) -> None:
        self.schema = FeatureSchema.from_dict(record["schema"]).hiding(data.private)
        self._private = [*data.private, *self.schema.private]
        self._frame, self._code, self._allowed = frame, recorded_code(record), allowed
        self._problems: dict[Stretch, str] = {}
        self._taken = {KEY, MODEL_KEY, VERSION, PREDICTION} & {*self.schema.names, data.id, data.timestamp}
        good = list(stretches)
        try:
            self.inputs = self._checked(good)
        except MLOpsError as e:
            if e.retryable:
                raise
            good = [stretch for stretch in stretches if self._alone(stretch)]
            self.inputs = self._checked(good) if good else pd.DataFrame(columns=self.schema.names)
        self.places: dict[Stretch, slice] = {}
        at = 0
        for stretch in good:
            self.places[stretch] = slice(at, at + stretch.rows)
            at += stretch.rows
        self._matrix: np.ndarray | None = None

    def _checked(self, stretches: Sequence[Stretch]) -> pd.DataFrame:
        frame = self._frame.iloc[_places(s.place for s in stretches).to_numpy()]
        if self._code is not None:
            frame = apply_features(
                self._code, frame, self._allowed, target=self.schema.target, private=self._private
            )  # fmt: skip
        return self.schema.check(frame)

    def _alone(self, stretch: Stretch) -> bool:
        """Whether the rows of one key can be taken."""
        try:
            self._checked([stretch])
        except MLOpsError as e:
            if e.retryable:
                raise
            self._problems[stretch] = e.message
            return False
        return True

    def ask(
        self, version: Version, model: Any, stretches: Sequence[Stretch]
    ) -> tuple[list[_Said], list[tuple[Stretch, str]]]:
        """Ask a model about all of its rows; where that fails, about one key after the other."""
        failed = [(s, self._problems[s]) for s in stretches if s in self._problems]
        good = [s for s in stretches if s in self.places]
        if not good:
            return [], failed
        try:
            return [self._said(version, model, good)], failed
        except Exception as e:  # noqa: BLE001 - one bad key never fails its shard; what it was is in the outcome
            if len(good) == 1:
                return [], [*failed, (good[0], self._why(e))]
        said: list[_Said] = []
        for stretch in good:
            try:
                said.append(self._said(version, model, [stretch]))
            except Exception as e:  # noqa: BLE001
                failed.append((stretch, self._why(e)))
        return said, failed

    def _why(self, error: Exception) -> str:
        if isinstance(error, MLOpsError):
            if error.retryable:
                raise error
            return error.message
        return told(error, self._private)

    def _said(self, version: Version, model: Any, stretches: list[Stretch]) -> _Said:
        last, inputs = self._asked(version, model)
        outputs = Outputs(last, self.schema, few=True)
        if taken := sorted(self._taken | ({*outputs.names} & {*self.schema.names})):
            raise PredictionError(
                f"the columns {', '.join(taken)} would be both read and written",
                hint="rename them in the data or in features.callable",
            )
        if len(stretches) == 1:
            inputs = inputs[self.places[stretches[0]]]
        else:
            rows = _places(self.places[s] for s in stretches).to_numpy()
            inputs = inputs[rows] if isinstance(inputs, np.ndarray) else inputs.iloc[rows]
        return _Said(version, stretches, outputs.of(inputs))

    def _asked(self, version: Version, model: Any) -> tuple[Any, Any]:
        """The estimator to ask, and all rows as it takes them."""
        if not (isinstance(model, Pipeline) and version.record["model"].get("prepare")):
            return model, self.inputs  # taken in from elsewhere: it prepares its own rows
        if self._matrix is None:
            self._matrix = np.asarray(model[0].transform(self.inputs), dtype=np.float64)
        return model[-1], self._matrix
