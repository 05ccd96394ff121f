"""The rows of a batch inference that a job elsewhere predicts: frozen before it starts, matched with what it says.

A task that waits for a job begins anew when the job has ended, perhaps on another machine and after its source has
changed. So the rows are kept in the store first, as they were read and as the model takes them, in parts. What comes
back is taken only where it says that it is about exactly these rows, by exactly this model, each row once.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import CorruptObject, DataNotFound, ObjectNotFound, PredictionError
from airflow_mlops.ml.features import FeatureSchema, plain, recorded_code
from airflow_mlops.ml.model_outputs import Outputs
from airflow_mlops.ml.outputs import PREDICTION
from airflow_mlops.ml.prediction import prepared_chunks
from airflow_mlops.ml.reading import SourceBatches
from airflow_mlops.ml.transform_parts import ROW, contract, get_rows, get_said, pack_model, put_rows
from airflow_mlops.registry.artifacts import fetch_model_file, open_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import canonical_json

_LARGEST_ANSWER = 2 << 30
_SHOWN = 5


@dataclass(frozen=True)
class Part:
    """Some of the rows: how many, and the sha256 of what the job reads of them and of the rows as they were read."""

    rows: int
    input: str
    read: str


@dataclass(frozen=True)
class Plan:
    """What is known of frozen rows.

    :param of: names what they were made from; rows that were made from something else are of no use.
    :param version: number of the version that predicts. :param model: sha256 of its model.
    :param contract: sha256 of what the container is told.
    :param columns: name and type of what it says.
    :param newest: time of the newest row, ISO 8601, where rows have a time.
    """

    of: str
    version: int
    model: str
    contract: str
    columns: dict[str, str]
    parts: tuple[Part, ...]
    newest: str | None

    @property
    def rows(self) -> int:
        """How many there are in all."""
        return sum(part.rows for part in self.parts)

    @classmethod
    def load(cls, store: Store, pipeline: str, job: str) -> Plan | None:
        """The plan of a job; ``None``: its rows were not frozen, are not there any more, or another version of this
        package has frozen them."""
        try:
            said = json.loads(store.get(layout.job_plan(pipeline, job)))
            return cls(**said | {"parts": tuple(Part(**part) for part in said["parts"])})
        except (ObjectNotFound, KeyError, TypeError, ValueError):
            return None


def freeze(
    store: Store,
    version: Version,
    job: str,
    *,
    of: str,
    data: Data,
    batches: SourceBatches,
    max_bytes: int,
    allowed_imports: Sequence[str] = (),
    trusted_types: Sequence[str] = (),
    verifier: Verifier | None = None,
) -> Plan:
    """Put rows, model and plan where the job reads them; another try's are replaced.

    The model is loaded here too, with all checks: one that cannot be, or whose columns are in the way, costs no job.

    :param of: what :attr:`Plan.of` is to say.
    :param batches: the rows.
    :param max_bytes: of one part as the job reads it.
    :raises PredictionError: rows do not fit the model, one row is larger than ``max_bytes``, or the model's format can
        run code. :raises DataNotFound: there is not a single row.
    :raises UntrustedArtifact, CorruptObject: see :func:`~airflow_mlops.registry.artifacts.fetch_model`.
    """
    pipeline = version.pipeline
    for key in list(store.list(layout.job_prefix(pipeline, job))):
        store.delete(key)
    schema = FeatureSchema.from_dict(version.record["schema"]).hiding(data.private)
    said, columns = _put_model(store, version, job, schema, data, trusted_types, verifier)
    chunks = prepared_chunks(
        batches,
        schema,
        id_column=data.id,
        features=recorded_code(version.record),
        allowed_imports=allowed_imports,
        private=data.private,
    )
    hidden = {*data.private, *schema.private} - {data.id}
    parts: list[Part] = []
    for read, inputs in _sized(chunks, schema, max_bytes):
        kept = pa.BufferOutputStream()
        pq.write_table(
            read.drop_columns([c for c in read.column_names if c in hidden]), kept, compression="zstd",
            write_page_checksum=True,
        )  # fmt: skip
        digests = []
        for what, content in (("input", inputs.content), ("rows", kept.getvalue().to_pybytes())):
            store.put(layout.job_part(pipeline, job, what, len(parts)), content)
            digests.append(hashlib.sha256(content).hexdigest())
        parts.append(Part(inputs.rows, *digests))
    if not parts:
        raise DataNotFound("there is no row to score", hint="check deploy.batch.source and the window of this run")
    newest = batches.newest.isoformat() if batches.newest else None
    digest = hashlib.sha256(said).hexdigest()
    plan = Plan(of, version.number, version.record["model"]["digest"], digest, columns, tuple(parts), newest)
    store.put(layout.job_plan(pipeline, job), canonical_json(asdict(plan)))
    return plan


def _put_model(
    store: Store,
    version: Version,
    job: str,
    schema: FeatureSchema,
    data: Data,
    trusted: Sequence[str],
    verifier: Verifier | None,
) -> tuple[bytes, dict[str, str]]:
    """Put the archive that the container gets; its contract, and the columns of what the model says."""
    info = version.record["model"]
    said = contract(info, schema, trusted, {"pipeline": version.pipeline, "version": version.number})
    with tempfile.TemporaryDirectory(prefix="mlops-job-") as folder:
        file, archive = Path(folder, "model"), Path(folder, "model.tar.gz")
        fetch_model_file(store, info, file, verifier=verifier, pipeline=version.pipeline, key=version.key)
        model = open_model(file, info, trusted=trusted, verifier=verifier, pipeline=version.pipeline, key=version.key)
        outputs = Outputs(model, schema)
        outputs.check_names([*schema.names, *([data.id] if data.id else [])])
        if ROW in schema.names:
            raise PredictionError(f"a feature is named {ROW}, as the number of a row is", hint="rename it")
        pack_model(said, file, archive)
        store.put_file(layout.job_model(version.pipeline, job), archive)
    return said, {name: str(kind) for name, kind in outputs.columns.items()}


@dataclass(frozen=True)
class _Input:
    rows: int
    content: bytes


def _sized(
    chunks: Iterable[tuple[pa.Table, pd.DataFrame]], schema: FeatureSchema, max_bytes: int
) -> Iterator[tuple[pa.Table, _Input]]:
    """Halve chunks until the job's part of each is small enough."""
    for read, inputs in chunks:
        content = put_rows(inputs, schema)
        if len(content) <= max_bytes:
            yield read, _Input(len(inputs), content)
        elif len(inputs) == 1:
            raise PredictionError(
                f"one row takes {len(content):,} bytes, and a request of the job {max_bytes:,} at most",
                hint="give deploy.batch.sagemaker.max_payload_mb more, or predict with fewer or shorter columns",
            )
        else:
            half = len(inputs) // 2
            pieces = [(read.slice(0, half), inputs.iloc[:half]), (read.slice(half), inputs.iloc[half:])]
            yield from _sized(pieces, schema, max_bytes)


class Frozen:
    """Frozen rows with what a job said of them.

    :param outputs: prefix of what the job wrote: for each part a file of the part's name and ``.out``.
    :raises PredictionError: what is there is not one answer for each part.
    """

    def __init__(self, store: Store, version: Version, job: str, plan: Plan, *, outputs: str, data: Data) -> None:
        self._store, self._pipeline, self._job, self._plan = store, version.pipeline, job, plan
        self._schema = FeatureSchema.from_dict(version.record["schema"]).hiding(data.private)
        self._answers = self._found(outputs)
        ends = np.cumsum([part.rows for part in plan.parts]).tolist()
        self._numbers = {first: number for number, first in enumerate([0, *ends[:-1]])}
        self.newest = plan.newest
        self.packages: dict[str, str | None] = {}
        """Versions of the packages that the container predicted with, once it was read."""

    def _found(self, prefix: str) -> list[str]:
        names = [layout.job_part(self._pipeline, self._job, "input", i) for i in range(len(self._plan.parts))]
        wanted = [f"{key.rpartition('/')[2]}.out" for key in names]
        # SageMaker may put them into a folder below; the names of the files are one for each part.
        there = [key for key in self._store.list(prefix) if key.endswith(".out")]
        counts = Counter(key.rpartition("/")[2] for key in there)
        lost = [name for name in wanted if not counts[name]]
        doubled = [name for name in wanted if counts[name] > 1]
        others = sorted(counts.keys() - {*wanted})
        problems = [
            f"{len(found)} {what} ({', '.join(found[:_SHOWN])}{', …' if len(found) > _SHOWN else ''})"
            for found, what in ((lost, "missing"), (doubled, "there twice"), (others, "of no part"))
            if found
        ]
        if problems:
            raise PredictionError(
                f"of the {len(wanted)} answers that the SageMaker job {self._job} should have left at "
                f"{self._store.uri}/{prefix}: {'; '.join(problems)}",
                hint="the job's role must write below the store: s3:PutObject" if len(lost) == len(wanted) else _ANEW,
            )
        by_name = {key.rpartition("/")[2]: key for key in there}
        return [by_name[name] for name in wanted]

    def chunks(self, on_rows: Callable[[pa.Table], None] | None = None) -> Iterator[tuple[pa.Table, pd.DataFrame]]:
        """Yield each part: rows as they were read, and as the model takes them; see
        :func:`~airflow_mlops.ml.prediction.prepared_chunks`.

        :raises CorruptObject: a part is not what was frozen.
        """
        for number, part in enumerate(self._plan.parts):
            read = pq.read_table(pa.BufferReader(self._get(number, "rows", part.read)))
            inputs = get_rows(self._get(number, "input", part.input), self._schema)
            if on_rows is not None:
                on_rows(read)
            yield read, inputs

    def _get(self, number: int, what: str, digest: str) -> bytes:
        key = layout.job_part(self._pipeline, self._job, what, number)
        data = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise CorruptObject(f"{key} is not what was frozen there", hint=_ANEW)
        return data

    def of(self, inputs: pd.DataFrame) -> dict[str, pa.Array]:
        """What the job said of a part's rows, in their order.

        :raises PredictionError: it is about other rows, by another model, or not one value for each row.
        """
        number = self._numbers[int(inputs.index[0])]
        part, key = self._plan.parts[number], self._answers[number]
        what = f"the answer {key.rpartition('/')[2]} of the SageMaker job {self._job}"
        if (size := self._store.stat(key).size) > _LARGEST_ANSWER:
            raise PredictionError(f"{what} has {size:,} bytes; the limit is {_LARGEST_ANSWER:,}")
        said, about = get_said(self._store.get(key), self._plan.columns, what)
        if about.get("part") != part.input or about.get("model") != self._plan.model:
            other = "model" if about.get("part") == part.input else "rows"
            raise PredictionError(f"{what} is about other {other} than were frozen for it", hint=_ANEW)
        self.packages = about.get("packages") or {}
        return self._checked(_in_order(said, inputs.index.to_numpy(), what), what)

    def _checked(self, said: pa.Table, what: str) -> dict[str, pa.Array]:
        columns = {name: said.column(name).combine_chunks() for name in self._plan.columns}
        for name, values in columns.items():
            if pa.types.is_floating(values.type) and not pc.all(pc.is_finite(values)).as_py():
                raise PredictionError(f"{what} has values of {name} that are NaN or infinite")
        if self._schema.classes is not None:
            classes = pa.array([plain(c) for c in self._schema.classes], columns[PREDICTION].type)
            if not pc.all(pc.is_in(columns[PREDICTION], value_set=classes)).as_py():
                raise PredictionError(f"{what} names classes that the model does not know", hint=_ANEW)
        return columns


_ANEW = "clear the task to predict anew"


def _in_order(said: pa.Table, wanted: np.ndarray, what: str) -> pa.Table:
    """The rows of an answer in the order of ``wanted``, which rises: each of them once, and no other."""
    rows = said.column(ROW).to_numpy()
    order = np.argsort(rows, kind="stable")
    if np.array_equal(rows[order], wanted):
        return said if np.array_equal(rows, wanted) else said.take(pa.array(order))
    found, counts = np.unique(rows, return_counts=True)
    lost, doubled = len(np.setdiff1d(wanted, found)), int((counts - 1).sum())
    others = len(np.setdiff1d(found, wanted))
    raise PredictionError(
        f"{what} is not one prediction for each of {len(wanted):,} rows: {lost:,} are missing, {doubled:,} are there "
        f"more than once, {others:,} are of other rows",
        hint=_ANEW,
    )
