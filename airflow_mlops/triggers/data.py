"""Fires when files appear or change."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from airflow_mlops.exceptions import DataNotFound
from airflow_mlops.triggers.base import PollingTrigger


def look_for_data(source: str, mlops_conn_id: str | None) -> dict[str, Any] | None:
    """List ``source`` once; returns ``{"version", "files", "newest"}``, or ``None`` if no file is there.

    ``version`` (64 hex digits) changes when a file is added, removed or rewritten; ``files`` counts
    them; ``newest`` is the one that was modified last (a local path, or an ``s3://`` URI).

    :raises DataUnavailable: the storage cannot be reached.
    """
    from airflow_mlops.hooks.mlops import MLOpsHook

    try:
        found = MLOpsHook(mlops_conn_id).files(source).expand(source)
    except DataNotFound:
        return None
    if not found:
        return None
    state = sorted((str(info.uri), str(info.version)) for info in found)
    version = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    newest = max(found, key=lambda info: (info.modified, info.uri))
    return {"version": version, "files": len(found), "newest": newest.uri}


class NewDataTrigger(PollingTrigger):
    """Fires when the files behind ``source`` differ from those of ``since``.

    The event: ``{"version", "files", "newest"}``; see :func:`look_for_data`.

    :param source: path, URI or glob, on local disk or S3; relative paths start at ``[mlops] data_root``.
    :param since: a ``version`` already seen; ``None``: any file is news.
    """

    def __init__(self, source: str, since: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.since = since

    def arguments(self) -> dict[str, Any]:
        """Return ``source`` and ``since``."""
        return {"source": self.source, "since": self.since}

    def look(self) -> dict[str, Any] | None:
        """List the files."""
        return look_for_data(self.source, self.mlops_conn_id)

    def is_news(self, found: dict[str, Any]) -> bool:
        """Whether the files are not those of ``since``."""
        return found["version"] != self.since
