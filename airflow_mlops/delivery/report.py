"""What CI found, as plain data, as Markdown for a pull request, and as JUnit's XML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from airflow_mlops.delivery.fleet_trial import GOES_ON, reason_of
from airflow_mlops.delivery.record import Check, Stage, Trial, count
from airflow_mlops.delivery.told import metric_names
from airflow_mlops.delivery.trial import same_features
from airflow_mlops.factory.outline import mermaid, outline

_MARKS = {"passed": "✅", "failed": "❌", "skipped": "➖"}
_VERDICTS = {"better": "**better**", "worse": "**worse**"}
_COSTS = {"wall_seconds": "wall-clock time, s", "cpu_seconds": "processor time, s"}
_MOST_LINES, _MOST_CHARS = 60, 6000
_MOST_PAGE = 60_000  # a comment on GitHub holds 65,536 characters
# What XML 1.0 cannot hold, escaped or not.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(check: Check) -> dict[str, Any]:
    """Return all that was found, as plain JSON types."""
    return {
        "project": check.project,
        "commit": check.repository.head,
        "uncommitted": check.uncommitted,
        "base": check.base,
        "exit_code": check.exit_code,
        "failed": check.failed.name if check.failed else None,
        "stages": [
            {
                "name": stage.name,
                "status": stage.status,
                "seconds": stage.seconds,
                "told": list(stage.told),
                "cases": [vars(case) for case in stage.cases],
            }
            for stage in check.stages
        ],
        "bundle": {"digest": check.digest, "content": check.content, "signed_by": check.signed_by},
        "changes": [
            {"pipeline": change.name, "what": change.what, "config": change.config, "code": list(change.code)}
            for change in check.changes
        ],
        "pipelines": [
            {
                "pipeline": trial.change.name,
                "config": [
                    {"environment": environment, "key": key, "before": before, "after": after}
                    for environment, key, before, after in differences(trial)
                ],
                "after": trial.after,
                "before": trial.before,
                "comparison": trial.comparison,
                "not_compared": trial.not_compared,
                "gates": trial.gates,
                "contract": trial.contract,
            }
            for trial in check.trials
        ],
    }


def differences(trial: Trial) -> Iterator[tuple[str | None, str, Any, Any]]:
    """Environment, key, and values before and after, of each effective value that differs; none of a new pipeline.

    What an environment has in common with the file as it is without one is told once.
    """
    before, after = trial.change.before, trial.change.after
    if before is None or after is None:
        return
    told: set[tuple[str, str]] = set()
    for environment in dict.fromkeys([*after.values, *before.values]):
        old, new = before.values.get(environment, {}), after.values.get(environment, {})
        for key in dict.fromkeys([*new, *old]):
            pair = (key, f"{old.get(key)!r} → {new.get(key)!r}")
            if old.get(key) != new.get(key) and pair not in told:
                told.add(pair)
                yield environment, key, old.get(key), new.get(key)


# --- Markdown --------------------------------------------------------------------------------------


def markdown(check: Check) -> str:
    """Return the report for a pull request; where it would be too long for a comment, without the graphs."""
    page = "\n".join(_page(check, graphs=True)) + "\n"
    return page if len(page) <= _MOST_PAGE else "\n".join(_page(check, graphs=False)) + "\n"


def _page(check: Check, *, graphs: bool) -> Iterator[str]:
    failed = check.failed
    yield f"# {_MARKS['failed' if failed else 'passed']} Pipelines of {_inline(check.project)}: " + (
        f"{failed.name} failed" if failed else "all stages passed"
    )
    yield ""
    against = f" against `{check.base[:12]}`" if check.base else ", every pipeline; nothing to compare with was named"
    yield f"Commit `{check.repository.head[:12]}`{against}."
    if check.uncommitted:
        yield ""
        more = f" and {len(check.uncommitted) - 10} more" if len(check.uncommitted) > 10 else ""
        listed = ", ".join(_code(line) for line in check.uncommitted[:10])
        many = count(len(check.uncommitted), "uncommitted change")
        yield f"⚠️ **Not this commit alone**: {many}, too: {listed}{more}."
    yield ""
    yield "| Stage | | | s |"
    yield "|---|---|---|---:|"
    for stage in check.stages:
        first = _cell(stage.told[0]) if stage.told else ""
        yield f"| {stage.name} | {_MARKS[stage.status]} {stage.status} | {first} | {stage.seconds:.1f} |"
    yield ""
    if failed is not None:
        yield from _failure(failed)
    if check.digest:
        signed = f"signed with the key `{check.signed_by}`" if check.signed_by else "not signed"
        yield f"Bundle `{check.digest}`, {signed}; content `{check.content}`."
        yield ""
    yield from _changed(check)
    for trial in check.trials:
        yield from _trial(trial, check.base is not None, graphs)


def _failure(stage: Stage) -> Iterator[str]:
    yield f"## Why {stage.name} failed"
    yield ""
    yield from _fenced("text", "\n".join(stage.told))
    yield ""


def _changed(check: Check) -> Iterator[str]:
    if check.base is None:
        return
    yield "## Changed pipelines"
    yield ""
    if not check.changes:
        yield "None: no resolved configuration and no imported code of a pipeline differs."
    for change in check.changes:
        words = ["configuration"] if change.config else []
        what = change.what if None in (change.before, change.after) else ", ".join([*words, *map(_code, change.code)])
        yield f"- {_code(change.name)}: {what}"
    yield ""


def _trial(trial: Trial, compared: bool, graphs: bool) -> Iterator[str]:
    yield f"## {_inline(trial.change.name)}"
    yield ""
    yield from _config(trial)
    yield from _graph(trial, graphs)
    if trial.after is None:
        return
    yield from _metrics(trial, compared)
    yield from _keys(trial)
    yield from _gates(trial)
    yield from _data(trial)
    yield from _cost(trial)
    if trial.contract is not None:
        yield "### Contract"
        yield ""
        said = trial.contract["problems"] or [
            f"Training and prediction make the same features of {trial.contract['rows']} rows."
        ]
        yield from (f"- {_inline(line)}" for line in said)
        yield ""


def _config(trial: Trial) -> Iterator[str]:
    found = list(differences(trial))
    if not found:
        return
    yield "### Configuration"
    yield ""
    yield "| Key | Before | After | Environment |"
    yield "|---|---|---|---|"
    for environment, key, before, after in found:
        yield f"| {_code(key)} | {_value(before)} | {_value(after)} | {_cell(environment or 'all')} |"
    yield ""


def _graph(trial: Trial, shown: bool) -> Iterator[str]:
    before, after = (p and mermaid(outline(p.config)) for p in (trial.change.before, trial.change.after))
    yield "### DAGs"
    yield ""
    if before == after:
        yield "As before."
        yield ""
        return
    if not shown:
        yield "Others than before; left out, for this report is long: `airflow mlops describe FILE --output mermaid`."
        yield ""
        return
    for title, graph in (("Before", before), ("After", after)):
        if graph:
            yield f"<details><summary>{title}</summary>"
            yield ""
            yield from _fenced("mermaid", graph.rstrip())
            yield ""
            yield "</details>"
            yield ""


def _metrics(trial: Trial, compared: bool) -> Iterator[str]:
    after = trial.after or {}
    yield "### Metrics"
    yield ""
    comparison = trial.comparison
    if comparison is None:
        if trial.not_compared and compared:
            yield f"Not compared with the pipeline before: {_inline(trial.not_compared)}."
            yield ""
        yield "| Metric | Value | 95 % interval |"
        yield "|---|---:|---|"
        for name in metric_names(trial):
            value = after["metrics"][name]
            ends = [value["candidate_low"], value["candidate_high"]]
            interval = "–" if None in ends else " … ".join(map(_number, ends))
            yield f"| {_cell(name)} | {_number(value['candidate'])} | {interval} |"
        yield ""
        return
    of = f", those of {count(len(comparison['keys']), 'key')} together" if "keys" in comparison else ""
    yield f"Both were trained on the same snapshot and judged on the same {comparison['rows']:,} rows of it{of}."
    yield ""
    yield "| Metric | Before | After | Advantage now (one-sided bounds, 95 %) | Verdict |"
    yield "|---|---:|---:|---|---|"
    for metric in comparison["metrics"]:
        low, high = metric["low"], metric["high"]
        bounds = f" ({low:+.4f} … {high:+.4f})" if low is not None and high is not None else ""
        verdict = _VERDICTS.get(metric["verdict"], metric["verdict"])
        yield (
            f"| {_cell(metric['name'])} | {_number(metric['before'])} | {_number(metric['after'])} "
            f"| {metric['difference']:+.4f}{bounds} | {verdict} |"
        )
    yield ""


def _keys(trial: Trial) -> Iterator[str]:
    """The keys of a fleet that were tried, and what came of each."""
    rows = ((trial.after or {}).get("fleet") or {}).get("keys")
    if not rows:
        return
    names = metric_names(trial)
    before = {row["key"]: row["before"] for row in (trial.comparison or {}).get("keys", ())}
    yield "### Keys"
    yield ""
    yield f"| Key | Rows | {' | '.join(map(_cell, names))} | |"
    yield f"|---|---:|{'---:|' * len(names)}---|"
    # What needs somebody first: of a large sample not all keys fit into a comment.
    for row in sorted(rows, key=lambda row: row["status"] not in ("failed", "rejected"))[:_MOST_LINES]:
        many = row.get("train_rows", 0) + row.get("holdout_rows", 0)
        cells = [_of_key(name, before.get(row["key"], {}), row.get("metrics", {})) for name in names]
        # What it says of the champion, the comparison says better: that is the pipeline before.
        said = "passed" if row["status"] in GOES_ON else f"{row['status']}: {reason_of(row)}"
        yield f"| {_code(row['key'])} | {many:,} | {' | '.join(cells)} | {_cell(said)} |"
    if len(rows) > _MOST_LINES:
        yield from ("", f"And {len(rows) - _MOST_LINES:,} more; `airflow mlops ci --output json` has all of them.")
    yield ""


def _of_key(name: str, before: Mapping[str, float], after: Mapping[str, float]) -> str:
    if name not in after:
        return "–"
    return (f"{_number(before[name])} → " if name in before else "") + _number(after[name])


def _gates(trial: Trial) -> Iterator[str]:
    if not trial.gates:
        return
    yield "### Gates"
    yield ""
    if trial.comparison and trial.comparison["gates"]:
        yield "In these sentences the champion is the pipeline before the change."
        yield ""
    yield "| Gate | Verdict | |"
    yield "|---|---|---|"
    for gate in trial.gates:
        yield f"| {_cell(gate['name'])} | {gate['verdict']} | {_cell(gate['sentence'])} |"
    yield ""


def _data(trial: Trial) -> Iterator[str]:
    after = trial.after or {}
    snapshot, rows = after["snapshot"], after["rows"]
    yield "### Data"
    yield ""
    yield (
        f"- Snapshot: {snapshot['rows']:,} rows, {len(after['columns'])} columns, "
        f"fingerprint `{snapshot['fingerprint'][:12]}`; {rows['train']:,} for training, {rows['holdout']:,} held out."
    )
    before = trial.before or {}
    if source := before.get("data"):
        if "problem" in source:
            yield f"- The data of before cannot be read here: {_inline(source['problem'])}"
        else:
            now = after["columns"]
            added = [c for c in now if c not in source["columns"]]
            gone = [c for c in source["columns"] if c not in now]
            said = [f"+ {_code(c)}" for c in added] + [f"− {_code(c)}" for c in gone]
            yield f"- Other data than before: {source['rows']:,} rows then; columns: {', '.join(said) or 'the same'}."
    if before:
        found = [_code(line) for line in same_features(before["features"], after["features"])]
        yield f"- Features of the model: {', '.join(found) or 'the same'} ({len(after['features'])})."
    else:
        yield f"- Features of the model: {len(after['features'])}."
    yield from (f"- ⚠️ {_inline(text)}" for text in after["warnings"])
    yield ""


def _cost(trial: Trial) -> Iterator[str]:
    after, before = trial.after or {}, trial.before
    yield "### Cost of training and evaluation here"
    yield ""
    yield "| | Before | After | |" if before else "| | |"
    yield "|---|---:|---:|---:|" if before else "|---|---:|"
    rows = [(label, (before or {}).get("cost", {}).get(key), after["cost"][key]) for key, label in _COSTS.items()]
    rows.append(("model file, kB", before and before["model"]["bytes"] / 1000, after["model"]["bytes"] / 1000))
    for label, old, new in rows:
        if not before:
            yield f"| {label} | {new:,.2f} |"
        else:
            change = f"{(new - old) / old:+.0%}" if old else "–"
            yield f"| {label} | {old:,.2f} | {new:,.2f} | {change} |"
    yield ""


# --- text of other people ------------------------------------------------------------------------


def _inline(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~@$])", r"\\\1", flat)


def _cell(text: str) -> str:
    return _inline(text)


def _code(text: str) -> str:
    """Text as code, on one line; fit for a table."""
    flat = " ".join(str(text).split())[:300]
    longest = max((len(run) for run in re.findall(r"`+", flat)), default=0)
    fence = "`" * (longest + 1)
    padded = f" {flat} " if longest else flat
    return f"{fence}{padded}{fence}".replace("|", r"\|") if flat else ""


def _value(value: Any) -> str:
    return "–" if value is None else _code(str(value) if not isinstance(value, bool) else str(value).lower())


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def _fenced(language: str, text: str) -> Iterator[str]:
    lines = text[-_MOST_CHARS:].splitlines()
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}{language}"
    if language == "text" and (len(lines) > _MOST_LINES or len(text) > _MOST_CHARS):
        lines = [text.splitlines()[0], "…", *lines[-_MOST_LINES:]]
    yield from (line if language == "mermaid" else _NOT_XML.sub("?", line) for line in lines)
    yield fence


# --- JUnit ---------------------------------------------------------------------------------------


def junit(stages: Sequence[Stage]) -> str:
    """Return the stages as JUnit's XML: a suite for each, a case for each thing that it looked at."""
    return "\n".join(_junit(stages)) + "\n"


def _junit(stages: Sequence[Stage]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield '<testsuites name="airflow mlops ci">'
    for stage in stages:
        cases = [(c.name, c.status, c.message, c.seconds) for c in stage.cases]
        if not cases or (stage.status == "failed" and not any(c[1] == "failed" for c in cases)):
            cases.append((stage.name, stage.status, "\n".join(stage.told), stage.seconds))
        counts = {status: sum(c[1] == status for c in cases) for status in ("failed", "skipped")}
        yield (
            f'  <testsuite name={_attribute(stage.name)} tests="{len(cases)}" failures="{counts["failed"]}" '
            f'errors="0" skipped="{counts["skipped"]}" time="{stage.seconds:.3f}">'
        )
        for name, status, message, seconds in cases:
            head = f'    <testcase classname={_attribute(stage.name)} name={_attribute(name)} time="{seconds:.3f}"'
            if status == "passed":
                yield f"{head}/>"
                continue
            kind = "failure" if status == "failed" else "skipped"
            yield f"{head}><{kind} message={_attribute(message)}/></testcase>"
        yield "  </testsuite>"
    yield "</testsuites>"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("?", text), {"\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})
