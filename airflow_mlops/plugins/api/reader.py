"""The store as the pages see it: kept in memory, read in threads of its own, and never waited for longer than a limit.

What is remembered belongs to no user: who may see what is decided before anything is asked here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

from airflow_mlops.exceptions import MLOpsError, StoreUnavailable
from airflow_mlops.ml.standing import Standing, stands
from airflow_mlops.plugins.api.workers import Workers
from airflow_mlops.registry.overview import Summary, overview
from airflow_mlops.registry.records import Records

if TYPE_CHECKING:
    from airflow_mlops.store.base import Store

T = TypeVar("T")

log = logging.getLogger(__name__)

WAIT = 2.5
"""Seconds that a page of the fleet waits for the store."""
LONG_WAIT = 12.0
"""Seconds that a page about one pipeline waits: it has nothing else to show."""
REMEMBERED = 1.0
"""Seconds for which an index that was just read is taken as new."""
PAUSE = 5.0
"""Seconds for which a store, or a pipeline, that failed is not asked again."""
UNREADABLE = "the store cannot be read; the API server's log says why"
"""Told instead of an error's own words, which may name a pipeline that the reader of the page may not see."""
UNREAD = "they cannot be read now; the API server's log says why"
OLD = 60.0
"""Seconds after which a pipeline is read again although no run of it is known to have begun or ended."""
AT_WORK = 5.0
"""The same while a run of it is at work: its tasks write long before it ends."""
RUNNING = "running"
"""A run's state in a :data:`Mark`."""
SHARE = 5
"""Records that take long to read are kept for this many times as long: reading them must not be all there is."""
STORE_LIFE = 300.0
"""Seconds for which an opened store is used; then settings and connection are looked at again."""
KEPT_RECORDS = 8
"""Pipelines whose whole records are kept in memory."""
KEPT_TABLES = 8
"""Tables of a fleet's keys that are kept in memory, 2 MB each where there are 16,000."""
WAITING = 8
"""Requests that may wait for the store at a time: each holds one of Airflow's threads."""

_NEVER = -1
"""Before every commit: what could not be read is never current."""

Mark = tuple[Any, ...]
"""What Airflow says of a pipeline's runs, their states among it."""


@dataclass
class _Flight:
    """A reading that is under way.

    :param seq: the newest commit that is known to be there; ``mark``: what Airflow says of the pipeline's runs.
    """

    future: Future[Any]
    seq: int
    mark: Mark
    began: float


@dataclass
class _Read:
    """What was read of one pipeline, or why it could not be; ``seq`` is the last commit that was seen."""

    seq: int
    mark: Mark
    at: float
    standing: Standing | None
    problem: str | None

    def is_current(self, seq: int, mark: Mark) -> bool:
        """Whether nothing has happened since, as far as is known: the index may lag behind what was read."""
        return self.mark == mark and self.seq >= seq


class _Turn:
    """Lets one at a time read a pipeline's records; gone when nobody waits."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


@dataclass
class _Kept:
    """The records of one pipeline as they were ``at`` some time, and how many seconds reading them ``took``."""

    mark: Mark
    records: Records
    at: float
    took: float

    def is_current(self, seq: int, mark: Mark, now: float) -> bool:
        """Whether they may be shown: no commit and no run since, and not too long ago."""
        same = self.mark == mark and _last(self.records) >= seq
        return same and now - self.at < max(_lifetime(mark), SHARE * self.took)


@dataclass(frozen=True)
class Answer:
    """What is known of the pipelines asked for.

    :param standings: by name.
    :param problems: why a pipeline's records cannot be used, by name.
    :param pending: names that are being read, or wait for it.
    :param problem: why the store as a whole does not answer as it should.
    """

    summaries: Mapping[str, Summary]
    standings: dict[str, Standing]
    problems: dict[str, str]
    pending: set[str]
    problem: str | None


class Busy(StoreUnavailable):
    """The store does not answer in time."""


@dataclass
class StoreReader:
    """Reads and remembers; safe with many threads.

    :param open_store: opens the store; called in the reader's own threads.
    """

    open_store: Callable[[], Store]
    workers: Workers = field(default_factory=Workers)
    clock: Callable[[], float] = time.monotonic
    wait: float = WAIT
    long_wait: float = LONG_WAIT

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: tuple[float, Store] | None = None
        self._summaries: dict[str, Summary] = {}
        self._summaries_at = float("-inf")
        self._problem: str | None = None
        self._problem_at = float("-inf")
        self._index: _Flight | None = None
        self._read: dict[str, _Read] = {}
        self._flights: dict[str, _Flight] = {}
        self._records: OrderedDict[str, _Kept] = OrderedDict()
        self._made: OrderedDict[Mark, Any] = OrderedDict()
        self._reading: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._waiting = threading.BoundedSemaphore(WAITING)

    # --- the fleet ---------------------------------------------------------------------------------

    def begin(self) -> float:
        """When an answer has to be there that is asked for now; one deadline for all its parts."""
        return self.clock() + self.wait

    def index(self, deadline: float) -> tuple[Mapping[str, Summary], str | None]:
        """Where every pipeline stands in its registry, and why that may be old."""
        now = self.clock()
        with self._lock:
            fresh = now - self._summaries_at < REMEMBERED
            resting = self._problem is not None and now - self._problem_at < PAUSE
            if self._index is None and not fresh and not resting:
                self._index = _Flight(self.workers.submit(self._read_index, urgent=True), 0, (), now)
            flight = self._index
        if flight is not None:
            # Who comes late waits no longer than the first one: with a hanging store all answers come at once.
            self._await([flight.future], min(deadline, flight.began + self.wait))
        with self._lock:
            return self._summaries, self._problem or (_overdue(self.wait) if self._is_overdue() else None)

    def _is_overdue(self) -> bool:
        """Whether the index is waited for in vain; to be called with the lock."""
        return self._index is not None and self.clock() - self._index.began >= self.wait

    def known(self, marks: Mapping[str, Mark], summaries: Mapping[str, Summary], problem: str | None) -> Answer:
        """What is remembered, without reading anything.

        :param marks: names of pipelines, and what Airflow says of their runs.
        """
        standings, problems, pending = {}, {}, set()
        with self._lock:
            for name, mark in marks.items():
                read = self._read.get(name)
                if read is not None and read.standing is not None:
                    standings[name] = read.standing
                if read is not None and read.problem is not None:
                    problems[name] = read.problem
                if read is None or not read.is_current(_seq(summaries.get(name)), mark):
                    pending.add(name)
        return Answer(summaries, standings, problems, pending, problem)

    def read(
        self, names: Iterable[str], marks: Mapping[str, Mark], summaries: Mapping[str, Summary], deadline: float
    ) -> None:
        """Read pipelines that are not known as they are now, and wait for them until ``deadline``."""
        futures = [f for name in names if (f := self._ask(name, marks[name], summaries.get(name), urgent=True))]
        with self._lock:
            hangs = self._is_overdue()
        # What the index waits for in vain will not come for the rows.
        if not hangs:
            self._await(futures, deadline)

    def read_later(self, names: Iterable[str], marks: Mapping[str, Mark], summaries: Mapping[str, Summary]) -> None:
        """Have pipelines read when nothing urgent is to be done."""
        for name in names:
            self._ask(name, marks[name], summaries.get(name), urgent=False)

    def _ask(self, name: str, mark: Mark, summary: Summary | None, *, urgent: bool) -> Future[Any] | None:
        """The future of a reading that is needed; ``None``: it is not needed, or the store rests."""
        seq, now = _seq(summary), self.clock()
        with self._lock:
            read, flight = self._read.get(name), self._flights.get(name)
            current = read is not None and read.is_current(seq, mark)
            if current and read is not None and now - read.at < _lifetime(mark):
                return None
            if self._problem is not None and now - self._problem_at < PAUSE:
                return None
            if read is not None and read.seq == _NEVER and now - read.at < PAUSE:
                return None
            same = flight is not None and flight.mark == mark and flight.seq >= seq
            # One that has not begun is cancelled where it is waited for now: it is begun anew, as urgent.
            if flight is not None and same and not (urgent and flight.future.cancel()):
                return None if current else flight.future
            future = self.workers.submit(lambda: self._read_one(name, seq, mark), urgent=urgent)
            self._flights[name] = _Flight(future, seq, mark, now)
        # What is known and only old is shown as it is; the new reading is for the next who asks.
        return None if current else future

    # --- one pipeline ------------------------------------------------------------------------------

    def ask(self, work: Callable[[Store], T]) -> T:
        """Return ``work(store)``, done in the reader's threads.

        :raises Busy: it takes too long, or too many wait already.
        """
        with self._lock:
            resting = self.clock() - self._problem_at < PAUSE
            problem = self._problem if resting else None
        if problem is not None:
            raise Busy(problem, hint="try again in some seconds")
        if not self._waiting.acquire(blocking=False):
            raise Busy(f"{WAITING} requests wait for the store already", hint="try again in some seconds")
        try:
            future = self.workers.submit(lambda: work(self._store()), urgent=True)
            try:
                return future.result(self.long_wait)
            except FutureTimeout:
                if future.done():
                    raise  # the work's own
                future.cancel()
                raise Busy(_overdue(self.long_wait), hint="try again in some seconds") from None
        finally:
            self._waiting.release()

    def records(self, name: str, mark: Mark, summary: Summary | None, store: Store) -> Records:
        """The whole records of a pipeline; to be called from ``work``.

        A page asks several questions at once: the first has them read, the others wait for it.
        """
        with self._lock:
            turn = self._reading.setdefault(name, _Turn())
        with turn.lock:
            with self._lock:
                kept, began = self._records.get(name), self.clock()
                if kept is not None and kept.is_current(_seq(summary), mark, began):
                    self._records.move_to_end(name)
                    return kept.records
            records = Records.read(store, name)
            with self._lock:
                self._records[name] = _Kept(mark, records, began, self.clock() - began)
                self._records.move_to_end(name)
                while len(self._records) > KEPT_RECORDS:
                    self._records.popitem(last=False)
            return records

    def once(self, mark: Mark, make: Callable[[], T]) -> T:
        """What ``make`` returned for this ``mark``, which names all that it depends on; the last few are kept."""
        with self._lock:
            if mark in self._made:
                self._made.move_to_end(mark)
                return cast("T", self._made[mark])
        made = make()
        with self._lock:
            self._made[mark] = made
            while len(self._made) > KEPT_TABLES:
                self._made.popitem(last=False)
        return made

    # --- in the reader's threads -------------------------------------------------------------------

    def _store(self) -> Store:
        now = self.clock()
        with self._lock:
            if self._opened is not None and now - self._opened[0] < STORE_LIFE:
                return self._opened[1]
        store = self.open_store()
        with self._lock:
            self._opened = (now, store)
        return store

    def _read_index(self) -> None:
        try:
            found = {s.pipeline: s for s in overview(self._store())}
        except Exception as e:  # noqa: BLE001 - whatever it is, the page says so
            self._failed(e)
        else:
            with self._lock:
                self._summaries, self._summaries_at, self._problem = found, self.clock(), None
        finally:
            with self._lock:
                self._index = None

    def _read_one(self, name: str, seq: int, mark: Mark) -> None:
        now = datetime.now(UTC)
        try:
            records = Records.read(self._store(), name)
            read = _Read(max(seq, _last(records)), mark, self.clock(), stands(records, name, now), None)
        except Exception as e:
            if isinstance(e, MLOpsError) and e.retryable:
                # Of this pipeline alone; after a pause the next who asks has it read again.
                log.error("the records of %s cannot be read: %s", name, e)
                with self._lock:
                    before = self._read.get(name)
                read = _Read(_NEVER, mark, self.clock(), before.standing if before else None, UNREAD)
            else:
                # Of one pipeline, and read again when something new is written to it.
                log.exception("the records of %s cannot be used", name)
                read = _Read(seq, mark, self.clock(), None, _told(e))
        with self._lock:
            self._read[name] = read
            flight = self._flights.get(name)
            if flight is not None and (flight.seq, flight.mark) == (seq, mark):
                del self._flights[name]

    def _failed(self, error: Exception) -> None:
        log.error("the store cannot be read: %s", error)
        with self._lock:
            self._problem, self._problem_at = UNREADABLE, self.clock()

    def _await(self, futures: list[Future[Any]], deadline: float) -> None:
        left = deadline - self.clock()
        if not futures or left <= 0:
            return
        if not self._waiting.acquire(blocking=False):
            return
        try:
            wait_for(futures, timeout=left)
        finally:
            self._waiting.release()


def _lifetime(mark: Mark) -> float:
    """Seconds for which what was read may be shown."""
    return AT_WORK if RUNNING in mark else OLD


def _seq(summary: Summary | None) -> int:
    """The registry's last commit, as the index has it."""
    return summary.seq if summary else 0


def _last(records: Records) -> int:
    return records.seq


def _overdue(seconds: float) -> str:
    return f"the store has not answered for {seconds:g} seconds"


def _told(error: Exception) -> str:
    """What a page says of an error: a foreign error's text may hold anything, such as an address with a password."""
    return error.message if isinstance(error, MLOpsError) else f"{type(error).__name__}: the API server's log says more"
