"""The demo of a fleet: a model for each destination and carrier, trained each quarter, asked each month."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from airflow_mlops.demo import story
from airflow_mlops.demo.airflow import LiveAirflow
from airflow_mlops.demo.story import Say, StoryError

if TYPE_CHECKING:
    from airflow_mlops.store.base import Store

PIPELINE = "route_delays"
DAGS = tuple(f"{PIPELINE}__{suffix}" for suffix in ("train", "predict", "monitor", "registry"))
MONTHS = 7
"""Of 2013: the first models of January, new ones in April and July, and each month asked."""
FIRST_QUARTER = 3
"""Months after which there is a training of more than January alone, in which few routes have flights enough."""
FEWEST = 100
"""Models that the newest training has, of some 210; fewer would be no fleet."""
LEAST_AUC = 0.6
"""Over all flights of a month that were predicted and landed, whoever served them."""


def told(live: LiveAirflow, data: Path, months: int, say: Say) -> list[str]:
    """Replay the months, look at what came of it, and take one model back; returns the closing lines.

    :param data: the folder that :func:`~airflow_mlops.demo.data.prepare_flights` wrote.
    :raises StoryError: a run failed, or it came to something else than it should.
    """
    from airflow_mlops.ml.fleet.keys import is_parent
    from airflow_mlops.ml.fleet.result import read_table
    from airflow_mlops.registry.registry import Registry
    from airflow_mlops.store import open_store

    live.wait_for_dags(*DAGS)
    live.unpause(*DAGS)
    table = story.replay(live, PIPELINE, *story.months(months), say, live.check_alive)
    store = open_store(live.env["AIRFLOW__MLOPS__STORE"])
    trained = trainings(store)
    whole = max(trained, key=models_of)
    check_training(whole, FEWEST if months >= FIRST_QUARTER else 1)
    say(f"{len(trained)} trainings, the largest of {whole['keys']} keys: {whole['sentence']}")
    lines = ["", f"{PIPELINE} (level 1, one model for each destination and carrier)", *table]
    if months > 1:
        asked = live.get(f"dags/{DAGS[1]}/dagRuns", order_by="-run_after", limit=1)["dag_runs"][0]["dag_run_id"]
        scored = live.xcom(DAGS[1], asked, "predict.publish")
        found = check_predictions(scored, data, f"2013-{months:02}")
        say(found)
        lines += ["", f"2013-{months:02}: {scored['sentence']}", found]
    for args in (_fleet("status"), _fleet("failures", "--limit", "5"), _fleet("failures", *_PARENTS, "--limit", "5")):
        lines += ["", "airflow " + " ".join(args), *_told(live, args)]
    rows = read_table(store, whole["table"], filters=[("promoted", "=", True)]).to_pylist()
    serving = {key: version.number for key, version in Registry(store, PIPELINE).champions().items()}
    again = [r for r in rows if r["champion"] and serving.get(r["key"]) == r["version"] and not is_parent(r["key"])]
    if again:
        lines += ["", *_rolled_back(live, max(again, key=lambda row: row["train_rows"]), say)]
    live.check_alive()
    if errors := live.import_errors():
        raise StoryError("Airflow could not read: " + ", ".join(errors))
    return lines


def look_at(live: LiveAirflow) -> str:
    """Where to look in the UI, a line for each page."""
    pages = (
        ("All keys, their scores and reasons", f"{live.url}/dags/{DAGS[0]}/plugin/mlops-pipeline"),
        ("The shards of a training, in the grid", f"{live.url}/dags/{DAGS[0]}"),
    )
    return "".join(f"\n  {what + ':':40} {url}" for what, url in pages)


_PARENTS = ("--status", "fallback", "--status", "retired")


def _fleet(command: str, *more: str) -> list[str]:
    return ["mlops", "fleet", command, PIPELINE, *more]


def _told(live: LiveAirflow, args: Sequence[str]) -> list[str]:
    lines = list(story.output(live, args))
    begins = next((n for n, line in enumerate(lines) if line.startswith(PIPELINE)), 0)
    return [line for line in lines[begins:] if line]


def trainings(store: Store) -> list[dict[str, Any]]:
    """The summaries of all trainings, :func:`airflow_mlops.ml.fleet.result.save_result`, oldest first.

    :raises StoryError: there is none.
    """
    from airflow_mlops.store import layout

    found = [json.loads(store.get(key)) for key in sorted(store.list(layout.fleet_runs_prefix(PIPELINE)))]
    if not found:
        raise StoryError(f"{DAGS[0]} has left no result in {store.uri}")
    return found


def models_of(training: Mapping[str, Any]) -> int:
    """How many models a training has made; one that was asked for keys that alarmed makes few."""
    counts = training["counts"]
    return sum(counts.get(name, 0) for name in ("promoted", "passed", "no_baseline", "rejected", "inconclusive"))


def check_training(training: Mapping[str, Any], fewest: int) -> None:
    """Refuse a training that came to less than a fleet.

    :param training: its summary.
    :param fewest: models that it must have, parents included.
    :raises StoryError: what is missing.
    """
    counts, models = training["counts"], models_of(training)
    if models < fewest:
        raise StoryError(f"only {models} of {training['keys']} keys have a model: {training['sentence']}")
    for name, what in (("promoted", "no model was promoted"), ("fallback", "no key is served by a parent")):
        if not counts.get(name):
            raise StoryError(f"{what}: {training['sentence']}")
    # A carrier that was never late to a place in three months fails alone; were it more, something else is wrong.
    if counts.get("failed", 0) > training["keys"] // 10:
        raise StoryError(f"{counts['failed']} of {training['keys']} keys failed: {training['sentence']}")


def check_predictions(scored: Mapping[str, Any], data: Path, month: str) -> str:
    """Hold the predictions of a month against how late its flights came; returns what to tell of it.

    :param scored: what ``predict.publish`` returned.
    :raises StoryError: a flight is missing, or the models know nothing.
    """
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    predicted = pd.read_parquet(data / url2pathname(urlsplit(scored["output"]).path))
    asked = pd.read_parquet(data / "schedule" / f"{month}.parquet", columns=["flight_id"])
    if list(predicted["flight_id"]) != list(asked["flight_id"]):
        raise StoryError(
            f"{scored['output']} has {len(predicted):,} rows, and {len(asked):,} flights were to be scored"
        )
    landed = predicted.merge(pd.read_parquet(data / "outcomes" / f"{month}.parquet"), on="flight_id")
    landed = landed[landed["prediction"].notna()]
    by_parent = landed["model_key"].str.endswith("*")
    if not by_parent.any() or by_parent.all():
        raise StoryError(f"{by_parent.sum():,} of {len(landed):,} flights were predicted by a parent")
    found = float(roc_auc_score(landed["delayed"], landed["probability"]))
    if found < LEAST_AUC:
        raise StoryError(f"the models of {month} know nothing: roc_auc {found:.3f} over {len(landed):,} flights")
    models = landed["model_key"].nunique()
    return f"{month}: {len(landed):,} flights landed; {models} models told late ones by roc_auc {found:.3f}"


def _rolled_back(live: LiveAirflow, row: Mapping[str, Any], say: Say) -> list[str]:
    """Return one key to its champion before, as somebody would who knows better; the others stay.

    :raises StoryError: it serves another version afterwards.
    """
    name = f"{PIPELINE}[{row['key']}]"
    args = ["mlops", "registry", "rollback", name, "--expected", str(row["version"]), "--reason", "the demo shows it"]
    say(f"airflow mlops registry rollback '{name}' --expected {row['version']}: one model, the others stay")
    list(story.output(live, args))
    shown = _told(live, _fleet("show", row["key"]))
    if shown[:1] != [f"{name}: v{row['champion']} serves"]:
        raise StoryError(f"{name} was rolled back to v{row['champion']}, and this is told of it:\n" + "\n".join(shown))
    return [f"airflow mlops fleet show {PIPELINE} {row['key']}   (after a rollback of this key alone)", *shown]
