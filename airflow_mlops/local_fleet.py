"""What each step of a fleet's training does where there is no Airflow.

The same library calls as the operators make: divide by key, train the shards one after the other, decide over all
keys. All versions go to the run's store; where nothing is to be registered, that is a temporary one on top of the real
one, whose champions are compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_mlops.local_run import LocalRun

if TYPE_CHECKING:
    from airflow_mlops.config.models import Fleet
    from airflow_mlops.ml.fleet.plan import Plan


def _fleet(run: LocalRun) -> Fleet:
    from airflow_mlops.exceptions import ConfigError

    if run.config.fleet is None:
        raise ConfigError(f"{run.config.pipeline} is no fleet: it has no `fleet` section")
    return run.config.fleet


def _partition(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.fleet.begin import FleetSettings, begin_fleet
    from airflow_mlops.registry.log import op_id
    from airflow_mlops.registry.registry import Registry

    config = run.config
    run.settle_keys()
    told: list[str] = []
    plan = begin_fleet(
        run.store,
        Registry(run.store, config.pipeline),
        run.snapshot,
        FleetSettings(_fleet(run), run.data, config.train, config.evaluate, config.features, config.task),
        # One machine, one shard after the other: what runs at a time are the processes of a shard.
        slots=1,
        due=run.keys,
        absent_before=_absent(run),
        about={"owner": config.owner, "description": config.description, "level": config.level},
        run={"dag_id": run.dag_id, "run_id": run.run_id, "replay": None, "rehearsal": not run.register},
        allowed_imports=run.allowed_imports,
        signer=run.signer,
        log=lambda text, *values: told.append(text % values if values else text),
    )
    run.fleet = {"plan": plan, "run": op_id(run.run_id, plan.digest), "rows": []}
    return told


def _absent(run: LocalRun) -> dict[str, int]:
    """In how many trainings in a row a key had no rows, as the newest one left it."""
    from airflow_mlops.ml.fleet.result import read_newest

    newest = read_newest(run.store, run.config.pipeline)
    return dict(newest["absent"]) if newest else {}


def _train(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.fleet.shard import Trust, processes_of, train_shard
    from airflow_mlops.registry.log import op_id
    from airflow_mlops.registry.registry import Registry

    plan: Plan = run.fleet["plan"]
    models = 0
    for number in range(len(plan.shards)):
        done = train_shard(
            run.store,
            Registry(run.store, run.config.pipeline),
            plan,
            number,
            run=run.fleet["run"],
            evaluate=run.config.evaluate,
            data=run.data,
            trust=Trust(run.allowed_imports, run.trusted_types, run.verifier, run.signer),
            processes=processes_of(_fleet(run).processes, 1),
            op_id=op_id(run.run_id, "register", plan.digest, number),
            log=lambda text, *values: None,
            # Who only tries needs no rows to compare with later.
            watched=run.register and run.config.monitor is not None,
        )
        models += done["models"]
        run.progress(f"shard {number + 1} of {len(plan.shards)}: {done['models']:,} of {done['keys']:,} have a model")
    return [f"{models:,} of {plan.keys:,} keys and parents have a model, in {len(plan.shards)} shards"]


def _complete(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.fleet.verdict import check_complete

    shards = check_complete(run.store, run.fleet["plan"], run.fleet["run"])
    return [f"all {shards} shards have ended"]


def _gates(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.fleet.report import fleet_report_html
    from airflow_mlops.ml.fleet.result import count, sentence
    from airflow_mlops.ml.fleet.verdict import collect, error_of, judge, note_verdicts
    from airflow_mlops.registry.log import op_id
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.store import layout

    config, plan = run.config, run.fleet["plan"]
    found = judge(collect(run.store, plan, run.fleet["run"]), config.evaluate, plan.wear)
    approval = "always" if config.level == 0 or config.approve.required else "asked"
    going, ask = found.deliverable(config.evaluate, approval)
    counts = count(found.rows, not_due=len(plan.not_due))
    page = fleet_report_html(
        found.rows,
        title=f"Fleet {config.pipeline}",
        tests=found.tests,
        limit=found.limit,
        alpha=error_of(config.evaluate.gates, plan.wear),
        not_due=len(plan.not_due),
    )
    run.keep("Gate report", page)
    if run.register:
        note_verdicts(Registry(run.store, config.pipeline), found.rows, operation=op_id(run.run_id, "gates"))
        run.store.put(layout.report(run.dag_id, hashlib.sha256(page.encode()).hexdigest()), page.encode())
    run.fleet |= {"rows": found.rows, "counts": counts, "going": going}
    told = sentence(counts)
    run.decision = {"verdict": "passed" if going else "rejected", "sentence": told, "go": bool(going), "approval": ask}
    lines = [told]
    if found.tests:
        lines.append(f"{found.tests:,} keys were compared with their champion; p had to be at most {found.limit:.2g}")
    return lines + _spread(found.rows)


def _spread(rows: list[dict[str, Any]]) -> list[str]:
    """How each metric is spread over the keys."""
    import numpy as np

    lines = []
    for name in dict.fromkeys(name for row in rows for name in row.get("metrics") or ()):
        values = [row["metrics"][name] for row in rows if (row.get("metrics") or {}).get(name) is not None]
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        lines.append(f"{name}: half of the keys between {low:.4g} and {high:.4g}, middle {middle:.4g}")
    return lines


def _promote(run: LocalRun, then: str = "") -> list[str]:
    after = _fleet(run).retire_after
    gone = sum(runs >= after for runs in run.fleet["plan"].absent.values())
    lines = [f"{gone:,} keys without rows would be retired"] if gone else []
    if not run.decision["go"]:
        return ["skipped after this verdict", *lines]
    asked = ", if the person agreed" if run.decision["approval"] else ""
    return [f"{len(run.fleet['going']):,} versions would become the champions of their keys{then}{asked}", *lines]


STEPS: dict[str, Callable[[LocalRun], list[str]]] = {
    "fleet.partition": _partition,
    "fleet.train": _train,
    "fleet.complete": _complete,
    "evaluate.gates": _gates,
    "promote.champion": _promote,
    "promote.handover": partial(_promote, then=" and be handed over as one bundle"),
}
"""Step name → what it does in a local run of a fleet; the steps that are missing here are those of one model."""
