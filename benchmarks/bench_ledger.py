"""How many retrains are asked for where nothing has changed.

    python benchmarks/bench_ledger.py [alpha|check] [--pipelines 200] [--days 365] [--checked 20] [--rows 1000]

Every pipeline is checked for drift once a day for a year, on data that never changes, with ``retrain.when:
[drift]``, ``confirm: 2 of 3``, no cool-down and no budget. The ledger is the real one, over a store in memory.
A granted training makes a new champion with a reference of its own.

1. **A check that alarms at exactly alpha.** Each of twenty columns alarms with chance alpha / 20, by itself: the
   worst that a check may do that keeps its promise. For all ``--pipelines``, also without ``confirm``, and with a
   check whose alarms have no columns.
2. **The real check**, ``check_drift`` on twenty columns (10 normal, 5 exponential, 5 categorical) with
   ``monitor.drift``'s defaults: ``--rows`` fresh rows a day against the champion's ``--reference`` rows. It takes 0.05
   CPU s a check, so that ``--checked`` pipelines are simulated, and the figure is scaled to all.

Ends with 1 when the first figure with ``confirm``, or the second, is above 20 in 200 × 365 checks.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from airflow_mlops.config.models import Drift, Retrain
from airflow_mlops.exceptions import ObjectExists, ObjectNotFound
from airflow_mlops.ml.drift import check_drift
from airflow_mlops.ml.drift_profile import make_profile
from airflow_mlops.ml.retrain import Ledger
from airflow_mlops.ml.retrain_state import Checked
from airflow_mlops.store.local import LocalStore

ALPHA, COLUMNS, LIMIT = 0.05, 20, 20
CONFIRMED = Retrain(when=["drift"], confirm="2 of 3")
AT_ONCE = Retrain(when=["drift"])
KINDS = {f"n{i}": "number" for i in range(15)} | {f"c{i}": "category" for i in range(5)}

Check = Callable[[], tuple[str, ...] | None]
"""One day's check: the columns that drifted, empty where they have no names; None: no alarm."""


class MemoryStore(LocalStore):
    """As far as a log uses it, in a dict."""

    def __init__(self) -> None:
        self.uri = "file:///memory"
        self.objects: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        """Return the object's bytes."""
        if key not in self.objects:
            raise ObjectNotFound(key)
        return self.objects[key]

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        self.objects[key] = data

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object if the key is free."""
        if key in self.objects:
            raise ObjectExists(key)
        self.objects[key] = data


def year(champion: Callable[[], Check], days: int, config: Retrain) -> tuple[int, int]:
    """One pipeline's alarms and granted requests in ``days`` daily checks.

    :param champion: makes the check of a new champion.
    """
    ledger, check, version, alarms, granted = Ledger(MemoryStore(), "p"), champion(), 1, 0, 0
    for day in range(days):
        at, found = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=day), check()
        checks = {"drift": Checked(f"v{version}", at, found or ())}
        if found is None:
            ledger.note(checks, at=at, op_id=f"note {day}")
            continue
        alarms += 1
        asked = ledger.request(["drift"], evidence=f"{day}", at=at, checks=checks, config=config, op_id=f"ask {day}")
        if asked.grant:
            granted += 1
            claim = ledger.claim(asked.grant, start="retrain", at=at, run=f"{day}", config=config, op_id=f"claim {day}")
            if not claim.go:
                raise RuntimeError(claim.sentence)
            version, check = version + 1, champion()
    return alarms, granted


def at_alpha(rng: np.random.Generator, *, named: bool = True) -> Check:
    """A check that alarms in exactly ``ALPHA`` of all cases, in each column by itself."""
    each = 1 - (1 - ALPHA) ** (1 / COLUMNS)

    def check() -> tuple[str, ...] | None:
        alarmed = np.flatnonzero(rng.random(COLUMNS) < each)
        return (tuple(f"n{i}" for i in alarmed) if named else ()) if len(alarmed) else None

    return check


def rows_of(rng: np.random.Generator, rows: int) -> pd.DataFrame:
    """Rows of the population that never changes."""
    frame: dict[str, Any] = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        if kind == "category":
            frame[name] = rng.choice([*"abcdefg"][: 2 + number % 5], size=rows)
        else:
            frame[name] = rng.normal(size=rows) if number % 3 else rng.exponential(size=rows)
    return pd.DataFrame(frame)


def real(rng: np.random.Generator, *, rows: int, reference: int) -> Check:
    """The real check of a champion that was trained on ``reference`` rows."""
    trained_on, config = make_profile(rows_of(rng, reference), KINDS), Drift()

    def check() -> tuple[str, ...] | None:
        found = check_drift(trained_on, rows_of(rng, rows), KINDS, config)
        return tuple(c.name for c in found.drifted) if found.verdict == "drift" else None

    return check


def _one(seed: int, *, make: Callable[[np.random.Generator], Check], days: int, config: Retrain) -> tuple[int, int]:
    rng = np.random.default_rng(seed)
    return year(lambda: make(rng), days, config)


def simulate(
    make: Callable[[np.random.Generator], Check], pipelines: int, days: int, config: Retrain, *, processes: int = 1
) -> tuple[int, int]:
    """Alarms and granted requests of all pipelines; pipeline n has the seed n."""
    one = partial(_one, make=make, days=days, config=config)
    if processes == 1:
        pairs = [one(seed) for seed in range(pipelines)]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            pairs = pool.map(one, range(pipelines), chunksize=1)
    return sum(a for a, _ in pairs), sum(g for _, g in pairs)


def _lines(options: argparse.Namespace) -> Iterator[tuple[str, int, int, int, bool]]:
    """What, checks, alarms, granted, whether the limit holds for it."""
    checks, days = options.pipelines * options.days, options.days
    run = partial(simulate, processes=options.processes)
    parts = (
        ("at alpha, without confirm", at_alpha, AT_ONCE, False),
        ("at alpha, one thing to alarm about", partial(at_alpha, named=False), CONFIRMED, False),
        (f"at alpha, {COLUMNS} columns", at_alpha, CONFIRMED, True),
    )
    for what, make, config, judged in parts if options.part != "check" else ():
        yield (what, checks, *run(make, options.pipelines, days, config), judged)
    if options.part != "alpha":
        make = partial(real, rows=options.rows, reference=options.reference)
        what = f"check_drift, {options.rows:,} rows against {options.reference:,}"
        yield (what, options.checked * days, *run(make, options.checked, days, CONFIRMED), True)


def main() -> int:
    """Print the table; 1 where the limit does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("alpha", "check", "all"), default="all")
    for name, default in (("pipelines", 200), ("days", 365), ("checked", 20), ("rows", 1000), ("reference", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    missed = False
    print(f"{'check':<44}{'checks':>8}{'alarms':>8}{'rate':>8}{'granted':>9}{'in 73,000':>11}")
    for what, checks, alarms, granted, judged in _lines(options):
        scaled = granted * 200 * 365 / checks
        verdict = ("" if scaled <= LIMIT else "  above 20") if judged else ""
        missed |= bool(verdict)
        print(
            f"{what:<44}{checks:>8,}{alarms:>8,}{alarms / checks:>8.4f}{granted:>9,}{scaled:>11.0f}{verdict}",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
