"""The git repository around a project, by git's own commands; nothing in it is changed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from airflow_mlops.delivery.git import run_git, said
from airflow_mlops.delivery.tree import TreeFile, read_tree
from airflow_mlops.exceptions import ConfigError


@dataclass(frozen=True)
class Repository:
    """A project's folder in a git checkout.

    :param folder: the project; it may lie below the top of the checkout.
    :param prefix: where it lies there, ``""`` or ``crm/``.
    :param head: the commit that is checked out.
    """

    folder: Path
    prefix: str
    head: str

    @classmethod
    def around(cls, folder: Path) -> Repository:
        """Find the checkout that ``folder`` lies in.

        :raises ConfigError: there is none, it has no commit yet, or git is not installed.
        """
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}", hint="name the project's folder")
        inside = run_git(folder, "rev-parse", "--show-prefix")
        if inside.returncode:
            raise ConfigError(
                f"{folder} is not in a git repository: {said(inside)}",
                hint=f"make it one: git init {folder} && cd {folder} && git add -A && git commit -m 'First version'",
            )
        head = run_git(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        if head.returncode:
            raise ConfigError(f"{folder} has no commit yet", hint="git add -A && git commit -m 'First version'")
        return cls(folder, os.fsdecode(inside.stdout).rstrip("\n"), head.stdout.decode().strip())

    def base(self, ref: str) -> str:
        """Return the commit that HEAD and ``ref`` have in common last: what ``ref`` gained since is no change of ours.

        :raises ConfigError: there is no such commit here.
        """
        found = run_git(self.folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if found.returncode or not ref:
            raise ConfigError(
                f"there is no commit {ref[:100]!r} in this repository",
                hint="check the name; a shallow clone has no history: fetch it with `git fetch --unshallow`, "
                "or in CI with fetch-depth: 0 (GitHub), GIT_DEPTH: 0 (GitLab)",
            )
        commit = found.stdout.decode().strip()
        common = run_git(self.folder, "merge-base", commit, self.head)
        return common.stdout.decode().split("\n")[0].strip() or commit

    def uncommitted(self) -> list[str]:
        """What differs from HEAD, as ``git status`` tells it: `` M path``, ``?? path``."""
        told = self._must("status", "--porcelain", "-z", "--no-renames", "--", ".")
        return [line for line in os.fsdecode(told).split("\0") if line]

    def files(self) -> dict[str, TreeFile]:
        """Read the project's files as they lie there, without those that git ignores.

        :raises ConfigError: as :func:`~airflow_mlops.delivery.tree.read_tree` does.
        """
        listed = self._must("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
        return read_tree(self.folder, {path for path in os.fsdecode(listed).split("\0") if path})

    def files_at(self, commit: str) -> dict[str, TreeFile]:
        """Read the project's files at a commit; none, where it was not there yet.

        They are checked out with an index of their own: neither the work tree nor the repository's index is touched.

        :raises ConfigError: as :meth:`files` does.
        """
        at = f"{commit}:{self.prefix}"
        if run_git(self.folder, "rev-parse", "--verify", "--quiet", at).returncode:
            return {}
        with tempfile.TemporaryDirectory(prefix="mlops-git-") as scratch:
            environment = {"GIT_INDEX_FILE": f"{scratch}/index"}
            self._must("read-tree", at, environment=environment)
            top = os.fsdecode(self._must("rev-parse", "--show-toplevel")).rstrip("\n")
            self._must("checkout-index", "--all", f"--prefix={scratch}/tree/", folder=top, environment=environment)
            listed = self._must("ls-tree", "-r", "-z", "--name-only", "--full-tree", at)
            return read_tree(Path(scratch, "tree"), {path for path in os.fsdecode(listed).split("\0") if path})

    def _must(self, *arguments: str, folder: str | None = None, environment: dict[str, str] | None = None) -> bytes:
        done = run_git(Path(folder or self.folder), *arguments, environment=environment)
        if done.returncode:
            raise ConfigError(f"git {arguments[0]} failed: {said(done)}", hint="run `git status` in the project")
        return done.stdout


def initialise(folder: Path) -> bool:
    """Make ``folder`` a git repository whose branch is ``main``, unless it lies in one already.

    :return: whether it was made one.
    :raises ConfigError: git is not installed, or refuses.
    """
    if run_git(folder, "rev-parse", "--show-prefix").returncode == 0:
        return False
    done = run_git(folder, "init", "--quiet", "--initial-branch=main")
    if done.returncode:
        raise ConfigError(f"git init failed: {said(done)}", hint="git 2.28 or newer is needed")
    return True
