"""What the sensors here share: look once, then wait without a worker slot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowFailException

from airflow_mlops import exceptions
from airflow_mlops.exceptions import MLOpsError, StoreUnavailable

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_mlops.triggers.base import PollingTrigger


def given(value: Any) -> Any:
    """Return ``None`` for what a template renders when its value is missing."""
    return None if value in (None, "", "None") else value


class MLOpsSensor(BaseSensorOperator):
    """Base of the sensors: a subclass says which trigger does the looking.

    The XCom value is what was found, a small dict.

    :param mlops_conn_id: connection of type ``mlops``; default: the ``[mlops]`` options.
    :param deferrable: wait in the triggerer, without a worker slot; else by Airflow's ``mode``.
    :param max_failures: failed looks in a row (store or storage not reachable) that end the wait.
        In ``mode="reschedule"`` each look is a new process, and only ``timeout`` ends the wait.
    """

    template_fields: Sequence[str] = ()
    ui_color = "#e6f2ff"

    def __init__(
        self,
        *,
        mlops_conn_id: str | None = None,
        deferrable: bool = True,
        max_failures: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.mlops_conn_id = mlops_conn_id
        self.deferrable = deferrable
        self.max_failures = max_failures
        self._failures = 0

    @abstractmethod
    def trigger(self) -> PollingTrigger:
        """Return the trigger that looks for what this sensor waits for."""

    @property
    def trigger_arguments(self) -> dict[str, Any]:
        """Arguments that every trigger here takes."""
        return {
            "poll_interval": self.poke_interval,
            "once": True,
            "max_failures": self.max_failures,
            "mlops_conn_id": self.mlops_conn_id,
        }

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; a storage that cannot be reached counts as nothing found, ``max_failures`` times."""
        try:
            trigger = self.trigger()
            found = trigger.look()
        except MLOpsError as error:
            self._failures += 1
            if not error.retryable:
                self.log.error("%s", error)
                raise AirflowFailException(str(error)) from None
            if self._failures >= self.max_failures:
                self.log.error("%s", error)
                raise
            self.log.warning("look %d failed: %s", self._failures, error)
            return PokeReturnValue(is_done=False)
        self._failures = 0
        if found is None or not trigger.is_news(found):
            self.log.info("not yet: %s", "nothing there" if found is None else found)
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=found)

    def execute(self, context: Context) -> Any:
        """Look once here; if there is nothing yet, wait in the triggerer (or by ``mode``)."""
        if not self.deferrable:
            return super().execute(context)
        first = self.poke(context)
        if first:
            return first.xcom_value
        self.defer(
            trigger=self.trigger(),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Return what the trigger found, or raise what stopped it.

        :raises StoreUnavailable: or another retryable error of this package, by the event's name for it.
        :raises AirflowFailException: an error that a retry cannot mend, or an event that is not one of ours.
        """
        if not isinstance(event, dict) or event.get("status") not in ("ok", "error"):
            raise AirflowFailException(f"the trigger sent an event this sensor does not know: {event!r}")
        if event["status"] == "ok":
            found = {key: value for key, value in event.items() if key != "status"}
            self.log.info("found: %s", found)
            return found
        message = str(event.get("message"))
        self.log.error("%s", message)
        error = getattr(exceptions, str(event.get("error")), StoreUnavailable)
        if isinstance(error, type) and issubclass(error, MLOpsError) and error.retryable:
            raise error(message)
        raise AirflowFailException(message)
