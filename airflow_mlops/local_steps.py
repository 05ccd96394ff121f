"""What each step of a training run does where there is no Airflow.

Every function takes the run, makes the library calls that the step's operator makes, and returns what is
to be told about it, a line for each thing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_mlops import local_experiment
from airflow_mlops.config.models import Data, PipelineConfig, length
from airflow_mlops.exceptions import DataError, ValidationFailed, WindowError
from airflow_mlops.local_run import LocalRun
from airflow_mlops.window import Window

if TYPE_CHECKING:
    from airflow_mlops.ml.reading import SourceBatches

log = logging.getLogger(__name__)

_ANSWERS = {True: "would ask a person", False: "would ask nobody: the gates decide"}


def _claim(run: LocalRun) -> list[str]:
    return ["nothing to claim: this run is started by hand"]


def _snapshot(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.data import take_snapshot
    from airflow_mlops.ml.fleet.sampling import SampledKeys

    config, data = run.config.data, run.data
    history = length(data.window)
    window = run.window.reaching_back(history) if run.window and history else run.window
    champion = run.champion() if data.max_row_drop else None
    batches = _batches(run, data, window)
    snapshot = take_snapshot(
        run.store,
        run.config.pipeline,
        batches,
        data=data,
        window=window,
        previous_rows=champion.record["snapshot"].get("rows") if champion else None,
        gaps=run.config.fleet is not None,
        log=log.debug,
    )
    run.snapshot = snapshot.to_ref()
    there = batches.rows_read - batches.rows_outside
    sampled = snapshot.rows < there
    rows = f"a sample of {snapshot.rows:,} of {there:,} rows" if sampled else f"{snapshot.rows:,} rows"
    lines = [f"{rows}, {len(snapshot.columns)} columns, fingerprint {snapshot.fingerprint[:12]}"]
    if window:
        why = f", {data.window} back from its end (data.window)" if history else ""
        lines.append(f"window {window}{why}; {batches.rows_outside:,} rows lie outside")
    if sampled and isinstance(batches, SampledKeys):
        lines.append(batches.told)
    if sampled and data.min_rows < config.min_rows:
        lines.append(f"data.min_rows is {config.min_rows:,}; for the sample it counts as {data.min_rows:,}")
    return [*lines, *(f"warning: {text}" for text in batches.warnings)]


def _batches(run: LocalRun, data: Data, window: Window | None) -> SourceBatches:
    from airflow_mlops.ml.data import read_batches
    from airflow_mlops.ml.fleet.sampling import SampledKeys
    from airflow_mlops.ml.sampling import SampledBatches

    if data.sql and run.sql is None:
        raise DataError(
            f"data.sql reads through the Airflow connection {data.sql.conn_id!r}, and there is no Airflow here",
            hint="use `airflow mlops run`, or pass sql=, a function (conn_id, query) that yields Arrow tables",
        )
    try:
        batches = read_batches(data, files=run.files, window=window, sql=run.sql, allowed_imports=run.allowed_imports)
    except WindowError as e:
        raise WindowError(
            e.message, hint="give its start and end; on the command line: --from 2013-01-01 --to 2013-02-01"
        ) from e
    fleet, seed = run.config.fleet, run.config.train.seed
    if not run.sample:
        return batches
    if fleet is not None:
        return SampledKeys(batches, run.sample, seed, fleet, wanted=run.keys or ())
    return SampledBatches(batches, run.sample, seed)


def _profile(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.data import Snapshot
    from airflow_mlops.ml.profile import profile, profile_html

    result = profile(
        Snapshot.load(run.store, run.snapshot), run.store, target=run.data.target, private=run.data.private
    )
    run.keep("Data profile", profile_html(result))
    return [f"{len(result['columns'])} columns described in the data profile"]


def _validate(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.data import Snapshot
    from airflow_mlops.ml.seen import trained_classes
    from airflow_mlops.ml.validation import validate

    champion = run.champion()
    seen = trained_classes(champion.record) if champion else None
    snapshot = Snapshot.load(run.store, run.snapshot)
    result = validate(
        snapshot, run.store, run.config.validate_, run.data, seen=seen, fleet=run.config.fleet, database=run.database
    )
    run.keep("Validation report", result.html)
    try:
        result.check()
    except ValidationFailed as e:
        raise ValidationFailed(e.message, hint=f"{e.hint}; reports= or --reports DIR keeps the report") from e
    run.snapshot = {**result.snapshot.to_ref(), "validation": result.evidence}
    asked = [result.asked.sentence] if result.asked else []
    return [*asked, result.sentence, *([result.labels.sentence] if result.labels else [])]


def fit(run: LocalRun) -> list[str]:
    """Train the candidate as the run's configuration says, and register it where that is asked for."""
    from airflow_mlops.ml.candidate import train_candidate
    from airflow_mlops.ml.command import check_command
    from airflow_mlops.ml.gates import check_gates
    from airflow_mlops.registry.artifacts import fetch_model
    from airflow_mlops.registry.registry import Version

    config = run.config
    check_gates(config.evaluate, run.folder)
    check_command(config.train.command, allowed=run.allow_commands)
    run.settle_keys()
    limits = [r.timeout for r in (config.train.resources, config.resources) if r is not None and r.timeout]
    timeout = length(limits[0]) if limits else None
    record = train_candidate(
        run.store,
        run.snapshot,
        data=run.data,
        train_config=config.train,
        features=config.features,
        metrics=config.evaluate.metrics,
        task=config.task,
        allowed_imports=run.allowed_imports,
        trusted_types=run.trusted_types,
        log=log.debug,
        folder=run.folder,
        timeout=timeout.total_seconds() if timeout else None,
        signer=run.signer,
        pipeline=config.pipeline,
    )
    run.model = fetch_model(
        run.store, record["model"], trusted=run.trusted_types, verifier=run.verifier, pipeline=config.pipeline
    )
    run.version = Version(config.pipeline, 0, None, record)
    last = run.model.steps[-1][1] if hasattr(run.model, "steps") else run.model
    rows, features = record["rows"], len(record["schema"]["features"])
    lines = [
        f"{type(last).__name__} on {rows['train']:,} rows and {features} columns; {rows['holdout']:,} rows held out",
        *(f"warning: {text}" for text in record["warnings"]),
    ]
    if run.register:
        _register(run, record)
        lines.append(f"registered as v{run.candidate.number} in {run.store.uri}")
    return lines


def _register(run: LocalRun, record: dict[str, Any]) -> None:
    from airflow_mlops.registry.log import op_id
    from airflow_mlops.registry.registry import Registry

    config = run.config
    source = {"dag_id": run.dag_id, "run_id": run.run_id, "replay": None}
    registry = Registry(run.store, config.pipeline)
    run.version = registry.register(
        record | {"about": _about(config), "run": source, **run.facts}, op_id=op_id(run.run_id, "register")
    )


def _about(config: PipelineConfig) -> dict[str, Any]:
    return {"owner": config.owner, "description": config.description, "level": config.level}


def _score(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.candidate_verdict import evaluate_candidate

    champion = run.champion()
    run.evaluation = evaluate_candidate(
        run.store,
        run.candidate.record,
        champion,
        data=run.data,
        config=run.config.evaluate,
        reference=run.reference(),
        allowed_imports=run.allowed_imports,
        trusted_types=run.trusted_types,
        log=log.debug,
        verifier=run.verifier,
        pipeline=run.config.pipeline,
        folder=run.folder,
    )
    run.annotate("evaluation", run.evaluation)
    rows = f"on {run.evaluation['rows']:,} rows"
    lines = [f"{m['name']} {_printed(m, 'candidate')} {rows}" for m in run.evaluation["metrics"].values()]
    if champion is not None:
        lines = [
            f"{line}; champion v{champion.number} {_printed(m, 'champion')}"
            for line, m in zip(lines, run.evaluation["metrics"].values(), strict=True)
        ]
    return lines


def _printed(metric: dict[str, Any], model: str) -> str:
    from airflow_mlops.ml.gate_result import decimals, number

    value, low, high = (metric[f"{model}{end}"] for end in ("", "_low", "_high"))
    digits = decimals(value)
    told = number(value, digits)
    return told if low is None or high is None else f"{told} ({number(low, digits)} … {number(high, digits)})"


def _gates(run: LocalRun) -> list[str]:
    from airflow_mlops.ml.candidate_verdict import decide_candidate
    from airflow_mlops.ml.gates import follow_up
    from airflow_mlops.store import layout

    config = run.config
    report, page = decide_candidate(
        run.store,
        run.candidate,
        run.evaluation,
        config.evaluate,
        trusted_types=run.trusted_types,
        log=log.debug,
        verifier=run.verifier,
        name=None if run.register else f"{config.pipeline}, not registered,",
    )
    run.keep("Gate report", page)
    go, ask = follow_up(report["verdict"], config.evaluate, _approval(config))
    run.decision = {**report, "champion": run.evaluation["champion"], "go": go, "approval": ask}
    if run.register:
        digest = hashlib.sha256(page.encode()).hexdigest()
        run.store.put(layout.report(run.dag_id, digest), page.encode())
        run.annotate("gates", {"version": run.candidate.number, **run.decision, "report": digest})
    _card(run)
    if not report["results"]:
        return [report["sentence"]]
    return [f"{line['verdict']}: {line['sentence']}" for line in report["results"]]


def _card(run: LocalRun) -> None:
    from airflow_mlops.ml.card import keep_card
    from airflow_mlops.registry.registry import Version
    from airflow_mlops.store import layout

    if run.meter is not None:
        run.costs.append({"task": "evaluate.gates", **run.meter.read()})
    if run.register:
        for cost in run.costs:
            run.annotate("cost", cost, cost["task"])
        version = run.candidate
    else:
        notes = {"evaluation": [run.evaluation], "gates": [run.decision], "cost": run.costs}
        version = Version(run.config.pipeline, 0, None, run.candidate.record | {"about": _about(run.config)}, notes)
    note, page = keep_card(version, run.store)
    run.keep("Model card", page)
    if run.register:
        run.store.put(layout.report(run.dag_id, note["html"]), page.encode())
        run.annotate("card", note)


def _approval(config: PipelineConfig) -> str:
    return "always" if config.level == 0 or config.approve.required else "asked"


def _ask(run: LocalRun) -> list[str]:
    if not run.decision["go"]:
        return ["skipped after this verdict"]
    always = run.config.level == 0 and run.decision["approval"]
    return [_ANSWERS[run.decision["approval"]] + (" (level 0 always asks)" if always else "")]


def _promote(then: str = "") -> Callable[[LocalRun], list[str]]:
    def tell(run: LocalRun) -> list[str]:
        if not run.decision["go"]:
            return ["skipped after this verdict"]
        number, before = run.candidate.number, run.decision["champion"]
        what = f"v{number}" if run.register else "the candidate"
        instead = f" in place of v{before}" if before else ""
        asked = ", if the person agreed" if run.decision["approval"] else ""
        return [f"{what} would become champion{instead}{then}{asked}"]

    return tell


def _roll_out(run: LocalRun) -> list[str]:
    from airflow_mlops.registry.rollout import path

    if not run.decision["go"] or not run.decision["champion"]:
        return _promote()(run)
    what = f"v{run.candidate.number}" if run.register else "the candidate"
    asked = ", if the person agreed" if run.decision["approval"] else ""
    return [f"{what} would roll out beside v{run.decision['champion']}: {path(run.config.rollout)}{asked}"]


STEPS: dict[str, Callable[[LocalRun], list[str]]] = {
    "retrain.claim": _claim,
    "data.snapshot": _snapshot,
    "data.profile": _profile,
    "validate.expectations": _validate,
    "train.fit": fit,
    "retention.expire": lambda run: ["a local run gives up nothing"],
    "evaluate.score": _score,
    "evaluate.gates": _gates,
    "approve.ask": _ask,
    "promote.champion": _promote(),
    "promote.rollout": _roll_out,
    "promote.handover": _promote(" and be handed over as one bundle"),
    **local_experiment.STEPS,
}
"""Step name → what it does in a local run."""
