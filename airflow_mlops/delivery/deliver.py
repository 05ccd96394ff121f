"""One delivery to one environment: deploy, look whether it runs there, and go back where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from airflow_mlops.delivery.bundle import Bundle
from airflow_mlops.delivery.deployment import Delivered, Deployment, Request, Target, deploy, roll_back
from airflow_mlops.delivery.remote import Named
from airflow_mlops.exceptions import AirflowUnavailable, MLOpsError
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.signing import Verifier


@dataclass(frozen=True)
class Outcome:
    """How a delivery ended.

    :param problem: why the deployment does not count as well; ``None``: it does, or nobody has looked.
    :param rolled_back: the way back, where one was taken; ``stays``: why none was, where there is a problem.
    """

    delivered: Delivered
    problem: MLOpsError | None = None
    rolled_back: Delivered | None = None
    stays: str | None = None


def deliver(
    target: Target,
    bundle: Bundle,
    request: Request,
    *,
    check: Callable[[Deployment], None],
    verifier: Verifier,
    unproven: float,
    source: Named | None = None,
) -> Outcome:
    """Deploy a bundle and check the deployment; where the check fails, return to the deployment before.

    What was deployed already stays: that its Airflow is ill now says nothing of the bundle. It is taken back only where
    an earlier try of the same operation made it, and had no time to check it.

    :param check: raises where the environment does not run it, or does not run well with it.
    :param verifier: for the bundle that a rollback returns to.
    :param unproven: seconds that the check may take: a deployment that is older has had its own.
    :raises DeliveryError: nothing was deployed; as :func:`~airflow_mlops.delivery.deployment.deploy` does.
    """
    delivered = deploy(target, bundle, request, source=source)
    ours = delivered.done or _cut_off(delivered.deployment, request, unproven)
    try:
        check(delivered.deployment)
    except MLOpsError as problem:
        if not ours or (not delivered.done and isinstance(problem, AirflowUnavailable)):
            return Outcome(delivered, problem, stays="it was deployed before this, and may well run")
        return _undone(target, delivered, request, problem, verifier)
    return Outcome(delivered)


def _cut_off(deployment: Deployment, request: Request, unproven: float) -> bool:
    """Whether an earlier try of this may have made the deployment, and not have come to the end of its check."""
    age = (datetime.now(UTC) - datetime.fromisoformat(deployment.at)).total_seconds()
    return deployment.operation == request.operation and age <= unproven


def undo(deployment: Deployment, request: Request, problem: MLOpsError) -> Request:
    """Return the request for leaving a deployment because of a problem; the same one each time."""
    operation = op_id("undo", deployment.commit, request.operation)
    reason = f"{type(problem).__name__}: {problem.message}"
    return Request(request.by, operation, reason)


def _undone(target: Target, delivered: Delivered, request: Request, problem: MLOpsError, verifier: Verifier) -> Outcome:
    deployment = delivered.deployment
    try:
        back = roll_back(target, undo(deployment, request, problem), verifier=verifier, expected=deployment.commit)
    except MLOpsError as e:
        return Outcome(delivered, problem, stays=str(e.message))
    return Outcome(delivered, problem, rolled_back=back)
