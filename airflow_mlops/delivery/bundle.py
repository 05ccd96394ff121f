"""The bundle: a whole project at one state in one file, which is checked before anything in it is used.

A zip, not compressed, of three things: a manifest (``bundle/manifest.json``), a signature of it where a key
is configured (``bundle/signature.json``), and the files (``project/…``). The manifest has the sha256 of
every file, the commit, and the versions of everything that was installed where the bundle was built. Equal
inputs give equal bytes. It follows that a bundle's own contents say what its bytes must be, to the last
one, and that is what a reader checks: no bit of the file can change unseen.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from airflow_mlops.delivery.tree import MAX_BYTES, MAX_FILES, Tree, TreeFile, overlapping, unsafe, write_tree
from airflow_mlops.exceptions import ConfigError, UntrustedArtifact
from airflow_mlops.registry.signing import Signer, Verifier
from airflow_mlops.store.content import canonical_json

MANIFEST, SIGNATURE, FILES = "bundle/manifest.json", "bundle/signature.json", "project/"
DEPLOYED = ".mlops"
DEPLOYED_MANIFEST, DEPLOYED_SIGNATURE = f"{DEPLOYED}/bundle.json", f"{DEPLOYED}/signature.json"
"""Where a deployed tree has its manifest and signature, below the top."""
FORMAT = 1
_DOMAIN = b"airflow-mlops bundle, statement version 1\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_MAX_MANIFEST = 16 * 1024 * 1024
_KEYS = {"bundle", "project", "commit", "uncommitted", "content", "files", "python", "packages"}
_REBUILD = "get the bundle again from where it was built, or build it anew"
# What zipfile raises for a file that somebody made or damaged.
_BROKEN = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, OSError, KeyError)


@dataclass(frozen=True)
class Bundle:
    """A bundle whose bytes have been checked.

    :param digest: sha256 of the file.
    :param signed_by: id of the trusted key that signed it; ``None``: none has, and none had to.
    :param signature: as it stands in the file, whether or not anybody trusts the key.
    """

    digest: str
    manifest: dict[str, Any]
    files: Tree
    signed_by: str | None
    signature: bytes | None = field(default=None, repr=False)

    @property
    def content(self) -> str:
        """What the files alone give, whatever the commit and what was installed."""
        return str(self.manifest["content"])


def content_hash(tree: Tree) -> str:
    """Return the sha256 over the paths, contents and rights of all files."""
    return hashlib.sha256(canonical_json(_listing(tree))).hexdigest()


def installed() -> dict[str, str]:
    """Return the version of every distribution that can be imported here, by its normalised name."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:  # a folder that an interrupted installation left has none
            # The first on the path is the one that is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return dict(sorted(found.items()))


def pack(
    tree: Tree,
    *,
    project: str,
    commit: str | None,
    uncommitted: bool = False,
    packages: Mapping[str, str] | None = None,
    signer: Signer | None = None,
) -> bytes:
    """Return the bytes of a bundle; equal arguments give equal bytes.

    :param commit: what the files were checked out from; ``uncommitted``: not all of them are in it.
    :param packages: versions of what is installed; default: what is here.
    :param signer: signs the manifest.
    :raises ConfigError: the files cannot be packed.
    """
    problem = next((f"the path {path!r} {why}" for path in tree if (why := unsafe(path))), None)
    if problem is None and (both := overlapping(tree)):
        problem = f"{both!r} is a file and a folder"
    if problem is None and not tree:
        problem = "there is no file to pack"
    if problem is not None:
        raise ConfigError(problem, hint="rename it, or let git ignore it")
    manifest = canonical_json(
        {
            "bundle": FORMAT,
            "project": project,
            "commit": commit,
            "uncommitted": uncommitted,
            "content": content_hash(tree),
            "files": _listing(tree),
            "python": platform.python_version(),
            "packages": dict(installed() if packages is None else packages),
        }
    )
    signature = canonical_json(signer.sign_statement(_DOMAIN + manifest)) if signer else None
    return _zip(manifest, signature, tree)


def read_bundle(source: Path | bytes, *, verifier: Verifier, digest: str | None = None) -> Bundle:
    """Check a bundle, and return what is in it.

    The file is read once; what is returned is what was checked. Nothing of it is written, imported or run.

    :param verifier: whose signatures count, and whether bundles without one are taken.
    :param digest: the sha256 that the file must have, where it is known.
    :raises UntrustedArtifact: it is no bundle, not signed as it must be, or was changed after it was built.
    :raises ConfigError: the file cannot be read.
    """
    name = "the bundle" if isinstance(source, bytes) else f"the bundle {source}"
    data = source if isinstance(source, bytes) else _bytes(source, name)
    found = hashlib.sha256(data).hexdigest()
    if digest is not None and found != digest:
        raise UntrustedArtifact(
            f"{name} is another one than was asked for: its sha256 is {found[:12]}, not {digest[:12]}", hint=_REBUILD
        )
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = _entries(archive)
            manifest_bytes = entries.pop(MANIFEST, b"")
            signature_bytes = entries.pop(SIGNATURE, None)
        manifest = _manifest(manifest_bytes)
        signature = json.loads(signature_bytes) if signature_bytes is not None else None
    except (*_BROKEN, RecursionError) as e:
        raise UntrustedArtifact(f"{name} is not a bundle, or is damaged: {e}", hint=_REBUILD) from e
    signed_by = verifier.check_statement(
        signature,
        lambda: _DOMAIN + manifest_bytes,
        name=name,
        of="manifest",
        again="where it is built and build it again",
        changed="it was changed after it was signed, or the signature is that of another bundle: " + _REBUILD,
    )
    tree = {
        path.removeprefix(FILES): TreeFile(content, _executable(manifest, path)) for path, content in entries.items()
    }
    _compare(name, manifest, tree, entries)
    if _zip(manifest_bytes, signature_bytes, tree) != data:
        raise UntrustedArtifact(f"{name} holds more, or is written otherwise, than its manifest says", hint=_REBUILD)
    return Bundle(found, manifest, tree, signed_by, signature_bytes)


def unpack(bundle: Bundle, folder: Path) -> None:
    """Write the files of a checked bundle to ``folder``, which appears whole or not at all.

    :raises ConfigError: the folder is there already, or cannot be written.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is already there", hint="name a folder that is not")
    try:
        part = Path(tempfile.mkdtemp(dir=folder.absolute().parent, prefix=f".{folder.name[:100]}."))
        try:
            write_tree(bundle.files, part / "project")
            (part / "project").rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except OSError as e:
        raise ConfigError(f"{folder} cannot be written: {e.strerror}", hint="name another folder") from e


def laid_out(bundle: Bundle) -> Tree:
    """Return the files as they are deployed: those of the project, and beside them what says whose they are.

    :raises ConfigError: the project has a folder of the name that is needed for that.
    """
    if taken := next((path for path in bundle.files if path.partition("/")[0] == DEPLOYED), None):
        raise ConfigError(f"the project has {taken}, and {DEPLOYED}/ is written by deployments", hint="rename it")
    beside = {DEPLOYED_MANIFEST: TreeFile(canonical_json(bundle.manifest))}
    if bundle.signature is not None:
        beside[DEPLOYED_SIGNATURE] = TreeFile(bundle.signature)
    return {**bundle.files, **beside}


def read_deployed(files: Tree, *, verifier: Verifier, digest: str) -> Bundle:
    """Check files that are laid out as :func:`laid_out` does; the bundle they were is put together again.

    :raises UntrustedArtifact: they are not those of the bundle ``digest``, or it is not signed as it must be.
    """
    return read_bundle(put_together(files), verifier=verifier, digest=digest)


def put_together(files: Tree) -> bytes:
    """Return the bytes of the bundle that was laid out as ``files``; whether it is one, only reading it tells."""
    tree = dict(files)
    manifest, signature = tree.pop(DEPLOYED_MANIFEST, None), tree.pop(DEPLOYED_SIGNATURE, None)
    return _zip(manifest.content if manifest else b"", signature.content if signature else None, tree)


# --- writing -------------------------------------------------------------------------------------


def _listing(tree: Tree) -> dict[str, dict[str, Any]]:
    return {
        path: {"sha256": file.sha256, "bytes": len(file.content), "executable": file.executable}
        for path, file in tree.items()
    }


def _zip(manifest: bytes, signature: bytes | None, tree: Tree) -> bytes:
    """The one way to write these contents: names sorted, not compressed, no times, no rights but one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, MANIFEST, manifest)
        if signature is not None:
            _add(archive, SIGNATURE, signature)
        for path in sorted(tree):
            _add(archive, FILES + path, tree[path].content, tree[path].executable)
    return out.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes, executable: bool = False) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = 3  # Unix, whatever writes it
    info.external_attr = (0o100755 if executable else 0o100644) << 16
    archive.writestr(info, content)


# --- reading -------------------------------------------------------------------------------------


def _bytes(path: Path, name: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(2 * MAX_BYTES + 1)
    except OSError as e:
        raise ConfigError(f"{name} cannot be read: {e.strerror}", hint="check the path") from e
    if len(data) > 2 * MAX_BYTES:
        raise UntrustedArtifact(f"{name} is larger than a bundle can be", hint=_REBUILD)
    return data


def _entries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    infos = archive.infolist()
    if len(infos) > MAX_FILES + 2 or sum(i.file_size for i in infos) > MAX_BYTES + 2 * _MAX_MANIFEST:
        raise ValueError("it is larger than a bundle can be")
    entries: dict[str, bytes] = {}
    for info in infos:
        name = info.filename
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name!r} is compressed")
        if name in entries:
            raise ValueError(f"{name!r} is in it twice")
        if (info.external_attr >> 16) not in (0o100755, 0o100644):
            raise ValueError(f"{name!r} is no plain file")
        why = unsafe(name.removeprefix(FILES))
        if why or not (name.startswith(FILES) or name in (MANIFEST, SIGNATURE)):
            raise ValueError(f"the path {name!r} {why or 'is not one of a bundle'}")
        entries[name] = archive.read(info)
    return entries


def _manifest(data: bytes) -> dict[str, Any]:
    if not data or len(data) > _MAX_MANIFEST:
        raise ValueError("it has no manifest")
    manifest = json.loads(data)
    if not isinstance(manifest, dict) or canonical_json(manifest) != data:
        raise ValueError("its manifest is not written as a bundle's is")
    if manifest.get("bundle") != FORMAT:
        raise ValueError(f"its format is {manifest.get('bundle')!r}, and this version reads {FORMAT}")
    if set(manifest) != _KEYS or not isinstance(manifest["files"], dict):
        raise ValueError("its manifest has other keys than a bundle's")
    return manifest


def _executable(manifest: dict[str, Any], name: str) -> bool:
    said = manifest["files"].get(name.removeprefix(FILES))
    return isinstance(said, dict) and said.get("executable") is True


def _compare(name: str, manifest: dict[str, Any], tree: Tree, entries: Mapping[str, bytes]) -> None:
    listed = manifest["files"]
    added, gone = sorted(set(tree) - set(listed)), sorted(set(listed) - set(tree))
    said = _listing(tree)
    changed = [path for path in tree if path in listed and said[path] != listed[path]]
    for paths, what in ((added, "is not in its manifest"), (gone, "is missing"), (changed, "was changed")):
        if paths:
            more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise UntrustedArtifact(f"{name}: {paths[0]!r} {what}{more}", hint=_REBUILD)
    if manifest["content"] != content_hash(tree) or len(entries) != len(tree):
        raise UntrustedArtifact(f"{name}: its content hash is not that of its files", hint=_REBUILD)
    if both := overlapping(tree):
        raise UntrustedArtifact(f"{name}: {both!r} is a file and a folder", hint=_REBUILD)
