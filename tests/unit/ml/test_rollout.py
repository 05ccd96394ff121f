"""The verdict of a rollout's step: how often it errs over several looks, and what it stands on."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings

from airflow_mlops.config.models import Data, Evaluate, Labels, Performance, StepVerdict
from airflow_mlops.exceptions import CorruptObject
from airflow_mlops.ml.canary import key_of, served_by_tried
from airflow_mlops.ml.files import Files
from airflow_mlops.ml.prediction import capture_rows
from airflow_mlops.ml.prediction_shift import shift
from airflow_mlops.ml.rollout import Look, look_at, relative_gates
from airflow_mlops.ml.rollout_evidence import Evidence, due, read_evidence, write_evidence
from airflow_mlops.ml.rollout_rows import Compared, evaluation_of, read_windows
from airflow_mlops.ml.spending import share_of_look, spent_by
from airflow_mlops.registry.rollout import Rollout
from airflow_mlops.registry.version import Version
from airflow_mlops.store import LocalStore
from airflow_mlops.window import Window

DATA = Data(source="x", target="y", id="id")
SCHEMA = {"features": [], "target": "y", "classes": None, "positive": None}
ROLLOUT = Rollout(1, 2, 1, ("shadow", {"canary": 0.1}, "full"))
Draw = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]


def version(number: int, classes: list[Any] | None = None) -> Version:
    schema = SCHEMA | {"classes": classes, "positive": classes[-1] if classes else None, "excluded": []}
    record = {
        "schema": schema,
        "model": {"digest": f"d{number}"},
        "task": "classification" if classes else "regression",
    }
    return Version("p", number, None, record)


def window(day: int, rows: int = 400, failed: str | None = None, seconds: tuple[float, float] = (1, 1)) -> Evidence:
    return Evidence(Window.of(f"2013-01-{day:02}", f"2013-01-{day + 1:02}"), rows, "a", "b", 0, seconds, failed)


def frame(number: int, said: np.ndarray, classes: list[Any] | None) -> pd.DataFrame:
    columns: dict[str, Any] = {"id": np.arange(len(said))}
    if classes:
        columns |= {"prediction": np.where(said > 0.5, classes[1], classes[0]), "probability": said}
    else:
        columns |= {"prediction": said}
    return pd.DataFrame(columns | {"model_version": number})


def judged(
    looks: list[tuple[np.ndarray, np.ndarray, np.ndarray]], evaluate: Evaluate, rules: StepVerdict,
    rollout: Rollout = ROLLOUT, classes: list[Any] | None = None, labelled: bool = True,
) -> list[Look]:  # fmt: skip
    """Every look until the step has ended; ``looks`` hold outcome, tried and champion of each window."""
    found: list[Look] = []
    for count in range(1, len(looks) + 1):
        y, mine, theirs = (np.concatenate([part[i] for part in looks[:count]]) for i in range(3))
        both = Compared(frame(2, mine, classes), frame(1, theirs, classes), pd.Series(y) if labelled else None)
        windows = [window(day, len(looks[day - 1][0])) for day in range(1, count + 1)]
        look = look_at(
            rollout, windows, windows, rules=rules, compared=lambda both=both: both, champion=version(1, classes),
            tried=version(2, classes), data=DATA, evaluate=evaluate, performance=Performance(), labelled=labelled,
        )  # fmt: skip
        assert look is not None
        found.append(look)
        if look.kind != "wait":
            break
        rollout = Rollout(**vars(rollout) | {"looks": look.look, "spent": look.spent})
    return found


def worse_by(margin: float, rows: int = 120) -> Draw:
    """Absolute errors whose mean differs by exactly ``margin``; rows of a window hang together a little."""

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        champion = 3 + random.normal(scale=0.4, size=rows)
        return np.zeros(rows), champion + margin + random.normal(scale=0.5, size=rows), champion

    return draw


def rates(draw: Draw, evaluate: Evaluate, rules: StepVerdict, times: int, **more: Any) -> dict[str, float]:
    random, kinds = np.random.default_rng(3), {"next": 0, "end": 0, "wait": 0}
    for _ in range(times):
        kinds[judged([draw(random) for _ in range(rules.max_windows)], evaluate, rules, **more)[-1].kind] += 1
    return {kind: count / times for kind, count in kinds.items()}


MAE = Evaluate.model_validate({"gates": [{"metric": "mae", "versus": "champion", "not_worse_by": 0.1}]})
RULES = StepVerdict(min_rows=100, max_windows=4, on_timeout="keep")


def test_several_looks_share_one_error_probability() -> None:
    """At the gate's own boundary: it goes on, or falls by a comparison, no more often than a gate may err.

    ``benchmarks/bench_rollout.py`` has the full size.
    """
    times = 200
    found = rates(worse_by(0.1), MAE, RULES, times)
    margin = 3 * math.sqrt(0.05 * 0.95 / times)
    assert found["next"] <= 0.05 + margin
    assert found["end"] <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / times)  # two steps are judged: each has half of it


def test_a_version_as_good_goes_on_and_a_worse_one_falls() -> None:
    assert rates(worse_by(0.0, 400), MAE, RULES, 60)["next"] > 0.9
    assert rates(worse_by(0.3, 400), MAE, RULES, 60)["end"] > 0.9


def test_two_classes_and_roc_auc() -> None:
    gates = {"gates": [{"metric": "roc_auc", "versus": "champion", "not_worse_by": 0.05}]}

    def draw(noise: float) -> Draw:
        def of(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            x = random.normal(size=400)
            y = (x + random.normal(size=400) > 0).astype(int)
            mine, theirs = (1 / (1 + np.exp(-(x + s * random.normal(size=400)))) for s in (noise, 0.1))
            return y, mine, theirs

        return of

    evaluate = Evaluate.model_validate(gates)
    assert rates(draw(0.1), evaluate, RULES, 20, classes=[0, 1])["next"] > 0.8
    assert rates(draw(3.0), evaluate, RULES, 20, classes=[0, 1])["end"] > 0.8


def test_without_outcomes_the_distance_errs_as_seldom() -> None:
    """W1 of a shift by half a standard deviation is half a standard deviation: the limit itself."""
    times = 150
    rules = StepVerdict(min_rows=100, max_windows=5, max_shift=0.5, on_timeout="keep")

    def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        theirs = random.normal(size=120)
        return np.zeros(120), theirs + 0.5 + 0.3 * random.normal(size=120), theirs

    found = rates(draw, MAE, rules, times, labelled=False)
    assert found["next"] <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)
    assert found["end"] <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / times) + 0.02  # the noise makes W1 a little larger


@pytest.mark.parametrize("moved", [0.2, 1.0])
def test_the_distance_is_the_shift_and_its_interval_covers_it(moved: float) -> None:
    random, inside = np.random.default_rng(1), 0
    for _ in range(300):
        champion = random.normal(size=1000)
        found = shift(champion + moved + 0.1 * random.normal(size=1000), champion)
        low, high = found.bounds(0.95) or (0, 0)
        inside += low <= moved * math.sqrt(1) + 0.01 and high >= moved - 0.01
    assert inside / 300 >= 0.87
    assert found.value == pytest.approx(moved, abs=0.05)


def test_the_distance_of_the_same_is_nothing_and_blocks_widen_it() -> None:
    champion = np.linspace(0, 1, 1000)
    assert shift(champion, champion).value == 0
    assert shift(np.zeros(100), np.zeros(100)).value == 0
    tried = champion + np.repeat(np.linspace(-0.5, 1, 20), 50)
    alone, blocks = shift(tried, champion), shift(tried, champion, np.repeat(np.arange(20), 50))
    assert blocks.value == alone.value
    assert (blocks.se or 0) > 3 * (alone.se or 0)


@given(st.integers(1, 50), st.lists(st.booleans(), min_size=1, max_size=60))
def test_all_looks_together_spend_at_most_everything(looks: int, tested: list[bool]) -> None:
    spent = used = 0.0
    for look, test in enumerate(tested, 1):
        share = share_of_look(look, looks, spent)
        assert share >= 0
        if test:
            used += share
            spent = max(spent, spent_by(look, looks))
    assert used <= 1 + 1e-9
    assert spent_by(looks, looks) == pytest.approx(1.0)


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 2**53 - 1) | st.none(), min_size=1, max_size=40),
    st.floats(0, 1), st.floats(0, 1), st.integers(1, 9), st.integers(0, 39),
)  # fmt: skip
def test_an_id_stays_on_its_side(ids: list[int | None], one: float, other: float, number: int, cut: int) -> None:
    small, large = sorted([one, other])
    key = key_of("p", number)
    few, many = (served_by_tried(pa.array(ids, pa.int64()), key, share) for share in (small, large))
    assert (few <= many).all()  # who is served stays served
    assert not many[[i for i, x in enumerate(ids) if x is None]].any()
    # However the rows are cut into chunks, whether there are gaps in one, and whether the id is read as a float.
    parts = [served_by_tried(pa.array(part, pa.int64()), key, small) for part in (ids[:cut], ids[cut:]) if part]
    assert (np.concatenate(parts) == few).all()
    assert (served_by_tried(pa.array(ids, pa.float64()), key, small) == few).all()
    assert not served_by_tried(pa.array(ids, pa.int64()), key, 0.0).any()


@given(st.lists(st.text(), min_size=1, max_size=30), st.floats(0, 1))
def test_text_ids_too(ids: list[str], share: float) -> None:
    one, again = (served_by_tried(pa.array(x, pa.string()), "k", share) for x in (ids, ids[::-1]))
    assert (one == again[::-1]).all()


def test_a_share_is_about_that_part_and_another_version_draws_other_ids() -> None:
    ids = pa.array(range(20_000))
    one, two = (served_by_tried(ids, key_of("p", number), 0.1) for number in (1, 2))
    assert one.mean() == pytest.approx(0.1, abs=0.01)
    assert (one & two).mean() == pytest.approx(0.01, abs=0.004)


def look(windows: list[Evidence], due: int | None = None, rollout: Rollout = ROLLOUT, **rules: Any) -> Look | None:
    return look_at(
        rollout, windows, windows[:due], rules=StepVerdict(**rules), compared=lambda: pytest.fail("not needed"),
        champion=version(1), tried=version(2), data=DATA, evaluate=MAE, performance=Performance(), labelled=True,
    )  # fmt: skip


def test_a_failure_ends_it_before_any_outcome_is_known() -> None:
    found = look([window(1), window(2, failed="no column 'x'")], due=0)
    assert found is not None
    assert (found.kind, found.look, found.spent) == ("end", 0, 0.0)
    assert "it could not score the rows of 2013-01-02 … 2013-01-03: no column 'x' → rolled back" in found.sentence


def test_a_slow_version_falls_and_a_fast_one_is_not_asked_for_its_ratio() -> None:
    found = look([window(1, seconds=(0.1, 2.0))], due=0)
    assert found is not None
    assert (found.kind, found.sentence) == (
        "end", "shadow, 1 window, 400 rows: it took 2 s for these rows, the champion 0.1 s → rolled back",
    )  # fmt: skip
    assert look([window(1, seconds=(0.001, 0.9))], due=0) is None


def test_nothing_new_is_no_look() -> None:
    assert look([window(1), window(2)], due=1, rollout=Rollout(**vars(ROLLOUT) | {"looks": 1})) is None


def test_few_rows_and_few_of_a_class_spend_nothing() -> None:
    y, said = np.zeros(50), np.linspace(0, 1, 50)
    (first,) = judged([(y, said, said + 0.01)], MAE, StepVerdict(min_rows=60))
    assert (first.kind, first.spent, first.verdict) == ("wait", 0.0, "inconclusive")
    assert "50 of 50 rows have an outcome, and 60 rows are needed → waits" in first.sentence
    gates = Evaluate.model_validate({"gates": [{"metric": "roc_auc", "versus": "champion", "not_worse_by": 0.1}]})
    y = (np.arange(200) < 5).astype(int)
    (first,) = judged([(y, np.linspace(0, 1, 200), np.linspace(0, 1, 200) ** 2)], gates, RULES, classes=[0, 1])
    assert (first.kind, first.spent) == ("wait", 0.0)
    assert "class 1 has 5 rows in it, and 30 are needed" in first.sentence


def test_gates_that_are_asked_again() -> None:
    evaluate = Evaluate.model_validate({"gates": [
        {"metric": "mae", "at_most": 1.0},
        {"metric": "mae", "versus": "champion", "better_by": 0.2, "confidence": 0.9},
        {"value": {"callable": "m:f"}, "versus": "champion", "not_worse_by": 1.0},
        {"metric": "r2", "versus": "champion", "not_worse_by": 0.01},
    ]})  # fmt: skip
    first, second = relative_gates(evaluate, version(1), Performance())
    assert (first.not_worse_by, first.better_by, first.confidence) == (0.0, None, 0.9)
    assert second.metric == "r2"
    (default,) = relative_gates(Evaluate(), version(1, [0, 1]), Performance(max_drop=0.02))
    assert (default.metric, default.not_worse_by) == ("roc_auc", 0.02)


def captured(store: LocalStore, day: int, rows: pd.DataFrame) -> Evidence:
    """A window that both versions scored."""
    span = window(day).window
    refs = []
    for number in (2, 1):
        said = rows.assign(prediction=rows.y + number / 10, model_version=number).drop(columns="y")
        refs.append(capture_rows(store, "p", span, said, model_version=number)["capture"])
    return Evidence(span, len(rows), refs[0], refs[1], 0, (1, 1), None)


@pytest.mark.parametrize(("source", "rows", "blocks"), [("all.csv", 300, None), ("day", 500, 300)])
def test_an_outcome_counts_once_and_outcomes_of_one_id_hang_together(
    tmp_path: Path, source: str, rows: int, blocks: int | None
) -> None:
    """Two days with 200 ids in common: with one file of outcomes, or with one for each day."""
    store, lake = LocalStore(tmp_path / "store"), tmp_path / "lake"
    lake.mkdir()
    days = [pd.DataFrame({"id": range(a, b), "y": np.arange(a, b, dtype=float)}) for a, b in ((0, 250), (50, 300))]
    pd.concat(days).to_csv(lake / "all.csv", index=False)
    for number, day in enumerate(days, 1):
        day.to_csv(lake / f"day{number}.csv", index=False)
    both = read_windows(
        store, [captured(store, number, day) for number, day in enumerate(days, 1)], data=DATA,
        labels=Labels(source=source, join_on="id"), files=Files(root=str(lake)),
        labels_of=lambda one: source if source == "all.csv" else f"day{one.window.start.day}.csv",
    )  # fmt: skip
    assert both.outcomes is not None
    assert (len(both.tried), both.outcomes.notna().sum()) == (rows, rows)
    assert (both.tried.prediction - 0.2).tolist() == pytest.approx(both.outcomes.tolist())
    every = np.ones(rows, dtype=bool)
    found = evaluation_of(both, every, both.outcomes, version(1), version(2), (), DATA, Evaluate())
    assert (found.block_count[0] if found.block_count else None) == blocks
    assert found.blocks == ("ids" if blocks else None)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("pipelines/p/rollouts/20130101T000000Z-20130102T000000Z.json", b'{"rollout": 1}')
    with pytest.raises(CorruptObject, match="does not say what a version that rolls out said of a window"):
        read_evidence(store, "p", ROLLOUT)


def test_evidence_is_that_of_the_step_in_the_order_of_its_windows(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    later = Rollout(**vars(ROLLOUT) | {"step": 1})
    for day, rollout in ((3, ROLLOUT), (1, ROLLOUT), (2, later)):
        said = {"pipeline": "p", "version": 2, "window": window(day).window.to_dict(), "failed": "x"}
        write_evidence(store, rollout, window(day).window, said)
    found = read_evidence(store, "p", ROLLOUT)
    assert [one.window.start.day for one in found] == [1, 3]
    assert [one.window.start.day for one in due(found, window(3).window, None)] == [1, 3]
    assert [one.window.start.day for one in due(found, window(3).window, timedelta(days=2))] == [1]
