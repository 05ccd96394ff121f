"""The frame of our own reports: one self-contained page, everything escaped, no script, nothing loaded."""

from __future__ import annotations

from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined

_FRAME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #f4f6f9; --ink: #1c2430; --dim: #5b6675; --bar: #4c7bd9;
        --ok: #18794e; --bad: #c62a2f; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --line: #353c47; --soft: #1d222a; --ink: #e6e9ee; --dim: #9aa5b4;
        --bar: #7aa2f7; --ok: #4cc38a; --bad: #ff6369; --paper: #14181e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
       max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.dim, .dim { color: var(--dim); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
th { background: var(--soft); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
.ok { color: var(--ok); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
code { font: 13px/1.4 ui-monospace, monospace; background: var(--soft); padding: .05rem .3rem; border-radius: 3px;
       overflow-wrap: anywhere; }
svg rect { fill: var(--bar); }
</style></head><body>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body></html>
"""


def render(body: str, **values: Any) -> str:
    """Fill the Jinja template ``body`` with autoescaped ``values`` into the frame; needs at least ``title``."""
    page = '{% extends "frame" %}{% block body %}' + body + "{% endblock %}"
    environment = Environment(
        loader=DictLoader({"frame": _FRAME, "page": page}), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["short"] = short
    return environment.get_template("page").render(values)


def short(value: Any) -> str:
    """A value for people: few digits, no endless text."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"
