from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from airflow_mlops.config.models import Performance
from airflow_mlops.exceptions import DataError, EvaluationError
from airflow_mlops.ml.features import Feature, FeatureSchema
from airflow_mlops.ml.performance import check_performance

BINARY = FeatureSchema((Feature("x", "number"),), "y", (0, 1), 1)
CONFIG = Performance(max_drop=0.03)


def data(n=2000, skill=1.0, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + skill * (2 * y - 1))))
    capture = pd.DataFrame({"id": np.arange(n), "prediction": (p > 0.5).astype(int), "probability": p})
    return capture, pd.DataFrame({"id": np.arange(n), "y": y})


def check(capture, labels, **kw):
    kw = {"metric": "roc_auc", "baseline": 0.9, "config": CONFIG, "schema": BINARY, "id_column": "id"} | kw
    report = check_performance(capture, labels, **kw)
    json.dumps(report.to_dict(), allow_nan=False)
    return report


def test_the_value_is_scikit_learns_whatever_the_order():
    capture, labels = data()
    expected = roc_auc_score(labels.y, capture.probability)
    report = check(capture, labels.sample(frac=1, random_state=1), baseline=expected)
    assert report.value == pytest.approx(expected)
    assert report.verdict == "ok"
    assert report.low < report.value < report.high
    assert (report.rows, report.coverage) == (2000, 1.0)
    loss = check(capture, labels, metric="log_loss", baseline=0.4)
    assert loss.value == pytest.approx(log_loss(labels.y, capture.probability))


def test_a_large_and_significant_fall_is_an_alarm():
    capture, labels = data(skill=0.3)
    report = check(capture, labels, baseline=0.9)
    assert report.verdict == "drop"
    assert "against 0.9 at promotion" in report.sentence
    assert "95% sure: at most" in report.sentence
    worse = check(capture, labels, metric="log_loss", baseline=0.3)
    assert worse.verdict == "drop"
    assert "at least" in worse.sentence


def test_small_or_uncertain_falls_are_none():
    capture, labels = data(40, skill=0.5)
    value = check(capture, labels).value
    uncertain = check(capture, labels, baseline=value + 0.04)
    assert uncertain.verdict == "ok"
    assert "not significant" in uncertain.sentence
    capture, labels = data(200_000)
    small = check(capture, labels, baseline=check(capture, labels).value + 0.02)
    assert small.verdict == "ok"
    assert "worse by 0.02, limit 0.03" in small.sentence


def test_a_stable_model_rarely_alarms():
    rng = np.random.default_rng(1)
    truth = 0.9214  # Phi(2 / sqrt(2)): two unit normals, two apart
    alarms = sum(check(*data(100, seed=int(rng.integers(1e9))), baseline=truth).verdict == "drop" for _ in range(200))
    assert alarms / 200 <= 0.1


def test_late_labels_are_pending():
    capture, labels = data(1000)
    for few in (labels[:0], labels[:499], labels.assign(y=np.where(labels.id < 400, labels.y, np.nan))):
        report = check(capture, few)
        assert report.verdict == "pending_labels"
        assert report.value is None
    assert "499 of 1,000 predictions have a label" in check(capture, labels[:499]).sentence
    assert check(capture, labels[:500]).verdict == "ok"
    assert check(capture[:29], labels).verdict == "not_enough_data"
    assert check(capture[:0], labels).verdict == "pending_labels"
    one_class = labels.assign(y=0)
    assert check(capture, one_class).verdict == "not_enough_data"


def test_duplicates_are_counted_and_the_last_counts():
    capture, labels = data(100)
    wrong = labels.assign(y=1 - labels.y)
    report = check(pd.concat([capture, capture[:7]]), pd.concat([wrong[:5], labels]))
    assert report.duplicates == (7, 5)
    assert "7 predictions and 5 labels came twice" in report.sentence
    assert report.value == pytest.approx(roc_auc_score(labels.y, capture.probability))
    assert report.rows == 100


@pytest.mark.parametrize("kind", [str, float, object, "Int64"])
def test_ids_match_across_types(kind):
    capture, labels = data(100)
    labels["flight"] = labels["id"].astype(kind)
    assert check(capture, labels.drop(columns="id"), join_on="flight").rows == 100


def test_classes_by_text_and_the_positive_first():
    capture, labels = data(500)
    names = {0: "late", 1: "early"}
    schema = FeatureSchema(BINARY.features, "y", ("early", "late"), "early")
    capture["prediction"], labels["y"] = capture.prediction.map(names), labels.y.map(names)
    assert check(capture, labels, schema=schema).value == pytest.approx(
        roc_auc_score(labels.y == "early", capture.probability)
    )
    numbers = check(*data(500), metric="accuracy")
    assert check(capture, labels, schema=schema, metric="accuracy").value == numbers.value
    capture, labels = data(500)
    assert check(capture, labels.astype({"y": str}), metric="accuracy").value == numbers.value


def test_regression_and_many_classes():
    rng = np.random.default_rng(2)
    y = rng.normal(size=300)
    capture = pd.DataFrame({"id": range(300), "prediction": y + rng.normal(0, 0.5, 300)})
    labels = pd.DataFrame({"id": range(300), "y": y})
    schema = FeatureSchema(BINARY.features, "y")
    assert check(capture, labels, metric="rmse", baseline=0.5, schema=schema).value == pytest.approx(0.5, abs=0.06)
    assert check(capture, labels, metric="rmse", baseline=0.3, schema=schema).verdict == "drop"
    proba = rng.dirichlet(np.ones(3), 300)
    many = pd.DataFrame(
        {"id": range(300), "prediction": proba.argmax(1)} | {f"probability_{i}": proba[:, i] for i in range(3)}
    )
    labels["y"] = [rng.choice(3, p=p) for p in proba]
    schema = FeatureSchema(BINARY.features, "y", (0, 1, 2))
    report = check(many, labels, metric="roc_auc_ovr", baseline=0.7, schema=schema)
    assert report.value == pytest.approx(roc_auc_score(labels.y, proba, multi_class="ovr"))


def test_wrong_input_is_named():
    capture, labels = data(100)
    with pytest.raises(DataError, match="labels have no column 'y'"):
        check(capture, labels.drop(columns="y"))
    with pytest.raises(DataError, match="captured predictions have no column 'id'"):
        check(capture.drop(columns="id"), labels)
    with pytest.raises(DataError, match="hold the class 2"):
        check(capture, labels.assign(y=2))
    with pytest.raises(EvaluationError, match="no metric"):
        check(capture, labels, metric="rocauc")
    with pytest.raises(EvaluationError):
        check(capture, labels, metric="r2")
    with pytest.raises(EvaluationError, match="predict_proba"):
        check(capture.drop(columns="probability"), labels, metric="log_loss")


# --- what the value at promotion is worth, what caused a drop ------------------------------------


def test_how_sure_the_value_at_promotion_is_counts() -> None:
    capture, labels = data(800, skill=0.5)
    value = check(capture, labels).value
    exact = check(capture, labels, baseline=value + 0.05)
    assert exact.verdict == "drop"
    assert "counts as exact" in exact.sentence
    sure = check(capture, labels, baseline=value + 0.05, baseline_bounds=(value + 0.045, value + 0.055))
    assert sure.verdict == "drop"
    assert "counts as exact" not in sure.sentence
    assert 0 < sure.at_least < exact.at_least < sure.worse_by == pytest.approx(0.05)
    vague = check(capture, labels, baseline=value + 0.05, baseline_bounds=(value - 0.02, value + 0.12))
    assert (vague.verdict, vague.at_least < 0) == ("ok", True)
    assert "not significant" in vague.sentence
    loss = check(capture, labels, metric="log_loss", baseline=0.3, baseline_bounds=(0.29, 0.31))
    assert loss.verdict == "drop"
    assert loss.at_least < check(capture, labels, metric="log_loss", baseline=0.3).at_least


@pytest.mark.parametrize(("rows", "holdout"), [(300, 300), (1000, 200)])
def test_an_unchanged_model_alarms_rarely_though_its_holdout_was_small(rows: int, holdout: int) -> None:
    from airflow_mlops.ml.metrics import Metric, Predictions
    from airflow_mlops.ml.paired import estimate

    rng, runs, alarms, naive = np.random.default_rng(4), 100, 0, 0
    anything = Performance(max_drop=1e-9)
    for _ in range(runs):
        then, answers = data(holdout, seed=int(rng.integers(1e9)))
        p = then.probability.to_numpy()
        found = estimate(Metric("roc_auc"), answers.y.to_numpy(), Predictions(proba=np.c_[1 - p, p]), n_classes=2)
        ends = found.bounds(0.975)
        now = data(rows, seed=int(rng.integers(1e9)))
        alarms += check(*now, baseline=found.value, baseline_bounds=ends, config=anything).verdict == "drop"
        naive += check(*now, baseline=found.value, config=anything).verdict == "drop"
    # One-sided 5 %, three standard errors above; taking the holdout's value as exact alarms far more often.
    assert alarms / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert naive > alarms


def test_a_drop_is_called_concept_drift_only_where_the_inputs_did_not_drift() -> None:
    capture, labels = data(skill=0.3)

    def cause(**others):
        report = check(capture, labels, baseline=0.9, others=others)
        assert report.verdict == "drop"
        return report.cause, report.sentence

    still = {"verdict": "no_drift", "columns": [{"name": "x", "drifted": False}]}
    moved = {"verdict": "drift", "columns": [{"name": "x", "drifted": True}]}
    said = {"verdict": "drift", "columns": [{"name": "probability", "drifted": True}, {"name": "x", "drifted": False}]}
    assert cause(drift=still)[0] == "concept drift"
    assert "concept drift, as the inputs did not drift" in cause(drift=still)[1]
    assert cause(drift=said)[0] == "concept drift"
    assert cause(drift=moved)[0] == "data drift"
    together = {"verdict": "drift", "columns": [{"name": "all columns together", "drifted": True}]}
    assert cause(drift=together)[0] == "data drift"
    assert cause(drift=still, skew={"verdict": "skew"})[0] == "feature skew"
    assert cause(drift={"verdict": "not_enough_data"})[0] == "unknown"
    assert cause()[0] == "unknown"
    assert check(*data(), others={"drift": still}).cause is None


def test_how_many_outcomes_are_enough_is_yours() -> None:
    capture, labels = data(1000)
    assert check(capture, labels[:200]).verdict == "pending_labels"
    few = Performance(min_coverage=0.1)
    assert check(capture, labels[:200], config=few).verdict == "ok"
    assert "at least 10% are needed" in check(capture, labels[:50], config=few).sentence


def test_rows_that_hang_together_count_by_blocks() -> None:
    rng, runs, alarms, naive = np.random.default_rng(6), 100, 0, 0
    anything = Performance(max_drop=1e-9)
    for _ in range(runs):
        day = np.repeat(np.arange(30), 40)
        good = np.clip(0.8 + rng.normal(0, 0.1, 30), 0, 1)[day] > rng.random(1200)  # good days and bad ones
        y = rng.integers(0, 2, 1200)
        capture = pd.DataFrame({"id": np.arange(1200), "prediction": np.where(good, y, 1 - y), "day": day})
        labels = pd.DataFrame({"id": np.arange(1200), "y": y})
        common = {"metric": "accuracy", "baseline": 0.8, "config": anything}
        alarms += check(capture, labels, **common, blocks=lambda rows: rows["day"].to_numpy()).verdict == "drop"
        naive += check(capture, labels, **common).verdict == "drop"
    assert alarms / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    assert naive > 2 * max(alarms, 4)
    few = check(capture, labels, **common, blocks=lambda rows: rows["day"].to_numpy() // 10)
    assert few.at_least == check(capture, labels, **common).at_least
    assert "rows count as independent: 3 blocks are too few" in few.sentence
    assert "blocks" not in check(capture, labels, **common).sentence
