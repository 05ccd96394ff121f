"""What a shard has done so far: a file for every few dozen keys, so that a second try does only what is missing."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from airflow_mlops.exceptions import CorruptObject, ObjectNotFound
from airflow_mlops.ml.fleet.result import Row
from airflow_mlops.ml.fleet.training import Trained
from airflow_mlops.store import layout
from airflow_mlops.store.base import Store

_ROWS, _KINDS = b"airflow_mlops.rows", b"airflow_mlops.kinds"
_MOST, _LEAST, _A_SHARD = 128, 32, 16


def chunk_size(keys: int) -> int:
    """Keys in a chunk of a shard with so many keys: 32 to 128.

    It depends on nothing else, so that a second try, maybe on another machine, finds what the first one left.
    """
    return min(max(-(-keys // _A_SHARD), _LEAST), _MOST)


class Chunks:
    """The finished chunks of one shard of one run."""

    def __init__(self, store: Store, pipeline: str, run: str, shard: int) -> None:
        self._store, self._pipeline, self._run, self._shard = store, pipeline, run, shard

    def _key(self, number: int) -> str:
        return layout.fleet_chunk(self._pipeline, self._run, self._shard, number)

    def save(self, number: int, done: Trained) -> None:
        """Write a chunk: one object, there as a whole or not at all."""
        table = pa.table(
            {
                "key": pa.array([k for k, _ in done.models], pa.string()),
                "model": pa.array([m for _, m in done.models], pa.large_binary()),
            }
        ).replace_schema_metadata(
            {
                _ROWS: json.dumps(done.rows, allow_nan=False).encode(),
                _KINDS: json.dumps({digest: kind.decode() for digest, kind in done.kinds.items()}).encode(),
            }
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_page_checksum=True)
        self._store.put(self._key(number), sink.getvalue())

    def load(self, number: int) -> Trained | None:
        """Read a chunk; ``None`` where it is not done, or not readable."""
        try:
            data = self._store.get(self._key(number))
            table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
            rows: list[Row] = json.loads(table.schema.metadata[_ROWS])
            kinds = {digest: kind.encode() for digest, kind in json.loads(table.schema.metadata[_KINDS]).items()}
        except ObjectNotFound:
            return None
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError):
            return None  # it is done again
        return Trained(rows, list(zip(table["key"].to_pylist(), table["model"].to_pylist(), strict=True)), kinds)

    def every(self, count: int) -> Iterator[Trained]:
        """Yield all chunks in order.

        :raises CorruptObject: one that was saved cannot be read.
        """
        for number in range(count):
            found = self.load(number)
            if found is None:
                raise CorruptObject(
                    f"chunk {number} of shard {self._shard} is not readable any more in {self._store.uri}",
                    hint="start the task again: it trains these keys anew",
                )
            yield found

    def discard(self, count: int) -> None:
        """Delete them, once what they hold is where it belongs."""
        for number in range(count):
            self._store.delete(self._key(number))
