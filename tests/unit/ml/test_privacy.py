"""What a private column holds is nowhere but in the rows themselves."""

from __future__ import annotations

import io
import json
import logging
import struct
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from airflow_mlops import Pipeline
from airflow_mlops.config import InvalidPipeline, load_text
from airflow_mlops.config.models import Data, Drift, Validate
from airflow_mlops.exceptions import DataError, ExpectationError, PredictionError, TrainingError
from airflow_mlops.ml.batch_inference import score
from airflow_mlops.ml.data import Snapshot, read_batches, take_snapshot
from airflow_mlops.ml.features import Feature, FeatureSchema, apply_features, infer_schema
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.handover import make_bundle
from airflow_mlops.ml.prediction import capture_kinds, find_capture, read_capture
from airflow_mlops.ml.privacy import masked, reads, told, without_values
from airflow_mlops.ml.profile import profile, profile_html
from airflow_mlops.ml.quality import quality
from airflow_mlops.ml.served_drift import drift
from airflow_mlops.ml.validation import validate
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

WINDOW = Window.of("2024-01-01T00:00:00Z", "2024-03-01T00:00:00Z")
# Every salary, their mean and their quantiles begin like this, however they are printed.
NUMBER = (b"777123", b"777,123", b"7.77123e")
CANARIES = (b"CANARY", *NUMBER)

FILE = """
pipeline: people
level: 0
description: Says who stays.
data:
  source: people.csv
  target: stays
  positive: 1
  id: person
  timestamp: seen
  private: [name, salary]
validate:
  on_failure: quarantine
  expectations:
    - expect_column_values_to_not_match_regex: {column: name, regex: "CANARY.*-7$"}
    - expect_column_values_to_be_between: {column: salary, min_value: 777123001, max_value: 777123990}
    - expect_column_distinct_values_to_be_in_set: {column: name, value_set: [CANARY-0], severity: warning}
    - expect_column_max_to_be_between: {column: salary, max_value: 1, severity: warning}
    - expect_column_most_common_value_to_be_in_set: {column: name, value_set: [x], severity: warning}
    - expect_column_values_to_be_between:
        {column: age, max_value: 0, severity: info, row_condition: "name == 'CANARY-3'", condition_parser: pandas}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.5}, {serving: {rows: 5}}]}
"""


def people(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(3)
    age = random.normal(40, 10, rows).round()
    return pd.DataFrame(
        {
            "person": range(rows),
            "seen": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "name": [f"CANARY-{i}" for i in range(rows)],
            "salary": 777123000 + random.permutation(rows) * 2.5,
            "age": age,
            "ward": random.choice(["north", "south"], rows),
            "stays": (age + random.normal(0, 10, rows) > 40).astype(int),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    root = tmp_path / "lake"
    root.mkdir()
    people().to_csv(root / "people.csv", index=False)
    return root


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes, and what is packed into them."""
    yield data
    if data[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(data))
        yield json.dumps(table.to_pydict(), default=str).encode()
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield from unpacked(archive.read(name))


def leaks(store: LocalStore, salaries: pd.Series) -> list[str]:
    """Keys of objects that hold a canary, the rows of snapshots and quarantine apart."""
    binary = [struct.pack("<d", v) for v in salaries]
    rows: set[str] = set()
    for key in store.list("blobs/"):
        data = store.get(key)
        if data[:1] == b"{" and (manifest := json.loads(data)).get("kind") == "snapshot":
            rows |= {f["digest"] for f in manifest["files"]}
    found = []
    for key in store.list(""):
        if key.rpartition("/")[2] in rows:
            continue
        for part in unpacked(store.get(key)):
            if any(c in part for c in CANARIES) or any(b in part for b in binary):
                found.append(key)
    return found


def told_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if any(c.decode() in line for c in CANARIES)]


def test_no_value_of_a_private_column_is_anywhere_but_in_the_rows(
    lake: Path, store: LocalStore, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    said: list[str] = []
    run = Pipeline(load_text(FILE), data_root=lake).run(
        store=store, register=True, say=said.append, start="2024-01-01", end="2024-03-01"
    )
    version = Registry(store, "people").get(1)
    data = load_text(FILE).data
    assert version.record["snapshot"]["validation"]["quarantined"] == 5
    assert {f["name"]: f.get("private") for f in version.record["schema"]["features"]} == {
        "salary": True, "age": None, "ward": None,
    }  # fmt: skip

    files = Files(root=str(lake))
    scored = score(
        store, version, data=data, source=None, output="out", name="x", window=WINDOW, files=files,
        log=logging.getLogger("x").info,
    )  # fmt: skip
    capture = find_capture(store, "people", WINDOW)
    assert {"salary", "name"} & set(read_capture(store, capture)) == set()
    drifted, page = drift(store, capture, version, Drift(), private=data.private)
    assert "private: salary" in drifted["sentence"]
    assert b"private: salary" in page
    checked, quality_page = quality(store, capture, version, load_text(FILE).validate_, data)
    assert "private: name, salary" in checked["sentence"]
    make_bundle(store, version, lake / "bundle.zip")
    snapshot = Snapshot.load(store, run.snapshot)
    described = profile(snapshot, store, target="stays", private=data.private)
    assert {"name": "salary", "kind": "private"} in described["columns"]
    assert "private" in profile_html(described)

    reports = "\n".join(run.reports.values())
    assert set(run.reports) == {"Data profile", "Validation report", "Gate report", "Model card"}
    assert "salary" in run.reports["Model card"]
    everything = [
        reports, page.decode(), quality_page, "\n".join(said), caplog.text, "".join(capsys.readouterr()),
        json.dumps([run.snapshot, run.gates, run.metrics, drifted, checked, scored, described], default=str),
        json.dumps([version.record, version.notes]),
    ]  # fmt: skip
    assert [line[:300] for text in everything for line in told_of(text)] == []
    for part in unpacked((lake / "bundle.zip").read_bytes()):
        assert not any(c in part for c in CANARIES)
    assert leaks(store, people().salary) == []


def test_the_search_would_find_them(lake: Path, store: LocalStore) -> None:
    public = FILE.replace("private: [name, salary]", "private: []")
    run = Pipeline(load_text(public), data_root=lake).run(
        store=store, register=True, say=lambda line: None, start="2024-01-01", end="2024-03-01"
    )
    assert told_of(run.reports["Validation report"])
    assert told_of(run.reports["Data profile"])
    assert told_of(run.reports["Model card"])
    assert len(leaks(store, people().salary)) >= 3


# --- what the loader refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("private: [name, salary]", "private: [stays]", "`target` is also in `private`"),
        ("private: [name, salary]", "private: [person]", "`id` is also in `private`"),
        ("private: [name, salary]", "private: [seen]", "`timestamp` is also in `private`"),
        ("at_least: 0.5}", "at_least: 0.5, slices: [ward, name]}", "slices by name, which `data.private` lists"),
    ],
)
def test_the_loader_refuses_what_would_show_values(before: str, after: str, message: str) -> None:
    with pytest.raises(InvalidPipeline) as e:
        load_text(FILE.replace(before, after))
    assert message in str(e.value)


def test_a_misspelt_private_column_stops_the_snapshot(lake: Path) -> None:
    data = Data(source="people.csv", target="stays", private=["nam"])
    with pytest.raises(DataError, match=r"no column 'nam' \(data.private\); did you mean 'name'\?"):
        read_batches(data, files=Files(root=str(lake)), window=None)
    # Rows to score may lack a column that no model reads.
    read_batches(data, files=Files(root=str(lake)), window=None, target_optional=True)


def test_private_numbers_are_features_and_private_text_is_not() -> None:
    data = Data(source="x", target="stays", private=["name", "salary", "ward", "same"])
    schema = infer_schema(people().assign(same="CANARY"), data)
    assert schema.private == ["salary"]
    assert {n for n, _ in schema.excluded} >= {"name", "ward", "same"}
    assert "CANARY" not in json.dumps(schema.to_dict())
    assert FeatureSchema.from_dict(schema.to_dict()) == schema


# --- errors that quote ------------------------------------------------------------------------------


SCHEMA = FeatureSchema(
    (Feature("n", "number", private=True), Feature("b", "boolean", private=True), Feature("o", "number")), "y"
)


@pytest.mark.parametrize("column", ["n", "b"])
def test_values_that_do_not_fit_are_not_quoted(column: str) -> None:
    good = {"n": ["1"], "b": ["true"], "o": ["3"]}
    with pytest.raises(PredictionError) as e:
        SCHEMA.check(pd.DataFrame({**good, column: ["CANARY"]}))
    assert column in str(e.value)
    assert "CANARY" not in str(e.value)
    with pytest.raises(PredictionError, match="CANARY"):
        SCHEMA.check(pd.DataFrame({**good, "o": ["CANARY"]}))


@pytest.mark.parametrize(
    "text",
    [
        "a,name\n" + "1,2\n" * 30 + "1,CANARY\n",
        "a,name\n" + "1,2\n" * 3 + "1,CANARY,3\n",
        "a,name\n" + "1,2\n" * 400_000 + "1,CANARY\n",
    ],
)
def test_errors_of_parsing_do_not_quote(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    files = Files(root=str(tmp_path))
    with pytest.raises(DataError) as e:
        list(read_batches(Data(source="x.csv", target="a", private=["name"]), files=files, window=None))
    assert "CANARY" not in chain(e.value)


def chain(error: BaseException) -> str:
    """What a traceback of ``error`` would print, its causes included."""
    import traceback

    return "".join(traceback.format_exception(error))


def test_feature_code_that_fails_is_told_by_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(x=frame.name.astype(float))

    module = types.ModuleType("private_features")
    build.__module__ = "private_features"
    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "private_features", module)
    frame = people(5)
    with pytest.raises(DataError, match="CANARY"):
        apply_features("private_features:build", frame, ["private_features"])
    with pytest.raises(DataError, match=r"ValueError at .*, line \d+") as e:
        apply_features("private_features:build", frame, ["private_features"], private=["name"])
    assert "CANARY" not in chain(e.value)


def test_training_code_that_fails_or_warns_does_not_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_mlops.config.models import Train
    from airflow_mlops.ml.training import train

    def fit(x: pd.DataFrame, y: pd.Series, *, seed: int) -> Any:
        raise ValueError(f"odd: {x.salary.max()}")

    module = types.ModuleType("private_fit")
    fit.__module__ = "private_fit"
    module.fit = fit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "private_fit", module)
    frame = people()
    data = Data(source="x", target="stays", private=["salary", "name"])
    config = Train(callable="private_fit:fit")
    with pytest.raises(TrainingError, match="ValueError at") as e:
        train(frame, frame.stays, infer_schema(frame, data), config, allowed_imports=["private_fit"])
    assert told_of(chain(e.value)) == []


def test_an_expectation_that_crashes_does_not_quote(tmp_path: Path, store: LocalStore) -> None:
    frame = people(60)
    frame["name"] = frame["name"].where(frame.index % 2 == 0, None)
    frame.to_parquet(tmp_path / "x.parquet")
    data = Data(source="x.parquet", target="stays", private=["name"])
    snapshot = take_snapshot(
        store, "p", read_batches(data, files=Files(root=str(tmp_path)), window=None), data=data, window=None
    )
    entry = {"expect_column_mean_to_be_between": {"column": "name", "max_value": 3}}
    with pytest.raises(ExpectationError) as e:
        validate(snapshot, store, Validate(expectations=[entry]), data)
    assert "CANARY" not in chain(e.value)
    assert "on name" in str(e.value)


# --- the small parts ----------------------------------------------------------------------------------


def test_the_kept_sample_has_zeros_for_private_numbers() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert masked(frame, ["b", "z"]).to_dict("list") == {"a": [1.0, 2.0], "b": [0.0, 0.0]}
    assert masked(frame, []) is frame


def test_which_expectations_read_a_private_column() -> None:
    private = ["name", "salary"]
    assert reads({"e": {"column": "age"}}, private) == []
    assert reads({"e": {"column_A": "age", "column_B": "name"}}, private) == ["name"]
    assert reads({"e": {"column_list": ["salary", "name", "age"]}}, private) == ["salary", "name"]
    assert reads({"e": {"column": "age", "row_condition": "salary > 3"}}, private) == ["salary"]
    assert reads({"e": {"column": "age", "row_condition": "not (python"}}, private) == []


def test_a_result_keeps_its_counts_alone() -> None:
    given = {
        "success": False,
        "expectation_config": {"type": "t", "kwargs": {"column": "name", "value_set": ["CANARY"], "mostly": 0.9},
                               "meta": {"number": 1, "note": "CANARY"}},
        "result": {"unexpected_count": 3, "partial_unexpected_list": ["CANARY"], "observed_value": "CANARY",
                   "partial_unexpected_index_list": [{"index": 1, "name": "CANARY"}], "element_count": 9},
        "exception_info": {"exception_message": "CANARY"},
    }  # fmt: skip
    left = without_values(given)
    assert "CANARY" not in json.dumps(left)
    assert left["result"] == {"unexpected_count": 3, "element_count": 9}
    assert left["expectation_config"]["kwargs"] == {"column": "name", "mostly": 0.9}


def test_an_error_is_told_in_full_where_nothing_is_private() -> None:
    assert told(ValueError("x"), []) == "ValueError: x"
    assert "x" not in told(ValueError("x"), ["a"]).replace("left out", "")


def test_a_column_made_private_after_training_leaves_captures_and_checks() -> None:
    schema = {"features": [{"name": "age", "kind": "number", "categories": None}], "target": "stays",
              "classes": [0, 1], "positive": 1, "excluded": []}  # fmt: skip
    found = FeatureSchema.from_dict(schema).hiding(["age"])
    assert found.private == ["age"]
    assert capture_kinds(found, ["age", "prediction"]) == {"prediction": "category"}
