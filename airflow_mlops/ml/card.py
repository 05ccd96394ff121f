"""The model card: what a model is for, made of, good at and not, what it cost, and how to load it.

Sections after Mitchell et al., "Model Cards for Model Reporting" (2019), as far as a record can tell them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_mlops.exceptions import ObjectNotFound
from airflow_mlops.ml import card_sections as section
from airflow_mlops.ml.card_sections import Section
from airflow_mlops.ml.html import render
from airflow_mlops.registry.artifacts import FORMAT, foreign_types
from airflow_mlops.registry.registry import Version
from airflow_mlops.store.base import Store
from airflow_mlops.store.content import get_blob_file, get_json, put_blob

predict_command = section.predict_command

_TEMPLATES = Path(__file__).parent / "templates"
# Characters that turn the direction of what follows, or are not to be seen at all.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_MOST_TEXT = 2_000
_PAGE = """<p>{{ purpose }}</p>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% for line in section.lines %}<p>{{ line }}</p>
{% endfor %}
{% if section.bars %}{% set height = 22 * section.bars | length %}
<div class="scroll"><svg width="640" height="{{ height }}" viewBox="0 0 640 {{ height }}" role="img" \
aria-label="{{ section.title }}">
{% for bar in section.bars %}{% set y = 22 * loop.index0 %}
<text x="212" y="{{ y + 15 }}" text-anchor="end" font-size="13" fill="currentColor">{{ bar.name }}</text>
<rect x="{{ bar.x }}" y="{{ y + 4 }}" width="{{ bar.width }}" height="14"><title>{{ bar.told }}</title></rect>
<line x1="{{ bar.low }}" x2="{{ bar.high }}" y1="{{ y + 11 }}" y2="{{ y + 11 }}" stroke="currentColor"/>
{% endfor %}</svg></div>
{% endif %}
{% if section.rows %}<div class="scroll"><table>
<thead><tr>{% for c in section.columns %}<th>{{ c }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in section.rows %}<tr>{% for c in row %}<td>{{ c }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% if section.code %}<div class="scroll"><pre><code>{{ section.code.text }}</code></pre></div>
{% endif %}
{% endfor %}
"""


def note(version: Version, kind: str) -> dict[str, Any]:
    """The newest note of a kind, or ``{}``."""
    return version.notes[kind][-1] if version.notes.get(kind) else {}


def card_of(version: Version, store: Store, *, foreign: Sequence[str] | None = None) -> tuple[str, str]:
    """The version's model card, as (Markdown, HTML).

    :param store: that holds the version; the card tells how to load it from there.
    :param foreign: types in the model file that whoever loads it must name; default: looked up in the file.
    """
    evaluation = note(version, "evaluation")
    return model_card(
        version.record,
        evaluation,
        note(version, "gates"),
        pipeline=version.pipeline,
        version=version.number,
        key=version.key,
        approval=note(version, "approval") or None,
        foreign_types=_foreign(version, store) if foreign is None else foreign,
        importance=_kept(store, evaluation.get("importance")),
        costs=version.notes.get("cost", ()),
        store=store.uri,
    )


def keep_card(version: Version, store: Store) -> tuple[dict[str, str], str]:
    """Store the version's card; returns the note ``card`` (digests of ``markdown`` and ``html``) and the page."""
    markdown, html = card_of(version, store)
    return {"markdown": put_blob(store, markdown.encode()), "html": put_blob(store, html.encode())}, html


def _kept(store: Store, digest: str | None) -> dict[str, Any] | None:
    try:
        return get_json(store, digest) if digest else None
    except ObjectNotFound:
        return None  # a card can be made without it, and says so


def _foreign(version: Version, store: Store) -> list[str]:
    model = version.record["model"]
    if model.get("format") != FORMAT:
        return []
    with tempfile.TemporaryDirectory(prefix="mlops-") as folder:
        path = Path(folder, "model")
        get_blob_file(store, model["digest"], path)
        return foreign_types(path)


def model_card(
    record: dict[str, Any],
    evaluation: dict[str, Any],
    gates: dict[str, Any],
    profile: dict[str, Any] | None = None,
    *,
    pipeline: str,
    version: int,
    key: str | None = None,
    approval: dict[str, Any] | None = None,
    foreign_types: Sequence[str] = (),
    importance: dict[str, Any] | None = None,
    costs: Sequence[Mapping[str, Any]] = (),
    store: str | None = None,
) -> tuple[str, str]:
    """Return the card as Markdown and as one self-contained HTML page; every value is escaped.

    What the record does not hold is said to be not recorded; nothing is made up. Of private columns there is
    the name alone.

    :param record: the version's record: model, schema, task, snapshot, rows, seen, config, config_hash, code, seed,
        estimator, params, seconds, warnings, about (owner, description), run.
    :param evaluation: note with ``metrics`` (name → candidate, its interval, champion), ``rows``, ``champion``.
    :param gates: note with ``verdict``, ``sentence``, ``results`` (each with verdict, sentence and slices).
    :param profile: of the training snapshot, with ``columns`` (name, type, nulls, …).
    :param version: 0 where it is not registered.
    :param approval: note with ``by`` and ``answer``.
    :param foreign_types: what :func:`airflow_mlops.registry.artifacts.foreign_types` found in the model file.
    :param importance: what :func:`airflow_mlops.ml.importance.importance` found.
    :param costs: the ``cost`` notes, one a step.
    :param store: URI of the store that the version can be loaded from.
    """
    about = record.get("about") or {}
    foreign_types = [" ".join(_tame(t).split()) for t in foreign_types]
    name = pipeline if key is None else f"{pipeline}[{key}]"
    sections = [
        section.overview(record, about),
        section.data(record, profile),
        section.metrics(evaluation),
        section.gates(gates, approval),
        *section.slices(gates),
        section.explanation(importance),
        *section.features(record),
        section.limits(record, evaluation, gates, foreign_types),
        section.cost(costs),
        section.lineage(record),
        *section.loading(record, foreign_types, pipeline, version, key, store),
    ]
    values = {
        "title": _tame(f"{name}, version {version}" if version else f"{name}, not registered"),
        "purpose": _tame(about.get("description"))
        or f"Predicts {_tame(record['schema']['target'])}; no description is recorded.",
        "sections": [_tamed(s) for s in sections],
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


def _tame(text: Any) -> str:
    """Text as it can be seen, of bounded length; column names and categories come from the data."""
    seen = _UNSEEN.sub("", str(text or ""))
    return seen if len(seen) <= _MOST_TEXT else seen[: _MOST_TEXT - 1] + "…"


def _tamed(found: Section) -> Section:
    return replace(
        found,
        lines=tuple(map(_tame, found.lines)),
        rows=tuple(tuple(map(_tame, row)) for row in found.rows),
        bars=tuple(replace(bar, name=_tame(bar.name), told=_tame(bar.told)) for bar in found.bars),
    )


def _markdown(text: Any) -> str:
    """Escape what Markdown, or HTML inside it, would take as markup; a table cell stays one line."""
    one_line = " ".join(str(text).split())
    escaped = re.sub(r"([\\`*\[\]|#~])|(?<![A-Za-z0-9_])_|_(?![A-Za-z0-9_])", r"\\\g<0>", one_line)
    # A list, a rule or an underlined heading, at the beginning of a line.
    escaped = re.sub(
        r"^([-+](?=\s|$)|=)|^(\d+)(?=[.)](?:\s|$))", lambda m: rf"\{m[1]}" if m[1] else f"{m[2]}\\", escaped
    )
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
