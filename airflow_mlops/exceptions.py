"""Every error this package raises on purpose.

Each class says whether trying again can help (``retryable``); the operators' retry policy follows
that, so bad data fails once and a lost connection is retried. Messages say what is wrong, where,
and what to do about it. Nothing here imports Airflow.
"""

from __future__ import annotations

from typing import ClassVar


class MLOpsError(Exception):
    """Base of all errors raised on purpose.

    :param message: what is wrong, where, with the numbers.
    :param hint: what to do about it; printed on a line of its own.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  What to do: {self.hint}" if self.hint else self.message


# --- configuration -----------------------------------------------------------------------------


class ConfigError(MLOpsError):
    """A pipeline's configuration cannot be used; carries every problem found, not only the first."""


class WindowError(MLOpsError):
    """A run needs a data window and has none, or a malformed one."""


class CodeNotAllowed(MLOpsError):
    """A dotted path lies outside ``[mlops] allowed_imports`` or does not resolve to code."""


# --- data --------------------------------------------------------------------------------------


class DataError(MLOpsError):
    """The data of this run cannot be used as it is."""


class DataNotFound(DataError):
    """The source names no file, object or row."""


class DataTruncated(DataError):
    """A file ends in the middle of its content, or has lost rows against what is expected."""


class DataStale(DataError):
    """The newest row is older than ``data.fresh_within`` allows."""


class TargetError(DataError):
    """The target column is missing, constant, or has missing labels."""


class DataUnavailable(DataError):
    """The source cannot be reached now; a retry may help."""

    retryable = True


class SchemaSkew(DataError):
    """The data's columns or types differ from the locked schema."""


class ValidationFailed(DataError):
    """Expectations failed and ``validate.on_failure`` is ``block``."""


class ExpectationError(MLOpsError):
    """An expectation could not be evaluated at all: a mistake in it, not in the data."""


# --- models ------------------------------------------------------------------------------------


class TrainingError(MLOpsError):
    """The estimator, callable or command did not produce a usable model."""


class TrainingUnavailable(TrainingError):
    """Where training runs has no room or does not answer now; a retry may help, and never trains twice."""

    retryable = True


class EvaluationError(MLOpsError):
    """A metric or gate cannot be computed on this holdout."""


class PredictionError(MLOpsError):
    """Rows cannot be scored: they do not fit the model's schema."""


class PredictionUnavailable(PredictionError):
    """Where prediction runs has no room or does not answer now; a retry may help, and finds the job that runs."""

    retryable = True


class UntrustedArtifact(MLOpsError):
    """A model file is not what the registry recorded, or holds types that are not trusted."""


# --- registry and store ------------------------------------------------------------------------


class StoreError(MLOpsError):
    """The store answered with an error."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or is overloaded; a retry may help."""

    retryable = True


class ObjectNotFound(StoreError):
    """No object under this key."""


class ObjectExists(StoreError):
    """A put-if-absent found another object under its key."""


class CorruptObject(StoreError):
    """An object's bytes do not match its recorded digest or checksum."""


class RegistryError(MLOpsError):
    """The registry cannot do what was asked."""


class VersionNotFound(RegistryError):
    """No such model version or alias."""


class PromotionConflict(RegistryError):
    """The champion is not the one the decision was made against; evaluate again."""


# --- delivery ----------------------------------------------------------------------------------


class DeliveryError(MLOpsError):
    """A bundle cannot be brought into an environment, or out of it, as it was asked."""


class DeploymentConflict(DeliveryError):
    """Somebody else has deployed to the environment since it was looked at; look again before you repeat it."""


class BranchChanged(DeliveryError):
    """A branch or tag is not what was left there: edited by hand, moved or deleted."""


class RemoteUnavailable(DeliveryError):
    """The git remote cannot be reached now; a retry may help, and never deploys twice."""

    retryable = True


class AirflowUnavailable(DeliveryError):
    """The environment's Airflow does not answer now; a retry may help."""

    retryable = True


class VerificationFailed(DeliveryError):
    """The environment's Airflow does not run what was deployed, or a smoke run there was not green."""
