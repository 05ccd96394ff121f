"""What Airflow is told about this package; one literal dictionary, imported by every Airflow process."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description in the form of Airflow's provider_info.schema.json."""
    return {
        "package-name": "airflow-mlops",
        "name": "MLOps",
        "description": "Machine learning on Apache Airflow: training, gates, promotion, prediction and monitoring.",
        "integrations": [
            {
                "integration-name": "MLOps",
                "tags": ["software"],
            }
        ],
        "operators": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.operators.data",
                    "airflow_mlops.operators.validation",
                    "airflow_mlops.operators.training",
                    "airflow_mlops.operators.sagemaker",
                    "airflow_mlops.operators.evaluation",
                    "airflow_mlops.operators.experiment",
                    "airflow_mlops.operators.fleet",
                    "airflow_mlops.operators.fleet_promotion",
                    "airflow_mlops.operators.fleet_prediction",
                    "airflow_mlops.operators.fleet_monitoring",
                    "airflow_mlops.operators.promotion",
                    "airflow_mlops.operators.registry",
                    "airflow_mlops.operators.prediction",
                    "airflow_mlops.operators.sagemaker_prediction",
                    "airflow_mlops.operators.monitoring",
                    "airflow_mlops.operators.rollout",
                    "airflow_mlops.operators.retrain",
                    "airflow_mlops.operators.retention",
                    "airflow_mlops.operators.delivery",
                    "airflow_mlops.operators.deployment",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.sensors.data",
                    "airflow_mlops.sensors.check",
                    "airflow_mlops.sensors.drift",
                    "airflow_mlops.sensors.champion",
                ],
            }
        ],
        "hooks": [{"integration-name": "MLOps", "python-modules": ["airflow_mlops.hooks.mlops"]}],
        "triggers": [
            {
                "integration-name": "MLOps",
                "python-modules": [
                    "airflow_mlops.triggers.data",
                    "airflow_mlops.triggers.registry",
                    "airflow_mlops.triggers.commits",
                    "airflow_mlops.triggers.sagemaker",
                ],
            }
        ],
        "connection-types": [
            {
                "connection-type": "mlops",
                "hook-class-name": "airflow_mlops.hooks.mlops.MLOpsHook",
                "hook-name": "MLOps store",
                "ui-field-behaviour": {"hidden-fields": ["host", "schema", "login", "password", "port", "extra"]},
                "conn-fields": {
                    "store": {
                        "label": "Store",
                        "description": "file:///… or s3://bucket/prefix: where models, snapshots and reports are kept.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "data_root": {
                        "label": "Data root",
                        "description": "Folder or URI that relative data paths start from.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "aws_conn_id": {
                        "label": "AWS connection",
                        "description": "Airflow connection used for s3://.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            }
        ],
        "extra-links": [
            "airflow_mlops.links.reports.ValidationReportLink",
            "airflow_mlops.links.reports.DataProfileLink",
            "airflow_mlops.links.reports.GateReportLink",
            "airflow_mlops.links.reports.ExperimentReportLink",
            "airflow_mlops.links.reports.DriftReportLink",
            "airflow_mlops.links.reports.SkewReportLink",
            "airflow_mlops.links.reports.RolloutReportLink",
            "airflow_mlops.links.reports.ModelCardLink",
            "airflow_mlops.links.reports.HandoverBundleLink",
            "airflow_mlops.links.reports.DeliveryReportLink",
        ],
        "task-decorators": [
            {"name": "mlops_train", "class-name": "airflow_mlops.decorators.train.mlops_train_task"},
            {"name": "mlops_gate", "class-name": "airflow_mlops.decorators.gate.mlops_gate_task"},
            {"name": "mlops_check", "class-name": "airflow_mlops.decorators.check.mlops_check_task"},
        ],
        "plugins": [{"name": "mlops", "plugin-class": "airflow_mlops.plugins.plugin.MLOpsPlugin"}],
        "cli": ["airflow_mlops.cli.definition.get_mlops_cli_commands"],
        "config": {
            "mlops": {
                "description": "Where models and data are, and what pipelines may import.",
                "options": {
                    "store": {
                        "description": "Store of models, snapshots, logs and reports: file:///… or s3://bucket/prefix. "
                        "Empty: the folder mlops in AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://my-bucket/mlops",
                        "default": "",
                    },
                    "data_root": {
                        "description": "Folder or URI that relative data paths start from. "
                        "Empty: the folder data in AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://my-bucket/lake",
                        "default": "",
                    },
                    "mlops_conn_id": {
                        "description": "Connection of type mlops that overrides store, data_root and aws_conn_id.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "mlops_default",
                        "default": "",
                    },
                    "aws_conn_id": {
                        "description": "AWS connection used for s3:// URIs.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "aws_default",
                        "default": "aws_default",
                    },
                    "allowed_imports": {
                        "description": "Comma-separated import prefixes from which pipelines may name code "
                        "(callables, estimators, notifiers). scikit-learn is always allowed.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "my_company.features,my_company.models",
                        "default": "",
                    },
                    "environment": {
                        "description": "Which of a pipeline file's environments counts here. Empty: none.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "staging",
                        "default": "",
                    },
                    "allowed_variables": {
                        "description": "Comma-separated names of environment variables that pipeline files may use as "
                        "${env:NAME}; a * at the end stands for any ending. Names of secrets are always refused.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "MLOPS_*,BUCKET",
                        "default": "MLOPS_*",
                    },
                    "allow_commands": {
                        "description": "Whether pipelines may train with a command (train.command). A command can run "
                        "anything that the worker's user may run; allowed_imports does not bind it.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                    "price_per_hour": {
                        "description": "What one hour of a worker costs; the model card then tells what a version "
                        "cost. Empty: no price.",
                        "version_added": "0.2.0",
                        "type": "float",
                        "example": "0.42",
                        "default": "",
                    },
                    "currency": {
                        "description": "The currency of price_per_hour, as the model card prints it.",
                        "version_added": "0.2.0",
                        "type": "string",
                        "example": "EUR",
                        "default": "",
                    },
                    "mlflow_conn_id": {
                        "description": "Connection of an MLflow server (type http: host, port, login and password, "
                        "or a token as password alone) that every version is shown in after it was registered. "
                        "Empty: none. Needs the extra mlflow.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "mlflow_default",
                        "default": "",
                    },
                    "mlflow_prefix": {
                        "description": "What names of experiments and registered models begin with in MLflow.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "staging.",
                        "default": "",
                    },
                    "trusted_types": {
                        "description": "Comma-separated types, beyond scikit-learn's, that a stored model may hold.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "my_company.models.Calibrated",
                        "default": "",
                    },
                    "signing_key_file": {
                        "description": "File with the Ed25519 private key (PEM) that models are signed with where "
                        "they are trained; refused where every user may read it.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/mlops/signing_key.pem",
                        "default": "",
                    },
                    "signing_key_conn_id": {
                        "description": "Connection whose password is that private key (PEM, or the base64 of its "
                        "32 bytes), instead of signing_key_file.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "mlops_signing_key",
                        "default": "",
                    },
                    "trusted_keys": {
                        "description": "Comma-separated public keys (base64, or paths of PEM files) whose signatures "
                        "count where models are loaded. Once there is one, unsigned models are refused.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "8gWuzA4M3EMM2QF6ymWrULhaGMeE7WFbGO7gOUo0y44=",
                        "default": "",
                    },
                    "allow_unsigned": {
                        "description": "Whether models without a signature are loaded. Empty: only while there is no "
                        "trusted key.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "False",
                        "default": "",
                    },
                    "allow_pickle": {
                        "description": "Whether imported pickle and joblib files are loaded. They can run anything; "
                        "even so they are loaded only with a valid signature of a trusted key.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                },
            }
        },
    }
