from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_mlops.config.models import Data
from airflow_mlops.exceptions import CodeNotAllowed, DataError, PredictionError, TargetError
from airflow_mlops.ml.features import FeatureSchema, apply_features, infer_schema


def data(**kwargs: object) -> Data:
    return Data.model_validate({"source": "x.csv", "target": "late", **kwargs})


def flights(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "flight": [f"F{i}" for i in range(rows)],
            "when": pd.date_range("2013-01-01", periods=rows, freq="h"),
            "carrier": rng.choice(["AA", "UA", "DL"], rows),
            "distance": rng.normal(1000, 200, rows),
            "stops": rng.integers(0, 3, rows),
            "night": rng.random(rows) < 0.5,
            "price": [Decimal("1.5"), Decimal("2.5")] * (rows // 2),
            "day": [date(2013, 1, 1), date(2013, 1, 2)] * (rows // 2),
            "legs": [[1, 2]] * rows,
            "empty": [None] * rows,
            "year": [2013] * rows,
            "kind": ["jet"] * rows,
            "comment": [f"remark {i}" for i in range(rows)],
            "arrival": rng.normal(0, 1, rows),
            "tail": rng.choice(["N1", "N2"], rows),
            "late": rng.integers(0, 2, rows),
        }
    )


class TestInfer:
    def test_kinds_and_reasons(self) -> None:
        config = data(
            id="flight", timestamp="when", exclude=["arrival"], positive=1, split={"by": "group", "column": "tail"}
        )
        schema = infer_schema(flights(), config)
        assert {f.name: f.kind for f in schema.features} == {
            "carrier": "category",
            "distance": "number",
            "stops": "number",
            "night": "boolean",
            "price": "number",
        }
        assert schema.features[0].categories == ("AA", "DL", "UA")
        why = dict(schema.excluded)
        assert set(why) == {
            "flight", "when", "arrival", "tail", "day", "legs", "empty", "year", "kind", "comment",
        }  # fmt: skip
        assert "nested" in why["legs"]
        assert "no values" in why["empty"]
        assert "2013" in why["year"]
        assert "120 different values in 120 rows" in why["comment"]
        assert schema.classes == (0, 1)
        assert schema.positive == 1

    def test_json_round_trip(self) -> None:
        schema = infer_schema(flights(), data(positive=1))
        assert FeatureSchema.from_dict(json.loads(json.dumps(schema.to_dict(), allow_nan=False))) == schema

    def test_arrow_dtypes_give_the_same_schema(self) -> None:
        frame = flights().drop(columns=["legs", "price", "day"])
        assert infer_schema(frame.convert_dtypes(dtype_backend="pyarrow"), data()) == infer_schema(frame, data())
        schema = infer_schema(frame, data())
        arrow = schema.check(frame.convert_dtypes(dtype_backend="pyarrow"))
        pd.testing.assert_frame_equal(arrow, schema.check(frame))

    def test_many_categories_are_excluded(self) -> None:
        frame = pd.DataFrame({"a": range(5000), "code": [f"c{i % 1001}" for i in range(5000)], "late": [0, 1] * 2500})
        assert "1,001 different values" in dict(infer_schema(frame, data()).excluded)["code"]

    def test_missing_target_suggests(self) -> None:
        with pytest.raises(TargetError, match="did you mean 'late'"):
            infer_schema(flights(), data(target="lates"))

    def test_misspelled_exclude_is_refused(self) -> None:
        with pytest.raises(DataError, match="arival"):
            infer_schema(flights(), data(exclude=["arival"]))

    def test_no_feature_left(self) -> None:
        with pytest.raises(DataError, match="no column is left"):
            infer_schema(flights()[["comment", "late"]], data())

    def test_positive_must_be_a_class(self) -> None:
        with pytest.raises(TargetError, match=r"'1'.*only has 0, 1"):
            infer_schema(flights(), data(positive="1"))

    def test_numbers_to_predict_have_no_classes(self) -> None:
        schema = infer_schema(flights(), data(target="distance"))
        assert schema.classes is None
        assert schema.positive is None


class TestCheck:
    @pytest.fixture
    def schema(self) -> FeatureSchema:
        return infer_schema(flights(), data(id="flight", timestamp="when", exclude=["arrival", "tail", "price"]))

    def test_order_and_dtypes_are_stable(self, schema: FeatureSchema) -> None:
        frame = flights()[["night", "late", "stops", "distance", "carrier"]].iloc[::-1]
        checked = schema.check(frame)
        assert list(checked.columns) == ["carrier", "distance", "stops", "night"]
        assert [str(t) for t in checked.dtypes] == ["object", "float64", "float64", "float64"]
        assert checked.index.equals(frame.index)

    def test_all_missing_columns_are_named(self, schema: FeatureSchema) -> None:
        with pytest.raises(PredictionError, match="2 columns the model needs are missing: carrier, stops") as e:
            schema.check(flights().drop(columns="stops").rename(columns={"carrier": "carier"}))
        assert "is 'carier' meant to be 'carrier'" in str(e.value.hint)

    @pytest.mark.parametrize(
        ("column", "value", "match"),
        [
            ("distance", "far", "distance must be a number, but 1 rows are not, like 'far'"),
            ("distance", float("inf"), "infinite in 1 rows"),
            ("night", "perhaps", "night must be true or false.*perhaps"),
            ("carrier", ["AA"], "carrier must be text, not nested"),
        ],
    )
    def test_wrong_values_are_named(self, schema: FeatureSchema, column: str, value: object, match: str) -> None:
        frame = flights().astype({column: object})
        frame.at[3, column] = value
        with pytest.raises(PredictionError, match=match):
            schema.check(frame)

    def test_times_are_not_numbers(self, schema: FeatureSchema) -> None:
        with pytest.raises(PredictionError, match="stops must be a number, not a time"):
            schema.check(flights().assign(stops=pd.Timestamp("2013-01-01")))

    def test_missing_has_one_form_and_new_categories_pass(self, schema: FeatureSchema) -> None:
        frame = flights(6).astype({"carrier": object, "night": object})
        frame["carrier"] = [None, pd.NA, float("nan"), "", "ZZ", "AA"]
        frame["night"] = [None, True, "false", 1, 0.0, "TRUE"]
        checked = schema.check(frame)
        assert checked["carrier"].isna().tolist() == [True] * 4 + [False] * 2
        assert all(type(v) is float for v in checked["carrier"][:4])
        np.testing.assert_array_equal(checked["night"], [np.nan, 1, 0, 1, 0, 1])

    def test_codes_that_became_floats_are_the_same_codes(self) -> None:
        frame = pd.DataFrame({"code": ["1", "2"] * 30, "late": [0, 1] * 30})
        schema = infer_schema(frame, data())
        assert schema.check(pd.DataFrame({"code": [1.0, 2.0, None]}))["code"].tolist()[:2] == ["1", "2"]

    def test_doubled_columns_are_refused(self, schema: FeatureSchema) -> None:
        frame = flights()
        with pytest.raises(PredictionError, match="appear twice: stops"):
            schema.check(pd.concat([frame, frame[["stops"]]], axis=1))


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=1, max_size=12), st.lists(values, min_size=1, max_size=12))
def test_any_column_ends_in_a_schema_and_a_frame_or_a_clear_error(seen: list[object], later: list[object]) -> None:
    frame = pd.DataFrame({"a": pd.Series(seen, dtype=object), "b": range(len(seen)), "late": range(len(seen))})
    try:
        schema = infer_schema(frame, data())
    except DataError:
        return
    try:
        checked = schema.check(pd.DataFrame({"a": pd.Series(later, dtype=object), "b": 1.0}))
    except PredictionError:
        return
    for feature in schema.features:
        if feature.kind == "category":
            assert all(isinstance(v, str) for v in checked[feature.name].dropna())
        else:
            assert checked[feature.name].dtype == np.float64


class TestFeatureCode:
    @pytest.fixture(autouse=True)
    def _code(self, tmp_path, monkeypatch) -> None:
        (tmp_path / "house_features.py").write_text(
            "def good(frame):\n"
            "    return frame.assign(hour=frame['when'].dt.hour, sees_target='late' in frame).drop(columns='when')\n"
            "def fewer(frame):\n    return frame.head(3)\n"
            "def wrong(frame):\n    return frame['nothing']\n"
            "def none(frame):\n    frame['when'] = 0\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

    def test_hides_the_target_and_puts_roles_back(self) -> None:
        frame = flights()
        made = apply_features("house_features:good", frame, ["house_features"], target="late", keep=["flight", "when"])
        assert not made["sees_target"].any()
        pd.testing.assert_series_equal(made["late"], frame["late"])
        pd.testing.assert_series_equal(made["when"], frame["when"])
        assert "hour" in made

    @pytest.mark.parametrize(
        ("name", "match"),
        [("fewer", "was given 120 rows and returned 3"), ("wrong", "KeyError: 'nothing'"), ("none", "NoneType")],
    )
    def test_mistakes_are_named(self, name: str, match: str) -> None:
        frame = flights()
        with pytest.raises(DataError, match=match):
            apply_features(f"house_features:{name}", frame, ["house_features"])
        pd.testing.assert_frame_equal(frame, flights())

    def test_needs_the_allow_list(self) -> None:
        with pytest.raises(CodeNotAllowed):
            apply_features("house_features:good", flights(), [])
