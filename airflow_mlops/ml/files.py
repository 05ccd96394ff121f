"""Where user data lives: local disk and S3 behind one small interface (the store is something else)."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias
from urllib.parse import unquote, urlsplit

from pyarrow import fs as pafs

from airflow_mlops.config.placeholders import CONNECTION
from airflow_mlops.exceptions import DataError, DataNotFound, DataUnavailable

DATA_SUFFIXES = (".parquet", ".pq", ".csv", ".csv.gz")
_REFUSED = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY",
    "SIGNATURE",
    "UNRECOGNIZED_CLIENT",
    "TOKEN",
    "HTTP response code 403",
)
_ABSENT = ("NO_SUCH_BUCKET", "NO_SUCH_KEY", "RESOURCE_NOT_FOUND")
# Errors of a disk or mount that may pass; every other local error stays as it is on a retry.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOSPC, errno.EBUSY}
_COPY_BYTES = 8 * 2**20


@dataclass(frozen=True)
class FileInfo:
    """One data file; ``size`` in bytes, ``version`` changes when the content does (ETag, or mtime and size).

    ``modified`` is when it was last written, in nanoseconds since 1970.
    """

    uri: str
    path: str
    size: int
    version: str
    modified: int = 0


@contextmanager
def io_errors(uri: str) -> Iterator[None]:
    """Turn what goes wrong while reaching ``uri`` into one of our errors.

    Arrow reports damaged content as ``OSError`` too, without an errno: that passes through
    unchanged, for the reader of the format to judge.
    """
    try:
        yield
    except FileNotFoundError as e:
        raise DataNotFound(f"{uri} does not exist", hint="check the path and the window it was made from") from e
    except (PermissionError, IsADirectoryError, NotADirectoryError) as e:
        raise DataError(f"{uri} cannot be opened: {e}", hint="check the path and the rights on it") from e
    except OSError as e:
        text = str(e)
        if "AWS Error" in text or "curlCode" in text:
            if any(code in text for code in _REFUSED):
                raise DataError(
                    f"{uri}: S3 refused access: {text}", hint="check the AWS connection ([mlops] aws_conn_id)"
                ) from e
            if any(code in text for code in _ABSENT):
                raise DataNotFound(f"{uri} does not exist: {text}", hint="check bucket, key and window") from e
            raise DataUnavailable(f"{uri}: S3 cannot be reached: {text}", hint="check network and endpoint") from e
        if e.errno in _PASSING:
            raise DataUnavailable(f"{uri} cannot be reached: {e}") from e
        if e.errno is not None:
            raise DataError(f"{uri} cannot be used: {e}", hint="check the path and the disk") from e
        raise


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
S3: TypeAlias = pafs.FileSystem | Callable[[], pafs.FileSystem] | None


class Files:
    """Opens, lists and writes data files.

    :param root: folder or URI for relative paths (``[mlops] data_root``).
    :param s3: Arrow file system for ``s3://``, or a function that makes it; default: AWS's own chain of credentials.
    :param connection: returns the location that an Airflow connection stands for, by its id, and the
        file system for ``s3://`` below it; without one, ``${conn:ID}`` is refused.
    """

    def __init__(
        self, root: str | None = None, s3: S3 = None, connection: Callable[[str], tuple[str, S3]] | None = None
    ) -> None:
        self.root = root
        self._s3 = s3
        self._connection = connection
        self._local = pafs.LocalFileSystem()

    def _s3_filesystem(self) -> pafs.FileSystem:
        if not isinstance(self._s3, pafs.FileSystem):
            with io_errors("s3://"):
                self._s3 = self._s3() if self._s3 is not None else pafs.S3FileSystem()
        return self._s3

    def resolve(self, uri: str) -> tuple[pafs.FileSystem, str]:
        """Return the file system and the path in it of ``s3://…``, ``file://…``, an absolute or a relative path.

        ``${conn:ID}/…`` is below the location of an Airflow connection, and read with its credentials.

        :raises DataError: for another scheme, credentials in the URI, or a relative path without a root.
        """
        if match := CONNECTION.fullmatch(uri):
            if self._connection is None:
                raise DataError(f"{uri!r} names an Airflow connection, and there is no Airflow here")
            root, s3 = self._connection(match[1])
            return Files(s3=s3).resolve(f"{root.rstrip('/')}/{match[2]}" if match[2] else root)
        if uri.startswith("s3://"):
            path = uri[len("s3://") :]
            if "@" in path.split("/", 1)[0]:
                raise DataError("an s3:// URI holds credentials", hint="put them into the AWS connection")
            if not path.split("/", 1)[0]:
                raise DataError(f"{uri!r} names no bucket", hint="write s3://bucket/path")
            return self._s3_filesystem(), path
        if uri.startswith("file://"):
            parts = urlsplit(uri)
            if parts.netloc not in ("", "localhost"):
                raise DataError(f"{uri!r} names a host", hint="write file:///absolute/path")
            # A glob may hold '?' and '#', which are no query and fragment here.
            path = unquote(uri[len("file://") + len(parts.netloc) :])
        elif _SCHEME.match(uri):
            scheme = uri.split("://", 1)[0]
            raise DataError(f"{scheme}:// is not supported", hint="use s3://, file:// or a path, or `callable`")
        else:
            path = uri
        if not os.path.isabs(path):
            if self.root is None:
                raise DataError(
                    f"{uri!r} is relative and no data root is set",
                    hint="set [mlops] data_root or write an absolute path",
                )
            if _SCHEME.match(self.root):  # the root is a URI itself
                return self.resolve(f"{self.root.rstrip('/')}/{path}")
            path = os.path.join(self.root, path)
        return self._local, os.path.normpath(path)

    def expand(self, uri: str) -> list[FileInfo]:
        """Return the files ``uri`` names, in order of their paths.

        ``*`` and ``?`` match within one path component, ``**`` across them. A folder stands for the CSV
        and Parquet files directly in it. Names that begin with ``.`` or ``_`` are left out of globs and folders.

        :raises DataNotFound: when there is none.
        :raises DataUnavailable: when the source cannot be reached.
        """
        filesystem, path = self.resolve(uri)
        with io_errors(uri):
            if any(c in path for c in "*?["):
                found = self._glob(filesystem, path)
            else:
                info = filesystem.get_file_info(path)
                if info.type == pafs.FileType.Directory:
                    found = [f for f in _listing(filesystem, path, False) if f.path.lower().endswith(DATA_SUFFIXES)]
                else:
                    found = [info] if info.type == pafs.FileType.File else []
            if not found:
                raise DataNotFound(
                    f"no file matches {uri}" + (f" ({path})" if filesystem is self._local and path != uri else ""),
                    hint="check the path, the window it was made from, and that the data has arrived",
                )
            remote = filesystem is not self._local
            found.sort(key=lambda f: f.path)
            # One HEAD request a file on S3, for the ETag that listings through Arrow do not carry.
            with ThreadPoolExecutor(8 if remote else 1) as pool:
                versions = list(pool.map(lambda f: _version(filesystem, f, remote), found))
        prefix = "s3://" if remote else ""  # a local path needs no scheme, and none of its characters a quote
        return [FileInfo(prefix + f.path, f.path, f.size, v, f.mtime_ns) for f, v in zip(found, versions, strict=True)]

    def _glob(self, filesystem: pafs.FileSystem, path: str) -> list[pafs.FileInfo]:
        components = path.split("/")
        first = next(i for i, c in enumerate(components) if any(w in c for w in "*?["))
        base = "/".join(components[:first]) or "/"
        if first == 0 and filesystem is not self._local:
            raise DataError("a bucket name cannot be a pattern", hint="write s3://bucket/pattern")
        pattern = re.compile(_pattern(components[first:]))
        deep = first < len(components) - 1 or "**" in components[first]
        offset = len(base.rstrip("/")) + 1
        return [f for f in _listing(filesystem, base, deep) if pattern.fullmatch(f.path[offset:])]

    @contextmanager
    def open_output(self, uri: str) -> Iterator[BinaryIO]:
        """Open ``uri`` for writing; the file appears whole when the block ends without an error, else not at all.

        Local: temporary file in the same folder, fsync, rename. S3: written locally, then uploaded in one go.
        """
        filesystem, path = self.resolve(uri)
        if filesystem is not self._local:
            with self._upload(filesystem, path, uri) as out:
                yield out
            return
        target = Path(path)
        with io_errors(uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as out:
                yield out
                with io_errors(uri):
                    out.flush()
                    os.fsync(out.fileno())
            with io_errors(uri):
                os.chmod(name, 0o666 & ~_umask())
                os.replace(name, target)
                folder = os.open(target.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)

    @contextmanager
    def _upload(self, filesystem: pafs.FileSystem, path: str, uri: str) -> Iterator[BinaryIO]:
        # Closing a half-written multipart upload would complete it, so nothing is sent before the block has ended.
        with tempfile.TemporaryFile() as spool:
            yield spool
            size = spool.seek(0, os.SEEK_END)
            spool.seek(0)
            with io_errors(uri):
                with filesystem.open_output_stream(path) as out:
                    shutil.copyfileobj(spool, out, _COPY_BYTES)
                written = filesystem.get_file_info(path).size
            if written != size:
                with io_errors(uri):
                    filesystem.delete_file(path)
                raise DataUnavailable(f"{uri}: {written} of {size} bytes arrived; removed again")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _version(filesystem: pafs.FileSystem, info: pafs.FileInfo, remote: bool) -> str:
    if not remote:
        return f"{info.mtime_ns}-{info.size}"
    with filesystem.open_input_stream(info.path, buffer_size=0) as stream:
        metadata = {_text(k).lower(): _text(v) for k, v in stream.metadata().items()}
    return metadata.get("etag", "").strip('"') or f"{info.mtime_ns}-{info.size}"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _listing(filesystem: pafs.FileSystem, base: str, deep: bool) -> list[pafs.FileInfo]:
    selector = pafs.FileSelector(base, allow_not_found=True, recursive=deep)
    offset = len(base.rstrip("/")) + 1
    return [
        f
        for f in filesystem.get_file_info(selector)
        if f.type == pafs.FileType.File and not any(c.startswith((".", "_")) for c in f.path[offset:].split("/"))
    ]


def _pattern(components: list[str]) -> str:
    """Regular expression of a glob given by components; ``**`` stands for any number of folders."""
    parts: list[str] = []
    for i, component in enumerate(components):
        last = i == len(components) - 1
        if component == "**":
            parts.append(".*" if last else "(?:.*/)?")
            continue
        text, rest = "", component
        while rest:
            if rest.startswith("**"):
                text, rest = text + ".*", rest[2:]
            elif rest[0] == "*":
                text, rest = text + "[^/]*", rest[1:]
            elif rest[0] == "?":
                text, rest = text + "[^/]", rest[1:]
            # A bracket that comes first, or behind the sign that negates, is one of the characters.
            elif rest[0] == "[" and (close := rest.find("]", 3 if rest[1:2] in ("!", "^") else 2)) > 0:
                inside = rest[1:close].replace("\\", "\\\\").replace("[", "\\[")
                inside = "^" + inside[1:] if inside[0] in "!^" else inside
                text, rest = text + f"(?!/)[{inside}]", rest[close + 1 :]
            else:
                text, rest = text + re.escape(rest[0]), rest[1:]
        parts.append(text + ("" if last else "/"))
    return "".join(parts)
