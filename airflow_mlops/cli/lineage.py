"""``airflow mlops lineage``: where a version came from and what became of it, and which versions used a thing."""

from __future__ import annotations

import textwrap
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_mlops.cli.errors import clear_errors
from airflow_mlops.cli.model_ref import FORMS, ModelRef
from airflow_mlops.config.harmless import harmless_lines
from airflow_mlops.exceptions import ConfigError
from airflow_mlops.store.content import readable_json

if TYPE_CHECKING:
    from airflow_mlops.registry.provenance import Use

WIDTH = 80
_LABEL = 13
_SHORT = 12
_NONE = "not recorded"


@clear_errors
def lineage(args: Namespace) -> None:
    """Print the tree of one version, or the versions that used a snapshot, a file or code."""
    from airflow_mlops.hooks.mlops import MLOpsHook
    from airflow_mlops.registry import provenance

    backwards = {
        "--snapshot": (args.snapshot, provenance.trained_on_snapshot),
        "--data": (args.data, provenance.trained_on_data),
        "--code": (args.code, provenance.trained_by_code),
    }
    asked = [flag for flag, (value, _) in backwards.items() if value is not None]
    if len(asked) + (args.model is not None) != 1:
        raise ConfigError(
            "lineage needs one thing to tell of"
            + (f", and was given {len(asked) + bool(args.model)}" if asked else ""),
            hint=f"name a model ({FORMS}), or one of {', '.join(backwards)}",
        )
    store = MLOpsHook().store()
    if args.model is not None:
        told = provenance.lineage(store, ModelRef.parse(args.model).find(store))
        print(readable_json(told) if args.output == "json" else harmless_lines(render(told)))
        return
    value, search = backwards[asked[0]]
    uses = search(store, value)
    found = table(uses, f"{asked[0]} {value}")
    print(readable_json([use.to_dict() for use in uses]) if args.output == "json" else harmless_lines(found))


def table(uses: Sequence[Use], asked: str) -> str:
    """Two lines a version: its name, status and day, and how it used what was asked for."""
    if not uses:
        return f"No version of any pipeline: {asked}"
    lines = []
    for use in uses:
        lines.append(f"{use.name}  {use.status}  registered {_day(use.registered_at)}")
        lines += textwrap.wrap(
            use.through, WIDTH, initial_indent="   ", subsequent_indent="   ", break_on_hyphens=False
        )
    return "\n".join(lines)


@dataclass
class Branch:
    """A line of the tree and what hangs below it."""

    label: str
    text: str
    below: list[Branch] = field(default_factory=list)


def render(told: dict[str, Any]) -> str:
    """The tree of :func:`~airflow_mlops.registry.provenance.lineage`, 80 characters wide."""
    model = told["model"]
    run = told["run"] or {}
    head = [model["name"], model["status"], f"registered {_day(model['registered_at'])}"]
    lines = textwrap.wrap("  ".join(head), WIDTH)
    if run:
        lines += textwrap.wrap(f"by {run.get('dag_id')} {run.get('run_id')}", WIDTH, break_on_hyphens=False)
    if model["tags"]:
        lines += textwrap.wrap("tags: " + ", ".join(f"{k}={v}" for k, v in sorted(model["tags"].items())), WIDTH)
    branches = [
        _data(told["data"]),
        _config(told["config"]),
        _code(told["code"]),
        _environment(told["environment"]),
        Branch("model", _model(model)),
        _metrics(told["metrics"]),
        _verdicts(told["verdicts"]),
        Branch("approvals", "; ".join(_approval(a) for a in told["approvals"]) or "none"),
        _deployments(told["deployments"]),
    ]
    return "\n".join([*lines, *_tree(branches, "", _LABEL)])


def _tree(branches: Sequence[Branch], indent: str, label: int) -> Iterator[str]:
    for number, branch in enumerate(branches, 1):
        last = number == len(branches)
        below = indent + ("   " if last else "│  ")
        start = f"{indent}{'└─ ' if last else '├─ '}" + (f"{branch.label:<{label}} " if label else "")
        hang = (below + ("│" if branch.below else "")).ljust(len(start))
        yield from textwrap.wrap(start + branch.text, WIDTH, subsequent_indent=hang, break_on_hyphens=False) or [start]
        yield from _tree(branch.below, below, 0)


def _leaf(text: str) -> Branch:
    return Branch("", text)


def _data(data: dict[str, Any]) -> Branch:
    if data["snapshot"] is None:
        return Branch("data", _NONE)
    size = f"{data['rows']:,} rows × {data['columns']} columns" if data["rows"] is not None else "size not recorded"
    state = "" if data["state"] == "kept" else f"; {data['state']}"
    below = [_leaf(f"fingerprint {str(data['fingerprint'])[:_SHORT]}")]
    if window := data["window"]:
        below.append(_leaf(f"window {_day(window['start'])} to {_day(window['end'])}, end excluded"))
    below += [_leaf(line) for line in _sources(data["source"] or {})]
    if data["validation"]:
        below.append(_leaf(f"validation: {data['validation']}"))
    if data["train"] is not None:
        below.append(_leaf(f"{data['train']:,} rows for training, {data['holdout']:,} held out"))
    return Branch("data", f"snapshot {data['snapshot'][:_SHORT]}, {size}{state}", below)


def _sources(source: dict[str, Any]) -> Iterator[str]:
    if source.get("kind") == "sql":
        yield f"query through {source.get('conn_id')}: {' '.join(str(source.get('query')).split())}"
    elif source.get("kind") == "callable":
        yield f"made by {source.get('callable')}"
    elif source.get("uri"):
        yield f"from {source['uri']}"
        files = source.get("files") or []
        yield from (f"file {f['uri']}, {f['size']:,} bytes" for f in files[:3] if f["uri"] != source["uri"])
        if len(files) > 3:
            yield f"and {len(files) - 3:,} more files"
    if source.get("from"):
        yield f"what validation left of snapshot {source['from'][:_SHORT]}"


def _config(config: dict[str, Any]) -> Branch:
    if config["hash"] is None:
        return Branch("config", _NONE)
    below = [_leaf(f"made by {config['estimator']}, seed {config['seed']}")]
    if job := config.get("job"):
        from airflow_mlops.registry.provenance import job_text

        below.append(_leaf(job_text(job)))
    if config["features"]:
        below.append(_leaf(f"features by {config['features']}"))
    set_ = {k: v for k, v in sorted(config["params"].items()) if v is not None}
    if set_:
        below.append(_leaf(", ".join(f"{k}={v}" for k, v in set_.items())))
    return Branch("config", config["hash"][:_SHORT], below)


def _code(code: dict[str, Any]) -> Branch:
    files = code.get("files") or {}
    git = code.get("git") or "unknown"
    text = f"commit {git}" if git != "unknown" else "commit unknown" if files else "none of its own"
    below = [f"{path} {digest[:_SHORT]}" for path, digest in sorted(files.items())]
    if delivered := code.get("delivered"):
        from airflow_mlops.registry.provenance import delivered_text

        below.insert(0, f"delivered: {delivered_text(delivered)}")
    return Branch("code", text, [*map(_leaf, below)])


def _environment(environment: dict[str, Any]) -> Branch:
    if not environment:
        return Branch("environment", _NONE)
    packages = {k: v for k, v in (environment.get("packages") or {}).items() if v}
    below = [_leaf(", ".join(f"{name} {v}" for name, v in packages.items()))] if packages else []
    return Branch("environment", f"Python {environment.get('python')}, {environment.get('platform')}", below)


def _model(model: dict[str, Any]) -> str:
    if not model["digest"]:
        return _NONE
    signed = f"signed by {model['signed_by']}" if model["signed_by"] else "not signed"
    return f"{model['format']} {model['digest'][:_SHORT]}, {model['bytes']:,} bytes, {signed}"


def _metrics(metrics: Sequence[dict[str, Any]]) -> Branch:
    def line(m: dict[str, Any]) -> str:
        between = f" ({m['low']:.4g} … {m['high']:.4g})" if m["low"] is not None and m["high"] is not None else ""
        against = f"; champion v{m['champion_version']} {m['champion']:.4g}" if m.get("champion") is not None else ""
        return f"{m['name']} {m['value']:.4g}{between}{against}"

    if not metrics:
        return Branch("metrics", _NONE)
    first, *rest = metrics
    return Branch("metrics", line(first), [_leaf(line(m)) for m in rest])


def _verdicts(verdicts: Sequence[dict[str, Any]]) -> Branch:
    if not verdicts:
        return Branch("verdicts", "none")
    newest = verdicts[-1]
    below = [_leaf(f"{gate['verdict']}: {gate['sentence']}") for gate in newest["gates"]]
    below += [_leaf(f"before, {_day(v['at'])}: {v['verdict']}") for v in verdicts[:-1]]
    return Branch("verdicts", f"{newest['verdict']}, {_day(newest['at'])}", below)


def _approval(approval: dict[str, Any]) -> str:
    answer = approval["answer"]
    said = ", ".join(map(str, answer)) if isinstance(answer, list) else str(answer)
    return f"{said} by {approval['by'] or 'nobody: it timed out'}, {_day(approval['at'])}"


def _deployments(deployments: Sequence[dict[str, Any]]) -> Branch:
    below = [_leaf(_told(d)) for d in deployments if d["what"] != "predicted"]
    scored = [d for d in deployments if d["what"] == "predicted"]
    if scored:
        rows = sum(d["rows"] or 0 for d in scored)
        times = "once" if len(scored) == 1 else f"{len(scored)} times"
        windows = sorted(((d["window"]["start"], d["window"]["end"]) for d in scored if d["window"]), key=str)
        span = f", windows {_day(windows[0][0])} to {_day(windows[-1][1])}" if windows else ""
        below.append(_leaf(f"predicted {times}, {rows:,} rows{span}"))
        below.append(_leaf(f"latest output {scored[-1]['output']}"))
    return Branch("deployments", "" if below else "none", below)


def _told(item: dict[str, Any]) -> str:
    start = f"{_day(item['at'])} {item['what']}"
    if item.get("by_version"):
        start += f" by v{item['by_version']}" if item["what"] == "replaced" else f" to v{item['by_version']}"
    if item.get("instead_of"):
        start += f" in place of v{item['instead_of']}"
    if item.get("by"):
        start += f", approved by {item['by']}" if item["what"] == "promoted" else f", by {item['by']}"
    if item.get("uri"):
        start += f" as {item['uri']}"
    return f"{start}: {item['reason']}" if item.get("reason") else start


def _day(time: Any) -> str:
    """A time to the minute, or the day where that is all it says."""
    return str(time)[:16].replace("T", " ").removesuffix(" 00:00")
