"""The repository that a project is delivered from, and through: a remote, worked on in copies that are thrown away."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from airflow_mlops.config.harmless import harmless
from airflow_mlops.delivery.git import GitTimeout, run_git, said
from airflow_mlops.delivery.tree import MAX_BYTES, MAX_FILES, Tree, TreeFile
from airflow_mlops.exceptions import BranchChanged, ConfigError, DeliveryError, RemoteUnavailable

SECONDS = 600.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# A hook of the user would run with the remote's credentials, and could refuse or change what is pushed.
_QUIET = ("-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", "-c", "protocol.ext.allow=never")
# What git, ssh and curl say where another try cannot help.
_REFUSED = (
    "authentication failed", "permission denied", "could not read username", "could not read password",
    "host key verification failed", "repository not found", "the requested url returned error: 40", "not authorized",
)  # fmt: skip
_PERSON = "airflow-mlops <delivery@airflow-mlops.invalid>"


@dataclass(frozen=True)
class Named:
    """A commit, and the branch or tag that it was asked for by.

    :param ref: ``refs/heads/…`` or ``refs/tags/…``; ``None``: it was asked for by its own name.
    """

    commit: str
    ref: str | None = None


@dataclass(frozen=True)
class Remote:
    """A git repository elsewhere.

    :param url: what git takes for one, without credentials.
    :param environment: variables for git that lead it to credentials.
    """

    url: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def tips(self, *patterns: str) -> dict[str, str]:
        """Return the refs that match, with what they point to; a tag that is an object shows as ``…^{}`` too.

        :raises RemoteUnavailable: the remote cannot be reached.
        :raises DeliveryError: it refuses.
        """
        with tempfile.TemporaryDirectory(prefix="mlops-git-") as scratch:
            listed = self.must(Path(scratch), "ls-remote", "--quiet", "--", self.url, *patterns)
        found = {}
        for line in listed.decode(errors="surrogateescape").splitlines():
            commit, _, ref = line.partition("\t")
            found[ref] = commit
        return found

    def find(self, ref: str) -> Named:
        """Return the commit that a branch, a tag or a commit's own 40 digits name.

        :raises ConfigError: there is no such thing there, or a branch and a tag of that name.
        """
        if _COMMIT.fullmatch(ref):
            return Named(ref)
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        if not ref or ref.startswith("-") or any(c in ref for c in "*?[\\ ~^:") or not ref.isprintable():
            raise ConfigError(f"{ref[:100]!r} cannot be the name of a branch or tag", hint="name one, or a commit")
        found = self.tips(*names, *(f"{name}^{{}}" for name in names))
        there = [name for name in names if name in found]
        if len(there) != 1:
            what = f"a branch and a tag {ref!r}" if there else f"no branch, tag or commit {ref[:100]!r}"
            raise ConfigError(
                f"there is {what} in {self.url}",
                hint="write refs/heads/… or refs/tags/…" if there else "check the name; a commit needs all its digits",
            )
        return Named(found.get(f"{there[0]}^{{}}", found[there[0]]), there[0])

    def checkout(self, ref: str, folder: Path) -> Named:
        """Clone to ``folder``, which must not be there, and check out what ``ref`` names, with the whole history.

        :raises ConfigError: as :meth:`find` does, or there is no such commit.
        """
        found = self.find(ref)
        self.must(folder.parent, "clone", "--quiet", "--no-checkout", "--template=", "--", self.url, str(folder))
        done = run_git(folder, *_QUIET, "checkout", "--quiet", "--detach", found.commit)
        if done.returncode:
            raise ConfigError(
                f"the commit {found.commit[:12]} cannot be checked out of {self.url}: {said(done)}",
                hint="is it pushed, and on a branch or tag?",
            )
        return found

    def check_unmoved(self, source: Named) -> None:
        """Check that the branch still has the commit, and that the tag still names it.

        :raises BranchChanged: the tag names another commit or is gone, or the branch was force-pushed.
        """
        if source.ref is None:
            return
        short = source.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        tips = self.tips(source.ref, f"{source.ref}^{{}}")
        now = tips.get(f"{source.ref}^{{}}", tips.get(source.ref))
        if now == source.commit:
            return
        if source.ref.startswith("refs/tags/"):
            what = f"names {now[:12]} now" if now else "is gone"
            raise BranchChanged(
                f"the tag {short} was {source.commit[:12]} when it was checked out, and {what}",
                hint="find out who moved it; then make a new tag, and deliver that",
            )
        with self.copy(source.ref) as copy:
            if now is None or not copy.has(source.commit, source.ref):
                what = "was force-pushed" if now else "is gone"
                raise BranchChanged(
                    f"the branch {short} {what}: it has no commit {source.commit[:12]} any more",
                    hint="deliver what the branch holds now",
                )

    @contextmanager
    def copy(self, *refs: str) -> Iterator[Copy]:
        """Yield a bare copy with the history of those of ``refs`` that are there; it is removed at the end.

        :raises RemoteUnavailable: the remote cannot be reached.
        :raises DeliveryError: it refuses.
        """
        with tempfile.TemporaryDirectory(prefix="mlops-git-") as scratch:
            copy = Copy(Path(scratch), self)
            copy.must("init", "--quiet", "--bare", "--template=")
            copy.fetch(*refs)
            yield copy

    def must(self, folder: Path, *arguments: str) -> bytes:
        """As :meth:`run`; another exit code than 0 is an error.

        :raises RemoteUnavailable: the remote cannot be reached.
        :raises DeliveryError: it refuses.
        """
        done = self.run(folder, *arguments)
        if done.returncode:
            raise self.failed(said(done), done.stderr)
        return done.stdout

    def run(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run git with the remote's credentials.

        :raises RemoteUnavailable: the remote did not answer in time.
        """
        try:
            return run_git(folder, *_QUIET, *arguments, environment=self.environment, seconds=SECONDS)
        except GitTimeout as e:
            raise RemoteUnavailable(f"{self.url}: {e.message}", hint="is the remote up?") from e

    def failed(self, what: str, output: bytes) -> DeliveryError:
        """The error for what git said of the remote."""
        if any(text in output.decode(errors="replace").lower() for text in _REFUSED):
            return DeliveryError(
                f"the remote {self.url} refuses: {what}",
                hint="check the credentials of the connection, and that they may push to the environments' branches",
            )
        return RemoteUnavailable(
            f"the remote {self.url} cannot be reached: {what}", hint="check the address, and that the remote is up"
        )


@dataclass(frozen=True)
class Copy:
    """A bare copy of a remote, for one piece of work."""

    folder: Path
    remote: Remote

    def fetch(self, *refs: str) -> None:
        """Bring those of ``refs`` that are there up to date."""
        tips = self.remote.tips(*refs)
        if there := [f"+{ref}:{ref}" for ref in refs if ref in tips]:
            quiet = ("--quiet", "--no-tags", "--no-write-fetch-head")
            self.remote.must(self.folder, "fetch", *quiet, "--", self.remote.url, *there)

    def must(self, *arguments: str, given: bytes | None = None) -> bytes:
        """Run git here.

        :raises DeliveryError: it failed.
        """
        done = run_git(self.folder, *_QUIET, *arguments, given=given)
        if done.returncode:
            raise DeliveryError(f"git {arguments[0]} failed: {said(done)}", hint="is the disk full?")
        return done.stdout

    def tip(self, ref: str) -> str | None:
        """The commit of a ref; ``None``: it was not there."""
        done = run_git(self.folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
        return done.stdout.decode().strip() or None

    def has(self, commit: str, ref: str) -> bool:
        """Whether the history of ``ref`` has the commit."""
        return run_git(self.folder, "merge-base", "--is-ancestor", commit, ref).returncode == 0

    def commits(self, ref: str) -> list[RawCommit]:
        """The history of a ref, oldest first, with every parent."""
        listed = self.must("log", "-z", "--topo-order", "--reverse", "--format=%H %T %P%n%ct%n%an <%ae>%n%B", ref, "--")
        found = []
        for text in listed.decode(errors="replace").split("\0"):
            if text:
                ids, when, who, message = text.split("\n", 3)
                commit, tree, *parents = ids.split()
                found.append(RawCommit(commit, tree, tuple(parents), int(when), who, message.rstrip("\n")))
        return found

    def files(self, commit: str) -> dict[str, TreeFile]:
        """Read every file of a commit, as it is stored.

        :raises ValueError: there is something other than plain files, or too much.
        """
        listed = self.must("ls-tree", "-r", "-l", "-z", "--full-tree", commit).decode(errors="surrogateescape")
        entries = [line.split("\t", 1) for line in listed.split("\0") if line]
        about = [meta.split() for meta, _ in entries]
        if any(mode not in ("100644", "100755") for mode, *_ in about):
            raise ValueError("it holds something other than plain files")
        if len(about) > MAX_FILES + 2 or sum(int(size) for *_, size in about) > 2 * MAX_BYTES:
            raise ValueError("it is larger than a bundle can be")
        batch = self.must("cat-file", "--batch", given="".join(f"{blob}\n" for _, _, blob, _ in about).encode())
        found, at = {}, 0
        for (mode, _, _, size), (_, path) in zip(about, entries, strict=True):
            at = batch.index(b"\n", at) + 1
            found[path] = TreeFile(batch[at : at + int(size)], mode == "100755")
            at += int(size) + 1
        return found

    def commit(self, content: Tree | str, *, parent: str | None, message: str, at: int) -> str:
        """Make a commit, here only; returns its name. Equal arguments make equal commits.

        :param content: the files, or the name of a tree that is here.
        :param at: seconds since 1970.
        """
        out = [b"commit refs/work\n", f"committer {_PERSON} {at} +0000\n".encode(), _data(message.encode() + b"\n")]
        out += [f"from {parent}\n".encode()] if parent else []
        if isinstance(content, str):
            out.append(f'M 040000 {content} ""\n'.encode())
        else:
            out.append(b"deleteall\n")
            for path, file in content.items():
                quoted = path.replace("\\", "\\\\").replace('"', '\\"')
                out += [f'M {"100755" if file.executable else "100644"} inline "{quoted}"\n'.encode()]
                out += [_data(file.content)]
        self.must("fast-import", "--quiet", "--force", given=b"".join(out))
        return self.must("rev-parse", "refs/work").decode().strip()

    def converted(self, commit: str, files: Tree) -> str | None:
        """The first of ``files`` whose content a checkout of the commit would change; ``None``: it changes none.

        Only ``.gitattributes`` can ask for that: line ends, keywords, encodings, filters.
        """
        if not any(path.rpartition("/")[2] == ".gitattributes" for path in files):
            return None
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="tree-") as tree:
            self.must(f"--work-tree={tree}", "checkout", "--quiet", "--force", commit, "--", ".")
            return next((path for path, f in files.items() if Path(tree, path).read_bytes() != f.content), None)

    def push(self, commit: str, ref: str, *, expected: str | None) -> str | None:
        """Set a remote ref to ``commit``, which follows ``expected``, if that is what it is now.

        :param expected: ``None``: the ref must not be there.
        :return: ``None``: it is done; else what git said. Whether it was done all the same, only a look can tell.
        """
        lease = f"--force-with-lease={ref}:{expected or ''}"
        done = self.remote.run(self.folder, "push", "--porcelain", lease, "--", self.remote.url, f"{commit}:{ref}")
        if done.returncode == 0:
            self.must("update-ref", ref, commit)
            return None
        refused = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("!")]
        told = [
            line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.startswith("remote: ")
        ]
        why = refused[0].rpartition("\t")[2] if refused else said(done)
        return harmless(f"{why}: {told[0].removeprefix('remote: ')[:300]}" if told else why)


@dataclass(frozen=True)
class RawCommit:
    """A commit as git has it; ``at`` is in seconds since 1970."""

    commit: str
    tree: str
    parents: tuple[str, ...]
    at: int
    by: str
    message: str


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)
