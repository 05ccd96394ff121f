"""A fleet in a store, as the steps of its trainings leave it, for tests of the pages' API and a look in a browser."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_mlops.ml.fleet.carried import carry_on, earlier
from airflow_mlops.ml.fleet.result import count, put_table, save_result, sentence
from airflow_mlops.registry import Registry
from airflow_mlops.store import LocalStore, put_json

NOW = datetime(2026, 11, 27, 6, tzinfo=UTC)
STATES = ("failed", "rejected", "inconclusive")


def night(
    store: LocalStore,
    number: int,
    *,
    name: str = "routes",
    keys: int = 12,
    shard: int = 5,
    at: datetime = NOW,
    due: list[str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Train, judge and promote, in shards; of every twelve keys one fails, one is rejected, one is undecided.

    :param due: the keys to train; default: all.
    :return: what the run came to.
    """
    registry, run_id = Registry(store, name), f"night_{number}"
    run = {"dag_id": f"{name}__train", "run_id": run_id}
    window = {"start": "2026-10-01T00:00:00+00:00", "end": "2026-11-01T00:00:00+00:00"}
    snapshot = {
        "snapshot": "a" * 64,
        "fingerprint": f"{number:064x}",
        "rows": 200 * keys,
        "columns": 9,
        "window": window,
    }
    about = {"owner": "ops", "description": "A route, a model."}
    model = {"format": "pack", "prepare": {"format": "skops", "digest": f"{number:064x}", "bytes": 9000}}
    of = put_json(store, {"snapshot": snapshot, "run": run, "about": about, "model": model, "estimator": "Ridge",
                          "code": {"git": "c0ffee" * 6}})  # fmt: skip
    before = {str(k): v.number for k, v in registry.champions().items()}
    every = [f"r{n:05d}" for n in range(keys)]
    rows: list[dict[str, Any]] = []
    for place, key in enumerate(every):
        if due is not None and key not in due:
            continue
        state = STATES[place % 12] if place % 12 < len(STATES) else "passed" if key in before else "no_baseline"
        r2 = 0.5 + 0.4 * (place % 97) / 97
        row = {"key": key, "shard": place // shard, "status": state, "reason": f"{state}: r2 {r2:.3f}",
               "champion": before.get(key)}  # fmt: skip
        if state != "failed":
            row |= {"train_rows": 160, "holdout_rows": 40, "seconds": 0.01, "metrics": {"r2": r2}}
            if key in before:
                row |= {"p_value": 0.01, "champion_metrics": {"r2": r2 - 0.01}}
        rows.append(row)
    made: dict[str, int] = {}
    for part in sorted({row["shard"] for row in rows}):
        records = {
            row["key"]: {
                "of": of,
                "model": {"digest": f"{number:064x}", "bytes": 900, "pack": f"{number:064x}", "entry": 0},
                "rows": {"train": 160, "holdout": 40},
                "metrics": row["metrics"],
            }
            for row in rows
            if row["shard"] == part and "metrics" in row
        }
        made |= {k: v.number for k, v in registry.register_many(records, op_id=f"{name} r{number} {part}").items()}
    for row in rows:
        row |= {"version": made[row["key"]]} if row["key"] in made else {}
    notes = {
        r["key"]: (r["version"], "gates", {"verdict": r["status"], "sentence": r["reason"]})
        for r in rows if "version" in r
    }  # fmt: skip
    registry.annotate_many(notes, op_id=f"{name} g{number}")
    going = {r["key"]: (r["version"], r["champion"]) for r in rows if r["status"] in ("passed", "no_baseline")}
    registry.promote_many(going, op_id=f"{name} p{number}", reason=f"gates of the run {run_id}")
    rows = [row | {"promoted": row["key"] in going} for row in rows]
    counts = count(rows, not_due=keys - len(rows))
    tests = sum("p_value" in row for row in rows)
    table, not_due = put_table(store, rows), [key for key in every if due is not None and key not in due]
    carried = carry_on(store, table, earlier(store, name, run["dag_id"], run_id), not_due=not_due, absent=())
    result = {
        **(carried if not more.get("rehearsal") else {}),
        "sentence": sentence(counts), "counts": counts, "table": table, "report": "e" * 64,
        **run, "started_at": (at - timedelta(minutes=5)).isoformat(), "window": window, "rows": 200 * keys,
        "absent": {}, "keys": keys, "tests": tests, "limit": 0.04 if tests else None, "rehearsal": False,
        "replay": None, "of": of,
        "about": about, "gated": True, "validated": True, "delivered": False, "decided_at": at.isoformat(),
        "promoted_at": (at + timedelta(seconds=5)).isoformat(),
        "cost": {"wall_seconds": 60.0, "cpu_seconds": 90.0, "peak_mb": 300.0},
    }  # fmt: skip
    save_result(store, name, f"{number:064x}", result | more)
    return result | more
