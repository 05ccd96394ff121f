"""Many processes at once on one local disk."""

from __future__ import annotations

import multiprocessing
import tempfile
from functools import partial
from pathlib import Path

from airflow_mlops.exceptions import PromotionConflict
from airflow_mlops.registry import Registry, op_id
from airflow_mlops.store import LocalStore
from tests.chaos import forks
from tests.chaos.rows import Row

_WAIT = 300.0  # seconds; only where a process died


def promotions(rounds: int = 100, processes: int = 32) -> Row:
    """Each round all of them promote a version of their own, against the same champion."""
    row = Row(f"{processes} processes promoting at once", "rounds", rounds)
    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def promote(path: Path, me: int) -> list[int | None]:
        registry = Registry(LocalStore(path), "churn")
        came: list[int | None] = []
        try:
            for turn in range(rounds):
                champion = registry.champion()
                expected = champion.number if champion else None
                # Never the champion again, which would leave it as the others expect it.
                mine = 1 + me + processes * (turn % 2)
                barrier.wait(_WAIT)
                try:
                    registry.promote(mine, expected=expected, op_id=op_id(turn, me), reason="race")
                    came.append(mine)
                except PromotionConflict:
                    came.append(None)
                barrier.wait(_WAIT)
        except BaseException:
            barrier.abort()
            raise
        return came

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="mlops-chaos-") as folder:
            registry = Registry(LocalStore(folder), "churn")
            for i in range(2 * processes):
                registry.register({}, op_id=op_id("v", i))
            came = forks.together([partial(promote, Path(folder), me) for me in range(processes)])
            _one_winner(row, Registry(LocalStore(folder), "churn"), [[*turn] for turn in zip(*came, strict=True)])
        row.more = f"{row.tried * processes:,} promotions"

    return row.timed(work)


def _one_winner(row: Row, registry: Registry, turns: list[list[int | None]]) -> None:
    log = [r for r in registry.history() if r["action"] == "promote"]
    champion = None
    for turn, came in enumerate(turns):
        row.tried += 1
        winners = [number for number in came if number is not None]
        if len(winners) != 1:
            row.wrong("conflicts" if not winners else "duplicates", f"round {turn} has the winners {winners}")
        in_log = log[turn : turn + 1]
        if [r["version"] for r in in_log] != winners:
            row.wrong("lost", f"round {turn}: {winners} were told that they won, the log has {in_log}")
        elif in_log[0]["replaced"] != champion:
            row.wrong("other", f"round {turn}: a promotion against {in_log[0]['replaced']} replaced {champion}")
        champion = in_log[0]["version"] if in_log else champion
    if len(log) != len(turns):
        row.wrong("other", f"the log has {len(log)} promotions of {len(turns)} rounds")


def copies(operations: int = 1000, processes: int = 4) -> Row:
    """Copies of one task register at the same moment, with the same operation id."""
    row = Row(f"the same operation id from {processes} copies at once", "operations", operations)
    barrier = multiprocessing.get_context("fork").Barrier(processes)

    def register(path: Path, me: int) -> list[int]:
        registry = Registry(LocalStore(path), "churn")
        numbers = []
        try:
            for n in range(operations):
                barrier.wait(_WAIT)
                numbers.append(registry.register({"n": n}, op_id=op_id("copy", n)).number)
        except BaseException:
            barrier.abort()
            raise
        return numbers

    def work() -> None:
        with tempfile.TemporaryDirectory(prefix="mlops-chaos-") as folder:
            done = forks.together([partial(register, Path(folder), me) for me in range(processes)])
            records = [v.record["n"] for v in Registry(LocalStore(folder), "churn").versions()]
        for n, numbers in enumerate(zip(*done, strict=True)):
            row.tried += 1
            if set(numbers) != {n + 1}:
                row.wrong("other", f"operation {n} was answered {numbers}")
        for n in range(operations):
            if n not in records:
                row.wrong("lost", f"operation {n}")
        for _ in range(len(records) - len({*records})):
            row.wrong("duplicates", f"{len(records)} versions of {operations} operations")
        row.more = f"{len(records):,} versions"

    return row.timed(work)
