"""One version for people: every line that ``airflow mlops registry show`` prints of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.tables import NONE

if TYPE_CHECKING:
    from airflow_mlops.registry.version import Version
    from airflow_mlops.store.base import Store

_SHORT = 12


def said(store: Store, version: Version) -> Iterator[tuple[str, list[str]]]:
    """Labels and what there is to say; nothing is left out silently: what is not recorded is said not to be."""
    from airflow_mlops.registry.export import card_of
    from airflow_mlops.registry.provenance import delivered_text, lineage

    told = lineage(store, version)
    model, data, config, code, env = (told[part] for part in ("model", "data", "config", "code", "environment"))
    run, imported = told["run"] or {}, version.record.get("imported") or {}
    origin = f" by {run.get('dag_id')} {run.get('run_id')}" if run else ""
    if imported:
        in_mlflow = f"version {imported.get('version')} of {imported.get('name')} in MLflow"
        origin = f", taken in from {imported.get('file') or in_mlflow}"
    yield "registered", [minute(version.registered_at) + origin]
    if version.promoted_at:
        yield "promoted", [minute(version.promoted_at)]
    size = f", {model['bytes']:,} bytes" if model["bytes"] is not None else ""
    signed = f"signed by {model['signed_by']}" if model["signed_by"] else "not signed"
    yield "model", [f"{model['format']} {short(model['digest'])}{size}, {signed}"]
    yield "data", [*_data(data)]
    features = (version.record.get("schema") or {}).get("features") or []
    target = (version.record.get("schema") or {}).get("target")
    yield "reads", [f"{len(features):,} columns; predicts {target}" if features else "not recorded"]
    seed = f", seed {config['seed']}" if config["seed"] is not None else ""
    params = ", ".join(f"{k}={v}" for k, v in sorted(config["params"].items()) if v is not None)
    yield (
        "config",
        [f"{short(config['hash'])}: {config['estimator'] or 'unknown'}{seed}", *([params] if params else [])],
    )
    files = [f"{path} {short(digest)}" for path, digest in sorted((code.get("files") or {}).items())]
    delivered = [f"delivered: {delivered_text(code['delivered'])}"] if code.get("delivered") else []
    yield "code", [*delivered, f"commit {code.get('git') or 'unknown'}", *files]
    packages = ", ".join(f"{name} {v}" for name, v in (env.get("packages") or {}).items() if v)
    threads = ", ".join(f"{name} {count}" for name, count in (env.get("threads") or {}).items())
    counted = [f"threads: {threads}"] if threads else []
    yield (
        "environment",
        [f"Python {env['python']}", *([packages] if packages else []), *counted] if env else ["not recorded"],
    )
    yield (
        "metrics",
        [*map(_metric, told["metrics"])]
        or [f"{k} {value_text(v)}" for k, v in version.metrics.items()]
        or ["not recorded"],
    )
    yield "verdicts", [f"{minute(v['at'])} {v['verdict']}: {_after(v)}" for v in told["verdicts"]] or ["none"]
    yield "approvals", [f"{minute(a['at'])} {_answer(a)}" for a in told["approvals"]] or ["none"]
    if moves := version.notes.get("rollout"):
        yield "rollout", [*_rollout(moves)]
    yield "tags", [", ".join(f"{k}={v}" for k, v in sorted(version.tags.items())) or "none"]
    yield "card", [*addresses(store, card_of(version)).values()] or ["none: gates make it"]


def _data(data: Mapping[str, Any]) -> Iterator[str]:
    if data["snapshot"] is None:
        yield "not recorded"
        return
    size = f", {data['rows']:,} rows × {data['columns']} columns" if data["rows"] is not None else ""
    yield f"snapshot {short(data['snapshot'])}{size}; {data['state']}"
    if data["train"] is not None:
        yield f"{data['train']:,} rows for training, {data['holdout']:,} held out"
    if window := data["window"]:
        yield f"window {minute(window['start'])} to {minute(window['end'])}"
    source = data["source"] or {}
    if place := source.get("uri") or source.get("callable") or source.get("conn_id"):
        yield f"from {place}"


def _metric(metric: Mapping[str, Any]) -> str:
    between = f" ({value_text(metric['low'])} … {value_text(metric['high'])})" if metric.get("low") is not None else ""
    champion = metric.get("champion")
    against = f"; champion v{metric['champion_version']} {value_text(champion)}" if champion is not None else ""
    return f"{metric['name']} {value_text(metric['value'])}{between}{against}"


def _after(verdict: Mapping[str, Any]) -> str:
    return str(verdict["sentence"]).removeprefix(f"{verdict['verdict']}: ")


def _rollout(moves: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Its steps, and every move, oldest first."""
    from airflow_mlops.registry.rollout import path, step_name

    steps: Sequence[Any] = ()
    for move in moves:
        by = f" by {move['by']}" if move["by"] else ""
        if move["kind"] == "begin":
            steps = move["steps"]
            what = f"begins {path(steps)}"
        else:
            what = f"{move['kind']} at {step_name(steps[move['step']])}"
        yield f"{minute(move['at'])} {what}{by}: {move['reason']}"


def _answer(approval: Mapping[str, Any]) -> str:
    answer = approval["answer"]
    said = ", ".join(map(str, answer)) if isinstance(answer, list) else str(answer)
    return f"{said} by {approval['by'] or 'nobody: it timed out'}"


def addresses(store: Store, digests: Mapping[str, str]) -> dict[str, str]:
    """Where blobs lie in the store."""
    from airflow_mlops.store import layout

    return {kind: f"{store.uri.rstrip('/')}/{layout.blob(digest)}" for kind, digest in digests.items()}


def value_text(value: Any) -> str:
    """A value in few characters."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    text = str(value)
    # A digest: its beginning tells it apart, and two of them do not fit a line.
    return short(text) if len(text) == 64 and not set(text) - set("0123456789abcdef") else text


def short(digest: Any) -> str:
    """The beginning of a digest."""
    return str(digest)[:_SHORT] if digest else "unknown"


def minute(time: Any) -> str:
    """A time to the minute, UTC."""
    return str(time)[:16].replace("T", " ")
