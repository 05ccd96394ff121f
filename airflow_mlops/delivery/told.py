"""What the training of a pipeline came to, in words."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_mlops.delivery.record import Trial, count
from airflow_mlops.delivery.tasks import SHOWN


def trained(trial: Trial) -> Iterator[str]:
    """What a training came to, in words; of a fleet, the keys that failed besides."""
    name, after = trial.change.name, trial.after or {}
    of = f"{after['rows']['train']:,} rows and {len(after['features'])} features"
    if "fleet" not in after:
        yield f"{name}: {of}; {_scores(trial)}"
        return
    keys = after["fleet"]["keys"]
    own = sum("metrics" in row for row in keys)
    few = sum(row["status"] == "fallback" for row in keys)
    served = f"; {count(few, 'key')} with too few rows" if few else ""
    yield f"{name}: {count(own, 'model')} of keys and parents, {of}; over the rows of all keys {_scores(trial)}{served}"
    yield from (f"{name}: {row['key']} failed: {row['reason']}" for row in keys if row["status"] == "failed")


def metric_names(trial: Trial) -> list[str]:
    """Names of the metrics of a trained pipeline, in the order of its file."""
    order = trial.change.after.config.evaluate.metrics if trial.change.after else []
    known = list((trial.after or {})["metrics"])
    return sorted(known, key=lambda name: order.index(name) if name in order else len(order))


def _scores(trial: Trial) -> str:
    metrics = (trial.after or {})["metrics"]
    return ", ".join(f"{name} {metrics[name]['candidate']:.4g}" for name in metric_names(trial))


def broken(trial: Trial) -> list[str]:
    """Keys of a fleet that cannot be trained, and could be before the change."""
    then, now = ((side or {}).get("fleet", {}).get("keys", ()) for side in (trial.before, trial.after))
    could = {row["key"] for row in then if "metrics" in row}
    lost = [f"{r['key']}: {r['reason']}" for r in now if r["status"] == "failed" and r["key"] in could]
    if not lost:
        return []
    return [f"{count(len(lost), 'key')} cannot be trained any more, and could be before the change", *lost[:SHOWN]]
