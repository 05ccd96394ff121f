"""Let go of rows that are older than a pipeline keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_mlops.config.models import Retention, length
from airflow_mlops.operators.base import MLOpsOperator, RunScope, section

if TYPE_CHECKING:
    from airflow.sdk import Context


class RetentionOperator(MLOpsOperator):
    """Release old snapshots and captures, on the record; garbage collection deletes them later.

    Never those of the champion, the challenger and the champion before. Ages count from the end of the
    run's window, so that a replay of the past keeps what it needs; a rehearsal releases nothing.

    Returns ``{"snapshots", "captures", "kept"}``: how many of each.

    :param retention: the ``retention`` section as in YAML.
    """

    def __init__(self, *, retention: Retention | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.retention = section(Retention, retention)

    def work(self, scope: RunScope, context: Context) -> dict[str, Any]:
        """Release what is too old."""
        from airflow_mlops.registry.retention import expire

        if not scope.promote:
            self.log.info("A rehearsal releases nothing")
            return {"snapshots": 0, "captures": 0, "kept": 0}
        done = expire(
            self.hook.store(),
            self.pipeline,
            snapshots=length(self.retention.snapshots),
            captures=length(self.retention.captures),
            now=scope.window.end if scope.window else None,
        )
        self.log.info("%s", done.sentence)
        return {"snapshots": len(done.snapshots), "captures": len(done.captures), "kept": done.kept}
