"""What a version was made from and what became of it, as a graph; and the reports about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_mlops.plugins.api.compare import number_of
from airflow_mlops.plugins.api.live import run_link
from airflow_mlops.plugins.api.models import Edge, Lineage, Node, ReportLink, Reports
from airflow_mlops.plugins.api.one import One
from airflow_mlops.plugins.api.rows import days, report_link
from airflow_mlops.registry.provenance import delivered_text, job_text
from airflow_mlops.registry.provenance import lineage as provenance
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.version import Version
from airflow_mlops.store import layout

_SHORT = 12
_FILES, _PARAMS, _WINDOWS = 5, 12, 12


def lineage(one: One, version: str, key: str | None = None) -> Lineage:
    """The way of a version.

    :param version: a number, or ``champion``, ``challenger`` or ``latest``.
    :raises HTTPException: 404: there is no such version.
    """
    found = one.version(number_of(one, version, key), key)
    told = provenance(one.store, found)
    nodes = [*_before(told, one), _model(told), *_after(told)]
    edges = [Edge(source=n.id, target="model", label=_INTO[n.kind]) for n in nodes if n.kind in _INTO]
    if any(n.id == "source" for n in nodes) and any(n.id == "data" for n in nodes):
        edges = [e for e in edges if e.source != "source"] + [Edge(source="source", target="data", label="read from")]
    edges += [Edge(source="model", target=n.id, label=_OUT[n.kind]) for n in nodes if n.kind in _OUT]
    return Lineage(version=found.number, key=key, nodes=nodes, edges=edges)


_INTO = {
    "source": "read from",
    "data": "trained on",
    "code": "trained by",
    "config": "configured by",
    "environment": "trained in",
    "run": "made by",
}
_OUT = {"decision": "judged", "delivery": "delivered", "predictions": "scored"}


def _before(told: dict[str, Any], one: One) -> Iterator[Node]:
    data, config, code, environment = told["data"], told["config"], told["code"], told["environment"]
    run = told["run"] or {}
    source = data.get("source") or {}
    place = source.get("uri") or source.get("callable") or source.get("conn_id")
    if place:
        files = [str(f.get("uri")) for f in source.get("files") or () if f.get("uri") != place]
        more = [f"and {len(files) - _FILES:,} more files"] if len(files) > _FILES else []
        yield _node("source", "source", str(place), [*files[:_FILES], *more])
    if data["snapshot"]:
        size = f"{data['rows']:,} rows × {data['columns']} columns" if data["rows"] is not None else ""
        window = f"{data['window']['start']} to {data['window']['end']}" if data["window"] else ""
        split = f"{data['train']:,} for training, {data['holdout']:,} held out" if data["train"] is not None else ""
        finger = f"fingerprint {str(data['fingerprint'])[:_SHORT]}" if data["fingerprint"] else ""
        checked = f"validation: {data['validation']}" if data["validation"] else ""
        state = data["state"] if data["state"] != "kept" else ""
        lines = [size, window, split, finger, checked, state]
        yield _node("data", "data", f"Snapshot {str(data['snapshot'])[:_SHORT]}", lines)
    if code:
        delivered = delivered_text(code["delivered"]) if code.get("delivered") else ""
        files = [
            f"{path.rpartition('/')[2]} {str(d)[:_SHORT]}" for path, d in sorted((code.get("files") or {}).items())
        ]
        commit = str(code.get("git") or "unknown")
        title = f"Commit {commit[:_SHORT]}" if commit != "unknown" else "Code"
        yield _node("code", "code", title, [delivered, *files[:_FILES]])
    if config["hash"]:
        params = [f"{k} = {v}" for k, v in sorted(config["params"].items()) if v is not None][:_PARAMS]
        features = f"features by {config['features']}" if config["features"] else ""
        job = job_text(config["job"]) if config.get("job") else ""
        lines = [f"made by {config['estimator']}, seed {config['seed']}", job, features, *params]
        yield _node("config", "config", f"Config {str(config['hash'])[:_SHORT]}", lines)
    if environment:
        packages = [f"{name} {v}" for name, v in (environment.get("packages") or {}).items() if v]
        yield _node("environment", "environment", f"Python {environment.get('python')}", packages)
    if run.get("run_id"):
        readable = one.live.may_read(str(run.get("dag_id")))
        link = run_link(run["dag_id"], run["run_id"]) if readable else None
        yield _node("run", "run", str(run["run_id"]), [str(run.get("dag_id"))], link)


def _model(told: dict[str, Any]) -> Node:
    model = told["model"]
    size = f"{model['bytes']:,} bytes" if model["bytes"] is not None else ""
    signed = f"signed by {model['signed_by']}" if model["signed_by"] else "not signed"
    kind = f"{model['format']} {str(model['digest'])[:_SHORT]}" if model["digest"] else "no model file is recorded"
    metrics = [f"{m['name']} {m['value']:.4g}" for m in told["metrics"] if m.get("value") is not None]
    return _node("model", "model", model["name"], [model["status"], kind, size, signed, *metrics])


def _after(told: dict[str, Any]) -> Iterator[Node]:
    for number, verdict in enumerate(told["verdicts"]):
        yield _node(
            f"verdict-{number}", "decision", f"Gates: {verdict['verdict']}", [str(verdict["at"]), verdict["sentence"]]
        )
    for number, answer in enumerate(told["approvals"]):
        said = answer["answer"]
        words = ", ".join(map(str, said)) if isinstance(said, list) else str(said)
        by = answer["by"] or "nobody: it timed out"
        yield _node(f"approval-{number}", "decision", f"Approval: {words}", [str(answer["at"]), f"by {by}"])
    scored = [d for d in told["deployments"] if d["what"] == "predicted"]
    for number, item in enumerate(d for d in told["deployments"] if d["what"] != "predicted"):
        lines = [str(item.get("at") or ""), f"by {item['by']}" if item.get("by") else "", str(item.get("reason") or "")]
        yield _node(f"delivery-{number}", "delivery", str(item["what"]).capitalize(), lines)
    if scored:
        rows = sum(d["rows"] or 0 for d in scored)
        title = "Scored once" if len(scored) == 1 else f"Scored {len(scored)} times"
        last = f"latest output {scored[-1]['output']}" if scored[-1].get("output") else ""
        yield _node("predictions", "predictions", title, [f"{rows:,} rows", last])


def _node(id_: str, kind: str, title: str, lines: list[str], link: str | None = None) -> Node:
    return Node(id=id_, kind=kind, title=title, lines=[line for line in lines if line], link=link)


# --- reports -----------------------------------------------------------------------------------------


def reports(one: One, version: str | None = None, key: str | None = None) -> Reports:
    """The model card of a version and the reports about it; those of checks for the newest windows.

    :param version: default: the champion, else the newest.
    :raises HTTPException: 404: there is no such version.
    """
    one.of_key(key)  # which there must be
    found = None
    if version is not None:
        found = one.version(number_of(one, version, key), key)
    else:
        registry = Registry(one.store, one.name)
        found = registry.champion(key) or next(reversed(registry.versions(key)), None)
    links = [*(_of_version(found, one) if found else ()), *_of_trainings(one), *_of_checks(one)]
    return Reports(
        version=found.number if found else None,
        card=_card(found, one) if found else None,
        reports=[link for dag_id, link in links if one.live.may_read(dag_id)],
    )


def _card(version: Version, one: One) -> str | None:
    """The newest card, under the DAG that showed it: of those the user may read."""
    cards = version.notes.get("card")
    digest = cards[-1].get("html") if cards else None
    if not isinstance(digest, str) or not layout.is_digest(digest):
        return None
    for dag in one.live.dags.values():
        if one.store.exists(layout.report(dag.dag_id, digest)):
            return report_link(dag.dag_id, digest)
    return None


_Link = tuple[str, ReportLink]


def _of_version(version: Version, one: One) -> Iterator[_Link]:
    dag_id = (version.record.get("run") or {}).get("dag_id") or f"{one.name}__train"
    about = f"v{version.number}"
    for note in version.notes.get("gates", ()):
        if link := report_link(dag_id, note.get("report")):
            yield dag_id, ReportLink(name="Gate report", about=about, at=None, link=link)
    monitor = f"{one.name}__monitor"
    for note in version.notes.get("rollout", ()):
        if link := report_link(monitor, (note.get("evidence") or {}).get("report")):
            yield monitor, ReportLink(name="Rollout report", about=about, at=note.get("at"), link=link)


def _of_trainings(one: One) -> Iterator[_Link]:
    """Of a fleet, what the gates said of all its keys, run by run."""
    for run in reversed(one.records.trainings[-_WINDOWS:]):
        if link := report_link(run.dag_id, run.report):
            about = days(run.window) if run.window else run.run_id
            yield run.dag_id, ReportLink(name="Gate report", about=about, at=run.at, link=link)


_NAMES = {"quality": "Validation report", "drift": "Drift report", "skew": "Feature skew report"}


def _of_checks(one: One) -> Iterator[_Link]:
    monitor = f"{one.name}__monitor"
    for name, title in _NAMES.items():
        mine = (c for c in one.records.checks if c.name == name)
        kept = [(c, link) for c in mine if (link := report_link(monitor, c.result.get("report")))]
        for check, link in reversed(kept[-_WINDOWS:]):
            yield monitor, ReportLink(name=title, about=days(check.window), at=check.at, link=link)
