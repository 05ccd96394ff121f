"""Fires when a project's repository has something new to deliver."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from airflow_mlops.triggers.base import PollingTrigger

# A release: anything without digits, then numbers and dots. Not v1.0-rc1, which comes before v1.0.
_RELEASE = re.compile(r"(?P<prefix>\D*)(?P<numbers>\d+(\.\d+)*)")


def look_for_commit(
    remote: str | None, conn_id: str | None, branch: str = "main", tags: str | None = None
) -> dict[str, Any] | None:
    """Return ``{"version", "commit", "ref"}`` of what is newest in a repository; ``None``: nothing is there.

    ``version`` is the branch's commit, or the name of the highest tag: one that is moved is not new.

    :param tags: a pattern such as ``v*``; then tags that end with a release's number count, and the branch does not.
    :raises RemoteUnavailable: the remote cannot be reached.
    :raises DeliveryError: it refuses.
    """
    from airflow_mlops.config.project import Project
    from airflow_mlops.hooks.delivery import opened_remote

    with opened_remote(Project.model_construct(remote=remote, conn_id=conn_id, environments={}), Path("/")) as here:
        found = here.tips(f"refs/heads/{branch}" if tags is None else f"refs/tags/{tags}")
    if tags is None:
        ref = f"refs/heads/{branch}"
        commit = found.get(ref)
        return {"version": commit, "commit": commit, "ref": ref} if commit else None
    newest = newest_release([name for name in found if not name.endswith("^{}")])
    if newest is None:
        return None
    # A tag that is an object of its own has the commit behind it.
    return {"version": newest, "commit": found.get(f"{newest}^{{}}", found[newest]), "ref": newest}


def newest_release(refs: list[str]) -> str | None:
    """The one with the highest number; ``None``: none of them is a release."""
    numbered = [(found, ref) for ref in refs if (found := _RELEASE.fullmatch(ref.rpartition("/")[2]))]
    key = [([int(part) for part in found["numbers"].split(".")], ref) for found, ref in numbered]
    return max(key)[1] if key else None


class NewCommitTrigger(PollingTrigger):
    """Fires when a branch has another commit than before, or when there is a tag of a higher release.

    The event: ``{"version", "commit", "ref"}``; see :func:`look_for_commit`.

    :param remote: address of the repository; ``None``: the host of ``conn_id``.
    :param conn_id: connection of type git with the credentials.
    :param branch: the branch that counts, where ``tags`` is not given.
    :param tags: a pattern such as ``v*``.
    """

    def __init__(
        self,
        remote: str | None = None,
        conn_id: str | None = None,
        branch: str = "main",
        tags: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.remote = remote
        self.conn_id = conn_id
        self.branch = branch
        self.tags = tags

    def arguments(self) -> dict[str, Any]:
        """Return ``remote``, ``conn_id``, ``branch`` and ``tags``."""
        return {"remote": self.remote, "conn_id": self.conn_id, "branch": self.branch, "tags": self.tags}

    def look(self) -> dict[str, Any] | None:
        """Ask the remote what its refs are; nothing is fetched."""
        return look_for_commit(self.remote, self.conn_id, self.branch, self.tags)

    def is_news(self, found: dict[str, Any]) -> bool:
        """Whether there is anything; what was seen before is known to the loop."""
        return True
