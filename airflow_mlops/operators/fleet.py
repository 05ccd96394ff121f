"""A fleet: divide the rows by key, train shards, decide over all keys, promote."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

from airflow_mlops.config.models import Data, Evaluate, Features, Fleet, Train
from airflow_mlops.links.reports import GateReportLink
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section
from airflow_mlops.operators.cost import cost_up_to_here
from airflow_mlops.operators.evaluation import GateOperator

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_mlops.ml.fleet.shard import Trust


def slots_of(max_active_tasks: int) -> tuple[int, int]:
    """How many of a DAG's tasks run at a time, in all and on one machine, by the executor's settings."""
    executor = conf.get("core", "executor", fallback="LocalExecutor")
    slots = min(conf.getint("core", "parallelism", fallback=32) or 32, max_active_tasks)
    if "Kubernetes" in executor:
        return slots, 1  # a pod runs one task
    if "Celery" in executor:
        return slots, min(slots, conf.getint("celery", "worker_concurrency", fallback=16))
    from airflow_mlops.ml.fleet.shard import cores

    # More slots than cores are of no use to work that computes.
    return min(slots, cores()), slots


class PartitionOperator(MLOpsOperator):
    """Divide a snapshot by key, once, and plan which shard trains which keys.

    Returns a list for the shards' tasks to be mapped over: ``{"plan", "run", "rows", "shard", "label"}``; ``rows``
    are those of all shards.

    :param snapshot: reference of the (validated) snapshot.
    :param fleet: the ``fleet`` section as in YAML; ``data``, ``train``, ``evaluate`` and ``features`` likewise.
    :param task: ``classification`` or ``regression``; default: what the estimator is.
    :param about: what the pipeline says of itself, kept in the records.
    :param folder: of the pipeline's file: where a delivery left its files, the records name it.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "snapshot")

    def __init__(
        self,
        *,
        snapshot: Any,
        fleet: Fleet | Mapping[str, Any],
        data: Data | Mapping[str, Any],
        train: Train | Mapping[str, Any],
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        features: Features | Mapping[str, Any] | None = None,
        task: str | None = None,
        about: Mapping[str, Any] | None = None,
        folder: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.snapshot = snapshot
        self.fleet = section(Fleet, fleet)
        self.data = section(Data, data)
        self.train = section(Train, train)
        self.evaluate = section(Evaluate, evaluate)
        self.features = section(Features, features) if features else None
        self.task = task
        self.about = dict(about or {})
        self.folder = folder

    def work(self, scope: RunScope, context: Context) -> list[dict[str, Any]]:
        """Divide, learn what all models have in common, and write the plan."""
        from airflow_mlops.ml.fleet.begin import FleetSettings, begin_fleet
        from airflow_mlops.operators.training import delivered_code
        from airflow_mlops.registry.entry import op_id

        store, registry, signer = self.hook.store(), self.hook.registry(self.pipeline), self.hook.signer()
        self.hook.verifier().check_signer(signer)
        ti, form = context["ti"], context.get("params") or {}
        train = self.train.model_copy(update={"seed": int(form["seed"])} if form.get("seed") is not None else {})
        due, named = self._due(scope, context)
        plan = begin_fleet(
            store,
            registry,
            self.snapshot,
            FleetSettings(
                self.fleet,
                self.data,
                train,
                self.evaluate,
                self.features,
                self.task,
                delivered_code(Path(self.folder) if self.folder else None, context),
            ),
            slots=slots_of(max_active_tasks(context))[0],
            due=due,
            newcomers=not named,
            absent_before=self._absent(ti.dag_id, ti.run_id),
            about=self.about,
            run={"dag_id": ti.dag_id, "run_id": ti.run_id, "replay": scope.replay, "rehearsal": not scope.promote},
            allowed_imports=self.hook.allowed_imports,
            signer=signer,
            log=self.log.info,
        )
        run = op_id(ti.dag_id, ti.run_id, plan.digest)
        return [
            {
                "plan": plan.digest,
                "run": run,
                "rows": self.snapshot["rows"],
                "shard": number,
                "label": plan.label(number),
            }
            for number in range(len(plan.shards))
        ]

    def _absent(self, dag_id: str, run_id: str) -> dict[str, int]:
        """In how many trainings in a row before this one a key had no rows."""
        from airflow_mlops.ml.fleet.result import read_newest

        newest = read_newest(self.hook.store(), self.pipeline)
        if newest is None:
            return {}
        # A run that is cleared and done again has counted itself.
        itself = (newest["dag_id"], newest["run_id"]) == (dag_id, run_id)
        return {key: runs - itself for key, runs in newest["absent"].items()}

    def _due(self, scope: RunScope, context: Context) -> tuple[set[str] | None, bool]:
        """Keys to train: those of the trigger form, or of the request that started this run; ``None``: all.

        And whether a person has named them.
        """
        from airflow_mlops.store import get_json

        if named := (context.get("params") or {}).get("keys"):
            return {str(key) for key in named}, True
        if digest := scope.extra.get("keys"):
            # Airflow joins events that arrive together, and new data is for all keys.
            if others := [
                asset.name
                for asset in context.get("triggering_asset_events") or {}
                if not asset.name.endswith(".retrain")
            ]:
                self.log.info("All keys are trained, not only those asked for: the run is also for %s", others[0])
                return None, False
            due = set(get_json(self.hook.store(), digest))
            self.log.info("%s keys need a new model", f"{len(due):,}")
            return due, False
        return None, False


def max_active_tasks(context: Context) -> int:
    """How many tasks of the DAG may run at a time."""
    dag = context.get("dag")
    return int(getattr(dag, "max_active_tasks", None) or conf.getint("core", "max_active_tasks_per_dag", fallback=16))


class TrainShardOperator(MLOpsOperator):
    """Train, judge and register the models of one shard; a second try does what the first one left.

    A key that fails is a row of the result. Returns ``{"shard", "keys", "models", "counts"}``.

    :param shard: an item of the list that :class:`PartitionOperator` returned.
    :param data: the ``data`` section as in YAML; ``evaluate`` likewise.
    :param processes: ``fleet.processes``.
    :param watched: whether the pipeline has ``monitor``: then rows of each key are kept for its drift checks.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "shard")

    def __init__(
        self,
        *,
        shard: Any,
        data: Data | Mapping[str, Any],
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        processes: int | str = "auto",
        watched: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.shard = shard
        self.data = section(Data, data)
        self.evaluate = section(Evaluate, evaluate)
        self.processes = processes
        self.watched = watched

    def _trust(self) -> Trust:
        from airflow_mlops.ml.fleet.shard import Trust

        return Trust(self.hook.allowed_imports, self.hook.trusted_types, self.hook.verifier(), self.hook.signer())

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Train what is missing, and register all of it in one commit."""
        from airflow_mlops.ml.fleet.plan import Plan
        from airflow_mlops.ml.fleet.shard import processes_of, train_shard

        store = self.hook.store()
        return train_shard(
            store,
            self.hook.registry(self.pipeline),
            Plan.load(store, self.shard["plan"]),
            self.shard["shard"],
            run=self.shard["run"],
            evaluate=self.evaluate,
            data=self.data,
            trust=self._trust(),
            processes=processes_of(self.processes, slots_of(max_active_tasks(context))[1]),
            op_id=self.operation(context, "register", self.shard["plan"]),
            log=self.log.info,
            watched=self.watched,
        )


class FleetCompleteOperator(MLOpsOperator):
    """Fail where a shard did not end: the run is red then, though all other keys went on.

    Returns ``{"shards"}``.

    :param shards: XCom of :class:`PartitionOperator`.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "shards")

    def __init__(self, *, shards: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shards = shards

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Look for the result of each shard."""
        from airflow_mlops.ml.fleet.plan import Plan
        from airflow_mlops.ml.fleet.verdict import check_complete

        store = self.hook.store()
        return {"shards": check_complete(store, Plan.load(store, self.shards[0]["plan"]), self.shards[0]["run"])}


class FleetGateOperator(GateOperator):
    """Decide which keys may go on, all comparisons together; delivery is skipped where none may.

    Returns ``{"plan", "run", "verdict", "sentence", "counts", "table", "report", "go", "approval", "deliver"}``;
    ``table`` is the digest of the result, a row for each key.

    :param shards: XCom of :class:`PartitionOperator`.
    :param evaluate: the ``evaluate`` section as in YAML.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "shards")
    operator_extra_links: Collection[BaseOperatorLink] = (GateReportLink(),)

    def __init__(self, *, shards: Any, **kwargs: Any) -> None:
        super().__init__(evaluation=None, **kwargs)
        self.shards = shards

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Decide, keep table and report, and skip what must not follow."""
        from airflow_mlops.ml.fleet.carried import carry_on, earlier
        from airflow_mlops.ml.fleet.plan import Plan
        from airflow_mlops.ml.fleet.report import fleet_report_html
        from airflow_mlops.ml.fleet.result import count, put_table, save_result, sentence
        from airflow_mlops.ml.fleet.verdict import collect, error_of, judge, note_verdicts
        from airflow_mlops.store import get_json

        store, registry, ti = self.hook.store(), self.hook.registry(self.pipeline), context["ti"]
        plan, run = Plan.load(store, self.shards[0]["plan"]), self.shards[0]["run"]
        found = judge(collect(store, plan, run), self.evaluate, plan.wear)
        note_verdicts(registry, found.rows, operation=self.operation(context, "gates", run))
        going, ask = found.deliverable(self.evaluate, self.approval)
        ask = ask and scope.promote and bool(going)
        table = put_table(store, found.rows)
        counts = count(found.rows, not_due=len(plan.not_due))
        told = sentence(counts)
        page = fleet_report_html(
            found.rows,
            title=f"Fleet {self.pipeline}",
            tests=found.tests,
            limit=found.limit,
            alpha=error_of(self.evaluate.gates, plan.wear),
            not_due=len(plan.not_due),
        )
        result = {
            "plan": plan.digest,
            "run": run,
            "verdict": "passed" if going else "rejected",
            "sentence": told,
            "counts": counts,
            "table": table,
            "go": bool(going),
            "approval": ask,
            "deliver": len(going),
            "report": self.keep_report(context, "Gate report", page),
        }
        dag_run = context.get("dag_run")
        now = datetime.now(UTC)
        started = getattr(dag_run, "start_date", None) or now
        shared = get_json(store, plan.of)
        carried = {}
        if scope.promote:  # a rehearsal is no training that others are carried on from
            before = earlier(store, self.pipeline, ti.dag_id, ti.run_id)
            carried = carry_on(store, table, before, not_due=plan.not_due, absent=plan.absent)
        save_result(
            store,
            self.pipeline,
            run,
            {
                # Not the plan: it names the rows by key, which nobody needs once the models are there.
                **{k: result[k] for k in ("sentence", "counts", "table", "report")},
                **carried,
                "dag_id": ti.dag_id,
                "run_id": ti.run_id,
                "started_at": started.isoformat(),
                "window": scope.window.to_dict() if scope.window else None,
                "rows": self.shards[0]["rows"],
                "absent": plan.absent,
                "partial": plan.partial,
                "keys": len(found.rows) + len(plan.not_due),
                "tests": found.tests,
                "limit": found.limit,
                "rehearsal": not scope.promote,
                "replay": scope.replay,
                "of": plan.of,
                "about": shared["about"],
                "gated": bool(self.evaluate.gates),
                "validated": bool(shared["snapshot"].get("validation")),
                "delivered": bool((shared.get("code") or {}).get("delivered")),
                "decided_at": now.isoformat(timespec="milliseconds"),
                "cost": cost_up_to_here(context) | self.hook.price(),
            },
        )
        for status in ("failed", "rejected", "inconclusive"):
            for row in [r for r in found.rows if r["status"] == status][:10]:
                self.log.info("%s: %s", row["key"], row["reason"] if status != "failed" else f"failed: {row['reason']}")
        self.log.info("%s", told)
        self.emit(scope, "mlops.gate.verdict", verdict=result["verdict"])
        short = {k: result[k] for k in ("verdict", "sentence", "go", "counts")}
        self.record_check(scope, "fleet", short | {"run_id": ti.run_id, "table": table})
        if counts.get("rejected") or counts.get("failed"):
            self.tell(context, scope, "rejected", f"{self.pipeline}: {told}")
        self._skip(context, bool(going), ask, result)
        return result
