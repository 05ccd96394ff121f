"""Stop a process at each system call that writes below a folder: kill it there, or let the call fail.

The process is a fork that asks to be traced (``ptrace``), so that these are the kernel's calls, whichever
Python function makes them: creating and writing files, ``fsync``, ``link``, ``rename``, ``mkdir``, ``unlink``,
``utimensat``. A fork of a warm process needs no imports, hence hundreds of points in a minute.

Not covered: what the kernel and the disk make of a call once it has begun, and what a power cut leaves of
writes that were not synced. Linux on x86_64 only; no other program is needed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_mlops.exceptions import MLOpsError

_TRACEME, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 12, 13, 24, 0x4200
_TRACESYSGOOD, _EXITKILL = 1, 0x100000
_RAX, _R10, _RDX, _RSI, _RDI, _ORIG_RAX = 10, 7, 12, 13, 14, 15
_AT_ENTRY = signal.SIGTRAP | 0x80
# Each with the register that holds its path, or a file descriptor.
_PATHS = {
    2: ("open", _RDI), 257: ("open", _RSI), 82: ("rename", _RSI), 264: ("rename", _R10), 316: ("rename", _R10),
    83: ("mkdir", _RDI), 258: ("mkdir", _RSI), 84: ("rmdir", _RDI), 86: ("link", _RSI), 265: ("link", _R10),
    87: ("unlink", _RDI), 263: ("unlink", _RSI), 76: ("truncate", _RDI), 90: ("chmod", _RDI), 268: ("chmod", _RSI),
    235: ("utime", _RDI), 280: ("utime", _RSI), 88: ("symlink", _RSI), 266: ("symlink", _RDX),
}  # fmt: skip
_FILES = {
    1: ("write", _RDI), 18: ("write", _RDI), 20: ("write", _RDI), 40: ("write", _RDI), 326: ("write", _RDX),
    74: ("fsync", _RDI), 75: ("fsync", _RDI), 77: ("truncate", _RDI), 280: ("utime", _RDI),
}  # fmt: skip
_FLAGS = {2: _RSI, 257: _RDX}
_WRITE = 1
_CLONES = {56, 57, 58, 435}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long
_Registers = ctypes.c_ulong * 27


@dataclass(frozen=True)
class Call:
    """A system call that writes; ``path`` is relative to the folder."""

    name: str
    path: str


@dataclass(frozen=True)
class Fault:
    """What happens at the call with this number, from 0.

    :param do: ``before``: killed before it; ``after``: killed after it; ``within``: killed when half of the
        bytes of a write are written; ``fail``: it fails.
    :param error: with ``fail``: the errno.
    :param stays: with ``fail``: every later call fails as well.
    """

    at: int
    do: str
    error: int = 0
    stays: bool = False


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    :param result: what the action returned; None: it was killed, or raised.
    :param error: what it raised, as ``type``, ``text`` and ``ours``; None: nothing.
    :param failed: the calls that were made to fail.
    """

    calls: list[Call]
    killed: bool
    result: Any = None
    error: dict[str, Any] | None = None
    failed: tuple[Call, ...] = ()


def can_trace() -> bool:
    """Whether this machine can do it."""
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _ptrace(request: int, pid: int, address: int = 0, data: Any = 0) -> None:
    if _libc.ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace({request}): {os.strerror(number)}")


def _child(action: Callable[[], Any], out: int) -> None:
    """Run ``action`` in the traced process and write how it ended to ``out``."""
    said: dict[str, Any] = {}
    try:
        # What the package warns of is what is done to it here.
        logging.disable(logging.CRITICAL)
        sys.dont_write_bytecode = True
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        said = {"result": action()}
    except MLOpsError as e:
        said = {"error": {"type": type(e).__name__, "text": str(e), "ours": True, "retryable": e.retryable}}
    except BaseException:  # noqa: BLE001 - it is told to whoever waits
        said = {"error": {"type": "crash", "text": traceback.format_exc(), "ours": False, "retryable": False}}
    finally:
        os.write(out, json.dumps(said).encode())
        os._exit(0)


def run(action: Callable[[], Any], folder: Path, fault: Fault | None = None) -> Ended:
    """Run ``action``, which returns plain JSON, in a fork, and do what ``fault`` says to it."""
    into, out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(into)
        _child(action, out)
    os.close(out)
    tracer = _Tracer(pid, str(folder.resolve()), fault)
    try:
        killed = tracer.follow()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(into)
        raise
    with os.fdopen(into, "rb") as pipe:
        raw = pipe.read()
    said = json.loads(raw) if raw else {}
    return Ended(tracer.calls, killed, said.get("result"), said.get("error"), tuple(tracer.failed))


class _Tracer:
    """Follows one process from call to call."""

    def __init__(self, pid: int, folder: str, fault: Fault | None) -> None:
        self.pid, self.folder, self.fault = pid, folder, fault
        self.calls: list[Call] = []
        self.failed: list[Call] = []
        self.regs = _Registers()

    def follow(self) -> bool:
        """Until it ends; whether it was killed."""
        os.waitpid(self.pid, 0)
        _ptrace(_SETOPTIONS, self.pid, 0, _TRACESYSGOOD | _EXITKILL)
        inside, send, number, then = False, 0, 0, ""
        while True:
            _ptrace(_SYSCALL, self.pid, 0, send)
            send = 0
            _, status = os.waitpid(self.pid, 0)
            if os.WIFSIGNALED(status):
                return True
            if os.WIFEXITED(status):
                return False
            stopped = os.WSTOPSIG(status)
            if stopped != _AT_ENTRY:
                send = stopped
                continue
            inside = not inside
            if inside:
                number, then = self._enter()
            elif then == "fail":
                self.regs[_RAX] = ctypes.c_ulong(-number).value
                self._set()
            if then == ("kill" if inside else "kill after"):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return True
            if not inside:
                then = ""

    def _enter(self) -> tuple[int, str]:
        """Look at the call that begins; return the errno it is to fail with and what is to be done."""
        _ptrace(_GETREGS, self.pid, 0, ctypes.byref(self.regs))
        call = self._writing(self.regs[_ORIG_RAX])
        if call is None:
            return 0, ""
        at = len(self.calls)
        self.calls.append(call)
        fault = self.fault
        if fault is None or at < fault.at or (at > fault.at and not fault.stays):
            return 0, ""
        if fault.do == "before":
            return 0, "kill"
        if fault.do == "within":
            self.regs[_RDX] //= 2
            self._set()
        if fault.do != "fail":
            return 0, "kill after"
        if not may_fail(call.name, fault.error):
            return 0, ""
        self.failed.append(call)
        self.regs[_ORIG_RAX] = ctypes.c_ulong(-1).value
        self._set()
        return fault.error, "fail"

    def _set(self) -> None:
        _ptrace(_SETREGS, self.pid, 0, ctypes.byref(self.regs))

    def _writing(self, number: int) -> Call | None:
        if number in _CLONES:
            raise RuntimeError("the action started a thread or a process, which is not followed")
        path = ""
        if number in _FLAGS and not self.regs[_FLAGS[number]] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR | os.O_TRUNC):
            return None
        if number in _PATHS and self.regs[_PATHS[number][1]]:
            name, register = _PATHS[number]
            path = self._text(self.regs[register])
        elif number in _FILES:
            name, register = _FILES[number]
            path = os.readlink(f"/proc/{self.pid}/fd/{self.regs[register]}")
        inside = path == self.folder or path.startswith(self.folder + "/")
        return Call(name, path[len(self.folder) + 1 :]) if inside else None

    def _text(self, address: int) -> str:
        # Not further than the page's end: the next one may not be there.
        raw = b""
        with open(f"/proc/{self.pid}/mem", "rb", 0) as memory:
            while b"\0" not in raw:
                memory.seek(address + len(raw))
                raw += memory.read(4096 - (address + len(raw)) % 4096)
        return os.fsdecode(raw.partition(b"\0")[0])


def may_fail(name: str, error: int) -> bool:
    """Whether a call of that name can fail with ``error``: a full disk still deletes."""
    return error != errno.ENOSPC or name in ("open", "write", "fsync", "link", "rename", "mkdir", "truncate")
