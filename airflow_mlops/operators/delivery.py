"""Deliver a project: check a commit out, take it through the stages of CI, and tell what became of it."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from airflow_mlops.config.project import Project
from airflow_mlops.exceptions import ConfigError, MLOpsError, UntrustedArtifact
from airflow_mlops.factory.levels.delivery import record_name
from airflow_mlops.links.reports import DeliveryReportLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_mlops.delivery.deployment import Target
    from airflow_mlops.delivery.record import Asked
    from airflow_mlops.delivery.relay import Records, Source

CHECKOUT = "checkout"
_STATES = ("failed", "upstream_failed")


class DeliveryOperator(MLOpsOperator):
    """Base of every task of a delivery: the project, where it goes, what was found so far, and the report of it.

    :param project: what ``project.yaml`` says.
    :param folder: where that file lies; a remote that is a path starts there.
    :param steps: names of all steps that leave a record, in their order.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (DeliveryReportLink(),)

    def __init__(self, *, project: Project, folder: str, steps: Sequence[str], **kwargs: Any) -> None:
        super().__init__(pipeline=project.name, **kwargs)
        self.project = project
        self.folder = folder
        self.steps = tuple(steps)

    @contextmanager
    def targets(self) -> Iterator[dict[str, Target]]:
        """Where deployments go, by the name of the environment, with the remote's credentials while it is open."""
        from airflow_mlops.hooks.delivery import opened_remote, targets_of

        with opened_remote(self.project, Path(self.folder)) as remote:
            yield targets_of(self.project, remote)

    def records(self, context: Context) -> Records:
        """What the steps of this run have found so far."""
        from airflow_mlops.delivery.relay import Records
        from airflow_mlops.registry.log import op_id

        ti = context["ti"]
        delivery = op_id(ti.dag_id, ti.run_id)
        return Records(self.hook.store(), self.project.name, delivery, self.steps)

    def keep_delivery_report(
        self,
        context: Context,
        records: Records,
        *,
        verdict: str,
        environments: Sequence[Mapping[str, Any]] = (),
        told: Sequence[Mapping[str, Any]] | None = None,
    ) -> str | None:
        """Store the report as it stands now and link it; nothing before a commit is known."""
        from airflow_mlops.delivery.page import delivery_page

        found = list(told if told is not None else records.all())
        first = next((r for r in found if r["step"] == CHECKOUT), {})
        asked = self._asked(context)
        source = first.get("source") or {"project": self.project.name, "commit": "", "ref": asked["ref"]}
        markdown = next((r["report"] for r in reversed(found) if r.get("report")), None)
        page = delivery_page(
            source,
            found,
            verdict=verdict,
            environments=environments,
            reason=asked["reason"],
            markdown=markdown,
        )
        return self.keep_report(context, "Delivery report", page)

    def _asked(self, context: Context) -> dict[str, Any]:
        """What the run was started for: ``ref``, ``up_to``, ``reason``, ``by``; from form, event or defaults."""
        from airflow_mlops.operators.base import run_scope

        form, event = dict(context.get("params") or {}), run_scope(context).extra
        by = getattr(context.get("dag_run"), "triggering_user_name", None)
        new = f"new commit on {event['ref']}" if event.get("ref") else None
        return {
            # The watcher saw the branch at this commit; what else has come since has its own event.
            "ref": str(form.get("ref") or event.get("commit") or self.project.branch).strip(),
            "seen": None if form.get("ref") else event.get("ref"),
            "up_to": form.get("up_to") or list(self.project.environments)[-1],
            "reason": str(form.get("reason") or new or "").strip() or None,
            "by": by or "the delivery DAG",
        }


class DeliveryStepOperator(DeliveryOperator):
    """Base of the steps of a delivery: what a step finds becomes a record in the store and a report linked here.

    A step that finds something wrong fails without a retry; what may pass (a remote that does not answer) is tried
    again. Returns ``{"step", "status", "told"}`` and what the step adds.
    """

    @property
    def step(self) -> str:
        """How this step is called in the records."""
        return record_name(self.task_id)

    def source(self, records: Records) -> Source:
        """The commit that this run delivers.

        :raises ConfigError: nothing has been checked out.
        """
        from airflow_mlops.delivery.relay import Source

        record = records.read(CHECKOUT)
        if record is None or "source" not in record:
            raise ConfigError(
                "this run has checked nothing out",
                hint="run it again from its first task: clear that one, and all behind",
            )
        return Source(**record["source"])

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Do the step, keep what it found, whichever way it ends, and link the report."""
        records = self.records(context)
        records.begin(self.step)
        try:
            record = self.do(scope, context, records)
        except AirflowSkipException as e:
            self._end(context, records, records.write(self.step, "skipped", [str(e)]))
            raise
        except MLOpsError as e:
            lines = [e.message, *getattr(e, "__notes__", ())]
            self._end(context, records, records.write(self.step, "failed", lines, hint=e.hint))
            raise
        for line in record["told"]:
            self.log.info("%s", line)
        self._end(context, records, record)
        if record["status"] == "failed":
            raise AirflowFailException(f"{self.step} failed: {record['told'][0]}")
        return self.small(record, records)

    @abstractmethod
    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Do the step's work; returns the record that was written of it."""

    def small(self, record: Mapping[str, Any], records: Records) -> dict[str, Any]:
        """What of a record others may want to know at once; plain JSON."""
        return {"step": self.step, "status": record["status"], "told": (record["told"] or [""])[0]}

    def _end(self, context: Context, records: Records, record: Mapping[str, Any]) -> None:
        told = (record["told"] or [""])[0]
        self.keep_delivery_report(context, records, verdict=f"{record['step']} {record['status']}: {told}")


class CheckoutOperator(DeliveryStepOperator):
    """Decide which commit is delivered: that of the form, of the event that started the run, or the branch's newest.

    Its files, and those that the last environment has now, are kept in the store: every step behind works on these.
    Skipped where the last environment has this commit already: events of one commit may come twice.
    """

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Check the commit out of the remote, and keep it."""
        from airflow_mlops.delivery.deployment import deployed_bundle
        from airflow_mlops.delivery.relay import Source, keep_files
        from airflow_mlops.delivery.remote import Named
        from airflow_mlops.delivery.repository import Repository

        asked, project = self._asked(context), self.project
        with self.targets() as targets, tempfile.TemporaryDirectory(prefix="mlops-checkout-") as scratch:
            remote = targets[asked["up_to"]].remote
            clone = Path(scratch, "clone")
            named = remote.checkout(asked["ref"], clone)
            if asked["seen"] is not None:
                named = Named(named.commit, asked["seen"])
                remote.check_unmoved(named)
            files = Repository.around(_inside(clone, project.path)).files()
            distrust = None
            try:
                before = deployed_bundle(targets[asked["up_to"]], self.hook.verifier())
            except UntrustedArtifact as e:  # a key was changed, say: what is there is only compared with
                before, distrust = None, f"compared with nothing: what {asked['up_to']} has is not trusted: {e.message}"
        if before is not None and before.manifest["commit"] == named.commit:
            raise AirflowSkipException(f"{asked['up_to']} has the commit {named.commit[:12]} already")
        base = str(before.manifest["commit"]) if before else None
        source = Source(
            project.name,
            named.commit,
            named.ref,
            keep_files(records.store, files, project=project.name, commit=named.commit),
            base=base,
            before=keep_files(records.store, before.files, project=project.name, commit=base)
            if before and base
            else None,
        )
        told = [f"commit {named.commit}" + (f" of {named.ref}" if named.ref else ""), f"{len(files)} files"]
        told.append(distrust or f"{asked['up_to']} has {base[:12] if base else 'nothing yet'}")
        return records.write(self.step, "passed", told, source=source.to_dict())

    def small(self, record: Mapping[str, Any], records: Records) -> dict[str, Any]:
        """With the commit."""
        return super().small(record, records) | {"commit": record["source"]["commit"], "ref": record["source"]["ref"]}


def _inside(clone: Path, path: str | None) -> Path:
    """The project's folder in a clone; a link that a commit has put there could lead to other files of the worker.

    :raises ConfigError: it is no folder of the clone itself.
    """
    folder = clone / (path or "")
    if folder.resolve() != clone.resolve() / (path or ""):
        raise ConfigError(f"{path!r} of this commit is a link", hint="make it a folder; links are not followed")
    return folder


class StageOperator(DeliveryStepOperator):
    """Run one stage of ``airflow mlops ci`` on the commit that was checked out; which one, the task's name says.

    :param limits: ``sample`` (rows that a pipeline is trained on), ``test_timeout`` and ``train_timeout`` (seconds).
    """

    def __init__(self, *, limits: Mapping[str, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limits = dict(limits)

    def asked(self) -> Asked:
        """What the stages are asked for: what this Airflow's configuration says."""
        from airflow_mlops.cli.columns import LocalColumns
        from airflow_mlops.delivery.record import Asked, Limits
        from airflow_mlops.hooks.options import option, settings

        hook, project = self.hook, self.project
        # With these the project's tests could deploy by themselves.
        withheld = [option("signing_key_conn_id"), project.conn_id, *(e.api for e in project.environments.values())]
        return Asked(
            folder=Path(project.name),
            settings=settings(),
            data_root=hook.data_root,
            sample=int(self.limits["sample"]),
            trusted_types=hook.trusted_types,
            signer=hook.signer(),
            withheld_conn_ids=tuple(filter(None, withheld)),
            columns=LocalColumns(hook.data_root),
            limits=Limits(self.limits["test_timeout"], self.limits["train_timeout"]),
        )

    def do(self, scope: RunScope, context: Context, records: Records) -> dict[str, Any]:
        """Run the stage; its record is written by itself."""
        from airflow_mlops.delivery.relay import run_stage

        run_stage(records, self.source(records), self.step, self.asked(), self.log.info)
        return records.read(self.step) or {}

    def small(self, record: Mapping[str, Any], records: Records) -> dict[str, Any]:
        """With the commit, the bundle, and how the changed pipelines compare with the deployed ones."""
        metrics = [
            {"pipeline": name, **{key: metric[key] for key in ("name", "before", "after", "verdict")}}
            for name, trial in record["trials"].items()
            for metric in (trial["comparison"] or {}).get("metrics", ())
        ]
        commit = self.source(records).commit
        return super().small(record, records) | {
            "commit": commit,
            "bundle": record["bundle"]["digest"],
            "metrics": metrics,
        }


class DeliveryReportOperator(DeliveryOperator):
    """Tell what became of the delivery: every step, where each environment stands now, and what to do.

    It leaves no record. Red where a step failed, so that the run is; its message says in one line what happened.
    """

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Look at the records, the tasks' states and the environments, and keep the report."""
        records = self.records(context)
        told = self._told(context, records)
        environments = self._environments(records)
        failed = [record for record in told if record["status"] == "failed"]
        verdict = self._verdict(told, failed, environments)
        self.keep_delivery_report(context, records, verdict=verdict, environments=environments, told=told)
        self.log.info("%s", verdict)
        if failed:
            raise AirflowFailException(verdict)
        return {"told": verdict, "environments": [dict(e) for e in environments]}

    def _told(self, context: Context, records: Records) -> list[dict[str, Any]]:
        """Every record, and one for each task that ended without: killed, or stopped by a person."""
        ti = context["ti"]
        states = ti.get_task_states(ti.dag_id, run_ids=[ti.run_id])[ti.run_id]
        by_step = {record_name(task_id): state for task_id, state in states.items()}
        told = []
        for step in self.steps:
            record, state = records.read(step), by_step.get(step)
            if record is None and state == "failed":
                line = "the task ended without a word: it was killed, or stopped by hand; its log says more"
                record = {"step": step, "status": "failed", "told": [line], "at": "", "hint": "run the delivery again"}
            elif record is not None and state == "failed" and record["status"] == "passed":
                record = record | {
                    "status": "failed",
                    "told": ["it did its work, and was ended before it could say so"],
                }
            if record is not None:
                told.append(record)
        return told

    def _environments(self, records: Records) -> list[dict[str, Any]]:
        """Where each one stands; ``has`` is whether that is the bundle of this run, ``None`` where it is not known."""
        from airflow_mlops.delivery.deployment import history

        own = ((records.read("build") or {}).get("bundle") or {}).get("digest")
        found = []
        for name in self.project.environments:
            ready = records.read(f"{name}.ready")
            before = (ready or {}).get("deployed")
            has: bool | None = None
            try:
                with self.targets() as targets:
                    now = history(targets[name]).current
            except MLOpsError as e:
                state, said = "not known", e.message
            else:
                state, said = (now.digest[:12], f"since {now.at}, by {now.by}") if now else ("nothing", "")
                has = now is not None and now.digest == own
            back = records.read(f"{name}.rollback")
            if back is not None and back["status"] != "skipped":
                said = f"rollback {back['status']}: {back['told'][0]}"
            # Where the run did not come so far, it has changed nothing.
            earlier = before["digest"][:12] if before else "–" if ready else state
            found.append({"name": name, "before": earlier, "now": state, "said": said, "has": has})
        return found

    def _verdict(
        self, told: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]], where: Sequence[Mapping[str, Any]]
    ) -> str:
        commit = next((r["source"]["commit"][:12] for r in told if r.get("source")), "nothing")
        has = [each["name"] for each in where if each["has"]]
        if not failed:
            if any(r["step"].endswith(".deploy") and r["status"] == "passed" for r in told):
                refused = [r["told"][0] for r in told if r["step"].endswith(".deploy") and r["status"] == "skipped"]
                return "; ".join([f"{commit} is delivered to {' and '.join(has)}", *refused])
            skipped = next((r["told"][0] for r in told if r["status"] == "skipped"), "nothing was asked for")
            return f"nothing was deployed: {skipped}"
        ends = {r["step"].partition(".")[0]: r["status"] for r in told if r["step"].endswith(".rollback")}
        back, stuck = ([name for name, status in ends.items() if status == how] for how in ("passed", "failed"))
        parts = [f"{commit} is not delivered: {failed[0]['step']} failed: {failed[0]['told'][0]}"]
        parts += [f"{name} was rolled back" for name in back]
        parts += [f"{name} could not be rolled back" for name in stuck]
        parts += [f"{name} has it" for name in has]
        parts += [f"what {each['name']} has is not known" for each in where if each["has"] is None]
        return "; ".join(parts if len(parts) > 1 else [*parts, "nothing was deployed"])
