"""Tells people what happened, through Airflow's own notifiers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow_mlops.exceptions import CodeNotAllowed, DataStale

if TYPE_CHECKING:
    from airflow.sdk import BaseNotifier, Context

log = logging.getLogger(__name__)


def load_notifier(path: str, allowed_imports: Sequence[str] = ()) -> type[BaseNotifier]:
    """Return the notifier class at a dotted path.

    :param path: inside ``airflow`` (its providers too) or one of ``allowed_imports``.
    :raises CodeNotAllowed: the path lies elsewhere, does not resolve, or is not a subclass of ``BaseNotifier``.
    """
    from airflow.sdk import BaseNotifier

    from airflow_mlops.ml.code import resolve

    found = resolve(path, ("airflow", *allowed_imports))
    if not isinstance(found, type) or not issubclass(found, BaseNotifier):
        raise CodeNotAllowed(
            f"{path} is not an Airflow notifier", hint="name a class that derives from airflow.sdk.BaseNotifier"
        )
    return found


def notify(
    config_events: Sequence[str],
    notifiers: Sequence[Mapping[str, Any]],
    event: str,
    context: Mapping[str, Any],
    message: str,
    *,
    allowed_imports: Sequence[str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> int:
    """Run each notifier if ``event`` is one of ``config_events``; returns how many succeeded.

    Never raises for a notifier: what it reports has happened, whether or not the message gets
    out. A notifier that fails, or that may not be loaded, is logged as an error. Templates in its
    arguments can use ``{{ mlops.event }}``, ``{{ mlops.message }}``, ``{{ mlops.dag_id }}``,
    ``{{ mlops.run_id }}``, ``{{ mlops.task_id }}`` and the ``details``.

    :param notifiers: ``{"class": dotted path, "args": {…}}`` each.
    :param context: the task's context; not changed.
    :param allowed_imports: import prefixes beside ``airflow``; default: ``[mlops] allowed_imports``.
    """
    if event not in config_events or not notifiers:
        return 0
    if allowed_imports is None:
        from airflow_mlops.hooks.mlops import MLOpsHook

        allowed_imports = MLOpsHook().allowed_imports
    facts = {**(details or {}), "event": event, "message": message, **_place(context)}
    sent = 0
    for entry in notifiers:
        try:
            notifier = load_notifier(entry["class"], allowed_imports)(**(entry.get("args") or {}))
            # A copy for each: a notifier puts its own rendered fields into the context.
            notifier({**context, "mlops": facts})
        except Exception as error:  # noqa: BLE001  a notifier is foreign code and may raise anything
            log.error("notifier %s did not send %r: %s: %s", entry.get("class"), event, type(error).__name__, error)
        else:
            sent += 1
            log.info("notifier %s sent %r", entry["class"], event)
    return sent


def _place(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``dag_id``, ``run_id`` and ``task_id``; the last is ``None`` where a whole run failed."""
    ti = context.get("ti")
    return {
        "dag_id": getattr(ti, "dag_id", None) or getattr(context.get("dag"), "dag_id", None),
        "run_id": getattr(ti, "run_id", None) or context.get("run_id"),
        # Airflow puts `reason` into a DAG's callback, with a task that need not be the one that failed.
        "task_id": None if "reason" in context else getattr(ti, "task_id", None),
    }


def _is_stale(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, DataStale):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_silent(context: Mapping[str, Any]) -> bool:
    """Whether the run is a replay of the past that nobody is to hear about (``promote: false``)."""
    from airflow_mlops.operators.base import run_scope

    try:
        return not run_scope(cast("Context", context)).promote
    except Exception as error:  # noqa: BLE001  whatever is odd about the run, its failure is worth telling
        log.warning("cannot tell whether this run is a replay: %s: %s", type(error).__name__, error)
        return False


@dataclass(frozen=True)
class FailureCallback:
    """An ``on_failure_callback`` of a task (best in ``default_args``) or a DAG. Plain data, so it pickles.

    Notifies of ``stale_data`` or ``failed``; stale data that nobody asked to hear about as
    ``stale_data`` is reported as ``failed``. Only a task's callback knows the error; a DAG's says
    that the run failed. A replay of the past without ``promote`` stays silent.
    """

    events: tuple[str, ...]
    notifiers: tuple[Mapping[str, Any], ...] = ()

    def __call__(self, context: Mapping[str, Any]) -> None:
        """Airflow calls this after the last try has failed; it never raises for a notifier."""
        if not self.notifiers or not {"failed", "stale_data"} & set(self.events) or _is_silent(context):
            return
        error = context.get("exception")
        event = "stale_data" if "stale_data" in self.events and _is_stale(error) else "failed"
        place = _place(context)
        if place["task_id"] is None:
            message = f"{place['dag_id']}, run {place['run_id']} failed: see its tasks"
        else:
            message = f"{place['dag_id']}.{place['task_id']} failed: {str(error or '').strip() or 'see its log'}"
        notify(self.events, self.notifiers, event, context, message)


def failure_callback(events: Sequence[str], notifiers: Sequence[Mapping[str, Any]]) -> FailureCallback:
    """Return the callback for a pipeline's ``notify`` section."""
    return FailureCallback(tuple(events), tuple(dict(entry) for entry in notifiers))
