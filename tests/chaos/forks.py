"""Work in a fresh process."""

from __future__ import annotations

import logging
import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def start(work: Callable[[], T]) -> Callable[[], T]:
    """Begin ``work`` in a fork; the returned function waits for its result.

    :raises RuntimeError: (when waiting) with the traceback, when it raised, or when it was killed.
    """
    into, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(into)
        logging.disable(logging.CRITICAL)
        try:
            said: tuple[str, T | None] = ("", work())
        except BaseException:  # noqa: BLE001 - it is told to whoever waits
            said = (traceback.format_exc(), None)
        with os.fdopen(out, "wb") as pipe:
            pipe.write(pickle.dumps(said))
        os._exit(0)
    os.close(out)

    def wait() -> T:
        with os.fdopen(into, "rb") as pipe:
            raw = pipe.read()
        os.waitpid(pid, 0)
        if not raw:
            raise RuntimeError("the process was killed")
        error, result = pickle.loads(raw)
        if error:
            raise RuntimeError(error)
        return result

    return wait


def together(works: list[Callable[[], T]]) -> list[T]:
    """Do all of it at once, each in a process of its own."""
    waits = [start(work) for work in works]
    return [wait() for wait in waits]
