"""The same lifecycle without YAML: a hand-written Airflow DAG made of this package's operators.

Reads the demo's breast cancer data below ``[mlops] data_root``. Start it in Airflow's UI, or run it
in a terminal: ``airflow dags test breast_cancer_by_hand``.
"""

from __future__ import annotations

from airflow.sdk import DAG, task

from airflow_mlops.operators.data import SnapshotOperator
from airflow_mlops.operators.evaluation import EvaluateOperator
from airflow_mlops.operators.prediction import BatchPredictOperator
from airflow_mlops.operators.promotion import PromoteOperator
from airflow_mlops.operators.validation import ValidateOperator

PIPELINE = "breast_cancer_by_hand"

# Sections are written as in YAML; a wrong key is an import error that names it.
DATA = {
    "source": "breast_cancer.parquet",
    "target": "diagnosis",
    "positive": "malignant",
    "id": "sample_id",
    "split": {"by": "random", "test": 0.3},
}
EVALUATE = {
    "metrics": ["roc_auc", "recall"],
    "gates": [{"metric": "roc_auc", "at_least": 0.97}],
}

with DAG(dag_id=PIPELINE, schedule=None, tags={"mlops", "by-hand"}, doc_md=__doc__):
    snapshot = SnapshotOperator(task_id="snapshot", pipeline=PIPELINE, data=DATA)

    validated = ValidateOperator(
        task_id="validate",
        pipeline=PIPELINE,
        snapshot=snapshot.output,
        data=DATA,
        validate={"expectations": [{"expect_column_values_to_be_unique": {"column": "sample_id"}}]},
    )

    @task.mlops_train(pipeline=PIPELINE, snapshot=validated.output, data=DATA, evaluate=EVALUATE)
    def fit(X, y, *, seed, trees):
        """Return a fitted estimator; X, y and seed come from the operator, the rest from the call."""
        # Imported here: a DAG file is parsed again and again, and parsing needs no scikit-learn.
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=trees, random_state=seed).fit(X, y)

    candidate = fit(trees=100)

    evaluation = EvaluateOperator(
        task_id="evaluate", pipeline=PIPELINE, candidate=candidate, data=DATA, evaluate=EVALUATE
    )

    @task.mlops_gate(pipeline=PIPELINE, evaluation=evaluation.output, evaluate=EVALUATE)
    def misses_few(evaluation, most):
        """One more gate, as code, beside those of EVALUATE."""
        predicted = evaluation.predictions("candidate").labels
        missed = int(((evaluation.y == 1) & (predicted == 0)).sum())
        return ("passed" if missed <= most else "rejected"), f"{missed} malignant samples missed, at most {most} may be"

    # After a rejection everything below is skipped and the run stays green.
    promoted = PromoteOperator(task_id="promote", pipeline=PIPELINE, decision=misses_few(most=12))

    promoted >> BatchPredictOperator(
        task_id="predict",
        pipeline=PIPELINE,
        data=DATA,
        batch={"source": "breast_cancer_new.parquet", "output": "predictions/by_hand/"},
    )
