"""Every effective value, where it comes from, and no secret among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from airflow_mlops.config.keys import all_keys
from airflow_mlops.config.loader import PipelineReader, read_pipeline
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.config.origins import Setting, effective, origin_of
from airflow_mlops.config.secrets import HIDDEN, looks_secret, masked_text
from airflow_mlops.config.settings import Settings
from airflow_mlops.config.yaml_source import Source

FILE = """\
pipeline: churn
level: {aws: repeatable}
extends: base.yaml
train: {estimator: sklearn.linear_model.LogisticRegression, params: {C: 0.5}}
evaluate:
  gates:
    - {metric: roc_auc, at_least: 0.6}
    - serving: {p95_ms: 20}
data:
  target: churned
retrain: {schedule: "@weekly"}
environments:
  production:
    data: {source: "s3://live/${env:MLOPS_FOLDER}/x.csv"}
    dag: {tags: [live]}
  staging: {}
"""
BASE = """\
owner: ana
data:
  source: base.csv
  target: replaced
  min_rows: 10
train: {params: {max_iter: 9}}
"""
MINIMAL = """\
pipeline: churn
level: 0
data: {source: churn.csv, target: y}
train: {estimator: sklearn.linear_model.LogisticRegression}
"""


VARIABLES = """\
pipeline: churn
level: 0
data:
  source: churn.csv
  target: y
  min_rows: ${env:MLOPS_ROWS}
dag: {tags: [a, "${env:MLOPS_TAG}"], start_date: 2024-02-03}
validate:
  expectations:
    - expect_column_values_to_not_be_null: {column: "${env:MLOPS_DEEP}", mostly: 1}
train: {estimator: sklearn.linear_model.LogisticRegression}
evaluate: {gates: [{metric: "${env:MLOPS_METRIC}", at_least: 1}]}
"""


def _read(folder: Path, environment: str | None = None) -> tuple[PipelineConfig, Source]:
    (folder / "churn.yaml").write_text(FILE)
    (folder / "base.yaml").write_text(BASE)
    config, source = read_pipeline(folder / "churn.yaml", Settings(environment=environment))
    assert config is not None, source.issues
    return config, source


def _settings(text: str) -> dict[str, Setting]:
    config, source = PipelineReader(Settings(allowed_variables=("*",))).read_text(text, "churn.yaml")
    assert config is not None, source.issues
    return {setting.path: setting for setting in effective(config, source)}


def _from(found: dict[str, Setting], path: str) -> tuple[Any, str, str]:
    setting = found[path]
    return setting.value, Path(setting.origin).name, setting.layer


def test_each_value_names_the_file_line_and_layer_that_set_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_FOLDER", "resolved-folder")
    found = {setting.path: setting for setting in effective(*_read(tmp_path, "production"))}
    assert _from(found, "pipeline") == ("churn", "churn.yaml:1", "file")
    assert _from(found, "level") == (1, "churn.yaml:2", "file")
    assert _from(found, "owner") == ("ana", "base.yaml:1", "extends")
    assert _from(found, "data.target") == ("churned", "churn.yaml:10", "file")
    assert _from(found, "data.min_rows") == (10, "base.yaml:5", "extends")
    assert _from(found, "data.source") == (
        "s3://live/${env:MLOPS_FOLDER}/x.csv",
        "churn.yaml:14",
        "environment production",
    )
    assert _from(found, "dag.tags") == (["live"], "churn.yaml:15", "environment production")
    assert _from(found, "train.params.C") == (0.5, "churn.yaml:4", "file")
    assert _from(found, "train.params.max_iter") == (9, "base.yaml:6", "extends")
    assert _from(found, "evaluate.gates.0.at_least") == (0.6, "churn.yaml:7", "file")
    assert _from(found, "evaluate.gates.1.serving.p95_ms") == (20, "churn.yaml:8", "file")
    assert _from(found, "evaluate.gates.1.serving.rows") == (50, "default", "default")
    assert _from(found, "train.seed") == (7, "default", "default")
    assert _from(found, "monitor") == (None, "default", "default")
    assert "resolved-folder" not in str(found)


def test_without_an_environment_the_overlay_does_not_count(tmp_path: Path) -> None:
    config, source = _read(tmp_path)
    found = {setting.path: setting for setting in effective(config, source)}
    assert _from(found, "data.source") == ("base.csv", "base.yaml:3", "extends")
    assert origin_of(source, ("data", "source")) == (f"{tmp_path / 'base.yaml'}:3", "extends")
    assert origin_of(source, ("monitor",)) == ("default", "default")


def test_every_key_has_a_value_or_says_that_it_has_none() -> None:
    found = _settings(MINIMAL)
    absent = [
        key
        for key in all_keys()
        if not any(path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.") for path in found)
    ]
    assert absent == []
    assert list(found)[:5] == ["pipeline", "level", "data.source", "data.target", "data.sql"]  # as in the file
    assert all((s.layer == "default") == (s.origin == "default") for s in found.values())


def test_what_counts_where_nothing_is_set() -> None:
    found = _settings(MINIMAL.replace("level: 0", "level: 1") + "retrain: {schedule: '@daily'}\nmonitor: {}\n"
                      "evaluate: {gates: [{metric: roc_auc, at_least: 0.6}]}\n")  # fmt: skip
    assert found["deploy.batch.source"].note == "data.source"
    assert found["monitor.schedule"].note == "after each batch of predictions"
    assert found["evaluate.metrics"].note == "roc_auc and log_loss, or r2 and rmse"
    assert found["data.window"].note == "the run's window"
    assert found["task"].note == "follows from the estimator"
    assert found["dag.default_args.retries"].note == "2"
    assert found["retrain.schedule"].note is None  # something is set
    assert found["data.sql"].note is None  # nothing takes its place


def test_values_are_shown_as_written_and_variables_are_not_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROWS", "TAG", "DEEP", "METRIC"):
        monkeypatch.setenv(f"MLOPS_{name}", {"ROWS": "77", "METRIC": "roc_auc"}.get(name, "resolved"))
    found = _settings(VARIABLES)
    assert found["data.min_rows"].value == "${env:MLOPS_ROWS}"
    assert found["dag.tags"].value == ["a", "${env:MLOPS_TAG}"]
    assert found["dag.start_date"].value == "2024-02-03"
    expectation = {"expect_column_values_to_not_be_null": {"column": "${env:MLOPS_DEEP}", "mostly": 1}}
    assert found["validate.expectations.0"].value == expectation
    assert found["evaluate.gates.0.metric"].value == "${env:MLOPS_METRIC}"
    assert found["evaluate.gates.0.at_least"].value == 1
    assert "resolved" not in str(found)


SECRET = "h1dden"
SECRETS = f"""\
pipeline: churn
level: 0
description: "see https://ana:{SECRET}@wiki/page?sig={SECRET}&page=2"
resources:
  executor_config:
    api_key: {SECRET}
    nested: {{password: {SECRET}, shown: one}}
    pod: [{{name: DB_PASSWORD, value: {SECRET}}}, {{name: COLOUR, value: two}}]
    env: {{name: API_TOKEN, value: {SECRET}}}
    secrets: {{anything: {SECRET}, list: [{SECRET}]}}
dag: {{access_control: {{Op: {{token: [{SECRET}]}}}}}}
data: {{source: "s3://key:{SECRET}@lake/x.csv", target: y}}
train: {{command: "python t.py --api-token {SECRET} --password='{SECRET}' --out {{model_dir}}"}}
validate: {{expectations: [{{expect_column_to_exist: {{column: c, meta: {{secret: {SECRET}}}}}}}]}}
deploy: {{batch: {{output: "https://u:{SECRET}@host/out"}}}}
notify:
  notifiers:
    - class: airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier
      args: {{url: "https://hooks.slack.com/{SECRET}", slack_webhook_conn_id: team, more: {{x: {SECRET}}}}}
    - {{class: a.B, args: {{auth: {SECRET}, list: [{SECRET}]}}}}
"""


def test_no_secret_is_shown() -> None:
    found = _settings(SECRETS)
    assert SECRET not in str(found)
    assert found["description"].value == f"see https://wiki/page?sig={HIDDEN}&page=2"
    assert found["resources.executor_config.api_key"].value == HIDDEN
    assert found["resources.executor_config.nested.shown"].value == "one"
    assert found["resources.executor_config.pod.1"].value == {"name": "COLOUR", "value": "two"}
    assert found["data.source"].value == "s3://lake/x.csv"
    assert found["notify.notifiers.0.args.slack_webhook_conn_id"].value == "team"
    assert found["notify.notifiers.1.class"].value == "a.B"
    assert found["train.command"].value == f"python t.py --api-token {HIDDEN} --password={HIDDEN} --out {{model_dir}}"


def test_names_that_are_secrets() -> None:
    secret = ["password", "db_password", "dbPassword", "API_KEY", "apikey", "accessKey", "AUTH-TOKEN", "secret", "key"]
    harmless = ["max_tokens", "tokenizer", "monkey", "n_keys", "author", "path", "max_iter", "signal", ""]
    assert [name for name in secret if not looks_secret(name)] == []
    assert [name for name in harmless if looks_secret(name)] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:p@ss@h/db", "postgres://h/db"),
        ("Authorization: Bearer abc, x", f"Authorization: {HIDDEN}, x"),
        ("a --n 5 --token abc", f"a --n 5 --token {HIDDEN}"),
        ("x password=abc", f"x password={HIDDEN}"),
        ('{"token": "abc", "n": 1}', f'{{"token": {HIDDEN}, "n": 1}}'),
        ("the key column of it", "the key column of it"),
        ("mail ana@example.org", "mail ana@example.org"),
        ("s3://lake/a@b/{{ window.start }}.csv", "s3://lake/a@b/{{ window.start }}.csv"),
        ("--token", "--token"),
    ],
)
def test_texts_lose_their_secrets_alone(text: str, shown: str) -> None:
    assert masked_text(text) == shown


@settings(deadline=None)
@given(st.text() | st.from_regex(r"(--?\w+[= ]?\S*|\w+://\S*@?\S*| ){0,6}"))
def test_hiding_is_done_once(text: str) -> None:
    assert masked_text(masked_text(text)) == masked_text(text)


@settings(deadline=None)
@given(st.from_regex(r"[a-z]{2,5}://[\w.%+-]{1,8}:[\w.%+$!*()-]{1,12}@[a-z]{1,9}/[a-z/]{0,9}", fullmatch=True))
def test_no_uri_keeps_its_user(uri: str) -> None:
    scheme, rest = uri.split("://")
    assume(not looks_secret(scheme))  # then all of it is hidden
    assert masked_text(f"see {uri} there") == f"see {scheme}://{rest.rpartition('@')[2]} there"
