"""What is proposed for data: target, roles, expectations that hold, a model; and that looking is bounded."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.starter import Findings
from airflow_mlops.exceptions import DataError, DataNotFound, TargetError
from airflow_mlops.ml import peek as peeking
from airflow_mlops.ml.expectations import build, run
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.first_expectations import MAX_EXPECTATIONS
from airflow_mlops.ml.inference import look
from airflow_mlops.ml.leaks import leaks
from airflow_mlops.ml.peek import peek

ROWS = 400


def frame(**columns: Any) -> pd.DataFrame:
    """Two numbers, a category, and ``columns``, the last of which is the last."""
    draw = np.random.default_rng(3)
    base = {"a": draw.normal(size=ROWS), "b": draw.integers(0, 9, ROWS), "kind": draw.choice(["x", "y", "z"], ROWS)}
    return pd.DataFrame({**base, **columns})


def yes_no(share: float = 0.4, words: tuple[Any, Any] = ("no", "yes")) -> np.ndarray:
    return np.where(np.random.default_rng(5).random(ROWS) < share, words[1], words[0]).astype(object)


def found(target: str | None = None, /, *, complete: bool = True, **columns: Any) -> Findings:
    return look(frame(**columns), complete=complete, target=target)


class TestTarget:
    @pytest.mark.parametrize(
        "name", ["target", "Churned", "is_late", "hasLeft", "loan default", "credit-class", "y", "Outcome", "IsFraud"]
    )
    def test_by_its_name(self, name: str) -> None:
        assert found(**{name: yes_no(), "more": np.arange(ROWS) * 1.5}).target == name

    def test_others_are_told(self) -> None:
        seen = found(flag=yes_no(0.5), label=yes_no(), last=yes_no(0.3))
        assert seen.target == "label"
        assert seen.candidates == ("last",)

    @pytest.mark.parametrize("column", [{"flag": yes_no()}, {"target_id": np.arange(ROWS)}, {"label": ["x"] * ROWS}])
    def test_none_is_convincing(self, column: dict[str, Any]) -> None:
        with pytest.raises(TargetError, match="not clear") as caught:
            found(**column)
        assert "--target; the columns are: a, b, kind" in (caught.value.hint or "")

    def test_a_column_with_holes_is_not_proposed_but_taken(self) -> None:
        holes = yes_no()
        holes[7] = None
        with pytest.raises(TargetError, match="not clear"):
            found(churned=holes)
        assert found("churned", churned=holes).missing == 1

    @pytest.mark.parametrize(
        ("values", "why"),
        [
            (["x"] * ROWS, "one value only"),
            ([None] * ROWS, "no values"),
            (pd.date_range("2024-01-01", periods=ROWS), "holds times"),
            ([f"n{i}" for i in range(ROWS)], "400 different values in 400 rows"),
            ([np.inf, *np.arange(ROWS - 1) * 0.5], "infinite"),
        ],
    )
    def test_what_cannot_be_predicted(self, values: Any, why: str) -> None:
        with pytest.raises(TargetError, match=why):
            found("it", it=values)

    def test_an_unknown_name(self) -> None:
        with pytest.raises(TargetError, match="no column 'c'"):
            found("c")


class TestTask:
    def test_two_classes(self) -> None:
        seen = found(churned=yes_no(0.3))
        assert (seen.task, seen.positive, seen.classes) == ("classification", "yes", 2)
        assert seen.share == pytest.approx(0.3, abs=0.06)
        assert (seen.metrics, seen.bar.metric, seen.bar.at_least) == (("roc_auc", "log_loss"), "roc_auc", 0.5)

    @pytest.mark.parametrize(
        ("words", "positive"),
        [
            ((0, 1), 1),
            ((1.0, 0.0), 1),
            ((False, True), True),
            (("N", "Y"), "Y"),
            (("big", "rare"), "rare"),
            ((1, 2), 2),
        ],
    )
    def test_the_class_that_is_looked_for(self, words: tuple[Any, Any], positive: Any) -> None:
        seen = found(target=pd.Series(list(yes_no(0.2, words))).infer_objects())
        assert seen.positive == positive
        assert type(seen.positive) is type(positive)

    def test_a_frequent_yes_is_still_the_yes(self) -> None:
        assert found(target=yes_no(0.9)).positive == "yes"

    def test_a_rare_class_changes_the_metrics(self) -> None:
        assert found(fraud=yes_no(0.04)).metrics == ("roc_auc", "average_precision", "log_loss")

    def test_more_classes(self) -> None:
        seen = found(species=[("s", "t", "u")[i % 3] for i in range(ROWS)])
        assert (seen.classes, seen.positive, seen.metrics[0]) == (3, None, "balanced_accuracy")
        # What always saying the same scores, not less.
        assert 1 / 3 <= seen.bar.at_least < 0.335

    def test_numbers(self) -> None:
        seen = found(price=np.random.default_rng(0).normal(size=ROWS))
        assert (seen.task, seen.classes, seen.positive) == ("regression", None, None)
        assert (seen.metrics, seen.bar.at_least) == (("r2", "rmse"), 0.0)

    def test_estimators(self) -> None:
        numbers = frame(target=yes_no()).drop(columns="kind")
        assert look(numbers, complete=True).estimator.endswith(".LogisticRegression")
        assert found(target=yes_no()).estimator.endswith(".HistGradientBoostingClassifier")
        many = pd.concat([numbers.assign(target=numbers["a"] * 2)] * 3)
        assert look(many, complete=True).estimator.endswith(".HistGradientBoostingRegressor")
        assert look(many[:1000], complete=True).estimator.endswith(".Ridge")


class TestRoles:
    @pytest.mark.parametrize("name", ["id", "flight_id", "customerID", "row number", "key"])
    def test_the_id(self, name: str) -> None:
        assert found(**{name: np.arange(ROWS), "target": yes_no()}).id == name

    def test_unique_is_not_enough_and_a_name_is_not_enough(self) -> None:
        assert found(serial=np.arange(ROWS), id=[1] * ROWS, valid=[f"v{i}" for i in range(ROWS)], y=yes_no()).id is None

    def test_the_time(self) -> None:
        days = pd.date_range("2024-01-01", periods=ROWS, freq="D")
        seen = found(birth_date=days, created_at=days.astype(str), y=yes_no())
        assert (seen.timestamp, seen.times, seen.by_time) == ("created_at", ("birth_date",), True)
        assert (seen.days, seen.newest) == (ROWS, str(days[-1].date()))

    @pytest.mark.parametrize("name", ["birthday", "dob"])
    def test_a_birthday_is_no_time_of_the_row(self, name: str) -> None:
        assert found(**{name: pd.date_range("1980-01-01", periods=ROWS), "y": yes_no()}).timestamp is None

    def test_times_with_holes_or_of_another_form(self) -> None:
        times = pd.Series(pd.date_range("2024-01-01", periods=ROWS))
        holes = times.where(times.index != 3)
        assert found(created=holes, date=times.dt.strftime("%d.%m.%Y"), y=yes_no()).timestamp is None

    def test_classes_in_an_order_of_time_are_not_split_by_it(self) -> None:
        days = pd.date_range("2024-01-01", periods=ROWS)
        assert found(day=days, y=[0] * (ROWS // 2) + [1] * (ROWS // 2)).by_time is False

    def test_columns_that_say_nothing(self) -> None:
        unused = found(same=1, empty=None, name=[f"n{i}" for i in range(ROWS)], y=yes_no()).unused
        assert unused is not None
        assert unused.keys() == {"same", "empty", "name"}

    @pytest.mark.parametrize("name", ["", "Unnamed: 0"])
    def test_row_numbers_that_pandas_wrote(self, name: str) -> None:
        assert found(**{name: np.arange(ROWS), "y": yes_no()}).index == name
        assert found(y=yes_no()).index is None


class TestLeaks:
    def test_each_form_of_a_leak_and_none_of_an_honest_column(self) -> None:
        y = yes_no()
        draw = np.random.default_rng(1)
        late = np.where(y == "yes", draw.normal(9, 1, ROWS), np.nan)
        said = np.where(y == "yes", "left us", "stays")
        hint = np.where(y == "yes", draw.normal(1, 1, ROWS), draw.normal(0, 1, ROWS))
        many = [f"k{i // 2}" for i in range(ROWS)]  # nearly one row each: learned by heart, not told
        assert found(late=late, said=said, hint=hint, many=many, churned=y).leaks == ("late", "said")

    def test_a_number_in_other_units(self) -> None:
        price = np.random.default_rng(1).lognormal(size=ROWS)
        assert found(cents=np.round(price * 100), noise=price[::-1], price=price).leaks == ("cents",)

    def test_few_rows_prove_nothing(self) -> None:
        assert list(leaks(frame(y=yes_no()).assign(x=yes_no())[:20], "y", ["x"], classification=True)) == []


def check(data: pd.DataFrame, seen: Findings) -> None:
    entries = [{name: arguments} for name, arguments in seen.expectations]
    kinds = dict.fromkeys(data.columns, "number")
    checks, _ = run(build(entries, kinds), data.reset_index(drop=True))
    assert [c.sentence for c in checks if not c.success] == []


class TestExpectations:
    def test_they_hold_and_are_few(self) -> None:
        data = frame(id=np.arange(ROWS), price=np.linspace(-3, 3e6, ROWS), flag=True, y=yes_no(0.4, (0, 1)))
        data["b"] = data["b"].where(data.index % 50 != 0)
        seen = look(data, complete=True)
        names = [name for name, _ in seen.expectations]
        assert {"expect_column_values_to_be_unique", "expect_column_values_to_be_in_set"} <= set(names)
        assert "expect_column_values_to_be_between" in names
        assert len(names) <= MAX_EXPECTATIONS
        check(data, seen)

    def test_many_columns_make_no_more(self) -> None:
        wide = frame(**{f"c{i}": np.arange(ROWS) * 1.0 for i in range(40)}, y=yes_no())
        assert len(look(wide, complete=True).expectations) == MAX_EXPECTATIONS

    def test_part_of_the_rows_claims_less(self) -> None:
        seen = dict(found(complete=False, id=np.arange(ROWS), price=np.arange(ROWS) * 1.5).expectations)
        assert "expect_column_values_to_be_unique" not in seen
        assert seen["expect_column_values_to_be_between"]["mostly"] == 0.99

    def test_there_is_room_but_none_below_zero(self) -> None:
        (limits,) = (
            a
            for n, a in found(price=np.linspace(1, 101, ROWS)).expectations
            if a["column"] == "price" and n.endswith("between")
        )
        assert limits["min_value"] == 0
        assert 120 <= limits["max_value"] <= 130

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(-1e14, 1e14), min_size=2, max_size=6).filter(lambda v: len(set(v)) > 1))
    def test_every_value_seen_lies_in_the_range(self, values: list[float]) -> None:
        from airflow_mlops.ml.first_expectations import _limits

        limits = _limits(pd.Series(values))
        if limits is not None:
            assert limits["min_value"] <= min(values)
            assert max(values) <= limits["max_value"]


class TestPeek:
    @pytest.fixture
    def files(self, tmp_path: Path) -> Files:
        return Files(root=str(tmp_path))

    def test_all_of_a_small_file(self, tmp_path: Path, files: Files) -> None:
        frame(y=yes_no()).to_csv(tmp_path / "a.csv", index=False)
        frame(y=yes_no()).to_parquet(tmp_path / "a.parquet")
        for name in ("a.csv", "a.parquet"):
            seen, complete = peek(name, files)
            assert complete
            pd.testing.assert_frame_equal(seen, frame(y=yes_no()), check_dtype=False)

    def test_a_file_may_be_large(self, tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(peeking, "CSV_BYTES", 5000)
        monkeypatch.setattr(peeking, "_CHUNK", 1000)
        rows = 'a,"b ""c"" , d"\n' + "".join(f'{i},"line\nbreak, {i}"\n' for i in range(5000))
        (tmp_path / "a.csv").write_text(rows)
        (tmp_path / "b.csv.gz").write_bytes(gzip.compress(rows.encode()))
        for name in ("a.csv", "b.csv.gz"):
            seen, complete = peek(name, files)
            assert not complete
            assert 150 < len(seen) < 400
            assert seen['b "c" , d'].iloc[-1] == f"line\nbreak, {len(seen) - 1}"

    def test_rows_are_limited_and_files_spread(
        self, tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(peeking, "MAX_ROWS", 100)
        monkeypatch.setattr(peeking, "MAX_FILES", 5)
        for i in range(10):
            pd.DataFrame({"file": [i] * 60, "row": range(60)}).to_parquet(tmp_path / f"{i}.parquet")
        seen, complete = peek("*.parquet", files)
        assert not complete
        assert seen["file"].value_counts().to_dict() == dict.fromkeys([0, 2, 4, 6, 8], 20)
        assert seen["row"].max() == 19

    def test_very_wide_data_are_read_for_fewer_rows(
        self, tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(peeking, "MAX_CELLS", 400)
        frame(y=yes_no()).to_parquet(tmp_path / "a.parquet")
        assert len(peek("a.parquet", files)[0]) == 100

    @pytest.mark.parametrize(
        ("name", "content", "error", "why"),
        [
            ("a.csv", b"a,b\n1,2\n3\n", DataError, "row 3"),
            ("a.csv", b"", DataNotFound, "empty"),
            ("a.csv", b"a,b\n", DataNotFound, "0 rows"),
            ("a.csv", b"a,a\n1,2\n", DataError, "a"),
            ("a.csv.gz", b"not gzip", DataError, "damaged"),
            ("a.parquet", b"PAR1", DataError, "cut or damaged"),
            ("a.txt", b"a\n1\n", DataError, "neither CSV nor Parquet"),
        ],
    )
    def test_wrong_data(
        self, tmp_path: Path, files: Files, name: str, content: bytes, error: type[DataError], why: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error, match=why):
            peek(name, files)

    def test_no_file(self, files: Files) -> None:
        with pytest.raises(DataNotFound):
            peek("*.csv", files)
