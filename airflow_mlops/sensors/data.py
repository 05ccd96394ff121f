"""Waits for new data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_mlops.sensors.base import MLOpsSensor, given

if TYPE_CHECKING:
    from airflow_mlops.triggers.data import NewDataTrigger


class NewDataSensor(MLOpsSensor):
    """Waits until the files behind ``source`` are there and differ from those of ``since``.

    XCom: ``{"version", "files": count, "newest": URI}``. Give that ``version`` as the next run's
    ``since`` to wait for a change.

    :param source: path, URI or glob, on local disk or S3; relative paths start at ``[mlops] data_root``.
    :param since: a ``version`` already seen; ``None``: any file will do.
    """

    template_fields: Sequence[str] = ("source", "since")

    def __init__(self, *, source: str, since: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.since = since

    def trigger(self) -> NewDataTrigger:
        """Return the trigger that lists the files."""
        from airflow_mlops.triggers.data import NewDataTrigger

        return NewDataTrigger(self.source, given(self.since), **self.trigger_arguments)
