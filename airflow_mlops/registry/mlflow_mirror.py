"""The registry shown in MLflow: each version a run and a registered model version, each alias an alias.

One way, and always after the registry's own commit: MLflow is a display that may be down, be emptied or
be behind. What it shows is made from the registry alone, so that a mirror that was killed is simply made
again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from airflow_mlops.exceptions import MLOpsError
from airflow_mlops.registry.entry import op_id
from airflow_mlops.registry.mlflow_client import Target, connected
from airflow_mlops.registry.mlflow_copy import KIND, Mirror, Mirrored
from airflow_mlops.registry.registry import Registry
from airflow_mlops.registry.version import model_name
from airflow_mlops.store.base import Store

__all__ = ["Mirrored", "Target", "export_all", "mirror", "mirror_event"]

_logger = logging.getLogger(__name__)


def mirror(registry: Registry, version: int, target: Target, *, key: str | None = None) -> Mirrored:
    """Make MLflow show a version and the model's aliases as the registry has them now; safe to repeat.

    :raises VersionNotFound: when there is no such version.
    :raises RegistryError: when MLflow cannot be reached, or refuses.
    """
    with connected(target) as client:
        copy = Mirror(registry, client, target)
        place = copy.show(registry.get(version, key))
        copy.point_aliases(key)
        return place


def mirror_event(
    registry: Registry,
    version: int,
    event: str,
    connect: Callable[[], Target | None],
    *,
    key: str | None = None,
) -> None:
    """:func:`mirror` after a commit. Never fails: what went wrong is logged and noted on the version.

    :param event: what was committed, for the note: ``register``, ``gates``, ``promote``, …
    :param connect: where MLflow is; None: nowhere.
    """
    target: Target | None = None
    try:
        target = connect()
        if target is not None:
            mirror(registry, version, target, key=key)
    except Exception as e:  # noqa: BLE001 - whatever a display runs into must not fail a task whose commit stands
        said = (e.message if isinstance(e, MLOpsError) else f"{type(e).__name__}: {e}")[:500]
        said = target.cleaned(said) if target else said
        name = model_name(registry.pipeline, key)
        _logger.warning(
            "%s v%d is in the registry, but not yet in MLflow: %s\n"
            "  What to do: once MLflow is well, run `airflow mlops registry export --to mlflow`",
            name, version, said,
        )  # fmt: skip
        try:
            _note_failure(registry, version, key, event, target, said)
        except MLOpsError as note_error:
            _logger.warning("and this could not be noted on %s v%d: %s", name, version, note_error)


def export_all(store: Store, pipelines: Iterable[str], target: Target, say: Callable[[str], None]) -> int:
    """Mirror every version of these pipelines, oldest first, then the aliases; repeat it to go on after an end.

    :param say: takes a line for each model.
    :return: how many versions MLflow now shows.
    :raises RegistryError: when MLflow cannot be reached, or refuses; what was mirrored stays.
    """
    shown = 0
    with connected(target) as client:
        for pipeline in pipelines:
            registry = Registry(store, pipeline)
            copy = Mirror(registry, client, target)
            for key in registry.keys():  # noqa: SIM118 - a registry is no dict
                versions = registry.versions(key)
                for version in versions:
                    copy.sweep(version, copy.show(version))
                copy.point_aliases(key)
                shown += len(versions)
                plural = "" if len(versions) == 1 else "s"
                say(f"{model_name(pipeline, key)}: {len(versions)} version{plural} in MLflow's model {copy.model(key)}")
    return shown


def _note_failure(
    registry: Registry, version: int, key: str | None, event: str, target: Target | None, said: str
) -> None:
    server = target.uri if target else None
    operation = op_id(KIND, "failed", server, registry.pipeline, key, version, event)
    note = {"server": server, "event": event, "failed": said}
    registry.annotate(version, KIND, note, op_id=operation, key=key)
