"""The outline says what the factory builds: the DAG objects are the witness."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronDataIntervalTimetable

from airflow_mlops.config.loader import load_pipeline, load_text
from airflow_mlops.config.models import PipelineConfig
from airflow_mlops.factory.builder import build_pipeline
from airflow_mlops.factory.outline import BY_HAND, Outline, mermaid, outline

DEMOS = Path(__file__).parents[3] / "dags" / "pipelines"
BASE = """
pipeline: a-B_1
level: {level}
dag: {{timezone: Europe/Berlin}}
data: {{source: "x/*.csv", target: y, id: i, timestamp: t{watch}}}
train: {{estimator: sklearn.linear_model.LogisticRegression}}
evaluate: {{gates: [{{metric: roc_auc, at_least: 0.6}}]}}
"""
LEVEL_1 = BASE.format(level=1, watch="")
LABELS = "monitor: {labels: {source: o.csv, join_on: i}, max_age: 9d}\n"
TEXTS = {
    "level 0": BASE.format(level=0, watch=""),
    "cron": LEVEL_1 + "retrain: {schedule: '@weekly'}\n",
    "monitored, never retrained by it": LEVEL_1 + "retrain: {schedule: '@weekly'}\nmonitor: {}\n",
    "new data": LEVEL_1 + "retrain: {when: [new_data]}\n",
    "files watched": BASE.format(level=1, watch=", watch: 1h") + "retrain: {when: [new_data]}\n",
    "drift": LEVEL_1
    + "retrain: {when: [drift]}\nmonitor: {schedule: '@daily'}\ndeploy: {batch: {schedule: '5 4 * * *'}}\n",
    "everything": LEVEL_1
    + "retrain: {schedule: '0 0 1 */3 *', when: [staleness, performance, drift, new_data]}\n"
    + LABELS
    + "approve: {required: true}\n",
    "asked without a champion": LEVEL_1.replace("evaluate: {", "evaluate: {no_champion: require_approval, ")
    + "retrain: {schedule: '@weekly'}\n",
}
CONFIGS = {name: load_text(text) for name, text in TEXTS.items()} | {
    path.stem: load_pipeline(path) for path in sorted(DEMOS.glob("*.yaml"))
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def _before(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """Task → all that comes before it, near or far; ``edges`` has a task after those it follows."""
    found: dict[str, set[str]] = {}
    for task, after in edges.items():
        found[task] = after.union(*(found[name] for name in after))
    return found


def _schedule(schedule: Any) -> tuple[str | None, str | None, set[str]]:
    """Cron, time zone and assets of a DAG's schedule."""
    if schedule is None:
        return None, None, set()
    if isinstance(schedule, AssetOrTimeSchedule):
        cron, zone, _ = _schedule(schedule.timetable)
        return cron, zone, _schedule(schedule.asset_condition)[2]
    if isinstance(schedule, CronDataIntervalTimetable):
        return schedule.expression, str(schedule.timezone), set()
    if isinstance(schedule, Asset):
        return None, None, {schedule.name}
    return None, None, {asset.name for asset in schedule.objects}


PRESETS = {"@daily": "0 0 * * *", "@weekly": "0 0 * * 0"}


@EVERY
def test_the_outline_says_what_is_built(config: PipelineConfig) -> None:
    shown, built = outline(config), build_pipeline(config)
    assert [dag.id for dag in shown.dags] == list(built)
    for dag in shown.dags:
        real: DAG = built[dag.id]
        assert dag.summary == real.description
        assert list(dag.form) == list(real.params)
        assert [task.id for task in dag.tasks] == [task.task_id for task in real.tasks]
        cron, zone, assets = _schedule(real.schedule)
        assert (PRESETS.get(dag.cron, dag.cron) if dag.cron else None) == cron
        assert dag.timezone == (zone or config.dag.timezone)
        assert set(dag.assets) == assets
        for task in dag.tasks:
            witness = real.get_task(task.id)
            assert witness.task_group is not None
            assert task.group == witness.task_group.group_id
            assert list(task.reads) == [a.name for a in witness.inlets]
            assert list(task.writes) == [a.name for a in witness.outlets]
            # Airflow adds an edge to each task whose result is read; such a one may only repeat an order that is told.
            assert set(task.after) <= witness.upstream_task_ids
        edges = {task.task_id: set(task.upstream_task_ids) for task in real.tasks}
        assert _before({task.id: set(task.after) for task in dag.tasks}) == _before(edges)


@EVERY
def test_what_starts_a_dag_is_said_in_words(config: PipelineConfig) -> None:
    built = build_pipeline(config)
    for dag in outline(config).dags:
        cron, _, assets = _schedule(built[dag.id].schedule)
        if cron is None and not assets:
            assert dag.starts == (BY_HAND,)
            continue
        assert len(dag.starts) == (cron is not None) + len(assets)
        assert any(start.startswith("cron ") for start in dag.starts) == (cron is not None)
        for name in assets:
            assert any(start == f"asset {name}" or start.startswith(f"asset {name}: ") for start in dag.starts)


def test_words() -> None:
    starts = {name: [dag.starts for dag in outline(config).dags] for name, config in CONFIGS.items()}
    assert starts["cron"] == [("cron @weekly (Europe/Berlin)",), (BY_HAND,), (BY_HAND,)]
    assert starts["files watched"][0] == ("asset a-B_1.data: new files, looked for every 1h",)
    assert starts["drift"] == [
        ("asset a-B_1.retrain",),
        ("cron 5 4 * * * (Europe/Berlin)",),
        ("cron @daily (Europe/Berlin)",),
        (BY_HAND,),
    ]


NODE = re.compile(r'\w+(?:\["[^"]*"\]|\(\["[^"]*"\]\)|\[\("[^"]*"\)\])?')
LINE = re.compile(rf'subgraph \w+\["[^"]*"\]|end|{NODE.pattern}(?: (?:-->|-\.->) {NODE.pattern})?')


def _links(text: str) -> set[tuple[str, str]]:
    found = re.findall(r"(\w+)\S*(?: [^\n]*\S)? (?:-->|-\.->) (\w+)", text)
    return {(a, b) for a, b in found}


@EVERY
def test_mermaid_is_well_formed_and_complete(config: PipelineConfig) -> None:
    shown = outline(config)
    first, *lines = mermaid(shown).splitlines()
    assert first == "flowchart LR"
    assert [line for line in lines if not LINE.fullmatch(line.strip())] == []
    assert sum(line.strip().startswith("subgraph") for line in lines) == lines.count("  end") == len(shown.dags)
    text = "\n".join(lines)
    for dag in shown.dags:
        assert f'["{dag.id}"]' in text
        for task in dag.tasks:
            assert f'["{task.id}"]' in text
    named = set(re.findall(r"(\w+)(?=[\[(])", text))
    assert {end for link in _links(text) for end in link} <= named


def test_mermaid_shows_the_chain_of_assets() -> None:
    links = _links(mermaid(outline(CONFIGS["everything"])))
    chain = [
        "train_promote_champion", "asset_champion", "predict_predict_batch", "asset_predictions", "monitor_dag",
    ]  # fmt: skip
    assert set(pairwise(chain)) <= links
    assert {("monitor_retrain_request", "asset_retrain"), ("asset_retrain", "train_dag")} <= links
    assert {("train_start0", "train_dag"), ("asset_data", "train_dag")} <= links
    assert ("files", "asset_data") in _links(mermaid(outline(CONFIGS["files watched"])))


def test_mermaid_quotes_its_labels() -> None:
    shown = Outline('a"]b', 0, '"]', ())
    assert '(["new files, looked for every #quot;]"])' in mermaid(shown)


def test_airflow_is_not_imported() -> None:
    code = "import sys, airflow_mlops.factory.outline; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
