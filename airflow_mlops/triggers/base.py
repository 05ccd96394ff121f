"""The polling loop that all triggers here share."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_mlops.exceptions import MLOpsError

LONGEST_WAIT = 600.0
"""Seconds; however often a look failed, the next one comes after this at the latest."""


class PollingTrigger(BaseEventTrigger):
    """Looks again and again until there is something new, then fires.

    For a deferred task (``once=True``, what the sensors here pass) it fires one event:
    ``{"status": "ok", …what was found}``, or ``{"status": "error", "error": class name, "message"}``
    when a look fails in a way a retry cannot mend, or fails ``max_failures`` times in a row.

    As the trigger of an ``AssetWatcher`` (``once=False``) it fires on every change, for ever. It
    never fires an error there, because any event of a watcher starts runs: it logs and waits longer.
    The last state is kept in Airflow's asset state store, so that a change that happens while the
    triggerer restarts is not missed.

    :param poll_interval: seconds between looks.
    :param once: whether to end after the first event.
    :param emit_first: for watchers: whether what is there at the very start is news.
    :param max_failures: failed looks in a row that end a deferred task's wait.
    :param mlops_conn_id: connection of type ``mlops``; default: the ``[mlops]`` options.
    """

    def __init__(
        self,
        *,
        poll_interval: float = 60.0,
        once: bool = False,
        emit_first: bool = False,
        max_failures: int = 10,
        mlops_conn_id: str | None = None,
    ) -> None:
        super().__init__()
        self.poll_interval = poll_interval
        self.once = once
        self.emit_first = emit_first
        self.max_failures = max_failures
        self.mlops_conn_id = mlops_conn_id

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the subclass's own arguments, as plain JSON."""

    @abstractmethod
    def look(self) -> dict[str, Any] | None:
        """Look once; runs in a thread. Returns what there is, with its ``version``, or ``None``."""

    @abstractmethod
    def is_news(self, found: dict[str, Any]) -> bool:
        """Whether ``found`` is what this trigger waits for."""

    def of_error(self) -> dict[str, Any]:
        """What an event that tells of an error says beside it."""
        return {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments to build an equal trigger from."""
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {
            **self.arguments(),
            "poll_interval": self.poll_interval,
            "once": self.once,
            "emit_first": self.emit_first,
            "max_failures": self.max_failures,
            "mlops_conn_id": self.mlops_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, compare, fire; see the class."""
        last = await self._recall()
        first = last is None
        failures = 0
        while True:
            try:
                # A thread, because stores and file systems block. Airflow 3.3's triggerer answers
                # the hook's connection look-up from a thread too.
                found = await asyncio.to_thread(self.look)
            except MLOpsError as error:
                failures += 1
                wait = min(self.poll_interval * 2**failures, max(LONGEST_WAIT, self.poll_interval))
                if self.once and (not error.retryable or failures >= self.max_failures):
                    said = {"status": "error", "error": type(error).__name__, "message": str(error)}
                    yield TriggerEvent({**said, **self.of_error()})
                    return
                self.log.warning("look %d failed, again in %.0f s: %s", failures, wait, error)
                await asyncio.sleep(wait)
                continue
            failures = 0
            if self.once:
                if found is not None and self.is_news(found):
                    yield TriggerEvent({"status": "ok", **found})
                    return
            else:
                if found is not None and found["version"] != last and self.is_news(found):
                    if not first or self.emit_first:
                        yield TriggerEvent(found)
                    # After the event: a crash in between repeats it, which consumers must expect, and loses none.
                    last = found["version"]
                    await self._remember(last)
                first = False
            await asyncio.sleep(self.poll_interval)

    @property
    def _state_key(self) -> str:
        return f"mlops.{type(self).__name__}.version"

    async def _recall(self) -> Any:
        # Set by the triggerer for asset watchers only.
        if self.once or self.asset_state_store is None:
            return None
        return await self.asset_state_store.aget(self._state_key)

    async def _remember(self, version: Any) -> None:
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(self._state_key, version)
