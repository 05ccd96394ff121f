from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from airflow_mlops.config.models import Drift
from airflow_mlops.exceptions import DataError
from airflow_mlops.ml.drift import check_drift, critical_p
from airflow_mlops.ml.drift_counts import Categories
from airflow_mlops.ml.drift_profile import column_profile, make_profile
from airflow_mlops.ml.drift_statistics import column_signals, ks_test, rank_test, share_test, unseen_signal
from airflow_mlops.ml.drift_values import core, to_numbers

MIXED = {f"n{i}": "number" for i in range(6)} | {f"c{i}": "category" for i in range(3)} | {"b": "boolean"}


def mixed(rng, rows, shift=0.0):
    return pd.DataFrame(
        {
            "n0": rng.normal(shift, 1, rows),
            "n1": rng.lognormal(0, 1, rows),
            "n2": rng.integers(0, 6, rows),
            "n3": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(0, 5, rows)),
            "n4": np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(3, rows)),
            "n5": rng.standard_t(2, rows),
            "c0": rng.choice(list("abcde"), rows),
            "c1": np.array([f"k{v}" for v in np.minimum(rng.zipf(1.5, rows), 5000)]),
            "c2": rng.choice(np.array(["x", "y", None], dtype=object), rows, p=[0.9, 0.05, 0.05]),
            "b": rng.random(rows) < 0.3,
        }
    )


def counted(reference, current, kind="number"):
    known = column_profile(pd.Series(reference), kind)
    counter = known.counter()
    values = pd.Series(current)
    counter.add(to_numbers(values, kind) if known.scale is not None else values)
    return known, counter.finish()


def sides(reference, current):
    known, current = counted(reference, current)
    return known.side, current


def signals(reference, current, kind="number"):
    return column_signals(*counted(reference, current, kind), effect=0.1, missing_points=0.02, min_rows=30)


def one(reference, current, kind="number", **config):
    report = check_drift(pd.DataFrame({"x": reference}), pd.DataFrame({"x": current}), {"x": kind}, Drift(**config))
    json.dumps(report.to_dict(), allow_nan=False)
    return report


def test_a_column_is_told_with_the_limit_it_was_judged_by():
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=1000)
    gone = np.where(rng.random(1000) < 0.3, np.nan, numbers)
    found = [
        one(numbers, numbers + 1, effect=0.2),
        one(numbers, gone, effect=0.2),
        one(list("ab" * 500), list("aab" * 300), "category", effect=0.2),
        one(numbers, np.full(1000, np.nan), effect=0.2),
    ]
    assert [(r.columns[0].statistic, r.columns[0].to_dict()["threshold"]) for r in found] == [
        ("W1", 0.2),
        ("missing rate", 0.02),
        ("L∞", 0.1),
        ("missing rate", 0.02),
    ]


# --- known truths ------------------------------------------------------------------------------


@pytest.mark.parametrize("delta", [0.1, 0.3, 1.0, 2.0])
def test_shift_of_a_normal_has_the_known_distance(delta):
    points = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)
    signal = signals(points, points + delta)[0]
    assert signal.effect == pytest.approx(delta, rel=0.01)
    d = 2 * stats.norm.cdf(delta / 2) - 1
    assert ks_test(*sides(points, points + delta)) == pytest.approx(stats.kstwo.sf(d, 10000), rel=0.2, abs=1e-12)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0])
def test_scale_of_a_normal_has_the_known_distance(scale):
    points = stats.norm.ppf((np.arange(20000) + 0.5) / 20000)
    assert signals(points, points * scale)[0].effect == pytest.approx(abs(scale - 1) * math.sqrt(2 / math.pi), rel=0.01)


def test_agrees_with_scipy_where_no_value_is_fenced():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 20, 400).astype(float), rng.integers(2, 22, 300).astype(float)
    signal = signals(a, b)[0]
    assert signal.effect == pytest.approx(stats.wasserstein_distance(a, b) / a.std())
    ks = stats.ks_2samp(a, b, method="asymp").pvalue
    ranks = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic").pvalue
    assert ks_test(*sides(a, b)) == pytest.approx(ks)
    assert rank_test(*sides(a, b)) == pytest.approx(ranks, rel=1e-3)  # 20 and 21 both lie above the last cut
    assert signal.p_value == pytest.approx(2 * min(ks, ranks), rel=1e-3)


@pytest.mark.parametrize("rows", [(50, 60), (900, 5000), (5000, 900), (40_000, 30_000)])
def test_a_profile_tells_what_all_rows_would(rows):
    rng = np.random.default_rng(rows[0])
    for shape in (rng.normal, rng.standard_exponential, rng.random):
        a, b = shape(size=rows[0]), shape(size=rows[1]) * 1.1
        signal = signals(a, b)[0]
        low, high = core(np.sort(a))
        fenced = [np.clip((x - low) / (high - low), -1, 2) for x in (a, b)]
        exact = stats.wasserstein_distance(*fenced) / fenced[0].std()
        # Of few rows the two distribution functions cross between nearly any two values.
        assert signal.effect == pytest.approx(exact, abs=0.02 if rows[0] < 100 else 0.003)
        assert ks_test(*sides(a, b)) == pytest.approx(stats.ks_2samp(a, b, method="asymp").pvalue, rel=0.25, abs=1e-3)
        ranks = stats.mannwhitneyu(a, b, use_continuity=False, method="asymptotic").pvalue
        assert rank_test(*sides(a, b)) == pytest.approx(ranks, rel=0.02, abs=1e-4)


def test_categories_agree_with_scipy():
    rng = np.random.default_rng(2)
    a, b = rng.permutation(list("aabbbc") * 50), rng.permutation(list("abbccc") * 40)
    (signal,) = signals(a, b, "category")
    assert signal.effect == pytest.approx(1 / 2 - 1 / 6)
    expected = stats.chi2_contingency([[50, 250], [120, 120]], correction=False).pvalue
    assert signal.p_value == pytest.approx(3 * expected)  # each of three categories could have moved that far


def test_missing_rates_agree_with_scipy():
    assert share_test((50, 120), (1000, 1000)) == pytest.approx(
        stats.chi2_contingency([[50, 950], [120, 880]], correction=False).pvalue
    )
    assert share_test((1, 9), (100, 100)) == pytest.approx(stats.fisher_exact([[1, 99], [9, 91]]).pvalue)
    assert share_test((10, 10), (10, 10)) == 1.0


def test_benjamini_hochberg_and_bonferroni():
    assert critical_p([0.001, 0.02, 0.03, 0.9], 0.05, "bonferroni") == pytest.approx(0.0125)
    assert critical_p([0.001, 0.02, 0.03, 0.9], 0.05, "bh") == 0.03
    assert critical_p([0.5, 0.9], 0.05, "bh") == -1
    assert critical_p([], 0.05, "bh") == -1


# --- error rates -------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "runs"), [(30, 150), (200, 150), (1000, 100)])
def test_false_alarms_stay_below_alpha(rows, runs):
    rng = np.random.default_rng(rows)
    alarms = {"bonferroni": 0, "bh": 0}
    for _ in range(runs):
        reference, current = mixed(rng, rows), mixed(rng, rows)
        profile = make_profile(reference, MIXED)
        for correction in alarms:
            report = check_drift(profile, current, MIXED, Drift(correction=correction))
            alarms[correction] += report.verdict == "drift"
    assert max(alarms.values()) / runs <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / runs), alarms


def test_unequal_sides_keep_the_error_rate():
    rng = np.random.default_rng(5)
    profile = make_profile(mixed(rng, 30_000), MIXED)
    alarms = sum(check_drift(profile, mixed(rng, 150), MIXED, Drift()).verdict == "drift" for _ in range(120))
    assert alarms / 120 <= 0.1


def test_power_and_silence():
    rng = np.random.default_rng(6)
    found = sum(
        "n0" in {c.name for c in check_drift(mixed(rng, 1000), mixed(rng, 1000, 0.2), MIXED, Drift()).drifted}
        for _ in range(40)
    )
    assert found >= 30
    big = one(rng.normal(0, 1, 300_000), rng.normal(0.05, 1, 300_000))
    assert big.verdict == "no_drift"
    assert big.columns[0].p_value < 1e-6


def test_a_new_vocabulary_is_drift_though_no_category_is_large():
    rng = np.random.default_rng(7)
    a, b = rng.integers(0, 300, 3000).astype(str), rng.integers(300, 600, 3000).astype(str)
    report = one(a, b, "category")
    assert report.columns[0].statistic == "new categories"
    assert report.columns[0].effect > 0.9
    again = one(a, rng.integers(0, 300, 3000).astype(str), "category")
    assert again.verdict == "no_drift"


# --- robustness --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["reference", "current", "both"])
@pytest.mark.parametrize("outlier", [1e9, -1e9, np.inf, -np.inf, 1.7e308])
def test_one_absurd_value_neither_alarms_nor_hides(where, outlier):
    rng = np.random.default_rng(8)
    a, b = rng.normal(0, 1, 500), rng.normal(0, 1, 500)
    if where != "current":
        a[0] = outlier
    if where != "reference":
        b[0] = outlier
    assert one(a, b).verdict == "no_drift"
    assert one(a, b + 3).columns[0].effect == pytest.approx(3, abs=0.3)


@pytest.mark.parametrize("kind", ["number", "category", "boolean"])
def test_all_null_columns(kind):
    null, full = [None] * 100, [1.0, 0.0] * 50
    assert one(null, null, kind).verdict == "no_drift"
    for pair in ((null, full), (full, null)):
        report = one(*pair, kind)
        assert report.columns[0].statistic == "missing rate"
        assert report.columns[0].drifted
        assert report.columns[0].effect == 1.0


def test_constant_columns():
    assert one([3.0] * 100, [3.0] * 100).verdict == "no_drift"
    report = one([3.0] * 100, [3.0] * 60 + [4.0] * 40)
    assert (report.verdict, report.columns[0].effect) == ("drift", 0.4)
    assert one([np.inf] * 100, [np.inf] * 100).verdict == "no_drift"
    assert one([3.0] * 100, [9.0] * 100).columns[0].effect == 1.0


def test_nulls_that_appear_are_drift():
    rng = np.random.default_rng(9)
    a, b = rng.normal(0, 1, 1000), rng.normal(0, 1, 1000)
    b[:100] = np.nan
    report = one(a, b)
    assert report.columns[0].statistic == "missing rate"
    assert "missing 0.0% → 10.0%" in report.columns[0].sentence


def test_datetimes_are_compared_where_they_are_called_so():
    rng = np.random.default_rng(12)
    times = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 10**6, 500), unit="s"))
    later = times + pd.Timedelta(days=5)
    assert one(times, times.sample(frac=1, random_state=1), "datetime").verdict == "no_drift"
    report = one(times, later, "datetime")
    assert report.verdict == "drift"
    assert "median 2024-01-0" in report.columns[0].sentence
    assert one(times, later.astype(str), "datetime").columns[0].effect == report.columns[0].effect
    assert one(times, later.dt.tz_localize("UTC"), "datetime").columns[0].effect == report.columns[0].effect
    gone = one(times, ["never"] * 100, "datetime").columns[0]
    assert (gone.statistic, gone.effect) == ("missing rate", 1.0)


def test_batches_and_profiles_decide_like_frames():
    rng = np.random.default_rng(13)
    a, b = mixed(rng, 3000), mixed(rng, 2000, 0.4)
    whole = check_drift(a, b, MIXED, Drift())
    parts = check_drift(make_profile(a, MIXED), (b.iloc[i : i + 300] for i in range(0, 2000, 300)), MIXED, Drift())
    assert whole.verdict == parts.verdict == "drift"
    for mine, theirs in zip(whole.columns, parts.columns, strict=True):
        assert (mine.name, mine.drifted, mine.statistic) == (theirs.name, theirs.drifted, theirs.statistic)
        assert theirs.effect == pytest.approx(mine.effect, rel=1e-9, abs=1e-12)
        assert theirs.p_value == pytest.approx(mine.p_value, rel=1e-6, abs=1e-12)


def test_one_large_change_among_many_categories_is_found():
    rng = np.random.default_rng(14)
    a, b = (np.where(rng.random(1000) < s, 0, rng.integers(1, 300, 1000)).astype(str) for s in (0.1, 0.2))
    (column,) = one(a, b, "category").columns
    assert column.drifted
    assert "share of '0'" in column.sentence


def test_more_categories_than_a_profile_names():
    rng = np.random.default_rng(15)
    a, b = rng.integers(0, 30_000, 60_000).astype(str), rng.integers(0, 30_000, 3000).astype(str)
    assert one(a, b, "category").verdict == "no_drift"
    assert one(a, [f"new-{i}" for i in range(3000)], "category").columns[0].statistic == "new categories"


def test_text_in_a_number_column_counts_as_missing():
    assert one(list(range(100)), ["12,5"] * 100).columns[0].statistic == "missing rate"


def test_new_and_vanished_categories():
    assert one(["a"] * 60 + ["b"] * 40, ["a"] * 60 + ["c"] * 40, "category").verdict == "drift"
    assert one(["a", "b"] * 50, ["a"] * 100, "category").verdict == "drift"
    assert one(["a"] * 990 + ["b"] * 10, ["a"] * 990 + ["c"] * 10, "category").verdict == "no_drift"


def test_ten_thousand_categories_do_not_alarm():
    rng = np.random.default_rng(10)
    reports = [
        one(rng.integers(0, 10_000, 2000).astype(str), rng.integers(0, 10_000, 2000).astype(str), "category")
        for _ in range(20)
    ]
    assert sum(r.verdict == "drift" for r in reports) <= 3
    assert one([f"{i}" for i in range(500)], [f"{i}" for i in range(500, 1000)], "category").verdict == "no_drift"


@pytest.mark.parametrize(
    ("reference", "current", "kind"),
    [
        ([1, 2] * 50, ["1", "2"] * 50, "category"),
        ([1, 2] * 50, [1.0, 2.0] * 50, "category"),
        ([True, False] * 50, [1, 0] * 50, "boolean"),
        ([True, False] * 50, ["true", "False"] * 50, "boolean"),
        (pd.Categorical(["a", "b"] * 50), ["a", "b"] * 50, "category"),
        ([["a"], ["b"]] * 50, ["['a']", "['b']"] * 50, "category"),
        ([1, 2] * 50, pd.array([1, 2] * 50, dtype="Int64"), "number"),
        ([1.0, 2.0] * 50, pd.array([1, 2] * 50, dtype="int64[pyarrow]"), "number"),
    ],
)
def test_same_values_in_another_dtype_are_the_same(reference, current, kind):
    assert one(reference, current, kind).verdict == "no_drift"


def test_min_rows_and_dates_and_lost_columns():
    assert one(range(29), range(100)).verdict == "not_enough_data"
    assert "29 reference and 100 current rows" in one(range(29), range(100)).sentence
    frame = pd.DataFrame({"when": pd.date_range("2013", periods=100), "x": range(100)})
    report = check_drift(frame, frame, {"when": "category", "x": "number"}, Drift())
    assert report.skipped == ("when",)
    assert [c.name for c in report.columns] == ["x"]
    lost = check_drift(frame, frame[["when"]], {"x": "number"}, Drift())
    assert lost.columns[0].statistic == "missing rate"
    with pytest.raises(DataError, match="no column 'y'"):
        check_drift(frame, frame, {"y": "number"}, Drift())
    with pytest.raises(DataError, match="unknown kinds"):
        check_drift(frame, frame, {"x": "numeric"}, Drift())


def test_the_sentence_names_columns_and_sizes():
    rng = np.random.default_rng(11)
    a, b = mixed(rng, 1000), mixed(rng, 1000, 0.5)
    report = check_drift(a, b, MIXED, Drift())
    assert report.sentence.startswith("drift in 1 of 10 columns: n0 (W1 0.")
    assert "median" in report.drifted[0].sentence


values = st.one_of(st.none(), st.floats(), st.integers(-(10**18), 10**18), st.text(max_size=3), st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(values, min_size=30, max_size=80),
    st.lists(values, min_size=30, max_size=80),
    st.sampled_from(["number", "category", "boolean"]),
)
def test_any_column_gives_a_finite_report(reference, current, kind):
    a = pd.Series(reference, dtype=object)
    b = pd.Series(current, dtype=object)
    report = one(a, b, kind)
    same = one(a, a, kind)
    assert report.verdict in ("drift", "no_drift")
    assert same.verdict == "no_drift"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False), min_size=30, max_size=60),
    st.lists(st.floats(allow_nan=False), min_size=30, max_size=60),
)
def test_any_floats_give_a_finite_distance(a, b):
    for signal in signals(a, b):
        assert math.isfinite(signal.effect)
        assert 0 <= signal.effect < 1e4
        assert 0 <= signal.p_value <= 1


def test_unseen_categories_that_chance_foretells_are_none():
    reference = Categories(100, 0, 1.0, 1.0, {f"{i}": 1 for i in range(50)} | {"many": 50}, 0, 50, 50.0, {})
    seen = Categories(60, 0, 1.0, 1.0, {"many": 60}, 0, 0, 0.0, {})
    alike = Categories(60, 0, 1.0, 1.0, {"many": 30} | {f"new{i}": 1 for i in range(30)}, 0, 0, 0.0, {})
    other = Categories(600, 0, 1.0, 1.0, {f"new{i}": 60 for i in range(10)}, 0, 0, 0.0, {})
    assert unseen_signal(reference, seen, 0.05) is None
    assert unseen_signal(reference, alike, 0.05).p_value > 0.05
    assert unseen_signal(Categories(600, 0, 1.0, 1.0, {"many": 600}, 0, 0, 0.0, {}), other, 0.05).p_value < 1e-6


def test_a_small_side_that_missed_a_category_is_no_drift():
    rng = np.random.default_rng(16)
    alarms = 0
    for _ in range(60):
        few, many = (rng.choice([*"abcdefghij"], n, p=[0.55, *[0.05] * 9]) for n in (30, 3000))
        alarms += one(few, many, "category").verdict == "drift"
        alarms += one(many, few, "category").verdict == "drift"
    assert alarms <= 12
