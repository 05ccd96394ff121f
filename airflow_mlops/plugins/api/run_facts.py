"""The tables of the run page: data, code, model, prediction and cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from airflow_mlops.plugins.api.models import Fact
from airflow_mlops.registry.provenance import delivered_text

_SHORT = 12


def data(record: dict[str, Any], evaluation: dict[str, Any], run: dict[str, Any] | None) -> Iterator[Fact]:
    """The rows that a version learned from.

    :param evaluation: the version's note; ``run``: the run's own window.
    """
    snapshot, rows = record.get("snapshot") or {}, record.get("rows") or {}
    if window := snapshot.get("window"):
        span = f"{window['start']} to {window['end']}, end excluded"
        yield Fact(name="rows of", value=f"{span}{_further(record, window, run)}")
    if snapshot.get("rows") is not None:
        yield Fact(name="rows", value=f"{snapshot['rows']:,}")
    if snapshot.get("columns") is not None:
        yield Fact(name="columns", value=f"{snapshot['columns']:,}")
    if rows.get("train") is not None:
        yield Fact(name="for training", value=f"{rows['train']:,}")
        yield Fact(name="held out", value=f"{rows['holdout']:,}")
    if blocks := evaluation.get("blocks"):
        yield Fact(name="independent units of the holdout", value=str(blocks))
    for name in ("snapshot", "fingerprint"):
        if snapshot.get(name):
            yield Fact(name=name, value=str(snapshot[name]))
    if sentence := (snapshot.get("validation") or {}).get("sentence"):
        yield Fact(name="validation", value=str(sentence))


def code(record: dict[str, Any], bundle: str | None) -> Iterator[Fact]:
    """What a version was trained by; ``bundle`` is the version of the run's DAG bundle."""
    found = record.get("code") or {}
    if found.get("delivered"):
        yield Fact(name="delivered", value=delivered_text(found["delivered"]))
    if found.get("git") and found["git"] != "unknown":
        yield Fact(name="commit", value=str(found["git"]))
    for path, digest in sorted((found.get("files") or {}).items()):
        yield Fact(name=path.rpartition("/")[2], value=f"sha256 {str(digest)[:_SHORT]}")
    if bundle:
        yield Fact(name="DAG bundle", value=bundle)


def model(record: dict[str, Any]) -> Iterator[Fact]:
    """What a version is."""
    made = record.get("model") or {}
    if record.get("estimator"):
        yield Fact(name="made by", value=str(record["estimator"]))
    if record.get("seed") is not None:
        yield Fact(name="seed", value=str(record["seed"]))
    if record.get("config_hash"):
        yield Fact(name="configuration", value=f"sha256 {str(record['config_hash'])[:_SHORT]}")
    if made.get("digest"):
        yield Fact(name="file", value=f"{made.get('format')} sha256 {str(made['digest'])[:_SHORT]}")
    if made.get("bytes") is not None:
        yield Fact(name="size", value=f"{made['bytes'] / 1e6:,.2f} MB")
    for warning in record.get("warnings") or ():
        yield Fact(name="warning", value=str(warning))


def scored(results: Iterable[dict[str, Any]]) -> Iterator[Fact]:
    """What a run of batch inference wrote."""
    for result in results:
        yield Fact(name="rows", value=f"{result.get('rows', 0):,}")
        yield Fact(name="output", value=str(result.get("output") or ""))
        if rollout := result.get("rollout"):
            yield Fact(name="rolling out", value=f"v{rollout.get('version')}, {rollout.get('step')}")
        if job := result.get("job"):
            took = "" if job["seconds"] is None else f", {job['seconds']:,.0f} s"
            yield Fact(name="job", value=f"{job['name']} on {job['instances']} × {job['instance_type']}{took}")


def cost(costs: Iterable[dict[str, Any]]) -> Iterator[Fact]:
    """What each task took."""
    for one in costs:
        took = f"{one['wall_seconds']:,.1f} s, {one['cpu_seconds']:,.1f} s of processor time"
        yield Fact(name=str(one.get("task", "")), value=f"{took}, {one['peak_mb']:,.0f} MB")


def _further(record: dict[str, Any], rows: dict[str, Any], run: dict[str, Any] | None) -> str:
    """Why the rows are of a longer time than the run is about; empty where they are not."""
    if run is None or datetime.fromisoformat(rows["start"]) >= datetime.fromisoformat(run["start"]):
        return ""
    history = ((record.get("config") or {}).get("data") or {}).get("window")
    return f": data.window ({history}) reaches back from the end of the run's own window" if history else ""
