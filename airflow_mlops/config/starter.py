"""The text of a pipeline file to start from, with comments that say what was found and what to change.

Names and values may come from any data: each goes through :func:`scalar`, in comments too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_mlops.config.yaml_source import MAX_NODES

_WIDTH = 100
_SHOWN = 6
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
# What some YAML parser takes for something else than text.
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True)
class Bar:
    """The gate that a useless model does not pass: the score of ``who``, who learns nothing."""

    metric: str
    at_least: float
    who: str


@dataclass(frozen=True)
class Findings:
    """What data say about a pipeline for them.

    :param complete: whether all rows were read; ``rows`` and ``columns`` count what was.
    :param candidates: other columns that could be the target.
    :param positive: of two classes, the one that is looked for; ``share`` of the rows (0…1) has it.
    :param classes: how many there are; ``None`` for regression.
    :param missing: rows without a target.
    :param days: what ``timestamp`` spans; ``newest`` is the last of them.
    :param by_time: whether the latest rows can be held out.
    :param times: other columns that hold times.
    :param unused: column → why it cannot be a feature.
    :param index: a feature that looks like the row numbers pandas writes into CSV files; may be empty text.
    :param leaks: columns that tell the target alone.
    :param expectations: name and arguments of each.
    """

    rows: int
    columns: int
    complete: bool
    target: str
    task: str
    estimator: str
    params: Mapping[str, Any]
    metrics: tuple[str, ...]
    bar: Bar
    candidates: tuple[str, ...] = ()
    positive: str | int | bool | None = None
    share: float | None = None
    classes: int | None = None
    missing: int = 0
    id: str | None = None
    timestamp: str | None = None
    days: int = 0
    newest: str = ""
    by_time: bool = False
    times: tuple[str, ...] = ()
    unused: Mapping[str, str] | None = None
    index: str | None = None
    leaks: tuple[str, ...] = ()
    expectations: tuple[tuple[str, Mapping[str, Any]], ...] = ()


def scalar(value: Any) -> str:
    """``value`` as YAML on one line that reads back as exactly it; a text's ``${`` is made no placeholder.

    :raises TypeError: it is not text, number, boolean, or a list of them.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        # 1e-05 is a number in YAML 1.2 and a text in 1.1.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        return '"' + "".join(_escaped(c) for c in value.replace("${", "$${")) + '"'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(scalar, value))}]"
    raise TypeError(f"{type(value).__name__} has no YAML here")


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if char == " " or (char.isprintable() and code not in (0xFEFF, 0xFFFE, 0xFFFF)):
        return char
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def starter(name: str, level: int, source: str, found: Findings, head: Sequence[str]) -> str:
    """The text of the file.

    :param source: what ``data.source`` shall say.
    :param head: sentences for its first lines; plain text.
    """
    lines = [f"# {line}" for sentence in head for line in _wrapped(sentence)]
    lines += [
        "schema: 1",
        f"pipeline: {name}",
        _with(f"level: {level}", _LEVELS[level]),
        _with(f"task: {found.task}", _task(found)),
        _with("# owner: your-team", "who answers for it"),
        "",
        *_data(level, source, found),
        "",
        *_validate(found),
        "",
        *_train(found),
        "",
        *_evaluate(found),
        "",
        *(_by_itself(found) if level else _by_hand()),
    ]
    return "\n".join(lines) + "\n"


_LEVELS = {
    0: "0: a person starts training and approves the model",
    1: "1: trains, promotes and watches by itself",
    2: "2: and its own code is delivered by CI/CD",
}


def _with(text: str, comment: str) -> str:
    return f"{text:<38} # {comment}"


def _wrapped(sentence: str) -> list[str]:
    """Lines of at most the file's width, where words allow; control characters do not reach a comment."""
    lines: list[str] = []
    for word in "".join(c if c.isprintable() else "?" for c in sentence).split(" "):
        if lines and len(lines[-1]) + 1 + len(word) <= _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _notes(sentence: str, indent: str = "  ") -> list[str]:
    return [f"{indent}# {line}" for line in _wrapped(sentence)]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(scalar(n) for n in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _task(found: Findings) -> str:
    if found.classes is None:
        return "the target is a number"
    return f"the target has {found.classes} different values"


def _data(level: int, source: str, found: Findings) -> Iterator[str]:
    yield "data:"
    relative = "://" not in source and not source.startswith("/")
    yield f"  source: {scalar(source)}"
    below = "a path below [mlops] data_root" if relative else "below [mlops] data_root a path may be relative"
    yield f"  # {below}; a glob and s3://… work too"
    yield _with(f"  target: {scalar(found.target)}", "the column to predict")
    if found.candidates:
        yield from _notes(f"It could also be: {_listed(found.candidates)}")
    if found.missing:
        count = f"{found.missing:,} of {found.rows:,} rows have no value there"
        yield from _notes(f"{count}: a run stops until they are dropped or repaired")
    if found.positive is not None:
        share = f"{found.share:.1%} of the rows" if found.share is not None else "the class that is looked for"
        yield _with(f"  positive: {scalar(found.positive)}", f"{share}; precision, recall and the like are its own")
    if found.id is not None:
        yield _with(f"  id: {scalar(found.id)}", "names a row, never a feature; the holdout is drawn by its hash")
    else:
        yield _with("  # id: COLUMN", "a column that names each row; no column looked like one")
    if found.timestamp is not None:
        yield _with(f"  timestamp: {scalar(found.timestamp)}", "when a row came to be; never a feature")
        if found.times:
            yield from _notes(f"Other times: {_listed(found.times)}")
        yield from _split(level, found)
    else:
        yield _with("  split: {by: random, test: 0.2}", "this share of the rows only judges the model")
    if found.rows < 100:
        yield _with(f"  min_rows: {max(2, found.rows // 2)}", f"there are {found.rows}; with fewer a run stops")
    yield from _exclude(found)


def _split(level: int, found: Findings) -> Iterator[str]:
    if level:
        days = max(1, found.days)
        yield _with(f"  window: {days}d", "how far back a training reads; without it, one interval of the schedule")
        yield from _notes(
            f"Rows outside a run's window are left out. The data span {days:,} days and end on {found.newest}: "
            "a run whose window lies later finds none of them."
        )
    if found.by_time:
        yield _with("  split: {by: time, test: 0.2}", "learn from the past, be judged on the latest rows")
    else:
        yield _with("  split: {by: random, test: 0.2}", "the latest rows alone do not have every class")


def _exclude(found: Findings) -> Iterator[str]:
    if found.leaks:
        yield from _notes(
            f"WARNING: each of these alone tells the target almost without error: {_listed(found.leaks)}. "
            "Exclude what is known only afterwards:"
        )
        yield f"  # exclude: {scalar(found.leaks)}"
    else:
        yield _with("  # exclude: [COLUMN]", "what is known only after the fact")
    if found.index is not None:
        yield from _notes(
            f"WARNING: {scalar(found.index)} looks like row numbers that pandas wrote (to_csv without index=False); "
            "it would be a feature."
        )
    for name, why in list((found.unused or {}).items())[:_SHOWN]:
        yield from _notes(f"Not used: {scalar(name)} {why}")


def _validate(found: Findings) -> Iterator[str]:
    yield "validate:"
    yield _with("  schema: infer", "the first good run locks columns and types")
    rows = "all rows" if found.complete else f"the {found.rows:,} rows that were read"
    yield from _notes(f"These hold for {rows}, with some room. Names and arguments are Great Expectations' own.")
    if found.expectations:
        yield "  expectations:"
    nodes = 0
    for name, arguments in found.expectations:
        nodes += sum(len(v) if isinstance(v, (list, tuple)) else 2 for v in arguments.values())
        if nodes < MAX_NODES // 4:
            inner = ", ".join(f"{key}: {scalar(value)}" for key, value in arguments.items())
            yield f"    - {name}: {{{inner}}}"
    yield _with("  on_failure: block", "bad data stops the run; or warn, or quarantine")


def _train(found: Findings) -> Iterator[str]:
    yield "train:"
    yield from _notes("Any scikit-learn estimator; imputation, scaling and encoding are fitted inside the model.")
    yield f"  estimator: {found.estimator}"
    if found.params:
        yield f"  params: {{{', '.join(f'{key}: {scalar(value)}' for key, value in found.params.items())}}}"
    yield "  seed: 7"


def _evaluate(found: Findings) -> Iterator[str]:
    bar = found.bar
    yield "evaluate:"
    yield f"  metrics: {scalar(found.metrics)}"
    yield "  gates:"
    yield from _notes(f"{bar.at_least:g} is what {bar.who} scores. Raise it to what makes a model worth using.", "    ")
    yield f"    - {{metric: {bar.metric}, at_least: {scalar(bar.at_least)}}}"
    yield from _notes("A paired test on the same rows: shown to be at most this much worse than the champion.", "    ")
    yield f"    - {{metric: {bar.metric}, versus: champion, not_worse_by: 0.01}}"
    yield _with("  no_champion: promote", "the first model only has to pass the other gates")


def _by_hand() -> Iterator[str]:
    yield "approve:"
    yield _with("  timeout: 72h", "no answer in three days is a no")
    yield ""
    yield "# deploy:"
    yield "#   batch: {source: rows_to_score.csv}   # what a batch inference reads; default: data.source"


def _by_itself(found: Findings) -> Iterator[str]:
    yield "deploy:"
    yield "  batch:"
    yield _with('    schedule: "@daily"', "score with the champion")
    yield _with("    # source: rows_to_score.csv", "what to score; without it, data.source")
    yield ""
    yield _with("monitor:", "after each batch of predictions")
    yield _with("  drift: {effect: 0.1, alpha: 0.05}", "an alarm must be large and significant")
    yield _with("  max_age: 60d", "an older champion is stale")
    yield from _notes("With the outcomes that arrive later, the champion's score is watched, too:")
    yield f"  # labels: {{source: outcomes.csv, join_on: {scalar(found.id or 'ID_COLUMN')}}}"
    yield f"  # performance: {{metric: {found.metrics[0]}, max_drop: 0.03}}"
    yield ""
    yield "retrain:"
    yield _with('  schedule: "@weekly"', "in any case")
    yield _with("  when: [drift, staleness]", "and on these; new_data and performance are possible, too")
    yield _with("  confirm: 2 of 3", "not on one alarm, but when two of the last three checks raised it")
    yield _with("  cooldown: 7d", "and no sooner than this after the last training")
    yield _with("  max_per_month: 4", "and no more often")
