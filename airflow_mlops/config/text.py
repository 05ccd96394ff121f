"""The text of a pipeline file, as far as it can be one."""

from __future__ import annotations

import stat
from pathlib import Path

from airflow_mlops.config.issues import InvalidPipeline, Issue
from airflow_mlops.config.yaml_source import LINE_BREAK, MAX_BYTES


def read_text(path: Path) -> str:
    """The text of a pipeline file.

    :raises InvalidPipeline: if there is no such file, it cannot be read, is larger than 1 MiB, or is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise _one(path, "unreadable", "the file's name is not valid UTF-8", "rename it") from e
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise _one(path, "unreadable", "this is not a file", "name one YAML file")
        with path.open("rb") as f:
            raw = f.read(MAX_BYTES + 1)
    except FileNotFoundError as e:
        if path.is_symlink():
            raise _one(path, "not_found", "this link leads nowhere", "correct or remove the link") from e
        raise _one(path, "not_found", "there is no such file", "check the path") from e
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise _one(path, "unreadable", f"the file cannot be read: {reason}", "check its owner and mode") from e
    if len(raw) > MAX_BYTES:
        size = max(found.st_size, len(raw))
        raise _one(path, "too_large", f"the file has {size} bytes; a pipeline may have {MAX_BYTES}", "is this data?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        before = raw[: e.start].decode("utf-8", errors="replace").removeprefix("\ufeff")
        lines = LINE_BREAK.split(before)
        issue = Issue(
            str(path), len(lines), len(lines[-1]) + 1, "", "encoding",
            f"byte 0x{raw[e.start]:02x} is not UTF-8", "save the file as UTF-8", lines[-1],
        )  # fmt: skip
        raise InvalidPipeline([issue]) from e


def _one(path: Path, code: str, message: str, suggestion: str) -> InvalidPipeline:
    return InvalidPipeline([Issue(str(path), 1, 1, "", code, message, suggestion)])
