"""The registry shown in a real MLflow server, and models brought out of one."""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import zipfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from urllib.parse import urlsplit

import httpx
import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).parent))  # importmode=importlib leaves the folder out

from mlflow_process import environment, mlflow_server

from airflow_mlops.cli.registry_definition import REGISTRY
from airflow_mlops.demo.airflow import free_port
from airflow_mlops.exceptions import ConfigError, DataError, RegistryError, UntrustedArtifact, VersionNotFound
from airflow_mlops.ml.card import card_of
from airflow_mlops.ml.features import recorded_code
from airflow_mlops.registry import mlflow_mirror
from airflow_mlops.registry.artifacts import fetch_model, store_model
from airflow_mlops.registry.formats import dump_model
from airflow_mlops.registry.mlflow_client import Target, connected
from airflow_mlops.registry.mlflow_import import _location, import_model
from airflow_mlops.registry.mlflow_mirror import export_all, mirror, mirror_event
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store import LocalStore
from airflow_mlops.store.content import put_blob

_names = iter(range(1_000_000))


@pytest.fixture(scope="session")
def mlflow_python(pytestconfig: pytest.Config) -> Path:
    return environment(Path(pytestconfig.cache.mkdir("mlflow")))


@pytest.fixture(scope="session")
def mlflow_url(mlflow_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(mlflow_python, tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def server(mlflow_url: str) -> Server:
    return Server(mlflow_url)


@pytest.fixture
def target(mlflow_url: str) -> Target:
    return Target(mlflow_url)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def registry(store: LocalStore) -> Registry:
    """The registry of a pipeline that MLflow has never heard of."""
    return Registry(store, f"churn_{os.getpid()}_{next(_names)}")


class Server:
    """MLflow's own REST API: what anybody else sees."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/api/2.0/mlflow", trust_env=False, timeout=30)

    def _get(self, url: str, **params: Any) -> dict[str, Any]:
        return self._client.get(url, params=params).raise_for_status().json()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._client.post(path, json=body).raise_for_status().json()

    def runs(self, experiment: str, view: str = "ACTIVE_ONLY") -> list[dict[str, Any]]:
        """Runs by start: info, params, metrics and tags as dicts."""
        found = self._client.get("/experiments/get-by-name", params={"experiment_name": experiment})
        if found.status_code == 404:
            return []
        ids = [found.json()["experiment"]["experiment_id"]]
        body = {"experiment_ids": ids, "max_results": 500, "run_view_type": view, "order_by": ["start_time"]}
        return [
            {"info": run["info"]}
            | {
                part: {p["key"]: p["value"] for p in run["data"].get(part, [])}
                for part in ("params", "metrics", "tags")
            }
            for run in self._post("/runs/search", body).get("runs", [])
        ]

    def model(self, name: str) -> dict[str, Any]:
        return self._get("/registered-models/get", name=name)["registered_model"]

    def aliases(self, name: str) -> dict[str, str]:
        return {a["alias"]: a["version"] for a in self.model(name).get("aliases", [])}

    def versions(self, name: str) -> list[dict[str, Any]]:
        found = self._get("/model-versions/search", filter=f"name='{name}'").get("model_versions", [])
        return sorted(found, key=lambda v: int(v["version"]))

    def files(self, run_id: str, path: str = "") -> set[str]:
        return {f["path"] for f in self._get("/artifacts/list", run_id=run_id, path=path).get("files", [])}

    def history(self, run_id: str, metric: str) -> list[float]:
        found = self._get("/metrics/get-history", run_id=run_id, metric_key=metric)
        return [m["value"] for m in found["metrics"]]


def record(store: LocalStore, seed: int = 7) -> dict[str, Any]:
    """What training registers, of a small model."""
    frame = load_iris(as_frame=True)
    model = RandomForestClassifier(n_estimators=2, max_depth=2, random_state=seed).fit(frame.data, frame.target)
    return {
        "model": store_model(store, model),
        "task": "classification",
        "snapshot": {"fingerprint": "f" * 64, "rows": 150, "window": {"start": "2025-01-01", "end": "2025-02-01"}},
        "rows": {"train": 120, "holdout": 30},
        "seed": seed,
        "estimator": "sklearn.ensemble.RandomForestClassifier",
        "params": {"n_estimators": 2, "max_depth": 2, "class_weight": None, "note": "x" * 9000},
        "seconds": 0.25,
        "about": {"owner": "ops-ml", "description": "Who leaves.", "level": 1},
        "run": {"dag_id": "churn__train", "run_id": "manual__1", "rehearsal": False},
    }


def judged(registry: Registry, number: int, key: str | None = None) -> None:
    """What evaluation and gates note, and the card."""
    auc = {"candidate": 0.9, "candidate_low": 0.85, "candidate_high": 0.95, "champion": None}
    registry.annotate(number, "evaluation", {"metrics": {"roc_auc": auc}}, op_id=f"e{key}{number}", key=key)
    gates = {"verdict": "passed", "sentence": "all 1 gates passed", "results": []}
    registry.annotate(number, "gates", gates, op_id=f"g{key}{number}", key=key)
    card = {kind: put_blob(registry.store, f"{kind} of v{number}".encode()) for kind in ("markdown", "html")}
    registry.annotate(number, "card", card, op_id=f"c{key}{number}", key=key)


def versions(registry: Registry, count: int, key: str | None = None) -> None:
    for n in range(1, count + 1):
        registry.register(record(registry.store, n), op_id=f"r{key}{n}", key=key)
        judged(registry, n, key)


# --- what is shown -------------------------------------------------------------------------------


def test_version_is_a_run_and_a_model_version(registry: Registry, target: Target, server: Server) -> None:
    versions(registry, 1)

    place = mirror(registry, 1, target)

    (run,) = server.runs(registry.pipeline)
    assert run["info"]["run_id"] == place.run_id
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == f"{registry.pipeline} v1"
    params = run["params"]
    assert (params["n_estimators"], params["train.seed"], params["window.end"]) == ("2", "1", "2025-02-01")
    assert params["snapshot.fingerprint"] == "f" * 64
    assert len(params["note"]) == 500
    assert "class_weight" not in params
    assert run["metrics"] == {"roc_auc": 0.9, "roc_auc.low": 0.85, "roc_auc.high": 0.95, "train.seconds": 0.25}
    digest = registry.get(1).model
    said = {k: v for k, v in run["tags"].items() if k.startswith("airflow-mlops.")}
    assert {k.removeprefix("airflow-mlops."): v for k, v in said.items()}.items() >= {
        "pipeline": registry.pipeline, "version": "1", "digest": digest, "level": "1", "owner": "ops-ml",
        "verdict": "passed", "dag_id": "churn__train",
    }.items()  # fmt: skip
    assert server.files(place.run_id) == {"model", "model_card.md", "model_card.html"}
    # A plain file: without an MLmodel beside it MLflow cannot load it in any flavour.
    assert server.files(place.run_id, "model") == {"model/model.skops"}
    (shown,) = server.versions(registry.pipeline)
    assert (shown["version"], shown["run_id"]) == ("1", place.run_id)
    assert {t["key"]: t["value"] for t in shown["tags"]}["airflow-mlops.digest"] == digest
    assert server.aliases(registry.pipeline) == {}


def test_shown_model_is_the_registered_bytes(registry: Registry, target: Target, tmp_path: Path) -> None:
    versions(registry, 1)

    place = mirror(registry, 1, target)

    with connected(target) as client:
        path = Path(client.download_artifacts(place.run_id, "model/model.skops", str(tmp_path)))
    assert path.read_bytes() == registry.store.get(f"blobs/{registry.get(1).model[:2]}/{registry.get(1).model}")


def test_repetition_changes_nothing(registry: Registry, target: Target, server: Server) -> None:
    versions(registry, 1)
    first = mirror(registry, 1, target)
    before, seq = server.runs(registry.pipeline), len(registry.history())

    assert [mirror(registry, 1, target) for _ in range(2)] == [first, first]

    assert server.runs(registry.pipeline) == before
    assert server.history(first.run_id, "roc_auc") == [0.9]
    assert len(server.versions(registry.pipeline)) == 1
    assert len(registry.history()) == seq


def test_later_facts_are_added(registry: Registry, target: Target, server: Server) -> None:
    registry.register(record(registry.store), op_id="r")
    place = mirror(registry, 1, target)
    assert "roc_auc" not in server.runs(registry.pipeline)[0]["metrics"]

    judged(registry, 1)
    assert mirror(registry, 1, target) == place

    (run,) = server.runs(registry.pipeline)
    assert run["metrics"]["roc_auc"] == 0.9
    assert run["tags"]["airflow-mlops.verdict"] == "passed"
    assert "model_card.html" in server.files(place.run_id)


def test_prefix_keeps_environments_apart(registry: Registry, mlflow_url: str, server: Server) -> None:
    versions(registry, 1)

    mirror(registry, 1, Target(mlflow_url))
    mirror(registry, 1, Target(mlflow_url, prefix="staging."))

    for name in (registry.pipeline, f"staging.{registry.pipeline}"):
        assert len(server.runs(name)) == len(server.versions(name)) == 1


def test_run_deleted_in_mlflow_is_made_again(registry: Registry, target: Target, server: Server) -> None:
    versions(registry, 1)
    first = mirror(registry, 1, target)
    with connected(target) as client:
        client.delete_run(first.run_id)

    again = mirror(registry, 1, target)

    assert again.run_id != first.run_id
    assert [run["info"]["run_id"] for run in server.runs(registry.pipeline)] == [again.run_id]
    assert mirror(registry, 1, target) == again


# --- many workers, and workers that end ----------------------------------------------------------

_WORKER = """
import sys
from airflow_mlops.registry.mlflow_client import Target, connected
from airflow_mlops.registry.mlflow_mirror import mirror
from airflow_mlops.registry.registry import Registry
from airflow_mlops.store import LocalStore

with connected(Target(sys.argv[3])) as client:
    client.search_experiments(max_results=1)
print("ready", flush=True)
sys.stdin.readline()
place = mirror(Registry(LocalStore(sys.argv[1]), sys.argv[2]), 1, Target(sys.argv[3]))
print(place.run_id, place.model_version, flush=True)
"""


def test_four_workers_make_one(registry: Registry, target: Target, server: Server, tmp_path: Path) -> None:
    versions(registry, 1)
    registry.promote(1, expected=None, op_id="p1", reason="good")
    command = [sys.executable, "-c", _WORKER, str(tmp_path / "store"), registry.pipeline, target.uri]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"

    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=120)[0] for worker in workers]

    assert [worker.returncode for worker in workers] == [0] * 4
    assert len(set(said)) == 1
    (run,) = server.runs(registry.pipeline)
    (shown,) = server.versions(registry.pipeline)
    assert said[0].split() == [run["info"]["run_id"], shown["version"]]
    assert server.aliases(registry.pipeline) == {"champion": shown["version"]}
    assert server.history(run["info"]["run_id"], "roc_auc") == [0.9]


class _Killed(BaseException):
    """As SIGKILL: nothing may catch it."""


@contextmanager
def _calls(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[Any, str], None], *, before: bool = False
) -> Iterator[None]:
    """Have ``call(client, name)`` called after (or before) each call of MLflow's client that changes something."""
    changing = ("create", "set", "log", "delete")

    class Client:
        def __init__(self, real: Any) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._real, name)
            if not name.startswith(changing):
                return found

            def changed(*args: Any, **kwargs: Any) -> Any:
                if before:
                    call(self._real, name)
                    return found(*args, **kwargs)
                result = found(*args, **kwargs)
                call(self._real, name)
                return result

            return changed

    @contextmanager
    def watched(target: Target) -> Iterator[Client]:
        with connected(target) as client:
            yield Client(client)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_mirror, "connected", watched)
        yield


def test_resumes_wherever_it_was_killed(
    registry: Registry, target: Target, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(registry, 1)
    registry.promote(1, expected=None, op_id="p1", reason="good")
    deaths: list[str] = []

    def die(client: Any, name: str) -> None:
        # After it took effect, once after each call that had not been reached before.
        if name not in deaths:
            deaths.append(name)
            raise _Killed

    while True:
        try:
            with _calls(monkeypatch, die):
                mirror(Registry(registry.store, registry.pipeline), 1, target)
            break
        except _Killed:
            continue

    assert {"create_experiment", "create_run", "create_registered_model", "create_model_version", "log_batch",
            "log_artifact", "set_terminated", "set_registered_model_alias"} <= {*deaths}  # fmt: skip
    (run,) = server.runs(registry.pipeline)
    (shown,) = server.versions(registry.pipeline)
    assert server.aliases(registry.pipeline) == {"champion": shown["version"]}
    assert server.history(run["info"]["run_id"], "roc_auc") == [0.9]
    assert server.files(run["info"]["run_id"]) == {"model", "model_card.md", "model_card.html"}
    assert [h["kind"] for h in registry.history()].count("mlflow") == 1


@pytest.mark.parametrize("step", ["create_run", "create_model_version"])
def test_slower_worker_takes_back_what_it_made(
    registry: Registry, target: Target, server: Server, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    versions(registry, 1)
    faster: list[mlflow_mirror.Mirrored] = []

    def overtake(client: Any, name: str) -> None:
        # The slower one has looked, found nothing, and is about to create.
        if name == step and not faster:
            faster.append(mlflow_mirror.Mirrored("", "", ""))
            faster[0] = mirror(Registry(registry.store, registry.pipeline), 1, target)

    with _calls(monkeypatch, overtake, before=True):
        slower = mirror(registry, 1, target)

    assert [slower] == faster
    assert [run["info"]["run_id"] for run in server.runs(registry.pipeline)] == [slower.run_id]
    assert [v["version"] for v in server.versions(registry.pipeline)] == [slower.model_version]


def test_export_sweeps_what_the_killed_left(
    registry: Registry, target: Target, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(registry, 1)
    other = Registry(registry.store, registry.pipeline)

    def overtaken(client: Any, name: str) -> None:
        if name == "create_run":
            # Another worker, that saw no run yet, makes one of its own and is killed before it deletes it.
            run = client.get_run(client.search_runs([_experiment(client, registry)])[0].info.run_id)
            tags = {k: v for k, v in run.data.tags.items() if k == "airflow-mlops.op"}
            client.create_run(run.info.experiment_id, tags=tags)

    with _calls(monkeypatch, overtaken):
        mirror(other, 1, target)
    assert len(server.runs(registry.pipeline)) == 2

    export_all(registry.store, [registry.pipeline], target, lambda line: None)

    (run,) = server.runs(registry.pipeline)
    assert run["info"]["run_id"] == registry.get(1).notes["mlflow"][-1]["run_id"]


def _experiment(client: Any, registry: Registry) -> str:
    return client.get_experiment_by_name(registry.pipeline).experiment_id


# --- aliases -------------------------------------------------------------------------------------


def test_alias_follows_promotion_and_rollback(registry: Registry, target: Target, server: Server) -> None:
    versions(registry, 2)
    registry.set_challenger(1, op_id="s1")
    first = mirror(registry, 1, target)
    assert server.aliases(registry.pipeline) == {"challenger": first.model_version}

    registry.promote(1, expected=None, op_id="p1", reason="good")
    mirror(registry, 1, target)
    assert server.aliases(registry.pipeline) == {"champion": first.model_version}

    registry.promote(2, expected=1, op_id="p2", reason="better")
    second = mirror(registry, 2, target)
    assert server.aliases(registry.pipeline) == {"champion": second.model_version}

    registry.rollback(expected=2, op_id="b1", reason="worse in production")
    mirror(registry, 2, target)
    assert server.aliases(registry.pipeline) == {"champion": first.model_version}


def test_champion_that_mlflow_never_saw_is_shown_too(registry: Registry, target: Target, server: Server) -> None:
    versions(registry, 2)
    registry.promote(1, expected=None, op_id="p1", reason="good")

    mirror(registry, 2, target)

    by_number = {
        tag["value"]: v["version"]
        for v in server.versions(registry.pipeline)
        for tag in v["tags"]
        if tag["key"] == "airflow-mlops.version"
    }
    assert server.aliases(registry.pipeline) == {"champion": by_number["1"]}


def test_late_worker_does_not_leave_the_old_champion(
    registry: Registry, target: Target, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(registry, 2)
    registry.promote(1, expected=None, op_id="p1", reason="good")
    second = mirror(registry, 2, target)
    with connected(target) as client:
        client.delete_registered_model_alias(registry.pipeline, "champion")

    def promoted_meanwhile(client: Any, name: str) -> None:
        # The late worker has just written v1; v2 had been promoted and shown before that.
        if name == "set_registered_model_alias" and registry.champion().number == 1:
            registry.promote(2, expected=1, op_id="p2", reason="better")

    with _calls(monkeypatch, promoted_meanwhile):
        mirror(Registry(registry.store, registry.pipeline), 1, target)

    assert registry.champion().number == 2
    assert server.aliases(registry.pipeline) == {"champion": second.model_version}


def test_other_aliases_are_left_alone(registry: Registry, target: Target, server: Server) -> None:
    versions(registry, 1)
    place = mirror(registry, 1, target)
    with connected(target) as client:
        client.set_registered_model_alias(place.model, "reviewed", place.model_version)
    registry.promote(1, expected=None, op_id="p1", reason="good")

    mirror(registry, 1, target)

    assert server.aliases(place.model) == {"champion": "1", "reviewed": "1"}


# --- MLflow is down ------------------------------------------------------------------------------


def test_commit_stands_while_mlflow_is_down(
    registry: Registry, target: Target, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    versions(registry, 1)
    nobody = Target(f"http://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            mirror_event(registry, 1, "register", lambda: nobody)

    (note,) = registry.get(1).notes["mlflow"]
    assert (note["event"], note["server"]) == ("register", nobody.uri)
    assert nobody.uri in note["failed"]
    assert "airflow mlops registry export --to mlflow" in caplog.text
    assert server.runs(registry.pipeline) == []

    mirror_event(registry, 1, "gates", lambda: target)

    assert "failed" not in registry.get(1).notes["mlflow"][-1]
    assert len(server.runs(registry.pipeline)) == 1


def test_export_says_that_it_caught_up(registry: Registry, target: Target) -> None:
    versions(registry, 1)
    mirror(registry, 1, target)
    mirror_event(registry, 1, "promote", lambda: Target(f"http://127.0.0.1:{free_port()}"))
    assert "failed" in registry.get(1).notes["mlflow"][-1]

    for _ in range(2):
        export_all(registry.store, [registry.pipeline], target, lambda line: None)

    notes = registry.get(1).notes["mlflow"]
    assert ["failed" in note for note in notes] == [False, True, False]
    assert notes[0] == notes[2]


def test_bad_connection_fails_no_task(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    versions(registry, 1)

    def connect() -> Target:
        raise ConfigError("the connection 'mlflow' does not exist")

    with caplog.at_level(logging.WARNING):
        mirror_event(registry, 1, "register", connect)

    assert registry.get(1).notes["mlflow"][-1]["failed"] == "the connection 'mlflow' does not exist"
    assert "does not exist" in caplog.text


def test_mirror_says_that_mlflow_is_down(registry: Registry) -> None:
    versions(registry, 1)
    with pytest.raises(RegistryError, match="MLflow at http://127"):
        mirror(registry, 1, Target(f"http://127.0.0.1:{free_port()}"))


def test_operator_registers_first(
    target: Target, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training task: green and registered while MLflow is down, shown by the next one."""
    from airflow_mlops.operators.data import SnapshotOperator
    from airflow_mlops.operators.training import TrainOperator

    pipeline = f"ops_{os.getpid()}_{next(_names)}"
    frame = load_iris(as_frame=True).frame
    frame["id"] = range(len(frame))
    frame.to_csv(tmp_path / "iris.csv", index=False)
    monkeypatch.setenv("AIRFLOW__MLOPS__DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("AIRFLOW__MLOPS__MLFLOW_CONN_ID", "mlflow_test")
    data = {"source": "iris.csv", "target": "target", "id": "id"}

    def run(run_id: str, port: int) -> dict[str, Any]:
        connection = {"conn_type": "http", "host": "127.0.0.1", "port": port}
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", json.dumps(connection))
        results: dict[str, Any] = {}
        for make in (
            lambda: SnapshotOperator(task_id="snapshot", pipeline=pipeline, data=data),
            lambda: TrainOperator(
                task_id="fit", pipeline=pipeline, data=data, snapshot=results["snapshot"],
                train={"estimator": "sklearn.linear_model.LogisticRegression", "params": {"max_iter": 500}},
            ),
        ):  # fmt: skip
            operator = make()
            ti = MagicMock(spec=["dag_id", "run_id", "task_id", "map_index", "xcom_push", "try_number"])
            ti.dag_id, ti.run_id, ti.task_id, ti.map_index = f"{pipeline}__train", run_id, operator.task_id, -1
            dag_run = SimpleNamespace(run_type="manual", data_interval_start=None, data_interval_end=None)
            context = {"ti": ti, "task": operator, "params": {}, "dag_run": dag_run, "outlet_events": MagicMock()}
            results[operator.task_id] = operator.execute(context)
        return results["fit"]

    assert run("manual__1", free_port())["version"] == 1
    registry = Registry(LocalStore(tmp_path / "store"), pipeline)
    assert "failed" in registry.get(1).notes["mlflow"][-1]
    assert server.runs(pipeline) == []

    assert run("manual__2", httpx.URL(target.uri).port)["version"] == 2
    (run_,) = server.runs(pipeline)
    assert run_["tags"]["airflow-mlops.version"] == "2"


def test_nothing_is_imported_without_mlflow() -> None:
    code = (
        "import sys\n"
        "from airflow_mlops.hooks.mlops import MLOpsHook\n"
        "MLOpsHook().mirror(None, 1, 'register')\n"
        "assert MLOpsHook().mlflow() is None\n"
        "import airflow_mlops.registry.mlflow_mirror, airflow_mlops.registry.mlflow_import\n"
        "print([m for m in sys.modules if m == 'mlflow' or m.startswith('mlflow.')])\n"
    )
    own = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- the past ------------------------------------------------------------------------------------


def test_export_of_a_store_made_before(store: LocalStore, target: Target, server: Server) -> None:
    one, fleet = (f"past_{kind}_{os.getpid()}_{next(_names)}" for kind in ("one", "fleet"))
    versions(Registry(store, one), 3)
    for n, expected in ((1, None), (2, 1), (3, 2)):
        Registry(store, one).promote(n, expected=expected, op_id=f"p{n}", reason="better")
    Registry(store, one).rollback(expected=3, op_id="b", reason="worse")
    Registry(store, one).retire(3, op_id="x", reason="worse")
    for key in ("LGA", "a/b:c"):
        versions(Registry(store, fleet), 1, key)
    said: list[str] = []

    for _ in range(2):
        assert export_all(store, [one, fleet], target, said.append) == 5

    assert [v["version"] for v in server.versions(one)] == ["1", "2", "3"]
    assert [run["tags"]["airflow-mlops.version"] for run in server.runs(one)] == ["1", "2", "3"]
    assert server.runs(one)[2]["tags"]["airflow-mlops.retired"] == "true"
    assert server.aliases(one) == {"champion": "2"}
    assert len(server.runs(fleet)) == 2
    for name in (f"{fleet}[LGA]", f"{fleet}[a%2Fb%3Ac]"):
        assert [v["version"] for v in server.versions(name)] == ["1"]
    assert said[0] == f"{one}: 3 versions in MLflow's model {one}"
    assert said[:3] == said[3:]


# --- who we are ----------------------------------------------------------------------------------


@pytest.fixture
def guarded(mlflow_url: str) -> Iterator[str]:
    """MLflow behind a proxy that wants ``ann:pass word`` or the token ``sesame``; yields its address."""
    allowed = {"Basic " + base64.b64encode(b"ann:pass word").decode(), "Bearer sesame"}

    class Handler(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") not in allowed:
                # As careless servers do.
                answer = httpx.Response(401, text=f"not with {self.headers.get('Authorization')}")
            else:
                headers = {k: v for k, v in self.headers.items() if k in ("Content-Type", "Range")}
                with httpx.Client(trust_env=False, timeout=30) as client:
                    answer = client.request(self.command, mlflow_url + self.path, content=body, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{proxy.server_port}"
    proxy.shutdown()
    proxy.server_close()


@pytest.mark.parametrize("login", [{"username": "ann", "password": "pass word"}, {"token": "sesame"}])
def test_credentials_reach_runs_models_and_artifacts(
    registry: Registry, guarded: str, server: Server, login: dict[str, str]
) -> None:
    versions(registry, 1)
    before = dict(os.environ)

    place = mirror(registry, 1, Target(guarded, **login))

    assert server.files(place.run_id) == {"model", "model_card.md", "model_card.html"}
    assert dict(os.environ) == before


def test_refused_login_is_told_without_it(registry: Registry, guarded: str, caplog: pytest.LogCaptureFixture) -> None:
    versions(registry, 1)
    wrong = Target(guarded, username="ann", password="hunter2-hunter2")
    header = base64.b64encode(b"ann:hunter2-hunter2").decode()

    with caplog.at_level(logging.DEBUG):
        mirror_event(registry, 1, "register", lambda: wrong)

    note = registry.get(1).notes["mlflow"][-1]["failed"]
    assert "401" in note
    for secret in ("hunter2", header):
        assert secret not in caplog.text + note + repr(wrong)


def test_credentials_are_for_their_server_alone(guarded: str) -> None:
    from airflow_mlops.registry import mlflow_client

    def sent_to(url: str) -> Any:
        return mlflow_client._authorize(SimpleNamespace(url=url, headers={})).headers.get("Authorization")

    with connected(Target(guarded, token="sesame")):
        assert sent_to(f"{guarded}/api/2.0/x") == "Bearer sesame"
        assert sent_to(f"{guarded}0/api") is None
        assert sent_to("http://elsewhere/api") is None
    assert sent_to(f"{guarded}/api/2.0/x") is None


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "mlruns", "databricks", "http://ann:secret@mlflow:5000", ""])
def test_addresses_that_are_refused(uri: str) -> None:
    with pytest.raises(ConfigError) as told:
        Target(uri)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ({"host": "mlflow", "port": 5000}, ("http://mlflow:5000", None, None, None)),
        ({"host": "https://mlflow.example.com/ml/"}, ("https://mlflow.example.com/ml", None, None, None)),
        ({"host": "m", "schema": "https", "login": "ann", "password": "p"}, ("https://m", "ann", "p", None)),
        ({"host": "m", "password": "t"}, ("http://m", None, None, "t")),
    ],
)
def test_connection_is_read(
    connection: dict[str, Any], expected: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_mlops.hooks.mlops import MLOpsHook

    monkeypatch.setenv("AIRFLOW__MLOPS__MLFLOW_CONN_ID", "mlflow_test")
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", json.dumps({"conn_type": "http"} | connection))

    found = MLOpsHook().mlflow()

    assert (found.uri, found.username, found.password, found.token) == expected


# --- models out of MLflow ------------------------------------------------------------------------

_SIGNATURE = {"inputs": json.dumps([{"name": n, "type": "double"} for n in ("a", "b")])}


def _mlmodel(format: str = "skops", file: str = "model.skops", **more: Any) -> str:
    flavor = {"pickled_model": file, "serialization_format": format, "sklearn_version": "1.9"} | more
    return json.dumps({"flavors": {"sklearn": flavor}, "signature": _SIGNATURE})


def _logged(target: Target, name: str, files: dict[str, bytes], folder: Path) -> str:
    """Put files into MLflow as a model, as whoever may write its artifacts can; returns its address."""
    with connected(target) as client:
        experiment = client.get_experiment_by_name("theirs")
        run = client.create_run(experiment.experiment_id if experiment else client.create_experiment("theirs"))
        for path, content in files.items():
            (folder / path).write_bytes(content)
            client.log_artifact(run.info.run_id, str(folder / path), "model")
        client.log_param(run.info.run_id, "C", 1.0)
        client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/model"
        made = client.create_model_version(name, source, run.info.run_id, await_creation_for=0)
    return f"models:/{name}/{made.version}"


def _fitted() -> LogisticRegression:
    frame = pd.DataFrame({"a": [0.0, 1, 2, 3], "b": [1.0, 0, 1, 0]})
    return LogisticRegression().fit(frame, ["no", "no", "yes", "yes"])


@pytest.fixture
def skops_bytes(tmp_path: Path) -> bytes:
    dump_model(_fitted(), tmp_path / "dumped.skops")
    return (tmp_path / "dumped.skops").read_bytes()


class Canary:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


WHAT = {"target": "leaves", "task": "classification"}


@pytest.fixture
def name() -> str:
    return f"theirs_{os.getpid()}_{next(_names)}"


def test_model_logged_by_mlflow_becomes_version_1(
    registry: Registry, target: Target, mlflow_python: Path, name: str
) -> None:
    """Logged by MLflow's own scikit-learn flavour, in a process of its own."""
    code = (
        "import sys, mlflow, pandas as pd\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "frame = pd.DataFrame({'a': [0.0, 1, 2, 3], 'b': [1.0, 0, 1, 0]})\n"
        "model = LogisticRegression().fit(frame, ['no', 'no', 'yes', 'yes'])\n"
        "signature = mlflow.models.infer_signature(frame, model.predict(frame))\n"
        "mlflow.set_experiment('theirs')\n"
        "with mlflow.start_run():\n"
        "    mlflow.log_param('C', 1.0)\n"
        "    mlflow.sklearn.log_model(model, name='m', registered_model_name=sys.argv[2], signature=signature,\n"
        "        serialization_format='skops', pip_requirements=['scikit-learn'])\n"
    )
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", code, target.uri, name], check=True, capture_output=True, env=quiet)

    version = import_model(target, name, registry, **WHAT, positive="yes", by="ann")

    assert version.number == 1
    assert version.status == "candidate"
    assert [f["name"] for f in version.record["schema"]["features"]] == ["a", "b"]
    assert version.record["schema"]["classes"] == ["no", "yes"]
    assert version.record["imported"]["name"] == name
    assert version.record["params"] == {"C": "1.0"}
    model = fetch_model(registry.store, version.record["model"])
    assert model.predict(pd.DataFrame({"a": [3.0], "b": [0.0]})).tolist() == ["yes"]
    assert import_model(target, f"models:/{name}/1", registry, **WHAT, positive="yes", by="ann") == version
    assert recorded_code(version.record) is None
    assert "Imported from" in card_of(version, registry.store)[0]


def test_imported_model_can_be_found_by_alias(
    registry: Registry, target: Target, skops_bytes: bytes, tmp_path: Path, name: str
) -> None:
    _logged(target, name, {"MLmodel": _mlmodel().encode(), "model.skops": skops_bytes}, tmp_path)
    with connected(target) as client:
        client.set_registered_model_alias(name, "prod", "1")

    assert import_model(target, f"models:/{name}@prod", registry, **WHAT).number == 1
    for missing in (f"models:/{name}/9", f"models:/{name}@no", f"{name}_no"):
        with pytest.raises(VersionNotFound):
            import_model(target, missing, registry, **WHAT)


@pytest.mark.parametrize(
    ("mlmodel", "message"),
    [
        (_mlmodel("cloudpickle"), "the format pickle, and the file is a zip"),
        (_mlmodel("pickle"), "the format pickle, and the file is a zip"),
        (_mlmodel("exec"), "unknown format 'exec'"),
        (_mlmodel(file="../../../etc/passwd"), "names the model's file '../../../etc/passwd'"),
        (_mlmodel(file="/etc/passwd"), "names the model's file '/etc/passwd'"),
        (_mlmodel(file="absent.skops"), "has no file 'absent.skops'"),
        ("flavors: !!python/object/apply:os.system ['touch CANARY']", "not plain YAML"),
        ("flavors: {python_function: {loader_module: os}}", "no scikit-learn model"),
        ("[" * 5000, "not plain YAML"),
        ("", "no scikit-learn model"),
    ],
)
def test_tampered_mlmodel_is_refused(
    registry: Registry, target: Target, skops_bytes: bytes, tmp_path: Path, name: str, mlmodel: str, message: str
) -> None:
    mlmodel = mlmodel.replace("CANARY", str(tmp_path / "canary"))
    source = _logged(target, name, {"MLmodel": mlmodel.encode(), "model.skops": skops_bytes}, tmp_path)

    with pytest.raises(UntrustedArtifact, match=message.replace("(", r"\(").replace("[", r"\[")):
        import_model(target, source, registry, **WHAT, allow_pickle=True, signer=Signer.generate())

    assert registry.versions() == []
    assert not (tmp_path / "canary").exists()


def test_pickle_called_skops_is_never_opened(registry: Registry, target: Target, tmp_path: Path, name: str) -> None:
    content = pickle.dumps(Canary(tmp_path / "canary"))
    mlmodel = _mlmodel(skops_trusted_types=["builtins.open"])
    source = _logged(target, name, {"MLmodel": mlmodel.encode(), "model.skops": content}, tmp_path)

    with pytest.raises(UntrustedArtifact, match="skops files are zips"):
        import_model(target, source, registry, **WHAT, allow_pickle=True, signer=Signer.generate())

    assert not (tmp_path / "canary").exists()


def test_types_that_only_mlmodel_trusts_are_refused(
    registry: Registry, target: Target, skops_bytes: bytes, tmp_path: Path, name: str
) -> None:
    evil = tmp_path / "evil.skops"
    with zipfile.ZipFile(evil, "w") as archive:
        schema = {"__class__": "system", "__module__": "os", "__loader__": "TypeNode", "__id__": 1, "protocol": 2}
        archive.writestr("schema.json", json.dumps(schema | {"_skops_version": "0.16"}))
    mlmodel = _mlmodel(skops_trusted_types=["os.system"])
    source = _logged(target, name, {"MLmodel": mlmodel.encode(), "model.skops": evil.read_bytes()}, tmp_path)

    with pytest.raises(UntrustedArtifact):
        import_model(target, source, registry, **WHAT)

    assert registry.versions() == []


def test_pickle_needs_leave_and_a_signature(registry: Registry, target: Target, tmp_path: Path, name: str) -> None:
    files = {"MLmodel": _mlmodel("cloudpickle", "model.pkl").encode(), "model.pkl": pickle.dumps(_fitted())}
    source = _logged(target, name, files, tmp_path)
    signer = Signer.generate()
    classes = ["no", "yes"]

    with pytest.raises(UntrustedArtifact, match="can run code"):
        import_model(target, source, registry, **WHAT, classes=classes, signer=signer)
    with pytest.raises(UntrustedArtifact, match="without a signature"):
        import_model(target, source, registry, **WHAT, classes=classes, allow_pickle=True)
    assert registry.versions() == []

    version = import_model(target, source, registry, **WHAT, classes=classes, allow_pickle=True, signer=signer)

    info = version.record["model"]
    whose = {"pipeline": registry.pipeline}
    with pytest.raises(UntrustedArtifact):
        fetch_model(registry.store, info, verifier=Verifier((), None, True), **whose)
    trusting = Verifier((signer.public,), None, True)
    assert fetch_model(registry.store, info, verifier=trusting, **whose).classes_.tolist() == classes


def test_import_runs_no_pickle(registry: Registry, target: Target, tmp_path: Path, name: str) -> None:
    canary = pickle.dumps(Canary(tmp_path / "canary"))
    files = {"MLmodel": _mlmodel("pickle", "model.pkl").encode(), "model.pkl": canary}
    source = _logged(target, name, files, tmp_path)

    import_model(target, source, registry, **WHAT, classes=[0, 1], allow_pickle=True, signer=Signer.generate())

    assert not (tmp_path / "canary").exists()


# --- airflow mlops registry import models:/… -----------------------------------------------------


@pytest.fixture
def take(
    registry: Registry, mlflow_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command's exit code and what it printed; its server is a connection."""
    address = urlsplit(mlflow_url)
    connection = {"conn_type": "http", "host": address.hostname, "port": address.port}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_TEST", json.dumps(connection))
    monkeypatch.setenv("AIRFLOW__MLOPS__MLFLOW_CONN_ID", "mlflow_test")
    monkeypatch.setenv("AIRFLOW__MLOPS__STORE", registry.store.uri)
    for option in ("SIGNING_KEY_FILE", "SIGNING_KEY_CONN_ID", "TRUSTED_KEYS", "ALLOW_UNSIGNED", "ALLOW_PICKLE"):
        monkeypatch.delenv(f"AIRFLOW__MLOPS__{option}", raising=False)
    (command,) = (c for c in REGISTRY.subcommands if c.name == "import")
    parser = ArgumentParser()
    for argument in command.args:
        argument.add_to_parser(parser)

    def call(*words: str) -> tuple[int, str, str]:
        code = 0
        try:
            command.func(parser.parse_args([*words, "--pipeline", registry.pipeline]))
        except SystemExit as e:
            code = int(e.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture
def churn_model(target: Target, skops_bytes: bytes, tmp_path: Path, name: str) -> str:
    return _logged(target, name, {"MLmodel": _mlmodel().encode(), "model.skops": skops_bytes}, tmp_path)


def test_command_imports_a_model(registry: Registry, take: Any, churn_model: str, name: str) -> None:
    code, out, err = take(churn_model, "--target", "leaves", "--positive", "yes")
    assert code == 0, err
    assert out.splitlines() == [
        f"{registry.pipeline} v1: taken in from version 1 of {name} in MLflow, candidate",
        "  classification of leaves from 2 columns",
        f"  to promote it: airflow mlops registry promote {registry.pipeline}:1 --expected none --reason …",
    ]
    version = registry.get(1)
    assert version.record["schema"] == {
        "features": [{"name": n, "kind": "number", "categories": None} for n in ("a", "b")],
        "target": "leaves", "classes": ["no", "yes"], "positive": "yes", "excluded": [],
    }  # fmt: skip
    # Once more is the same version; the target is known by now.
    assert take(f"models:/{name}/latest", "--positive", "yes")[0] == 0
    assert len(registry.versions()) == 1


def test_command_keeps_private_columns_so(registry: Registry, take: Any, churn_model: str) -> None:
    assert take(churn_model, "--target", "leaves", "--private", "a")[0] == 0
    # Not said again, and still so; as with a model that training makes in between.
    assert take(churn_model, "--positive", "no")[0] == 0
    for version in registry.versions():
        assert [f["name"] for f in version.record["schema"]["features"] if f.get("private")] == ["a"]
    assert [v.record["schema"]["positive"] for v in registry.versions()] == ["yes", "no"]


def test_private_holds_for_the_python_way_too(
    registry: Registry, target: Target, tmp_path: Path, churn_model: str, name: str
) -> None:
    import_model(target, churn_model, registry, **WHAT, private=["b"])
    again = import_model(target, churn_model, registry, **WHAT, positive="yes")
    assert [f["name"] for f in again.record["schema"]["features"] if f.get("private")] == ["b"]
    schema = registry.get(1).record["schema"]
    text = [{"name": "a", "kind": "category", "categories": ["Ann", "Bo"]}, schema["features"][1]]
    with pytest.raises(DataError, match="reads a, which is private text") as e:
        import_model(target, churn_model, registry, **WHAT, schema=schema | {"features": text}, private=["a"])
    assert "Ann" not in str(e.value)
    assert len(registry.versions()) == 2


def test_command_imports_for_one_model_of_a_fleet(registry: Registry, take: Any, churn_model: str) -> None:
    code, out, err = take(churn_model, "--target", "leaves", "--key", "LGA")
    assert code == 0, err
    assert f"promote '{registry.pipeline}[LGA]:1' --expected none" in out
    assert registry.keys() == ["LGA"]


def test_command_takes_columns_from_a_sample(
    registry: Registry, target: Target, take: Any, skops_bytes: bytes, tmp_path: Path, name: str
) -> None:
    mlmodel = json.loads(_mlmodel()) | {"signature": None}
    files = {"MLmodel": json.dumps(mlmodel).encode(), "model.skops": skops_bytes}
    source = _logged(target, name, files, tmp_path)
    code, _, err = take(source, "--target", "leaves")
    assert (code, "--data SAMPLE" in err) == (1, True)
    sample = tmp_path / "sample.csv"
    pd.DataFrame({"b": ["x", "y"], "a": [0.5, 1.5]}).to_csv(sample, index=False)
    code, _, err = take(source, "--target", "leaves", "--data", str(sample))
    assert (code, "cannot predict the sample" in err) == (1, True)
    assert registry.versions() == []
    pd.DataFrame({"b": [1.5, 0.5], "a": [0.5, 1.5], "leaves": ["no", "yes"]}).to_csv(sample, index=False)
    code, _, err = take(source, "--target", "leaves", "--data", str(sample))
    assert code == 0, err
    assert [f["name"] for f in registry.get(1).record["schema"]["features"]] == ["a", "b"]


def test_command_takes_a_pickle_only_with_task_classes_and_a_trusted_key(
    registry: Registry, target: Target, take: Any, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = pickle.dumps(Canary(tmp_path / "canary"))
    source = _logged(target, name, {"MLmodel": _mlmodel("pickle", "m.pkl").encode(), "m.pkl": canary}, tmp_path)
    words = (source, "--target", "leaves", "--task", "classification", "--classes", "0,1", "--positive", "1")
    assert "can run code" in take(*words)[2]
    monkeypatch.setenv("AIRFLOW__MLOPS__ALLOW_PICKLE", "True")
    assert "no key to sign with" in " ".join(take(*words)[2].split())
    signer, key = Signer.generate(), tmp_path / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(signer.pem())
    monkeypatch.setenv("AIRFLOW__MLOPS__SIGNING_KEY_FILE", str(key))
    assert f"the key {signer.key_id} is not trusted" in " ".join(take(*words)[2].split())
    monkeypatch.setenv("AIRFLOW__MLOPS__TRUSTED_KEYS", signer.public)
    assert "the task of a pickle file is not known" in take(source, "--target", "leaves")[2]
    assert "the classes of the model are not known" in take(*words[:5])[2]
    assert registry.versions() == []
    code, _, err = take(*words)
    assert code == 0, err
    schema = registry.get(1).record["schema"]
    assert (schema["classes"], schema["positive"]) == ([0, 1], 1)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--classes", "yes,no"), "the classes of the model are no, yes, not yes, no"),
        (("--task", "regression"), "is one of classification, not of regression"),
        (("--positive", "maybe"), "'maybe'"),
    ],
)
def test_command_contradicted_by_the_file_registers_nothing(
    registry: Registry, take: Any, churn_model: str, words: tuple[str, ...], message: str
) -> None:
    code, out, err = take(churn_model, "--target", "leaves", *words)
    assert (code, out) == (1, "")
    assert message in " ".join(err.split())
    assert registry.versions() == []


def test_command_says_what_mlflow_does_not_have(registry: Registry, take: Any, name: str) -> None:
    code, out, err = take(f"models:/{name}/9", "--target", "leaves")
    assert (code, out) == (1, "")
    assert f"MLflow has no model 'models:/{name}/9'" in " ".join(err.split())


def test_too_large_a_model_is_not_fetched(
    registry: Registry, target: Target, skops_bytes: bytes, tmp_path: Path, name: str
) -> None:
    source = _logged(target, name, {"MLmodel": _mlmodel().encode(), "model.skops": skops_bytes}, tmp_path)
    with pytest.raises(UntrustedArtifact, match="the limit is 100"):
        import_model(target, source, registry, **WHAT, max_bytes=100)


@pytest.mark.parametrize("uri", ["/etc", "file:///etc", "models:/m-1", "runs:/r/model"])
def test_paths_of_this_machine_are_not_read(uri: str) -> None:
    client = MagicMock()
    client.get_logged_model.return_value.artifact_location = "file:///etc"
    client.get_run.return_value.info.artifact_uri = "/etc"
    with pytest.raises(UntrustedArtifact, match="a path"):
        _location(client, uri)
