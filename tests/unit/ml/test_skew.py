from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data, Features, Skew, Train
from airflow_mlops.exceptions import ConfigError, DataError
from airflow_mlops.ml.batch_inference import score
from airflow_mlops.ml.candidate import train_candidate
from airflow_mlops.ml.data import read_batches, take_snapshot
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.prediction import find_capture, read_capture, read_raw, write_capture
from airflow_mlops.ml.sampling import RowsById
from airflow_mlops.ml.served_skew import skew
from airflow_mlops.ml.skew import SkewReport, check_skew
from airflow_mlops.registry.registry import Registry, Version
from airflow_mlops.store import LocalStore, layout
from airflow_mlops.window import Window

WINDOW = Window.of("2013-02-01", "2013-03-01")


# --- two frames ----------------------------------------------------------------------------------


def features(n: int = 500, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "spend": rng.lognormal(3, 1, n),
            "city": rng.choice(["Rome", "Oslo", "Lima"], n),
            "member": (rng.random(n) < 0.5).astype(float),
        }
    )


KINDS = {"spend": "number", "city": "category", "member": "boolean"}


def check(
    served: pd.DataFrame, replayed: pd.DataFrame, ids: Any = None, other: Any = None, **config: Any
) -> SkewReport:
    first = pd.Series(range(len(served)) if ids is None else ids)
    second = pd.Series(range(len(replayed)) if other is None else other)
    report = check_skew(served, replayed, KINDS, Skew(**config), served_ids=first, replayed_ids=second)
    json.dumps(report.to_dict(), allow_nan=False)
    return report


def one(report: SkewReport, name: str) -> Any:
    return next(c for c in report.columns if c.name == name)


def test_equal_rows_are_no_skew_whatever_their_order() -> None:
    frame = features()
    mixed = frame.sample(frac=1, random_state=1)
    report = check(frame, mixed.reset_index(drop=True), other=mixed.index.to_list())
    assert (report.verdict, report.rows, report.unmatched, report.unserved) == ("no_skew", 500, 0, 0)
    assert "all 500 rows agree" in report.sentence
    assert "95 % sure: at most 0.82 % of all rows differ" in report.sentence  # 1 - (0.05 / 3) ** (1 / 500)


def test_another_unit_is_told_with_its_ratio() -> None:
    frame = features()
    report = check(frame.assign(spend=frame.spend * 100), frame)
    assert report.verdict == "skew"
    assert report.sentence.startswith("feature skew in 1 of 3 features: spend: 100 % of 500 rows differ, ratio 100")
    assert one(report, "spend").ratio == pytest.approx(100)
    assert [c.name for c in report.skewed] == ["spend"]
    assert one(report, "spend").examples[0]["served"] == pytest.approx(100 * frame.spend[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v + 273.15, "shifted by 273.15"),
        (lambda v: v * 1.609344, "ratio 1.60934"),
        (lambda v: -v, "ratio -1"),
        (lambda v: v.round(-1), "usually by"),
        (lambda v: v * 1.001, "ratio 1.001"),
    ],
)
def test_what_happened_to_a_number_is_told(change: Callable[[pd.Series], pd.Series], said: str) -> None:
    frame = features()
    report = check(frame.assign(spend=change(frame.spend)), frame)
    assert report.verdict == "skew"
    assert said in report.sentence


def test_large_numbers_one_apart_are_shifted_and_not_scaled() -> None:
    frame = features().assign(spend=np.linspace(1e4, 2e4, 500))
    report = check(frame.assign(spend=frame.spend + 1), frame)
    assert "shifted by 1" in report.sentence
    assert one(report, "spend").ratio is None


def test_texts_and_missing_values() -> None:
    frame = features()
    served = frame.assign(city=frame.city.str.upper(), member=frame.member.where(frame.index >= 40))
    report = check(served, frame.assign(spend=frame.spend.where(frame.index < 480)))
    assert [c.name for c in report.skewed] == ["city", "member", "spend"]
    assert (
        "became 'ROME'" in report.sentence or "became 'OSLO'" in report.sentence or "became 'LIMA'" in report.sentence
    )
    assert (one(report, "member").lost, one(report, "member").gained) == (40, 0)
    assert "40 missing when served" in report.sentence
    assert "20 missing in the replay" in report.sentence
    both = frame.assign(spend=np.nan, city=np.nan)
    assert check(both, both).verdict == "no_skew"


def test_rounding_is_no_difference_and_its_limit_is_yours() -> None:
    frame = features()
    single = frame.assign(spend=frame.spend.astype("float32").astype(float))
    assert check(single, frame).verdict == "no_skew"
    assert check(single, frame, tolerance=1e-12).verdict == "skew"
    near_zero = frame.assign(spend=np.where(frame.index % 2, frame.spend, 0.0))
    assert check(near_zero.assign(spend=near_zero.spend + 1e-9), near_zero).verdict == "no_skew"


def test_a_few_corrected_rows_are_no_alarm() -> None:
    frame = features()
    few = frame.assign(spend=frame.spend.where(frame.index >= 5, 1e6))
    report = check(few, frame)
    assert report.verdict == "no_skew"
    assert "at most 5 of 500 rows differ in any" in report.sentence
    assert check(few, frame, max_share=0.0).verdict == "skew"
    many = frame.assign(spend=frame.spend.where(frame.index >= 25, 1e6))
    assert check(many, frame).verdict == "skew"
    assert check(many, frame, max_share=0.1).verdict == "no_skew"


def test_false_alarms_are_rare_at_the_boundary() -> None:
    rng, alarms, runs = np.random.default_rng(5), 0, 150
    frame = features(500)
    for _ in range(runs):
        served = frame.copy()
        for name, wrong in (("spend", -1.0), ("city", "?"), ("member", 9.0)):
            served.loc[rng.random(500) < 0.05, name] = wrong
        alarms += check(served, frame, max_share=0.05).verdict == "skew"
    # A chance of at most 5 %: three standard errors above.
    assert alarms / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5


def test_rows_without_a_partner_and_repeated_ids_are_counted() -> None:
    frame = features(100)
    served = pd.concat([frame.assign(spend=-1.0)[:10], frame])
    report = check(served, frame[20:], ids=[*range(10), *range(100)], other=[float(i) for i in range(20, 100)])
    assert (report.verdict, report.rows, report.unmatched, report.duplicates) == ("no_skew", 80, 20, (10, 0))
    assert "20 more served rows have no row to replay" in report.sentence
    assert check(frame[:80], frame, ids=range(80)).unserved == 20
    text = check(frame, frame, ids=[f"{i}" for i in range(100)])
    assert text.rows == 100
    assert check(frame[:20], frame).verdict == "not_enough_data"
    assert check(frame[:20].assign(spend=-1.0), frame).verdict == "skew"
    none = check(frame, frame, ids=range(900, 1000))
    assert (none.verdict, none.columns) == ("not_enough_data", ())


def test_what_was_not_captured_is_named_and_what_is_not_made_refused() -> None:
    frame = features()
    report = check(frame.drop(columns="city"), frame)
    assert report.unchecked == ("city",)
    assert "not captured, so not checked: city" in report.sentence
    with pytest.raises(DataError, match="the replay gave no city"):
        check(frame, frame.drop(columns="city"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32)), min_size=1, max_size=60),
    st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32)), min_size=1, max_size=60),
)
def test_any_numbers_are_compared_and_oneself_is_the_same(a: list[float | None], b: list[float | None]) -> None:
    sides = [features(len(v)).assign(spend=pd.Series(v, dtype=float)) for v in (a, b)]
    assert not check(sides[0], sides[0], max_share=0.0).skewed
    there, back = check(sides[0], sides[1]), check(sides[1], sides[0])
    assert one(there, "spend").lost == one(back, "spend").gained


# --- rows chosen by their id ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 1000])
def test_the_same_ids_are_kept_however_rows_are_batched(size: int) -> None:
    table = pa.table({"id": [*range(1000)], "x": np.arange(1000.0), "secret": ["s"] * 1000})
    kept = RowsById(50, "id", drop=["secret"])
    for i in range(0, 1000, size):
        kept.add(table.slice(i, size))
    whole = RowsById(50, "id")
    whole.add(table.take(pa.array(np.arange(1000)[::-1])))
    first, second = kept.table(), whole.table()
    assert first.column_names == ["id", "x"]
    assert first.num_rows == 50
    assert sorted(first["id"].to_pylist()) == sorted(second["id"].to_pylist())
    assert RowsById(5, "id").table() is None
    gaps = RowsById(5, "id")
    gaps.add(pa.table({"id": pa.array([None, 1, None], pa.int64())}))
    assert gaps.table().num_rows == 1


# --- captures of a trained version ---------------------------------------------------------------


CODE = """
def build(frame):
    return frame.assign(avg_spend=frame["spend"] / frame["visits"], big=frame["spend"] > 100)

def centred(frame):
    return frame.assign(avg_spend=frame["spend"] - frame["spend"].mean())
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    (tmp_path / "skewed_features.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "skewed_features", raising=False)
    return importlib.import_module("skewed_features")


def customers(n: int = 600, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    spend = rng.lognormal(4, 1, n)
    return pd.DataFrame(
        {
            "customer": range(n),
            "seen": pd.date_range("2013-02-01", periods=n, freq="h"),
            "spend": spend,
            "visits": rng.integers(1, 20, n),
            "city": rng.choice(["Rome", "Oslo"], n),
            "stays": (spend + rng.normal(0, 50, n) > 60).astype(int),
        }
    )


DATA = Data(source="customers.parquet", target="stays", id="customer", timestamp="seen")


class Lake:
    """A store with a trained version, and files beside it."""

    def __init__(self, root: Path, callable_: str | None) -> None:
        self.root, self.store, self.files = root, LocalStore(root / "store"), Files(root=str(root))
        customers().to_parquet(root / "customers.parquet", index=False)
        snapshot = take_snapshot(
            self.store, "churn", read_batches(DATA, files=self.files, window=None), data=DATA, window=None
        )
        record = train_candidate(
            self.store,
            snapshot.to_ref(),
            data=DATA,
            train_config=Train(estimator="sklearn.tree.DecisionTreeClassifier", params={"max_depth": 2}),
            features=Features(callable=callable_) if callable_ else None,
            metrics=["accuracy"],
            task=None,
            allowed_imports=["skewed_features"],
            trusted_types=[],
            log=lambda *a: None,
        )
        registry = Registry(self.store, "churn")
        registry.register(record, op_id="r")
        self.version: Version = registry.get(1)

    def score(self, frame: pd.DataFrame, data: Data = DATA, replay_rows: int = 500) -> dict[str, Any]:
        frame.drop(columns="stays").to_parquet(self.root / "new.parquet", index=False)
        score(
            self.store, self.version, data=data, source="new.parquet", output="out", name="x", window=WINDOW,
            files=self.files, allowed_imports=["skewed_features"], log=lambda *a: None, replay_rows=replay_rows,
            verifier=None,
        )  # fmt: skip
        return find_capture(self.store, "churn", WINDOW)

    def skew(self, capture: dict[str, Any], data: Data = DATA, **config: Any) -> tuple[dict[str, Any], str]:
        result, page = skew(
            self.store, capture, self.version, Skew(**config), data=data, files=self.files,
            allowed_imports=["skewed_features"],
        )  # fmt: skip
        json.dumps(result, allow_nan=False)
        return result, page


def test_what_a_batch_inference_kept_is_replayed(tmp_path: Path, code: types.ModuleType) -> None:
    lake = Lake(tmp_path, "skewed_features:build")
    capture = lake.score(customers())
    raw = read_raw(lake.store, capture)
    assert raw is not None
    assert raw.num_rows == 500
    assert {"spend", "visits"} <= set(raw.column_names)
    assert "avg_spend" not in raw.column_names
    result, page = lake.skew(capture)
    assert (result["verdict"], result["rows"], result["unmatched"]) == ("no_skew", 500, 0)
    assert "500 rows agree" in page
    assert "the rows as they came" in page


def test_code_that_was_changed_since_is_found(tmp_path: Path, code: types.ModuleType) -> None:
    lake = Lake(tmp_path, "skewed_features:build")
    capture = lake.score(customers())
    (tmp_path / "skewed_features.py").write_text(CODE.replace("/ frame", "* 100 / frame"))
    importlib.reload(code)
    result, page = lake.skew(capture)
    assert result["verdict"] == "skew"
    assert "avg_spend: 100 % of 500 rows differ, ratio 0.01" in result["sentence"]
    assert [c["name"] for c in result["columns"] if c["skewed"]] == ["avg_spend"]
    assert "the file of skewed_features:build is not the one that v1 was trained with" in result["sentence"]
    assert "examples" not in result["columns"][0]
    assert "avg_spend: rows that differ" in page


def test_features_that_depend_on_the_other_rows_are_found(tmp_path: Path, code: types.ModuleType) -> None:
    lake = Lake(tmp_path, "skewed_features:centred")
    result, _ = lake.skew(lake.score(customers()), replay_rows=100)
    assert result["verdict"] == "skew"
    assert "avg_spend: 100 % of 500 rows differ, shifted by" in result["sentence"]


def test_a_served_unit_is_found_in_the_rows_that_training_reads(tmp_path: Path) -> None:
    lake = Lake(tmp_path, None)
    wrong = customers()
    wrong.loc[wrong.city == "Rome", "spend"] *= 100
    capture = lake.score(wrong, replay_rows=0)
    assert read_raw(lake.store, capture) is None
    told, _ = lake.skew(capture)
    assert told["verdict"] == "not_enough_data"
    assert "no row was kept" in told["sentence"]
    result, page = lake.skew(capture, source="customers.parquet", replay_rows=200)
    assert (result["verdict"], result["rows"], result["unmatched"]) == ("skew", 200, 0)
    assert [c["name"] for c in result["columns"] if c["skewed"]] == ["spend"]
    assert "of 200 rows differ, ratio 100" in result["sentence"]
    assert "the rows of customers.parquet" in page


def test_rows_that_have_not_arrived_are_counted(tmp_path: Path) -> None:
    lake = Lake(tmp_path, None)
    capture = lake.score(customers())
    customers()[:450].to_parquet(tmp_path / "late.parquet", index=False)
    result, _ = lake.skew(capture, source="late.parquet", replay_rows=100)
    assert (result["verdict"], result["rows"], result["unmatched"]) == ("no_skew", 100, 150)
    customers().assign(customer=lambda f: f.customer + 9000).to_parquet(tmp_path / "others.parquet", index=False)
    none, page = lake.skew(capture, source="others.parquet")
    assert (none["verdict"], none["unmatched"]) == ("not_enough_data", 600)
    assert "none of the 600 scored rows" in none["sentence"]
    assert "not enough data" in page
    missing, _ = lake.skew(capture, source="nothing-here-*.parquet")
    assert missing["verdict"] == "not_enough_data"


def test_a_server_of_your_own_writes_what_it_saw(tmp_path: Path, code: types.ModuleType) -> None:
    lake = Lake(tmp_path, "skewed_features:build")
    requests = customers(300, seed=9).drop(columns="stays")
    served = code.build(requests).drop(columns="seen").assign(prediction=0, probability=0.1)
    served["avg_spend"] = (served["avg_spend"] * 100).astype("float32")  # the server's own code, in cents
    capture = write_capture(
        lake.store, "churn", WINDOW, [pa.RecordBatch.from_pandas(served, preserve_index=False)], model_version=1,
        raw=[pa.RecordBatch.from_pandas(requests, preserve_index=False)], id_column="customer",
    )  # fmt: skip
    assert find_capture(lake.store, "churn", WINDOW) == capture
    result, _ = lake.skew(capture)
    assert result["verdict"] == "skew"
    assert "feature skew in 1 of 5 features: avg_spend: 100 % of 300 rows differ, ratio 100" in result["sentence"]
    without = write_capture(
        lake.store, "churn", WINDOW, [pa.RecordBatch.from_pandas(served[["prediction"]], preserve_index=False)],
        model_version=1,
    )  # fmt: skip
    with pytest.raises(DataError, match="no column 'customer'"):
        lake.skew(without)
    with pytest.raises(ConfigError, match=r"needs data\.id"):
        lake.skew(capture, Data(source="x", target="stays"))


def test_a_capture_that_is_not_published_is_read_by_its_reference_only(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    batch = pa.RecordBatch.from_pydict({"id": [1], "prediction": [0]})
    ref = write_capture(store, "p", WINDOW, [batch], model_version=1, publish=False)
    assert len(read_capture(store, ref)) == 1
    assert list(store.list(layout.captures_prefix("p"))) == []


def test_private_columns_are_neither_kept_nor_compared(tmp_path: Path) -> None:
    lake = Lake(tmp_path, None)
    data = DATA.model_copy(update={"private": ["spend", "city"]})
    capture = lake.score(customers(), data)
    raw = read_raw(lake.store, capture)
    assert raw is not None
    assert not {"spend", "city"} & set(raw.column_names)
    result, page = lake.skew(capture, data)
    assert result["private"] == ["spend", "city"]
    assert [c["name"] for c in result["columns"]] == ["visits"]
    assert "not checked, because private: spend, city" in result["sentence"]
    assert "not checked, because private: spend, city" in page
