"""The stages of pipeline CI, in their order: lint, test, build, train, gates, contract.

Each stage is a function of a :class:`~airflow_mlops.delivery.record.Check` that returns what it found; after one that
fails, those behind it are not begun. Whatever runs the project's code runs in a process of its own, on a copy of the
project's files, with a time limit and without the keys that bundles are signed with.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from airflow_mlops.config.folder import PROJECT_FILE, naming, pipeline_files
from airflow_mlops.config.issues import Issue
from airflow_mlops.config.lint import lint
from airflow_mlops.delivery.bundle import pack, read_bundle
from airflow_mlops.delivery.process import run
from airflow_mlops.delivery.project import (
    PIPELINES,
    Change,
    ProjectPipeline,
    changes,
    check_packages,
    own_packages,
    read_pipelines,
    syntax_errors,
)
from airflow_mlops.delivery.record import Asked, Case, Check, Stage, Trial, count
from airflow_mlops.delivery.repository import Repository
from airflow_mlops.delivery.tasks import SHOWN, clean, environment_of, error_lines, run_task, tail
from airflow_mlops.delivery.told import broken, metric_names, trained
from airflow_mlops.delivery.tree import TreeFile, write_tree
from airflow_mlops.delivery.watch import VARIABLE, read_record
from airflow_mlops.exceptions import ConfigError, EvaluationError
from airflow_mlops.factory.outline import outline
from airflow_mlops.registry.signing import Verifier


def check(asked: Asked, say: Callable[[str], None] = lambda text: None) -> Check:
    """Run all stages over the project in ``asked.folder`` as it lies there; nothing in it is changed.

    :param say: takes progress, a line for each stage and pipeline.
    :returns: what was found; nothing of it needs the temporary folder that is removed at the end.
    :raises ConfigError: there is nothing to check: no project, no repository, no such commit, files that cannot be
        packed, or a package that hides an installed one.
    """
    if asked.sample < 1:
        raise ConfigError(f"a sample of {asked.sample} rows is none", hint="ask for at least one row")
    repository = Repository.around(asked.folder)
    if not (asked.folder / PIPELINES).is_dir():
        raise ConfigError(
            f"{asked.folder} is not a project: it has no folder {PIPELINES}/",
            hint="name the project's folder; `airflow mlops new-project DIR` makes one",
        )
    with tempfile.TemporaryDirectory(prefix="mlops-ci-") as work:
        found = Check(asked, repository, repository.files(), repository.uncommitted(), Path(work).resolve())
        if asked.since is not None:
            found.base = repository.base(asked.since)
            found.files_before = repository.files_at(found.base)
        if found.uncommitted:
            say(f"the work tree has {count(len(found.uncommitted), 'uncommitted change')}: checked, too")
        prepare(found)
        for name in STAGES:
            run_stage(found, name, say)
    return found


def prepare(found: Check) -> None:
    """Write the project's files to ``found.work``, read its pipelines, and find out which of them have changed.

    :raises ConfigError: a package of the project hides an installed one.
    """
    check_packages(own_packages(found.files), found.asked.folder)
    write_tree(found.files, found.tree)
    write_tree(found.files_before, found.work / "before")
    _read(found)


def run_stage(found: Check, name: str, say: Callable[[str], None] = lambda text: None) -> Stage:
    """Run one stage and keep how it ended; where one before it has failed it is not begun."""
    if found.failed is not None:
        found.stages.append(Stage(name, "skipped", (f"not begun: {found.failed.name} failed",)))
        return found.stages[-1]
    began = time.monotonic()
    ended = STAGES[name](found, say)
    ended = dataclasses.replace(ended, seconds=round(time.monotonic() - began, 3))
    found.stages.append(ended)
    say(f"{name:<9} {ended.status}, {ended.seconds:.1f} s" + (f": {ended.told[0]}" if ended.told else ""))
    return ended


def _read(found: Check) -> None:
    found.pipelines = read_pipelines(found.tree, found.files, found.settings(found.files))
    before = found.settings(found.files_before)
    found.pipelines_before = read_pipelines(found.work / "before", found.files_before, before)
    if found.base is not None:
        found.changes = changes(found.pipelines_before, found.pipelines)
    else:
        found.changes = [Change(p.name, None, p, config=True, code=()) for p in found.pipelines.values()]
    # What has no model is only built: nothing of it can be trained on a sample and judged.
    found.trials = [Trial(c) for c in found.changes if c.after is not None and c.after.config.has_model]


# --- lint ----------------------------------------------------------------------------------------


def _lint(found: Check, say: Callable[[str], None]) -> Stage:
    own = [found.tree / PROJECT_FILE] if PROJECT_FILE in found.files else []
    issues = lint([found.tree / PIPELINES, *own], found.settings(found.files), columns=found.asked.columns)
    cases: dict[str, list[str]] = {path: [] for path in _checked(found.files)}
    told = []
    for issue in issues:
        path = _below(found, issue.file)
        line = f"{path}:{issue.line}:{issue.column}: {issue.severity}: {_text(found, issue)}"
        told.append(line)
        cases.setdefault(path, [])
        if issue.severity == "error":
            cases[path].append(line)
    for path, number, message in syntax_errors(found.files):
        told.append(f"{path}:{number}:1: error: this is not Python: {message}")
        cases.setdefault(path, []).append(told[-1])
    bad = sum(map(len, cases.values()))
    code = sum(path.endswith(".py") for path in found.files)
    counts = f"{count(len(found.pipelines), 'pipeline')}, {count(code, 'Python file')}"
    told = [count(bad, "error") if bad else counts, *told[:SHOWN]]
    each = tuple(Case(p, "failed" if m else "passed", "\n".join(m)) for p, m in sorted(cases.items()))
    return Stage("lint", "failed" if bad else "passed", tuple(told), each)


def _checked(files: Mapping[str, TreeFile]) -> Iterator[str]:
    for path in files:
        if (
            path == PROJECT_FILE
            or path.endswith(".py")
            or (path.startswith(f"{PIPELINES}/") and path.endswith((".yaml", ".yml")))
        ):
            yield path


def _text(found: Check, issue: Issue) -> str:
    return issue.message.replace(f"{found.tree}/", "") + (f" ({issue.suggestion})" if issue.suggestion else "")


def _below(found: Check, path: str) -> str:
    return path.replace(f"{found.tree}/", "")


# --- test ----------------------------------------------------------------------------------------


def _test(found: Check, say: Callable[[str], None]) -> Stage:
    if not any(path.startswith("tests/") for path in found.files):
        return Stage("test", "skipped", ("the project has no folder tests/",))
    copy, record = found.work / "tested", found.work / "tests.jsonl"
    write_tree(found.files, copy)
    record.touch()
    environment = environment_of(found) | {VARIABLE: str(record)}
    limit = found.asked.limits.tests
    ended = run(
        ["-m", "pytest", "-p", "airflow_mlops.delivery.watch", "-p", "no:cacheprovider", "-q", "--color=no"],
        folder=copy,
        environment=environment,
        seconds=limit,
        log=found.work / "tests.log",
    )
    events = read_record(record.read_text(encoding="utf-8", errors="replace"))
    cases = [
        Case(e["name"], e["outcome"], clean(found, e["message"]), e["seconds"])
        for e in events
        if e["event"] == "end" and e["outcome"] in ("passed", "failed", "skipped")
    ]
    finished = next((e for e in events if e["event"] == "finish"), None)
    bad = [case for case in cases if case.status == "failed"]
    if ended.code is None or finished is None:
        # The last thing that began and did not end is what it was at.
        over = {case.name for case in cases}
        open_ = [e for e in events if e["event"] in ("start", "collect") and e["name"] not in over]
        at = f"{open_[-1]['name'] or 'the project'}" if open_ else "pytest itself"
        did = "was imported" if open_ and open_[-1]["event"] == "collect" else "ran"
        if not events:
            return Stage("test", "failed", ("pytest did not start", *tail(found, ended)), tuple(cases))
        why = (
            f"killed after {limit:g} seconds, while {at} {did}"
            if ended.code is None
            else f"the process ended with {ended.code} while {at} {did}"
        )
        return Stage("test", "failed", (why, *tail(found, ended)), (*cases, Case(at, "failed", why)))
    if bad or finished["code"] not in (0, 5) or not finished["collected"]:
        what = f"{len(bad)} of {len(cases)} tests failed: {bad[0].name}" if bad else ""
        what = what or (
            "pytest found no test" if not finished["collected"] else f"pytest ended with {finished['code']}"
        )
        return Stage("test", "failed", (what, *tail(found, ended)), tuple(cases))
    skipped = sum(case.status == "skipped" for case in cases)
    told = count(len(cases), "test") + (f", {skipped} of them skipped" if skipped else "")
    return Stage("test", "passed", (told,), tuple(cases))


# --- build ---------------------------------------------------------------------------------------


def _build(found: Check, say: Callable[[str], None]) -> Stage:
    answer = run_task(found, "dags", found.tree, found.files, {}, seconds=found.asked.limits.tests)
    if "error" in answer:
        return Stage("build", "failed", tuple(error_lines(found, answer["error"])))
    dags, errors = answer["result"]["dags"], answer["result"]["errors"]
    cases = [Case(name, "failed", clean(found, text)) for name, text in errors.items()]
    for pipeline in found.pipelines.values():
        wanted = [dag.id for dag in outline(pipeline.config).dags]
        missing = [dag_id for dag_id in wanted if dag_id not in dags]
        text = f"Airflow does not find {', '.join(missing)}" if missing else ""
        cases.append(Case(pipeline.path, "failed" if missing else "passed", text))
    cases += [Case(name, "failed", "its file cannot be used") for name in dags if name.endswith("__invalid")]
    bad = [case for case in cases if case.status == "failed"]
    if bad:
        told = [line for case in bad for line in f"{case.name}: {case.message}".splitlines()]
        if not dags and not errors:
            told.append("a loader file beside pipelines/ is needed: globals().update(load_dags('pipelines'))")
        return Stage("build", "failed", tuple(told[:SHOWN]), tuple(cases))
    data = pack(
        found.files,
        project=found.project,
        commit=found.repository.head,
        uncommitted=bool(found.uncommitted),
        signer=found.asked.signer,
    )
    signer = found.asked.signer
    # Read back at once, as whoever deploys it will.
    bundle = read_bundle(data, verifier=Verifier((signer.public,)) if signer else Verifier())
    found.bundle, found.digest, found.content = data, bundle.digest, bundle.content
    found.signed_by = bundle.signed_by
    signed = f"signed by {bundle.signed_by}" if bundle.signed_by else "not signed"
    told = [
        f"{count(len(dags), 'DAG')} with {count(sum(dags.values()), 'task')}",
        f"bundle {bundle.digest[:12]}, {len(found.files)} files, {len(data):,} bytes, {signed}",
        f"content {bundle.content}",
    ]
    return Stage("build", "passed", tuple(told), tuple(cases))


# --- train ---------------------------------------------------------------------------------------


def _train(found: Check, say: Callable[[str], None]) -> Stage:
    if not found.trials:
        return Stage("train", "skipped", ("no pipeline has changed",))
    told, cases = [], []
    for trial in found.trials:
        began, name = time.monotonic(), trial.change.name
        problem = _train_one(found, trial, say)
        seconds = round(time.monotonic() - began, 3)
        cases.append(Case(name, "failed" if problem else "passed", "\n".join(problem), seconds))
        if problem:
            told += [f"{name}: {problem[0]}", *problem[1:]]
        elif trial.after is not None:
            told += trained(trial)
    bad = any(case.status == "failed" for case in cases)
    return Stage("train", "failed" if bad else "passed", tuple(told), tuple(cases))


def _train_one(found: Check, trial: Trial, say: Callable[[str], None]) -> list[str]:
    """Train one pipeline, and the one before it; returns what is wrong with the one after."""
    from airflow_mlops.delivery.compare import compare
    from airflow_mlops.delivery.fleet_compare import check_comparable, compare_fleets
    from airflow_mlops.store import LocalStore

    after, before = trial.change.after, trial.change.before
    if after is None:
        return []
    say(f"train     {after.name} ({trial.change.what})")
    limit = found.asked.limits.training
    answer = run_task(found, "train", found.tree, found.files, _trial_of(found, after), seconds=limit)
    if "error" in answer:
        return error_lines(found, answer["error"])
    trial.after = answer["result"]
    if before is None:
        if found.base is not None:
            unread = naming(after.name, pipeline_files(found.work / "before" / PIPELINES))
            trial.not_compared = "its file has errors there" if unread else "there is none to compare with"
        return []
    config = after.config
    try:
        check_comparable(before.config.fleet, config.fleet)
    except EvaluationError as e:
        trial.not_compared = e.message
        return []
    say(f"train     {after.name} as it was at {(found.base or '')[:12]}")
    request = _trial_of(found, before) | {
        "snapshot": trial.after["snapshot"],
        "data": config.data.model_dump(mode="json", by_alias=True, exclude_none=True),
        "seed": config.train.seed,
        "evaluate": config.evaluate.model_dump(mode="json", by_alias=True, exclude_none=True),
        "other_data": _reads(before) != _reads(after),
        "store": _store(found, after),
    }
    answer = run_task(found, "train_before", found.work / "before", found.files_before, request, seconds=limit)
    if "error" in answer:
        trial.not_compared = "it cannot be trained and judged on these rows"
        # What it does not know to be private yet, its error may quote.
        if set(config.data.private) <= set(before.config.data.private):
            trial.not_compared += ": " + clean(found, answer["error"]["message"])
        return []
    trial.before = answer["result"]
    try:
        trial.comparison = (compare if config.fleet is None else compare_fleets)(
            LocalStore(_store(found, after)),
            trial.before,
            trial.after,
            metrics=metric_names(trial),
            gates=config.evaluate.gates,
        ).to_dict()
    except EvaluationError as e:
        trial.not_compared = e.message
    return broken(trial)


def _reads(pipeline: ProjectPipeline) -> dict[str, Any]:
    data = pipeline.config.data
    return data.model_dump(include={"source", "sql", "callable", "window", "timestamp"})


def _store(found: Check, pipeline: ProjectPipeline) -> str:
    return str(found.work / "stores" / pipeline.name)


def _trial_of(found: Check, pipeline: ProjectPipeline) -> dict[str, Any]:
    asked = found.asked
    return {
        "file": pipeline.path,
        "store": _store(found, pipeline),
        "sample": asked.sample,
        "start": asked.start,
        "end": asked.end,
    }


# --- gates and contract ----------------------------------------------------------------------------


def _gates(found: Check, say: Callable[[str], None]) -> Stage:
    judged = [(trial, gate) for trial in found.trials for gate in trial.gates]
    if not judged:
        why = "no changed pipeline has gates" if found.trials else "no pipeline has changed"
        return Stage("gates", "skipped", (why,))
    cases = tuple(
        Case(f"{t.change.name}: {g['name']}", "failed" if g["verdict"] == "rejected" else "passed", g["sentence"])
        for t, g in judged
    )
    told = [f"{t.change.name}: {g['verdict']}: {g['sentence']}" for t, g in judged]
    bad = [line for line, case in zip(told, cases, strict=True) if case.status == "failed"]
    counts = [f"{count(len(judged), 'gate')}, {len(bad)} rejected"]
    return Stage("gates", "failed" if bad else "passed", (*counts, *told), cases)


def _contract(found: Check, say: Callable[[str], None]) -> Stage:
    if not found.trials:
        return Stage("contract", "skipped", ("no pipeline has changed",))
    told, cases = [], []
    for trial in found.trials:
        pipeline = trial.change.after
        if pipeline is None or trial.after is None:
            continue
        say(f"contract  {pipeline.name}")
        request = _trial_of(found, pipeline) | {"tried": trial.after}
        limit = found.asked.limits.training
        answer = run_task(found, "contract", found.tree, found.files, request, seconds=limit)
        if "error" in answer:
            problems = error_lines(found, answer["error"])
        else:
            trial.contract = answer["result"]
            problems = answer["result"]["problems"]
        same = f"{(trial.contract or {}).get('rows', 0)} rows: training and prediction see the same features"
        if served := (trial.contract or {}).get("served"):
            same += "; " + ", ".join(f"{parent} predicts {key}" for key, parent in served.items())
        told += [f"{pipeline.name}: {line}" for line in problems or [same]]
        cases.append(Case(pipeline.name, "failed" if problems else "passed", "\n".join(problems)))
    bad = any(case.status == "failed" for case in cases)
    return Stage("contract", "failed" if bad else "passed", tuple(told), tuple(cases))


STAGES: dict[str, Callable[[Check, Callable[[str], None]], Stage]] = {
    "lint": _lint,
    "test": _test,
    "build": _build,
    "train": _train,
    "gates": _gates,
    "contract": _contract,
}
