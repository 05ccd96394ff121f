"""Pods in ``executor_config`` are checked by Kubernetes' own models, each mistake at its line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_mlops.config.lint import lint
from airflow_mlops.config.pods import problems
from airflow_mlops.config.settings import Settings
from airflow_mlops.exceptions import ConfigError

FILE = """\
pipeline: churn
level: 0
data: {source: a.csv, target: y}
train:
  estimator: sklearn.linear_model.LogisticRegression
  resources:
    executor_config:
      pod_override:
        spec:
          nodeSelector: {pool: ml}
          containers:
            - name: base
              resources:
                requests: {cpu: 2, memory: 8Gi}
                limits: {memory: 8Gi}
              env: [{name: A, value: "1"}]
"""


def found(tmp_path: Path, text: str) -> list[Any]:
    file = tmp_path / "churn.yaml"
    file.write_text(text)
    return lint([file], Settings())


def test_a_right_pod_passes(tmp_path: Path) -> None:
    assert found(tmp_path, FILE) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "advice"),
    [
        ("limits:", "limit:", 15, "ResourceRequirements has no field `limit`", "did you mean `limits`?"),
        ("nodeSelector", "node_selector", 10, "PodSpec has no field `node_selector`", "did you mean `nodeSelector`?"),
        ("name: base", "image: x", 12, "`name` is missing in item 1 of `containers`", "add `name:`"),
        ("nodeSelector: {pool: ml}", "hostNetwork: 1", 10, "`hostNetwork` must be true or false", None),
        ("{pool: ml}", "[pool]", 10, "`nodeSelector` must be a mapping", None),
        ('value: "1"', "value: 1", 16, "`value` must be text", None),
        ('[{name: A, value: "1"}]', "{A: 1}", 16, "`env` must be a list", "begin each item with a dash: - key: value"),
    ],
)
def test_mistakes_have_their_line(
    tmp_path: Path, old: str, new: str, line: int, message: str, advice: str | None
) -> None:
    assert old in FILE
    (issue,) = found(tmp_path, FILE.replace(old, new, 1))
    assert (issue.line, issue.message, issue.suggestion, issue.severity) == (line, message, advice, "error")


def test_the_executor_s_old_way_is_refused(tmp_path: Path) -> None:
    (issue,) = found(tmp_path, FILE.replace("pod_override", "KubernetesExecutor"))
    assert "write them as pod_override" in issue.message


def test_without_kubernetes_it_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    (issue,) = found(tmp_path, FILE)
    assert (issue.severity, issue.line) == ("warning", 8)
    assert "airflow-mlops[kubernetes]" in issue.suggestion


KEYS = ["spec", "containers", "name", "resources", "limits", "cpu", "metadata", "labels", "tolerations", "volumes", "x"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=3))
def test_what_passes_becomes_a_pod(pod: dict[str, Any]) -> None:
    from airflow_mlops.factory.executors import pod as made

    if list(problems(pod)):
        with pytest.raises(ConfigError):
            made(pod)
    else:
        assert type(made(pod)).__name__ == "V1Pod"
