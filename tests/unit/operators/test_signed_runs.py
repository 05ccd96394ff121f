"""Runs where models must be signed: from training to prediction, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops.hooks.mlops import MLOpsHook
from airflow_mlops.ml.handover import make_bundle
from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator, GateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.training import TrainOperator
from airflow_mlops.pipeline import Pipeline
from airflow_mlops.registry.signing import Signer

DATA: dict[str, Any] = {"source": "people.csv", "target": "target", "id": "id"}
LOGISTIC = {"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 2000}}
GATES = {"gates": [{"metric": "roc_auc", "at_least": 0.5}, {"serving": {"p95_ms": 10_000, "rows": 2}}]}


def configure(monkeypatch: pytest.MonkeyPatch, **options: str) -> None:
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__MLOPS__{name.upper()}", value)


@pytest.fixture
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signer:
    """The key that is configured, and trusted."""
    made = Signer.generate()
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(made.pem())
    configure(monkeypatch, signing_key_file=str(path), trusted_keys=made.public)
    return made


def test_a_signed_model_goes_all_the_way(
    lake: Path, execute: Any, signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA))
    candidate = execute(TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=LOGISTIC))
    registry = MLOpsHook().registry("people")
    assert registry.get(1).record["model"]["signature"]["key"] == signer.key_id
    scored = execute(EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA))
    decided = execute(GateOperator(task_id="gates", pipeline="people", evaluation=scored, evaluate=GATES))
    assert decided["verdict"] == "passed"
    execute(PromoteOperator(task_id="promote", pipeline="people", decision=decided))
    predict = BatchPredictOperator(task_id="predict", pipeline="people", data=DATA)
    assert execute(predict)["rows"] == 569
    made = make_bundle(MLOpsHook().store(), registry.get(1), tmp_path / "b.zip", verifier=MLOpsHook().verifier())
    assert "signature.json" in made.files
    # Where another key is trusted nothing of this model is loaded any more, the serving check included.
    configure(monkeypatch, trusted_keys=Signer.generate().public)
    gates = GateOperator(task_id="gates", pipeline="people", evaluation=scored, evaluate=GATES)
    score = EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA)
    for operator in (predict, score, gates):
        with pytest.raises(AirflowFailException, match="signed with a key that is not trusted"):
            execute(operator)


def test_an_unsigned_model_is_refused_once_a_key_is_trusted(
    lake: Path, execute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = execute(SnapshotOperator(task_id="snapshot", pipeline="people", data=DATA))
    train = TrainOperator(task_id="fit", pipeline="people", snapshot=ref, data=DATA, train=LOGISTIC)
    candidate = execute(train)
    score = EvaluateOperator(task_id="score", pipeline="people", candidate=candidate, data=DATA)
    assert execute(score)["version"] == 1
    configure(monkeypatch, trusted_keys=Signer.generate().public)
    with pytest.raises(AirflowFailException, match="is not signed"):
        execute(score)
    with pytest.raises(AirflowFailException, match="no key to sign with"):
        execute(train, run_id="manual__2")
    assert len(MLOpsHook().registry("people").versions()) == 1
    configure(monkeypatch, allow_unsigned="True")
    assert execute(score)["version"] == 1


def test_a_local_run_without_a_key_judges_what_it_trained(lake: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.yaml"
    path.write_text(
        "pipeline: people\nlevel: 0\ndata: {source: people.csv, target: target, id: id}\n"
        "train: {estimator: sklearn.linear_model.LogisticRegression, params: {max_iter: 2000}}\n"
        "evaluate: {gates: [{metric: roc_auc, at_least: 0.5}]}\n"
    )
    hook = MLOpsHook()
    from airflow_mlops.exceptions import ConfigError
    from airflow_mlops.registry.signing import Verifier

    pipeline = Pipeline.from_yaml(path, data_root=lake)
    verifier = Verifier((Signer.generate().public,))
    with pipeline.run(say=lambda _: None, store=hook.store(), verifier=verifier) as result:
        assert result.verdict == "passed"
    with pytest.raises(ConfigError, match="no key to sign with"):
        pipeline.run(say=lambda _: None, store=hook.store(), verifier=verifier, register=True)
