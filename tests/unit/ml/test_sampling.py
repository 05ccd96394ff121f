"""A sample is drawn evenly, by seed and position alone, and keeps the order of the rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.parts import ChunkPart
from airflow_mlops.ml.reading import SourceBatches, read_batches
from airflow_mlops.ml.sampling import SampledBatches

DATA = Data(source="rows.parquet", target="y")


def source(folder: Path, sizes: list[int]) -> SourceBatches:
    """Rows 0, 1, 2, … in one part for each of ``sizes``."""
    ends = np.cumsum(sizes)
    parts = []
    for i, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        table = pa.table({"y": pa.array(range(end - size, end), pa.int64())})
        parts.append(ChunkPart(table, "rows", folder / f"{i}.arrow"))
    return SourceBatches(parts, {"kind": "test"}, DATA, None)


def drawn(batches: SampledBatches) -> list[int]:
    return pa.Table.from_batches(list(batches), batches.schema).column("y").to_pylist()


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), rows=st.integers(1, 60), seed=st.integers(0, 9))
def test_a_sample_has_as_many_rows_as_it_may_in_their_order(
    sizes: list[int], rows: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    batches = SampledBatches(source(tmp_path_factory.mktemp("rows"), sizes), rows, seed)
    found = drawn(batches)
    assert len(found) == min(rows, sum(sizes))
    assert found == sorted(set(found))
    assert batches.rows_read == sum(sizes)
    together = SampledBatches(source(tmp_path_factory.mktemp("rows"), [sum(sizes)]), rows, seed)
    assert drawn(together) == found


def test_the_rows_with_the_smallest_draws_are_taken(tmp_path: Path) -> None:
    random = np.random.default_rng(3).random(1000)
    wanted = sorted(np.argsort(random)[:50].tolist())
    assert drawn(SampledBatches(source(tmp_path, [300, 1, 699]), 50, 3)) == wanted


def test_another_seed_draws_other_rows(tmp_path: Path) -> None:
    first, second = (drawn(SampledBatches(source(tmp_path, [500]), 50, seed)) for seed in (1, 2))
    assert first != second


def test_a_sample_can_be_drawn_from_a_file_twice(tmp_path: Path) -> None:
    pq.write_table(pa.table({"y": range(400)}), tmp_path / "rows.parquet")
    batches = SampledBatches(read_batches(DATA, files=Files(root=str(tmp_path)), window=None), 30, 7)
    assert drawn(batches) == drawn(batches)
    assert batches.source["sample"] == {"rows": 30, "seed": 7}
