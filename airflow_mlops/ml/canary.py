"""The version that is rolling out, beside the champion: it scores the same rows and serves its share of the ids.

Both score every row in every step, so that the two can be compared row by row; what differs is whose prediction of a
row is written. Where the version fails, it serves nothing of that run and its predictions are not used: the champion
scores all rows, and the failure is evidence.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.ml.features import FeatureSchema, plain, recorded_code
from airflow_mlops.ml.prediction import predict_batches
from airflow_mlops.ml.privacy import told
from airflow_mlops.ml.splitting import draws
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.registry.rollout import Rollout
from airflow_mlops.registry.signing import Verifier
from airflow_mlops.store.base import Store


@dataclass(frozen=True)
class Tried:
    """The version that rolls out, and where its rollout stands."""

    version: Version
    rollout: Rollout


class TriedFailed(Exception):
    """The version that rolls out could not score these rows; ``str()`` says why, without private values."""


def served_by_tried(ids: pa.Array | pa.ChunkedArray, key: str, share: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each row is one that the version that rolls out serves, shape (rows,).

    A keyed hash of the id decides: the same id and key are always on the same side, and who is served at one share is
    served at every larger one. A row without an id is the champion's.

    :param key: another one draws other ids: no customer is in every rollout's first share.
    :param share: 0…1, about this part of the ids.
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    served = np.zeros(len(ids), dtype=bool)
    # Without the gaps: through pandas an integer with gaps becomes a float, which does not hold its last digits.
    known = ids.is_valid().to_numpy(zero_copy_only=False)
    served[known] = draws(ids.drop_null().to_pandas(), key) < share
    return served


def key_of(pipeline: str, version: int) -> str:
    """The key by which ids are drawn for a version's rollout."""
    return f"canary {pipeline} v{version}"


class Beside:
    """Scores each chunk of rows with the version that rolls out, and puts what it serves in the champion's place.

    Give :meth:`rows` as ``on_rows`` and :meth:`chunk` as ``on_chunk`` of
    :func:`~airflow_mlops.ml.prediction.predict_batches`, and its batches to :meth:`merged`.

    :param schema: the champion's.
    :raises TriedFailed: from here and every method: the version cannot be loaded, or cannot score these rows.
    """

    def __init__(
        self,
        store: Store,
        tried: Tried,
        schema: FeatureSchema,
        data: Data,
        *,
        allowed_imports: Sequence[str],
        trusted_types: Sequence[str],
        verifier: Verifier | None,
    ) -> None:
        self.tried, self._data, self._allowed = tried, data, allowed_imports
        self.served = self.total = 0
        self.seconds: list[float] = [0.0, 0.0]
        """Time to score these rows: of the champion, of this version."""
        self.capture: Any = None
        """Takes this version's predictions, if set: see :class:`~airflow_mlops.ml.prediction.CaptureWriter`."""
        version = tried.version
        with self._guarded():
            self._model = fetch_model(
                store,
                version.record["model"],
                trusted=trusted_types,
                verifier=verifier,
                pipeline=version.pipeline,
                key=version.key,
            )
            self._schema = FeatureSchema.from_dict(version.record["schema"])
        mine, theirs = (_classes(s) for s in (self._schema, schema))
        if mine != theirs:
            raise TriedFailed(f"it predicts {_named(mine)}, and the champion {_named(theirs)}")
        self._said: pa.RecordBatch | None = None
        self._since = 0.0

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Every error of this version is a failure of it; what a retry can mend is raised as it is."""
        try:
            yield
        except MLOpsError as e:
            if e.retryable:
                raise
            raise TriedFailed(e.message) from None
        except Exception as e:  # noqa: BLE001 - whatever it raises, the champion serves
            raise TriedFailed(f"{type(e).__name__}: {told(e, [*self._data.private, *self._private])}") from None

    @property
    def _private(self) -> Sequence[str]:
        return [*self._schema.private] if hasattr(self, "_schema") else []

    def rows(self, chunk: pa.Table) -> None:
        """Score the rows of a chunk as they were read."""
        began = time.perf_counter()
        with self._guarded():
            (self._said,) = predict_batches(
                self._model,
                self._schema,
                [chunk],
                model_version=self.tried.version.number,
                id_column=self._data.id,
                features=recorded_code(self.tried.version.record),
                allowed_imports=self._allowed,
                chunk_rows=chunk.num_rows,
                private=self._data.private,
            )
        self._since = time.perf_counter()
        self.seconds[1] += self._since - began

    def chunk(self, batch: pa.RecordBatch) -> None:
        """Take note that the champion has scored the same rows."""
        self.seconds[0] += time.perf_counter() - self._since

    def merged(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield what is served: the champion's batches, with this version's predictions of the ids that it serves."""
        rollout = self.tried.rollout
        key = key_of(self.tried.version.pipeline, rollout.version)
        for batch in batches:
            said = self._said
            if said is None or said.schema != batch.schema:
                columns = "nothing" if said is None else ", ".join(f"{f.name} ({f.type})" for f in said.schema)
                raise TriedFailed(
                    f"its predictions have the columns {columns}, the champion's "
                    + ", ".join(f"{f.name} ({f.type})" for f in batch.schema)
                )
            if self.capture is not None:
                self.capture.write(said)
            self.total += batch.num_rows
            if self._data.id is not None and rollout.share > 0:
                mine = served_by_tried(batch.column(self._data.id), key, rollout.share)
                self.served += int(mine.sum())
                mask = pa.array(mine)
                pairs = zip(said.columns, batch.columns, strict=True)
                batch = pa.RecordBatch.from_arrays([pc.if_else(mask, *pair) for pair in pairs], schema=batch.schema)
            yield batch


def _classes(schema: FeatureSchema) -> frozenset[str] | None:
    return None if schema.classes is None else frozenset(str(plain(c)) for c in schema.classes)


def _named(classes: frozenset[str] | None) -> str:
    return "numbers" if classes is None else f"the classes {', '.join(sorted(classes))}"
