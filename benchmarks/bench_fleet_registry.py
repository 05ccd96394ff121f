"""What the registry of a fleet of 16,000 models costs: looking one up cold, the overview, and what a night adds to it.

    python benchmarks/bench_fleet_registry.py
    python benchmarks/bench_fleet_registry.py --nights 5 --keys 16000 --scattered

Every night each key is registered, noted and promoted, in shards of 250 keys and one commit each; records are as a
training writes them, models are only named. Lookups are of single keys by fresh registries, in a store that the disk
cache knows. The exit code is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import ObjectExists
from airflow_mlops.registry import Registry
from airflow_mlops.registry.overview import models, overview
from airflow_mlops.store import LocalStore, put_json

SHARD = 250
LOOKUPS = 40


class Unsynced(LocalStore):
    """For building what is measured: no sync, so that it takes seconds; counts the bytes that stay."""

    added = 0

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        file = self.path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            self.added += len(data)
        file.write_bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object if the key is free."""
        if self.exists(key):
            raise ObjectExists(key)
        self.put(key, data)


def shared(night: int) -> dict[str, Any]:
    """What all records of one night have in common."""
    features = [{"name": f"feature_{n}", "kind": "number"} for n in range(40)]
    return {
        "snapshot": {"snapshot": f"{night:064x}", "fingerprint": f"{night:064x}", "rows": 3_200_000},
        "config": {"data": {"target": "delay"}, "features": features},
        "schema": {"features": features},
        "run": {"dag_id": "fleet__train", "run_id": f"scheduled__{night}"},
        "model": {"format": "pack", "prepare": {"format": "skops", "digest": f"{night:064x}", "bytes": 9000}},
    }


def shards(keys: list[str], scattered: bool) -> list[list[str]]:
    """Keys in shards; one after the other in their order, or anyhow."""
    if scattered:
        keys = random.Random(3).sample(keys, len(keys))
    return [keys[first : first + SHARD] for first in range(0, len(keys), SHARD)]


def run(registry: Registry, night: int, parts: list[list[str]], rng: random.Random) -> None:
    """One night, each step over all shards before the next."""
    of = put_json(registry.store, shared(night))
    name, expected = f"night{night}", night - 1 or None
    for n, keys in enumerate(parts):
        pack = hashlib.sha256(f"{night} {n}".encode()).hexdigest()
        records = {
            key: {
                "of": of,
                "model": {
                    "digest": hashlib.sha256(f"{key} {night}".encode()).hexdigest(), "bytes": rng.randint(3000, 4000),
                    "pack": pack, "entry": entry,
                },
                "rows": {"train": rng.randint(150, 250), "holdout": rng.randint(30, 60)},
                "metrics": {"rmse": round(rng.random(), 6)},
                "seconds": round(rng.random(), 3),
            }
            for entry, key in enumerate(keys)
        }  # fmt: skip
        registry.register_many(records, op_id=f"register {name} {n}")
    for n, keys in enumerate(parts):
        notes = {key: (night, "gates", {"verdict": "passed", "p": round(rng.random(), 6)}) for key in keys}
        registry.annotate_many(notes, op_id=f"note {name} {n}")
    for n, keys in enumerate(parts):
        registry.promote_many(dict.fromkeys(keys, (night, expected)), op_id=f"promote {name} {n}", reason="gates")


def main() -> int:
    """Print every figure; return 1 when one is above its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to put the store; default: the temporary folder")
    parser.add_argument("--keys", type=int, default=16_000)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--scattered", action="store_true", help="shards of keys anyhow, not in their order")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-fleet-", dir=args.folder))
    try:
        store, rng = Unsynced(folder), random.Random(1)
        keys = [f"route {i:05}/{'out' if i % 2 else 'back'}" for i in range(args.keys)]
        registry = Registry(store, "fleet")
        for night in range(1, args.nights + 1):
            store.added, began = 0, time.process_time()
            run(registry, night, shards(keys, args.scattered), rng)
            grown, spent = store.added / args.keys, time.process_time() - began
        took = []
        for key in rng.sample(keys, LOOKUPS):
            fresh, began = Registry(LocalStore(folder), "fleet"), time.perf_counter()
            found = fresh.champion(key)
            took.append(time.perf_counter() - began)
            if found is None or found.number != args.nights:
                sys.exit(f"the champion of {key} is {found}")
        began = time.perf_counter()
        if len(models(LocalStore(folder), "fleet")) != args.keys:
            sys.exit("models are missing")
        listed = time.perf_counter() - began
        overview(store)
        began = time.perf_counter()
        overview(LocalStore(folder))
        seen = time.perf_counter() - began
        wall = max(took)
    finally:
        shutil.rmtree(folder)
    figures = [
        (f"champion of one key of {args.keys:,}, cold (p50 of {LOOKUPS})", statistics.median(took) * 1e3, 20, "ms"),
        (f"list {args.keys:,} keys and their champions, cold", listed * 1e3, 200, "ms"),
        ("overview of the store", seen * 1e3, 20, "ms"),
        (f"what night {args.nights} adds, without models, a key", grown, 600, "bytes"),
    ]
    if args.json:
        print(json.dumps({name: round(value, 1) for name, value, _, _ in figures}))
    else:
        for name, value, target, unit in figures:
            verdict = "ok" if value <= target else "MISSED"
            print(f"{name:56} {value:7.1f} {unit:5} target {target:4} {verdict}")
        print(f"{'slowest lookup':56} {wall * 1e3:7.1f} ms")
        print(f"{'CPU of the night, for all commits':56} {spent:7.1f} s")
    return int(any(value > target for _, value, target, _ in figures))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
