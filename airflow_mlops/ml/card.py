"""The model card: what a model is for, made of, good at and not, and how to load it. All of it from the record.

Sections after Mitchell et al., "Model Cards for Model Reporting" (2019), as far as a record can tell them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_mlops.ml.html import render, short
from airflow_mlops.registry.registry import Version

_TEMPLATES = Path(__file__).parent / "templates"
_PAGE = """<p>{{ purpose }}</p>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% for line in section.lines %}<p>{{ line }}</p>
{% endfor %}
{% if section.rows %}<div class="scroll"><table>
<thead><tr>{% for c in section.columns %}<th>{{ c }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in section.rows %}<tr>{% for c in row %}<td>{{ c }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% if section.code %}<div class="scroll"><pre><code>{{ section.code }}</code></pre></div>
{% endif %}
{% endfor %}
"""


@dataclass(frozen=True)
class _Section:
    title: str
    lines: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    code: str = ""


def note(version: Version, kind: str) -> dict[str, Any]:
    """The newest note of a kind, or ``{}``."""
    return version.notes[kind][-1] if version.notes.get(kind) else {}


def card_of(version: Version, *, foreign: Sequence[str] = ()) -> tuple[str, str]:
    """The version's model card, as (Markdown, HTML).

    :param foreign: types in the model file that whoever loads it must name.
    """
    return model_card(
        version.record,
        note(version, "evaluation"),
        note(version, "gates"),
        pipeline=version.pipeline,
        version=version.number,
        approval=note(version, "approval") or None,
        foreign_types=foreign,
    )


def predict_command(foreign: Sequence[str] = (), source: str = "sample_input.csv") -> str:
    """The command, in the unzipped folder, that predicts ``source``; ``foreign`` is :func:`foreign_types`."""
    trust = [word for name in foreign for word in ("--trust", name)]
    return shlex.join(["python", "predict.py", source, "--out", "predictions.csv", *trust])


def model_card(
    record: dict[str, Any],
    evaluation: dict[str, Any],
    gates: dict[str, Any],
    profile: dict[str, Any] | None = None,
    *,
    pipeline: str,
    version: int,
    approval: dict[str, Any] | None = None,
    foreign_types: Sequence[str] = (),
) -> tuple[str, str]:
    """Return the card as Markdown and as one self-contained HTML page; every value is escaped.

    What the record does not hold is said to be not recorded; nothing is made up.

    :param record: the version's record: model, schema, task, snapshot, rows, config, config_hash, code, seed,
        estimator, params, seconds, warnings, about (owner, description), run.
    :param evaluation: note with ``metrics`` (name → candidate, its interval, champion), ``rows``, ``champion``.
    :param gates: note with ``verdict``, ``sentence``, ``results`` (each with verdict and sentence).
    :param profile: of the training snapshot, with ``columns`` (name, type, nulls, …).
    :param approval: note with ``by`` and ``answer``.
    :param foreign_types: what :func:`airflow_mlops.registry.artifacts.foreign_types` found in the model file.
    """
    about = record.get("about") or {}
    values = {
        "title": f"{pipeline}, version {version}",
        "purpose": about.get("description") or f"Predicts {record['schema']['target']}; no description is recorded.",
        "sections": [
            _overview(record, about),
            _data(record, profile),
            _metrics(evaluation),
            _gates(gates, approval),
            *_features(record["schema"]),
            _limits(record, evaluation, foreign_types),
            _lineage(record),
            _loading(record, foreign_types),
        ],
    }
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701 - Markdown, escaped by the filter below
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _markdown
    text = environment.get_template("card.md.j2").render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", render(_PAGE, **values)


def _markdown(text: Any) -> str:
    """Escape what Markdown, or HTML inside it, would take as markup; a table cell stays one line."""
    one_line = " ".join(str(text).split())
    escaped = re.sub(r"([\\`*\[\]|#~])|(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_])", r"\\\g<0>", one_line)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _known(value: Any) -> str:
    return "not recorded" if value is None or value == "" else short(value)


def _pairs(title: str, pairs: Sequence[tuple[str, Any]], lines: Sequence[str] = ()) -> _Section:
    rows = tuple((name, _known(value)) for name, value in pairs)
    return _Section(title, tuple(lines), ("What", "Value"), rows)


def _overview(record: dict[str, Any], about: dict[str, Any]) -> _Section:
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


def _data(record: dict[str, Any], profile: dict[str, Any] | None) -> _Section:
    snapshot, rows = record.get("snapshot") or {}, record.get("rows") or {}
    window = snapshot.get("window")
    data = (record.get("config") or {}).get("data") or {}
    source = data.get("source") or data.get("callable") or (data.get("sql") or {}).get("query")
    split = data.get("split") or {}
    pairs: list[tuple[str, Any]] = [
        ("Rows", snapshot.get("rows")),
        ("Training rows", rows.get("train")),
        ("Holdout rows", rows.get("holdout")),
        ("Split", f"by {split['by']}, {split['test']:.0%} held out" if split else None),
        ("Window", f"{window['start']} to {window['end']} (end excluded)" if window else "all the data of the source"),
        ("Source", source),
        ("Fingerprint", snapshot.get("fingerprint")),
    ]
    lines = []
    if profile:
        gaps = [c for c in profile.get("columns", ()) if c.get("nulls")]
        found = ", ".join(f"{c['name']} ({c['nulls']:,})" for c in gaps)
        lines.append(f"Missing values: {found}." if gaps else "No column has missing values.")
    return _pairs("Data", pairs, lines)


def _metrics(evaluation: dict[str, Any]) -> _Section:
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
    lines = (f"Measured on {_known(n)} holdout rows the model never saw. {against}",) if rows else ("Not recorded.",)
    return _Section("Metrics", lines, ("Metric", "This model", "Champion then", "Better is", "Rows"), rows)


def _gates(gates: dict[str, Any], approval: dict[str, Any] | None) -> _Section:
    lines = [f"Verdict: {gates.get('sentence') or gates['verdict']}" if gates.get("verdict") else "Not recorded."]
    if approval:
        answer = approval.get("answer")
        said = ", ".join(map(str, answer)) if isinstance(answer, list | tuple) else answer
        lines.append(f"Approval: {_known(said)}, by {_known(approval.get('by'))}.")
    rows = tuple((r["verdict"], r["sentence"]) for r in gates.get("results") or ())
    return _Section("Gates", tuple(lines), ("Verdict", "Why"), rows)


def _features(schema: dict[str, Any]) -> list[_Section]:
    def values(feature: dict[str, Any]) -> str:
        seen = feature["categories"]
        if seen is None:
            return "–"
        return ", ".join(map(str, seen[:10])) + (f" and {len(seen) - 10:,} more" if len(seen) > 10 else "")

    used = tuple((f["name"], f["kind"], values(f)) for f in schema["features"])
    excluded = tuple((e["name"], e["why"]) for e in schema["excluded"])
    return [
        _Section("Features", (f"It reads {len(used)} columns.",), ("Column", "Kind", "Values in training"), used),
        _Section(
            "Columns left out", () if excluded else ("None: every column is a feature.",), ("Column", "Why"), excluded
        ),
    ]


def _limits(record: dict[str, Any], evaluation: dict[str, Any], foreign: Sequence[str]) -> _Section:
    schema, window = record["schema"], (record.get("snapshot") or {}).get("window")
    lines = []
    if window:
        lines.append(f"It has learned from rows up to {window['end']} and knows nothing of later changes.")
    kinds = {f["kind"] for f in schema["features"]}
    if "category" in kinds:
        lines.append("Categories that did not occur in training are accepted, but nothing is known about them.")
    if evaluation.get("rows"):
        lines.append(f"The metrics are those of {evaluation['rows']:,} rows; other groups of rows can differ.")
    code = ((record.get("config") or {}).get("features") or {}).get("callable")
    if code:
        lines.append(f"Its input is what {code} makes of the source; that code is not part of the bundle.")
    if foreign:
        lines.append(f"It holds types that are not scikit-learn's and must be importable: {', '.join(foreign)}.")
    lines.extend(f"Warned in training: {w}" for w in record.get("warnings") or ())
    return _Section("Limits", tuple(lines) or ("None recorded.",))


def _lineage(record: dict[str, Any]) -> _Section:
    model, code, run = record.get("model") or {}, record.get("code") or {}, record.get("run") or {}
    environment = model.get("environment") or {}
    pairs: list[tuple[str, Any]] = [
        ("Snapshot", (record.get("snapshot") or {}).get("snapshot")),
        ("Model sha256", model.get("digest")),
        ("Model size", f"{model['bytes']:,} bytes" if model.get("bytes") is not None else None),
        ("Configuration sha256", record.get("config_hash")),
        ("Code (git)", code.get("git")),
        *((f"Code {path}", digest) for path, digest in sorted((code.get("files") or {}).items())),
        ("Seed", str(record["seed"]) if record.get("seed") is not None else None),
        ("Training time", f"{record['seconds']:.1f} s" if record.get("seconds") is not None else None),
        ("Run", f"{run['dag_id']} {run['run_id']}" if run else None),
        ("Python", environment.get("python")),
        ("Platform", environment.get("platform")),
        *((name, v) for name, v in sorted((environment.get("packages") or {}).items()) if v is not None),
    ]
    return _pairs("Where it comes from", pairs)


def _loading(record: dict[str, Any], foreign: Sequence[str]) -> _Section:
    python = (record.get("model") or {}).get("environment", {}).get("python")
    lines = ["In the unzipped bundle; nothing else of the pipeline is needed."]
    if python:
        lines.append(f"The model was made with Python {python}.")
    command = "\n".join(["pip install -r requirements.txt", predict_command(foreign)])
    return _Section("How to use it", tuple(lines), code=command)
