"""Threads that read the store, so that a store that hangs holds none of Airflow's."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 4


class Workers:
    """A few daemon threads that do work in turn; urgent work goes before other work.

    Not a ``ThreadPoolExecutor``: that finishes all that is queued before its process may end.

    :param threads: how many, begun with the first work: a server may fork before it answers.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._threads = threads
        self._begun = 0
        self._lock = threading.Lock()
        self._number = itertools.count()
        self._queue: queue.PriorityQueue[tuple[bool, int, Future[Any], Callable[[], Any]]] = queue.PriorityQueue()

    def submit(self, work: Callable[[], T], *, urgent: bool) -> Future[T]:
        """Queue ``work``; its future can be cancelled until it begins."""
        future: Future[T] = Future()
        self._queue.put((not urgent, next(self._number), future, work))
        with self._lock:
            if self._begun < self._threads:
                self._begun += 1
                threading.Thread(target=self._run, name=f"mlops-store-{self._begun}", daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            later, _, future, work = self._queue.get()
            begun = time.thread_time()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as e:  # noqa: BLE001 - it belongs to whoever waits for the future
                future.set_exception(e)
            # Nothing is kept alive while the thread waits.
            del future, work
            if later:
                # Airflow's own pages are answered by this process too: what nobody waits for takes half of the time.
                time.sleep(time.thread_time() - begun)
