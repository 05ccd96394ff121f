"""Bring a project's bundle to an environment, look that its Airflow runs it, and take it back where it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.project import Smoke
from airflow_mlops.exceptions import ConfigError, DeliveryError, MLOpsError
from airflow_mlops.operators.base import RunScope
from airflow_mlops.operators.delivery import DeliveryStepOperator
from airflow_mlops.operators.promotion import YES, approver
from airflow_mlops.window import parse_duration

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.delivery.airflow_api import AirflowApi
    from airflow_mlops.delivery.bundle import Bundle
    from airflow_mlops.delivery.deployment import Deployment, Target
    from airflow_mlops.delivery.relay import Records
    from airflow_mlops.delivery.verification import Expected


class EnvironmentOperator(DeliveryStepOperator):
    """Base of the steps in one environment.

    :param environment: its name in ``project.yaml``.
    """

    def __init__(self, *, environment: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment

    @contextmanager
    def target(self) -> Iterator[Target]:
        """The environment, in the project's remote, while that is open."""
        with self.targets() as targets:
            yield targets[self.environment]

    def digest(self, records: Records) -> str:
        """The sha256 of the bundle that this run has built.

        :raises ConfigError: it has built none.
        """
        found = ((records.read("build") or {}).get("bundle") or {}).get("digest")
        if not found:
            raise ConfigError("this run has built no bundle", hint="clear the task ci.build and all behind it")
        return str(found)

    def bundle(self, records: Records) -> Bundle:
        """The bundle that this run has built, checked as this environment asks for.

        :raises UntrustedArtifact: it is not signed as it must be, or was changed.
        """
        from airflow_mlops.delivery.bundle import read_bundle
        from airflow_mlops.store import layout

        digest = self.digest(records)
        data = records.store.get(layout.bundle(self.project.name, digest))
        return read_bundle(data, verifier=self.hook.verifier(), digest=digest)

    def api(self) -> AirflowApi:
        """The environment's Airflow."""
        from airflow_mlops.delivery.airflow_api import AirflowApi
        from airflow_mlops.hooks.delivery import airflow_of

        return AirflowApi(airflow_of(self.project.environments[self.environment].api))

    def deployment(self, records: Records, step: str = "deploy") -> Deployment:
        """What this run has deployed to the environment.

        :raises ConfigError: it has deployed nothing.
        """
        from airflow_mlops.delivery.deployment import Deployment

        found = (records.read(f"{self.environment}.{step}") or {}).get("deployed")
        if not found:
            raise ConfigError(
                f"this run has deployed nothing to {self.environment}",
                hint=f"clear the task {self.environment}.deploy and all behind it",
            )
        return Deployment(**found)

    def expected(self, deployment: Deployment, bundle: Bundle) -> Expected:
        """What the environment's Airflow must show of a deployment."""
        from airflow_mlops.delivery.verification import Expected, expected_dags
        from airflow_mlops.hooks.options import settings

        return Expected(
            self.project.bundle_of(self.environment),
            deployment.commit,
            expected_dags(bundle, self.environment, settings()),
            datetime.fromisoformat(deployment.at),
        )

    def look(self, expected: Expected) -> str:
        """Wait until the environment's Airflow shows it; returns a sentence.

        :raises VerificationFailed: it does not.
        """
        from airflow_mlops.delivery.verification import verify

        timeout = parse_duration(self.project.environments[self.environment].verify_timeout).total_seconds()
        with self.api() as api:
            seconds = verify(api, expected, timeout=timeout, say=self.log.info)
        return f"its Airflow runs it after {seconds:.0f} s: {len(expected.dags)} DAGs of {expected.commit[:12]}"

    def operation_of(self, context: Context, action: str, records: Records) -> str:
        """Id of what this run does to the environment: the same whichever of its tasks asks."""
        from airflow_mlops.registry.log import op_id

        ti = context["ti"]
        return op_id(ti.dag_id, ti.run_id, action, self.environment, self.digest(records))


class ReadyOperator(EnvironmentOperator):
    """Look whether the bundle can be brought to the environment, before anything there is touched.

    The signature is checked, the commit must still be where the branch or tag named it, the environment's branch must
    be as it was left, and its Airflow must answer. Skipped where this run is not to come this far, and where the last
    environment has the bundle already: what is behind it is skipped, too.
    """

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Look, and write down what is deployed now."""
        from airflow_mlops.delivery.deployment import history

        names, last = list(self.project.environments), self._asked(context)["up_to"]
        if last not in names:
            raise ConfigError(f"there is no environment {last!r}", hint=f"choose one of {', '.join(names)} in the form")
        if names.index(self.environment) > names.index(last):
            raise AirflowSkipException(f"this run goes up to {last}")
        bundle = self.bundle(records)
        with self.target() as target:
            target.remote.check_unmoved(self.source(records).named)
            before = history(target).current
        own = self.operation_of(context, "deploy", records)
        if (
            before is not None
            and before.digest == bundle.digest
            and before.operation != own
            and self.environment == last
        ):
            raise AirflowSkipException(f"{self.environment} has it already: {before}")
        with self.api() as api:
            # What is asked after the deployment is asked now: one that cannot be asked would be found late.
            api.import_errors(self.project.bundle_of(self.environment))
        told = [f"{self.environment} has {before or 'nothing yet'}", f"bundle {bundle.digest[:12]} can be deployed"]
        if before is None:
            told.append(
                "a git bundle of Airflow that has looked for its branch already will not find it: docs say what to do"
            )
        return records.write(self.step, "passed", told, deployed=_written(before))


class DeployOperator(EnvironmentOperator):
    """Deploy the bundle to the environment: from one moment to the next, once, however often the task runs.

    :param approval: XCom of the task that asked a person, whose options are ``Approve`` and ``Reject``.
    """

    template_fields: Sequence[str] = (*EnvironmentOperator.template_fields, "approval")

    def __init__(self, *, approval: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approval = approval

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Deploy, where nobody said no."""
        from airflow_mlops.delivery.deployment import Request, deploy

        asked, by = self._asked(context), approver(self.approval or {})
        answer = (self.approval or {}).get("chosen_options")
        if answer and answer != [YES]:
            raise AirflowSkipException(
                f"not deployed to {self.environment}: {by or 'the time-out'} answered {answer[0]}"
            )
        if not answer and self.project.environments[self.environment].approve.required:
            raise DeliveryError(
                f"a deployment to {self.environment} needs a person's yes, and there is no answer",
                hint="let the approval task be answered: marking it as succeeded is no answer",
            )
        approved = f"approved by {by}" if answer else None
        reason = "; ".join(filter(None, (asked["reason"], approved)))
        request = Request(asked["by"], self.operation_of(context, "deploy", records), reason)
        with self.target() as target:
            done = deploy(target, self.bundle(records), request, source=self.source(records).named)
        told = [f"{self.environment} has {done.deployment}"]
        told += [f"before it: {done.before}"] if done.before else []
        told += [approved] if approved else []
        return records.write(self.step, "passed", told, deployed=_written(done.deployment))

    def small(self, record: Mapping[str, Any], records: Records) -> dict[str, Any]:
        """With the deployment's commit, which is the version that Airflow shows there."""
        return super().small(record, records) | {"commit": record["deployed"]["commit"]}


class VerifyOperator(EnvironmentOperator):
    """Look that the environment's Airflow has read what was deployed: the version, every DAG, and no error."""

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Wait until it has, or fail with what is missing."""
        told = self.look(self.expected(self.deployment(records), self.bundle(records)))
        return records.write(self.step, "passed", [told])


class SmokeOperator(EnvironmentOperator):
    """Start runs in the environment's Airflow, by its real scheduler, and wait until they are green."""

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Start them, once each, and wait."""
        from airflow_mlops.delivery.verification import smoke

        asked = self.project.environments[self.environment].smoke or Smoke()
        with self.api() as api:
            runs = smoke(
                api,
                self.expected(self.deployment(records), self.bundle(records)),
                asked.dags or (),
                conf=asked.conf,
                operation=self.operation_of(context, "smoke", records),
                timeout=parse_duration(asked.timeout).total_seconds(),
                say=self.log.info,
            )
        told = [f"{run.dag_id} is green, {run.seconds:.0f} s: {run.url}" for run in runs]
        return records.write(self.step, "passed", told, runs=[run.to_dict() for run in runs])


class RollbackOperator(EnvironmentOperator):
    """Take back what this run has deployed to the environment, where it failed behind that.

    It looks at what is deployed, and at no task's state: a deployment whose task was killed is taken back, too. Where
    this run has deployed nothing, it is skipped.
    """

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Return to the deployment before, and look that the environment's Airflow follows."""
        from airflow_mlops.delivery.deployment import Request, deployed_bundle, history, roll_back

        if records.read("build") is None:
            raise AirflowSkipException("this run has deployed nothing: it has built no bundle")
        own, again = (self.operation_of(context, what, records) for what in ("deploy", "rollback"))
        why = next(
            (f"{r['step']} failed: {r['told'][0]}" for r in reversed(records.all()) if r["status"] == "failed"), ""
        )
        request = Request(self._asked(context)["by"], again, why or "the delivery did not come to its end")
        with self.target() as target:
            current = history(target).current
            if current is None or current.operation not in (own, again):
                has = f"{self.environment} has {current or 'nothing'}"
                raise AirflowSkipException(f"this run has deployed nothing that is there now: {has}")
            try:
                # What this run has deployed, and nothing that somebody has put there since.
                done = roll_back(target, request, verifier=self.hook.verifier(), expected=current.commit)
            except DeliveryError as e:
                e.add_note(f"{self.environment} still has {current}")
                raise
            bundle = deployed_bundle(target, self.hook.verifier())
        told = [f"{self.environment} is back at {done.deployment}", f"taken back: {current}"]
        try:
            told += [self.look(self.expected(done.deployment, bundle))] if bundle else []
        except MLOpsError as e:
            told.append(f"its Airflow could not be looked at: {e.message}")
        return records.write(self.step, "passed", told, deployed=_written(done.deployment))


def _written(deployment: Deployment | None) -> dict[str, Any] | None:
    return deployment.to_dict() if deployment else None
