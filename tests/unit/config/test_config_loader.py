from __future__ import annotations

import os
import pickle
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from airflow_mlops.config import InvalidPipeline, Issue, load_pipeline, load_text
from airflow_mlops.config.explain import PLANNED
from airflow_mlops.config.yaml_source import MAX_BYTES, MAX_DEPTH, MAX_NODES
from airflow_mlops.exceptions import ConfigError, MLOpsError

MANUAL = """\
pipeline: cancer
level: 0
data: {source: cancer.csv, target: malignant}
train: {estimator: sklearn.linear_model.LogisticRegression}
"""

CONTINUOUS = """\
pipeline: flights
level: 1
dag:
  start_date: 2013-01-01
  catchup: false
data:
  source: "in/{{ window.start }}.parquet"
  target: late
  timestamp: at
train:
  estimator: sklearn.linear_model.LogisticRegression
evaluate:
  gates:
    - metric: roc_auc
      at_least: 0.6
monitor:
  max_age: 30d
retrain:
  schedule: "@weekly"
"""


def issues(text: str) -> list[Issue]:
    with pytest.raises(InvalidPipeline) as caught:
        load_text(text, "p.yaml")
    return caught.value.issues


def one(text: str) -> Issue:
    found = issues(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def at(issue: Issue) -> tuple[int, int]:
    return issue.line, issue.column


def test_a_minimal_file_is_enough() -> None:
    config = load_text(MANUAL)
    assert (config.pipeline, config.level, config.data.target) == ("cancer", 0, "malignant")


def test_values_follow_yaml_1_2() -> None:
    config = load_text(
        CONTINUOUS + "owner: yes\nnotify: {notifiers: [{class: a.B, args: {a: 12:30:45, b: 0o17, c: no, d: 1e3, "
        'e: 2013-01-01, f: ~, g: 0x1F, h: "1.10", i: +7, j: .5, k: on}}]}\n'
    )
    assert config.owner == "yes"
    assert config.dag.start_date == date(2013, 1, 1)
    assert config.notify.notifiers[0].args == {
        "a": "12:30:45", "b": 15, "c": "no", "d": 1000.0, "e": "2013-01-01", "f": None, "g": 31, "h": "1.10",
        "i": 7, "j": 0.5, "k": "on",
    }  # fmt: skip


def test_keys_may_be_numbers_where_anything_goes() -> None:
    text = MANUAL.replace("Regression}", "Regression, params: {class_weight: {0: 1, 1: 5}}}")
    assert load_text(text).train.params == {"class_weight": {0: 1, 1: 5}}


def test_anchors_are_expanded() -> None:
    config = load_text(CONTINUOUS + "approve: {timeout: &t 2h, by: &who [a, b]}\nresources: {timeout: *t}\n")
    assert config.resources is not None
    assert config.resources.timeout == "2h"


def test_a_wrong_value_behind_an_alias_is_shown_where_it_is_written() -> None:
    issue = one(CONTINUOUS + "resources: &r {pool: 3}\nnotify: {notifiers: []}\n")
    assert at(issue) == (20, 22)
    first, second = issues(MANUAL + "resources: &r {pool: 3}\nevaluate: {resources: *r}\n")
    assert at(first) == at(second) == (5, 22)


@pytest.mark.parametrize(
    ("old", "new", "where", "message", "suggestion"),
    [
        ("target: late", "tagret: late", (8, 3), "unknown key `tagret` in `data`", "did you mean `target`?"),
        ("  timestamp: at", "  gates: []", (9, 3), "unknown key `gates` in `data`", "it belongs to `evaluate.gates`"),
        ("  timestamp: at", "  wibble: []", (9, 3), "unknown key `wibble` in `data`", "known keys are source"),
        ("level: 1", "level: 3", (2, 8), "`level` must be 0, 1 or 2, not the number 3", None),
        ("level: 1", "level: {aws: relyable}", (2, 1), "is not a level; possible are 0, 1, 2", None),
        ("level: 1", "level: 7", (2, 8), "`level` must be 0, 1 or 2, not the number 7", None),
        ("level: 1", 'level: "1"', (2, 8), "`level` must be 0, 1 or 2, not the text '1'", "remove the quotes"),
        ("level: 1", "level: true", (2, 8), "expected a whole number, got true or false", None),
        ("pipeline: flights", "pipeline: my flights", (1, 11), "`pipeline` is not a name", "use letters"),
        ("pipeline: flights", "pipeline: 1.10", (1, 11), "must be text, not the number 1.1", 'quote it: "1.10"'),
        ("target: late", "target: 007", (8, 11), "must be text, not the number 7", 'quote it: "007"'),
        ("target: late", "target: true", (8, 11), "must be text, not true", 'quote it: "true"'),
        ("target: late", 'target: ""', (8, 11), "`data.target` must not be empty", None),
        ("target: late", "target:", (8, 3), "`data.target` is empty; it must be text", "give it a value"),
        ("catchup: false", "catchup: no", (5, 12), "must be true or false, not the text 'no'", "write false"),
        ("catchup: false", "catchup: Yes", (5, 12), "must be true or false, not the text 'Yes'", "write true"),
        ("catchup: false", "catchup: 0", (5, 12), "`dag.catchup` must be true or false, not the number 0", None),
        ("catchup: false", 'max_active_runs: "3"', (5, 20), "must be a whole number", "remove the quotes"),
        ("catchup: false", "max_active_runs: 1.5", (5, 20), "must be a whole number, not the number 1.5", None),
        ("catchup: false", "max_active_runs: 0", (5, 20), "must be at least 1, and is 0", None),
        ("catchup: false", "timezone: Europe", (5, 13), "'Europe' is not an IANA time zone", None),
        ("catchup: false", "tags: a", (5, 9), "`dag.tags` must be a list, not the text 'a'", "write [a]"),
        ("catchup: false", "tags: [a, 1.0]", (5, 13), "`dag.tags[1]` must be text", 'quote it: "1.0"'),
        ("2013-01-01", "2013-02-30", (4, 15), "2013-02-30 is not a day of the calendar", None),
        ("2013-01-01", "20130101", (4, 15), "write a date as YYYY-MM-DD", None),
        ("2013-01-01", "2013-01-01T00:00:00", (4, 15), "write a date as YYYY-MM-DD", None),
        ("max_age: 30d", "max_age: 30", (17, 12), "must be text, not the number 30", "with its unit: 30d"),
        ("max_age: 30d", "max_age: 12:30:45", (17, 12), "'12:30:45' is not a duration", None),
        ("max_age: 30d", "max_age: 0d", (17, 12), "must be longer than zero", None),
        ("max_age: 30d", "max_age: " + "9" * 60 + "d", (17, 12), "is too long for a duration", None),
        ('"@weekly"', '"every day"', (19, 13), "'every day' is not a cron expression", None),
        ('"@weekly"', '"0 0 31 2 *"', (19, 13), "names a time that never comes", None),
        ('"@weekly"', '"R R * * *"', (19, 13), "is not a cron expression", None),
        ("{{ window.start }}", "{{ ds }}", (7, 11), "can be used here, not ds", None),
        ("{{ window.start }}", "{{ 9 ** 9 ** 9 ** 9 }}", (7, 11), "only {{ window.start }}", None),
        ("{{ window.start }}", "{{ window.__class__ }}", (7, 11), "only {{ window.start }}", None),
        ("{{ window.start }}", "{% for a in window %}{% endfor %}", (7, 11), "only {{ window.start }}", None),
        ("{{ window.start }}", "{{ window.start", (7, 11), "not a valid template", None),
        ("{{ window.start }}", "{{{ window.start }}", (7, 11), "not a valid template", None),
        ("{{ window.start }}", "{{ " + "(" * 5000, (7, 11), "nested too deeply", None),
        ("sklearn.linear_model.LogisticRegression", "LogReg", (11, 14), "write a dotted path to a class", None),
        ("at_least: 0.6", "at_least: .nan", (15, 17), "`.nan` is not a finite number", "leave the key out"),
        ("at_least: 0.6", "at_least: 1e999", (15, 17), "`1e999` is not a finite number", "leave the key out"),
        ("at_least: 0.6", "at_least: " + "9" * 99, (15, 17), "a number of 99 digits", "quote it"),
        ("at_least: 0.6", 'at_least: "0.6"', (15, 17), "must be a number, not the text '0.6'", "remove the quotes"),
        ("      at_least: 0.6", "      confidence: 0.9", (14, 7), "evaluate.gates[0]: give ", None),
        ("target: late", "target: !!str late", (8, 11), "the tag `tag:yaml.org,2002:str` is not allowed", "remove"),
        ("target: late", "target: !!python/name:os.system", (8, 11), "is data, not code", "remove the tag"),
        (
            "target: late",
            "target: late\n  target: x",
            (9, 3),
            "duplicate key `target`; it is already on line 8",
            "keep",
        ),
        ("  max_age: 30d", "  <<: {max_age: 30d}", (17, 3), "merge keys (`<<`) are not part of YAML 1.2", "write"),
        ("  max_age: 30d", "  ? [a]\n  : b", (17, 5), "a key must be text or a number", "put quotes around it"),
        ("  max_age: 30d", "  3: 30d", (17, 3), "`3` is not text", "put quotes around the key"),
        ("  max_age: 30d", "\tmax_age: 30d", (17, 1), "not valid YAML", "indent with spaces, not tabs"),
        ("target: late", "target: a: b", (8, 12), "mapping values are not allowed", "quote a value"),
        ("  max_age: 30d", "  labels: *nothing", (17, 11), "anchor `nothing` is not defined", "write the values out"),
        ("  max_age: 30d", "  labels: &a [*a]", (17, 15), "anchor `a` contains itself", "write the values out"),
        ("target: late", "target: a\0b", (8, 12), "character 0x0 is not allowed in YAML", "remove it"),
        ("target: late", "target: ä\ud800b", (8, 12), "is not valid Unicode", "UTF-8"),
        ("target: late", 'target: "\\ud800"', (8, 14), "not valid YAML", None),
        ("target: late", "target: ü\n--- \na: 1", (9, 1), "a second document starts here", "one pipeline per file"),
        ("  target: late\n", "", (6, 1), "`target` is missing in `data`: The column to predict", "add `target:`"),
        ("pipeline: flights\n", "", (1, 1), "`pipeline` is missing: Name", "add `pipeline:`"),
        ("data:\n", "data:\n  sql: {conn_id: a, query: b}\n", (8, 3), "data: give exactly one of `source`", None),
        ("  timestamp: at\n", "  fresh_within: 1d\n", (9, 3), "data: `fresh_within` needs `timestamp`", None),
        ("  timestamp: at\n", "  split: {by: time}\n", (9, 11), "data: `split.by: time` needs `timestamp`", None),
        ("  timestamp: at\n", "  split: {by: group}\n", (9, 11), "data.split: `column` belongs to", None),
        ("level: 1", "level: 0", (16, 1), "`monitor` needs `level: 1`", None),
        ('retrain:\n  schedule: "@weekly"\n', "", (2, 1), "`level: 1` needs `retrain`", None),
        ('  schedule: "@weekly"\n', "  cooldown: 7d\n", (18, 1), "`retrain` needs a `schedule` or `when`", None),
        ('  schedule: "@weekly"\n', "  when: [performance]\n", (19, 3), "needs `monitor.labels`", None),
        ('"@weekly"\n', '"@weekly"\n  when: [rain]\n', (20, 10), "`retrain.when[0]` must be new_data, drift", None),
        ('"@weekly"\n', '"@weekly"\n  when: [drfit]\n', (20, 10), "`retrain.when[0]`", "did you mean `drift`?"),
        ('"@weekly"\n', '"@weekly"\n  confirm: 2 of 3\n', (20, 3), "`retrain.confirm` needs drift, performance", None),
        (
            '"@weekly"\n',
            '"@weekly"\n  when: [staleness]\n  confirm: 2/3\n',
            (21, 12),
            "how many of the last checks",
            None,
        ),
        ('"@weekly"\n', '"@weekly"\n  when: [staleness]\n  confirm: 3 of 2\n', (21, 12), "can never be met", None),
        ('"@weekly"\n', '"@weekly"\n  when: [staleness]\n  confirm: 0 of 2\n', (21, 12), "without any alarm", None),
        ('"@weekly"\n', '"@weekly"\n  when: [staleness]\n  confirm: 1 of 101\n', (21, 12), "the last 100 checks", None),
        (
            '"@weekly"\n',
            '"@weekly"\n  when: [staleness]\n  confirm: 2\n',
            (21, 12),
            "`retrain.confirm` must be text",
            None,
        ),
        ('"@weekly"\n', '"@weekly"\nnotify: {events: [rolback]}\n', (20, 19), "`notify.events[0]`", "mean `rollback`?"),
        ('"@weekly"\n', '"@weekly"\nvalidate: {expectations: [{a: {}}]}\n', (20, 27), "write one `expect_", None),
        ('"@weekly"\n', '"@weekly"\nvalidate_: {}\n', (20, 1), "unknown key `validate_`", "did you mean `validate`?"),
    ],
)
def test_each_mistake_is_placed(
    old: str, new: str, where: tuple[int, int], message: str, suggestion: str | None
) -> None:
    assert old in CONTINUOUS
    found = [i for i in issues(CONTINUOUS.replace(old, new, 1)) if message in i.message]
    assert len(found) == 1, "\n".join(map(str, issues(CONTINUOUS.replace(old, new, 1))))
    issue = found[0]
    assert at(issue) == where
    assert issue.file == "p.yaml"
    if suggestion is None:
        assert issue.suggestion is None or "quote" in issue.suggestion
    else:
        assert issue.suggestion is not None
        assert suggestion in issue.suggestion
    assert str(issue).startswith(f"p.yaml:{where[0]}:{where[1]}: ")


@pytest.mark.parametrize("key", sorted(PLANNED))
@pytest.mark.parametrize("section", ["", "data:\n", "train:\n", "deploy:\n", "monitor:\n", "retrain:\n", "evaluate:\n"])
def test_planned_keys_are_refused_by_name(key: str, section: str) -> None:
    text = CONTINUOUS if "deploy" not in section else CONTINUOUS + "deploy:\n"
    new = f"{section}{'  ' if section else ''}{key}: 1\n"
    text = text.replace(section, new, 1) if section else new + text
    issue = one(text)
    assert issue.message == f"`{key}` is not available in this version"
    assert issue.text.strip() == f"{key}: 1"


def test_a_position_counts_characters() -> None:
    assert at(one("# ünïcödé €\n" + MANUAL.replace("source: cancer.csv", '"source": "é€😀.csv", id: 3'))) == (4, 33)


@pytest.mark.parametrize("end", ["\r\n", "\r", "\u2028"])
def test_any_line_end_counts(end: str) -> None:
    assert at(one(MANUAL.replace("level: 0", "level: 3").replace("\n", end))) == (2, 8)


def test_a_byte_order_mark_does_not_move_columns(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MANUAL.encode())
    assert load_pipeline(path).pipeline == "cancer"
    path.write_bytes(b"\xef\xbb\xbf" + MANUAL.replace("cancer", "a b", 1).encode())
    with pytest.raises(InvalidPipeline) as caught:
        load_pipeline(path)
    assert at(caught.value.issues[0]) == (1, 11)


def test_all_mistakes_are_told_at_once() -> None:
    found = issues(
        "pipeline: a b\nlevel: 1\nlevel: 0\nowner: 1.10\ndata:\n  source: a.csv\n  callable: a:b\n  min_rows: x\n"
        "  split: {by: time}\ntrain: {estimator: a.b, command: c, params: {a: 1}}\nevaluate: {metrics: roc_auc}\n"
    )
    assert [(*at(i), i.code) for i in found] == [
        (1, 11, "string_pattern_mismatch"),
        (2, 1, "cross"),  # needs retrain
        (2, 1, "cross"),  # needs gates
        (3, 1, "duplicate"),
        (4, 8, "string_type"),
        (5, 1, "missing"),
        (6, 3, "cross"),
        (8, 13, "int_type"),
        (9, 11, "cross"),
        (10, 9, "cross"),
        (10, 37, "cross"),
        (11, 21, "list_type"),
    ], "\n".join(map(str, found))


def test_checks_across_keys_say_nothing_about_keys_that_are_wrong_themselves() -> None:
    assert [i.path for i in issues(CONTINUOUS.replace('"in/{{ window.start }}.parquet"', "3"))] == ["data.source"]
    assert [i.path for i in issues(CONTINUOUS.replace('"@weekly"', "3"))] == ["retrain.schedule"]
    assert [i.path for i in issues(CONTINUOUS.replace("at_least: 0.6", "at_least: a"))] == ["evaluate.gates.0.at_least"]
    assert [i.path for i in issues(CONTINUOUS.replace("level: 1", "level: 3"))] == ["level"]


def test_the_message_shows_the_line_a_caret_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(CONTINUOUS.replace("target: late", "target: 1.10"), "flights.yaml")
    assert str(caught.value) == (
        "flights.yaml:8:11: `data.target` must be text, not the number 1.1\n"
        "    8 |   target: 1.10\n"
        "      |           ^\n"
        '  What to do: quote it: "1.10"'
    )


def test_a_long_line_is_cut_around_the_caret() -> None:
    shown = str(one(MANUAL.replace("cancer.csv", "a" * 500).replace("malignant", "1.5"))).splitlines()
    assert len(shown[1]) < 120
    assert shown[1][shown[2].index("^")] == "1"


def test_many_issues_are_counted_not_all_printed() -> None:
    with pytest.raises(InvalidPipeline) as caught:
        load_text(MANUAL + "".join(f"key{i}: 1\n" for i in range(150)))
    assert len(caught.value.issues) == 150
    assert str(caught.value).endswith("… and 50 more problems")


def test_the_error_survives_pickling() -> None:
    with pytest.raises(InvalidPipeline) as caught:
        load_text("a: 1")
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, MLOpsError)
    assert again.issues == caught.value.issues
    assert str(again) == str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~\n", "   "])
def test_an_empty_file(text: str) -> None:
    issue = one(text)
    assert (issue.code, *at(issue)) == ("empty", 1, 1)


@pytest.mark.parametrize("text", ["hello", "- a\n- b\n", "3", "[a]"])
def test_not_a_mapping(text: str) -> None:
    assert one(text).code == "not_a_mapping"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 50_000, "too_deep"),
        ("{" * 50_000, "too_deep"),
        ("- " * 50_000, "too_deep"),
        ("? " * 50_000, "too_deep"),
        ("\n".join(" " * i + "a:" for i in range(1000)), "too_deep"),
        ("a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(60)), "too_deep"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
        ), "too_many"),
        ("a: [" + "a," * (MAX_NODES + 1) + "]", "too_many"),
        ("a" * (MAX_BYTES + 1), "too_large"),
    ],
    ids=["flow lists", "flow mappings", "lists", "keys", "blocks", "deep aliases", "bomb", "nodes", "size"],
)  # fmt: skip
def test_limits(text: str, code: str) -> None:
    assert one(text).code == code


def test_the_deepest_allowed_nesting_loads() -> None:
    depth = MAX_DEPTH - 3
    deep = f"{{executor_config: {{a: {'[' * depth}{']' * depth}}}}}"
    text = MANUAL + f"resources: {deep}\n"
    assert load_text(text).resources.executor_config["a"]
    assert one(text.replace("[", "[[", 1).replace("]", "]]", 1)).code == "too_deep"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def code(path: Path) -> str:
        with pytest.raises(InvalidPipeline) as caught:
            load_pipeline(path)
        assert str(path) in str(caught.value)
        return caught.value.issues[0].code

    assert code(tmp_path / "none.yaml") == "not_found"
    assert code(tmp_path) == "unreadable"
    os.mkfifo(tmp_path / "pipe.yaml")
    assert code(tmp_path / "pipe.yaml") == "unreadable"
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert code(tmp_path / "loop.yaml") == "unreadable"
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert code(tmp_path / "big.yaml") == "too_large"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("pipeline: a\nowner: Jürgen\n".encode("latin-1"))
    with pytest.raises(InvalidPipeline) as caught:
        load_pipeline(path)
    issue = caught.value.issues[0]
    assert (issue.code, *at(issue)) == ("encoding", 2, 9)
    assert "0xfc is not UTF-8" in issue.message


def test_loading_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(MANUAL)
    code = (
        "import sys, pathlib\n"
        "from airflow_mlops.config import load_pipeline\n"
        "load_pipeline(pathlib.Path(sys.argv[1]))\n"
        "heavy = {'airflow', 'pandas', 'numpy', 'sklearn', 'scipy', 'great_expectations', 'evidently', 'boto3',\n"
        "         'pyarrow', 'skops', 'mlflow', 'jinja2', 'croniter', 'sqlalchemy', 'requests', 'httpx'}\n"
        "print(sorted(heavy & {m.split('.')[0] for m in sys.modules}))\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


NOTIFY = "notify: {{notifiers: [{{class: a.B, args: {args}}}]}}\n"


def test_a_notifier_may_say_what_happened() -> None:
    text = '{text: "{{ mlops.event }}: {{ mlops.message }}", to: [a, b], n: 3}'
    args = load_text(CONTINUOUS + NOTIFY.format(args=text)).notify.notifiers[0].args
    assert args["text"] == "{{ mlops.event }}: {{ mlops.message }}"


@pytest.mark.parametrize(
    "expression",
    [
        "{{ conn.warehouse.password }}",
        "{{ var.value.token }}",
        "{{ ti.xcom_pull() }}",
        "{{ mlops.__class__ }}",
        "{% include 'secrets.txt' %}",
        "{{ '{0.x}'.format(mlops) }}",
    ],
)
@pytest.mark.parametrize("where", ['{{text: "{}"}}', '{{a: {{b: [1, "x {}"]}}}}'])
def test_a_notifier_sends_no_secret_away(expression: str, where: str) -> None:
    issue = one(CONTINUOUS + NOTIFY.format(args=where.format(expression)))
    assert "only {{ mlops.message }}" in issue.message


def test_a_source_is_no_place_for_texts_own_methods() -> None:
    issue = one(CONTINUOUS.replace("{{ window.start }}", "{{ 'x'.ljust(999) }}"))
    assert "only {{ window.start }}" in issue.message


@pytest.mark.parametrize(
    ("more", "message", "suggestion"),
    [
        ("validate: {expectations: [{expect_column_values_to_be_not_null: {column: a}}]}\n",
         "Great Expectations has no `expect_column_values_to_be_not_null`", "`expect_column_values_to_not_be_null`"),
        ("owner: !!python/name:os.system\n", "the tag", "remove the tag"),
        ("owner: !!python/object/apply:os.system [id]\n", "the tag", "remove the tag"),
    ],
)  # fmt: skip
def test_a_mistake_is_said_once(more: str, message: str, suggestion: str) -> None:
    (issue,) = issues(MANUAL + more)
    assert message in issue.message
    assert suggestion in str(issue.suggestion)


def test_labels_need_the_rows_id() -> None:
    (issue,) = issues(
        CONTINUOUS.partition("monitor:")[0]
        + "monitor: {labels: {source: a.csv, join_on: i}}\nretrain: {schedule: '@daily'}\n"
    )
    assert "`monitor.labels` needs `data.id`" in issue.message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("monitor: {skew: {}}\n", "`monitor.skew` needs `data.id`"),
        ("monitor: {skew: {source: a.csv}}\n", "`monitor.skew` needs `data.id`"),
        ("features: {callable: 'a:b'}\nmonitor: {skew: {}}\n", "`monitor.skew` needs `source`"),
        ("monitor: {skew: {replay_rows: 5}}\n", "30"),
        ("monitor: {skew: {max_share: 1.0}}\n", "less than 1"),
        ("monitor: {skew: {source: 'a{{ x.y() }}'}}\n", "only {{ window.start }}"),
    ],
)
def test_a_replay_needs_rows_it_can_join(more: str, message: str) -> None:
    text = CONTINUOUS.replace("monitor:\n  max_age: 30d\n", more)
    if "data.id" not in message:
        text = text.replace("  target: late\n", "  target: late\n  id: i\n  private: [name]\n")
    assert any(message in issue.message for issue in issues(text)), issues(text)


def test_outcomes_are_not_joined_by_the_target() -> None:
    labels = "monitor: {labels: {source: a.csv, join_on: late}}\n"
    text = CONTINUOUS.replace("monitor:\n  max_age: 30d\n", labels).replace("target: late\n", "target: late\n  id: i\n")
    (issue,) = issues(text)
    assert issue.path == "monitor.labels.join_on"
    assert "a column that names the row" in issue.message


def test_a_gate_that_slices_by_a_private_column_is_pointed_at() -> None:
    gates = "    - {metric: roc_auc, at_least: 0.5}\n    - {metric: roc_auc, at_least: 0.5, slices: [ward, name]}\n"
    text = CONTINUOUS.replace("    - metric: roc_auc\n      at_least: 0.6\n", gates)
    (issue,) = issues(text.replace("  target: late\n", "  target: late\n  private: [name]\n"))
    assert (issue.path, issue.line) == ("evaluate.gates.1", 16)


@pytest.mark.parametrize(("written", "advice"), [("95", "write 0.95"), ("99.9", "write 0.999"), ("950", None)])
def test_a_share_written_in_percent(written: str, advice: str | None) -> None:
    (issue,) = issues(CONTINUOUS.replace("at_least: 0.6", f"at_least: 0.6\n      confidence: {written}"))
    assert (issue.path, issue.suggestion) == ("evaluate.gates.0.confidence", advice)


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(InvalidPipeline, match="this link leads nowhere"):
        load_pipeline(tmp_path / "p.yaml")


def test_a_key_of_odd_digits() -> None:
    assert [i.code for i in issues(MANUAL + "¹: 1\nowner: 5\n")] == ["extra_forbidden", "string_type"]
