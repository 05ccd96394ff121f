"""Every version gets its card when the gates have decided, and every task leaves what it cost."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.operators.data import ProfileOperator, SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import get_blob, layout

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}


@pytest.fixture
def registry(lake) -> Registry:
    return MLOpsHook().registry("people")


def run_to_gates(execute, at_least: float) -> dict[str, Any]:
    """The tasks of a DAG up to the gates, with a profile beside them; returns the gates' XComs."""
    with DAG("people__train"):
        snapshot = SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA)
        profile = ProfileOperator(task_id="profile", pipeline="people", snapshot={}, data=DATA)
        fit = TrainOperator(task_id="fit", pipeline="people", snapshot={}, data=DATA, train=LOGISTIC)
        score = EvaluateOperator(task_id="score", pipeline="people", candidate={}, data=DATA)
        gates = GateOperator(
            task_id="gates", pipeline="people", evaluation={},
            evaluate={"gates": [{"metric": "roc_auc", "at_least": at_least}]},
        )  # fmt: skip
        snapshot >> profile
        EmptyOperator(task_id="other") >> snapshot >> fit >> score >> gates >> EmptyOperator(task_id="after")
    fit.snapshot = profile.snapshot = execute(snapshot)
    execute(profile)
    score.candidate = execute(fit)
    gates.evaluation = execute(score)
    with suppress(DownstreamTasksSkipped):
        execute(gates)
    return dict(execute.pushed)


@pytest.mark.parametrize("at_least", [0.5, 1.0])
def test_promoted_or_rejected_every_version_has_a_card(lake, registry, execute, at_least: float) -> None:
    pushed = run_to_gates(execute, at_least)
    version, store = registry.get(1), MLOpsHook().store()
    assert version.notes["gates"][-1]["go"] == (at_least == 0.5)
    (card,) = version.notes["card"]
    page, markdown = (get_blob(store, card[form]) for form in ("html", "markdown"))
    reports = {r["name"]: r["digest"] for r in pushed["mlops_reports"]}
    assert store.get(layout.report("people__train", reports["Model card"])) == page
    assert set(reports) == {"Gate report", "Model card"}
    text = markdown.decode()
    for heading in ("Metrics", "Gates", "What it looks at", "Features", "Limits", "Cost", "How to load it"):
        assert f"\n## {heading}\n" in text
    assert "Permutation importance: how much worse roc_auc gets" in text
    assert version.notes["gates"][-1]["sentence"][:20] in text


def test_each_task_is_counted_once_however_often_it_runs(lake, registry, execute, monkeypatch) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__PRICE_PER_HOUR", "36")
    monkeypatch.setenv("AIRFLOW__MLOPS__CURRENCY", "CHF")
    run_to_gates(execute, 0.5)
    run_to_gates(execute, 0.5)
    costs = registry.get(1).notes["cost"]
    assert sorted(c["task"] for c in costs) == ["fit", "gates", "profile", "score", "snapshot"]
    assert all(c["wall_seconds"] >= 0 and c["peak_mb"] > 1 for c in costs)
    assert {(c["price_per_hour"], c["currency"], c["run_id"]) for c in costs} == {(36.0, "CHF", "manual__1")}
    assert registry.get(1).number == len(registry.versions())
    newest = registry.get(1).notes["card"][-1]["markdown"]
    assert "CHF by the clock and the configured price" in get_blob(MLOpsHook().store(), newest).decode()


def test_the_promotion_makes_the_card_anew_with_the_approval(lake, registry, execute) -> None:
    run_to_gates(execute, 0.5)
    decision = registry.get(1).notes["gates"][-1]
    answer = {"chosen_options": ["Approve"], "responded_by_user": {"id": "1", "name": "lead"}}
    execute(PromoteOperator(task_id="promote", pipeline="people", decision=decision, approval=answer))
    version = registry.get(1)
    text = get_blob(MLOpsHook().store(), version.notes["card"][-1]["markdown"]).decode()
    assert "Approval: Approve, by lead." in text
    assert "promote" in {c["task"] for c in version.notes["cost"]}
    assert "Model card" in {r["name"] for r in execute.pushed["mlops_reports"]}


@pytest.mark.parametrize("price", ["cheap", "-1", "nan", "inf"])
def test_a_price_that_is_none_is_refused(lake, execute, monkeypatch, price: str) -> None:
    monkeypatch.setenv("AIRFLOW__MLOPS__PRICE_PER_HOUR", price)
    with pytest.raises(AirflowFailException, match=f"price_per_hour is '{price}'"):
        run_to_gates(execute, 0.5)
