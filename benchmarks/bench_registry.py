"""What the registry costs on a local disk: registering, listing, the overview of a store, importing it.

    python benchmarks/bench_registry.py
    python benchmarks/bench_registry.py --folder /data --registrations 1000

Registering is the model's blob and the commit, synced to disk as always. Listing and overview are
measured in fresh processes, their imports included, in a store that the disk cache knows. The exit code
is 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from airflow_mlops.exceptions import ObjectExists
from airflow_mlops.registry import Registry
from airflow_mlops.registry.overview import overview
from airflow_mlops.store import LocalStore, layout, put_blob

MODEL = 1 << 20
VERSIONS = 10_000
MODELS = 1_000
EACH = 50
PROCESSES = 7

LISTING = """
from airflow_mlops.registry import Registry
found = len(Registry(LocalStore(folder), "churn").versions())
"""
OVERVIEW = """
from airflow_mlops.registry.overview import overview
found = len(overview(LocalStore(folder)))
"""
FLEET = """
from airflow_mlops.registry.overview import models
found = len(models(LocalStore(folder), "fleet"))
"""
IMPORT = """
import airflow_mlops.registry
from airflow_mlops.registry import Registry
found = 0
"""


class Unsynced(LocalStore):
    """For building what is measured: no sync, so that it takes seconds."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        file = self.path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object if the key is free."""
        if self.exists(key):
            raise ObjectExists(key)
        self.put(key, data)


def record(i: int) -> dict[str, object]:
    """A record of the usual size."""
    return {
        "model": {"format": "skops", "digest": f"{i:064x}", "bytes": MODEL},
        "metrics": {"roc_auc": 0.7 + i % 100 / 1000, "log_loss": 0.5},
        "schema": {"features": [{"name": f"feature_{n}", "kind": "number"} for n in range(40)]},
        "snapshot": {"fingerprint": f"{i:064x}", "rows": 100_000},
    }


def registering(folder: Path, count: int) -> list[float]:
    """Seconds of each registration of a new 1 MB model."""
    store = LocalStore(folder)
    registry = Registry(store, "churn")
    took = []
    for i in range(count):
        model = os.urandom(MODEL)
        start = time.perf_counter()
        put_blob(store, model)
        registry.register(record(i), op_id=f"op{i}")
        took.append(time.perf_counter() - start)
    return took


def disk(folder: Path) -> float:
    """Median seconds that this disk, as busy as it is, takes to sync 4 kB: a registration waits for several."""
    took = []
    with (folder / "probe").open("wb") as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took)


def build(folder: Path) -> None:
    """One model of 10,000 versions, a fleet of 1,000 keys with 50 each, and 1,000 pipelines with 50 each."""
    one = Registry(Unsynced(folder / "listing"), "churn")
    for i in range(VERSIONS):
        one.register(record(i), op_id=f"op{i}")
    fleet = Registry(Unsynced(folder / "fleet"), "fleet")
    for i in range(EACH):
        fleet.register_many({f"K{k:04}": {"metrics": {"roc_auc": 0.7}} for k in range(MODELS)}, op_id=f"op{i}")
    store = Unsynced(folder / "overview")
    first = Registry(store, "p0000")
    for i in range(EACH):
        first.register(record(i), op_id=f"op{i}")
    first.promote(EACH, expected=None, op_id="promote", reason="best")
    log = store.path / layout.log_prefix("p0000")
    for n in range(1, MODELS):
        # Entries do not name their pipeline; the hint does, and can be missing.
        store.put(layout.pipeline_name(f"p{n:04}"), b"{}")
        other = store.path / layout.log_prefix(f"p{n:04}")
        other.mkdir(parents=True)
        for file in log.glob("*.json"):
            os.link(file, other / file.name)
    overview(store)


def cold(code: str, folder: Path) -> tuple[float, int]:
    """Median seconds in fresh processes, and what was found."""
    script = (
        "import sys, time\nstart = time.perf_counter()\n"
        + (f"from airflow_mlops.store import LocalStore\nfolder = {str(folder)!r}\n" if code is not IMPORT else "")
        + code
        + "print(time.perf_counter() - start, found, 'pandas' in sys.modules or 'boto3' in sys.modules)"
    )
    took, found = [], "0"
    for _ in range(PROCESSES):
        reply = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        seconds, found, heavy = reply.split()
        if heavy == "True":
            sys.exit(f"something heavy was imported by: {code}")
        took.append(float(seconds))
    return statistics.median(took), int(found)


def main() -> int:
    """Print every figure; return 1 when one is above its target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to put the stores; default: the temporary folder")
    parser.add_argument("--registrations", type=int, default=250)
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-registry-", dir=args.folder))
    try:
        sync = disk(folder)
        took = registering(folder / "registering", args.registrations)
        build(folder)
        listing, found = cold(LISTING, folder / "listing")
        if found != VERSIONS:
            sys.exit(f"{found} versions were listed, not {VERSIONS}")
        project, found = cold(OVERVIEW, folder / "overview")
        if found != MODELS:
            sys.exit(f"{found} pipelines were found, not {MODELS}")
        fleet, found = cold(FLEET, folder / "fleet")
        if found != MODELS:
            sys.exit(f"{found} models were found, not {MODELS}")
        figures = [
            (f"register a 1 MB model (p50 of {args.registrations})", statistics.median(took), 0.025),
            (f"list {VERSIONS:,} versions", listing, 0.2),
            (f"overview of {MODELS:,} pipelines x {EACH} versions", project, 0.2),
            (f"overview of {MODELS:,} keys x {EACH} versions", fleet, 0.2),
            ("import airflow_mlops.registry", cold(IMPORT, folder)[0], 0.1),
        ]
    finally:
        shutil.rmtree(folder)
    if args.json:
        print(json.dumps({name: round(seconds * 1000, 1) for name, seconds, _ in figures}))
    else:
        for name, seconds, target in figures:
            verdict = "ok" if seconds <= target else "MISSED"
            print(f"{name:48} {seconds * 1000:7.1f} ms   target {target * 1000:4.0f} ms  {verdict}")
        print(f"{'register, p95':48} {statistics.quantiles(took, n=20)[-1] * 1000:7.1f} ms")
        print(f"{'one sync of 4 kB on this disk':48} {sync * 1000:7.1f} ms")
    return int(any(seconds > target for _, seconds, target in figures))


if __name__ == "__main__":
    sys.exit(main())
