"""A pipeline file run here: the steps of its DAG, without Airflow, and without leaving anything behind."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops import Pipeline
from airflow_mlops.config import InvalidPipeline, load_text
from airflow_mlops.exceptions import (
    CodeNotAllowed,
    ConfigError,
    DataError,
    DataNotFound,
    RegistryError,
    SchemaSkew,
    TrainingError,
    ValidationFailed,
    WindowError,
)
from airflow_mlops.factory.levels import LEVELS
from airflow_mlops.local_result import Result
from airflow_mlops.local_steps import STEPS
from airflow_mlops.pipeline import WIDTH, layout
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

SMALL = """
pipeline: parts
level: 0
data: {source: parts.csv, target: bad, positive: 1, id: part}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, at_least: 0.7}]}
"""
LEVEL_1 = """
pipeline: parts
level: 1
dag: {timezone: Europe/Berlin}
data: {source: parts.csv, target: bad, id: part, timestamp: made, split: {by: time}}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {metrics: [roc_auc], gates: [{metric: roc_auc, versus: champion, not_worse_by: 0.1}]}
retrain: {schedule: "@weekly"}
"""


def parts(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(5)
    size, heat = random.normal(size=rows), random.normal(size=rows)
    return pd.DataFrame(
        {
            "part": range(rows),
            "made": pd.date_range("2024-01-01", periods=rows, freq="h"),
            "size": size,
            "heat": heat,
            "bad": (size + heat + random.normal(size=rows) > 0).astype(int),
        }
    )


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """The data root; ``parts.csv`` in it has 400 rows, one an hour from 2024 on."""
    root = tmp_path / "lake"
    root.mkdir()
    parts().to_csv(root / "parts.csv", index=False)
    return root


@pytest.fixture
def pipeline(tmp_path: Path, lake: Path) -> Callable[..., Pipeline]:
    """``pipeline(text)``: a pipeline file with that text."""

    def make(text: str = SMALL, **arguments: Any) -> Pipeline:
        file = tmp_path / "parts.yaml"
        file.write_text(text)
        return Pipeline.from_yaml(file, data_root=lake, **arguments)

    return make


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def with_champion(tmp_path: Path, pipeline: Callable[..., Pipeline]) -> LocalStore:
    """A store with a champion, trained on all the data."""
    store = LocalStore(tmp_path / "store")
    made = pipeline(LEVEL_1).run(store=store, register=True, say=lambda text: None)
    assert made.version == 1
    Registry(store, "parts").promote(1, expected=None, op_id="test", reason="first")
    return store


def content(store: LocalStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


def test_every_step_of_a_training_dag_and_of_an_experiment_can_be_run_here() -> None:
    ours = [spec for level in LEVELS.values() for spec in level if spec.suffix in ("train", "experiment")]
    names = {step.name for spec in ours for step in spec.steps}
    assert names == set(STEPS)


def test_from_data_to_verdict(pipeline: Callable[..., Pipeline], said: list[str]) -> None:
    with pipeline().run(say=said.append) as result:
        assert isinstance(result.store, LocalStore)
        folder = result.store.path
        assert folder.is_dir()
    assert not folder.exists()
    assert (result.verdict, result.version) == ("passed", None)
    assert result.metrics["roc_auc"]["candidate"] > 0.7
    assert result.metrics["roc_auc"]["champion"] is None
    assert [gate["verdict"] for gate in result.gates] == ["passed"]
    assert set(result.model.predict(parts(50))) == {0, 1}
    assert (result.snapshot["rows"], result.snapshot["window"]) == (400, None)
    assert list(result.reports) == ["Data profile", "Validation report", "Gate report", "Model card"]
    assert "parts, not registered, against no champion" in result.reports["Gate report"]
    assert [step.name for step in result.steps] == [
        "data.snapshot", "data.profile", "validate.expectations", "train.fit",
        "evaluate.score", "evaluate.gates", "approve.ask", "promote.handover",
    ]  # fmt: skip
    assert "would ask a person (level 0 always asks)" in "\n".join(said)
    assert said[-1] == "verdict: passed; nothing was registered"
    assert max(map(len, said)) <= WIDTH
    assert repr(result).startswith("<Result of parts, not registered: passed; roc_auc 0.")


def test_the_temporary_store_goes_with_the_result(pipeline: Callable[..., Pipeline]) -> None:
    result = pipeline().run(say=lambda text: None)
    assert isinstance(result.store, LocalStore)
    folder = result.store.path
    assert folder.is_dir()
    del result
    gc.collect()
    assert not folder.exists()


def test_no_airflow_is_imported(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "parts.yaml").write_text(SMALL)
    code = (
        "import sys, airflow_mlops\n"
        f"pipeline = airflow_mlops.Pipeline.from_yaml({str(tmp_path / 'parts.yaml')!r}, data_root={str(lake)!r})\n"
        "heavy = {'pandas', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "result = pipeline.run(say=lambda text: None)\n"
        "print(heavy, result.verdict, [m for m in sys.modules if m == 'airflow' or m.startswith('airflow.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "set() passed []", done.stderr


def test_a_file_with_mistakes_is_refused_with_all_of_them(pipeline: Callable[..., Pipeline]) -> None:
    with pytest.raises(InvalidPipeline) as refused:
        pipeline(SMALL.replace("estimator", "estimatr").replace("level: 0", "level: nought"))
    assert len(refused.value.issues) == 2
    with pytest.raises(InvalidPipeline, match="allowed_imports"):
        pipeline(SMALL.replace("source: parts.csv", "callable: 'my_pkg:load'"))


def test_an_environment_lies_on_top(pipeline: Callable[..., Pipeline]) -> None:
    text = SMALL + "environments: {small: {train: {seed: 9}}}\n"
    assert pipeline(text).config.train.seed == 7
    assert pipeline(text, environment="small").config.train.seed == 9


def test_code_of_an_allowed_package_is_run(
    pipeline: Callable[..., Pipeline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_parts.py").write_text(
        "import pandas as pd\n"
        f"def load(): return pd.read_csv({str(tmp_path / 'lake' / 'parts.csv')!r})\n"
        "def build(frame): return frame.assign(both=frame['size'] + frame['heat'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = SMALL.replace("source: parts.csv", "callable: 'own_parts:load'")
    made = pipeline(text + "features: {callable: 'own_parts:build'}\n", allowed_imports=["own_parts"])
    assert "both" in made.run(say=lambda text: None).model.feature_names_in_


def test_a_command_runs_beside_the_file_where_that_is_allowed(
    pipeline: Callable[..., Pipeline], tmp_path: Path
) -> None:
    (tmp_path / "fit.py").write_text(
        "import sys, pandas, skops.io\nfrom sklearn.linear_model import LogisticRegression\n"
        "frame = pandas.read_parquet(sys.argv[1])[['size', 'heat', 'bad']]\n"
        "model = LogisticRegression().fit(frame[['size', 'heat']], frame['bad'])\n"
        "skops.io.dump(model, sys.argv[2] + '/model.skops')\n"
    )
    command = 'command: "python fit.py {train} {model_dir}"'
    made = pipeline(SMALL.replace("estimator: sklearn.linear_model.LogisticRegression", command))
    with pytest.raises(CodeNotAllowed, match="not allowed here"):
        made.run(say=lambda text: None)
    assert list(made.run(allow_commands=True, say=lambda text: None).model.feature_names_in_) == ["size", "heat"]


# --- the store --------------------------------------------------------------------------------------


def test_a_store_is_only_read(pipeline: Callable[..., Pipeline], with_champion: LocalStore, said: list[str]) -> None:
    before = content(with_champion)
    result = pipeline(LEVEL_1).run(store=with_champion.uri, say=said.append)
    assert content(with_champion) == before
    assert (result.verdict, result.version) == ("passed", None)
    assert result.metrics["roc_auc"]["champion"] == result.metrics["roc_auc"]["candidate"]
    assert "champion v1 0." in "\n".join(said)
    assert result.steps[-1].told == ("the candidate would become champion in place of v1",)
    result.close()
    assert content(with_champion) == before


def test_the_locked_schema_of_the_store_counts(
    pipeline: Callable[..., Pipeline], with_champion: LocalStore, lake: Path
) -> None:
    parts().drop(columns="heat").to_csv(lake / "parts.csv", index=False)
    with pytest.raises(SchemaSkew, match="heat"):
        pipeline(LEVEL_1).run(store=with_champion, say=lambda text: None)
    assert pipeline(LEVEL_1).run(say=lambda text: None).verdict == "no_baseline"


def test_what_is_registered_is_never_promoted(
    pipeline: Callable[..., Pipeline], tmp_path: Path, said: list[str]
) -> None:
    store = LocalStore(tmp_path / "store")
    for number in (1, 2):
        result = pipeline().run(store=store, register=True, say=said.append)
        assert result.version == number
    registry = Registry(store, "parts")
    version = registry.get(2)
    assert [v.status for v in registry.versions()] == ["candidate", "candidate"]
    assert version.record["run"]["run_id"].startswith("local__")
    assert version.record["about"]["level"] == 0
    assert version.notes["evaluation"][0]["metrics"] == result.metrics
    gates = version.notes["gates"][0]
    assert (gates["version"], gates["verdict"], gates["go"], gates["approval"]) == (2, "passed", True, True)
    assert store.get(f"reports/parts__train/{gates['report']}.html").decode() == result.reports["Gate report"]
    assert said[-1] == "verdict: passed; registered as v2, not promoted"
    result.close()
    assert registry.get(2).record == version.record


def test_to_register_needs_a_store(pipeline: Callable[..., Pipeline]) -> None:
    with pytest.raises(RegistryError, match="no store"):
        pipeline().run(register=True)


# --- sample and window ------------------------------------------------------------------------------


def test_a_sample_is_told_and_repeats_itself(pipeline: Callable[..., Pipeline], said: list[str]) -> None:
    made = pipeline(LEVEL_1.replace("timestamp", "min_rows: 300, timestamp"))
    first, second = (made.run(sample=150, say=said.append) for _ in range(2))
    assert first.snapshot["rows"] == 150
    assert first.snapshot["fingerprint"] == second.snapshot["fingerprint"]
    assert first.metrics == second.metrics
    told = " ".join(" ".join(said).split())
    assert "a sample of 150 of 400 rows" in told
    assert "data.min_rows is 300; for the sample it counts as 150" in told


def test_a_sample_larger_than_the_data_is_all_of_it(pipeline: Callable[..., Pipeline], said: list[str]) -> None:
    assert pipeline().run(sample=10_000, say=said.append).snapshot["rows"] == 400
    assert "sample" not in "\n".join(said)


def test_a_sample_that_is_too_small_is_told_to_be_one(pipeline: Callable[..., Pipeline], said: list[str]) -> None:
    with pytest.raises(ConfigError, match="a sample of 0 rows"):
        pipeline().run(sample=0)
    with pytest.raises(DataError):
        pipeline().run(sample=1, say=said.append)
    assert "sample of at most 1 rows" in " ".join(" ".join(said).split())


def test_rows_outside_the_window_are_left_out(pipeline: Callable[..., Pipeline]) -> None:
    # Midnight in Berlin is 23:00 of the day before in UTC, in which times without a zone are taken.
    result = pipeline(LEVEL_1).run(start="2024-01-02", end=date(2024, 1, 12), say=lambda text: None)
    assert result.snapshot["rows"] == 240
    assert result.snapshot["window"]["start"] == "2024-01-02T00:00:00+01:00"


def test_data_window_reaches_back_from_the_end_as_in_the_dag(pipeline: Callable[..., Pipeline]) -> None:
    text = LEVEL_1.replace("timestamp", "window: 5d, timestamp")
    result = pipeline(text).run(start="2024-01-11", end="2024-01-12", say=lambda text: None)
    assert result.snapshot["rows"] == 5 * 24


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ({"start": "2024-01-01"}, "only one end"),
        ({"start": "2024-02-01", "end": "2024-01-01"}, "is empty"),
        ({"start": "soon", "end": "2024-01-01"}, "'soon' is not a date"),
    ],
)
def test_a_window_that_is_none(pipeline: Callable[..., Pipeline], times: dict[str, str], message: str) -> None:
    with pytest.raises(WindowError, match=message):
        pipeline().run(**times, say=lambda text: None)  # type: ignore[arg-type]


def test_a_template_needs_a_window(pipeline: Callable[..., Pipeline], lake: Path, said: list[str]) -> None:
    (lake / "parts.csv").rename(lake / "2024-01-01.csv")
    made = pipeline(SMALL.replace("parts.csv", '"{{ window.start }}.csv"'))
    with pytest.raises(WindowError, match="--from 2013-01-01 --to") as refused:
        made.run(say=said.append)
    assert refused.value.__notes__ == ["in the step data.snapshot of parts"]
    assert said[-1].split()[:2] == ["data.snapshot", "failed"]  # and how long it took, where that is long
    assert made.run(start="2024-01-01", end="2024-02-01", say=said.append).snapshot["rows"] == 400


# --- sources, verdicts, failures --------------------------------------------------------------------


def test_queries_need_somebody_who_runs_them(pipeline: Callable[..., Pipeline]) -> None:
    asked = []

    def sql(conn_id: str, query: str) -> Iterator[pa.Table]:
        asked.append((conn_id, query))
        yield pa.Table.from_pandas(parts(200))

    made = pipeline(SMALL.replace("source: parts.csv", "sql: {conn_id: plant, query: SELECT 1}"))
    with pytest.raises(DataError, match=r"(?s)connection 'plant'.*pass sql="):
        made.run(say=lambda text: None)
    assert made.run(sql=sql, say=lambda text: None).snapshot["rows"] == 200
    assert asked == [("plant", "SELECT 1")]


def test_after_a_rejection_nothing_would_follow(pipeline: Callable[..., Pipeline], said: list[str]) -> None:
    result = pipeline(SMALL.replace("0.7", "1.0")).run(say=said.append)
    assert result.verdict == "rejected"
    assert [step.told for step in result.steps[-2:]] == [("skipped after this verdict",)] * 2


@pytest.mark.parametrize(
    ("wanted", "told"),
    [("", None), ("no_champion: require_approval, ", "would ask a person")],
)
def test_at_level_1_a_person_is_asked_where_the_file_says_so(
    pipeline: Callable[..., Pipeline], wanted: str, told: str | None
) -> None:
    result = pipeline(LEVEL_1.replace("metrics", f"{wanted}metrics")).run(say=lambda text: None)
    steps = {step.name: step.told for step in result.steps}
    assert next(iter(steps)) == "retrain.claim"
    assert steps.get("approve.ask", (None,))[0] == told
    assert steps["promote.champion"][0].startswith("the candidate would become champion")


def test_bad_data_stops_the_run_and_its_report_is_kept(
    pipeline: Callable[..., Pipeline], tmp_path: Path, said: list[str]
) -> None:
    expectation = "{expect_column_values_to_be_between: {column: size, max_value: 0}}"
    made = pipeline(SMALL + f"validate: {{expectations: [{expectation}]}}\n")
    with pytest.raises(ValidationFailed, match="--reports DIR") as failed:
        made.run(say=said.append, reports=tmp_path / "reports")
    assert failed.value.__notes__ == ["in the step validate.expectations of parts"]
    assert sorted(p.name for p in (tmp_path / "reports").iterdir()) == ["data-profile.html", "validation-report.html"]
    assert "expect_column_values_to_be_between" in (tmp_path / "reports" / "validation-report.html").read_text()


def test_a_failed_run_leaves_nothing_behind(
    pipeline: Callable[..., Pipeline], lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (lake / "parts.csv").unlink()
    with pytest.raises(DataNotFound):
        pipeline().run(say=lambda text: None)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_notebook_shows_text_as_text(pipeline: Callable[..., Pipeline]) -> None:
    result = pipeline().run(say=lambda text: None)
    gate = {"name": "<img src=x>", "verdict": "passed", "sentence": "<script>1</script>"}
    page = replace(result, sentence="<b>&", gates=(gate,))._repr_html_()
    assert "<script>" not in page
    assert "<img" not in page
    assert "&lt;b&gt;&amp;" in page


def test_reports_are_no_part_of_what_a_notebook_shows() -> None:
    metrics = {"r2": {"candidate": 0.51234, "champion": None}}
    reports = {"Report": "<h1>page</h1>"}
    result = Result("p", "passed", "ok", metrics, (), None, {"rows": 1200}, reports, 3, (), LocalStore("/x"))
    assert "page" not in result._repr_html_()
    assert repr(result) == "<Result of p v3: passed; r2 0.5123; 1,200 rows>"


@given(
    name=st.sampled_from(sorted(STEPS)),
    told=st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=1000), max_size=300), min_size=1, max_size=4),
    seconds=st.floats(0, 9999),
)
def test_lines_are_never_wider_than_80_and_lose_nothing(name: str, told: list[str], seconds: float) -> None:
    lines = layout(name, told, seconds)
    assert max(map(len, lines)) <= WIDTH
    shown = "".join("".join(lines).split())
    time = f"{seconds:.1f}s" if seconds >= 0.05 else ""
    assert sorted(shown) == sorted("".join(("".join(told) + name + time).split()))


def test_the_pipeline_says_what_it_is() -> None:
    assert repr(Pipeline(load_text(SMALL))) == "<Pipeline parts, level 0>"


def test_a_job_elsewhere_is_not_run_here_and_says_so(pipeline: Callable[..., Pipeline]) -> None:
    text = SMALL.replace("estimator: sklearn.linear_model.LogisticRegression", "sagemaker: {image: i, role: r}")
    with pytest.raises(TrainingError, match=r"(?s)trains on SageMaker, not in this process.*in Airflow"):
        pipeline(text).run(say=lambda text: None)
