"""Writing a file that a person may have open: whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from airflow_mlops.exceptions import ConfigError


def write_whole(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write ``content`` to a temporary file beside ``path`` and rename it.

    The mode of a file that is there is kept, and a link goes on leading to its file.

    :param new: refuse to replace a file that is there, also one that comes up meanwhile.
    :raises ConfigError: the file is there and ``new`` is set, or it cannot be written.
    """
    try:
        target = path.resolve()
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
        handle, part = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.chmod(part, mode)
            if new:
                os.link(part, target)  # unlike a rename, refuses to replace
            else:
                os.replace(part, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(part)
    except FileExistsError as e:
        raise exists(path) from e
    except (OSError, ValueError, RuntimeError) as e:  # as of a name with a NUL, and of a circle of links
        reason = getattr(e, "strerror", None) or str(e)
        raise ConfigError(f"{path} cannot be written: {reason}", hint="name another place, or check its rights") from e


def exists(path: Path) -> ConfigError:
    """The error for a file that would be overwritten."""
    return ConfigError(f"{path} is already there", hint="name another file with -o, or write over it with --force")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
