"""One task of ``airflow mlops ci`` that runs a project's code, in a process of its own.

``python -P -m airflow_mlops.cli.ci_task REQUEST ANSWER``: both are JSON files. The answer is ``{"result": …}`` or
``{"error": {"message", "hint", "traceback"}}``; a process that writes none has been killed or has ended itself.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from airflow_mlops.config.loader import PipelineReader
from airflow_mlops.config.models import Data, Evaluate, PipelineConfig
from airflow_mlops.config.settings import Settings
from airflow_mlops.delivery import fleet_trial, trial
from airflow_mlops.delivery.process import end_with_parent, limit_files
from airflow_mlops.delivery.project import PIPELINES
from airflow_mlops.exceptions import MLOpsError

_LINES = 12


def main(request_path: str, answer_path: str) -> None:
    """Do what the request asks for and write the answer."""
    end_with_parent()
    limit_files()
    request = json.loads(Path(request_path).read_text())
    # Where Airflow puts the root of a bundle: behind all that is installed.
    sys.path.append(request["folder"])
    try:
        result = TASKS[request["task"]](request)
        trial.refuse_foreign(request["packages"], Path(request["folder"]))
        answer: dict[str, Any] = {"result": result}
    except MLOpsError as e:
        cause = e.__cause__ if "notebook" in (e.hint or "") or "traceback" in (e.hint or "") else None
        answer = {"error": {"message": e.message, "hint": e.hint, "traceback": _lines(cause) if cause else None}}
        answer["error"]["notes"] = list(getattr(e, "__notes__", ()))
    except Exception as e:  # noqa: BLE001 - told in full where the answer is read
        text = f"{type(e).__name__}: {e}"
        answer = {"error": {"message": text, "hint": None, "traceback": _lines(e), "notes": []}}
    part = Path(f"{answer_path}.part")
    part.write_text(json.dumps(answer, allow_nan=False))
    os.replace(part, answer_path)


def _lines(error: BaseException) -> str:
    """The end of a traceback."""
    return "\n".join("".join(traceback.format_exception(error)).rstrip().split("\n")[-_LINES:])


def _config(request: dict[str, Any]) -> tuple[PipelineConfig, Path]:
    folder = Path(request["folder"])
    settings = Settings(
        environment=request["environment"],
        allowed_variables=tuple(request["allowed_variables"]),
        allowed_imports=tuple(request["allowed_imports"]),
        allow_commands=request["allow_commands"],
    )
    file = folder / request["file"]
    return PipelineReader(settings, root=folder / PIPELINES).load(file), file.parent


def _store(request: dict[str, Any]) -> Any:
    from airflow_mlops.store import LocalStore

    return LocalStore(request["store"])


def _rights(request: dict[str, Any]) -> dict[str, Any]:
    return {"allowed_imports": request["allowed_imports"], "trusted_types": request["trusted_types"]}


def _reading(request: dict[str, Any], config: PipelineConfig) -> dict[str, Any]:
    """How the data are read: with Airflow's connections only where they are needed, for importing Airflow is slow."""
    from airflow_mlops.ml.files import Files

    source, root = config.data.source or "", request["data_root"]
    files = Files(root=root)
    if "://" in root or "://" in source or "${conn:" in source:
        from airflow_mlops.hooks.mlops import MLOpsHook

        files = MLOpsHook().files(config.data.source, root)
        files.root = root
    window = {"start": request["start"], "end": request["end"]}
    return {"files": files, "sql": _sql, "sample": request["sample"], **window}


def _sql(conn_id: str, query: str) -> Any:
    from airflow_mlops.hooks.mlops import MLOpsHook

    return MLOpsHook().sql(conn_id, query)


def _database(conn_id: str) -> Any:
    from airflow_mlops.hooks.mlops import MLOpsHook

    return MLOpsHook().database(conn_id)


def _train(request: dict[str, Any]) -> dict[str, Any]:
    config, folder = _config(request)
    given = _reading(request, config) | _rights(request) | {"say": partial(print, flush=True), "database": _database}
    if config.fleet is not None:
        return fleet_trial.train(config, folder, _store(request), **given)
    return trial.train(config, folder, _store(request), **given, allow_commands=request["allow_commands"])


def _train_before(request: dict[str, Any]) -> dict[str, Any]:
    config, folder = _config(request)
    result: dict[str, Any] = {"data": None}
    if request["other_data"]:
        try:
            result["data"] = trial.take_rows(
                config,
                _store(request),
                **_reading(request, config),
                allowed_imports=request["allowed_imports"],
            )
        except MLOpsError as e:
            result["data"] = {"problem": e.message}
    given = {
        "snapshot": request["snapshot"],
        "data": Data.model_validate(request["data"]),
        "seed": request["seed"],
        "evaluate": Evaluate.model_validate(request["evaluate"]),
        **_rights(request),
    }
    if config.fleet is not None:
        return result | fleet_trial.train_before(config, folder, _store(request), **given)
    commands = request["allow_commands"]
    return result | trial.train_before(config, folder, _store(request), **given, allow_commands=commands)


def _contract(request: dict[str, Any]) -> dict[str, Any]:
    config, _ = _config(request)
    store, tried = _store(request), request["tried"]
    if config.fleet is not None:
        from airflow_mlops.delivery.fleet_contract import check_contract

        return check_contract(config, store, tried, **_rights(request))
    return trial.check_contract(store, config.pipeline, tried["version"], data=config.data, **_rights(request))


def _dags(request: dict[str, Any]) -> dict[str, Any]:
    """Read the project as Airflow's DAG processor does: with its own classes, from loader file to stored form."""
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.serialization.serialized_objects import LazyDeserializedDAG

    folder = Path(request["folder"])
    bag = BundleDagBag(dag_folder=str(folder), bundle_path=folder, bundle_name="ci")
    errors = dict(bag.import_errors)
    dags = {}
    for dag_id, dag in sorted(bag.dags.items()):
        try:
            LazyDeserializedDAG.from_dag(dag)
        except Exception as e:  # noqa: BLE001 - whatever keeps it from being stored is what there is to tell
            errors[dag_id] = f"{type(e).__name__}: {e}"
        dags[dag_id] = len(dag.tasks)
    return {"dags": dags, "errors": {name: text.strip() for name, text in errors.items()}}


TASKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "train": _train,
    "train_before": _train_before,
    "contract": _contract,
    "dags": _dags,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
