"""A store in a folder of a POSIX file system (local disk, or NFS with hard links)."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from airflow_mlops.exceptions import ObjectExists, ObjectNotFound, StoreError, StoreUnavailable
from airflow_mlops.store.base import Stat

_TMP = ".tmp-"
_TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EHOSTDOWN}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def check_key(key: str, *, prefix: bool = False) -> str:
    """Return ``key``; refuse one that could leave the store or that no object can have.

    :param prefix: the key is the beginning of keys: it may be empty, and end anywhere.
    :raises StoreError: for an absolute key, ``.``, ``..`` or empty parts, backslashes, control characters.
    """
    parts = key.split("/")
    if prefix and not parts[-1]:
        parts.pop()
    bad = any(p in ("", ".", "..") or p.startswith(_TMP) for p in parts)
    if bad or "\\" in key or any(ord(c) < 32 for c in key) or (not key and not prefix):
        raise StoreError(
            f"not usable as a key in the store: {key!r}", hint="keys are made by airflow_mlops.store.layout"
        )
    return key


@contextmanager
def disk_errors(what: str, path: Path, size: int | None = None) -> Iterator[None]:
    """Turn what the operating system says into the store's errors.

    :param what: what was tried, to begin the message with.
    :param size: how many bytes had to be written, to be named when the disk is full.
    :raises StoreUnavailable: a retry can help. :raises StoreError: it cannot.
    """
    try:
        yield
    except OSError as e:
        said = f"{what}: {e.strerror or e}"
        if e.errno in _TRANSIENT:
            raise StoreUnavailable(said, hint="check the disk or the network mount; the task is retried") from e
        if e.errno in _FULL:
            needed = "" if size is None else f"; {size:,} bytes are needed for {path}"
            raise StoreError(f"{said}{needed}", hint="free some disk space, then clear the task") from e
        if e.errno in _DENIED:
            hint = "the Airflow worker's user needs read and write access to this folder, and hard links in it"
            raise StoreError(said, hint=hint) from e
        raise StoreError(said, hint="the store needs a POSIX file system with hard links") from e


def _fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_folder(folder: Path) -> None:
    """Like mkdir -p, and durable: each new name is synced into its parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        with suppress(FileExistsError):  # another process made it first
            new.mkdir()
        _fsync_folder(new.parent)


class LocalStore:
    """Objects are files below ``path``, which is made on the first write.

    A write goes to a temporary file in the target's folder, is synced, and takes its name in one step
    (``link`` for put-if-absent, ``replace`` for put), so that a crash leaves the whole object or none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.uri = self.path.as_uri()

    def __repr__(self) -> str:
        return f"LocalStore({str(self.path)!r})"

    def get(self, key: str) -> bytes:
        """Return the object's bytes."""
        with self._errors(key):
            return self._file(key).read_bytes()

    def peek(self, key: str, length: int) -> bytes:
        """Return at most ``length`` bytes from the object's beginning."""
        with self._errors(key), self._file(key).open("rb") as file:
            return file.read(length)

    def put(self, key: str, data: bytes) -> None:
        """Write or replace the object."""
        self._write(key, lambda file: _write_all(file, data), os.replace, len(data))

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write the object if the key is free."""
        # Fails when the name exists, on every POSIX file system and for every process at once.
        self._write(key, lambda file: _write_all(file, data), os.link, len(data))

    def get_file(self, key: str, path: Path) -> None:
        """Copy the object to ``path``, which appears complete or not at all."""
        tmp = path.with_name(f"{_TMP}{uuid.uuid4().hex}")
        try:
            with self._errors(key):
                source = self._file(key).open("rb")
            with source, disk_errors(f"cannot copy {key!r} to {path}", path, os.fstat(source.fileno()).st_size):
                with tmp.open("xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                tmp.replace(path)
        finally:
            tmp.unlink(missing_ok=True)

    def put_file(self, key: str, path: Path) -> None:
        """Copy the file at ``path`` into the store."""
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            self._write(key, lambda file: shutil.copyfileobj(source, file, 1 << 20), os.replace, size)

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""
        with self._errors(key):
            return self._file(key).is_file()

    def stat(self, key: str) -> Stat:
        """Return the object's size and time."""
        with self._errors(key):
            return _stat(key, self._object(key).stat())

    def touch(self, key: str) -> None:
        """Set the object's time to now."""
        with self._errors(key):
            file = self._object(key)
            try:
                os.utime(file)
            except PermissionError:  # another user's file in a shared folder: replace it by one of ours
                self.put_file(key, file)

    def move(self, key: str, target: str) -> None:
        """Take the object to ``target`` in one step; its time is now."""
        new = self._file(target)
        # Before the move: whoever finds it at its new place never sees the old time.
        self.touch(key)
        with self._errors(target):
            _make_folder(new.parent)
        with self._errors(key):
            old = self._object(key)
            old.replace(new)
            _fsync_folder(new.parent)
            _fsync_folder(old.parent)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key that starts with ``prefix``, in ascending order (the same order as S3's)."""
        folder, _, _ = check_key(prefix, prefix=True).rpartition("/")
        yield from self._walk(folder + "/" if folder else "", prefix)

    def scan(self, prefix: str) -> Iterator[Stat]:
        """Like :meth:`list`, with size and time."""
        for key in self.list(prefix):
            with suppress(ObjectNotFound):  # deleted since it was listed
                yield self.stat(key)

    def delete(self, key: str) -> None:
        """Remove the object; its folder stays."""
        with self._errors(key), suppress(FileNotFoundError, NotADirectoryError):
            file = self._file(key)
            file.unlink()
            _fsync_folder(file.parent)

    def sweep(self, before: datetime, *, dry_run: bool = False) -> tuple[Stat, ...]:
        """Remove the temporary files of writers that were killed before that time; return them by their paths."""
        found = []
        for folder, _, names in os.walk(self.path):
            for path in (Path(folder, name) for name in names if name.startswith(_TMP)):
                name = path.relative_to(self.path).as_posix()
                with suppress(FileNotFoundError), disk_errors(f"cannot remove {path}", path):
                    left = _stat(name, path.lstat())
                    if left.modified < before:
                        if not dry_run:
                            path.unlink()
                        found.append(left)
        return tuple(sorted(found, key=lambda left: left.key))

    def _walk(self, folder: str, prefix: str) -> Iterator[str]:
        try:
            with self._errors(folder), os.scandir(self.path / folder) as found:
                # A folder sorts as "name/": then "a-b/c" comes before "a/b", as in S3.
                names = sorted(e.name + "/" if e.is_dir() else e.name for e in found if not e.name.startswith(_TMP))
        except ObjectNotFound:
            return
        for name in names:
            key = folder + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                yield key

    def _file(self, key: str) -> Path:
        return self.path / check_key(key)

    def _object(self, key: str) -> Path:
        file = self._file(key)
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        return file

    def _write(
        self, key: str, fill: Callable[[BinaryIO], None], publish: Callable[[Path, Path], None], size: int
    ) -> None:
        file = self._file(key)
        tmp = file.with_name(f"{_TMP}{uuid.uuid4().hex}")
        with self._errors(key, size):
            try:
                _make_folder(file.parent)
                try:
                    with tmp.open("xb") as out:
                        fill(out)
                        out.flush()
                        os.fsync(out.fileno())
                    publish(tmp, file)
                    _fsync_folder(file.parent)
                finally:
                    tmp.unlink(missing_ok=True)
            except FileNotFoundError as e:
                raise StoreError(
                    f"cannot write {key!r} in the store {self.uri}: {e.filename}: {e.strerror}",
                    hint="check [mlops] store: its folder cannot be made, or was taken away",
                ) from e
            except (NotADirectoryError, IsADirectoryError, FileExistsError) as e:
                if isinstance(e, FileExistsError) and not file.is_dir():
                    raise
                raise StoreError(
                    f"cannot write {key!r} in the store {self.uri}: a file is where a folder should be, or a folder "
                    "where a file should be",
                    hint="give the store a folder of its own",
                ) from e

    @contextmanager
    def _errors(self, key: str, size: int | None = None) -> Iterator[None]:
        where = f"{key!r} in the store {self.uri}"
        with disk_errors(f"cannot access {where}", self.path / key, size):
            try:
                yield
            except FileExistsError as e:
                raise ObjectExists(f"there is already an object {where}") from e
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
                raise ObjectNotFound(f"there is no object {where}") from e


def _stat(key: str, found: os.stat_result) -> Stat:
    return Stat(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _write_all(file: BinaryIO, data: bytes) -> None:
    file.write(data)
