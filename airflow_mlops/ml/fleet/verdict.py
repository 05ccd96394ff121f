"""The verdicts of a fleet: each key against its gates and its champion, and all comparisons together.

Of 16,000 candidates that are worse than they may be, 5 % pass a gate at 95 % confidence: 800 a night. So what a key
passes by itself is held against all keys of the run by Benjamini & Hochberg's procedure: of the keys that pass, the
expected share that should not is at most the gate's error probability. Where none should, the probability that any
does is at most that, too.

Reference: Benjamini & Hochberg (1995), *JRSS B* 57, 289-300.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.config.models import Evaluate, Gate
from airflow_mlops.exceptions import PromotionConflict, TrainingError
from airflow_mlops.ml.drift import critical_p
from airflow_mlops.ml.fleet.plan import Plan
from airflow_mlops.ml.fleet.result import Row
from airflow_mlops.ml.fleet.shard import read_result
from airflow_mlops.ml.fleet.training import FAILED
from airflow_mlops.ml.gates import follow_up
from airflow_mlops.ml.wear import Wear, stricter
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store.base import Store

NOTE = "gates"


@dataclass(frozen=True)
class Verdicts:
    """What the gates say of all keys of a run.

    :param rows: one for each key, :mod:`airflow_mlops.ml.fleet.result`.
    :param tests: how many keys were compared with a champion.
    :param limit: the largest p-value that passes; ``None`` without comparisons.
    """

    rows: list[Row]
    tests: int
    limit: float | None

    def deliverable(self, evaluate: Evaluate, approval: str) -> tuple[list[Row], bool]:
        """Rows that go on to delivery, and whether a person must be asked first.

        :param approval: as :func:`airflow_mlops.ml.gates.follow_up` takes it.
        """
        found = [(row, follow_up(row["status"], evaluate, approval)) for row in self.rows if "version" in row]
        going = [row for row, (go, _) in found if go]
        return going, any(ask for _, (go, ask) in found if go)


def collect(store: Store, plan: Plan, run: str) -> list[Row]:
    """Return a row for each key of the run: what the shards found, and the keys that no shard has.

    The keys of a shard that has not ended are failed.
    """
    rows: list[Row] = []
    for number, shard in enumerate(plan.shards):
        found = read_result(store, plan.pipeline, run, number)
        if found is None:
            reason = f"its shard did not end: look at fleet.train [{number}]"
            found = [{"key": key, "status": FAILED, "reason": reason} for key in shard.counts]
        rows += [row | {"shard": number} for row in found]
    rows += [{"key": key, "status": FAILED, "reason": why} for key, why in plan.broken.items()]
    for key, (many, parent) in plan.fallback.items():
        if parent == key:
            reason = f"{many:,} rows are too few to train it again: its champion goes on serving"
            rows.append({"key": key, "status": "inconclusive", "reason": reason, "served_by": key})
        else:
            reason = f"{many:,} rows are too few for a model of its own: {parent} serves"
            rows.append({"key": key, "status": "fallback", "reason": reason, "served_by": parent})
    return rows


def check_complete(store: Store, plan: Plan, run: str) -> int:
    """Return how many shards have ended, which is all of them.

    :raises TrainingError: some have not.
    """
    lost = [n for n in range(len(plan.shards)) if read_result(store, plan.pipeline, run, n) is None]
    if lost:
        raise TrainingError(
            f"{len(lost)} of {len(plan.shards)} shards did not end: {', '.join(map(str, lost[:10]))}"
            + (" …" if len(lost) > 10 else ""),
            hint="their keys have no new model, all others went on; clear these tasks of fleet.train, and what follows "
            "them: only what is missing is done",
        )
    return len(plan.shards)


def judge(rows: Iterable[Row], evaluate: Evaluate, wear: Mapping[str, Any] | None) -> Verdicts:
    """Hold what each key passed by itself against all of them.

    :param wear: :attr:`Plan.wear`.
    """
    rows = list(rows)
    tested = [row["p_value"] for row in rows if row.get("p_value") is not None]
    if not tested:
        return Verdicts(rows, 0, None)
    alpha = error_of(evaluate.gates, wear)
    limit = critical_p(tested, alpha, "bh")
    return Verdicts([_over_all(row, limit, len(tested), alpha) for row in rows], len(tested), max(limit, 0.0))


def error_of(gates: Sequence[Gate], wear: Mapping[str, Any] | None) -> float:
    """The smallest error probability of the gates that compare with the champion."""
    left = Wear(**wear) if wear is not None else None
    return min((1 - stricter(gate, left).level for gate in gates if gate.versus is not None), default=0.05)


def _over_all(row: Row, limit: float, tests: int, alpha: float) -> Row:
    if row["status"] != "passed" or row.get("p_value") is None or row["p_value"] <= limit:
        return row
    reason = (
        f"{row['reason']}. By itself it passes (p = {row['p_value']:.2g}), but among {tests:,} comparisons that is no "
        f"evidence: with {alpha:.2g} of those that pass being wrong, p must be at most {max(limit, alpha / tests):.2g}"
    )
    return row | {"status": "inconclusive", "reason": reason}


def note_verdicts(registry: Registry, rows: Iterable[Row], *, operation: str) -> None:
    """Write each version's verdict beside it in the registry: one commit for each shard.

    :param operation: id of this run's verdicts; each shard's commit is named after it.
    """
    for number, part in _by_shard(row for row in rows if "version" in row):
        notes = {row["key"]: (row["version"], NOTE, _note(row)) for row in part}
        registry.annotate_many(notes, op_id=op_id(operation, number))


def _note(row: Row) -> dict[str, Any]:
    note = {"verdict": row["status"], "sentence": row["reason"]}
    # Where later losses are counted from the version itself, that goes without saying.
    return note | ({"next_reference": row["reference"]} if row.get("reference") is not None else {})


def _by_shard(rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Rows by shard: what is committed together, and for good, whatever other shards come to later."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row["shard"], []).append(row)
    yield from sorted(found.items())


def promote_rows(
    registry: Registry,
    rows: Iterable[Row],
    *,
    operation: str,
    reason: str,
    by: str | None,
    window: Any,
) -> tuple[set[str], dict[str, str]]:
    """Make versions the champions of their keys, each if its champion is the one it was compared with.

    One commit for each shard. A repeat promotes nothing of a shard for a second time: what was rolled back since stays
    rolled back.

    :return: keys that were promoted, and of those left out why.
    """
    done: set[str] = set()
    left: dict[str, str] = {}
    for number, part in _by_shard(rows):
        found = registry.promote_many(
            {row["key"]: (row["version"], row["champion"]) for row in part},
            op_id=op_id(operation, number),
            reason=reason,
            by=by,
            window=window,
        )
        for key, what in found.items():
            if isinstance(what, PromotionConflict):
                left[key] = str(what)
            else:
                done.add(key)
        left |= {row["key"]: "an earlier try promoted its shard without it" for row in part if row["key"] not in found}
    return done, left


def retire_absent(registry: Registry, absent: Mapping[str, int], *, after: int, operation: str) -> list[Row]:
    """Retire the champions of keys that had no rows in so many runs in a row; return a row for each.

    :param absent: in how many runs, by key.
    """
    gone = {key for key, runs in absent.items() if runs >= after}
    champions = {str(key): version.number for key, version in registry.champions(gone).items()}
    if not champions:
        return []
    registry.retire_many(
        champions, op_id=operation, reason=f"no row of this key in {after} trainings in a row (fleet.retire_after)"
    )
    return [
        {
            "key": key,
            "status": "retired",
            "reason": f"no row in {absent[key]} trainings in a row: v{number} is retired",
            "champion": number,
        }
        for key, number in champions.items()
    ]
