"""Mutated pipeline files: no traceback, no hang, no import, no file, no network, and every place is right.

``make test`` tries a few thousand; ``make fuzz`` (``MUTATIONS=20000``) is the long proof. Seeds are fixed,
so a failure names the mutation that repeats it.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_mlops.config import InvalidPipeline, load_pipeline, load_text
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import LINE_BREAK, Source, parse

MUTATIONS = int(os.environ.get("MUTATIONS", "3000"))
SECONDS = 1.0
SETTINGS = Settings(environment="staging", allowed_imports=("my_pkg", "my"), allow_commands=True)

VALID = """\
schema: 1
pipeline: flight_delays
level: 1
owner: ops-ml
description: "late? ${env:MLOPS_FUZZ}"
task: classification
dag: {start_date: 2013-01-01, timezone: UTC, catchup: false, max_active_runs: 1, tags: [flights]}
resources: {pool: ml, timeout: 2h}
data:
  source: "s3://lake/flights/{{ window.start }}.parquet"
  window: 90d
  target: delayed
  id: flight_id
  timestamp: scheduled_departure
  exclude: [dep_time, air_time]
  fresh_within: 26h
  min_rows: 10
  max_row_drop: 0.5
  split: {by: time, test: 0.2}
validate:
  schema: infer
  expectations:
    - expect_column_values_to_be_between: {column: distance, min_value: 0, max_value: 6000, mostly: 0.999}
    - expect_column_values_to_be_in_set:
        column: origin
        value_set: [EWR, JFK]
  on_failure: block
features: {callable: "my_pkg.features:build"}
train:
  estimator: sklearn.ensemble.HistGradientBoostingClassifier
  params: {max_iter: 200}
  search: {strategy: random, n_iter: 20, metric: roc_auc, cv: 3, space: {learning_rate: [0.03, 0.1, 0.3]}}
  seed: 7
evaluate:
  metrics: [roc_auc, log_loss]
  gates:
    - {metric: roc_auc, at_least: 0.62}
    - {metric: roc_auc, versus: champion, not_worse_by: 0.005, confidence: 0.95}
    - metric: roc_auc
      at_least: 0.55
      slices: [carrier]
      min_rows: 200
    - {value: {name: profit, matrix: [[0, -5], [-1, 10]]}, at_least: 0.2}
    - {serving: {p95_ms: 20, max_mb: 200, rows: 50}}
    - {behaviours: flights.behaviours.yaml, at_least: 0.9}
  no_champion: promote
approve: {required: false, by: [ml-lead], timeout: 48h, on_timeout: reject}
deploy:
  batch: {source: "s3://lake/scoring/{{ window.start }}.parquet", output: "s3://lake/out/", schedule: "@daily"}
monitor:
  schedule: "0 6 * * *"
  labels: {source: "s3://lake/outcomes/{{ window.start }}.parquet", join_on: flight_id, delay: 1d}
  drift: {min_rows: 30, effect: 0.1, alpha: 0.05, correction: bonferroni}
  performance: {metric: roc_auc, max_drop: 0.03}
  max_age: 30d
retrain:
  schedule: "@weekly"
  when: [new_data, drift, performance, staleness]
  cooldown: 7d
  max_per_month: 4
notify: {events: [failed, rejected], notifiers: [{class: my.Notifier}]}
environments:
  staging:
    dag: {max_active_tasks: 2}
    data: {positive: 1}
  production: {}
"""
PIECES = (
    "{", "}", "[", "]", ": ", "- ", "? ", ",", "#", "'", '"', "|\n", ">\n", "&a ", "*a", "!!x ", "<<: ", "\n", "\n  ",
    "\t", "\0", "---\n", "...\n", "%", "@", "~", "no", ".nan", "1e999", "0x", "1.10", "12:30", "{{", "}}", "{% if %}",
    "{{ 9**9**9 }}", "{{ a(b) }}", "\u2028", "\ufeff", "\ud800", "\x85", "😀", "null", "9" * 40, "0d", "* * * * *",
    "${env:MLOPS_FUZZ}", "${env:HOME}", "${conn:x}", "${", "extends: /etc/x.yaml\n", "extends: [a.yaml]\n",
    "!!python/object/apply:os.system [id]", "environments: {a: {level: 0}}\n", "os:system", "sklearn.os.system",
    "(a+)+$", "(" * 500, "[" * 60, "- " * 60, "a: " * 60,
)  # fmt: skip
# Keys whose values may be anything, and what is inside of them.
FREE = {"params", "space", "args", "executor_config", "positive", "value_set"}
# A wrong value of these says nothing for itself: the key above decides.
SKIPPED = {"environments", "staging", "production"}
OPENED = re.compile(
    r"/zoneinfo/|/tzdata/|catalogue\.json$|/__pycache__/|\.pyc?$|\.dist-info/METADATA$|/python\d+\.zip$"
)
FORBIDDEN = (
    "socket.",
    "subprocess.",
    "os.system",
    "os.exec",
    "os.spawn",
    "os.posix_spawn",
    "exec",
    "ctypes.",
    "urllib",
)

_watching: list[list[str]] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        if not OPENED.search(str(args[0])) and str(args[0]) not in ALLOWED_FILES:
            _watching[-1].append(f"open {args[0]!r}")
    elif event == "import":
        if str(args[0]).partition(".")[0] not in LIBRARIES:
            _watching[-1].append(f"import {args[0]}")
    elif event == "exec" and getattr(args[0], "co_name", "") == "<module>":
        pass  # a module that is imported: judged above
    elif event.startswith(FORBIDDEN):
        _watching[-1].append(f"{event} {args!r:.100}")


ALLOWED_FILES: set[str] = set()
# The libraries themselves are there before the watch begins; they import parts of their own late.
LIBRARIES = {"airflow_mlops", "jinja2", "croniter", "encodings", "importlib", "email", "tzdata"}


@pytest.fixture(scope="module", autouse=True)
def _hook() -> Iterator[None]:
    sys.addaudithook(_watch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLOPS_FUZZ", "value")
        load_text(VALID.replace("window.start", "window.start.day"), settings=SETTINGS)
        yield


def judge(read: Callable[[], object], files: dict[str, list[str]]) -> list[Issue]:
    """Read under watch; returns the issues, whose places must exist in ``files``."""
    seen: list[str] = []
    _watching.append(seen)
    start = time.process_time()
    error: InvalidPipeline | None = None
    try:
        read()
    except InvalidPipeline as e:
        error = e
    finally:
        seconds = time.process_time() - start
        _watching.pop()
    issues = error.issues if error else []
    assert error is None or (issues and str(error))
    assert not seen, seen
    assert seconds < SECONDS, seconds
    for issue in issues:
        lines = files[issue.file]
        assert 1 <= issue.line <= len(lines), issue
        assert issue.text == lines[issue.line - 1], issue
        assert 1 <= issue.column <= len(issue.text) + 1, issue
        assert issue.message
        assert len(issue.message) < 1000, issue
    return issues


def judge_text(text: str) -> list[Issue]:
    lines = LINE_BREAK.split(text.removeprefix("\ufeff"))
    return judge(lambda: load_text(text, "p.yaml", SETTINGS), {"p.yaml": lines})


def spots(source: Source, value: Any = None, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """(path, place of the key, place of the value) of every key of a mapping."""
    value = source.data if not path else value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key), *source.where(value)[key]
            yield from spots(source, inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from spots(source, inner, (*path, i))


def _spliced(lines: list[str], place: Any, length: int, new: str) -> str:
    line = lines[place.line]
    changed = line[: place.column] + new + line[place.column + length :]
    return "\n".join([*lines[: place.line], changed, *lines[place.line + 1 :]])


def _scalar_length(line: str, column: int) -> int:
    quote = line[column]
    if quote in "\"'":
        return line.index(quote, column + 1) + 1 - column
    return len(re.split(r"[,}\]]", line[column:])[0].rstrip())


SOURCE = parse(VALID, "p.yaml")
SPOTS = [s for s in spots(SOURCE) if not FREE & set(s[0][:-1]) and s[0][-1] not in SKIPPED]
SCALARS = [s for s in SPOTS if not isinstance(SOURCE.resolve(s[0])[1], (dict, list)) and s[0][-1] not in FREE]
# A broken placeholder is told at its own place; expectations take mappings for some numbers.
TYPED = [s for s in SCALARS if s[0] != ("description",) and s[0][:2] != ("validate", "expectations")]


def misspelt(rng: random.Random) -> tuple[str, int, str]:
    path, key, _ = rng.choice(SPOTS)
    name = str(path[-1])
    new = rng.choice([name + "x", name[:-1] + "zq", name[::-1] + "q", name.upper(), "x" + name])
    return _spliced(SOURCE.text.lines, key, len(name), new), key.line, "key"


def wrong_type(rng: random.Random) -> tuple[str, int, str]:
    _, _, place = rng.choice(TYPED)
    length = _scalar_length(SOURCE.text.lines[place.line], place.column)
    new = rng.choice(["{a: {b: 1}}", "[[1], {x: y}]", "{}"])
    return _spliced(SOURCE.text.lines, place, length, new), place.line, "value"


def tagged(rng: random.Random) -> tuple[str, int, str]:
    _, _, place = rng.choice(SCALARS)
    tag = rng.choice(["!!python/object/apply:os.system ", "!!python/name:os.system ", "!x ", "!!int "])
    return _spliced(SOURCE.text.lines, place, 0, tag), place.line, "tag"


def doubled(rng: random.Random) -> tuple[str, int, str]:
    simple = [s for s in SCALARS if s[1].column == len(SOURCE.text.lines[s[1].line]) - len(
        SOURCE.text.lines[s[1].line].lstrip())]  # fmt: skip
    _, key, _ = rng.choice(simple)
    lines = list(SOURCE.text.lines)
    lines.insert(key.line + 1, lines[key.line])
    return "\n".join(lines), key.line + 1, "duplicate"


@pytest.mark.parametrize("kind", [misspelt, wrong_type, tagged, doubled])
@pytest.mark.timeout(900)
def test_a_mistake_is_reported_on_its_line(kind: Callable[[random.Random], tuple[str, int, str]]) -> None:
    for seed in range(max(1, MUTATIONS // 8)):
        text, line, what = kind(random.Random(f"{kind.__name__}{seed}"))
        issues = judge_text(text)
        assert any(issue.line == line + 1 for issue in issues), (seed, what, line + 1, text.split("\n")[line], issues)


@pytest.mark.timeout(900)
def test_text_that_is_changed_at_random() -> None:
    for seed in range(MUTATIONS // 4):
        rng = random.Random(f"text{seed}")
        text = VALID
        for _ in range(rng.randint(1, 5)):
            start = rng.randrange(len(text) + 1)
            text = text[:start] + rng.choice(PIECES) + text[start + rng.choice([0, 0, 1, 3, 20]) :]
        judge_text(text)


@pytest.mark.timeout(900)
def test_lines_that_are_moved() -> None:
    for seed in range(MUTATIONS // 8):
        rng = random.Random(f"lines{seed}")
        lines = VALID.split("\n")
        for _ in range(rng.randint(1, 5)):
            i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
            what = rng.choice("dsnoi")
            if what == "d" and len(lines) > 1:
                del lines[i]
            elif what == "s":
                lines[i], lines[j] = lines[j], lines[i]
            elif what == "n":
                lines[i] = " " * rng.randint(1, 4) + lines[i]
            elif what == "o":
                lines[i] = lines[i].lstrip()
            else:
                lines.insert(i, lines[j])
        judge_text("\n".join(lines))


@pytest.mark.timeout(900)
def test_files_of_changed_bytes_that_extend_others(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    file = tmp_path / "p.yaml"
    ALLOWED_FILES.update({str(base), str(file)})
    head, _, tail = VALID.partition("data:\n")
    for seed in range(max(1, MUTATIONS // 8)):
        rng = random.Random(f"bytes{seed}")
        parts = {
            base: bytearray(("data:\n" + tail).encode()),
            file: bytearray(("extends: base.yaml\n" + head).encode()),
        }
        for _ in range(rng.randint(1, 4)):
            raw = parts[rng.choice([base, file])]
            at = rng.randrange(len(raw))
            raw[at : at + rng.choice([0, 1, 1, 8])] = rng.choice(
                [b"\xff", b"\x00", b"\xc3", b"\r\n", b"\n", b" ", b":", b"{", b"*x", b"\xed\xa0\x80", rng.randbytes(3)]
            )
        files = {}
        for path, raw in parts.items():
            path.write_bytes(raw)
            text = bytes(raw).decode("utf-8-sig", errors="replace")
            files[str(path)] = LINE_BREAK.split(text)
        issues = _judge_files(file, files, parts)
        assert all(Path(i.file) in parts for i in issues)


def _judge_files(file: Path, files: dict[str, list[str]], parts: dict[Path, bytearray]) -> list[Issue]:
    try:
        for raw in parts.values():
            bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        # The shown line ends where the text does; only that it is a clear answer counts.
        with pytest.raises(InvalidPipeline):
            load_pipeline(file, SETTINGS)
        return []
    return judge(lambda: load_pipeline(file, SETTINGS), files)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)),
        "[" * 100_000, "{a: " * 50_000, "- " * 100_000, "a:\n" * 50_000, "? " * 20_000, "&a " * 10_000,
        "a: " + "x" * 900_000, "'" * 500_001, "\n".join(f"k{i}: {i}" for i in range(60_000)),
        "data: {source: '" + "{{ window.start }}" * 30_000 + "'}", "dag: {timezone: ../../../../etc/passwd}",
        "pipeline: " + "a" * 500_000, "!" * 100_000, "%YAML 9.9\n---\na: 1", "\ufeff" * 100_000, "${env:" * 60_000,
        "owner: '" + "${env:MLOPS_FUZZ}" * 40_000 + "'", "retrain: {schedule: '" + "1," * 49 + "1 * * * *'}",
        "dag: {start_date: 0001-01-01}", "train: {params: {a: " + "[" * 39, "#" * 1_000_000,
        "validate: {expectations: [{expect_column_values_to_match_regex: {column: a, regex: '"
        + "(a?){99}" * 20 + "'}}]}",
    ],
    ids=lambda text: text[:20].strip(),
)  # fmt: skip
def test_bombs(text: str) -> None:
    judge_text(text)
