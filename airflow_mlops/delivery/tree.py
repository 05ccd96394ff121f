"""The files of a project, held in memory: what is tested, packed and compared is the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.exceptions import ConfigError

MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 20_000
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class TreeFile:
    """One plain file; of its mode only the right to execute it is kept, as git does."""

    content: bytes
    executable: bool = False

    @property
    def sha256(self) -> str:
        """Of the content, as 64 hex digits."""
        return hashlib.sha256(self.content).hexdigest()


Tree = Mapping[str, TreeFile]
"""Path below the project's folder, with ``/``, → file."""


def unsafe(path: str) -> str | None:
    """Why a file must not be written below a folder under this path; ``None``: it may be."""
    parts = path.split("/")
    if not path or path.startswith("/") or _DRIVE.match(path):
        return "is not below the project"
    if any(part in ("", ".", "..") for part in parts):
        return "leads elsewhere"
    if "\\" in path or not path.isprintable():
        return "has characters that not every system can write"
    if any(part.lower() == ".git" for part in parts):
        return "would be part of a git repository"
    return None


def overlapping(paths: Iterable[str]) -> str | None:
    """A path of ``paths`` that is a folder to another of them; ``None``: there is none."""
    known = set(paths)
    return next((p for path in known for p in _parents(path) if p in known), None)


def _parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts)))


def read_tree(folder: Path, paths: Iterable[str]) -> dict[str, TreeFile]:
    """Read files below ``folder``; a path where nothing is, such as that of a deleted file, is left out.

    :raises ConfigError: one of them is no plain file, cannot be read, or has a name that cannot be packed; or they
        are too many, or too large.
    """
    found: dict[str, TreeFile] = {}
    size = 0
    for path in sorted(paths):
        if why := unsafe(path):
            raise ConfigError(f"the path {path!r} {why}", hint="rename the file, or let git ignore it")
        try:
            status = os.lstat(folder / path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(status.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no plain file (a submodule?)"
            raise ConfigError(
                f"{path} is {what}, and a bundle holds plain files only",
                hint="put a copy in its place, or let git ignore it",
            )
        size += status.st_size
        if size > MAX_BYTES or len(found) >= MAX_FILES:
            raise ConfigError(
                f"the project has more than {MAX_BYTES >> 20} MiB, or more than {MAX_FILES:,} files",
                hint="keep data elsewhere: below [mlops] data_root, or on S3",
            )
        try:
            content = (folder / path).read_bytes()
        except OSError as e:
            raise ConfigError(f"{path} cannot be read: {e.strerror}", hint="check its rights") from e
        found[path] = TreeFile(content, bool(status.st_mode & stat.S_IXUSR))
    return found


def write_tree(tree: Tree, folder: Path) -> None:
    """Write the files below ``folder``, which is made and must not have been there.

    :raises FileExistsError: it is there.
    :raises ValueError: a path leads out of it.
    """
    folder.mkdir(parents=True)
    for path, file in tree.items():
        if why := unsafe(path):
            raise ValueError(f"the path {path!r} {why}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            out.write(file.content)
        target.chmod(0o755 if file.executable else 0o644)
