"""How a column was spread in training and in a window, for the pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from airflow_mlops.exceptions import CorruptObject, DataNotFound, ObjectNotFound
from airflow_mlops.ml.distributions import BINS, CATEGORIES, OTHERS, spread
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.prediction import CaptureWriter
from airflow_mlops.ml.reference import make_reference, store_reference
from airflow_mlops.registry import Registry
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.store.content import put_blob_file
from airflow_mlops.window import Window

WINDOW = Window.of("2026-01-01", "2026-02-01")
ROWS = 2000


def frame(shift: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "pay": random.normal(shift, 1, ROWS),
            "gap": np.where(random.random(ROWS) < 0.25, np.nan, 1.0),
            "town": random.choice([f"<b>{n}</b>" for n in range(40)], ROWS),
            "old": random.random(ROWS) < 0.25,
            "secret": random.normal(0, 1, ROWS),
            "prediction": random.integers(0, 2, ROWS),
            "probability": random.random(ROWS),
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    store = LocalStore(tmp_path_factory.mktemp("store"))
    kinds = {"pay": "number", "gap": "number", "town": "category", "old": "boolean", "secret": "number"}
    features = tuple(Feature(n, k, private=n == "secret") for n, k in kinds.items())  # type: ignore[arg-type]
    schema = FeatureSchema(features, target="left", classes=(0, 1), positive=1)
    trained = frame(0.0, 1).drop(columns="secret")
    # What a model says is kept of the holdout alone.
    trained.loc[: ROWS // 2, ["prediction", "probability"]] = np.nan
    registry = Registry(store, "churn")
    record: dict[str, Any] = {"schema": schema.to_dict()}
    registry.register(record, op_id="r")
    reference = store_reference(store, make_reference(trained, schema))
    registry.annotate(1, "evaluation", {"reference": reference}, op_id="e")
    registry.register(record, op_id="r2")
    with CaptureWriter(store, "churn", WINDOW, model_version=1) as capture:
        capture.write(pa.RecordBatch.from_pandas(frame(2.0, 2), preserve_index=False))
    return store


def test_a_shift_of_numbers_shows(store: LocalStore) -> None:
    found = spread(store, "churn", WINDOW, "pay")
    assert (found.kind, found.version, found.reference_rows, found.current_rows) == ("number", 1, ROWS, ROWS)
    assert len(found.bins) == BINS
    for side in ("reference", "current"):
        assert sum(getattr(b, side) for b in found.bins) == pytest.approx(1)
    middle = [(b.low + b.high) / 2 for b in found.bins if b.low is not None and b.high is not None]
    means = [np.dot(middle, [getattr(b, side) for b in found.bins]) for side in ("reference", "current")]
    assert means == pytest.approx([0, 2], abs=0.1)
    assert all(a.high == b.low for a, b in zip(found.bins, found.bins[1:], strict=False))


def test_gaps_are_told_and_not_drawn(store: LocalStore) -> None:
    found = spread(store, "churn", WINDOW, "gap")
    assert found.reference_missing == pytest.approx(0.25, abs=0.03)
    assert found.current_missing == pytest.approx(0.25, abs=0.03)
    assert sum(b.current for b in found.bins) == pytest.approx(1)


def test_the_rarest_categories_stand_together(store: LocalStore) -> None:
    found = spread(store, "churn", WINDOW, "town")
    assert len(found.bins) == CATEGORIES + 1
    assert found.bins[-1].label == OTHERS
    assert sum(b.reference for b in found.bins) == pytest.approx(1)
    assert found.bins[0].label.startswith("<b>")
    assert {b.label for b in spread(store, "churn", WINDOW, "old").bins} == {"True", "False"}


def test_predictions_are_compared_with_those_on_the_holdout(store: LocalStore) -> None:
    assert spread(store, "churn", WINDOW, "probability").reference_sample == ROWS // 2 - 1
    found = spread(store, "churn", WINDOW, "prediction")
    assert [b.label for b in sorted(found.bins, key=lambda b: b.label)] == ["0", "1"]
    assert found.reference_missing == 0


@pytest.mark.parametrize("column", ["secret", "left", "nothing", "model_version", "pay.x", ""])
def test_what_is_not_checked_is_not_shown(store: LocalStore, column: str) -> None:
    with pytest.raises(DataNotFound, match="not a column that churn v1 is checked for"):
        spread(store, "churn", WINDOW, column)


def test_what_became_private_later_is_not_shown_either(store: LocalStore) -> None:
    with pytest.raises(DataNotFound):
        spread(store, "churn", WINDOW, "pay", private=["pay"])


def test_a_window_that_was_not_scored(store: LocalStore) -> None:
    with pytest.raises(ObjectNotFound):
        spread(store, "churn", Window.of("2026-02-01", "2026-03-01"), "pay")


def test_a_damaged_capture_is_said(store: LocalStore, tmp_path: Path) -> None:
    copy = LocalStore(tmp_path)
    for key in store.list(""):
        copy.put(key, store.get(key))
    from airflow_mlops.ml.prediction import find_capture
    from airflow_mlops.store.content import get_json

    blob = layout.blob(get_json(copy, find_capture(copy, "churn", WINDOW)["capture"])["file"])
    copy.put(blob, copy.get(blob)[:-100])
    with pytest.raises(CorruptObject):
        spread(copy, "churn", WINDOW, "pay")


def test_neither_pandas_nor_scikit_learn_is_loaded() -> None:
    code = (
        "import sys, airflow_mlops.ml.distributions\n"
        "print([m for m in ('airflow', 'pandas', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MEASURE = """
import sys
from pathlib import Path
from airflow_mlops.ml.distributions import SAMPLE_ROWS, _column
from airflow_mlops.store import LocalStore
import pyarrow as pa
values, _ = _column(LocalStore(Path(sys.argv[1])), sys.argv[2], "town")
print(pa.default_memory_pool().max_memory() / (1 << 20))
assert len(values) == SAMPLE_ROWS, len(values)
# Evenly spaced: each group of rows is as long as any other, and begins with its own number.
groups = [text[:2] for text in values.to_pylist()]
assert {groups.count(g) for g in set(groups)} == {SAMPLE_ROWS // len(set(groups))}
print(len(set(groups)))
"""


def test_a_long_column_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    rows, groups = 100_000, 25
    names = pa.array([f" of a town with a long name, number {n:060d}" for n in range(rows)])
    path = tmp_path / "rows.parquet"
    with pq.ParquetWriter(path, pa.schema({"town": pa.string()}), write_page_checksum=True) as writer:
        for group in range(groups):
            town = pc.binary_join_element_wise(pa.scalar(f"{group:02d}"), names, "")
            writer.write_table(pa.table({"town": town}))
    size = rows * groups * len(names[0].as_py()) / (1 << 20)  # megabytes of the whole column
    digest = put_blob_file(LocalStore(tmp_path / "store"), path)
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "store"), digest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    peak = float(done.stdout.split()[0])
    assert size > 200
    assert peak < size / 4, f"{peak} MB of Arrow's memory"
    assert (done.returncode, done.stdout.split()[1:]) == (0, [str(groups)]), done.stderr
