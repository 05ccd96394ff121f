"""Drift of a fleet: exact p-values, the error rate over all keys, and what is found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.fleet.dependence import dependence, dependence_of, window_dependence
from airflow_mlops.ml.fleet.drift import MOST_ROWS, Stretch, check_fleet_drift, put_tests, read_tests
from airflow_mlops.ml.fleet.drift_tests import (
    Side,
    Together,
    compare_categories,
    compare_numbers,
    compare_shares,
    ks_p_values,
)
from airflow_mlops.store import LocalStore


def starts(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)])


def frame(rng: np.random.Generator, counts: np.ndarray) -> pd.DataFrame:
    """Two numbers of which one has many ties and hangs on the other, a boolean, and categories with gaps."""
    rows = int(counts.sum())
    x = rng.normal(size=rows)
    text = np.array(["a", "b", "c", "d"], dtype=object)[np.minimum(rng.geometric(0.5, rows) - 1, 3)]
    return pd.DataFrame(
        {
            "x": x,
            "count": rng.poisson(np.exp(0.3 * x)).astype(float),
            "flag": (rng.random(rows) < 0.2).astype(float),
            "kind": np.where(rng.random(rows) < 0.05, None, text),
        }
    )


KINDS = {"x": "number", "count": "number", "flag": "boolean", "kind": "category"}


def stretch(rng: np.random.Generator, keys: int) -> Stretch:
    n, m = rng.integers(60, 200, keys), rng.integers(30, 60, keys)
    return Stretch(
        [f"k{i:04d}" for i in range(keys)], [1] * keys, frame(rng, n), starts(n), frame(rng, m), starts(m), KINDS
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_ks_p_values_are_those_of_counted_paths(n: int, m: int, seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(rng.choice([0, 1, 2]), 1, size=m)
    if whole:
        x, y = np.round(x), np.round(y)
    wanted = stats.ks_2samp(x, y, method="exact")
    found = ks_p_values(np.array([wanted.statistic]), np.array([n]), np.array([m]))[0]
    # Where nobody rejects, Kolmogorov's limit is told.
    assert found == pytest.approx(wanted.pvalue, rel=1e-6, abs=2e-12) or min(found, wanted.pvalue) > 0.15


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 80), st.integers(2, 80), st.data())
def test_share_p_values_are_doubled_tails_and_err_to_the_safe_side(n: int, m: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, n + m))
    b = np.arange(max(0, hits - n), min(m, hits) + 1)
    rows = np.full(len(b), n), np.full(len(b), m)
    found = compare_shares((hits - b, b), rows, 1.0, Together())
    chance = stats.hypergeom(n + m, hits, m)
    tails = np.minimum(1, 2 * np.minimum(chance.cdf(b), chance.sf(b - 1)))
    assert np.all(np.isclose(found, tails, rtol=1e-6) | (found == 1))
    # Over all that can happen without a change: no p-value is reached more often than it says.
    for p in found:
        assert chance.pmf(b)[found <= p].sum() <= p * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_each_key_is_compared_as_if_it_were_alone(seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    n, m = rng.integers(5, 80, 7), rng.integers(5, 40, 7)
    ref, cur = rng.normal(size=n.sum()), rng.normal(0.5, 1, size=m.sum())
    if whole:
        ref, cur = np.round(ref), np.round(cur)
    both = Side(ref, starts(n)), Side(cur, starts(m))
    together = compare_numbers(*both, np.ones(7, bool), 1.0, Together())
    for k in range(7):
        mine = [s.values[s.starts[k] : s.starts[k + 1]] for s in both]
        alone = compare_numbers(*(Side(v, np.array([0, len(v)])) for v in mine), np.ones(1, bool), 1.0, Together())
        assert together.effect[k] == pytest.approx(alone.effect[0], rel=1e-9)
        assert together.p_value[k] == pytest.approx(alone.p_value[0], rel=1e-6)
        low, high = np.sort(mine[0])[[int(0.01 * (n[k] - 1)), int(np.ceil(0.99 * (n[k] - 1)))]]
        if high > low:
            fenced = [np.clip(v, 2 * low - high, 2 * high - low) for v in mine]
            assert together.effect[k] == pytest.approx(stats.wasserstein_distance(*fenced) / fenced[0].std(), rel=1e-6)


@pytest.mark.parametrize("rare", [0.005, 0.02, 0.1])
def test_numbers_with_heavy_ties_are_no_evidence(rare: float) -> None:
    rng = np.random.default_rng(3)
    keys = 4000
    n, m = np.full(keys, 120), np.full(keys, 40)
    sides = [Side((rng.random(c.sum()) < rare) * rng.normal(5, 1, c.sum()), starts(c)) for c in (n, m)]
    found = compare_numbers(*sides, np.ones(keys, bool), 1.0, Together())
    for level in (0.05, 0.01, 0.001):
        assert (found.p_value <= level).mean() <= level + 3 * np.sqrt(level / keys)


def test_rare_p_values_are_as_rare_as_they_say() -> None:
    rng = np.random.default_rng(4)
    keys = 20_000
    n, m = rng.integers(60, 120, keys), rng.integers(30, 40, keys)
    numbers = [Side(rng.exponential(size=c.sum()), starts(c)) for c in (n, m)]
    texts = [Side(np.minimum(rng.geometric(0.4, c.sum()) - 1, 4).astype(float), starts(c)) for c in (n, m)]
    for found in (
        compare_numbers(*numbers, np.ones(keys, bool), 1.0, Together()),
        compare_categories(*texts, np.ones(keys, bool), 1.0, {}),
    ):
        for level in (0.05, 0.01, 0.001, 0.0002):
            assert (found.p_value <= level).mean() <= level + 3 * np.sqrt(level / keys)


def test_a_night_without_drift_alarms_as_seldom_as_alpha_says() -> None:
    """120 nights of 60 keys; the full size is in benchmarks/bench_fleet_drift.py."""
    rng = np.random.default_rng(5)
    alarms = [check_fleet_drift([stretch(rng, 60)], Drift(alpha=0.2)).verdict == "drift" for _ in range(120)]
    # Of 120 nights at 20 % more than 36 alarm with a probability of 0.4 %.
    assert sum(alarms) <= 36


def test_keys_that_drift_are_found_and_no_others() -> None:
    rng = np.random.default_rng(6)
    one = stretch(rng, 300)
    moved = one.current.copy()
    for key in (7, 8, 9):
        rows = slice(one.current_starts[key], one.current_starts[key + 1])
        moved.loc[moved.index[rows], "x"] += 2.0
    found = check_fleet_drift([Stretch(**vars(one) | {"current": moved})], Drift())
    assert {"k0007", "k0008", "k0009"} <= set(found.drifted)
    assert len(found.drifted) <= 4
    assert found.verdict == "drift"
    assert "of 300 keys" in found.sentence
    shown = {c["name"]: c for c in found.columns}
    assert shown["x"]["drifted"]
    assert shown["x"]["effect"] == pytest.approx(0.01, abs=0.004)


def test_what_no_key_shows_all_show_together() -> None:
    rng = np.random.default_rng(7)
    one = stretch(rng, 400)
    found = check_fleet_drift(
        [Stretch(**vars(one) | {"current": one.current.assign(x=one.current["x"] + 0.2)})], Drift()
    )
    alarms = found.tests[found.tests["alarm"] & (found.tests["column"] == "x") & (found.tests["key"] == "*")]
    assert alarms["effect"].tolist() == [pytest.approx(0.2, abs=0.03)]
    assert "drift over all keys in x" in found.sentence


def test_stretches_say_the_same_as_all_keys_at_once() -> None:
    rng = np.random.default_rng(8)
    one = stretch(rng, 40)
    cut = 17

    def part(first: int, last: int) -> Stretch:
        ref, cur = one.reference_starts[first : last + 1], one.current_starts[first : last + 1]
        return Stretch(
            one.keys[first:last], one.versions[first:last], one.reference.iloc[ref[0] : ref[-1]], ref - ref[0],
            one.current.iloc[cur[0] : cur[-1]], cur - cur[0], KINDS,
        )  # fmt: skip

    config = Drift(independent_rows=True)
    whole, parts = check_fleet_drift([one], config), check_fleet_drift([part(0, cut), part(cut, 40)], config)
    pd.testing.assert_frame_equal(whole.tests, parts.tests, check_exact=False, rtol=1e-9)


def test_few_rows_are_no_verdict_and_many_are_thinned() -> None:
    rng = np.random.default_rng(9)
    n, m = np.array([200, 200, 4000]), np.array([29, 30, 2000])
    one = Stretch(
        ["few", "some", "many"], [1, 2, 3], frame(rng, n), starts(n), frame(rng, m), starts(m), {"x": "number"}
    )
    found = check_fleet_drift([one], Drift())
    assert found.few == 1
    assert found.compared == 2
    by_key = found.tests.set_index("key")
    assert by_key.loc["many", ["reference_rows", "current_rows"]].tolist() == [MOST_ROWS, MOST_ROWS]
    nothing = check_fleet_drift([], Drift())
    assert nothing.verdict == "not_enough_data"


def test_a_column_that_is_gone_is_missing_everywhere() -> None:
    rng = np.random.default_rng(10)
    one = stretch(rng, 20)
    found = check_fleet_drift([Stretch(**vars(one) | {"current": one.current.drop(columns="x")})], Drift())
    gone = found.tests[(found.tests["column"] == "x") & (found.tests["key"] != "*")]
    assert set(gone["statistic"]) == {"missing rate"}
    assert gone["alarm"].all()
    assert (gone["effect"] == 1).all()


def test_a_constant_reference_is_compared_by_shares() -> None:
    n, m = np.array([100]), np.array([40])
    both = Side(np.ones(100), starts(n)), Side(np.concatenate([np.ones(20), np.full(20, 2.0)]), starts(m))
    found = compare_numbers(*both, np.ones(1, bool), 1.0, Together())
    # With so many ties the ranks have no say.
    assert found.p_value[0] == pytest.approx(stats.ks_2samp(both[0].values, both[1].values, method="exact").pvalue)
    assert found.constant[0]
    assert found.effect[0] == 0.5


def test_rows_that_hang_together_count_as_fewer() -> None:
    rng = np.random.default_rng(11)
    counts = np.full(200, 160)
    days = np.repeat(rng.normal(size=200 * 20), 8)  # eight rows a day share the day
    hanging = Side(days + rng.normal(size=len(days)), starts(counts))
    assert 3 <= dependence(hanging) <= 7  # in truth 4.5
    assert dependence(Side(rng.normal(size=len(days)), starts(counts))) == 1.0
    assert dependence(Side(np.sort(days.reshape(200, 160), axis=1).ravel(), starts(counts))) == 1.0  # sorted


def test_tables_come_back_as_they_were(tmp_path: object) -> None:
    store = LocalStore(str(tmp_path))
    tests = check_fleet_drift([stretch(np.random.default_rng(12), 5)], Drift()).tests
    pd.testing.assert_frame_equal(read_tests(store, put_tests(store, tests)), tests, check_dtype=False)
    assert list(read_tests(store, put_tests(store, tests), ["key", "alarm"])) == ["key", "alarm"]


def correlated(rng: np.random.Generator, rows: int, by: str) -> np.ndarray:
    """A stationary series of one key in the order of its time: neighbours are alike."""
    if by == "day":
        return np.repeat(rng.normal(0, 0.5, -(-rows // 100)), 100)[:rows] + rng.normal(size=rows)
    noise = rng.normal(size=rows + 400)
    return np.asarray(signal.lfilter([1], [1, -float(by)], noise))[400:]


@pytest.mark.parametrize("by", ["0.9", "0.98", "day"])
def test_a_window_of_neighbouring_rows_is_no_drift(by: str) -> None:
    """90 days of training rows, thinned, against one day: nothing changes, and rows of a day hang together."""
    rng = np.random.default_rng(17)
    keys, days, a_day = 40, 90, 100
    alarms = 0
    for _ in range(5):
        series = [correlated(rng, (days + 1) * a_day, by) for _ in range(keys)]
        ref = pd.DataFrame({"x": np.concatenate([s[:-a_day] for s in series])})
        cur = pd.DataFrame({"x": np.concatenate([s[-a_day:] for s in series])})
        n, m = starts(np.full(keys, days * a_day)), starts(np.full(keys, a_day))
        worth = {"x": dependence_of(ref["x"], "number", n)}
        assert worth["x"][0] > 5
        names = [f"k{i:02d}" for i in range(keys)]
        found = check_fleet_drift([Stretch(names, [1] * keys, ref, n, cur, m, {"x": "number"}, worth)], Drift())
        alarms += bool(found.tests["alarm"].any())
    assert alarms <= 1


@pytest.mark.parametrize("by", [0.5, 0.9])
def test_a_window_whose_rows_hang_together_more_than_the_training_rows_is_no_drift(by: float) -> None:
    """Training rows were drawn here and there; those of the window come one after the other."""
    rng = np.random.default_rng(18)
    keys, n, m = 150, np.full(150, 150), np.full(150, 40)
    for _ in range(3):
        ref = pd.DataFrame({"x": rng.normal(size=n.sum())})
        rows = np.concatenate([correlated(rng, 40, str(by)) for _ in range(keys)]) * np.sqrt(1 - by**2)
        cur = pd.DataFrame({"x": rows})
        names = [f"k{i:03d}" for i in range(keys)]
        found = check_fleet_drift(
            [Stretch(names, [1] * keys, ref, starts(n), cur, starts(m), {"x": "number"})], Drift()
        )
        assert found.verdict == "no_drift"


def test_a_day_that_all_keys_share_costs_no_power() -> None:
    """Rows of the window come in the order of their hour, which moves the column in each key alike."""
    rng = np.random.default_rng(19)
    keys, n, m = 150, np.full(150, 200), np.full(150, 40)
    hour = [rng.random(n.sum()), np.tile((np.arange(40) + 0.5) / 40, keys)]
    ref, cur = (np.sin(2 * np.pi * h) + np.sqrt(0.5) * rng.normal(size=len(h)) for h in hour)
    assert window_dependence(Side(cur, starts(m))) == 1.0
    assert dependence(Side(cur, starts(m))) > 2
    cur[: 5 * 40] += 1.5
    names = [f"k{i:03d}" for i in range(keys)]
    frames = pd.DataFrame({"x": ref}), pd.DataFrame({"x": cur})
    one = Stretch(names, [1] * keys, frames[0], starts(n), frames[1], starts(m), {"x": "number"})
    assert check_fleet_drift([one], Drift()).drifted == names[:5]


def test_rare_categories_are_no_change_of_all_keys() -> None:
    rng = np.random.default_rng(5)
    keys, n, m = 60, np.full(60, 500), np.full(60, 30)
    names = np.array([f"c{i}" for i in range(1000)], dtype=object)
    shares = 1 / np.arange(1, 1001)
    everywhere = 0
    for _ in range(8):
        ref, cur = (pd.DataFrame({"c": rng.choice(names, int(s.sum()), p=shares / shares.sum())}) for s in (n, m))
        one = Stretch([f"k{i:02d}" for i in range(keys)], [1] * keys, ref, starts(n), cur, starts(m), {"c": "category"})
        everywhere += bool(check_fleet_drift([one], Drift(effect=0.05)).everywhere)
    assert everywhere == 0


def test_a_category_of_a_few_keys_is_no_change_of_all() -> None:
    """In 6 of 60 keys a category grows, too little for one of them; the others never have it."""
    rng = np.random.default_rng(103)
    n, m = np.full(60, 100), np.full(60, 30)

    def side(counts: np.ndarray, share: float, among: int) -> pd.DataFrame:
        text = rng.choice(np.array(["a", "b"], dtype=object), counts.sum())
        text[(np.repeat(np.arange(60), counts) < among) & (rng.random(counts.sum()) < share)] = "z"
        return pd.DataFrame({"c": text})

    def told(among: int) -> list[bool]:
        names, kinds = [f"k{i:02d}" for i in range(60)], {"c": "category"}
        pairs = [(side(n, 0.3, among), side(m, 0.5, among)) for _ in range(5)]
        found = [Stretch(names, [1] * 60, ref, starts(n), cur, starts(m), kinds) for ref, cur in pairs]
        return [bool(check_fleet_drift([one], Drift()).everywhere) for one in found]

    assert not any(told(6))
    assert all(told(60))
