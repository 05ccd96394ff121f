"""``airflow mlops new``, ``upgrade`` and ``schema -o``: what is written, what is refused, what is left alone."""

from __future__ import annotations

import json
import os
import stat
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_mlops.cli.commands import schema
from airflow_mlops.cli.new import new
from airflow_mlops.cli.upgrade import upgrade
from airflow_mlops.config import load_pipeline
from airflow_mlops.config.maturity import level_number
from airflow_mlops.pipeline import Pipeline

ROWS = 120


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, below which ``data`` is the data root."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path


def run(**given: Any) -> None:
    new(Namespace(**{"name": "mine", "level": "0", "data": None, "target": None, "out": None, "force": False, **given}))


def refused(capsys: pytest.CaptureFixture[str], **given: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        run(**given)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert "What to do: " in told
    return told


def rows(**columns: Any) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    base = {"a": draw.normal(size=ROWS), "kind": draw.choice(["x", "y"], ROWS)}
    return pd.DataFrame({**base, **columns, "churned": draw.integers(0, 2, ROWS)})


class TestNew:
    @pytest.mark.parametrize("level", ["0", "1", "2", "microsoft:2"])
    def test_without_data_it_works_on_an_example(
        self, level: str, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run(level=level)
        config = load_pipeline(here / "mine.yaml")
        assert config.level == level_number(level)
        assert config.data.source == str(here / "mine_example.csv")
        told = capsys.readouterr().out
        assert "airflow mlops lint mine.yaml\n  airflow mlops run mine.yaml\n  airflow mlops describe mine.yaml" in told
        assert "--from DATA" in (here / "mine.yaml").read_text()

    def test_what_it_writes_runs(self, here: Path) -> None:
        rows(**{"the id": np.arange(ROWS), "odd: {{ x }} ${env:X}\n": np.arange(ROWS) * 0.5}).to_csv(
            "a.csv", index=False
        )
        run(data="a.csv", level="1")
        result = Pipeline.from_yaml("mine.yaml").run(sample=100, say=lambda line: None)
        with result:
            assert result.verdict == "inconclusive"  # 20 rows held out are too few to judge

    def test_below_the_data_root_the_path_is_relative(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (here / "data" / "in").mkdir()
        for name in ("1", "2"):
            rows().to_parquet(here / "data" / "in" / f"{name}.parquet")
        run(data="data/in/../in/*.parquet")
        assert load_pipeline(here / "mine.yaml").data.source == "in/*.parquet"
        assert "absolute" not in capsys.readouterr().out

    def test_elsewhere_it_is_absolute(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (here / "a b's").mkdir()
        rows().to_csv(here / "a b's" / "x.csv", index=False)
        run(data="a b's/x.csv", out="sub.yaml", target="kind")
        config = load_pipeline(here / "sub.yaml")
        assert (config.data.source, config.data.target) == (str(here / "a b's" / "x.csv"), "kind")
        assert "absolute: it does not lie below" in capsys.readouterr().out

    def test_a_file_is_not_overwritten(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (here / "mine.yaml").write_text("mine")
        assert "mine.yaml is already there" in refused(capsys)
        assert sorted(p.name for p in here.iterdir()) == ["data", "mine.yaml"]
        (here / "other_example.csv").write_text("mine")
        assert "other_example.csv is already there" in refused(capsys, name="other")
        assert (here / "mine.yaml").read_text() == (here / "other_example.csv").read_text() == "mine"
        run(force=True)
        assert load_pipeline(here / "mine.yaml").pipeline == "mine"

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"name": "a b"}, "cannot be a pipeline's name"),
            ({"name": "../a"}, "cannot be a pipeline's name"),
            ({"name": "a\n"}, "cannot be a pipeline's name"),
            ({"level": "3"}, "is not a level"),
            ({"level": "x"}, "is not a level"),
            ({"target": "y"}, "--target names a column of your data"),
            ({"data": "none.csv"}, "the path starts in the current folder"),
            ({"data": "a{{b.csv"}, "read as a template"),
            ({"data": "x.csv", "target": "z"}, "no column 'z'"),
            ({"data": "bad.csv"}, "row 3"),
            ({"out": "no/where.yaml"}, "cannot be written"),
        ],
    )
    def test_what_is_refused(
        self, given: dict[str, Any], told: str, here: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows().to_csv("x.csv", index=False)
        (here / "bad.csv").write_text("a,b\n1,2\n3\n")
        assert told in refused(capsys, **given)
        assert sorted(p.name for p in here.iterdir()) == ["bad.csv", "data", "x.csv"]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
            min_size=4, max_size=4, unique=True,
        ),
        st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), min_size=2, max_size=2,
                 unique=True),
        st.sampled_from(["0", "1"]),
    )  # fmt: skip
    @example(["0", "1", "00", "000"], ["0", "\x00"], "0")
    def test_any_names_and_values(self, here: Path, names: list[str], words: list[str], level: str) -> None:
        draw = np.random.default_rng(0)
        target, number, category, whole = names
        objects = np.array(words, dtype=object)  # NumPy's own strings lose a NUL at their end
        frame = pd.DataFrame(
            {number: draw.normal(size=ROWS), category: draw.choice(objects, ROWS), whole: draw.integers(0, 99, ROWS),
             target: draw.choice(objects, ROWS)}
        )  # fmt: skip
        frame.to_parquet(here / "x.parquet")
        run(data="x.parquet", target=target, level=level, force=True)
        config = load_pipeline(here / "mine.yaml")
        assert config.data.target == target
        assert config.data.positive in words
        named = {argument["column"] for e in config.validate_.expectations for argument in e.values()}
        assert named == set(names)
        sets = [a["value_set"] for e in config.validate_.expectations for a in e.values() if "value_set" in a]
        assert [set(values) for values in sets] == [set(words)] * len(sets)


def upgraded(check: bool, *files: Path) -> int:
    try:
        upgrade(Namespace(files=[str(file) for file in files], check=check))
    except SystemExit as e:
        return int(e.code or 0)
    return 0


class TestUpgrade:
    def test_a_file_is_rewritten_once(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"\xef\xbb\xbf# top\r\npipeline: a  # name\r\n")
        path.chmod(0o640)
        assert upgraded(True, path) == 1
        assert path.read_bytes() == b"\xef\xbb\xbf# top\r\npipeline: a  # name\r\n"
        assert "+schema: 1" in capsys.readouterr().out
        assert upgraded(False, path) == 0
        assert path.read_bytes() == b"\xef\xbb\xbf# top\r\nschema: 1\r\npipeline: a  # name\r\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        before = path.stat().st_mtime_ns
        assert upgraded(False, path) == upgraded(True, path) == 0
        assert path.stat().st_mtime_ns == before
        assert os.listdir(tmp_path) == ["a.yaml"]

    def test_a_bad_file_does_not_keep_others_from_it(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        bad, good, newer = (tmp_path / name for name in ("bad.yaml", "good.yaml", "newer.yaml"))
        bad.write_text("a: [\n")
        good.write_text("pipeline: a\n")
        newer.write_text("schema: 9\npipeline: a\n")
        assert upgraded(False, bad, tmp_path / "none.yaml", newer, good) == 1
        assert good.read_text() == "schema: 1\npipeline: a\n"
        assert (bad.read_text(), newer.read_text()) == ("a: [\n", "schema: 9\npipeline: a\n")
        told = capsys.readouterr()
        assert "1 of 4 files changed, 3 cannot be" in told.out
        for text in ("bad.yaml:2:1: not valid YAML", "there is no such file", "newer version of airflow-mlops"):
            assert text in told.err

    def test_a_link_goes_on_leading_to_its_file(self, tmp_path: Path) -> None:
        (tmp_path / "real.yaml").write_text("pipeline: a\n")
        (tmp_path / "link.yaml").symlink_to("real.yaml")
        assert upgraded(False, tmp_path / "link.yaml") == 0
        assert (tmp_path / "link.yaml").is_symlink()
        assert (tmp_path / "real.yaml").read_text() == "schema: 1\npipeline: a\n"


class TestSchema:
    def test_it_is_written_and_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "s.json"
        path.write_text("old")
        schema(Namespace(out=str(path), project=False))
        assert json.loads(path.read_text())["properties"]["extends"]
        assert "# yaml-language-server: $schema=./s.json\n" in capsys.readouterr().out
        assert os.listdir(tmp_path) == ["s.json"]

    def test_a_place_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            schema(Namespace(out=str(tmp_path / "no" / "s.json"), project=False))
        assert "cannot be written" in capsys.readouterr().err
