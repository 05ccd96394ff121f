"""Train a candidate and register it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Data, Evaluate, Features, Train
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.registry.registry import Version


class TrainOperator(MLOpsOperator):
    """Fit a candidate on the training part of a snapshot and register it as a new model version.

    Returns ``{"pipeline", "version", "digest", "snapshot"}``.

    :param snapshot: reference of the (validated) snapshot.
    :param data: the ``data`` section as in YAML.
    :param train: the ``train`` section as in YAML.
    :param features: the ``features`` section as in YAML.
    :param metrics: scikit-learn scorers; the first one steers a search.
    :param task: ``classification`` or ``regression``; default: what the estimator is.
    :param folder: where ``train.command`` runs, and files of recorded behaviour lie; default: the task's own folder.
    :param about: what the pipeline says of itself, kept in the record: owner, description, config hash.
    """

    template_fields: Sequence[str] = (*MLOpsOperator.template_fields, "snapshot")

    def __init__(
        self,
        *,
        snapshot: Any,
        data: Data | Mapping[str, Any],
        train: Train | Mapping[str, Any],
        features: Features | Mapping[str, Any] | None = None,
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        task: str | None = None,
        folder: str | None = None,
        about: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.snapshot = snapshot
        self.data = section(Data, data)
        self.train = section(Train, train)
        self.features = section(Features, features) if features else None
        self.evaluate = section(Evaluate, evaluate)
        self.task = task
        self.folder = folder
        self.about = dict(about or {})

    def _function(self) -> Callable[..., Any] | None:
        """The code to train with where it is not named by the ``train`` section: a decorated function."""
        return None

    def _settled(self, context: Context) -> tuple[Train, Features | None, dict[str, Any]]:
        """How to train in this run, by which feature code, and what else the version's record says."""
        form = context.get("params") or {}
        train = self.train.model_copy(
            update={
                **({"seed": int(form["seed"])} if form.get("seed") is not None else {}),
                **({"params": {**self.train.params, **form["params"]}} if form.get("params") else {}),
            }
        )
        return train, self.features, {}

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Train, store the model, register the version."""
        from airflow_mlops.ml.command import check_command
        from airflow_mlops.ml.gates import check_gates

        check_gates(self.evaluate, self._folder)
        train, features, facts = self._settled(context)
        check_command(train.command, allowed=self.hook.allow_commands)
        self.hook.verifier().check_signer(self.hook.signer())
        return self._register(scope, context, self._trained(train, features) | facts)

    def _trained(self, train: Train, features: Features | None, *, model_file: Path | None = None) -> dict[str, Any]:
        """The record of the candidate.

        :param model_file: the model, where it was trained elsewhere.
        """
        from airflow_mlops.ml.candidate import train_candidate

        return train_candidate(
            self.hook.store(),
            self.snapshot,
            data=self.data,
            train_config=train,
            features=features,
            metrics=self.evaluate.metrics,
            task=self.task,
            allowed_imports=self.hook.allowed_imports,
            trusted_types=self.hook.trusted_types,
            log=self.log.info,
            function=self._function(),
            folder=self._folder,
            timeout=self._timeout,
            signer=self.hook.signer(),
            pipeline=self.pipeline,
            model_file=model_file,
        )

    @property
    def _folder(self) -> Path | None:
        return Path(self.folder) if self.folder else None

    def _registration(self, context: Context, record: Mapping[str, Any]) -> str:
        """Id of the operation that registers what was made of this data by this configuration and code."""
        inputs = record["snapshot"]["fingerprint"], record["config_hash"], sorted(record["code"]["files"].values())
        return self.operation(context, "register", *inputs)

    def _register(self, scope: RunScope, context: Context, record: dict[str, Any]) -> dict[str, Any]:
        """Make a version of what was trained; what the task returns."""
        ti, registry = context["ti"], self.hook.registry(self.pipeline)
        run = {"dag_id": ti.dag_id, "run_id": ti.run_id, "replay": scope.replay, "rehearsal": not scope.promote}
        record |= {"about": self.about, "run": run}
        record["code"] |= delivered_code(self._folder, context)
        version = registry.register(record, op_id=self._registration(context, record))
        self.log.info("Registered %s version %d", self.pipeline, version.number)
        self.hook.mirror(registry, version.number, "register")
        return self._result(version)

    def _result(self, version: Version) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "version": version.number,
            "digest": version.record["model"]["digest"],
            "snapshot": self.snapshot,
        }


def delivered_code(folder: Path | None, context: Context) -> dict[str, Any]:
    """``delivered``: which bundle of which commit runs here, and the deployment, which is Airflow's version of it."""
    from airflow_mlops.delivery.deployed import deployed_code

    found = deployed_code(folder) if folder is not None else None
    if found is None:
        return {}
    deployment = getattr(getattr(context["ti"], "bundle_instance", None), "version", None)
    return {"delivered": found | {"deployment": deployment}}
