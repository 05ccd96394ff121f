"""Rows that a job elsewhere predicts: what comes of them is what a prediction here gives, or an error that says why."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import CorruptObject, MLOpsError, PredictionError
from airflow_mlops.ml.batch_inference import score
from airflow_mlops.ml.data import read_batches
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.frozen_rows import Frozen, Plan, _in_order, freeze
from airflow_mlops.ml.prediction import read_capture, read_raw
from airflow_mlops.ml.transform_parts import ROW, pack_model, unpacked_model
from airflow_mlops.ml.transform_server import Transformer
from airflow_mlops.registry.artifacts import store_model
from airflow_mlops.registry.registry import Version
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.window import Window
from tests.unit.ml.transform_job import run_job

WINDOW = Window.of("2026-01-01", "2026-02-01")
DATA = Data(source="rows.parquet", target="y", id="id", timestamp="at", private=["income"])
FEATURES = (Feature("x", "number"), Feature("income", "number", private=True), Feature("ward", "category", ("n", "s")),
            Feature("own", "boolean"))  # fmt: skip
JOB = "people-0123-1"


def people(n: int = 500, seed: int = 0) -> pd.DataFrame:
    """Rows with everything that a text format would lose: large integers, gaps, times, new categories."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(n, dtype="int64") + 2**53 + 1,
            "at": pd.date_range("2026-01-02", periods=n, freq="min", tz="UTC"),
            "x": random.normal(size=n),
            "income": random.normal(size=n) * 1e6,
            "ward": random.choice(["n", "s", 'new, "quoted"\n', "7.0"], n),
            "own": random.random(n) < 0.5,
            "note": [f"note {i}" for i in range(n)],
        }
    )
    frame.loc[::7, "x"] = np.nan
    frame.loc[::11, "ward"] = None
    frame["own"] = frame["own"].astype("boolean").mask(frame.index % 13 == 0)
    return frame


@dataclass
class Place:
    """A store, a version in it, and rows to score."""

    store: LocalStore
    version: Version
    root: Path
    folder: Path

    def freeze(self, data: Data = DATA, **more: Any) -> Plan:
        """Freeze the rows."""
        batches = read_batches(data, files=Files(str(self.root)), window=WINDOW, target_optional=True)
        asked = {"of": "this", "data": data, "batches": batches, "max_bytes": 1 << 20} | more
        return freeze(self.store, self.version, JOB, **asked)

    def score(self, name: str, data: Data = DATA, **more: Any) -> tuple[dict[str, Any], pa.Table]:
        """Score them here, or take what a job said of them; the result and the written predictions."""
        result = score(
            self.store, self.version, data=data, source=None, output=str(self.root / name), name="run",
            window=WINDOW, files=Files(str(self.root)), log=lambda *_: None, replay_rows=20, **more,
        )  # fmt: skip
        return result, pq.read_table(result["output"])

    def frozen(self, plan: Plan, data: Data = DATA) -> Frozen:
        """The rows with what the job said."""
        return Frozen(self.store, self.version, JOB, plan, outputs=self.outputs, data=data)

    @property
    def outputs(self) -> str:
        return f"{layout.job_prefix('people', JOB)}output/"

    def said(self, plan: Plan, data: Data = DATA) -> list[dict[str, Any]]:
        """Everything that the job said."""
        frozen = self.frozen(plan, data)
        return [frozen.of(inputs) for _, inputs in frozen.chunks()]

    def run(self, change: Callable[[int, bytes], bytes | None] | None = None) -> None:
        """Do what SageMaker does with the container, in this process."""
        run_job(self.store, "people", JOB, self.folder, change)


def version_of(store: LocalStore, estimator: Any, target: Any, features: str | None = None) -> Version:
    frame = people()
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["ward"]), (SimpleImputer(), ["x", "income", "own"])
    )
    labels = target(frame)
    schema = FeatureSchema(FEATURES, "y", tuple(np.unique(labels).tolist()) if labels.dtype.kind in "OUi" else None)
    model = make_pipeline(prepare, estimator).fit(schema.check(frame), labels)
    record = {
        "model": store_model(store, model),
        "schema": schema.to_dict(),
        "config": {"features": {"callable": features} if features else None},
    }
    return Version("people", 3, None, record)


TARGETS: dict[str, tuple[Any, Callable[[pd.DataFrame], Any]]] = {
    "two classes": (HistGradientBoostingClassifier(max_iter=5), lambda f: np.where(f["x"] > 0, "yes", "no")),
    "more classes": (LogisticRegression(), lambda f: np.digitize(f["x"].fillna(0), [-0.5, 0.5])),
    "scores": (RidgeClassifier(), lambda f: np.where(f["x"] > 0, 1, 0)),
    "numbers": (LinearRegression(), lambda f: f["x"].fillna(0).to_numpy() * 3 + 0.5),
}


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Place]:
    def made(kind: str = "two classes", features: str | None = None) -> Place:
        store = LocalStore(tmp_path / "store")
        (tmp_path / "lake").mkdir()
        people(700, seed=1).to_parquet(tmp_path / "lake/rows.parquet")
        return Place(store, version_of(store, *TARGETS[kind], features), tmp_path / "lake", tmp_path / "container")

    return made


@pytest.mark.parametrize("kind", TARGETS)
def test_a_job_gives_what_a_prediction_here_gives(place: Callable[..., Place], kind: str) -> None:
    at = place(kind)
    here, expected = at.score("here")
    plan = at.freeze(max_bytes=8_000)
    assert len(plan.parts) > 3
    assert plan.rows == 700
    at.run()
    there, found = at.score("there", frozen=at.frozen(plan))
    assert found.schema == expected.schema
    for name in expected.column_names:
        if pa.types.is_floating(expected.schema.field(name).type):
            # Sums over other groups of rows may differ in the last digit.
            assert np.allclose(found[name], expected[name], rtol=1e-12, atol=0)
        else:
            assert found[name].equals(expected[name])
    assert found["id"].to_pylist()[0] == 2**53 + 1
    assert there | {"output": "", "capture": ""} == here | {"output": "", "capture": ""}
    # What monitoring reads of the window is the same too.
    captures = [read_capture(at.store, r["capture"]) for r in (here, there)]
    pd.testing.assert_frame_equal(*captures, rtol=1e-12)
    raw = [read_raw(at.store, r["capture"]) for r in (here, there)]
    assert raw[0] is not None
    assert raw[0].equals(raw[1])


def test_the_container_gets_features_and_row_numbers_only(place: Callable[..., Place]) -> None:
    at = place()
    at.freeze()
    table = pq.read_table(io.BytesIO(at.store.get(layout.job_part("people", JOB, "input", 0))))
    assert table.column_names == [ROW, "x", "income", "ward", "own"]
    assert table[ROW].to_pylist() == list(range(700))
    # Beside it lies what is captured: not the private number.
    kept = pq.read_table(io.BytesIO(at.store.get(layout.job_part("people", JOB, "rows", 0))))
    assert kept.column_names == ["id", "at", "x", "ward", "own", "note"]


def once(frame: pd.DataFrame) -> pd.DataFrame:
    """Feature code that gives other values each time."""
    return frame.assign(x=np.random.default_rng().normal(size=len(frame)))


def test_what_was_sent_is_what_is_recorded(place: Callable[..., Place]) -> None:
    at = place(features=f"{__name__}:once")
    plan = at.freeze(allowed_imports=[__name__])
    at.run()
    people(3, seed=9).to_parquet(at.root / "rows.parquet")
    result, table = at.score("there", frozen=at.frozen(plan))
    sent = pq.read_table(io.BytesIO(at.store.get(layout.job_part("people", JOB, "input", 0))))
    captured = read_capture(at.store, result["capture"])
    assert table.num_rows == len(captured) == 700
    assert captured["x"].to_numpy() == pytest.approx(sent["x"].to_numpy(), abs=0)
    assert result["newest"] == "2026-01-02T11:39:00+00:00"


def test_rows_of_an_earlier_try_are_replaced(place: Callable[..., Place]) -> None:
    at = place()
    many = at.freeze(max_bytes=8_000)
    at.run()
    few = at.freeze()
    assert len(few.parts) == 1 < len(many.parts)
    assert Plan.load(at.store, "people", JOB) == few
    assert sorted(k.rpartition("/")[2] for k in at.store.list(layout.job_prefix("people", JOB))) == [
        "000000.parquet", "000000.parquet", "model.tar.gz", "plan.json",
    ]  # fmt: skip
    assert Plan.load(at.store, "people", "another-1") is None
    for other in (b"{}", b"no json", b'{"parts": [{"lines": 3}]}', b"[]"):
        at.store.put(layout.job_plan("people", JOB), other)
        assert Plan.load(at.store, "people", JOB) is None


def test_a_row_that_is_larger_than_a_request(place: Callable[..., Place]) -> None:
    with pytest.raises(PredictionError, match=r"(?s)one row takes .* bytes, and a request of the job 500 at most"):
        place().freeze(max_bytes=500)


def test_a_model_that_runs_code_is_not_sent(place: Callable[..., Place]) -> None:
    at = place()
    record = at.version.record
    at.version = Version("people", 3, None, record | {"model": record["model"] | {"format": "pickle"}})
    with pytest.raises(PredictionError, match=r"(?s)format 'pickle', and a SageMaker job loads skops only"):
        at.freeze()


# --- answers that cannot be used ---------------------------------------------------------------------


def rewritten(answer: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    table = pq.read_table(io.BytesIO(answer))
    out = io.BytesIO()
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), out)
    return out.getvalue()


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.names.index(name), field, pa.array(values, field.type))


BAD: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a row is missing": (lambda t: t.slice(1), "1 are missing, 0 are there more than once, 0 are of other rows"),
    "a row is doubled": (lambda t: pa.concat_tables([t, t.slice(0, 2)]), "0 are missing, 2 are there more than once"),
    "rows of another part": (lambda t: put(t, ROW, np.asarray(t[ROW]) + 1), "1 are missing, .* 1 are of other rows"),
    "no number": (lambda t: put(t, "probability", [np.nan] * t.num_rows), "values of probability that are NaN"),
    "no value": (lambda t: put(t, "probability", [None] * t.num_rows), "rows without probability"),
    "an unknown class": (lambda t: put(t, "prediction", ["maybe"] * t.num_rows), "classes that the model does not"),
    "a column less": (lambda t: t.drop_columns(["probability"]), r"lacks probability \(double\); it has"),
    "another type": (lambda t: t.set_column(0, ROW, t[ROW].cast(pa.int32())), rf"lacks {ROW} \(int64\); it has"),
}  # fmt: skip


@pytest.mark.parametrize("how", BAD)
def test_an_answer_that_is_not_one_for_each_row(place: Callable[..., Place], how: str) -> None:
    at = place()
    plan = at.freeze(max_bytes=8_000)
    change, said = BAD[how]
    at.run(lambda number, answer: rewritten(answer, change) if number == 1 else answer)
    with pytest.raises(PredictionError, match=f"000001.parquet.out of the SageMaker job {JOB}.*{said}"):
        at.score("there", frozen=at.frozen(plan))
    assert not (at.root / "there").exists() or not list((at.root / "there").iterdir())
    assert not at.store.exists(layout.capture("people", WINDOW.key))


def test_answers_that_are_missing_doubled_or_strange(place: Callable[..., Place]) -> None:
    at = place()
    plan = at.freeze(max_bytes=8_000)
    n = len(plan.parts)
    with pytest.raises(PredictionError, match=rf"(?s)of the {n} answers .*{n} missing \(000000.*s3:PutObject"):
        at.said(plan)
    at.run(lambda number, answer: None if number == 2 else answer)
    with pytest.raises(PredictionError, match=r"1 missing \(000002.parquet.out\)"):
        at.said(plan)
    at.run()
    assert len(at.said(plan)) == n
    at.store.put(f"{at.outputs}input/000000.parquet.out", b"")
    at.store.put(f"{at.outputs}000999.parquet.out", b"")
    with pytest.raises(PredictionError, match=r"1 there twice \(000000.*; 1 of no part \(000999.parquet.out\)"):
        at.said(plan)


def test_answers_about_other_rows_or_by_another_model(place: Callable[..., Place]) -> None:
    at = place()
    plan = at.freeze()
    at.run()
    mixed = replace(plan, parts=(replace(plan.parts[0], input="0" * 64),))
    with pytest.raises(CorruptObject, match="is not what was frozen there"):
        at.said(mixed)
    # The container read another try's rows, before they were written again.
    people(700, seed=5).to_parquet(at.root / "rows.parquet")
    answer = at.store.get(f"{at.outputs}000000.parquet.out")
    again = at.freeze()
    at.store.put(f"{at.outputs}000000.parquet.out", answer)
    with pytest.raises(PredictionError, match="is about other rows than were frozen for it"):
        at.said(again)
    at.run()
    with pytest.raises(PredictionError, match="is about other model than were frozen for it"):
        at.said(replace(again, model="0" * 64))
    for wrong, said in (
        (b"no file", "is no Parquet file"),
        (at.store.get(layout.job_part("people", JOB, "input", 0)), "not from this package"),
    ):
        at.store.put(f"{at.outputs}000000.parquet.out", wrong)
        with pytest.raises(PredictionError, match=said):
            at.said(again)


@given(st.integers(1, 30), st.integers(0, 5), st.data())
def test_only_each_row_once_is_taken(n: int, first: int, data: st.DataObject) -> None:
    wanted = np.arange(first, first + n)
    rows = data.draw(st.permutations(wanted.tolist()) | st.lists(st.integers(0, 40), min_size=1, max_size=40))
    table = pa.table({ROW: pa.array(rows, pa.int64()), "said": pa.array([r * 10 for r in rows], pa.int64())})
    if sorted(rows) == wanted.tolist():
        assert pc.divide(_in_order(table, wanted, "x")["said"], 10).to_pylist() == wanted.tolist()
        return
    with pytest.raises(PredictionError):
        _in_order(table, wanted, "x")


# --- the container -----------------------------------------------------------------------------------


def test_the_container_loads_what_the_job_was_made_for(place: Callable[..., Place], tmp_path: Path) -> None:
    at = place()
    plan = at.freeze()
    at.run()
    digest = plan.contract
    assert Transformer(at.folder, digest).name == "people v3"
    for spoil, said in (
        (lambda: (at.folder / "contract.json").write_bytes(b"{}"), "not the one that the job was made for"),
        (lambda: (at.folder / "contract.json").unlink(), "there is no contract.json"),
    ):
        spoil()
        with pytest.raises(MLOpsError, match=said):
            Transformer(at.folder, digest)
    at.run()
    (at.folder / "model.skops").write_bytes((at.folder / "model.skops").read_bytes() + b"x")
    with pytest.raises(CorruptObject, match="is not the one that was registered"):
        unpacked_model(at.folder, digest)


def test_the_same_model_packs_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"model" * 100)
    for name in ("a", "b"):
        pack_model(b"{}", tmp_path / "model", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
