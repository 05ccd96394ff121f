"""How often a drift check is wrong, what it finds, and what it costs.

    python benchmarks/bench_drift.py                       everything; half an hour or more on two cores
    python benchmarks/bench_drift.py errors power          some of: errors, power, correlated, speed, stream
    python benchmarks/bench_drift.py --scale 0.1           a tenth of the simulation runs
    python benchmarks/bench_drift.py speed --rows 200000

Simulated are checks of 20 mixed columns (numbers of several shapes, gaps, categories, booleans, dates) with
the defaults of ``monitor.drift``. Costs are CPU seconds of one thread, in processes of their own, and the
memory at its peak above that of the data. The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import signal, stats
from scipy.spatial.distance import jensenshannon

from airflow_mlops.config.models import Drift
from airflow_mlops.ml.drift import DriftReport, check_drift
from airflow_mlops.ml.drift_profile import Profile, make_profile

ALPHA = 0.05
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "DO_NOT_TRACK": "1"}  # the last is Evidently's
PARTS = ("errors", "power", "correlated", "speed", "stream")
KINDS = (
    {f"n{i}": "number" for i in range(11)}
    | {f"c{i}": "category" for i in range(5)}
    | {"b0": "boolean", "b1": "boolean", "gaps": "number", "when": "datetime"}
)
LABELS = {k: np.array([f"k{i}" for i in range(k)], dtype=object) for k in (3, 5, 10, 50, 300)}

Rng = np.random.Generator


def mixed(rng: Rng, rows: int) -> dict[str, Any]:
    """Twenty columns of one population."""
    columns: dict[str, Any] = {f"n{i}": rng.normal(size=rows) for i in range(5)}
    columns["n5"] = rng.lognormal(size=rows)
    columns["n6"] = rng.integers(0, 6, rows)
    columns["n7"] = np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(3, rows))
    columns["n8"] = rng.standard_t(2, rows)
    columns["n9"] = rng.random(rows)
    columns["n10"] = rng.exponential(size=rows).round(2)
    for name, (k, labels) in zip(("c0", "c1", "c2", "c3", "c4"), LABELS.items(), strict=True):
        # The first category has 10 % of the rows, the others share the rest.
        codes = np.where(rng.random(rows) < 0.1, 0, rng.integers(1, k, rows))
        columns[name] = labels[codes]
    columns["b0"], columns["b1"] = rng.random(rows) < 0.5, rng.random(rows) < 0.05
    columns["gaps"] = np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows))
    seconds = rng.integers(0, 86_400 * 365, rows)
    columns["when"] = np.datetime64("2024-01-01") + seconds.astype("timedelta64[s]")
    return columns


def frame(rng: Rng, rows: int, change: Callable[[Rng, dict[str, Any]], None] | None = None) -> pd.DataFrame:
    """Rows of the population, or of a changed one."""
    columns = mixed(rng, rows)
    if change is not None:
        change(rng, columns)
    return pd.DataFrame(columns)


# --- error rates -----------------------------------------------------------------------------------


class Table:
    """Prints lines as they come and remembers whether all targets held."""

    def __init__(self) -> None:
        self.holds = True

    def line(self, what: str, found: str, target: str, holds: bool) -> None:
        """One line of the table."""
        self.holds &= holds
        print(f"| {what} | {found} | {target} | {'holds' if holds else 'MISSED'} |", flush=True)


def rate(runs: int, run: Callable[[], bool]) -> tuple[int, int]:
    """In how many of ``runs`` it came true."""
    return sum(run() for _ in range(runs)), runs


def errors(table: Table, scale: float) -> None:
    """Alarms without drift."""
    rng = np.random.default_rng(1)
    sides = [(30, 2000), (100, 2000), (1000, 2000), (10_000, 2000), (100_000, 200), (1_000_000, 20)]
    for rows, runs in sides:
        silent(table, rng, f"{rows:,} and {rows:,} rows", max(int(runs * scale), 10),
               lambda n=rows: (make_profile(frame(rng, n), KINDS), frame(rng, n)))  # fmt: skip
    for reference, current, runs in ((1000, 100, 1000), (30, 10_000, 500), (100_000, 30, 1000), (1_000_000, 1000, 500)):
        # One large reference serves fifty checks; a profile is what a check sees of it.
        held: list[Profile] = []

        def pair(n: int = reference, m: int = current, held: list[Profile] = held) -> tuple[Profile, pd.DataFrame]:
            if n < 100_000 or not held or rng.random() < 0.02:
                held[:] = [make_profile(frame(rng, n), KINDS)]
            return held[0], frame(rng, m)

        silent(table, rng, f"{reference:,} reference and {current:,} current rows", max(int(runs * scale), 10), pair)
    silent(table, rng, "10,000 categories, 2,000 and 2,000 rows", max(int(500 * scale), 10),
           lambda: (make_profile(many(rng), {"c": "category"}), many(rng)))  # fmt: skip


def many(rng: Rng) -> pd.DataFrame:
    """One column of very many categories."""
    return pd.DataFrame({"c": rng.integers(0, 10_000, 2000).astype(str)})


def silent(table: Table, rng: Rng, what: str, runs: int, pair: Callable[[], tuple[Profile, pd.DataFrame]]) -> None:
    """A line on the alarms of identical sides."""

    def run() -> bool:
        reference, current = pair()
        return (
            check_drift(reference, current, {n: KINDS.get(n, "category") for n in current}, Drift()).verdict == "drift"
        )

    alarms, n = rate(runs, run)
    limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / n)
    table.line(f"identical, {what}", f"{alarms} alarms in {n}: {alarms / n:.2%}", f"≤ {limit:.2%}", alarms / n <= limit)


# --- power -----------------------------------------------------------------------------------------


def shifted(by: float) -> Callable[[Rng, dict[str, Any]], None]:
    """Move one normal column by so many σ."""

    def change(rng: Rng, columns: dict[str, Any]) -> None:
        columns["n0"] = columns["n0"] + by

    return change


def nulls(rng: Rng, columns: dict[str, Any]) -> None:
    """A tenth of one column goes missing."""
    columns["n0"] = np.where(rng.random(len(columns["n0"])) < 0.1, np.nan, columns["n0"])


def share(name: str) -> Callable[[Rng, dict[str, Any]], None]:
    """Ten points more of the category that had ten."""

    def change(rng: Rng, columns: dict[str, Any]) -> None:
        values = columns[name].copy()
        others = values != "k0"
        values[others & (rng.random(len(values)) < 0.1 / 0.9)] = "k0"
        columns[name] = values

    return change


def power(table: Table, scale: float) -> None:
    """What is found, and what has to stay silent."""
    rng = np.random.default_rng(2)
    cases = [
        ("0.2 σ in one of 20 columns", shifted(0.2), "n0", 1000, 1000, 0.75),
        ("0.2 σ in one of 20 columns", shifted(0.2), "n0", 10_000, 300, 0.99),
        ("0.2 σ in one of 20 columns", shifted(0.2), "n0", 100_000, 30, 0.99),
        ("nulls 0 → 10 %", nulls, "n0", 1000, 500, 0.99),
        ("nulls 0 → 10 %", nulls, "n0", 10_000, 100, 0.99),
        ("share 10 → 20 % of one of 5 categories", share("c1"), "c1", 1000, 1000, 0.99),
        ("share 10 → 20 % of one of 300 categories", share("c4"), "c4", 1000, 1000, 0.99),
        ("share 10 → 20 % of one of 300 categories", share("c4"), "c4", 10_000, 100, 0.99),
    ]
    for what, change, name, rows, runs, target in cases:
        runs = max(int(runs * scale), 10)

        def run(change: Any = change, name: str = name, rows: int = rows) -> bool:
            return name in names(check_drift(frame(rng, rows), frame(rng, rows, change), KINDS, Drift()))

        found, n = rate(runs, run)
        table.line(
            f"{what}, {rows:,} rows a side", f"found in {found / n:.1%} of {n}", f"≥ {target:.0%}", found / n >= target
        )
    runs = max(int(10 * scale), 2)
    found, n = rate(
        runs, lambda: bool(names(check_drift(frame(rng, 10**6), frame(rng, 10**6, shifted(0.05)), KINDS, Drift())))
    )
    table.line("0.05 σ, 1,000,000 rows a side", f"{found} alarms in {n}", "none", found == 0)


def names(report: DriftReport) -> set[str]:
    """The columns that drifted."""
    return {c.name for c in report.drifted}


# --- rows that hang together -------------------------------------------------------------------------


def ar1(rng: Rng, rows: int, phi: float = 0.9) -> np.ndarray:
    """Standard normal values, each ``phi`` times the one before plus noise."""
    noise = rng.normal(size=rows + 200)
    found: np.ndarray = signal.lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise)[200:]
    return found


def together(rng: Rng, rows: int) -> pd.DataFrame:
    """Twenty columns, all of which follow the row before."""
    columns: dict[str, Any] = {f"n{i}": ar1(rng, rows) for i in range(9)}
    columns["n9"], columns["n10"] = np.exp(ar1(rng, rows)), ar1(rng, rows).round(1)
    for name, (k, labels) in zip(("c0", "c1", "c2", "c3", "c4"), LABELS.items(), strict=True):
        columns[name] = labels[np.minimum((stats.norm.cdf(ar1(rng, rows)) * k).astype(int), k - 1)]
    columns["b0"], columns["b1"] = ar1(rng, rows) > 0, ar1(rng, rows) > 1.6
    columns["gaps"] = np.where(ar1(rng, rows) > 1.3, np.nan, ar1(rng, rows))
    columns["when"] = np.datetime64("2024-01-01") + (ar1(rng, rows) * 86_400).astype("timedelta64[s]")
    return pd.DataFrame(columns)


def correlated(table: Table, scale: float) -> None:
    """Alarms without drift where every row is like the one before."""
    rng = np.random.default_rng(3)
    for reference, current, runs in (
        (300, 300, 500),
        (10_000, 300, 500),
        (1000, 1000, 500),
        (10_000, 1000, 500),
        (10_000, 10_000, 300),
        (100_000, 100_000, 30),
    ):
        runs = max(int(runs * scale), 10)
        alarms, n = rate(
            runs,
            lambda n=reference, m=current: (
                check_drift(together(rng, n), together(rng, m), KINDS, Drift()).verdict == "drift"
            ),
        )
        limit = ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / n)
        table.line(
            f"AR(1), φ = 0.9, {reference:,} and {current:,} rows",
            f"{alarms} alarms in {n}: {alarms / n:.2%}",
            f"≤ {limit:.2%}",
            alarms / n <= limit,
        )


# --- costs -----------------------------------------------------------------------------------------


def costly(rng: Rng, rows: int) -> pd.DataFrame:
    """15 columns of numbers, 5 of categories."""
    columns: dict[str, Any] = {f"n{i}": rng.normal(size=rows) for i in range(15)}
    for i, k in enumerate((5, 10, 20, 50, 100)):
        columns[f"c{i}"] = pd.Categorical.from_codes(rng.integers(0, k, rows), [f"k{j}" for j in range(k)]).astype(str)
    return pd.DataFrame(columns)


def kinds_of(columns: Any) -> dict[str, str]:
    """Kinds by the first letter."""
    return {c: "number" if c[0] == "n" else "category" for c in columns}


def plain(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Wasserstein distance and Jensen–Shannon distance, nothing else: what any check has to compute."""
    for name, kind in kinds_of(reference).items():
        if kind == "number":
            a, b = np.sort(reference[name].to_numpy()), np.sort(current[name].to_numpy())
            both = np.sort(np.concatenate([a, b]), kind="stable")
            cdf = [np.searchsorted(side, both[:-1], "right") / len(side) for side in (a, b)]
            float(np.sum(np.abs(cdf[0] - cdf[1]) * np.diff(both)))
        else:
            shares = pd.concat([side[name].value_counts(normalize=True) for side in (reference, current)], axis=1)
            jensenshannon(*shares.fillna(0).to_numpy().T)


def evidently(reference: pd.DataFrame, current: pd.DataFrame) -> None:
    """Evidently's own choice of tests."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    kinds = kinds_of(reference)
    definition = DataDefinition(
        numerical_columns=[c for c, k in kinds.items() if k == "number"],
        categorical_columns=[c for c, k in kinds.items() if k == "category"],
    )
    sides = [Dataset.from_pandas(side, data_definition=definition) for side in (reference, current)]
    Report([DataDriftPreset()]).run(sides[1], sides[0]).dict()


def measured(way: str, rows: int, path: str) -> dict[str, float]:
    """In this process: CPU seconds, and MB at the peak above the data."""
    rng = np.random.default_rng(4)
    if way == "stream":
        profile = Profile.from_dict(json.loads(Path(path, "profile.json").read_text()))
        work: Callable[[], object] = lambda: check_drift(  # noqa: E731
            profile, batches(Path(path, "current.parquet")), kinds_of(profile.columns), Drift()
        )
        batches_of_one = next(batches(Path(path, "current.parquet")))
        check_drift(profile, batches_of_one, kinds_of(profile.columns), Drift())  # what is loaded at the first call
        del batches_of_one
    else:
        small, reference, current = costly(rng, 1000), costly(rng, rows), costly(rng, rows)
        kinds = kinds_of(reference)
        if way == "plain":
            work = lambda: plain(reference, current)  # noqa: E731
            plain(small, small)
        elif way == "evidently":
            work = lambda: evidently(reference, current)  # noqa: E731
            evidently(small, small)
        elif way == "rows":
            work = lambda: check_drift(reference, current, kinds, Drift())  # noqa: E731
            check_drift(small, small, kinds, Drift())
        else:
            profile = make_profile(reference, kinds)
            del reference
            work = lambda: check_drift(profile, current, kinds, Drift())  # noqa: E731
    before, began = peak(reset=True), time.process_time()
    work()
    return {"cpu": time.process_time() - began, "mb": peak() - before}


def batches(path: Path) -> Iterator[pd.DataFrame]:
    """The rows of a Parquet file."""
    with pq.ParquetFile(path, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(2**16):
            yield batch.to_pandas()


def peak(*, reset: bool = False) -> float:
    """MB of this process at its peak; ``reset``: of now, from which the peak is counted anew (Linux)."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def elsewhere(way: str, rows: int, path: str = "") -> dict[str, float]:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", way, "--rows", str(rows), "--path", path],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(table: Table, rows: int) -> None:
    """CPU and memory of one check."""
    found = {way: elsewhere(way, rows) for way in ("plain", "rows", "profile", "evidently")}
    size = f"{rows:,} × 20"

    def line(what: str, way: str, target: str, holds: bool) -> None:
        table.line(f"{size}, {what}", f"{found[way]['cpu']:.2f} CPU s, {found[way]['mb']:.0f} MB", target, holds)

    ours, kept, theirs, least = (found[way]["cpu"] for way in ("rows", "profile", "evidently", "plain"))
    line("numpy's W1 and JS alone", "plain", "", True)
    line("Evidently's DataDriftPreset", "evidently", "", True)
    fast = theirs / ours >= 20 and ours <= 4 * least and found["rows"]["mb"] <= 150
    line(
        f"check of two frames: {theirs / ours:.0f} × faster, {ours / least:.2f} × numpy",
        "rows",
        "≥ 20 × faster, ≤ 4 × numpy, ≤ 150 MB",
        fast,
    )
    line(
        f"against a stored profile: {kept / least:.2f} × numpy, {kept / ours:.2f} of the check of two frames",
        "profile",
        "≤ 4/3 × numpy",
        kept <= 4 / 3 * least,
    )


def stream(table: Table, rows: int) -> None:
    """A check whose current side is read from Parquet in batches: one size, and five times that."""
    rng = np.random.default_rng(5)
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as name:
        folder = Path(name)
        for n in (rows, 5 * rows):
            writer: pq.ParquetWriter | None = None
            for first in range(0, n, 500_000):
                part = costly(rng, min(500_000, n - first))
                if first == 0:
                    kinds = kinds_of(part)
                    (folder / "profile.json").write_text(json.dumps(make_profile(part, kinds).to_dict()))
                arrow = pa.Table.from_pandas(part, preserve_index=False)
                writer = writer or pq.ParquetWriter(folder / "current.parquet", arrow.schema)
                writer.write_table(arrow, row_group_size=2**17)
            if writer is not None:
                writer.close()
            found.append(elsewhere("stream", n, name))
    small, large = found
    table.line(f"{rows:,} × 20 from Parquet", f"{small['cpu']:.2f} CPU s, {small['mb']:.0f} MB", "", True)
    table.line(
        f"{5 * rows:,} × 20 from Parquet: {large['cpu'] / small['cpu']:.2f} × the time",
        f"{large['cpu']:.2f} CPU s, {large['mb']:.0f} MB",
        "≤ 6 × the time, ≤ 50 MB more",
        large["cpu"] <= 6 * small["cpu"] and large["mb"] <= small["mb"] + 50,
    )


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description="Error rates, power and costs of the drift check.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help=f"default: all of {', '.join(PARTS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of simulation runs")
    parser.add_argument("--rows", type=int, default=1_000_000, help="for speed and stream")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.measure, options.rows, options.path)))
        return 0
    table = Table()
    print("| What | Found | Target | |\n|---|---|---|---|")
    for part in options.parts or PARTS:
        if part in ("speed", "stream"):
            globals()[part](table, options.rows)
        else:
            globals()[part](table, options.scale)
    return 0 if table.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
