"""The sections of a model card, as plain text; :mod:`airflow_mlops.ml.card` escapes and prints them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.ml.cost import amount, price, total
from airflow_mlops.ml.html import short

_MOST_ROWS = 200
_MOST_BARS = 20
_NAME = 28
_LEFT, _WIDTH = 220.0, 400.0


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    language: str
    text: str


@dataclass(frozen=True)
class Bar:
    """One bar of a drawing, in pixels, with its whisker from ``low`` to ``high``."""

    name: str
    x: float
    width: float
    low: float
    high: float
    told: str


@dataclass(frozen=True)
class Section:
    """A heading, sentences, a drawing, a table, something to copy; each may be missing."""

    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    code: Code | None = None
    bars: tuple[Bar, ...] = ()


def predict_command(foreign: Sequence[str] = (), source: str = "sample_input.csv") -> str:
    """The command, in the unzipped folder, that predicts ``source``; ``foreign`` is :func:`foreign_types`."""
    trust = [word for name in foreign for word in ("--trust", name)]
    return shlex.join(["python", "predict.py", source, "--out", "predictions.csv", *trust])


def _known(value: Any) -> str:
    return "not recorded" if value is None or value == "" else short(value)


def _pairs(title: str, pairs: Sequence[tuple[str, Any]], lines: Sequence[str] = ()) -> Section:
    rows = tuple((name, _known(value)) for name, value in pairs)
    return Section(title, tuple(lines), ("What", "Value"), rows)


def _table(
    title: str, lines: Sequence[str], columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], what: str
) -> Section:
    """A section with at most 200 rows; the others are counted."""
    more = len(rows) - _MOST_ROWS
    cut = [f"{more:,} more {what} are not listed."] if more > 0 else []
    return Section(title, (*lines, *cut), columns, tuple(rows[:_MOST_ROWS]))


def overview(record: dict[str, Any], about: dict[str, Any]) -> Section:
    """Owner, task, estimator and its parameters."""
    schema = record["schema"]
    classes = ", ".join(map(str, schema["classes"])) if schema["classes"] else "numbers"
    pairs = [
        ("Owner", about.get("owner")),
        ("Task", record.get("task")),
        ("Predicts", f"{schema['target']}: {classes}"),
        ("Positive class", schema["positive"]) if schema["positive"] is not None else None,
        ("Made by", record.get("estimator")),
        *((f"Parameter {k}", v) for k, v in sorted((record.get("params") or {}).items()) if v is not None),
    ]
    return _pairs("What it is", [p for p in pairs if p is not None])


def data(record: dict[str, Any], profile: dict[str, Any] | None) -> Section:
    """The snapshot, how it was split, and the target in it."""
    snapshot, rows = record.get("snapshot") or {}, record.get("rows") or {}
    window = snapshot.get("window")
    config = (record.get("config") or {}).get("data") or {}
    source = config.get("source") or config.get("callable") or (config.get("sql") or {}).get("query")
    split = config.get("split") or {}
    pairs: list[tuple[str, Any]] = [
        ("Rows", snapshot.get("rows")),
        ("Training rows", rows.get("train")),
        ("Holdout rows", rows.get("holdout")),
        ("Split", f"by {split['by']}, {split['test']:.0%} held out" if split else None),
        ("Window", f"{window['start']} to {window['end']} (end excluded)" if window else "all the data of the source"),
        ("Source", source),
        ("Fingerprint", snapshot.get("fingerprint")),
        *_target(record),
    ]
    if config.get("private"):
        pairs.append(("Private columns", ", ".join(config["private"])))
    lines = []
    if profile:
        gaps = [c for c in profile.get("columns", ()) if c.get("nulls")]
        found = ", ".join(f"{c['name']} ({c['nulls']:,})" for c in gaps)
        lines.append(f"Missing values: {found}." if gaps else "No column has missing values.")
    return _pairs("Data", pairs, lines)


def _target(record: dict[str, Any]) -> list[tuple[str, Any]]:
    """How the target is spread over the training rows."""
    seen = record.get("seen") or {}
    if seen.get("classes"):
        rows = sum(c["rows"] for c in seen["classes"])
        shares = [f"{c['class']}: {c['rows']:,} ({c['rows'] / rows:.1%})" for c in seen["classes"][:12]]
        more = len(seen["classes"]) - len(shares)
        return [("Classes in training", "; ".join(shares) + (f"; and {more} more" if more > 0 else ""))]
    if seen.get("target"):
        return [("Target in training", _range(seen["target"]))]
    return []


def _range(found: Mapping[str, Any]) -> str:
    return "–" if found.get("min") is None else f"{short(found['min'])} to {short(found['max'])}"


def metrics(evaluation: dict[str, Any]) -> Section:
    """Each metric with its interval, beside the champion of that time."""
    n, champion = evaluation.get("rows"), evaluation.get("champion")

    def cell(m: dict[str, Any], who: str) -> str:
        if m.get(who) is None:
            return "–"
        low, high = m.get(f"{who}_low"), m.get(f"{who}_high")
        return f"{m[who]:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")

    rows = tuple(
        (name, cell(m, "candidate"), cell(m, "champion"), "lower" if m.get("lower_is_better") else "higher", _known(n))
        for name, m in sorted((evaluation.get("metrics") or {}).items())
    )
    against = f"The champion then was version {champion}." if champion else "There was no champion to compare with."
    told = f"Measured on {_known(n)} holdout rows the model never saw, with 95 % intervals. {against}"
    return Section("Metrics", (told if rows else "Not recorded.",), ("Metric", "This model", "Champion then",
                   "Better is", "Rows"), rows)  # fmt: skip


def gates(found: dict[str, Any], approval: dict[str, Any] | None) -> Section:
    """Verdicts, and what a person said to it."""
    lines = [f"Verdict: {found.get('sentence') or found['verdict']}" if found.get("verdict") else "Not recorded."]
    if approval:
        answer = approval.get("answer")
        said = ", ".join(map(str, answer)) if isinstance(answer, list | tuple) else answer
        by = approval.get("by")
        lines.append(f"Approval: {_known(said)}, by {_known(by) if by else 'nobody: the question timed out'}.")
    rows = tuple((r["verdict"], r["sentence"]) for r in found.get("results") or ())
    return Section("Gates", tuple(lines), ("Verdict", "Why"), rows)


def slices(found: dict[str, Any]) -> list[Section]:
    """What the gates found in parts of the holdout, if any looks at parts."""
    rows = [
        (f"{s['column']} = {s['value_of']}", str(r.get("name", "")), _known(s["rows"]), short(s["value"]), s["verdict"])
        for r in found.get("results") or ()
        for s in r.get("slices") or ()
    ]
    if not rows:
        return []
    return [_table("Slices", (), ("Slice", "Gate", "Rows", "Value", "Verdict"), rows, "slices")]


def explanation(importance: dict[str, Any] | None) -> Section:
    """Permutation importance as a drawing and a table."""
    title = "What it looks at"
    if importance is None:
        return Section(title, ("Not recorded.",))
    found = importance["features"]
    if not found:
        why = importance["why"] or "one prediction of the sample took longer than the time for it"
        return Section(title, (f"The importance of the columns could not be computed: {why}.",))
    lines = [
        f"Permutation importance: how much worse {importance['metric']} gets on {importance['rows']:,} holdout rows "
        f"when the values of one column change places, mean and standard deviation of {importance['repeats']} times."
    ]
    cut = []
    if importance["rows"] < importance["of_rows"]:
        cut.append(f"of {importance['of_rows']:,} holdout rows {importance['rows']:,} were drawn")
    if importance["left_out"]:
        reason = " as the time was up" if importance["out_of_time"] else ""
        cut.append(f"{importance['left_out']:,} of {importance['columns']:,} columns were not looked at{reason}")
    if cut:
        lines.append(f"This is a part: {'; '.join(cut)}.")
    lines.append(
        "It tells what this model uses, not what causes the outcome. Columns that say the same share their importance, "
        "so that each can seem to count for little; and permuting one of them makes rows that do not occur."
    )
    shown = max(abs(f["mean"]) + f["std"] for f in found) or 1.0
    left = min(0.0, *(f["mean"] - f["std"] for f in found))
    scale = _WIDTH / (shown - left)
    zero = _LEFT - left * scale
    bars = tuple(_bar(f, zero, scale) for f in found[:_MOST_BARS])
    rows = tuple((f["name"], f"{f['mean']:.4f}", f"± {f['std']:.4f}") for f in found)
    return Section(title, tuple(lines), ("Column", "Importance", "Standard deviation"), rows, bars=bars)


def _bar(found: dict[str, Any], zero: float, scale: float) -> Bar:
    mean, std, name = found["mean"], found["std"], str(found["name"])
    return Bar(
        name=name if len(name) <= _NAME else name[: _NAME - 1] + "…",
        x=round(zero + min(mean, 0.0) * scale, 1),
        width=round(abs(mean) * scale, 1),
        low=round(zero + (mean - std) * scale, 1),
        high=round(zero + (mean + std) * scale, 1),
        told=f"{name}: {mean:.4f} ± {std:.4f}",
    )


def features(record: dict[str, Any]) -> list[Section]:
    """The columns it reads with what training saw of them, and those it does not read."""
    schema = record["schema"]
    known = (record.get("seen") or {}).get("columns") or {}

    def row(feature: dict[str, Any]) -> tuple[str, ...]:
        if feature.get("private"):
            return feature["name"], "private", "not shown", "not shown"
        found, seen = known.get(feature["name"], {}), feature["categories"]
        values = _range(found)
        if seen is not None:
            values = ", ".join(map(str, seen[:10])) + (f" and {len(seen) - 10:,} more" if len(seen) > 10 else "")
        return feature["name"], feature["kind"], values, short(found.get("missing"))

    used = [row(f) for f in schema["features"]]
    excluded = [(e["name"], e["why"]) for e in schema["excluded"]]
    heads = ("Column", "Kind", "Values in training", "Missing in training")
    none = () if excluded else ("None: every column is a feature.",)
    return [
        _table("Features", (f"It reads {len(used)} columns.",), heads, used, "columns"),
        _table("Columns left out", none, ("Column", "Why"), excluded, "columns"),
    ]


def limits(
    record: dict[str, Any], evaluation: dict[str, Any], found: dict[str, Any], foreign: Sequence[str]
) -> Section:
    """What it cannot know."""
    schema, window = record["schema"], (record.get("snapshot") or {}).get("window")
    known = (record.get("seen") or {}).get("columns") or {}
    lines = []
    if window:
        lines.append(f"It has learned from rows up to {window['end']} and knows nothing of later changes.")
    kinds = {f["kind"] for f in schema["features"]}
    if "category" in kinds:
        lines.append("Categories that did not occur in training are accepted, but nothing is known about them.")
    if any(c.get("min") is not None for c in known.values()):
        lines.append("Numbers outside the ranges in the table of features are accepted: there it extrapolates.")
    whole = [name for name, c in known.items() if not c["missing"]]
    if whole:
        named = ", ".join(whole[:20]) + (f" and {len(whole) - 20:,} more" if len(whole) > 20 else "")
        lines.append(f"Never missing in training, so that it has not learned what a gap means: {named}.")
    if evaluation.get("rows"):
        lines.append(f"The metrics are those of {evaluation['rows']:,} rows; other groups of rows can differ.")
    for result in found.get("results") or ():
        if result.get("slices_too_small"):
            least = (result.get("gate") or {}).get("min_rows", 100)
            lines.append(
                f"{result['slices_too_small']:,} slices with fewer than {least:,} rows were not judged "
                f"({result.get('name', '')})."
            )
    if evaluation.get("metrics"):
        unit = f"{blocks}, in which rows may depend on each other," if (blocks := evaluation.get("blocks")) else "rows"
        lines.append(
            f"Intervals and paired tests take the holdout's {unit} as independent and like those to come. Dependence "
            "beyond that makes them too narrow, and so does a holdout that many candidates were chosen by."
        )
    if (decided := (found.get("holdout") or {}).get("decided", 1)) > 1:
        lines.append(
            f"This holdout has decided {decided:,} times, this one included: its metrics flatter the best of them."
        )
    code = ((record.get("config") or {}).get("features") or {}).get("callable")
    if code:
        lines.append(f"Its input is what {code} makes of the source; that code is not part of the bundle.")
    if foreign:
        lines.append(f"It holds types that are not scikit-learn's and must be importable: {', '.join(foreign)}.")
    lines.extend(f"Warned in training: {w}" for w in record.get("warnings") or ())
    return Section("Limits", tuple(lines) or ("None recorded.",))


def cost(costs: Sequence[Mapping[str, Any]]) -> Section:
    """Time and memory of each step, and what they come to."""
    if not costs:
        return Section("Cost", ("Not recorded.",))
    sums = total(costs)
    priced = bool(sums["money"])
    lines = [
        f"{sums['wall_seconds']:,.1f} s by the clock, {sums['cpu_seconds']:,.1f} s of processor time, at most "
        f"{sums['peak_mb']:,.0f} MB in one process"
        + (f"; {' and '.join(sums['money'])} by the clock and the configured price." if priced else "."),
        "Processor time counts all cores and the processes a step started. Memory is the largest resident set of one "
        "process since it began (MB: a million bytes). Of a job on SageMaker the billed time alone is known. Steps "
        "after this card was made are not in it.",
    ]
    rows = tuple(
        (
            str(c.get("task", "")),
            f"{c['wall_seconds']:,.1f} s",
            f"{c['cpu_seconds']:,.1f} s",
            f"{c['peak_mb']:,.0f} MB",
            *((amount(price(c), str(c.get("currency") or "")) if c.get("price_per_hour") else "–",) if priced else ()),
        )
        for c in costs
    )
    heads = ("Step", "Clock", "Processor", "Peak memory", *(("Price",) if priced else ()))
    return Section("Cost", tuple(lines), heads, rows)


def lineage(record: dict[str, Any]) -> Section:
    """Digests, code, environment."""
    model, code, run = record.get("model") or {}, record.get("code") or {}, record.get("run") or {}
    environment = model.get("environment") or {}
    pairs: list[tuple[str, Any]] = [
        ("Snapshot", (record.get("snapshot") or {}).get("snapshot")),
        ("Model sha256", model.get("digest")),
        ("Model size", f"{model['bytes']:,} bytes" if model.get("bytes") is not None else None),
        ("Configuration sha256", record.get("config_hash")),
        ("Code (git)", code.get("git")),
        *((f"Delivered {what}", name) for what, name in (code.get("delivered") or {}).items()),
        *((f"Code {path}", digest) for path, digest in sorted((code.get("files") or {}).items())),
        ("Seed", str(record["seed"]) if record.get("seed") is not None else None),
        ("Training time", f"{record['seconds']:.1f} s" if record.get("seconds") is not None else None),
        *((f"Training job: {what.replace('_', ' ')}", value) for what, value in (record.get("job") or {}).items()),
        ("Run", f"{run['dag_id']} {run['run_id']}" if run else None),
        ("Python", environment.get("python")),
        ("Platform", environment.get("platform")),
        *((name, v) for name, v in sorted((environment.get("packages") or {}).items()) if v is not None),
    ]
    return _pairs("Where it comes from", pairs)


def loading(
    record: dict[str, Any], foreign: Sequence[str], pipeline: str, version: int, key: str | None, store: str | None
) -> list[Section]:
    """From the store in Python, and from a bundle by command."""
    python = (record.get("model") or {}).get("environment", {}).get("python")
    made = [f"The model was made with Python {python}."] if python else []
    command = "\n".join(["pip install -r requirements.txt", predict_command(foreign)])
    told = "In an unzipped handover bundle, where there is one; nothing else of the pipeline is needed."
    sections = [Section("How to use it without this package", (told, *made), code=Code("sh", command))]
    if store and version:
        told = "Where airflow-mlops is installed and the store can be read; the frame needs the columns listed above."
        code = Code("python", _python(foreign, pipeline, version, key, store))
        sections.insert(0, Section("How to load it", (told,), code=code))
    return sections


def _python(foreign: Sequence[str], pipeline: str, version: int, key: str | None, store: str) -> str:
    of = f"{version}" if key is None else f"{version}, {key!r}"
    trust = f", trusted={list(foreign)!r}" if foreign else ""
    return f"""from airflow_mlops.ml.features import FeatureSchema
from airflow_mlops.registry import Registry
from airflow_mlops.registry.artifacts import fetch_model
from airflow_mlops.store import open_store

store = open_store({store!r})
version = Registry(store, {pipeline!r}).get({of})
model = fetch_model(store, version.record["model"]{trust})
schema = FeatureSchema.from_dict(version.record["schema"])

def predict(frame):
    return model.predict(schema.check(frame))"""
