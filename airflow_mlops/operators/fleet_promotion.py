"""A fleet's end: promote what passed, key by key; at level 0, hand all champions over as one bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mlops.config.models import Evaluate
from airflow_mlops.exceptions import RegistryError
from airflow_mlops.links.reports import HandoverBundleLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.operators.cost import cost_up_to_here
from airflow_mlops.operators.promotion import YES, approver

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context


class FleetPromoteOperator(MLOpsOperator):
    """Make the versions that passed the champions of their keys, in a commit for each shard; retire vanished keys.

    A key whose champion is another one by now is left out, and says so. Returns ``{"promoted", "retired", "left_out",
    "sentence", "table"}``.

    :param decision: XCom of :class:`FleetGateOperator`.
    :param approval: XCom of the task that asked a person.
    :param evaluate: the ``evaluate`` section as in YAML.
    :param retire_after: ``fleet.retire_after``.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "decision", "approval")

    def __init__(
        self,
        *,
        decision: Any,
        approval: Any = None,
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        retire_after: int = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.decision = decision
        self.approval = approval
        self.evaluate = section(Evaluate, evaluate)
        self.retire_after = retire_after

    def _agreed(self, found: dict[str, Any]) -> str | None:
        """Who agreed, where somebody was asked; stop where gates or people said no, and record what people said."""
        from airflow_mlops.ml.fleet.result import save_result

        answer = (self.approval or {}).get("chosen_options")
        by = approver(self.approval or {})
        if answer:
            found["approval"] = {"by": by, "answer": list(answer)}
            save_result(self.hook.store(), self.pipeline, self.decision["run"], found)
        if not self.decision.get("go", True):
            raise AirflowSkipException(f"no key passed its gates: {self.decision['sentence']}")
        if self.decision.get("approval") and not answer:
            raise RegistryError(
                f"{self.pipeline} needs a person's yes, and there is no answer",
                hint="let the approval task be answered (marking it as succeeded is no answer)",
            )
        if answer and answer != [YES]:
            raise AirflowSkipException(f"nothing is promoted: {by or 'the time-out'} answered {answer[0]}")
        return by

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Promote, retire, and write the final result."""
        from airflow_mlops.ml.fleet.carried import renew
        from airflow_mlops.ml.fleet.result import count, put_table, read_rows, read_run, save_result, sentence
        from airflow_mlops.ml.fleet.verdict import Verdicts, promote_rows, retire_absent

        if not scope.promote:
            raise AirflowSkipException("this replay does not promote; start it with --promote to do so")
        store, registry, decision = self.hook.store(), self.hook.registry(self.pipeline), self.decision
        run = decision["run"]
        found = read_run(store, self.pipeline, run)
        by = self._agreed(found)
        rows = read_rows(store, decision["table"])
        going, _ = Verdicts(rows, 0, None).deliverable(self.evaluate, "asked")
        reason = f"gates of the run {context['ti'].run_id}: {decision['sentence']}"
        promoted, left = promote_rows(
            registry,
            going,
            operation=self.operation(context, "promote", run),
            reason=reason,
            by=by,
            window=scope.window,
        )
        retired = retire_absent(
            registry, found["absent"], after=self.retire_after, operation=self.operation(context, "retire", run)
        )
        rows = [
            row | {"promoted": row["key"] in promoted} | ({"reason": left[row["key"]]} if row["key"] in left else {})
            for row in rows
        ] + retired
        counts = count(rows, not_due=found["counts"].get("not_due", 0))
        told, table = sentence(counts), put_table(store, rows)
        done = {
            "sentence": told,
            "counts": counts,
            "table": table,
            **renew(store, table, found.get("all_keys")),
            "promoted_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "cost": cost_up_to_here(context) | self.hook.price(),
        }
        save_result(store, self.pipeline, run, found | done)
        for key, why in [*left.items()][:10]:
            self.log.warning("%s is left out: %s", key, why)
        self.log.info("%s", told)
        self.record_check(scope, "promotion", {"sentence": told, "counts": counts, "version": None, "previous": None})
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = scope.event_extra() | {"fleet": True, "promoted": len(promoted)}
        self.tell(context, scope, "promoted", f"{self.pipeline}: {told}")
        return {
            "promoted": len(promoted),
            "retired": len(retired),
            "left_out": len(left),
            "sentence": told,
            "table": table,
        }


class FleetHandoverOperator(FleetPromoteOperator):
    """Promote, and hand the champions of all keys over as one bundle that needs neither Airflow nor this package.

    Returns what :class:`FleetPromoteOperator` returns and ``bundle`` (digest), ``uri``, ``models``, ``command``.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (HandoverBundleLink(),)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Promote, write the bundle, link it."""
        from airflow_mlops.links.reports import file_url, persist_report
        from airflow_mlops.ml.fleet.handover import make_fleet_bundle
        from airflow_mlops.ml.fleet.result import read_run, save_result
        from airflow_mlops.store import layout

        done = super().work(scope, context)
        store, dag_id, run = self.hook.store(), context["ti"].dag_id, self.decision["run"]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.pipeline}.zip"
            made = make_fleet_bundle(
                store,
                self.hook.registry(self.pipeline),
                path,
                verifier=self.hook.verifier(),
                allowed_imports=self.hook.allowed_imports,
            )
            key = layout.handover(dag_id, made.digest)
            store.put_file(key, path)
        # What a record names is kept.
        save_result(store, self.pipeline, run, read_run(store, self.pipeline, run) | {"bundle": made.digest})
        persist_report(context, "Handover bundle", file_url(dag_id, made.digest))
        uri = f"{store.uri.rstrip('/')}/{key}"
        self.log.info("Handover bundle of %s models: %s", f"{made.models:,}", uri)
        self.log.info("To use it anywhere: unzip it, pip install -r requirements.txt, then: %s", made.command)
        return {**done, "bundle": made.digest, "uri": uri, "models": made.models, "command": made.command}
