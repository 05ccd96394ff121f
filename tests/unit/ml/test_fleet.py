"""The parts of a fleet: keys, shards, splits, verdicts over all keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import BaggingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.tree import DecisionTreeRegressor

from airflow_mlops.config.models import Data, Evaluate, Fleet, Search, Split, Train
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.fleet.chunks import chunk_size
from airflow_mlops.ml.fleet.keys import group_key, is_parent, key_of, values_of
from airflow_mlops.ml.fleet.partition import divide, present, shard_count
from airflow_mlops.ml.fleet.prepare import prepare
from airflow_mlops.ml.fleet.result import sentence
from airflow_mlops.ml.fleet.training import Asked, Chunk, Settings, labels, train_chunk
from airflow_mlops.ml.fleet.verdict import judge
from airflow_mlops.ml.paired import Estimate
from airflow_mlops.ml.splitting import Splitter, split_mask
from airflow_mlops.registry.kind_reader import KindReader
from airflow_mlops.registry.kinds import kind_of

VERSUS = Evaluate.model_validate({"gates": [{"metric": "r2", "versus": "champion", "not_worse_by": 0.02}]})


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5)), min_size=1, max_size=20))
def test_two_combinations_never_have_the_same_key(pairs: list[tuple[str, str]]) -> None:
    keys = key_of(pd.DataFrame(pairs, columns=["a", "b"]), ["a", "b"]).tolist()
    assert len(set(keys)) == len(set(pairs))
    assert [tuple(values_of(key)) for key in keys] == pairs
    assert not any(is_parent(key) for key in keys)


def test_keys_are_text_and_gaps_are_told() -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0], "t": ["x", ""]})
    assert key_of(frame, ["n"]).tolist() == ["1", "2"]
    assert is_parent(group_key("a/b"))
    with pytest.raises(DataError, match="1 of 2 rows have no value in 't'"):
        key_of(frame, ["t"])
    with pytest.raises(DataError, match="names the column 'x'"):
        key_of(frame, ["x"])


@pytest.mark.parametrize(("missing", "where"), [("route", "fleet.key"), ("line", "fleet.parent"), ("trip", "data.id")])
def test_what_names_a_column_that_is_missing_is_told(missing: str, where: str) -> None:
    fleet = Fleet(key="route", parent="line")
    with pytest.raises(DataError, match=f"{where} names the column '{missing}'") as e:
        present([f"{missing}_id", "y"], [missing], fleet)
    assert e.value.hint == f"did you mean '{missing}_id'?"


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 10_000), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_each_key_is_in_one_shard_and_none_is_empty(counts: dict[str, int], shards: int) -> None:
    stretches = divide(counts, shards)
    assert [key for stretch in stretches for key in stretch] == sorted(counts)
    assert all(stretches)
    assert len(stretches) <= shards
    most = max(sum(counts[key] for key in stretch) for stretch in stretches)
    assert most <= sum(counts.values()) / shards + max(counts.values())


@pytest.mark.parametrize(
    ("keys", "rows", "size", "slots", "wanted"),
    [(16_000, 3_200_000, "auto", 8, 32), (100, 20_000, "auto", 8, 4), (3, 10**7, "auto", 8, 3), (1000, 1, 10, 2, 100)],
)
def test_there_are_about_four_shards_a_slot(keys: int, rows: int, size: Any, slots: int, wanted: int) -> None:
    assert shard_count(keys, rows, size, slots) == wanted


def test_a_chunk_depends_on_the_shards_keys_alone() -> None:
    assert [chunk_size(n) for n in (1, 250, 1000, 100_000)] == [32, 32, 63, 128]


@settings(max_examples=40)
@given(st.sampled_from(["random", "time", "group"]), st.integers(0, 2**31), st.integers(2, 5))
def test_a_keys_rows_are_split_as_if_they_were_alone(by: str, seed: int, keys: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40 * keys
    frame = pd.DataFrame({"id": rng.permutation(n), "g": rng.integers(0, 8, n)})
    frame["t"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90, n), unit="D")
    split = Split(by=by, column="g" if by == "group" else None)  # type: ignore[arg-type]
    data = Data(source="x", target="y", id="id", timestamp="t", split=split)
    splitter = Splitter(frame, data, seed)
    for key in range(keys):
        rows = slice(40 * key, 40 * (key + 1))
        alone = split_mask(frame.iloc[rows].reset_index(drop=True), data, seed)
        assert np.array_equal(splitter.mask(rows), alone)


@given(
    st.floats(-0.1, 0.3), st.floats(0.001, 0.2), st.floats(2, 200), st.floats(-2, 2), st.floats(-0.1, 0.1)
)  # fmt: skip
def test_a_p_value_is_where_the_bound_meets_the_limit(
    value: float, se: float, dof: float, skew: float, limit: float
) -> None:
    found = Estimate(value, 100, "paired t", se=se, dof=dof, skew=skew)
    p = found.p_value(limit)
    if 1e-10 < p < 0.5:
        bounds = found.bounds(1 - p)
        assert bounds is not None
        assert bounds[0] == pytest.approx(limit, abs=1e-4)
    for error in (0.01, 0.05, 0.2):
        bounds = found.bounds(1 - error)
        assert bounds is not None
        if abs(p - error) > 1e-4:
            assert (bounds[0] >= limit) == (p <= error)


def test_a_model_of_a_chunk_is_scikit_learns_own() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 3))
    y = inputs.sum(axis=1) + rng.normal(size=400)
    holdout = np.arange(400) % 5 == 0
    bounds = {"a": slice(0, 200), "b": slice(200, 400)}
    bad = {"b": "its rows cannot be split"}
    done = train_chunk(
        Settings(Ridge(alpha=2.0), "regression", None, ("r2", "rmse"), Evaluate(), 7),
        Chunk(0, bounds, inputs, y, y, holdout, problems=bad),
    )
    ((key, data),) = done.models
    model = KindReader().load(done.kinds[str(kind_of(data))], data)
    part, held = inputs[:200], holdout[:200]
    own = Ridge(alpha=2.0).fit(part[~held], y[:200][~held])
    assert key == "a"
    assert np.array_equal(model.coef_, own.coef_)
    assert done.rows[0]["metrics"]["r2"] == pytest.approx(own.score(part[held], y[:200][held]))
    assert (done.rows[1]["status"], done.rows[1]["reason"]) == ("failed", "its rows cannot be split")


def test_each_key_searches_on_its_own_training_rows() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 8))
    y = np.where(np.arange(400) < 200, 5 * inputs[:, 0], 0) + rng.normal(size=400)
    search = Search(strategy="grid", space={"alpha": [0.1, 10.0, 1000.0]}, cv=4)
    holdout = np.arange(400) % 5 == 0
    done = train_chunk(
        Settings(Ridge(), "regression", None, ("r2",), Evaluate(), 7, search=search),
        Chunk(0, {"a": slice(0, 200), "b": slice(200, 400)}, inputs, y, y, holdout),
    )
    assert [row["params"] for row in done.rows] == [{"alpha": 0.1}, {"alpha": 1000.0}]
    for (_, data), place in zip(done.models, (slice(0, 200), slice(200, 400)), strict=True):
        fitted = ~holdout[place]
        own = GridSearchCV(Ridge(), search.space, cv=KFold(4, shuffle=True, random_state=7), scoring="r2")
        own.fit(inputs[place][fitted], y[place][fitted])
        model = KindReader().load(done.kinds[str(kind_of(data))], data)
        assert model.alpha == own.best_params_["alpha"]
        assert np.allclose(model.coef_, own.best_estimator_.coef_, rtol=1e-12)


def test_a_search_may_name_settings_of_a_part() -> None:
    rng = np.random.default_rng(0)
    inputs, y = rng.normal(size=(80, 2)), rng.normal(size=80)
    search = Search(strategy="grid", space={"estimator__max_depth": [1, 2]}, cv=2)
    bagged = BaggingRegressor(DecisionTreeRegressor(), n_estimators=2)
    (row,) = train_chunk(
        Settings(bagged, "regression", None, ("rmse",), Evaluate(), 7, search=search),
        Chunk(0, {"a": slice(0, 80)}, inputs, y, y, np.arange(80) % 5 == 0),
    ).rows
    assert row["params"]["estimator__max_depth"] in (1, 2), row["reason"]


def test_a_key_too_small_for_its_search_fails_alone() -> None:
    rng = np.random.default_rng(0)
    y = np.array([0, 1] * 50 + [0] * 98 + [1] * 2)
    search = Search(space={"C": [0.1, 1.0]}, cv=3)
    done = train_chunk(
        Settings(LogisticRegression(), "classification", (0, 1), ("log_loss",), Evaluate(), 7, search=search),
        Chunk(0, {"a": slice(0, 100), "b": slice(100, 200)}, rng.normal(size=(200, 2)), y, y, np.arange(200) % 4 == 0),
    )
    assert [row["status"] for row in done.rows] == ["passed", "failed"]
    assert done.rows[1]["reason"].startswith("train.search.cv is 3, but class 1 has ")


@pytest.mark.parametrize(
    ("gates", "status", "reason"),
    [
        ([{"metric": "r2", "versus": "champion", "not_worse_by": 0.1}], "inconclusive", "v4 cannot be asked: no early"),
        (
            [{"metric": "r2", "at_least": 0.99}, {"metric": "r2", "versus": "champion", "better_by": 0.1}],
            "rejected",
            "",
        ),
        ([{"metric": "r2", "at_least": 0.1}], "passed", ""),
    ],
)
def test_a_champion_that_cannot_be_asked_leaves_its_key_undecided(
    gates: list[dict[str, Any]], status: str, reason: str
) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 3))
    y = inputs.sum(axis=1) + rng.normal(size=200)
    done = train_chunk(
        Settings(Ridge(), "regression", None, ("r2",), Evaluate.model_validate({"gates": gates}), 7),
        Chunk(
            0, {"a": slice(0, 200)}, inputs, y, y, np.arange(200) % 4 == 0,
            champions={"a": Asked(4, "0" * 64, None, "no early")},
            references={"a": Asked(3, "1" * 64, None, "no early")},
        ),
    )  # fmt: skip
    # There is a version all the same, for a person to promote.
    assert [key for key, _ in done.models] == ["a"]
    (row,) = done.rows
    assert (row["status"], row["champion"], row["p_value"]) == (status, 4, None)
    assert reason in row["reason"]


@pytest.mark.parametrize(("gate", "verdict"), [("log_loss", "passed"), ("roc_auc_ovr", "inconclusive")])
def test_a_holdout_without_a_class_decides_nothing_that_needs_it(gate: str, verdict: str) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(400, 2))
    y = np.where(inputs[:, 0] > 0, 1, 0)
    holdout = np.arange(400) % 4 == 0
    y[:9] = np.where(holdout[:9], y[:9], 2)
    limit = {"at_most": 1.0} if gate == "log_loss" else {"at_least": 0.6}
    evaluate = Evaluate.model_validate({"gates": [{"metric": gate, **limit}]})
    classes = ("a", "b", "c")
    (row,) = train_chunk(
        Settings(LogisticRegression(), "classification", classes, ("log_loss", "roc_auc_ovr"), evaluate, 7),
        Chunk(0, {"k": slice(0, 400)}, inputs, np.array(classes)[y], y, holdout),
    ).rows
    assert row["status"] == verdict, row["reason"]
    if verdict == "passed":
        assert [*row["metrics"]] == ["log_loss"]
    else:
        assert row["reason"].endswith("; class c has no holdout rows")


def test_labels_keep_their_kind_and_unknown_ones_are_marked() -> None:
    target, y = labels(pd.Series(["no", "yes", None, "maybe"]), "classification", ("no", "yes"))
    assert y.tolist() == [0, 1, -1, -1]
    assert target[:2].tolist() == ["no", "yes"]
    numbers, codes = labels(pd.Series([1.0, 0.0]), "classification", (0, 1))
    assert numbers.dtype == np.int64
    assert codes.tolist() == [1, 0]


def test_among_worse_candidates_few_nights_let_any_pass() -> None:
    """Every candidate is exactly as bad as it may just not be: p-values are uniform."""
    rng = np.random.default_rng(0)
    nights = 1000
    wrong = sum(
        any(row["status"] == "passed" for row in judge(_rows(rng.uniform(size=200)), VERSUS, None).rows)
        for _ in range(nights)
    )
    assert wrong / nights < 0.05 + 3 * (0.05 * 0.95 / nights) ** 0.5


def test_of_those_that_pass_few_are_worse() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(300):
        worse, good = rng.uniform(size=100), rng.uniform(size=900) ** 6
        found = judge(_rows(np.concatenate([worse, good])), VERSUS, None).rows
        passed = [int(row["key"]) for row in found if row["status"] == "passed"]
        shares.append(sum(key < 100 for key in passed) / max(len(passed), 1))
        assert len(passed) > 300, "the good ones are still found"
    assert np.mean(shares) < 0.05


def _rows(p_values: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"key": str(i), "status": "passed" if p <= 0.05 else "inconclusive", "reason": "", "p_value": float(p)}
        for i, p in enumerate(p_values)
    ]


def test_the_sentence_tells_what_counts() -> None:
    assert sentence({"failed": 7, "promoted": 15_982, "rejected": 11}) == "15,982 promoted, 11 rejected, 7 failed"
    assert sentence({}) == "nothing to do"


def test_why_a_column_of_the_key_is_no_feature_is_told() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"route": ["a", "b"] * 20, "line": "x", "note": "n", "hour": rng.normal(size=40)})
    frame["y"] = frame["hour"] + rng.normal(size=40)
    data = Data(source="x.parquet", target="y", exclude=["note"])
    train = Train(estimator="sklearn.linear_model.Ridge")
    schema, _, _ = prepare(frame, [*frame.columns], data, Fleet(key="route", parent="line"), train, ())
    assert dict(schema.excluded) == {
        "route": "makes the key (fleet.key)",
        "line": "names the group of the key (fleet.parent)",
        "note": "in data.exclude",
    }
